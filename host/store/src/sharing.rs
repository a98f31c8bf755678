//! What a claim takes from which queue, decided for every driver alike. Each tenant has a queue for every kind
//! of host that its runs require, and every priority.

use crate::standing::{cpu_is_left, is_within_stored};
use innkeeper_domain::Timestamp;
use innkeeper_domain::fairness::{Demand, share};
use innkeeper_domain::ids::{RunId, TenantId};
use innkeeper_domain::quota::{AttemptBounds, Quota, Quotas};
use innkeeper_domain::rate::Rate;
use innkeeper_domain::time::to_micros;
use std::cmp::Reverse;
use std::time::Duration;

/// A queue with runs that are ready.
#[derive(Debug)]
pub(crate) struct Queue {
    pub requires: String,
    pub priority: u8,
    /// The run that has been ready for longest.
    pub first: (Timestamp, RunId),
    /// How many are ready; not counted beyond the room.
    pub ready: usize,
}

/// A tenant that may begin runs.
#[derive(Debug)]
pub(crate) struct Claimant {
    pub tenant: TenantId,
    pub weight: u32,
    pub quotas: Quotas,
    /// CPU time used today, in microseconds; 0 without that quota.
    pub cpu: u64,
    /// Bytes stored; 0 without that quota.
    pub stored: u64,
    /// Runs that execute, on all hosts.
    pub running: u64,
    /// In the order in which they are served, once they are sorted: by priority, else as they are found.
    pub queues: Vec<Queue>,
    /// See [`Rate::room`]; none without a quota of begins, or if nothing has begun.
    pub on_time_at: Option<Timestamp>,
}

/// What is taken from a queue.
#[derive(Debug)]
pub(crate) struct Slice {
    pub tenant: TenantId,
    pub requires: String,
    pub priority: u8,
    pub most: usize,
}

impl Claimant {
    /// Whether it may have only so many runs at one time, or begin so many in a second.
    pub fn is_limited(&self) -> bool {
        self.quotas.get(Quota::ConcurrentRuns).is_some() || self.has_rate()
    }

    pub fn has_rate(&self) -> bool {
        self.quotas.get(Quota::BeginsPerSecond).is_some()
    }

    /// How many of `wanted` attempts may begin now by its quota of begins.
    fn begins(&self, now: Timestamp, wanted: usize) -> usize {
        match self.quotas.get(Quota::BeginsPerSecond) {
            None => wanted,
            Some(limit) => Rate::a_second(limit).map_or(0, |rate| rate.room(self.on_time_at, now, wanted)),
        }
    }

    /// How many attempts it may begin where there is so much room; what executes of it is known. Beyond that none of its
    /// queues needs to be counted, and of many tenants at their quotas most need not be at all.
    pub fn room(&self, now: Timestamp, room: usize) -> usize {
        let free = self.quotas.get(Quota::ConcurrentRuns).map(|limit| limit.saturating_sub(self.running));
        let free = free.map_or(room, |free| usize::try_from(free).unwrap_or(room));
        self.begins(now, room.min(free))
    }

    /// What is kept of that when so many have begun; none if there is nothing to keep.
    pub fn begun(&self, now: Timestamp, runs: u64) -> Option<Timestamp> {
        let rate = self.quotas.get(Quota::BeginsPerSecond).and_then(Rate::a_second)?;
        (runs > 0).then(|| rate.take(self.on_time_at, now, runs))
    }

    /// What its quotas leave to an attempt.
    pub fn bounds(&self) -> AttemptBounds {
        self.quotas.bounds(Duration::from_micros(self.cpu))
    }

    fn first(&self) -> Option<(Timestamp, RunId)> {
        self.queues.iter().map(|queue| queue.first).min()
    }
}

/// Leaves those that have CPU time left and aren't over their stored bytes, the longest ready first.
pub(crate) fn sort(claimants: &mut Vec<Claimant>) {
    claimants.retain(|one| {
        cpu_is_left(&one.quotas, one.cpu).and(is_within_stored(&one.quotas, one.stored)).is_ok()
    });
    claimants.iter_mut().for_each(|one| one.queues.sort_by_key(|queue| Reverse(queue.priority)));
    claimants.sort_by_key(Claimant::first);
}

/// All room for the only queue, if there is only one and nothing bounds it: there is nothing to count.
pub(crate) fn only_queue(claimants: &[Claimant], room: usize) -> Option<Slice> {
    let [one] = claimants else { return None };
    let [queue] = one.queues.as_slice() else { return None };
    (!one.is_limited()).then(|| Slice {
        tenant: one.tenant,
        requires: queue.requires.clone(),
        priority: queue.priority,
        most: room,
    })
}

/// Shares the room.
pub(crate) fn slices(claimants: &[Claimant], room: usize, now: Timestamp) -> Vec<Slice> {
    let demand = |one: &Claimant| Demand {
        weight: one.weight,
        running: one.running,
        ready: one.begins(now, one.queues.iter().map(|queue| queue.ready).sum()),
        limit: one.quotas.get(Quota::ConcurrentRuns),
    };
    let demands: Vec<Demand> = claimants.iter().map(demand).collect();
    let given = share(room, &demands, to_micros(now).cast_unsigned());
    let mut slices = Vec::new();
    for (one, mut left) in claimants.iter().zip(given) {
        for queue in &one.queues {
            let most = left.min(queue.ready);
            left -= most;
            if most > 0 {
                let (tenant, requires) = (one.tenant, queue.requires.clone());
                slices.push(Slice { tenant, requires, priority: queue.priority, most });
            }
        }
    }
    slices
}
