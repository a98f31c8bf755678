//! Admission: the one gate that everything that asks for a run passes, inside the transaction that
//! inserts the run.

use crate::ids::RunId;
use crate::limits::UNFINISHED_RUNS_PER_TASK_MAX;
use crate::trigger::{OverlapPolicy, SkipReason};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Somebody started it by hand.
    Hand,
    /// A trigger that is due.
    Trigger { overlap: OverlapPolicy },
}

/// What the store knows when it asks, read in the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdmissionState {
    /// Unfinished runs of the task.
    pub unfinished_of_task: u64,
    /// Unfinished runs of the trigger that asks.
    pub unfinished_of_trigger: u64,
    /// The run that was started under the same idempotency key, and whether with the same input.
    pub same_key: Option<SameKey>,
}

/// A run that an idempotency key names already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SameKey {
    pub run: RunId,
    pub same_input: bool,
}

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A run is inserted.
    Run,
    /// The run of the same idempotency key is the answer; nothing is inserted.
    Existing(RunId),
    /// A due trigger starts nothing, on record with the reason.
    Skip(SkipReason),
    /// The caller is told why not.
    Reject(Rejection),
}

/// Why a start is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the idempotency key was used for run {0}, with another input; use a new key, or the same input")]
    KeyConflict(RunId),
    #[error("the task has {unfinished} unfinished runs; at most {limit} can wait")]
    TooManyUnfinished { unfinished: u64, limit: u64 },
}

/// Decides about one request.
pub fn admit(asker: Asker, state: AdmissionState) -> Verdict {
    if let Some(SameKey { run, same_input }) = state.same_key {
        return if same_input {
            Verdict::Existing(run)
        } else {
            Verdict::Reject(Rejection::KeyConflict(run))
        };
    }
    let full = state.unfinished_of_task >= UNFINISHED_RUNS_PER_TASK_MAX;
    match asker {
        Asker::Trigger { overlap: OverlapPolicy::Skip } if state.unfinished_of_trigger > 0 => {
            Verdict::Skip(SkipReason::Overlap)
        }
        Asker::Trigger { .. } if full => Verdict::Skip(SkipReason::QueueFull),
        Asker::Hand if full => Verdict::Reject(Rejection::TooManyUnfinished {
            unfinished: state.unfinished_of_task,
            limit: UNFINISHED_RUNS_PER_TASK_MAX,
        }),
        Asker::Trigger { .. } | Asker::Hand => Verdict::Run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: AdmissionState =
        AdmissionState { unfinished_of_task: 0, unfinished_of_trigger: 0, same_key: None };
    const SKIP: Asker = Asker::Trigger { overlap: OverlapPolicy::Skip };
    const ALL: Asker = Asker::Trigger { overlap: OverlapPolicy::AllowAll };

    #[test]
    fn overlap_is_the_triggers_own() {
        let busy = AdmissionState { unfinished_of_task: 1, unfinished_of_trigger: 1, ..IDLE };
        assert_eq!(admit(SKIP, IDLE), Verdict::Run);
        assert_eq!(admit(SKIP, busy), Verdict::Skip(SkipReason::Overlap));
        assert_eq!(admit(ALL, busy), Verdict::Run);
        assert_eq!(admit(Asker::Hand, busy), Verdict::Run);
        let by_hand = AdmissionState { unfinished_of_task: 1, ..IDLE };
        assert_eq!(admit(SKIP, by_hand), Verdict::Run);
    }

    #[test]
    fn a_full_queue_skips_triggers_and_rejects_hands() {
        let full = AdmissionState { unfinished_of_task: UNFINISHED_RUNS_PER_TASK_MAX, ..IDLE };
        assert_eq!(admit(ALL, full), Verdict::Skip(SkipReason::QueueFull));
        assert!(matches!(admit(Asker::Hand, full), Verdict::Reject(Rejection::TooManyUnfinished { .. })));
    }

    #[test]
    fn a_key_names_one_run() {
        let run = RunId(uuid::Uuid::from_u128(1));
        let known = |same_input| AdmissionState { same_key: Some(SameKey { run, same_input }), ..IDLE };
        assert_eq!(admit(Asker::Hand, known(true)), Verdict::Existing(run));
        assert_eq!(admit(Asker::Hand, known(false)), Verdict::Reject(Rejection::KeyConflict(run)));
    }
}
