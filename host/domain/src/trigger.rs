//! Triggers: rules that start runs.

use crate::calendar::{Schedule, ScheduleError, Zones};
use crate::holiday::Holidays;
use crate::ids::{TaskId, TriggerId};
use crate::limits::{INPUT_BYTES_MAX, INTERVAL_MAX, JITTER_MAX, TRIGGER_EXCLUDES_MAX};
use crate::name::Name;
use crate::payload::{Payload, PayloadError};
use crate::timetable::{Reckoning, Timetable};
use crate::word::words;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What happens when a trigger is due while a run of its own is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlapPolicy {
    /// The new one is skipped.
    #[default]
    Skip,
    /// Both run.
    AllowAll,
}

/// What happens to firings that were missed, while the host was down say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// The newest runs, the others are skipped.
    #[default]
    Latest,
    /// All run.
    All,
    /// None runs.
    None,
}

/// Why a nominal time has no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// A run of the same trigger was unfinished.
    Overlap,
    /// Missed, and a newer one was due as well: catch-up mode `latest`.
    Superseded,
    /// Missed, with catch-up mode `none`.
    Missed,
    /// Missed by more than the catch-up window.
    TooLate,
    /// The task had as many unfinished runs as it may have.
    QueueFull,
    /// The trigger was paused.
    Paused,
    /// The tenant was suspended.
    TenantSuspended,
    /// The tenant had used up a quota.
    Quota,
    /// It was on a holiday of a calendar that the trigger excludes.
    Holiday,
}

words!(OverlapPolicy, "an overlap policy", Skip = "skip", AllowAll = "allow-all");
words!(CatchUp, "a catch-up mode", Latest = "latest", All = "all", None = "none");
words!(
    SkipReason,
    "a reason to skip",
    Overlap = "overlap",
    Superseded = "superseded",
    Missed = "missed",
    TooLate = "too-late",
    QueueFull = "queue-full",
    Paused = "paused",
    TenantSuspended = "tenant-suspended",
    Quota = "quota",
    Holiday = "holiday"
);

/// What a trigger says. Kept as JSON beside its input: a field added later has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerSpec {
    pub schedule: Schedule,
    #[serde(default)]
    pub overlap: OverlapPolicy,
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Firings missed by more than this are skipped, whatever the mode.
    #[serde(default = "catch_up_window_default")]
    pub catch_up_window: Duration,
    /// No nominal time is earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// No nominal time is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// After so many runs it has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u64>,
    /// Each run is started later than its nominal time by less than this, how much being drawn from the trigger
    /// and the nominal time; never as late as the next nominal time.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub jitter: Duration,
    /// Holiday calendars; nominal times on their dates are skipped.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<Name>,
}

fn catch_up_window_default() -> Duration {
    Duration::from_secs(24 * 3600)
}

/// A trigger that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerSpecError {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("a catch-up window of {0:?} was asked for; it may be at most {INTERVAL_MAX:?}")]
    CatchUpWindow(Duration),
    #[error(transparent)]
    Input(#[from] PayloadError),
    #[error("the schedule has no time after {0}: it would never fire")]
    NeverFires(Timestamp),
    #[error("the schedule has no time from {0} to {1}: it would never fire")]
    NeverFiresInWindow(Timestamp, Timestamp),
    #[error("its end, {end}, is before its start, {start}")]
    Window { start: Timestamp, end: Timestamp },
    #[error("at most 0 runs were asked for; it may be 1 or more")]
    NoRuns,
    #[error("a jitter of {0:?} was asked for; it may be at most {JITTER_MAX:?}")]
    Jitter(Duration),
    #[error("a fixed delay can't have jitter: its times follow its runs, and so spread by themselves")]
    JitterOfDelay,
    #[error(
        "{0} holiday calendars are excluded; at most {TRIGGER_EXCLUDES_MAX} can be: put their dates into one"
    )]
    Excludes(usize),
    #[error("all its times that can be foreseen after {0} are holidays that it excludes: it would never run")]
    OnlyHolidays(Timestamp),
}

