//! Time as the engine is given it, so that tests can turn it.

use async_trait::async_trait;
use innkeeper_domain::time::Now;
use innkeeper_domain::{Timestamp, time};
use tokio::sync::watch;

/// What the time is, and waiting for it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The instant, in whole microseconds.
    fn now(&self) -> Timestamp;

    /// Waits until then; not at all if it has passed.
    async fn sleep_until(&self, at: Timestamp);
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        time::from_micros(Timestamp::now().as_microsecond())
    }

    async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(time::between(self.now(), at)).await;
    }
}

/// A clock that shows what it is given, a shared database's time for one, and waits by the machine's.
pub struct ClockOf(pub Now);

#[async_trait]
impl Clock for ClockOf {
    fn now(&self) -> Timestamp {
        (self.0)()
    }

    async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(time::between(self.now(), at)).await;
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
}

impl ManualClock {
    /// A clock that shows `at`.
    pub fn new(at: Timestamp) -> Self {
        Self { now: watch::Sender::new(at) }
    }

    /// Turns it, and wakes those whose time has come.
    pub fn set(&self, at: Timestamp) {
        self.now.send_replace(at);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep_until(&self, at: Timestamp) {
        let mut now = self.now.subscribe();
        // Fails only when the clock is gone, and then nobody waits for it.
        let _ = now.wait_for(|now| *now >= at).await;
    }
}
