//! Triggers: rules that start runs.

use crate::calendar::{Schedule, ScheduleError};
use crate::ids::{TaskId, TriggerId};
use crate::limits::{INPUT_BYTES_MAX, INTERVAL_MAX};
use crate::name::Name;
use crate::payload::{Payload, PayloadError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

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
}

macro_rules! words {
    ($type:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// The word for it, as stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord {
                        text: text.chars().take(64).collect(),
                        what: $what,
                        known: &[$($word),+],
                    }),
                }
            }
        }
    };
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
    Paused = "paused"
);

/// A word that isn't one of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}; known are: {}", known.join(", "))]
pub struct UnknownWord {
    text: String,
    what: &'static str,
    known: &'static [&'static str],
}

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
}
