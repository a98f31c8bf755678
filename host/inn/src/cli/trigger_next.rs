//! Schedules on the command line, and `inn trigger next`.

use super::client::{Client, call};
use super::{Format, Global, Usage, output, parse, task};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::schedule::{Cron, FixedDelay, Interval, Kind};
use innkeeper_api::proto::{self, ListTimesRequest};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{CronSchedule, Fold, Gap, Schedule};
use innkeeper_domain::limits::NEXT_TIMES_MAX;
use serde_json::Value;
use std::time::Duration;

/// When: one of the three.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "schedule", multiple = true)]
pub struct ScheduleOptions {
    /// A cron expression of 5 fields; also with seconds before, and a year after them; also @daily and the like
    #[arg(long, value_name = "EXPR", conflicts_with_all = ["every", "at"])]
    cron: Option<String>,
    /// The time zone of the cron expression, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "cron")]
    tz: Option<String>,
    /// How the cron expression is read: crontab, quartz or rust (as the crate `cron` reads it)
    #[arg(long, value_name = "DIALECT", requires = "cron")]
    dialect: Option<String>,
    /// What becomes of a time that a change of the clock skips: run-after (at the end of the gap) or skip
    #[arg(long, value_name = "RULE", requires = "cron")]
    gap: Option<Gap>,
    /// What becomes of a time that a change of the clock repeats: once (the first time) or twice
    #[arg(long, value_name = "RULE", requires = "cron")]
    fold: Option<Fold>,
    /// An interval, such as 90s; counted from now
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, conflicts_with = "at")]
    every: Option<Duration>,
    /// Count the interval from the end of the last run
    #[arg(long, requires = "every")]
    fixed_delay: bool,
    /// Once, at an instant (RFC 3339), or 'in 10m'
    #[arg(long, value_name = "INSTANT")]
    at: Option<String>,
}

impl ScheduleOptions {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.cron.is_none() && self.every.is_none() && self.at.is_none()
    }

    fn given(&self) -> [Given; 5] {
        let cron = (self.cron.is_some(), "--cron");
        [
            Given(self.tz.is_some(), "--tz", cron),
            Given(self.dialect.is_some(), "--dialect", cron),
            Given(self.gap.is_some(), "--gap", cron),
            Given(self.fold.is_some(), "--fold", cron),
            Given(self.fixed_delay, "--fixed-delay", (self.every.is_some(), "--every")),
        ]
    }

    /// As the protocol has it.
    pub fn wire(&self) -> Result<proto::Schedule> {
        refuse_stray(&self.given())?;
        let kind = match (&self.cron, self.every, &self.at) {
            (Some(cron), ..) => Kind::Cron(Cron {
                expression: cron.clone(),
                time_zone: self.tz.clone().unwrap_or_default(),
                dialect: self.dialect.clone().unwrap_or_default(),
                gap: self.gap.map(|gap| gap.to_string()).unwrap_or_default(),
                fold: self.fold.map(|fold| fold.to_string()).unwrap_or_default(),
            }),
            (None, Some(delay), _) if self.fixed_delay => {
                Kind::FixedDelay(FixedDelay { delay: Some(task::wire(delay)?), anchor: None })
            }
            (None, Some(every), _) => {
                Kind::Interval(Interval { every: Some(task::wire(every)?), anchor: None })
            }
            (None, None, Some(at)) => {
                let at = parse::instant(at, now())?;
                Kind::Once(output::wire_instant(at))
            }
            (None, None, None) => return Err(no_schedule()),
        };
        Ok(proto::Schedule { kind: Some(kind) })
    }

    /// As the domain has it; intervals are counted from `from`.
    fn schedule(&self, from: Timestamp) -> Result<Schedule> {
        refuse_stray(&self.given())?;
        match (&self.cron, self.every, &self.at) {
            (Some(cron), ..) => {
                let dialect = self.dialect.as_deref().unwrap_or("crontab").parse().map_err(usage)?;
                let zone = self.tz.as_deref().unwrap_or("UTC");
                let mut cron = CronSchedule::new(cron, dialect, zone);
                cron.gap = self.gap.unwrap_or_default();
                cron.fold = self.fold.unwrap_or_default();
                Ok(Schedule::Cron(cron))
            }
            (None, Some(delay), _) if self.fixed_delay => Ok(Schedule::FixedDelay { delay, anchor: from }),
            (None, Some(every), _) => Ok(Schedule::Interval { every, anchor: from }),
            (None, None, Some(at)) => Ok(Schedule::Once { at: parse::instant(at, from)? }),
            (None, None, None) => Err(no_schedule()),
        }
    }
}

