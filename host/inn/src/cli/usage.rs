//! `inn usage`.

use super::client::{Client, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Usage, Verdict};
use anyhow::Result;
use innkeeper_api::proto::{ListUsageRequest, UsageLine};
use serde_json::{Map, Value};
use std::time::Duration;

/// Show what was used, by task and day: runs, CPU time, memory, bytes
///
/// Days are in UTC. What attempts used counts on the day on which they ended; those of a lost host are on nobody's
/// bill. Without --from and --to it is the last 30 days.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn usage
  inn usage --from 2026-11-01 --to 2026-11-30 --by task
  inn usage --all --by tenant --csv > november.csv")]
pub struct Args {
    /// The first day, such as 2026-11-01
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Only this task's
    #[arg(long)]
    task: Option<String>,
    /// One line for each of these; none: a single one. If not given, one for each task and day
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Those of every tenant, for admins
    #[arg(long)]
    all: bool,
    /// Comma-separated with a header, exact: times in microseconds, sizes in bytes
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Day,
    Task,
    Tenant,
    None,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Tenant,
    Day,
    Task,
    TaskId,
}

/// Sums, of which none is too large: numbers of a bill are added as 128 bits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sum {
    keys: Vec<String>,
    used: [u128; USED.len()],
}

/// What is counted, by its name in CSV and JSON.
const USED: [&str; 8] = [
    "runs",
    "attempts",
    "cpu_micros",
    "wall_micros",
    "memory_byte_seconds",
    "input_bytes",
    "output_bytes",
    "log_bytes",
];

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    if args.csv && global.output == Format::Json {
        return Err(Usage("it is either CSV or JSON; leave one of --csv and -o json out".into()).into());
    }
    let client = Client::connect(global).await?;
    let filter = ListUsageRequest {
        from: args.from.unwrap_or_default(),
        to: args.to.unwrap_or_default(),
        task: args.task.unwrap_or_default(),
        all: args.all,
        ..ListUsageRequest::default()
    };
    let lines = pages(usize::MAX, async |page_size, page_token| {
        let request = ListUsageRequest { page_size, page_token, ..filter.clone() };
        let page = client.usage().list_usage(call(request)).await?.into_inner();
        Ok((page.lines, page.next_page_token))
    });
    let lines = lines.await?;
    let keys = keys(args.by, args.all);
    let sums = sums(&lines, keys);
    match (args.csv, global.output) {
        (true, _) => output::raw(csv(keys, &sums).as_bytes())?,
        (false, Format::Json) => {
            output::json(&Value::Array(sums.iter().map(|sum| json(keys, sum)).collect()))?
        }
        (false, Format::Table) => table(keys, sums)?,
    }
    Ok(Verdict::Succeeded)
}

fn keys(by: Option<By>, all: bool) -> &'static [Key] {
    match (by, all) {
        (None, true) => &[Key::Day, Key::Tenant, Key::Task, Key::TaskId],
        (None, false) => &[Key::Day, Key::Task, Key::TaskId],
        (Some(By::Day), _) => &[Key::Day],
        (Some(By::Task), true) => &[Key::Tenant, Key::Task, Key::TaskId],
        (Some(By::Task), false) => &[Key::Task, Key::TaskId],
        (Some(By::Tenant), _) => &[Key::Tenant],
        (Some(By::None), _) => &[],
    }
}

impl Key {
    fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Day => "day",
            Self::Task => "task",
            Self::TaskId => "task_id",
        }
    }

    fn of(self, line: &UsageLine) -> &str {
        match self {
            Self::Tenant => &line.tenant,
            Self::Day => &line.day,
            Self::Task => &line.task,
            Self::TaskId => &line.task_id,
        }
    }
}

/// One for each group of lines, in the order in which the groups come; without keys there is always one.
fn sums(lines: &[UsageLine], keys: &[Key]) -> Vec<Sum> {
    let mut sums: Vec<Sum> = Vec::new();
    if keys.is_empty() {
        sums.push(Sum::default());
    }
    let mut places = std::collections::HashMap::new();
    for line in lines {
        let group: Vec<String> = keys.iter().map(|key| key.of(line).to_string()).collect();
        let place = *places.entry(group.clone()).or_insert_with(|| {
            if !group.is_empty() {
                sums.push(Sum { keys: group, ..Sum::default() });
            }
            sums.len() - 1
        });
        add(&mut sums[place].used, &used(line));
    }
    sums
}

fn used(line: &UsageLine) -> [u128; USED.len()] {
    let micros = |duration: Option<prost_types::Duration>| {
        duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default().as_micros()
    };
    [
        line.runs.into(),
        line.attempts.into(),
        micros(line.cpu),
        micros(line.wall),
        line.memory_byte_seconds.into(),
        line.input_bytes.into(),
        line.output_bytes.into(),
        line.log_bytes.into(),
    ]
}

fn add(to: &mut [u128; USED.len()], more: &[u128; USED.len()]) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

