//! One step of a backfill: some of its times, decided about in the transaction that applies it.

use super::{Again, Stretch, wants};
use crate::admit::{AdmissionState, Asker, Verdict, admit};
use crate::limits::BACKFILL_WAIT;
use crate::run::RunState;
use crate::time;
use crate::trigger::{OverlapPolicy, SkipReason};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// A backfill as the transaction finds it that takes it a step further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub again: Again,
    pub concurrency: u32,
    /// Its runs that are not over.
    pub unfinished: u64,
    /// Promise: a paused trigger creates no run, nor do its backfills.
    pub paused: bool,
}

impl Standing {
    /// Whether it can have a run now; otherwise nobody need know what ran already.
    pub fn has_room(&self) -> bool {
        !self.paused && self.unfinished < u64::from(self.concurrency)
    }
}

/// What one step of a backfill does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which of the stretch's times get a run, by their places in it.
    pub runs: Vec<usize>,
    /// Times that are left out, since they have a run.
    pub left_out: u64,
    /// The first time that is not dealt with; none if there is none in its range.
    pub next: Option<Timestamp>,
    pub then: Then,
}

/// How a backfill goes on after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// At once.
    GoesOn,
    /// When one of its runs has ended.
    AfterRun,
    /// It tries again in a while: something refuses its runs that passes.
    Waits(SkipReason),
    /// Not any more.
    Finished,
}

impl Then {
    /// When it is to be taken a step further; none if the end of a run decides that, or nothing is left.
    pub fn wake_at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::GoesOn => Some(now),
            Self::Waits(_) => Some(time::after(now, BACKFILL_WAIT)),
            Self::AfterRun | Self::Finished => None,
        }
    }

    pub fn waits_for(self) -> Option<SkipReason> {
        match self {
            Self::Waits(reason) => Some(reason),
            Self::GoesOn | Self::AfterRun | Self::Finished => None,
        }
    }
}

