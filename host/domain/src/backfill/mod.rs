//! Backfills: runs of a trigger for nominal times that are past, asked for by hand.
//!
//! A backfill goes through the nominal times of its range in order. Each is either left out, since the trigger has a
//! run for it already, or gets a run; what is refused for a reason that passes is waited for.

mod step;

pub use step::{Standing, Step, Then, step};

use crate::calendar::{Schedule, ScheduleError, Zones};
use crate::holiday::Holidays;
use crate::ids::{BackfillId, TriggerId};
use crate::limits::{BACKFILL_CONCURRENCY_MAX, BACKFILL_TIMES_MAX, BACKFILL_TIMES_SHOWN};
use crate::name::Name;
use crate::rule::Rule;
use crate::run::RunState;
use crate::time;
use crate::timetable::Timetable;
use crate::trigger::{SkipReason, TriggerSpec};
use crate::word::words;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which nominal times that have a run already get another one. None does while a run for it is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Again {
    /// None.
    #[default]
    None,
    /// Those whose latest run failed or was cancelled.
    Failed,
    /// All.
    All,
}

/// Where a backfill stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillState {
    Active,
    /// Every time of its range is dealt with, and its runs are over.
    Finished,
    /// It creates no more runs: by hand, or since its trigger was deleted.
    Cancelled,
}

words!(Again, "a rule for times that ran already", None = "none", Failed = "failed", All = "all");
words!(
    BackfillState,
    "a backfill's state",
    Active = "active",
    Finished = "finished",
    Cancelled = "cancelled"
);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackfillSpec {
    /// No nominal time is earlier.
    pub from: Timestamp,
    /// No nominal time is later.
    pub to: Timestamp,
    /// Its runs that may be unfinished at one time.
    pub concurrency: u32,
    pub again: Again,
}

/// A backfill as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    pub id: BackfillId,
    pub trigger: Name,
    pub task: Name,
    pub spec: BackfillSpec,
    pub state: BackfillState,
    /// Why it doesn't go on just now, for a reason that passes.
    pub waits_for: Option<SkipReason>,
    /// Nominal times that it goes through.
    pub times: u64,
    /// Nominal times in its range that the trigger itself had yet to come to.
    pub left_to_trigger: u64,
    pub counts: BackfillCounts,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// How far a backfill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackfillCounts {
    /// Runs that it has created.
    pub created: u64,
    /// Times that it left out: they had a run.
    pub left_out: u64,
    /// Of the runs, those that are not over.
    pub unfinished: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub cancelled: u64,
}

impl Backfill {
    /// Nominal times that it has yet to come to.
    pub fn remaining(&self) -> u64 {
        match self.state {
            BackfillState::Active => {
                self.times.saturating_sub(self.counts.created).saturating_sub(self.counts.left_out)
            }
            BackfillState::Finished | BackfillState::Cancelled => 0,
        }
    }
}

/// A backfill that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackfillError {
    #[error(
        "a fixed delay has no times to backfill: each follows the end of the run before; start runs by hand"
    )]
    FixedDelay,
    #[error("its end, {to}, is before its start, {from}")]
    Backwards { from: Timestamp, to: Timestamp },
    #[error("its end, {to}, is in the future; a backfill is of times that are past, so say at most {now}")]
    Future { to: Timestamp, now: Timestamp },
    #[error("a concurrency of {0} was asked for; it may be 1 to {BACKFILL_CONCURRENCY_MAX}")]
    Concurrency(u32),
    #[error(
        "there are more than {BACKFILL_TIMES_MAX} times from {from} to {to}; split the range, the first part up to {until}"
    )]
    TooManyTimes { from: Timestamp, to: Timestamp, until: Timestamp },
    #[error("the schedule has no time from {from} to {to}")]
    NoTimes { from: Timestamp, to: Timestamp },
    #[error(
        "the trigger itself is about to come to every time from {0} on: there is nothing to backfill yet"
    )]
    LeftToTrigger(Timestamp),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl BackfillSpec {
    /// Checks every bound, and gives the nominal times, in order; at least one.
    pub fn times(
        &self,
        id: TriggerId,
        trigger: &TriggerSpec,
        holidays: &Holidays,
        zones: &dyn Zones,
        now: Timestamp,
    ) -> Result<Vec<Timestamp>, BackfillError> {
        let Self { from, to, concurrency, .. } = *self;
        if trigger.delay().is_some() {
            return Err(BackfillError::FixedDelay);
        }
        if to < from {
            return Err(BackfillError::Backwards { from, to });
        }
        if to > now {
            return Err(BackfillError::Future { to, now });
        }
        if !(1..=BACKFILL_CONCURRENCY_MAX).contains(&concurrency) {
            return Err(BackfillError::Concurrency(concurrency));
        }
        let timetable = timetable(id, trigger, from, zones)?;
        let mut times = stretch(&timetable, holidays, from, to, BACKFILL_TIMES_MAX);
        if times.next.is_some() {
            let until = times.times.pop().unwrap_or(to);
            return Err(BackfillError::TooManyTimes { from, to, until });
        }
        if times.times.is_empty() {
            return Err(BackfillError::NoTimes { from, to });
        }
        Ok(times.times)
    }
}

