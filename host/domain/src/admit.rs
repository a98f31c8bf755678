//! Admission: the one gate that everything that asks for a run passes, inside the transaction that
//! inserts the run.

use crate::firing::Firing;
use crate::ids::RunId;
use crate::limits::{BUFFERED_RUNS_MAX, UNFINISHED_RUNS_PER_TASK_MAX};
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
    /// Whether the task is paused: what is started by hand waits then.
    pub task_paused: bool,
}

/// Whether a tenant may have more runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    pub suspended: bool,
    /// By its owner, or with the whole fleet: due times are skipped, and what is started by hand waits.
    pub paused: bool,
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
    /// A run is inserted that waits for the trigger's runs before it.
    Buffer,
    /// A run is inserted, the trigger's other unfinished runs are cancelled, and it waits for their end.
    Replace,
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
    if let (true, Asker::Trigger { .. }) = (state.tenant.paused, asker) {
        return Verdict::Skip(SkipReason::Paused);
    }
    if let Some((0, exceeded)) = state.tenant.over {
        return refuse(SkipReason::Quota, Rejection::Quota(exceeded));
    }
    let full = state.unfinished_of_task >= UNFINISHED_RUNS_PER_TASK_MAX;
    let overlap = match asker {
        Asker::Hand if full => {
            return Verdict::Reject(Rejection::TooManyUnfinished {
                unfinished: state.unfinished_of_task,
                limit: UNFINISHED_RUNS_PER_TASK_MAX,
            });
        }
        Asker::Hand => return Verdict::Run,
        Asker::Trigger { overlap } => overlap,
    };
    if state.task_paused {
        return Verdict::Skip(SkipReason::Paused);
    }
    match (overlap, state.unfinished_of_trigger) {
        (OverlapPolicy::Skip, 1..) | (OverlapPolicy::BufferOne, 2..) => Verdict::Skip(SkipReason::Overlap),
        (OverlapPolicy::BufferAll, unfinished) if unfinished > BUFFERED_RUNS_MAX => {
            Verdict::Skip(SkipReason::QueueFull)
        }
        _ if full => Verdict::Skip(SkipReason::QueueFull),
        (OverlapPolicy::BufferOne | OverlapPolicy::BufferAll, 1..) => Verdict::Buffer,
        (OverlapPolicy::CancelOther, 1..) => Verdict::Replace,
        _ => Verdict::Run,
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
    /// Whether the trigger's unfinished runs are cancelled before its new one is inserted.
    pub cancels: bool,
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

/// Decides about all runs of a trigger's firing, one after another, so that each counts for the next. Of several that
/// would cancel each other only the last is inserted, and the others are superseded.
pub fn admit_firing(terms: FiringTerms, state: AdmissionState, firing: &Firing) -> AdmittedFiring {
    let mut state = AdmissionState { same_key: None, ..state };
    let mut runs_left = terms.runs_left;
    let mut runs = Vec::new();
    let mut skips = firing.skips.clone();
    let mut last_of_all = None;
    let mut cancels = false;
    let only_last = terms.overlap == OverlapPolicy::CancelOther;
    for (place, nominal) in firing.runs.iter().enumerate() {
        let verdict = match only_last && place + 1 < firing.runs.len() {
            true => Verdict::Skip(SkipReason::Superseded),
            false => admit(Asker::Trigger { overlap: terms.overlap }, state),
        };
        match verdict {
            Verdict::Run | Verdict::Buffer | Verdict::Replace => {
                cancels |= verdict == Verdict::Replace;
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
    AdmittedFiring { runs, skips, next, cancels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;
    use proptest::prelude::*;

    const IDLE: AdmissionState = AdmissionState {
        unfinished_of_task: 0,
        unfinished_of_trigger: 0,
        same_key: None,
        tenant: Standing { suspended: false, paused: false, over: None },
        task_paused: false,
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
        assert_eq!(admitted, AdmittedFiring { runs: vec![0], skips, next: Next::Never, cancels: false });
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
        let expected = AdmittedFiring { runs: vec![0, 1], skips: before, next: Next::Never, cancels: false };
        assert_eq!(admitted, expected);
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
        let suspended =
            AdmissionState { tenant: Standing { suspended: true, ..Standing::default() }, ..IDLE };
        assert_eq!(admit_firing(delay, suspended, &due).next, Next::At(Upcoming::punctual(at(60))));
        let last = FiringTerms { runs_left: Some(1), ..delay };
        assert_eq!(admit_firing(last, IDLE, &due).next, Next::Never);
    }

    #[test]
    fn nothing_of_a_suspended_tenant_begins() {
        let suspended =
            AdmissionState { tenant: Standing { suspended: true, ..Standing::default() }, ..IDLE };
        assert_eq!(admit(Asker::Hand, suspended), Verdict::Reject(Rejection::TenantSuspended));
        assert_eq!(admit(ALL, suspended), Verdict::Skip(SkipReason::TenantSuspended));
    }

    #[test]
    fn of_a_paused_tenant_hands_may_ask() {
        let paused = AdmissionState { tenant: Standing { paused: true, ..Standing::default() }, ..IDLE };
        assert_eq!(admit(ALL, paused), Verdict::Skip(SkipReason::Paused));
        assert_eq!(admit(Asker::Hand, paused), Verdict::Run);
    }

    #[test]
    fn a_quota_stands_in_the_way_after_what_fits() {
        let exceeded = QuotaExceeded { quota: Quota::StoredBytes, limit: 9, used: 9, asked: 1 };
        let over = |fit| AdmissionState {
            tenant: Standing { over: Some((fit, exceeded)), ..Standing::default() },
            ..IDLE
        };
        assert_eq!(admit(Asker::Hand, over(1)), Verdict::Run);
        assert_eq!(admit(Asker::Hand, over(0)), Verdict::Reject(Rejection::Quota(exceeded)));
        let admitted =
            admit_firing(terms(OverlapPolicy::AllowAll), over(2), &firing(&[1, 2, 3], vec![], None));
        assert_eq!((admitted.runs, admitted.skips), (vec![0, 1], vec![skip(3, SkipReason::Quota)]));
    }

    #[test]
    fn a_paused_task_skips_triggers_and_takes_hands() {
        let paused = AdmissionState { task_paused: true, ..IDLE };
        assert_eq!(admit(ALL, paused), Verdict::Skip(SkipReason::Paused));
        assert_eq!(admit(Asker::Hand, paused), Verdict::Run);
    }

    #[test]
    fn of_several_that_would_cancel_each_other_the_last_runs() {
        let firing = firing(&[1, 2, 3], vec![], None);
        let busy = AdmissionState { unfinished_of_trigger: 1, unfinished_of_task: 1, ..IDLE };
        for (state, cancels) in [(IDLE, false), (busy, true)] {
            let admitted = admit_firing(terms(OverlapPolicy::CancelOther), state, &firing);
            let skips = vec![skip(1, SkipReason::Superseded), skip(2, SkipReason::Superseded)];
            assert_eq!(admitted, AdmittedFiring { runs: vec![2], skips, next: Next::Never, cancels });
        }
    }

    proptest! {
        /// Against a list of a trigger's unfinished runs, the first of which executes: what each policy says in its
        /// plainest words.
        #[test]
        fn overlap_is_as_a_list_of_runs_says(
            policy in 0usize..5, steps in prop::collection::vec((1usize..4, 0usize..3), 1..60), room in 1u64..30,
        ) {
            let overlap = OverlapPolicy::ALL[policy];
            let mut unfinished: Vec<i64> = Vec::new();
            let mut second = 0;
            for (due, over) in steps {
                unfinished.drain(..over.min(unfinished.len()));
                let times: Vec<i64> = (second..).take(due).collect();
                second += i64::try_from(due).unwrap();
                // A task that is nearly full, so that the policies meet its bound as well.
                let others = UNFINISHED_RUNS_PER_TASK_MAX - room;
                let state = AdmissionState {
                    unfinished_of_task: others + unfinished.len() as u64,
                    unfinished_of_trigger: unfinished.len() as u64,
                    ..IDLE
                };
                let admitted = admit_firing(terms(overlap), state, &firing(&times, vec![], None));
                let mut model = unfinished.clone();
                for (place, time) in times.iter().enumerate() {
                    let fits = (model.len() as u64) < room;
                    match overlap {
                        OverlapPolicy::Skip if !model.is_empty() => {}
                        OverlapPolicy::BufferOne if model.len() > 1 => {}
                        OverlapPolicy::CancelOther if place + 1 < times.len() => {}
                        _ if !fits => {}
                        OverlapPolicy::CancelOther => model = vec![*time],
                        _ => model.push(*time),
                    }
                }
                let inserted: Vec<i64> = admitted.runs.iter().map(|place| times[*place]).collect();
                prop_assert_eq!(admitted.runs.len() + admitted.skips.len(), times.len());
                if admitted.cancels {
                    unfinished.clear();
                }
                unfinished.extend(inserted);
                prop_assert_eq!(&unfinished, &model);
            }
        }
    }

    #[test]
    fn a_buffer_has_a_bound() {
        let buffered = |unfinished| AdmissionState { unfinished_of_trigger: unfinished, ..IDLE };
        let all = Asker::Trigger { overlap: OverlapPolicy::BufferAll };
        assert_eq!(admit(all, buffered(0)), Verdict::Run);
        assert_eq!(admit(all, buffered(BUFFERED_RUNS_MAX)), Verdict::Buffer);
        assert_eq!(admit(all, buffered(BUFFERED_RUNS_MAX + 1)), Verdict::Skip(SkipReason::QueueFull));
    }

    #[test]
    fn a_key_names_one_run() {
        let run = RunId(uuid::Uuid::from_u128(1));
        let known = |same_input| AdmissionState { same_key: Some(SameKey { run, same_input }), ..IDLE };
        assert_eq!(admit(Asker::Hand, known(true)), Verdict::Existing(run));
        assert_eq!(admit(Asker::Hand, known(false)), Verdict::Reject(Rejection::KeyConflict(run)));
    }
}
