//! Schedules on the command line, and `inn trigger next`.

use super::client::{Client, call};
use super::{Format, Global, Usage, output, parse, task};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::schedule::{Cron, Interval, Kind};
use innkeeper_api::proto::{self, GetTriggerRequest};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{CronSchedule, Schedule};
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
    /// An interval, such as 90s; counted from now
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, conflicts_with = "at")]
    every: Option<Duration>,
    /// Once, at an instant (RFC 3339), or 'in 10m'
    #[arg(long, value_name = "INSTANT")]
    at: Option<String>,
}

impl ScheduleOptions {
    /// As the protocol has it.
    pub fn wire(&self) -> Result<proto::Schedule> {
        let kind = match (&self.cron, self.every, &self.at) {
            (Some(cron), ..) => Kind::Cron(Cron {
                expression: cron.clone(),
                time_zone: self.tz.clone().unwrap_or_default(),
                dialect: self.dialect.clone().unwrap_or_default(),
            }),
            (None, Some(every), _) => {
                Kind::Interval(Interval { every: Some(task::wire(every)?), anchor: None })
            }
            (None, None, Some(at)) => {
                let at = parse::instant(at, now())?;
                Kind::Once(prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
            }
            (None, None, None) => return Err(no_schedule()),
        };
        Ok(proto::Schedule { kind: Some(kind) })
    }

    /// As the domain has it; intervals are counted from `from`.
    fn schedule(&self, from: Timestamp) -> Result<Schedule> {
        match (&self.cron, self.every, &self.at) {
            (Some(cron), ..) => {
                let dialect = self.dialect.as_deref().unwrap_or("crontab").parse().map_err(usage)?;
                let zone = self.tz.as_deref().unwrap_or("UTC");
                Ok(Schedule::Cron(CronSchedule::new(cron, dialect, zone)))
            }
            (None, Some(every), _) => Ok(Schedule::Interval { every, anchor: from }),
            (None, None, Some(at)) => Ok(Schedule::Once { at: parse::instant(at, from)? }),
            (None, None, None) => Err(no_schedule()),
        }
    }
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
    let schedule = match args.name {
        Some(name) => {
            let client = Client::connect(global).await?;
            let trigger = client.triggers().get_trigger(call(GetTriggerRequest { name })).await?.into_inner();
            domain(trigger.schedule)?
        }
        None => args.schedule.schedule(from)?,
    };
    let times = next(&schedule, from, args.count)?;
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

/// The domain's schedule of the protocol's.
fn domain(schedule: Option<proto::Schedule>) -> Result<Schedule> {
    let instant = |at: Option<prost_types::Timestamp>| at.and_then(output::domain_instant);
    let read = match schedule.and_then(|schedule| schedule.kind) {
        Some(Kind::Cron(cron)) => {
            let dialect = cron.dialect.parse().map_err(usage)?;
            Some(Schedule::Cron(CronSchedule::new(&cron.expression, dialect, &cron.time_zone)))
        }
        Some(Kind::Interval(interval)) => interval
            .every
            .and_then(|every| Duration::try_from(every).ok())
            .zip(instant(interval.anchor))
            .map(|(every, anchor)| Schedule::Interval { every, anchor }),
        Some(Kind::Once(at)) => instant(Some(at)).map(|at| Schedule::Once { at }),
        None => None,
    };
    read.ok_or_else(|| {
        anyhow::anyhow!("the host gave a schedule that this `inn` can't read; use the same version")
    })
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