/// Whether an option is given, its name, and the same of the one that it goes with.
pub struct Given(pub bool, pub &'static str, pub (bool, &'static str));

/// Refuses an option without the one that it goes with. Not left to clap, which waives what is required when that
/// conflicts with something else.
pub fn refuse_stray(options: &[Given]) -> Result<()> {
    let stray = options.iter().find(|Given(given, _, (with, _))| *given && !with);
    stray.map_or(Ok(()), |Given(_, option, (_, with))| Err(usage(format!("{option} goes with {with}"))))
}

fn no_schedule() -> anyhow::Error {
    Usage("say when: --cron EXPR, --every DURATION or --at INSTANT".into()).into()
}

fn usage(error: impl std::fmt::Display) -> anyhow::Error {
    Usage(error.to_string()).into()
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trigger; or give a schedule
    #[arg(conflicts_with = "schedule")]
    name: Option<String>,
    #[command(flatten)]
    schedule: ScheduleOptions,
    /// Times after this instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    from: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 5)]
    count: usize,
}

pub async fn run(args: Args, global: &Global) -> Result<()> {
    if args.count > NEXT_TIMES_MAX {
        return Err(Usage(format!("at most {NEXT_TIMES_MAX} times can be asked for")).into());
    }
    let from = args.from.as_deref().map_or_else(|| Ok(now()), |from| parse::instant(from, now()))?;
    let times = match args.name {
        Some(trigger) => {
            let count = u32::try_from(args.count).unwrap_or(u32::MAX);
            let request = ListTimesRequest { trigger, after: Some(output::wire_instant(from)), count };
            let client = Client::connect(global).await?;
            let times = client.triggers().list_times(call(request)).await?.into_inner().times;
            times.into_iter().take(args.count).filter_map(output::domain_instant).collect()
        }
        None => {
            let schedule = args.schedule.schedule(from)?;
            let times = next(&schedule, from, args.count)?;
            if global.output == Format::Table {
                output::note(&schedule.words().map_err(usage)?);
            }
            times
        }
    };
    match global.output {
        Format::Json => {
            output::json(&Value::Array(times.iter().map(|at| Value::String(at.to_string())).collect()))
        }
        Format::Table => times.iter().try_for_each(|at| output::line(&at.to_string())),
    }
}

/// The next times of a schedule.
fn next(schedule: &Schedule, from: Timestamp, count: usize) -> Result<Vec<Timestamp>> {
    let calendar = schedule.calendar().map_err(usage)?;
    Ok(calendar.times_after(from).take(count).collect())
}

/// An interval as people write it.
pub fn every(every: Duration) -> String {
    let text = Schedule::Interval { every, anchor: Timestamp::UNIX_EPOCH }.to_string();
    text.trim_start_matches("every ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_times_of_a_schedule() {
        let options = ScheduleOptions {
            cron: Some("30 2 * * *".into()),
            tz: Some("Europe/Berlin".into()),
            ..ScheduleOptions::default()
        };
        let from = "2026-03-28T00:00:00Z".parse().unwrap();
        let times = next(&options.schedule(from).unwrap(), from, 3).unwrap();
        let times: Vec<String> = times.iter().map(ToString::to_string).collect();
        assert_eq!(times, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
        assert!(ScheduleOptions::default().schedule(from).is_err());
    }
}
