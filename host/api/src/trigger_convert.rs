//! Between the protocol's triggers and the domain's.

use crate::convert::{
    duration, from_duration, from_instant, from_labels, from_payload, instant, labels, name, priority,
};
use crate::proto;
use crate::proto::schedule::{Cron, FixedDelay, Interval, Kind};
use crate::proto::trigger::{SkipCount, State};
use crate::status::invalid;
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{BundledZones, CronSchedule, Dialect, Schedule};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::limits::HOLIDAYS_SHOWN_BEYOND;
use innkeeper_domain::time;
use innkeeper_domain::timetable::Timetable;
use innkeeper_domain::trigger::{SkipReason, Trigger, TriggerSpec, TriggerState};
use std::time::Duration;
use tonic::Status;

/// Next times that an answer shows.
pub(crate) const NEXT_TIMES_SHOWN: usize = 5;

/// What a new trigger says; not checked yet.
pub(crate) fn spec(request: &proto::CreateTriggerRequest, now: Timestamp) -> Result<TriggerSpec, Status> {
    let mut spec = TriggerSpec::new(crate::trigger_rule::rule(request, now)?);
    spec.priority = priority(request.priority)?;
    if !request.overlap.is_empty() {
        spec.overlap = request.overlap.parse().map_err(invalid)?;
    }
    if !request.catch_up.is_empty() {
        spec.catch_up = request.catch_up.parse().map_err(invalid)?;
    }
    spec.catch_up_window = duration(request.catch_up_window, spec.catch_up_window, "the catch-up window")?;
    spec.not_before = request.not_before.as_ref().map(|at| instant(at, "the start")).transpose()?;
    spec.not_after = request.not_after.as_ref().map(|at| instant(at, "the end")).transpose()?;
    spec.max_runs = Some(request.max_runs).filter(|most| *most > 0);
    spec.jitter = duration(request.jitter, Duration::ZERO, "the jitter")?;
    for calendar in &request.exclude {
        if !spec.exclude.insert(name(calendar, "the holiday calendar")?) {
            return Err(invalid(format!("holiday calendar `{calendar}` is excluded twice")));
        }
    }
    spec.labels = labels(&request.labels)?;
    Ok(spec)
}

pub(crate) fn schedule(schedule: Option<&proto::Schedule>, now: Timestamp) -> Result<Schedule, Status> {
    match schedule.and_then(|schedule| schedule.kind.as_ref()) {
        None => Err(invalid("the rule is missing: a schedule, events, another task, or a webhook")),
        Some(Kind::Cron(cron)) => {
            let dialect = match cron.dialect.as_str() {
                "" => Dialect::Crontab,
                named => named.parse().map_err(invalid)?,
            };
            let zone = if cron.time_zone.is_empty() { "UTC" } else { &cron.time_zone };
            let mut schedule = CronSchedule::new(&cron.expression, dialect, zone);
            if !cron.gap.is_empty() {
                schedule.gap = cron.gap.parse().map_err(invalid)?;
            }
            if !cron.fold.is_empty() {
                schedule.fold = cron.fold.parse().map_err(invalid)?;
            }
            Ok(Schedule::Cron(schedule))
        }
        Some(Kind::Interval(interval)) => {
            let every = duration(interval.every, Duration::ZERO, "the interval")?;
            let anchor = interval.anchor.as_ref().map_or(Ok(now), |at| instant(at, "the anchor"))?;
            Ok(Schedule::Interval { every, anchor })
        }
        Some(Kind::FixedDelay(fixed)) => {
            let delay = duration(fixed.delay, Duration::ZERO, "the delay")?;
            let anchor = fixed.anchor.as_ref().map_or(Ok(now), |at| instant(at, "the anchor"))?;
            Ok(Schedule::FixedDelay { delay, anchor })
        }
        Some(Kind::Once(at)) => Ok(Schedule::Once { at: instant(at, "the instant")? }),
    }
}

pub(crate) fn from_schedule(schedule: &Schedule) -> proto::Schedule {
    let kind = match schedule {
        Schedule::Cron(cron) => Kind::Cron(Cron {
            expression: cron.expression.clone(),
            time_zone: cron.zone.clone(),
            dialect: cron.dialect.to_string(),
            gap: cron.gap.to_string(),
            fold: cron.fold.to_string(),
        }),
        Schedule::Interval { every, anchor } => Kind::Interval(Interval {
            every: Some(from_duration(*every)),
            anchor: Some(from_instant(*anchor)),
        }),
        Schedule::FixedDelay { delay, anchor } => Kind::FixedDelay(FixedDelay {
            delay: Some(from_duration(*delay)),
            anchor: Some(from_instant(*anchor)),
        }),
        Schedule::Once { at } => Kind::Once(from_instant(*at)),
    };
    proto::Schedule { kind: Some(kind) }
}

