//! `inn forecast`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::{Format, Global, Verdict, json};
use anyhow::Result;
use innkeeper_api::proto::{
    BusyMinute, ForecastHour, ForecastRequest, ForecastResponse, NamedTriggers, TaskForecast,
};
use innkeeper_domain::limits::FORECAST_HOURS_MAX;
use serde_json::{Value, json};

/// Hours that are shown one by one; of more, the same hours of all days are added up.
const HOURS_APART: usize = 49;
/// Characters of the longest bar.
const BAR: u64 = 40;
/// Tasks that the table shows.
const TASKS_SHOWN: usize = 30;

/// Tell from the schedules alone what will run when, where it piles up, and which quotas stand in the way
///
/// Windows, jitter, holidays and the most runs of triggers are respected. It doesn't know how long runs take: fixed delays
/// are reckoned as if theirs took no time, and that a trigger skips times while its run is unfinished isn't foreseen.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn forecast
  inn forecast --hours 168 --task report
  inn forecast -o json")]
pub struct Args {
    /// How far to look ahead
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=i64::from(FORECAST_HOURS_MAX)))]
    hours: u32,
    /// Only this task
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    let request = ForecastRequest { hours: args.hours, task: args.task.unwrap_or_default() };
    let forecast = client.forecasts().forecast(call(request)).await?.into_inner();
    match global.output {
        Format::Json => output::json(&forecast_json(&forecast))?,
        Format::Table => show(&forecast)?,
    }
    Ok(Verdict::Succeeded)
}