/// Decides about one stretch of a backfill's times, in order, each run counting for the next; `latest` are those that
/// have a run, with the state of the latest.
pub fn step(
    standing: Standing,
    admission: AdmissionState,
    stretch: &Stretch,
    latest: &BTreeMap<Timestamp, RunState>,
) -> Step {
    let mut state = AdmissionState { same_key: None, ..admission };
    let mut unfinished = standing.unfinished;
    let mut step = Step { runs: Vec::new(), left_out: 0, next: None, then: Then::GoesOn };
    for (place, at) in stretch.times.iter().enumerate() {
        if !wants(standing.again, latest.get(at).copied()) {
            step.left_out += 1;
            continue;
        }
        let stop = if standing.paused {
            Then::Waits(SkipReason::Paused)
        } else if unfinished >= u64::from(standing.concurrency) {
            Then::AfterRun
        } else {
            // It has a limit of its own in place of the trigger's overlap policy.
            match admit(Asker::Trigger { overlap: OverlapPolicy::AllowAll }, state) {
                Verdict::Run | Verdict::Buffer | Verdict::Replace => {
                    step.runs.push(place);
                    unfinished += 1;
                    state.unfinished_of_task += 1;
                    let over = state.tenant.over;
                    state.tenant.over = over.map(|(fit, exceeded)| (fit.saturating_sub(1), exceeded));
                    continue;
                }
                Verdict::Skip(reason) => Then::Waits(reason),
                Verdict::Existing(_) | Verdict::Reject(_) => {
                    unreachable!("only hands have keys and are rejected")
                }
            }
        };
        return Step { next: Some(*at), then: stop, ..step };
    }
    step.next = stretch.next;
    step.then = match (step.next, unfinished) {
        (Some(_), _) => Then::GoesOn,
        (None, 0) => Then::Finished,
        (None, _) => Then::AfterRun,
    };
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit;
    use crate::limits::UNFINISHED_RUNS_PER_TASK_MAX;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn standing(concurrency: u32, unfinished: u64) -> Standing {
        Standing { again: Again::None, concurrency, unfinished, paused: false }
    }

    fn times(seconds: std::ops::Range<i64>, next: Option<i64>) -> Stretch {
        Stretch { times: seconds.map(at).collect(), next: next.map(at) }
    }

    fn latest(seconds: impl IntoIterator<Item = (i64, RunState)>) -> BTreeMap<Timestamp, RunState> {
        seconds.into_iter().map(|(second, state)| (at(second), state)).collect()
    }

    #[test]
    fn it_has_so_many_runs_at_one_time() {
        let step = |unfinished| {
            step(standing(2, unfinished), AdmissionState::default(), &times(1..9, None), &latest([]))
        };
        let begun = step(0);
        assert_eq!((begun.runs, begun.next, begun.then), (vec![0, 1], Some(at(3)), Then::AfterRun));
        let goes_on = step(1);
        assert_eq!((goes_on.runs, goes_on.next, goes_on.then), (vec![0], Some(at(2)), Then::AfterRun));
        let full = step(2);
        assert_eq!((full.runs, full.next, full.then), (vec![], Some(at(1)), Then::AfterRun));
    }

    #[test]
    fn what_has_a_run_is_left_out_even_when_there_is_no_room() {
        let ran = latest((1..4).map(|second| (second, RunState::Succeeded)));
        let found = step(standing(1, 1), AdmissionState::default(), &times(1..5, Some(5)), &ran);
        assert_eq!((found.left_out, found.next, found.then), (3, Some(at(4)), Then::AfterRun));
        let all = step(standing(1, 0), AdmissionState::default(), &times(1..4, None), &ran);
        assert_eq!((all.left_out, all.next, all.then), (3, None, Then::Finished));
        let more = step(standing(1, 1), AdmissionState::default(), &times(1..4, Some(9)), &ran);
        assert_eq!((more.left_out, more.next, more.then), (3, Some(at(9)), Then::GoesOn));
    }

    #[test]
    fn it_waits_for_what_passes_and_loses_nothing() {
        let suspended = admit::Standing { suspended: true, ..admit::Standing::default() };
        let full =
            AdmissionState { unfinished_of_task: UNFINISHED_RUNS_PER_TASK_MAX - 1, ..Default::default() };
        for (state, paused, runs, reason) in [
            (
                AdmissionState { tenant: suspended, ..Default::default() },
                false,
                0,
                SkipReason::TenantSuspended,
            ),
            (full, false, 1, SkipReason::QueueFull),
            (AdmissionState::default(), true, 0, SkipReason::Paused),
        ] {
            let standing = Standing { paused, ..standing(9, 0) };
            let found = step(standing, state, &times(1..5, None), &latest([]));
            assert_eq!((found.runs.len(), found.then), (runs, Then::Waits(reason)));
            assert_eq!(found.next, Some(at(1 + i64::try_from(runs).unwrap())));
        }
    }

    #[test]
    fn a_run_of_the_trigger_itself_does_not_stand_in_its_way() {
        let state = AdmissionState { unfinished_of_trigger: 3, ..Default::default() };
        assert_eq!(step(standing(1, 0), state, &times(1..2, None), &latest([])).runs, [0]);
    }

    proptest! {
        /// Whatever ran before, however runs end in between, and however long the stretches: every time is dealt with
        /// once and in order, as the rule says, never with more runs than may be.
        #[test]
        fn every_time_is_dealt_with_once(
            states in proptest::collection::vec(0usize..7, 1..60), again in 0usize..3, concurrency in 1u32..5,
            most in 1usize..10, ends in proptest::collection::vec(0u64..4, 1..20),
        ) {
            let again = Again::ALL[again];
            let kinds = [
                RunState::Queued, RunState::Waiting, RunState::Running, RunState::Succeeded, RunState::Failed,
                RunState::Cancelled,
            ];
            let total = i64::try_from(states.len()).unwrap();
            let ran = latest((0..).zip(&states).filter_map(|(at, kind)| kinds.get(*kind).map(|state| (at, *state))));
            let expected: Vec<i64> = (0..total).filter(|second| wants(again, ran.get(&at(*second)).copied())).collect();
            let mut ends = ends.into_iter().cycle();
            let (mut runs, mut left_out, mut unfinished) = (Vec::new(), 0, 0u64);
            let mut next = Some(0);
            for _ in 0..1_000 {
                let Some(from) = next else { break };
                let until = total.min(from + i64::try_from(most).unwrap());
                let part = times(from..until, Some(until).filter(|until| *until < total));
                let standing = Standing { again, concurrency, unfinished, paused: false };
                let found = step(standing, AdmissionState::default(), &part, &ran);
                runs.extend(found.runs.iter().map(|place| part.times[*place].as_second()));
                left_out += found.left_out;
                unfinished += found.runs.len() as u64;
                prop_assert!(unfinished <= u64::from(concurrency));
                next = found.next.map(|next| next.as_second());
                match found.then {
                    Then::AfterRun => unfinished -= ends.next().unwrap().clamp(1, unfinished),
                    Then::GoesOn => {}
                    Then::Finished => prop_assert_eq!((next, unfinished), (None, 0)),
                    Then::Waits(reason) => prop_assert!(false, "waits for {}", reason),
                }
            }
            prop_assert_eq!(next, None);
            prop_assert_eq!(left_out, u64::try_from(total).unwrap() - expected.len() as u64);
            prop_assert_eq!(runs, expected);
        }
    }
}