/// As RFC 4180 has it: a header, lines that end with CR and LF.
fn csv(keys: &[Key], sums: &[Sum]) -> String {
    let header = keys.iter().map(|key| key.name().to_string()).chain(USED.map(Into::into)).collect();
    let lines = sums.iter().map(|sum| {
        sum.keys.iter().cloned().chain(sum.used.iter().map(ToString::to_string)).collect::<Vec<String>>()
    });
    let line = |fields: Vec<String>| {
        let fields: Vec<String> = fields.iter().map(|text| field(text)).collect();
        format!("{}\r\n", fields.join(","))
    };
    [header].into_iter().chain(lines).map(line).collect()
}

/// A field; in quotes if it has what would end it.
fn field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.into()
    }
}

fn json(keys: &[Key], sum: &Sum) -> Value {
    let named = keys.iter().zip(&sum.keys).map(|(key, text)| (key.name().to_string(), text.clone().into()));
    let used = USED
        .iter()
        .zip(sum.used)
        .map(|(name, number)| ((*name).to_string(), u64::try_from(number).unwrap_or(u64::MAX).into()));
    Value::Object(named.chain(used).collect::<Map<String, Value>>())
}

fn table(keys: &[Key], mut sums: Vec<Sum>) -> Result<()> {
    // Two tasks of one name, of which one is gone, are told apart in CSV and JSON.
    let shown: Vec<usize> = (0..keys.len()).filter(|at| keys[*at] != Key::TaskId).collect();
    if let Some(first) = shown.first() {
        let mut total = Sum { keys: vec![String::new(); keys.len()], ..Sum::default() };
        total.keys[*first] = "total".into();
        sums.iter().for_each(|sum| add(&mut total.used, &sum.used));
        sums.push(total);
    }
    let mut columns: Vec<Column> = shown.iter().map(|at| text(keys[*at].name())).collect();
    columns.extend(["runs", "attempts", "cpu", "wall", "memory x s", "input", "output", "log"].map(number));
    let rows = sums.iter().map(|sum| {
        let number = |at: usize| u64::try_from(sum.used[at]).unwrap_or(u64::MAX);
        let time = |at| output::duration(Duration::from_micros(number(at)));
        let mut row: Vec<String> = shown.iter().map(|at| sum.keys[*at].clone()).collect();
        row.extend([number(0).to_string(), number(1).to_string(), time(2), time(3)]);
        row.extend((4..USED.len()).map(|at| output::bytes(number(at))));
        row
    });
    output::rows(Format::Table, &columns, rows.collect(), || Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(day: &str, task: &str, runs: u64, cpu_micros: i32) -> UsageLine {
        UsageLine {
            tenant: "acme".into(),
            day: day.into(),
            task: task.into(),
            task_id: format!("id-{task}"),
            runs,
            cpu: Some(prost_types::Duration { seconds: 1, nanos: cpu_micros * 1_000 }),
            memory_byte_seconds: u64::MAX,
            ..UsageLine::default()
        }
    }

    fn lines() -> Vec<UsageLine> {
        vec![line("2026-11-02", "a", 1, 1), line("2026-11-02", "b", 2, 2), line("2026-11-01", "a", 3, 3)]
    }

    #[test]
    fn groups_are_summed_exactly_in_the_order_in_which_they_come() {
        let runs = |by| {
            let sums = sums(&lines(), keys(by, false));
            sums.into_iter().map(|sum| (sum.keys.join(" "), sum.used[0], sum.used[2])).collect::<Vec<_>>()
        };
        let of = |name: &str, runs, cpu| (name.to_string(), runs, cpu);
        assert_eq!(runs(Some(By::Day)), [of("2026-11-02", 3, 2_000_003), of("2026-11-01", 3, 1_000_003)]);
        assert_eq!(runs(Some(By::Task)), [of("a id-a", 4, 2_000_004), of("b id-b", 2, 1_000_002)]);
        assert_eq!(runs(Some(By::Tenant)), [of("acme", 6, 3_000_006)]);
        assert_eq!(runs(Some(By::None)), [of("", 6, 3_000_006)]);
        assert_eq!(runs(None).len(), 3);
        assert_eq!(sums(&[], &[]).len(), 1);
        let all = &sums(&lines(), &[])[0];
        assert_eq!(all.used[4], u128::from(u64::MAX) * 3);
    }

    #[test]
    fn csv_has_a_header_and_quotes_what_needs_it() {
        let mut lines = lines();
        lines.truncate(1);
        lines[0].task = "a \"b\", c".into();
        let keys = keys(None, true);
        assert_eq!(
            csv(keys, &sums(&lines, keys)),
            "day,tenant,task,task_id,runs,attempts,cpu_micros,wall_micros,memory_byte_seconds,input_bytes,\
             output_bytes,log_bytes\r\n\
             2026-11-02,acme,\"a \"\"b\"\", c\",id-a,1,0,1000001,0,18446744073709551615,0,0,0\r\n"
        );
        assert_eq!(field("plain"), "plain");
        assert_eq!(field("two\nlines"), "\"two\nlines\"");
    }
}
