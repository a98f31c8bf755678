//! A host process as the simulation sees it: it can be frozen and killed, and its clock can be wrong.

use crate::time::Time;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::time::{self, from_micros, to_micros};
use innkeeper_engine::clock::Clock;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Works,
    Frozen,
    Dead,
}

/// A process meets the world only by its store and its clock: both let it go on only while it works.
pub struct Process {
    /// From 1, counted over the whole simulation.
    pub number: u32,
    /// Tells it to stop in order.
    pub stop: CancellationToken,
    time: Arc<Time>,
    /// By how many microseconds its clock is ahead.
    ahead: AtomicI64,
    condition: Mutex<Condition>,
    thawed: Notify,
}

impl Process {
    pub fn new(number: u32, time: Arc<Time>) -> Arc<Self> {
        Arc::new(Self {
            number,
            stop: CancellationToken::new(),
            time,
            ahead: AtomicI64::new(0),
            condition: Mutex::new(Condition::Works),
            thawed: Notify::new(),
        })
    }

    /// Goes on at once while the process works, when it works again after a freeze, and never after its death.
    pub async fn gate(&self) {
        while self.condition() != Condition::Works {
            self.thawed.notified().await;
        }
    }

    pub fn condition(&self) -> Condition {
        *self.lock()
    }

    /// The dead stay dead.
    pub fn set(&self, to: Condition) {
        let mut condition = self.lock();
        if *condition != Condition::Dead {
            *condition = to;
        }
        drop(condition);
        if to == Condition::Works {
            self.thawed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_clock_ahead(&self, micros: i64) {
        self.ahead.store(micros, Ordering::Relaxed);
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.number)
    }
}

#[async_trait]
impl Clock for Process {
    fn now(&self) -> Timestamp {
        from_micros(to_micros(self.time.now()) + self.ahead.load(Ordering::Relaxed))
    }

    /// As a machine does: how long is decided now, whatever happens to the clock meanwhile.
    async fn sleep_until(&self, at: Timestamp) {
        self.time.sleep(time::between(self.now(), at)).await;
        self.gate().await;
    }
}
