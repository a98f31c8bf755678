//! Triggers: rules that start runs.

use crate::calendar::{Schedule, ScheduleError};
use crate::ids::{TaskId, TriggerId};
use crate::limits::{INPUT_BYTES_MAX, INTERVAL_MAX, LEAST_GAP_TIMES};
use crate::name::Name;
use crate::payload::{Payload, PayloadError};
use crate::time;
use crate::word::words;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
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
    Quota = "quota"
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
}

impl TriggerSpec {
    /// A trigger with nothing said but its schedule.
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            overlap: OverlapPolicy::default(),
            catch_up: CatchUp::default(),
            catch_up_window: catch_up_window_default(),
        }
    }

    /// Checks every bound, and that it fires at all; returns its first nominal time after `now`.
    pub fn check(&self, input: &Payload, now: Timestamp) -> Result<Timestamp, TriggerSpecError> {
        if self.catch_up_window > INTERVAL_MAX {
            return Err(TriggerSpecError::CatchUpWindow(self.catch_up_window));
        }
        input.check("the input", INPUT_BYTES_MAX)?;
        let calendar = self.schedule.calendar()?;
        calendar.next_after(now).ok_or(TriggerSpecError::NeverFires(now))
    }

    /// The least time between two of its firings: of an interval the interval, of a cron pattern the smallest gap
    /// among its next [`LEAST_GAP_TIMES`] times within [`INTERVAL_MAX`]; none if it fires once at most.
    pub fn least_gap(&self, now: Timestamp) -> Result<Option<Duration>, ScheduleError> {
        let calendar = self.schedule.calendar()?;
        match self.schedule {
            Schedule::Interval { every, .. } => Ok(Some(every)),
            Schedule::Once { .. } => Ok(None),
            Schedule::Cron(_) => {
                let mut gaps = Vec::with_capacity(LEAST_GAP_TIMES);
                let mut last = calendar.next_after(now);
                for next in calendar.times_after(last.unwrap_or(now)).take(LEAST_GAP_TIMES - 1) {
                    gaps.extend(last.map(|last| time::between(last, next)));
                    last = Some(next);
                    if time::between(now, next) > INTERVAL_MAX {
                        break;
                    }
                }
                Ok(gaps.into_iter().min())
            }
        }
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
    /// The next nominal time that is not yet accounted for; none when finished.
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
    use crate::calendar::{CronSchedule, Dialect};

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
        assert_eq!(past.check(&Payload::default(), now), Err(TriggerSpecError::NeverFires(now)));
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
