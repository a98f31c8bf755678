//! Fairness: how room for runs is shared between tenants.
//!
//! Who has the least for its weight is next, what executes already included: a flood of one tenant's takes only
//! the room that the others leave. Where a share isn't a whole number, luck decides each time anew whether it is
//! rounded up or down, so that a light tenant among heavy ones waits, and doesn't wait for ever.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// What a tenant asks of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// From 1.
    pub weight: u32,
    /// Runs of it that execute, on all hosts.
    pub running: u64,
    /// Runs that are ready; need not be counted beyond the room that there is.
    pub ready: usize,
    /// How many may execute at one time.
    pub limit: Option<u64>,
}

impl Demand {
    /// How many it can be given at most.
    fn most(&self) -> usize {
        let free = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.running));
        self.ready.min(usize::try_from(free).unwrap_or(usize::MAX))
    }

    /// Whether its limit keeps some of its runs back even if there is room.
    pub fn is_held_back(&self) -> bool {
        self.most() < self.ready
    }
}

/// Shares `room` between tenants: how many runs of each are to begin, in the order of the demands. All room is
/// used as long as anybody can use it. `draw` is the luck; the same gives the same.
pub fn share(room: usize, demands: &[Demand], draw: u64) -> Vec<usize> {
    let mut given = vec![0; demands.len()];
    let level = |place: usize, given: usize| {
        let demand = &demands[place];
        let has = u128::from(demand.running) + given as u128;
        let luck = u128::from(mix(draw.wrapping_add(place as u64)) % STEPS) + 1;
        Level { has: has * u128::from(STEPS) + luck, weight: demand.weight.max(1).into(), place }
    };
    let can_use = (0..demands.len()).filter(|place| demands[*place].most() > 0);
    let mut next: BinaryHeap<_> = can_use.map(|place| Reverse(level(place, 0))).collect();
    for _ in 0..room {
        let Some(Reverse(Level { place, .. })) = next.pop() else { break };
        given[place] += 1;
        if given[place] < demands[place].most() {
            next.push(Reverse(level(place, given[place])));
        }
    }
    given
}

/// How finely luck divides a run.
const STEPS: u64 = 1 << 20;

/// Spreads numbers that are close to each other (splitmix64).
pub(crate) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// How much a tenant would have for its weight with one run more.
#[derive(Debug, PartialEq, Eq)]
struct Level {
    /// In parts of a run.
    has: u128,
    weight: u128,
    place: usize,
}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.has * other.weight, other.has * self.weight);
        own.cmp(&others).then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flood(weight: u32, running: u64) -> Demand {
        Demand { weight, running, ready: 1_000_000, limit: None }
    }

    fn demands() -> impl Strategy<Value = Vec<Demand>> {
        let limit = prop_oneof![Just(None), (0u64..50).prop_map(Some)];
        let one = (1u32..=1_000, 0u64..50, 0usize..100, limit);
        let one = one.prop_map(|(weight, running, ready, limit)| Demand { weight, running, ready, limit });
        prop::collection::vec(one, 0..12)
    }

    #[test]
    fn a_flood_leaves_room_for_a_single_run() {
        let single = Demand { ready: 1, ..flood(1, 0) };
        for draw in 0..100 {
            assert_eq!(share(8, &[flood(1, 0), single], draw), [7, 1]);
            assert_eq!(share(1, &[flood(1, 7), single], draw), [0, 1], "what executes counts");
        }
    }

    #[test]
    fn a_limit_holds_back() {
        let limited = Demand { limit: Some(3), ..flood(1, 2) };
        assert_eq!(share(8, &[limited], 0), [1]);
        assert!(limited.is_held_back());
        assert!(!Demand { ready: 1, ..limited }.is_held_back());
        assert_eq!(share(8, &[Demand { limit: Some(1), ..limited }], 0), [0], "also one that was lowered");
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_it_can_use_and_no_room_is_left_unused(
            demands in demands(), room in 0usize..300, draw: u64
        ) {
            let given = share(room, &demands, draw);
            for (demand, given) in demands.iter().zip(&given) {
                prop_assert!(*given <= demand.ready);
                prop_assert!(*given == 0 || demand.limit.is_none_or(|l| demand.running + *given as u64 <= l));
            }
            let most: usize = demands.iter().map(Demand::most).sum();
            prop_assert_eq!(given.iter().sum::<usize>(), room.min(most));
        }

        /// Whoever got a run had, before its last, less for its weight than anybody who could have had one more.
        #[test]
        fn nobody_is_passed_by_for_one_that_has_more(demands in demands(), room in 0usize..300, draw: u64) {
            let given = share(room, &demands, draw);
            for (one, got) in demands.iter().zip(&given).filter(|(_, got)| **got > 0) {
                for (other, has) in demands.iter().zip(&given).filter(|(other, has)| **has < other.most()) {
                    let before = (one.running + *got as u64 - 1) * u64::from(other.weight);
                    let would_have = (other.running + *has as u64 + 1) * u64::from(one.weight);
                    prop_assert!(before < would_have, "{one:?} got {got}, {other:?} {has}");
                }
            }
        }

        #[test]
        fn those_who_have_enough_to_do_get_by_weight(
            weights in prop::collection::vec(1u32..=20, 1..8), room in 0usize..300, draw: u64
        ) {
            let demands: Vec<_> = weights.iter().map(|weight| flood(*weight, 0)).collect();
            let given = share(room, &demands, draw);
            let sum: u32 = weights.iter().sum();
            for (weight, given) in weights.iter().zip(&given) {
                let exact = room as f64 * f64::from(*weight) / f64::from(sum);
                // One by its own rounding, and its part of the others'.
                let most = 1.0 + weights.len() as f64 * f64::from(*weight) / f64::from(sum);
                prop_assert!((*given as f64 - exact).abs() <= most, "{given} of {room}, {exact} would be exact");
            }
        }
    }

    /// Floods of any weights in a few slots, one of which becomes free each time.
    #[test]
    fn nobody_starves() {
        for (slots, weights) in [(1, vec![1, 20]), (8, vec![20, 1, 20, 3]), (3, vec![1_000, 100, 100])] {
            let mut executing = std::collections::VecDeque::new();
            let mut begun = vec![0u32; weights.len()];
            for round in 0..20_000 {
                if executing.len() == slots {
                    executing.pop_front();
                }
                let running = |place| executing.iter().filter(|of| **of == place).count() as u64;
                let demands: Vec<_> = weights
                    .iter()
                    .enumerate()
                    .map(|(place, weight)| flood(*weight, running(place)))
                    .collect();
                let given = share(1, &demands, round);
                let place = given.iter().position(|given| *given == 1).unwrap();
                executing.push_back(place);
                begun[place] += 1;
            }
            assert!(begun.iter().all(|begun| *begun > 100), "{weights:?} in {slots}: {begun:?}");
        }
    }
}
