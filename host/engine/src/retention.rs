//! The retention: what is old is cleared away.
//!
//! In small steps with a pause after each, so that those who work never wait long for it. Several hosts may do
//! it at once; they only find less to do.

use crate::clock::Clock;
use innkeeper_domain::limits::{
    AUDIT_KEPT, EVENTS_HELD_FACTOR, EVENTS_KEPT, LOGS_KEPT, RETENTION_STEP, RUNS_KEPT, SKIPS_KEPT,
    UPLOAD_KEPT, USAGE_KEPT,
};
use innkeeper_domain::time;
use innkeeper_store::{Keep, Store, StoreError, Swept};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it looks when there was nothing left.
const LOOK: Duration = Duration::from_secs(60);

/// The pause between two steps.
const PAUSE: Duration = Duration::from_millis(50);

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Runs after their end.
    pub runs: Duration,
    /// Logs after the end of their runs; no longer than the runs, whatever this says.
    pub logs: Duration,
    /// Records of skipped times after the last of them.
    pub skips: Duration,
    /// Uploads that were cut off.
    pub uploads: Duration,
    /// Lines of the audit log.
    pub audit: Duration,
    /// What tenants have used.
    pub usage: Duration,
    /// Events; those that a trigger hasn't dealt with yet so many times as long.
    pub events: Duration,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            runs: RUNS_KEPT,
            logs: LOGS_KEPT,
            skips: SKIPS_KEPT,
            uploads: UPLOAD_KEPT,
            audit: AUDIT_KEPT,
            usage: USAGE_KEPT,
            events: EVENTS_KEPT,
        }
    }
}

/// Clears away what is old.
pub struct Retention {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    kept: Kept,
}

impl Retention {
    /// A retention of all that is in the store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, kept: Kept) -> Self {
        Self { store, clock, kept }
    }

    /// Works until it is told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let mut cleared = Swept::default();
        while !stop.is_cancelled() {
            let wait = match self.step().await {
                Ok(swept) if swept.is_empty() => {
                    report(std::mem::take(&mut cleared));
                    LOOK
                }
                Ok(swept) => {
                    add(&mut cleared, swept);
                    PAUSE
                }
                Err(error) => {
                    tracing::error!(%error, "what is old can't be cleared away; it tries again");
                    LOOK
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.clock.sleep_until(time::after(self.clock.now(), wait)) => {}
            }
        }
    }

    /// Deletes some of what is too old now, and says what; nothing if nothing is left.
    pub async fn step(&self) -> Result<Swept, StoreError> {
        let now = self.clock.now();
        let since = |kept| time::before(now, kept);
        let keep = Keep {
            runs_since: since(self.kept.runs),
            logs_since: since(self.kept.logs.min(self.kept.runs)),
            skips_since: since(self.kept.skips),
            uploads_since: since(self.kept.uploads),
            audit_since: since(self.kept.audit),
            usage_since: since(self.kept.usage),
            events_since: since(self.kept.events),
            events_held_since: since(self.kept.events.saturating_mul(EVENTS_HELD_FACTOR)),
        };
        self.store.retention_step(keep, RETENTION_STEP).await
    }
}

fn add(sum: &mut Swept, swept: Swept) {
    sum.runs += swept.runs;
    sum.logs += swept.logs;
    sum.skips += swept.skips;
    sum.uploads += swept.uploads;
    sum.definitions += swept.definitions;
    sum.of_tenants += swept.of_tenants;
    sum.audit += swept.audit;
    sum.bills += swept.bills;
    sum.events += swept.events;
}

fn report(cleared: Swept) {
    if !cleared.is_empty() {
        let Swept { runs, logs, skips, uploads, definitions, of_tenants, audit, bills, events } = cleared;
        tracing::info!(
            runs,
            logs,
            skips,
            uploads,
            definitions,
            of_tenants,
            audit,
            bills,
            events,
            "what was old is cleared away"
        );
    }
}