fn show(forecast: &ForecastResponse) -> Result<()> {
    let (from, until) = (output::instant(forecast.from), output::instant(forecast.until));
    output::line(&format!("{from} to {until}: {}", counted(forecast.runs, "run")))?;
    for remark in remarks(forecast) {
        output::line(&format!("- {remark}"))?;
    }
    if forecast.runs == 0 {
        return Ok(());
    }
    output::line("")?;
    tasks(&forecast.tasks, forecast.more_tasks)?;
    output::line("")?;
    minutes(&forecast.minutes)?;
    output::line("")?;
    histogram(&forecast.hours).iter().try_for_each(|line| output::line(line))
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What there is to know of it, the gravest first.
fn remarks(forecast: &ForecastResponse) -> Vec<String> {
    let mut remarks: Vec<String> =
        forecast.warnings.iter().map(|warning| format!("warning: {}", warning.text)).collect();
    if forecast.incomplete_from.is_some() {
        let from = output::instant(forecast.incomplete_from);
        remarks.push(format!(
            "there are too many times: nothing from {from} on is in it; ask for fewer hours, or for one task"
        ));
    }
    if forecast.more_triggers {
        remarks.push(format!(
            "there are too many triggers: only the first {} by name are in it; ask for one task",
            forecast.triggers
        ));
    }
    let mut named = |triggers: &Option<NamedTriggers>, said: &str| {
        if let Some(triggers) = triggers.as_ref().filter(|triggers| triggers.count > 0) {
            let count = counted(triggers.count, "trigger");
            let more = triggers.count > triggers.names.len() as u64;
            let and_more = if more { " .." } else { "" };
            remarks.push(format!("{count} {said}: {}{and_more}", triggers.names.join(", ")));
        }
    };
    named(&forecast.paused, "left out, being paused");
    named(
        &forecast.estimated,
        "with a fixed delay, reckoned as if runs took no time, so that there will be fewer",
    );
    named(&forecast.overdue, "due just now: what comes of times that have passed is left out");
    named(&forecast.unreadable, "left out, for their schedules can't be read");
    remarks
}

fn tasks(tasks: &[TaskForecast], more_tasks: u64) -> Result<()> {
    const COLUMNS: &[Column] = &[text("task"), number("runs"), text("first"), text("last")];
    let mut rows: Vec<Vec<String>> = tasks
        .iter()
        .take(TASKS_SHOWN)
        .map(|task| {
            let about = if task.estimated > 0 { "up to " } else { "" };
            vec![
                task.task.clone(),
                format!("{about}{}", task.runs),
                output::instant(task.first),
                output::instant(task.last),
            ]
        })
        .collect();
    let more = more_tasks + tasks.len().saturating_sub(TASKS_SHOWN) as u64;
    if more > 0 {
        rows.push(vec![format!("and {more} more"), String::new(), String::new(), String::new()]);
    }
    output::rows(Format::Table, COLUMNS, rows, || Value::Null)
}

fn minutes(minutes: &[BusyMinute]) -> Result<()> {
    const COLUMNS: &[Column] = &[text("busiest minutes"), number("runs"), number("at once"), text("tasks")];
    let rows = minutes.iter().map(|minute| {
        let mut tasks: Vec<String> =
            minute.tasks.iter().map(|of| format!("{} {}", of.runs, of.task)).collect();
        if minute.more_tasks > 0 {
            tasks.push(format!("{} more", minute.more_tasks));
        }
        vec![
            output::instant(minute.at),
            minute.runs.to_string(),
            minute.at_once.to_string(),
            tasks.join(", "),
        ]
    });
    output::rows(Format::Table, COLUMNS, rows.collect(), || Value::Null)
}

/// A bar for each hour, in UTC.
fn histogram(hours: &[ForecastHour]) -> Vec<String> {
    let hour = |of: &ForecastHour| of.at.map_or(0, |at| at.seconds.div_euclid(3_600));
    let (heading, bars): (&str, Vec<(String, u64)>) = if hours.len() <= HOURS_APART {
        let bars = hours.iter().map(|of| {
            let day = output::instant(of.at);
            (day.get(5..16).unwrap_or_default().replace('T', " "), of.runs)
        });
        ("hour (UTC)", bars.collect())
    } else {
        let mut sums = [0; 24];
        for of in hours {
            sums[usize::try_from(hour(of).rem_euclid(24)).unwrap_or(0)] += of.runs;
        }
        let bars = (0..).zip(sums).map(|(hour, runs): (u32, u64)| (format!("{hour:02}:00"), runs));
        ("hour of the day (UTC)", bars.collect())
    };
    let most = bars.iter().map(|(_, runs)| *runs).max().unwrap_or(0).max(1);
    let width = bars.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let digits = most.to_string().len();
    let bar = |(label, runs): &(String, u64)| {
        // One that isn't empty is seen.
        let length = u128::from(*runs) * u128::from(BAR) / u128::from(most);
        let length = usize::try_from(length).unwrap_or(0).max(usize::from(*runs > 0));
        format!(" {label:width$}  {runs:>digits$}  {}", "#".repeat(length)).trim_end().to_string()
    };
    std::iter::once(format!(" {}", heading.to_uppercase())).chain(bars.iter().map(bar)).collect()
}

fn forecast_json(forecast: &ForecastResponse) -> Value {
    let named = |triggers: &Option<NamedTriggers>| {
        let triggers = triggers.clone().unwrap_or_default();
        json!({"count": triggers.count, "names": triggers.names})
    };
    let minute = |minute: &BusyMinute| {
        json!({
            "at": json::instant(minute.at),
            "runs": minute.runs,
            "at_once": minute.at_once,
            "tasks": minute.tasks.iter().map(|of| json!({"task": of.task, "runs": of.runs})).collect::<Vec<_>>(),
            "more_tasks": minute.more_tasks,
        })
    };
    let task = |task: &TaskForecast| {
        json!({
            "task": task.task,
            "runs": task.runs,
            "estimated": task.estimated,
            "first": json::instant(task.first),
            "last": json::instant(task.last),
        })
    };
    json!({
        "from": json::instant(forecast.from),
        "until": json::instant(forecast.until),
        "incomplete_from": json::instant(forecast.incomplete_from),
        "runs": forecast.runs,
        "tasks": forecast.tasks.iter().map(task).collect::<Vec<_>>(),
        "more_tasks": forecast.more_tasks,
        "minutes": forecast.minutes.iter().map(minute).collect::<Vec<_>>(),
        "hours": forecast.hours.iter().map(|hour| json!({"at": json::instant(hour.at), "runs": hour.runs})).collect::<Vec<_>>(),
        "paused": named(&forecast.paused),
        "estimated": named(&forecast.estimated),
        "overdue": named(&forecast.overdue),
        "unreadable": named(&forecast.unreadable),
        "warnings": forecast.warnings.iter().map(|warning| json!({"kind": warning.kind, "text": warning.text})).collect::<Vec<_>>(),
        "triggers": forecast.triggers,
        "more_triggers": forecast.more_triggers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(runs: impl IntoIterator<Item = u64>) -> Vec<ForecastHour> {
        let at = |hour: i64| Some(prost_types::Timestamp { seconds: hour * 3_600, nanos: 0 });
        (0..).zip(runs).map(|(hour, runs)| ForecastHour { at: at(hour), runs }).collect()
    }

    #[test]
    fn a_bar_is_as_long_as_there_are_runs() {
        let lines = histogram(&hours([0, 1, 400, 200]));
        assert_eq!(lines[..3], [" HOUR (UTC)", " 01-01 00:00    0", " 01-01 01:00    1  #"]);
        assert_eq!(lines[3], format!(" 01-01 02:00  400  {}", "#".repeat(40)));
        assert_eq!(lines[4], format!(" 01-01 03:00  200  {}", "#".repeat(20)));
        let week = histogram(&hours((0..168).map(|hour| u64::from(hour % 24 == 3))));
        assert_eq!((week.len(), week[4].as_str()), (25, format!(" 03:00  7  {}", "#".repeat(40)).as_str()));
        assert_eq!(histogram(&[]), [" HOUR (UTC)"]);
    }

    #[test]
    fn what_is_left_out_is_said() {
        let names = |count, names: &[&str]| {
            Some(NamedTriggers { count, names: names.iter().map(ToString::to_string).collect() })
        };
        let forecast = ForecastResponse {
            paused: names(1, &["a"]),
            estimated: names(3, &["b", "c"]),
            overdue: names(0, &[]),
            more_triggers: true,
            triggers: 100_000,
            ..ForecastResponse::default()
        };
        let remarks = remarks(&forecast);
        assert!(remarks[0].contains("only the first 100000 by name"), "{remarks:?}");
        assert_eq!(remarks[1], "1 trigger left out, being paused: a");
        assert!(remarks[2].starts_with("3 triggers with a fixed delay") && remarks[2].ends_with("b, c .."));
        assert_eq!(remarks.len(), 3);
    }
}
