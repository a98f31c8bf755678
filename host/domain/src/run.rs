//! Runs, their attempts, and the one function that knows how a run's state changes.

use crate::failure::{Failure, FailureKind, Outcome, Usage};
use crate::gate::{Passage, WaitsFor};
use crate::host::Labels;
use crate::ids::{BackfillId, HostId, RunId, TaskId, TenantId, TriggerId};
use crate::limits::{LOG_LINE_COST, LOG_WRITE_BYTES, LOG_WRITE_LINES};
use crate::name::Name;
use crate::payload::Payload;
use crate::quota::AttemptBounds;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Asked for, not begun.
    Queued,
    /// An attempt is executing.
    Running,
    /// An attempt failed, and the next one waits for its time.
    Waiting,
    Succeeded,
    Failed,
    Cancelled,
}

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// A host took it, to execute an attempt.
    Claimed,
    AttemptSucceeded,
    /// An attempt failed; the retry policy says whether it is tried again.
    AttemptFailed {
        again: bool,
    },
    /// The attempt ended because the run was to be cancelled.
    AttemptCancelled,
    /// Its host handed it back without an outcome, or was lost; `again` says whether it may be taken
    /// up once more.
    LeaseEnded {
        again: bool,
    },
    /// Somebody cancelled it while no attempt was executing.
    Cancelled,
    /// A deadline passed while no attempt was executing.
    Expired,
    /// Somebody wants it tried again, though it is over.
    Reopened,
}

impl RunEvent {
    /// What an attempt's end means for its run. A run that is to be cancelled is not tried again; one
    /// that succeeded all the same, has.
    pub fn of_attempt(outcome: &Outcome, again: bool, cancel_requested: bool) -> Self {
        match outcome {
            Outcome::Output(_) => Self::AttemptSucceeded,
            Outcome::Failure(failure) if failure.kind == FailureKind::Cancelled || cancel_requested => {
                Self::AttemptCancelled
            }
            Outcome::Failure(_) => Self::AttemptFailed { again },
        }
    }
}

/// An event that can't happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {state} can't have {event:?}")]
pub struct IllegalEvent {
    pub state: RunState,
    pub event: RunEvent,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Waiting, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// The state after `event`: the only place that knows the transitions.
    pub fn next(self, event: RunEvent) -> Result<Self, IllegalEvent> {
        use RunEvent as E;
        use RunState as S;
        match (self, event) {
            (S::Queued | S::Waiting, E::Claimed) => Ok(S::Running),
            (S::Queued | S::Waiting, E::Cancelled) => Ok(S::Cancelled),
            (S::Queued | S::Waiting, E::Expired) => Ok(S::Failed),
            (S::Failed | S::Cancelled, E::Reopened) => Ok(S::Queued),
            (S::Running, E::AttemptSucceeded) => Ok(S::Succeeded),
            (S::Running, E::AttemptFailed { again: true }) => Ok(S::Waiting),
            (S::Running, E::AttemptFailed { again: false }) => Ok(S::Failed),
            (S::Running, E::AttemptCancelled) => Ok(S::Cancelled),
            (S::Running, E::LeaseEnded { again: true }) => Ok(S::Queued),
            (S::Running, E::LeaseEnded { again: false }) => Ok(S::Failed),
            (state, event) => Err(IllegalEvent { state, event }),
        }
    }

    /// Whether nothing happens to the run any more, unless somebody reopens it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word for it, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a run's state; they are queued, running, waiting, succeeded, failed, cancelled")]
pub struct RunStateError(String);

impl FromStr for RunState {
    type Err = RunStateError;
    fn from_str(text: &str) -> Result<Self, RunStateError> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| RunStateError(text.chars().take(64).collect()))
    }
}

/// A run as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub id: RunId,
    pub task_id: TaskId,
    pub task: Name,
    /// The task's revision that it is pinned to, retries included.
    pub revision: u32,
    /// None when started by hand.
    pub trigger: Option<Name>,
    /// The backfill that created it, if one did.
    pub backfill: Option<BackfillId>,
    pub nominal_at: Timestamp,
    pub state: RunState,
    /// Attempts begun so far.
    pub attempt: u32,
    pub idempotency_key: Option<String>,
    /// 0 to 9; the highest begin first.
    pub priority: u8,
    /// What its task's concurrency key is for its input.
    pub concurrency_key: Option<String>,
    /// What it has to pass before it can be claimed, and has passed.
    pub passage: Passage,
    /// What it waits for, beside its time. Left out of lists.
    pub waits_for: Option<WaitsFor>,
    pub input: Payload,
    /// What the last attempt gave, once the run succeeded.
    pub output: Option<Payload>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<Failure>,
    /// How far the attempt says that it is.
    pub progress: Option<Progress>,
    pub cancel_requested: bool,
    pub created_at: Timestamp,
    /// When it may be executed: later than `created_at` while it waits for its next attempt.
    pub available_at: Timestamp,
    /// When its last attempt began; none if none has since it was reopened.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// When its first attempt must have begun.
    pub start_by: Option<Timestamp>,
    /// When it must be over.
    pub end_by: Option<Timestamp>,
    /// When somebody last wanted it tried again though it was over.
    pub reopened_at: Option<Timestamp>,
    /// Its task's, its trigger's and its start's.
    pub labels: Labels,
    pub attempts: Vec<Attempt>,
}

