//! Admission: the one gate that everything that asks for a run passes, inside the transaction that
//! inserts the run.

use crate::firing::Firing;
use crate::ids::RunId;
use crate::limits::UNFINISHED_RUNS_PER_TASK_MAX;
use crate::quota::QuotaExceeded;
use crate::timetable::Upcoming;
use crate::trigger::{OverlapPolicy, SkipRange, SkipReason, TriggerSpec};
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

/// What a trigger says of itself to the transaction that applies its firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FiringTerms {
    pub overlap: OverlapPolicy,
    /// How many more runs it may start; none: any number.
    pub runs_left: Option<u64>,
    /// Whether the end of its run decides when it is due again.
    pub waits_for_run: bool,
}

impl FiringTerms {
    /// Those of a trigger that has started so many runs.
    pub fn of(spec: &TriggerSpec, started: u64) -> Self {
        Self {
            overlap: spec.overlap,
            runs_left: spec.max_runs.map(|most| most.saturating_sub(started)),
            waits_for_run: spec.delay().is_some(),
        }
    }
}

/// What becomes of a trigger's firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedFiring {
    /// Which of the firing's runs are inserted, by their places in it.
    pub runs: Vec<usize>,
    /// The firing's skips and those of runs that were not admitted, in order. None is later than the last run that
    /// the trigger may start.
    pub skips: Vec<SkipRange>,
    pub next: Next,
}

/// When a trigger is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    At(Upcoming),
    /// So long after the end of the run that it has started.
    AfterRun,
    /// Never: it has finished.
    Never,
}

impl Next {
    /// When, if that is known already.
    pub fn upcoming(self) -> Option<Upcoming> {
        match self {
            Self::At(upcoming) => Some(upcoming),
            Self::AfterRun | Self::Never => None,
        }
    }
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
pub fn admit_firing(terms: FiringTerms, state: AdmissionState, firing: &Firing) -> AdmittedFiring {
    let mut state = AdmissionState { same_key: None, ..state };
    let mut runs_left = terms.runs_left;
    let mut runs = Vec::new();
    let mut skips = firing.skips.clone();
    let mut last_of_all = None;
    for (place, nominal) in firing.runs.iter().enumerate() {
        match admit(Asker::Trigger { overlap: terms.overlap }, state) {
            Verdict::Run => {
                runs.push(place);
                state.unfinished_of_task += 1;
                state.unfinished_of_trigger += 1;
                state.tenant.over =
                    state.tenant.over.map(|(fit, exceeded)| (fit.saturating_sub(1), exceeded));
                runs_left = runs_left.map(|left| left.saturating_sub(1));
                if runs_left == Some(0) {
                    last_of_all = Some(*nominal);
                    break;
                }
            }
            Verdict::Skip(reason) => {
                skips.push(SkipRange { from: *nominal, to: *nominal, count: 1, reason });
            }
            Verdict::Existing(_) | Verdict::Reject(_) => {
                unreachable!("only hands have keys and are rejected")
            }
        }
    }
    skips.retain(|skip| last_of_all.is_none_or(|last| skip.from < last));
    skips.sort_by_key(|skip| skip.from);
    let next = match firing.next {
        _ if last_of_all.is_some() => Next::Never,
        _ if terms.waits_for_run && !runs.is_empty() => Next::AfterRun,
        Some(next) => Next::At(next),
        None => Next::Never,
    };
    AdmittedFiring { runs, skips, next }
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

    fn terms(overlap: OverlapPolicy) -> FiringTerms {
        FiringTerms { overlap, runs_left: None, waits_for_run: false }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn skip(second: i64, reason: SkipReason) -> SkipRange {
        SkipRange { from: at(second), to: at(second), count: 1, reason }
    }

    fn firing(runs: &[i64], skips: Vec<SkipRange>, next: Option<i64>) -> Firing {
        let next = next.map(|next| Upcoming::punctual(at(next)));
        Firing { runs: runs.iter().map(|run| at(*run)).collect(), skips, next, covered: None }
    }

    #[test]
    fn each_run_of_a_firing_counts_for_the_next() {
        let gone = skip(5, SkipReason::Superseded);
        let firing = firing(&[1, 9], vec![gone], None);
        let admitted = admit_firing(terms(OverlapPolicy::Skip), IDLE, &firing);
        let skips = vec![gone, skip(9, SkipReason::Overlap)];
        assert_eq!(admitted, AdmittedFiring { runs: vec![0], skips, next: Next::Never });
        assert_eq!(admit_firing(terms(OverlapPolicy::AllowAll), IDLE, &firing).runs, [0, 1]);
    }

    #[test]
    fn the_last_run_that_a_trigger_may_start_ends_it() {
        let skips = vec![skip(1, SkipReason::TooLate), skip(5, SkipReason::TooLate)];
        let firing = firing(&[2, 3, 4, 6], skips, Some(7));
        let at_most =
            |runs_left| FiringTerms { runs_left: Some(runs_left), ..terms(OverlapPolicy::AllowAll) };
        let admitted = admit_firing(at_most(2), IDLE, &firing);
        let before = vec![skip(1, SkipReason::TooLate)];
        assert_eq!(admitted, AdmittedFiring { runs: vec![0, 1], skips: before, next: Next::Never });
        let admitted = admit_firing(at_most(5), IDLE, &firing);
        assert_eq!(
            (admitted.runs.len(), admitted.skips.len(), admitted.next),
            (4, 2, Next::At(Upcoming::punctual(at(7))))
        );
    }

    #[test]
    fn a_fixed_delay_waits_for_its_run_if_there_is_one() {
        let delay = FiringTerms { waits_for_run: true, ..terms(OverlapPolicy::Skip) };
        let due = firing(&[1], vec![], Some(60));
        assert_eq!(admit_firing(delay, IDLE, &due).next, Next::AfterRun);
        let suspended = AdmissionState { tenant: Standing { suspended: true, over: None }, ..IDLE };
        assert_eq!(admit_firing(delay, suspended, &due).next, Next::At(Upcoming::punctual(at(60))));
        let last = FiringTerms { runs_left: Some(1), ..delay };
        assert_eq!(admit_firing(last, IDLE, &due).next, Next::Never);
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
        let admitted =
            admit_firing(terms(OverlapPolicy::AllowAll), over(2), &firing(&[1, 2, 3], vec![], None));
        assert_eq!((admitted.runs, admitted.skips), (vec![0, 1], vec![skip(3, SkipReason::Quota)]));
    }

    #[test]
    fn a_key_names_one_run() {
        let run = RunId(uuid::Uuid::from_u128(1));
        let known = |same_input| AdmissionState { same_key: Some(SameKey { run, same_input }), ..IDLE };
        assert_eq!(admit(Asker::Hand, known(true)), Verdict::Existing(run));
        assert_eq!(admit(Asker::Hand, known(false)), Verdict::Reject(Rejection::KeyConflict(run)));
    }
}