/// As people see it; `holidays` are those that it excludes.
pub(crate) fn from_trigger(trigger: Trigger, holidays: &Holidays) -> proto::Trigger {
    let (next_times, next_start_at) = next_times(&trigger, holidays);
    let (state, pause_note) = match trigger.state {
        TriggerState::Active => (State::Active, String::new()),
        TriggerState::Paused { note, .. } => (State::Paused, note),
        TriggerState::Finished => (State::Finished, String::new()),
    };
    let mut shown = proto::Trigger {
        id: trigger.id.to_string(),
        name: trigger.name.to_string(),
        task: trigger.task.to_string(),
        schedule: None,
        event: None,
        after: None,
        webhook: None,
        behind: trigger.behind,
        input: Some(from_payload(trigger.input)),
        overlap: trigger.spec.overlap.to_string(),
        priority: trigger.spec.priority.map(Into::into),
        catch_up: trigger.spec.catch_up.to_string(),
        catch_up_window: Some(from_duration(trigger.spec.catch_up_window)),
        state: state.into(),
        pause_note,
        next_times: next_times.into_iter().map(from_instant).collect(),
        last_nominal_at: trigger.last_nominal.map(from_instant),
        started: trigger.started,
        skipped: trigger.skipped,
        created_at: Some(from_instant(trigger.created_at)),
        not_before: trigger.spec.not_before.map(from_instant),
        not_after: trigger.spec.not_after.map(from_instant),
        max_runs: trigger.spec.max_runs.unwrap_or_default(),
        jitter: Some(from_duration(trigger.spec.jitter)),
        next_start_at: next_start_at.map(from_instant),
        skips_by_reason: Vec::new(),
        description: trigger.spec.rule.words().unwrap_or_default(),
        labels: from_labels(&trigger.spec.labels),
        exclude: trigger.spec.exclude.iter().map(ToString::to_string).collect(),
    };
    crate::trigger_rule::show(&trigger.spec.rule, &mut shown);
    shown
}

/// The next nominal times, and when the first of them is started.
fn next_times(trigger: &Trigger, holidays: &Holidays) -> (Vec<Timestamp>, Option<Timestamp>) {
    let (TriggerState::Active, Some(next)) = (&trigger.state, trigger.next_at) else {
        return (Vec::new(), None);
    };
    let Ok(timetable) = Timetable::new(trigger.id, &trigger.spec, &BundledZones) else {
        return (vec![next], None);
    };
    let most = runs_left(trigger).min(NEXT_TIMES_SHOWN);
    let Some(next) = working(&timetable, next, trigger, holidays) else { return (Vec::new(), None) };
    let later = std::iter::successors(following(&timetable, next, holidays), |last| {
        following(&timetable, *last, holidays)
    });
    let later = later.take(if trigger.spec.delay().is_some() { 0 } else { most });
    let times = std::iter::once(next).chain(later).take(most).collect();
    (times, Some(timetable.due_at(next)))
}

/// The time `next`, or, if that is a holiday, the one that the trigger goes on with.
fn working(
    timetable: &Timetable,
    next: Timestamp,
    trigger: &Trigger,
    holidays: &Holidays,
) -> Option<Timestamp> {
    match trigger.spec.delay() {
        _ if !timetable.is_holiday(next, holidays) => Some(next),
        None => following(timetable, next, holidays),
        Some(_) => timetable.delayed(timetable.next_working_date(next, holidays)).map(|next| next.nominal),
    }
}

/// The time after this one, if it comes in time to be shown: a list has many triggers.
fn following(timetable: &Timetable, after: Timestamp, holidays: &Holidays) -> Option<Timestamp> {
    let next = timetable.next_after(after)?;
    timetable.next_working_until(after, time::after(next, HOLIDAYS_SHOWN_BEYOND), holidays)
}

fn runs_left(trigger: &Trigger) -> usize {
    let left = trigger.spec.max_runs.map_or(u64::MAX, |most| most.saturating_sub(trigger.started));
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// The nominal times after an instant, those on holidays aside, none of a trigger that has finished, and no more than
/// it may start runs. Of a fixed delay only the next is known.
pub(crate) fn times_after(
    trigger: &Trigger,
    holidays: &Holidays,
    after: Timestamp,
    count: usize,
) -> Result<Vec<Timestamp>, Status> {
    let timetable = Timetable::new(trigger.id, &trigger.spec, &BundledZones).map_err(invalid)?;
    if trigger.spec.delay().is_some() || trigger.state == TriggerState::Finished {
        let next = trigger.next_at.and_then(|next| working(&timetable, next, trigger, holidays));
        return Ok(next.into_iter().filter(|next| *next > after).collect());
    }
    Ok(timetable.working_times_after(after, holidays).take(count.min(runs_left(trigger))).collect())
}

pub(crate) fn from_skip_count((reason, count): (SkipReason, u64)) -> SkipCount {
    SkipCount { reason: reason.to_string(), count }
}
