//! Between the protocol's triggers and the domain's.

use crate::convert::{duration, from_duration, from_instant, from_payload, instant};
use crate::proto::schedule::{Cron, Interval, Kind};
use crate::proto::{self, trigger::State};
use crate::status::invalid;
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{CronSchedule, Dialect, Schedule};
use innkeeper_domain::trigger::{Trigger, TriggerSpec, TriggerState};
use std::time::Duration;
use tonic::Status;

/// Next times that an answer shows.
const NEXT_TIMES_SHOWN: usize = 5;

/// What a new trigger says; not checked yet.
pub(crate) fn spec(request: &proto::CreateTriggerRequest, now: Timestamp) -> Result<TriggerSpec, Status> {
    let mut spec = TriggerSpec::new(schedule(request.schedule.as_ref(), now)?);
    if !request.overlap.is_empty() {
        spec.overlap = request.overlap.parse().map_err(invalid)?;
    }
    if !request.catch_up.is_empty() {
        spec.catch_up = request.catch_up.parse().map_err(invalid)?;
    }
    spec.catch_up_window = duration(request.catch_up_window, spec.catch_up_window, "the catch-up window")?;
    Ok(spec)
}

fn schedule(schedule: Option<&proto::Schedule>, now: Timestamp) -> Result<Schedule, Status> {
    match schedule.and_then(|schedule| schedule.kind.as_ref()) {
        None => Err(invalid("the schedule is missing")),
        Some(Kind::Cron(cron)) => {
            let dialect = match cron.dialect.as_str() {
                "" => Dialect::Crontab,
                named => named.parse().map_err(invalid)?,
            };
            let zone = if cron.time_zone.is_empty() { "UTC" } else { &cron.time_zone };
            Ok(Schedule::Cron(CronSchedule::new(&cron.expression, dialect, zone)))
        }
        Some(Kind::Interval(interval)) => {
            let every = duration(interval.every, Duration::ZERO, "the interval")?;
            let anchor = interval.anchor.as_ref().map_or(Ok(now), |at| instant(at, "the anchor"))?;
            Ok(Schedule::Interval { every, anchor })
        }
        Some(Kind::Once(at)) => Ok(Schedule::Once { at: instant(at, "the instant")? }),
    }
}

fn from_schedule(schedule: &Schedule) -> proto::Schedule {
    let kind = match schedule {
        Schedule::Cron(cron) => Kind::Cron(Cron {
            expression: cron.expression.clone(),
            time_zone: cron.zone.clone(),
            dialect: cron.dialect.to_string(),
        }),
        Schedule::Interval { every, anchor } => Kind::Interval(Interval {
            every: Some(from_duration(*every)),
            anchor: Some(from_instant(*anchor)),
        }),
        Schedule::Once { at } => Kind::Once(from_instant(*at)),
    };
    proto::Schedule { kind: Some(kind) }
}

pub(crate) fn from_trigger(trigger: Trigger) -> proto::Trigger {
    let next_times = next_times(&trigger);
    let (state, pause_note) = match trigger.state {
        TriggerState::Active => (State::Active, String::new()),
        TriggerState::Paused { note, .. } => (State::Paused, note),
        TriggerState::Finished => (State::Finished, String::new()),
    };
    proto::Trigger {
        id: trigger.id.to_string(),
        name: trigger.name.to_string(),
        task: trigger.task.to_string(),
        schedule: Some(from_schedule(&trigger.spec.schedule)),
        input: Some(from_payload(trigger.input)),
        overlap: trigger.spec.overlap.to_string(),
        catch_up: trigger.spec.catch_up.to_string(),
        catch_up_window: Some(from_duration(trigger.spec.catch_up_window)),
        state: state.into(),
        pause_note,
        next_times: next_times.into_iter().map(from_instant).collect(),
        last_nominal_at: trigger.last_nominal.map(from_instant),
        started: trigger.started,
        skipped: trigger.skipped,
        created_at: Some(from_instant(trigger.created_at)),
    }
}

fn next_times(trigger: &Trigger) -> Vec<Timestamp> {
    let (TriggerState::Active, Some(next)) = (&trigger.state, trigger.next_at) else { return Vec::new() };
    let mut times = vec![next];
    if let Ok(calendar) = trigger.spec.schedule.calendar() {
        times.extend(calendar.times_after(next).take(NEXT_TIMES_SHOWN - 1));
    }
    times
}
