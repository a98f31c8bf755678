//! The dispatcher: queued runs get executed, and their ends committed.
//!
//! A host process works under an incarnation, whose leases it renews; should it lose them, it ends all it
//! executes, without a word to the store, and begins a new one. It stops in two stages: first it claims no
//! more and lets attempts end, then it ends them itself and hands their runs back. Attempts that have only to be
//! committed have a few seconds more for that.

mod attempt;
mod life;

use crate::clock::Clock;
use crate::executor::Executor;
use crate::secret::SecretOpener;
use innkeeper_domain::host::Host;
use innkeeper_domain::ids::HostId;
use innkeeper_domain::limits::{DRAIN_GRACE, LEASE};
use innkeeper_domain::time;
use innkeeper_store::Store;
use life::{Ending, Life};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks at the store: wake-ups are hints, polling is the truth.
const POLL: Duration = Duration::from_secs(1);

/// How a dispatcher works.
#[derive(Debug, Clone)]
pub struct DispatcherConfig {
    /// Who it works for. The capacity is how many attempts are executed at one time; with none it claims
    /// nothing, and only gives signs of life. The id is the first incarnation's.
    pub host: Host,
    /// How long it may go without a sign of life.
    pub lease: Duration,
    /// How long it waits for its attempts when it is told to stop.
    pub drain_grace: Duration,
    /// The longest wait between two looks at the store.
    pub poll: Duration,
}

impl DispatcherConfig {
    /// The usual lease, grace and wait.
    pub fn new(host: Host) -> Self {
        Self { host, lease: LEASE, drain_grace: DRAIN_GRACE, poll: POLL }
    }
}

/// Executes runs.
pub struct Dispatcher {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    executor: Arc<dyn Executor>,
    secrets: Arc<dyn SecretOpener>,
    config: DispatcherConfig,
}

impl Dispatcher {
    /// A dispatcher of the runs in the store, whose secrets are opened by `secrets`.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        executor: Arc<dyn Executor>,
        secrets: Arc<dyn SecretOpener>,
        config: DispatcherConfig,
    ) -> Self {
        Self { store, clock, executor, secrets, config }
    }

    /// Works until it is told to stop, and then until its runs have ended or are handed back.
    pub async fn run(&self, stop: CancellationToken) {
        let mut host = self.config.host.clone();
        while !stop.is_cancelled() {
            let begun = self.clock.now();
            let lease_until = time::after(begun, self.config.lease);
            match self.store.host_start(host.clone(), lease_until, begun).await {
                Ok(lost) => {
                    if lost > 0 {
                        tracing::warn!(runs = lost, "runs of a host that was lost are taken up again");
                    }
                    match Life::new(self, &host, lease_until).live(&stop).await {
                        Ending::Stopped => return,
                        Ending::LeaseLost => {
                            tracing::error!(host = %host.id, "the host lost its leases and begins anew")
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the host can't begin; it tries again");
                    let retry = time::after(self.clock.now(), self.config.poll);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = self.clock.sleep_until(retry) => {}
                    }
                }
            }
            host.id = HostId::new(self.clock.now());
        }
    }
}