/// The timetable that a backfill from `from` on goes by: the trigger's schedule alone, without its window, for what
/// was before the trigger or after its end is what a backfill is for; and without jitter, which spreads what is due
/// at one time. An interval is as old as need be.
pub fn timetable(
    id: TriggerId,
    trigger: &TriggerSpec,
    from: Timestamp,
    zones: &dyn Zones,
) -> Result<Timetable, ScheduleError> {
    let mut spec =
        TriggerSpec { not_before: None, not_after: None, jitter: Duration::ZERO, ..trigger.clone() };
    if let Rule::Schedule(Schedule::Interval { every, anchor }) = &mut spec.rule
        && *anchor >= from
        && !every.is_zero()
    {
        let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX);
        let steps = (time::to_micros(*anchor) - time::to_micros(from)) / every + 1;
        *anchor = time::from_micros(time::to_micros(*anchor).saturating_sub(steps.saturating_mul(every)));
    }
    Timetable::new(id, &spec, zones)
}

/// Some nominal times in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stretch {
    /// In order.
    pub times: Vec<Timestamp>,
    /// The one that follows; none if it is out of the range.
    pub next: Option<Timestamp>,
}

/// The nominal times from `from` to `to`, both included, that aren't on holidays, and at most so many.
pub fn stretch(
    timetable: &Timetable,
    holidays: &Holidays,
    from: Timestamp,
    to: Timestamp,
    most: usize,
) -> Stretch {
    let next_after = |after| timetable.next_working_until(after, to, holidays);
    let first = next_after(time::before(from, Duration::from_micros(1)));
    let mut all = std::iter::successors(first, |last| next_after(*last)).take_while(|at| *at <= to);
    Stretch { times: all.by_ref().take(most).collect(), next: all.next() }
}

/// Of the nominal times of a range, those that a backfill goes through: what the trigger itself has yet to come to is
/// the trigger's. `next_at` is its next time while it is active.
pub fn before_trigger(
    times: &[Timestamp],
    next_at: Option<Timestamp>,
) -> Result<&[Timestamp], BackfillError> {
    let own = next_at.map_or(times.len(), |next| times.partition_point(|at| *at < next));
    match (times.first(), own) {
        (Some(first), 0) => Err(BackfillError::LeftToTrigger(*first)),
        _ => Ok(&times[..own]),
    }
}

/// Whether a nominal time gets a run, whose latest run so far is in this state.
pub fn wants(again: Again, latest: Option<RunState>) -> bool {
    match latest {
        None => true,
        Some(RunState::Queued | RunState::Waiting | RunState::Running) => false,
        Some(RunState::Succeeded) => again == Again::All,
        Some(RunState::Failed | RunState::Cancelled) => again != Again::None,
    }
}

/// What a backfill would do if it went through its range now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackfillPlan {
    /// Nominal times that it would go through.
    pub times: u64,
    /// Nominal times in its range that the trigger itself has yet to come to.
    pub left_to_trigger: u64,
    /// Times that have a run already, by the state of the latest.
    pub ran: BTreeMap<&'static str, u64>,
    /// Of all the times, those that would get a run.
    pub runs: u64,
    /// The first few that would get one.
    pub first: Vec<Timestamp>,
    /// The last few of the others.
    pub last: Vec<Timestamp>,
}