impl TriggerSpec {
    /// A trigger with nothing said but its schedule.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            overlap: OverlapPolicy::default(),
            catch_up: CatchUp::default(),
            catch_up_window: catch_up_window_default(),
            not_before: None,
            not_after: None,
            max_runs: None,
            jitter: Duration::ZERO,
            exclude: BTreeSet::new(),
        }
    }

    /// Checks every bound, and that it fires at all after `now`; returns its first time as trigger `id`.
    pub fn check(
        &self,
        id: TriggerId,
        input: &Payload,
        zones: &dyn Zones,
        now: Timestamp,
    ) -> Result<Reckoning, TriggerSpecError> {
        if self.catch_up_window > INTERVAL_MAX {
            return Err(TriggerSpecError::CatchUpWindow(self.catch_up_window));
        }
        if self.jitter > JITTER_MAX {
            return Err(TriggerSpecError::Jitter(self.jitter));
        }
        if !self.jitter.is_zero() && self.delay().is_some() {
            return Err(TriggerSpecError::JitterOfDelay);
        }
        if self.max_runs == Some(0) {
            return Err(TriggerSpecError::NoRuns);
        }
        if self.exclude.len() > TRIGGER_EXCLUDES_MAX {
            return Err(TriggerSpecError::Excludes(self.exclude.len()));
        }
        if let (Some(start), Some(end)) = (self.not_before, self.not_after)
            && end < start
        {
            return Err(TriggerSpecError::Window { start, end });
        }
        input.check("the input", INPUT_BYTES_MAX)?;
        let timetable = Timetable::new(id, self, zones)?;
        match (timetable.next_after(now), self.not_after) {
            (Some(next), _) => Ok(Reckoning {
                next: timetable.upcoming(next),
                covered: timetable.covered(now),
                edition: self.edition(zones).into(),
            }),
            (None, Some(end)) => {
                Err(TriggerSpecError::NeverFiresInWindow(self.not_before.map_or(now, |s| s.max(now)), end))
            }
            (None, None) => Err(TriggerSpecError::NeverFires(now)),
        }
    }

    /// Checks that not all its times after `now` are on these holidays, which are those that it excludes.
    pub fn check_holidays(
        &self,
        holidays: &Holidays,
        zones: &dyn Zones,
        now: Timestamp,
    ) -> Result<(), TriggerSpecError> {
        // A fixed delay goes on after the holidays by itself.
        if holidays.is_empty() || self.delay().is_some() {
            return Ok(());
        }
        // Jitter, for which the id is, moves nothing to another date.
        let timetable = Timetable::new(TriggerId(uuid::Uuid::nil()), self, zones)?;
        match timetable.next_working_after(now, holidays) {
            Some(_) => Ok(()),
            None => Err(TriggerSpecError::OnlyHolidays(now)),
        }
    }

    /// The edition of these zones, if what it says depends on it; else empty.
    pub fn edition<'a>(&self, zones: &'a dyn Zones) -> &'a str {
        match &self.schedule {
            Schedule::Cron(cron) if cron.zone != "UTC" => zones.edition(),
            _ => "",
        }
    }

    /// How long after the end of each run the next is due, if that is how it is scheduled.
    pub fn delay(&self) -> Option<Duration> {
        match self.schedule {
            Schedule::FixedDelay { delay, .. } => Some(delay),
            _ => None,
        }
    }

    /// The least time between two of its firings after `now`: of an interval the interval, of a cron pattern what
    /// [`Calendar::least_gap`](crate::calendar::Calendar::least_gap) guarantees; none if it fires once at most.
    pub fn least_gap(&self, now: Timestamp) -> Result<Option<Duration>, ScheduleError> {
        let calendar = self.schedule.calendar()?;
        Ok(match self.schedule {
            Schedule::Interval { every: gap, .. } | Schedule::FixedDelay { delay: gap, .. } => Some(gap),
            Schedule::Once { .. } => None,
            Schedule::Cron(_) => calendar.least_gap(now),
        })
    }
}

/// Where a trigger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerState {
    Active,
    /// Creates no runs; why is in the note.
    Paused {
        note: String,
        at: Timestamp,
    },
    /// Its schedule has no more times.
    Finished,
}

/// A trigger as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub id: TriggerId,
    pub task_id: TaskId,
    pub task: Name,
    pub name: Name,
    pub spec: TriggerSpec,
    pub input: Payload,
    pub state: TriggerState,
    /// The next nominal time that is not yet accounted for; none when finished, and while a fixed delay waits for
    /// the end of its run.
    pub next_at: Option<Timestamp>,
    /// The nominal time of the last run that it started.
    pub last_nominal: Option<Timestamp>,
    /// Runs that it has started.
    pub started: u64,
    /// Nominal times that have no run.
    pub skipped: u64,
    pub created_at: Timestamp,
}

/// Nominal times in a row that have no run, for one reason. `from` and `to` are both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipRange {
    pub from: Timestamp,
    pub to: Timestamp,
    pub count: u64,
    pub reason: SkipReason,
}