/// One try at a run that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    pub host: HostId,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// None when it succeeded.
    pub failure: Option<Failure>,
    pub usage: Usage,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    /// None while it isn't known.
    pub total: Option<u64>,
    pub note: String,
}

/// A host's right to execute one attempt. The pair of host incarnation and attempt is the fence: an
/// outcome is committed only if the run's row still names both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    pub run: RunId,
    pub host: HostId,
    pub attempt: u32,
}

/// What a host needs to execute a run that it has claimed, beside the task's revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub lease: Lease,
    /// Which try this is by the retry policy, from 1: the attempt less those that ended without an
    /// outcome because a host was lost or handed the run back.
    pub try_number: u32,
    pub tenant_id: TenantId,
    pub tenant: Name,
    /// What the tenant's quotas leave to the attempt.
    pub bounds: AttemptBounds,
    pub task_id: TaskId,
    pub task: Name,
    /// The one that it is pinned to.
    pub revision: u32,
    /// The task's newest when it was claimed; what that one isn't granted any more, the attempt isn't.
    pub current_revision: u32,
    pub trigger: Option<(TriggerId, Name)>,
    pub nominal_at: Timestamp,
    /// The nominal time of its trigger's last success before this run was created.
    pub last_success_nominal: Option<Timestamp>,
    pub idempotency_key: Option<String>,
    pub input: Payload,
    pub started_at: Timestamp,
    /// When the run must be over, and the attempt with it.
    pub end_by: Option<Timestamp>,
}

/// How grave a line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// Every level, the least grave first.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// From 0 for trace to 4 for error, as stored.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The level of a stored number; numbers out of range are errors' level.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Error)
    }
}

/// One line of a run's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub attempt: u32,
    /// From 1, counted in the attempt.
    pub sequence: u32,
    pub at: Timestamp,
    pub level: LogLevel,
    pub text: String,
}

impl LogLine {
    /// What writing it costs, in bytes of one value that would take as long.
    pub fn cost(&self) -> usize {
        LOG_LINE_COST + self.text.len()
    }

    /// How many of these one write takes: a store that takes one write after another is soon ready for others'.
    pub fn in_one_write(lines: &[Self]) -> usize {
        let mut bytes = 0;
        let fits = |line: &&Self| {
            bytes += line.text.len();
            bytes <= LOG_WRITE_BYTES
        };
        lines.iter().take(LOG_WRITE_LINES).take_while(fits).count().max(lines.len().min(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [RunEvent; 9] = [
        RunEvent::Claimed,
        RunEvent::AttemptSucceeded,
        RunEvent::AttemptFailed { again: true },
        RunEvent::AttemptFailed { again: false },
        RunEvent::AttemptCancelled,
        RunEvent::LeaseEnded { again: true },
        RunEvent::LeaseEnded { again: false },
        RunEvent::Cancelled,
        RunEvent::Expired,
    ];

    #[test]
    fn final_states_are_final_and_others_are_not() {
        for state in RunState::ALL {
            let moves = EVENTS.into_iter().filter(|event| state.next(*event).is_ok()).count();
            assert_eq!(moves == 0, state.is_final(), "{state}");
            assert_eq!(state.as_str().parse::<RunState>().unwrap(), state);
        }
    }

    #[test]
    fn what_failed_or_was_cancelled_can_be_reopened() {
        for state in RunState::ALL {
            let reopened = state.next(RunEvent::Reopened).is_ok();
            assert_eq!(reopened, state.is_final() && state != RunState::Succeeded, "{state}");
        }
    }

    #[test]
    fn only_a_running_run_gets_an_outcome() {
        for state in RunState::ALL.into_iter().filter(|s| *s != RunState::Running) {
            assert!(state.next(RunEvent::AttemptSucceeded).is_err());
            assert!(state.next(RunEvent::AttemptFailed { again: true }).is_err());
        }
    }

    #[test]
    fn levels_read_back() {
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::from_number(level.number()), level);
        }
    }
}