/// Plans a backfill of these times; `latest` are those that have a run, with the state of the latest.
pub fn plan(again: Again, times: &[Timestamp], latest: &BTreeMap<Timestamp, RunState>) -> BackfillPlan {
    let mut ran = BTreeMap::new();
    latest.values().for_each(|state| *ran.entry(state.as_str()).or_default() += 1);
    let runs: Vec<Timestamp> =
        times.iter().copied().filter(|at| wants(again, latest.get(at).copied())).collect();
    let (first, others) = runs.split_at(runs.len().min(BACKFILL_TIMES_SHOWN));
    let last = &others[others.len().saturating_sub(BACKFILL_TIMES_SHOWN)..];
    BackfillPlan {
        times: times.len() as u64,
        left_to_trigger: 0,
        ran,
        runs: runs.len() as u64,
        first: first.to_vec(),
        last: last.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{BundledZones, CronSchedule, Dialect};
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn every(seconds: u64, anchor: i64) -> TriggerSpec {
        TriggerSpec::new(Schedule::Interval { every: Duration::from_secs(seconds), anchor: at(anchor) })
    }

    fn spec(from: i64, to: i64) -> BackfillSpec {
        BackfillSpec { from: at(from), to: at(to), concurrency: 1, again: Again::None }
    }

    fn times(trigger: &TriggerSpec, from: i64, to: i64) -> Result<Vec<i64>, BackfillError> {
        let times = spec(from, to).times(
            TriggerId(uuid::Uuid::nil()),
            trigger,
            Holidays::NONE,
            &BundledZones,
            at(1_000_000),
        );
        times.map(|times| times.iter().map(|at| at.as_second()).collect())
    }

    #[test]
    fn a_range_has_both_its_ends() {
        assert_eq!(times(&every(60, 0), 60, 180), Ok(vec![60, 120, 180]));
        assert_eq!(times(&every(60, 0), 61, 179), Ok(vec![120]));
        assert_eq!(times(&every(60, 0), 60, 60), Ok(vec![60]));
        assert_eq!(times(&every(60, 0), 61, 119), Err(BackfillError::NoTimes { from: at(61), to: at(119) }));
    }

    #[test]
    fn neither_the_window_nor_the_jitter_matter_and_an_interval_is_older_than_its_trigger() {
        let windowed = TriggerSpec {
            not_before: Some(at(120)),
            not_after: Some(at(120)),
            jitter: Duration::from_secs(50),
            ..every(60, 600)
        };
        assert_eq!(times(&windowed, 0, 180), Ok(vec![0, 60, 120, 180]));
        assert_eq!(times(&every(60, 600), 570, 700), Ok(vec![600, 660]));
        assert_eq!(times(&every(60, 607), 500, 700), Ok(vec![547, 607, 667]));
        let once = TriggerSpec::new(Schedule::Once { at: at(50) });
        assert_eq!(times(&once, 0, 180), Ok(vec![50]));
    }

    #[test]
    fn a_pattern_follows_its_zone() {
        let cron = CronSchedule::new("30 2 * * *", Dialect::Crontab, "Europe/Berlin");
        let trigger = TriggerSpec::new(Schedule::Cron(cron));
        let range = |from: &str, to: &str| BackfillSpec {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            ..spec(0, 0)
        };
        let range = range("2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        let found = range
            .times(TriggerId(uuid::Uuid::nil()), &trigger, Holidays::NONE, &BundledZones, range.to)
            .unwrap();
        let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(found, expected.map(|at| at.parse().unwrap()));
        let day = crate::holiday::read(b"2026-03-29").unwrap();
        let holidays = Holidays::of([std::sync::Arc::new(crate::holiday::HolidayDates::of(&day))]);
        let found =
            range.times(TriggerId(uuid::Uuid::nil()), &trigger, &holidays, &BundledZones, range.to).unwrap();
        assert_eq!(found, [expected[0], expected[2]].map(|at| at.parse().unwrap()), "without the holiday");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let id = TriggerId(uuid::Uuid::nil());
        let check = |spec: BackfillSpec, trigger: &TriggerSpec| {
            spec.times(id, trigger, Holidays::NONE, &BundledZones, at(1_000_000)).unwrap_err().to_string()
        };
        let minutes = every(60, 0);
        assert!(check(spec(60, 0), &minutes).contains("before its start"));
        assert!(check(spec(0, 1_000_001), &minutes).contains("in the future"));
        for concurrency in [0, BACKFILL_CONCURRENCY_MAX + 1] {
            assert!(
                check(BackfillSpec { concurrency, ..spec(0, 60) }, &minutes).contains("it may be 1 to 1000")
            );
        }
        let delay = Schedule::FixedDelay { delay: Duration::from_secs(60), anchor: at(0) };
        assert!(check(spec(0, 600), &TriggerSpec::new(delay)).contains("fixed delay"));
        let seconds = every(1, 0);
        let many = check(spec(1, 100_001), &seconds);
        assert!(many.contains("more than 100000") && many.contains("up to 1970-01-02T03:46:40Z"), "{many}");
        assert_eq!(times(&seconds, 1, 100_000).unwrap().len(), 100_000);
    }

    #[test]
    fn what_the_trigger_has_yet_to_come_to_is_its_own() {
        let times = [60, 120, 180].map(at);
        assert_eq!(before_trigger(&times, None), Ok(&times[..]));
        assert_eq!(before_trigger(&times, Some(at(180))), Ok(&times[..2]));
        assert_eq!(before_trigger(&times, Some(at(60))), Err(BackfillError::LeftToTrigger(at(60))));
    }

    #[test]
    fn what_ran_already_runs_again_if_it_is_asked_for() {
        use RunState::{Cancelled, Failed, Queued, Running, Succeeded, Waiting};
        for (latest, expected) in [
            (None, [true, true, true]),
            (Some(Queued), [false, false, false]),
            (Some(Waiting), [false, false, false]),
            (Some(Running), [false, false, false]),
            (Some(Succeeded), [false, false, true]),
            (Some(Failed), [false, true, true]),
            (Some(Cancelled), [false, true, true]),
        ] {
            assert_eq!([Again::None, Again::Failed, Again::All].map(|again| wants(again, latest)), expected);
        }
    }

    #[test]
    fn a_plan_tells_what_ran_and_shows_the_ends() {
        let times: Vec<_> = (0..20).map(at).collect();
        let latest =
            [(at(0), RunState::Succeeded), (at(1), RunState::Failed), (at(2), RunState::Running)].into();
        let planned = plan(Again::Failed, &times, &latest);
        assert_eq!((planned.times, planned.runs), (20, 18));
        assert_eq!(planned.ran, [("succeeded", 1), ("failed", 1), ("running", 1)].into());
        assert_eq!(planned.first, [1, 3, 4, 5, 6].map(at));
        assert_eq!(planned.last, [15, 16, 17, 18, 19].map(at));
        let few = plan(Again::None, &times[..4], &latest);
        assert_eq!((few.first, few.last), (vec![at(3)], vec![]));
    }

    proptest! {
        /// In pieces or whole, a range has every time that the interval has in it.
        #[test]
        fn stretches_make_the_range(
            step in 1u64..500, anchor in 0i64..20_000, from in 0i64..10_000, long in 0i64..10_000, most in 1usize..50,
        ) {
            let trigger = every(step, anchor);
            let step = i64::try_from(step).unwrap();
            let expected: Vec<i64> =
                (from..=from + long).filter(|second| (second - anchor).rem_euclid(step) == 0).collect();
            let id = TriggerId(uuid::Uuid::nil());
            let timetable = timetable(id, &trigger, at(from), &BundledZones).unwrap();
            let mut found = Vec::new();
            let mut next = Some(at(from));
            while let Some(cursor) = next {
                let part = stretch(&timetable, Holidays::NONE, cursor, at(from + long), most);
                prop_assert!(part.times.len() <= most);
                found.extend(part.times.iter().map(|at| at.as_second()));
                next = part.next;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
