//! What stands in the way of a forecast. Only of what is so whatever the runs do.

use crate::quota::Quota;
use jiff::Timestamp;
use std::fmt;

/// Something to know before it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The tenant is suspended.
    Suspended,
    /// More runs are due at one instant than may be executed at one time.
    ConcurrentRuns {
        /// The quota.
        limit: u64,
        /// How many instants there are like that, and the first of them.
        instants: u64,
        first: Timestamp,
        /// The most that are due at one of them, and at which.
        most: u64,
        at: Timestamp,
    },
    /// The runs will store more than there is room for.
    StoredBytes {
        /// In bytes, what the quota leaves.
        room: u64,
        /// In bytes, the least that the runs will store.
        needed: u64,
        /// When the first of them is due that doesn't fit.
        from: Timestamp,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspended => {
                f.write_str("the tenant is suspended: nothing of this begins until it is resumed")
            }
            Self::ConcurrentRuns { limit, instants, first, most, at } => {
                let times = if *instants == 1 { "once".into() } else { format!("{instants} times") };
                write!(
                    f,
                    "more runs are due at one instant than may be executed at one time ({limit}, the quota \
                     `concurrent-runs`): {times}, first at {first:.0}, at most {most} at {at:.0}; the others wait. \
                     Jitter spreads them"
                )
            }
            Self::StoredBytes { room, needed, from } => {
                let [room, needed] = [room, needed].map(|bytes| Quota::StoredBytes.show(*bytes));
                write!(
                    f,
                    "the runs will store {needed} or more, and the quota `stored-bytes` leaves {room}: from \
                     {from:.0} on due times are skipped, unless old runs are cleared away before"
                )
            }
        }
    }
}

/// Instants at which more runs are due than a quota lets in.
pub(super) struct Crowd {
    limit: Option<u64>,
    instants: u64,
    first: Timestamp,
    most: (u64, Timestamp),
}

impl Crowd {
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, instants: 0, first: Timestamp::MAX, most: (0, Timestamp::MAX) }
    }

    /// Adds an instant.
    pub fn add(&mut self, at: Timestamp, due: u64) {
        if self.limit.is_none_or(|limit| due <= limit) {
            return;
        }
        self.instants += 1;
        self.first = self.first.min(at);
        if due > self.most.0 {
            self.most = (due, at);
        }
    }

    pub fn warning(&self) -> Option<Warning> {
        let (limit, instants, first, (most, at)) = (self.limit?, self.instants, self.first, self.most);
        (instants > 0).then_some(Warning::ConcurrentRuns { limit, instants, first, most, at })
    }
}