impl SkipRange {
    /// Whether this only goes on from the trigger's last skip, which ended at `to`: for the same reason,
    /// with no run in between; `last_run` is the last one before this. Then that one gets longer instead.
    pub fn continues(&self, to: Timestamp, reason: SkipReason, last_run: Option<Timestamp>) -> bool {
        reason == self.reason && last_run.is_none_or(|run| run < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{BundledZones, CronSchedule, Dialect};
    use crate::time;

    fn check(spec: &TriggerSpec, now: Timestamp) -> Result<Timestamp, TriggerSpecError> {
        let id = TriggerId(uuid::Uuid::nil());
        spec.check(id, &Payload::default(), &BundledZones, now).map(|first| first.next.nominal)
    }

    #[test]
    fn words_read_back_and_unknown_ones_say_what_is_known() {
        assert_eq!("allow-all".parse(), Ok(OverlapPolicy::AllowAll));
        let err = "maybe".parse::<CatchUp>().unwrap_err().to_string();
        assert_eq!(err, "`maybe` is not a catch-up mode; known are: latest, all, none");
    }

    #[test]
    fn a_time_in_the_past_never_fires() {
        let now = Timestamp::from_second(100).unwrap();
        let past = TriggerSpec::new(Schedule::Once { at: Timestamp::UNIX_EPOCH });
        assert_eq!(check(&past, now), Err(TriggerSpecError::NeverFires(now)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let hour = |hours: u64| time::after(now, Duration::from_secs(3600 * hours));
        let good = TriggerSpec::new(Schedule::Interval { every: Duration::from_secs(3600), anchor: now });
        let check = |spec: TriggerSpec| check(&spec, now);
        assert_eq!(check(good.clone()), Ok(hour(1)));
        let (start, end) = (hour(5), hour(4));
        let backwards = TriggerSpec { not_before: Some(start), not_after: Some(end), ..good.clone() };
        assert_eq!(check(backwards), Err(TriggerSpecError::Window { start, end }));
        let too_short =
            TriggerSpec { not_after: Some(time::before(hour(1), Duration::from_secs(1))), ..good.clone() };
        assert!(check(too_short).unwrap_err().to_string().contains("it would never fire"));
        let one = TriggerSpec { not_before: Some(hour(1)), not_after: Some(hour(1)), ..good.clone() };
        assert_eq!(check(one), Ok(hour(1)));
        assert_eq!(check(TriggerSpec { max_runs: Some(0), ..good.clone() }), Err(TriggerSpecError::NoRuns));
        let jitter = TriggerSpec { jitter: Duration::from_secs(60), ..good };
        assert_eq!(check(jitter.clone()), Ok(hour(1)));
        let delay = Schedule::FixedDelay { delay: Duration::from_secs(60), anchor: now };
        assert_eq!(
            check(TriggerSpec { schedule: delay, ..jitter.clone() }),
            Err(TriggerSpecError::JitterOfDelay)
        );
        let exclude = (0..9).map(|n| format!("calendar-{n}").parse().unwrap()).collect();
        assert_eq!(check(TriggerSpec { exclude, ..jitter }), Err(TriggerSpecError::Excludes(9)));
    }

    #[test]
    fn what_is_only_due_on_holidays_would_never_run() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = crate::holiday::read(b"2026-12-25").unwrap();
        let holidays = Holidays::of([std::sync::Arc::new(crate::holiday::HolidayDates::of(&read))]);
        let check = |schedule| TriggerSpec::new(schedule).check_holidays(&holidays, &BundledZones, now);
        let at = |text: &str| Schedule::Once { at: text.parse().unwrap() };
        let never = check(at("2026-12-25T12:00:00Z")).unwrap_err();
        assert!(never.to_string().contains("it would never run"), "{never}");
        assert_eq!(check(at("2026-12-26T12:00:00Z")), Ok(()));
        let anchor = "2026-12-25T00:00:00Z".parse().unwrap();
        assert_eq!(check(Schedule::FixedDelay { delay: Duration::from_secs(60), anchor }), Ok(()));
    }

    #[test]
    fn what_was_stored_before_there_was_more_still_reads() {
        let old = r#"{"schedule":{"kind":"cron","expression":"0 3 * * *","zone":"UTC"},"overlap":"skip"}"#;
        let spec: TriggerSpec = serde_json::from_str(old).unwrap();
        assert_eq!((spec.max_runs, spec.jitter, spec.not_after), (None, Duration::ZERO, None));
    }

    #[test]
    fn the_least_gap_is_the_smallest_not_the_first() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let cron = |expression: &str, zone: &str| {
            let schedule = Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, zone));
            TriggerSpec::new(schedule).least_gap(now).unwrap().map(|gap| gap.as_secs())
        };
        assert_eq!(cron("* * * * *", "UTC"), Some(60));
        assert_eq!(cron("*/7 * * * * *", "UTC"), Some(4), "from second 56 to the next minute");
        assert_eq!(cron("0,5 12 * * *", "UTC"), Some(300));
        assert_eq!(cron("0 3 * * *", "Europe/Berlin"), Some(23 * 3600), "the day that loses an hour");
        assert_eq!(cron("0 0 1 1 *", "UTC"), Some(365 * 86_400));
        assert!(cron("0 0 29 2 *", "UTC").unwrap() >= 4 * 365 * 86_400);
        let every = Schedule::Interval { every: Duration::from_secs(9), anchor: now };
        assert_eq!(TriggerSpec::new(every).least_gap(now), Ok(Some(Duration::from_secs(9))));
        assert_eq!(TriggerSpec::new(Schedule::Once { at: now }).least_gap(now), Ok(None));
    }
}
