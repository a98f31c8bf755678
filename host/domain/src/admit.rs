//! Admission: the one gate that everything that asks for a run passes, inside the transaction that
//! inserts the run.

use crate::firing::Firing;
use crate::ids::RunId;
use crate::limits::UNFINISHED_RUNS_PER_TASK_MAX;
use crate::quota::QuotaExceeded;
use crate::trigger::{OverlapPolicy, SkipRange, SkipReason};
use jiff::Timestamp;

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
    pub tenant: Standing,
}

/// Whether a tenant may have more runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub suspended: bool,
    /// The quota that stands in the way of a run, and how many more fit before it does.
    pub over: Option<(u64, QuotaExceeded)>,
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
    #[error("the tenant is suspended: nothing of it begins; the host's admin can resume it")]
    TenantSuspended,
    #[error(transparent)]
    Quota(QuotaExceeded),
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
    let refuse = |reason, rejection| match asker {
        Asker::Hand => Verdict::Reject(rejection),
        Asker::Trigger { .. } => Verdict::Skip(reason),
    };
    if state.tenant.suspended {
        return refuse(SkipReason::TenantSuspended, Rejection::TenantSuspended);
    }
    if let Some((0, exceeded)) = state.tenant.over {
        return refuse(SkipReason::Quota, Rejection::Quota(exceeded));
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

/// What becomes of a trigger's firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedFiring {
    /// Which of the firing's runs are inserted, by their places in it.
    pub runs: Vec<usize>,
    /// The firing's skips and those of runs that were not admitted, in order.
    pub skips: Vec<SkipRange>,
}

impl AdmittedFiring {
    /// The last nominal time before `skip` that has a run: one of `firing`'s, else `before`, which is the
    /// trigger's last one from before the firing.
    pub fn last_run_before(
        &self,
        skip: &SkipRange,
        firing: &Firing,
        before: Option<Timestamp>,
    ) -> Option<Timestamp> {
        let runs = self.runs.iter().filter_map(|place| firing.runs.get(*place).copied());
        runs.filter(|run| *run < skip.from).max().or(before)
    }
}

/// Decides about all runs of a trigger's firing, one after another, so that each counts for the next.
pub fn admit_firing(overlap: OverlapPolicy, state: AdmissionState, firing: &Firing) -> AdmittedFiring {
    let mut state = AdmissionState { same_key: None, ..state };
    let mut admitted = AdmittedFiring { runs: Vec::new(), skips: firing.skips.clone() };
    for (place, nominal) in firing.runs.iter().enumerate() {
        match admit(Asker::Trigger { overlap }, state) {
            Verdict::Run => {
                admitted.runs.push(place);
                state.unfinished_of_task += 1;
                state.unfinished_of_trigger += 1;
                state.tenant.over =
                    state.tenant.over.map(|(fit, exceeded)| (fit.saturating_sub(1), exceeded));
            }
            Verdict::Skip(reason) => {
                admitted.skips.push(SkipRange { from: *nominal, to: *nominal, count: 1, reason });
            }
            Verdict::Existing(_) | Verdict::Reject(_) => {
                unreachable!("only hands have keys and are rejected")
            }
        }
    }
    admitted.skips.sort_by_key(|skip| skip.from);
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    const IDLE: AdmissionState = AdmissionState {
        unfinished_of_task: 0,
        unfinished_of_trigger: 0,
        same_key: None,
        tenant: Standing { suspended: false, over: None },
    };
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
    fn each_run_of_a_firing_counts_for_the_next() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let gone = SkipRange { from: at(5), to: at(5), count: 1, reason: SkipReason::Superseded };
        let firing = Firing { runs: vec![at(1), at(9)], skips: vec![gone], next: None };
        let admitted = admit_firing(OverlapPolicy::Skip, IDLE, &firing);
        let overlaps = SkipRange { from: at(9), to: at(9), count: 1, reason: SkipReason::Overlap };
        assert_eq!(admitted, AdmittedFiring { runs: vec![0], skips: vec![gone, overlaps] });
        assert_eq!(admit_firing(OverlapPolicy::AllowAll, IDLE, &firing).runs, [0, 1]);
    }

    #[test]
    fn nothing_of_a_suspended_tenant_begins() {
        let suspended = AdmissionState { tenant: Standing { suspended: true, over: None }, ..IDLE };
        assert_eq!(admit(Asker::Hand, suspended), Verdict::Reject(Rejection::TenantSuspended));
        assert_eq!(admit(ALL, suspended), Verdict::Skip(SkipReason::TenantSuspended));
    }

    #[test]
    fn a_quota_stands_in_the_way_after_what_fits() {
        let exceeded = QuotaExceeded { quota: Quota::StoredBytes, limit: 9, used: 9, asked: 1 };
        let over = |fit| AdmissionState {
            tenant: Standing { suspended: false, over: Some((fit, exceeded)) },
            ..IDLE
        };
        assert_eq!(admit(Asker::Hand, over(1)), Verdict::Run);
        assert_eq!(admit(Asker::Hand, over(0)), Verdict::Reject(Rejection::Quota(exceeded)));
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let firing = Firing { runs: vec![at(1), at(2), at(3)], skips: vec![], next: None };
        let admitted = admit_firing(OverlapPolicy::AllowAll, over(2), &firing);
        let skipped = SkipRange { from: at(3), to: at(3), count: 1, reason: SkipReason::Quota };
        assert_eq!(admitted, AdmittedFiring { runs: vec![0, 1], skips: vec![skipped] });
    }

    #[test]
    fn a_key_names_one_run() {
        let run = RunId(uuid::Uuid::from_u128(1));
        let known = |same_input| AdmissionState { same_key: Some(SameKey { run, same_input }), ..IDLE };
        assert_eq!(admit(Asker::Hand, known(true)), Verdict::Existing(run));
        assert_eq!(admit(Asker::Hand, known(false)), Verdict::Reject(Rejection::KeyConflict(run)));
    }
}
