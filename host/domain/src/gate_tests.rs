//! Gates against what they promise.

use super::*;
use crate::time;
use proptest::prelude::*;
use std::time::Duration;

fn at(second: u64) -> Timestamp {
    time::after(Timestamp::UNIX_EPOCH, Duration::from_secs(second))
}

fn sets() -> impl Iterator<Item = GateSet> {
    (0..8).map(GateSet::from_bits)
}

#[test]
fn a_run_passes_its_gates_in_order_and_holds_their_slots() {
    for gates in sets() {
        let mut run = Passage::begin(gates);
        for kind in GateKind::ALL.iter().copied().filter(|kind| gates.has(*kind)) {
            assert_eq!(run.hold, Hold::At(kind));
            let passed = run.pass();
            assert_eq!(passed.changes_since(run, kind), (1, -1));
            run = passed;
        }
        assert_eq!((run.hold, run.passed), (Hold::Free, gates));
        let again = run.queued();
        assert_eq!(
            again.passed,
            gates.and(GateSet::NONE.with(GateKind::Trigger)),
            "its trigger's is still its"
        );
        assert_eq!(run.over().passed, GateSet::NONE);
        assert_eq!(Passage::from_stored(run.gates.bits(), run.passed.bits(), run.hold.number()), run);
    }
}

#[test]
fn a_paused_run_holds_nothing_but_its_triggers_slot_and_goes_back_where_it_was() {
    for gates in sets() {
        let queued = Passage::begin(gates);
        let paused = queued.pause(false);
        assert_eq!((paused.hold, paused.passed), (Hold::ByHand, GateSet::NONE));
        assert_eq!(paused.pass(), paused);
        assert_eq!(paused.resume(false), queued);
        let executing = queued.pass().pass().pass();
        let paused = executing.pause(true);
        assert_eq!((paused.hold, paused.passed), (Hold::ByHand, gates));
        assert_eq!(paused.queued().hold, Hold::ByHand, "there is no other attempt");
        assert_eq!(paused.resume(true), executing);
    }
}

#[test]
fn new_limits_count_what_executes_and_queue_what_does_not() {
    let both = GateSet::from_bits(6);
    for own in [GateSet::NONE, GateSet::NONE.with(GateKind::Task), both] {
        let executing = Passage::begin(GateSet::NONE).regate(own, true);
        assert_eq!((executing.passed, executing.hold), (own, Hold::Free));
        let buffered = Passage::begin(GateSet::NONE.with(GateKind::Trigger)).regate(own, false);
        assert_eq!(buffered.hold, Hold::At(GateKind::Trigger));
        assert_eq!(
            buffered.pass(),
            Passage { passed: buffered.passed.with(GateKind::Trigger), ..buffered }.queued()
        );
        let granted = Passage::begin(both).pass().pass().regate(own, false);
        assert_eq!(granted, Passage::begin(own), "what was let in and hasn't begun waits again");
    }
}

#[test]
fn what_a_run_waits_for_has_words() {
    let gate =
        |most, taken| Gate { terms: GateTerms { most, rate: "9/m".parse().ok() }, taken, ..Gate::default() };
    for (waits, words) in [
        (WaitsFor::Gate(GateKind::Task, gate(Some(2), 2)), "its task's concurrency, 2 of 2"),
        (WaitsFor::Gate(GateKind::Key, gate(Some(2), 3)), "its key's concurrency, 3 of 2"),
        (WaitsFor::Gate(GateKind::Task, gate(None, 3)), "its task's rate, 9/m"),
        (WaitsFor::Gate(GateKind::Task, gate(Some(0), 3)), "its task to be resumed: it is paused"),
        (WaitsFor::Gate(GateKind::Trigger, gate(Some(1), 1)), "the trigger's run before it"),
        (WaitsFor::Hand, "somebody to resume it: it is paused"),
    ] {
        assert_eq!(waits.to_string(), words);
    }
}

proptest! {
    /// Whoever comes and goes: never more than may be, and no room is left unused.
    #[test]
    fn a_gate_lets_pass_what_it_has_room_for(
        most in prop::option::of(0u32..6), rate in prop::option::of(1u32..20),
        steps in prop::collection::vec((0u64..5, 0u64..6, 0u64..6), 1..60),
    ) {
        let rate = rate.map(|count| format!("{count}/s").parse().unwrap());
        let mut gate = Gate { terms: GateTerms { most, rate }, ..Gate::default() };
        let mut now = 0;
        for (passes, come, go) in steps {
            now += passes;
            gate.held += come;
            gate.taken -= go.min(gate.taken);
            let wanted = usize::try_from(gate.held).unwrap();
            let room = gate.room(at(now), wanted);
            let after = gate.pass(at(now), room);
            prop_assert_eq!(after.taken + after.held, gate.taken + gate.held);
            prop_assert!(most.is_none_or(|most| after.taken <= u64::from(most).max(gate.taken)));
            if room < wanted {
                let is_full = most.is_some_and(|most| after.taken >= u64::from(most));
                prop_assert!(is_full || after.room(at(now), 1) == 0, "room is left");
                if !is_full {
                    let wake_at = after.wake_at(at(now), at(0));
                    prop_assert!(wake_at > at(now) && after.room(wake_at, 1) == 1);
                }
            }
            gate = after;
        }
    }
}
