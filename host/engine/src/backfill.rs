//! Backfills: their next times become runs, so many at one time.
//!
//! Load, decide, apply, as the scheduler does with triggers, but beside it: nobody's trigger is late for a backfill.
//! How far a backfill goes is decided in the transaction that applies it, since it depends on what is there then.

use crate::clock::Clock;
use innkeeper_domain::backfill::{stretch, timetable};
use innkeeper_domain::calendar::Zones;
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::{BACKFILL_TIMES_PER_STEP_MAX, BACKFILLS_PER_LOOK};
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{BackfillStep, DueBackfill, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks at the store: wake-ups are hints, polling is the truth.
const POLL: Duration = Duration::from_secs(1);

/// Takes backfills further, until they have finished. Any number of hosts may do so at once.
pub struct Backfiller {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    zones: Arc<dyn Zones>,
}

/// What a look at the backfills came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// None can go on now.
    Idle,
    /// Some went on, and may be able to go further.
    Busy,
}

impl Backfiller {
    /// One for all the backfills in the store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, zones: Arc<dyn Zones>) -> Self {
        Self { store, clock, zones }
    }

    /// Works until it is told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.step().await {
                Ok(Looked::Busy) => continue,
                Ok(Looked::Idle) => {}
                Err(error) => tracing::error!(%error, "backfills can't go on; it tries again"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.clock.sleep_until(time::after(self.clock.now(), POLL)) => {}
                () = self.store.hints().backfills_changed.notified() => {}
            }
        }
    }

    /// Takes those that can go on one stretch further. One that the store can't take doesn't hold up the others.
    pub async fn step(&self) -> Result<Looked, StoreError> {
        let now = self.clock.now();
        let mut looked = Looked::Idle;
        for due in self.store.backfills_due(now, BACKFILLS_PER_LOOK).await? {
            match self.advance(&due, now).await {
                Ok(Looked::Idle) => {}
                Ok(Looked::Busy) => looked = Looked::Busy,
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) => tracing::error!(backfill = %due.id, %error, "a backfill can't go on"),
            }
        }
        Ok(looked)
    }

    async fn advance(&self, due: &DueBackfill, now: Timestamp) -> Result<Looked, StoreError> {
        let excluded = due.trigger_spec.exclude.clone();
        let holidays = if excluded.is_empty() {
            Holidays::default()
        } else {
            Holidays::of(self.store.holidays_dates(due.tenant, excluded).await?.into_values())
        };
        let Some(step) = self.decide(due, &holidays, now) else { return Ok(Looked::Idle) };
        self.store.backfill_advance(step, now).await?;
        Ok(Looked::Busy)
    }

    fn decide(&self, due: &DueBackfill, holidays: &Holidays, now: Timestamp) -> Option<BackfillStep> {
        let timetable = timetable(due.trigger, &due.trigger_spec, due.from, self.zones.as_ref());
        let timetable = timetable
            .inspect_err(
                |error| tracing::error!(backfill = %due.id, %error, "a stored schedule can't be read"),
            )
            .ok()?;
        let stretch = stretch(&timetable, holidays, due.next_at, due.last_at, BACKFILL_TIMES_PER_STEP_MAX);
        let mut run_ids: Vec<RunId> = stretch.times.iter().map(|_| RunId::new(now)).collect();
        // What became ready at the same time is executed in the order of the ids.
        run_ids.sort();
        Some(BackfillStep { id: due.id, next_at: due.next_at, stretch, run_ids })
    }
}
