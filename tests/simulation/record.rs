//! What happened, in the order in which it did: every commit of the store's that matters, and what was done to the
//! hosts. It is written where the store answers, before anybody can lose the answer.

use crate::observer::Standing;
use crate::plan::Fault;
use crate::tasks::TaskLimits;
use crate::time::Time;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{HostId, RunId, TriggerId};
use innkeeper_domain::run::{Lease, RunState};
use innkeeper_store::Advance;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone)]
pub enum Event {
    /// Decisions that a host's clock showed to be due.
    Advanced {
        by_clock: Timestamp,
        advances: Vec<Advance>,
    },
    Claimed {
        by_clock: Timestamp,
        leases: Vec<Lease>,
    },
    Finished(Lease, RunState),
    /// What became of runs by a commit, as far as its answer doesn't say it.
    Runs(Vec<Standing>),
    /// The limits of tasks that a commit has changed.
    Tasks(Vec<TaskLimits>),
    /// The runs of a delivery to a trigger.
    Delivered(Vec<RunId>),
    /// A client asks for the first time that an event is published.
    PublishAsked(String),
    /// An event that a client was told of.
    PublishTold(String),
    HostStarted(HostId),
    HostStopped(HostId),
    Resumed(TriggerId),
    /// A pause that a client was told of.
    PauseTold(TriggerId),
    /// A deletion that a client was told of.
    DeleteTold(TriggerId),
    /// A start by hand, under a key, that a client was told of.
    StartTold {
        key: String,
        run: RunId,
    },
    /// A trigger that a client was told of.
    CreateTold(TriggerId),
    ExecutionBegan {
        process: u32,
        lease: Lease,
    },
    ExecutionEnded {
        process: u32,
        lease: Lease,
    },
    Fault(Fault),
}

/// Something that happened. Its place in the record says when.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Timestamp,
    pub event: Event,
}

#[derive(Debug)]
pub struct Record {
    time: Arc<Time>,
    entries: Mutex<Vec<Entry>>,
    closed: AtomicBool,
}

impl Record {
    pub fn new(time: Arc<Time>) -> Self {
        Self { time, entries: Mutex::default(), closed: AtomicBool::new(false) }
    }

    pub fn add(&self, event: Event) {
        if !self.closed.load(Ordering::Relaxed) {
            let at = self.time.now();
            self.entries().push(Entry { at, event });
        }
    }

    /// What is dropped with the simulation isn't part of it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    pub fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for the same record.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in self.entries().iter() {
            format!("{entry:?}").hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl fmt::Display for Record {
    /// A line for each entry; decisions have one each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { at, event } in self.entries().iter() {
            match event {
                Event::Advanced { by_clock, advances } => {
                    for advance in advances {
                        writeln!(f, "{at} by {by_clock}: {advance:?}")?;
                    }
                }
                event => writeln!(f, "{at} {event:?}")?,
            }
        }
        Ok(())
    }
}
