//! The scheduler: due triggers become runs.
//!
//! Load, decide, apply. The decision is `domain`'s and pure; applying is one transaction that writes the
//! runs and moves the triggers on, so that a crash before it repeats the decision and one after it finds
//! it done.

use crate::clock::Clock;
use innkeeper_domain::calendar::{Calendar, ScheduleError};
use innkeeper_domain::firing::{Rules, fire};
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Advance, DueTrigger, Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Triggers that one step decides about together. Their inputs are in one transaction.
const BATCH: usize = 250;

/// The longest wait between two looks at the store: wake-ups are hints, polling is the truth.
const POLL: Duration = Duration::from_secs(1);

/// Calendars that are kept in memory.
const CALENDARS_MAX: usize = 100_000;

/// Starts runs of triggers when they are due.
pub struct Scheduler {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// A trigger's schedule never changes, so neither does what was read from it.
    calendars: Mutex<HashMap<TriggerId, Arc<Calendar>>>,
}

impl Scheduler {
    /// A scheduler of all the triggers in the store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, calendars: Mutex::default() }
    }

    /// Works until it is told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let wake_at = match self.step().await {
                Ok(next) => self.latest_wake(next),
                Err(error) => {
                    tracing::error!(%error, "the scheduler can't go on; it tries again");
                    time::after(self.clock.now(), POLL)
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep_until(wake_at) => {}
                () = self.store.hints().triggers_changed.notified() => {}
            }
        }
    }

    /// Handles everything that is due now, and says when to look again: when the next trigger is due.
    pub async fn step(&self) -> Result<Option<Timestamp>, StoreError> {
        loop {
            let now = self.clock.now();
            let due = self.store.triggers_due(now, BATCH).await?;
            let found = due.len();
            let advances: Vec<Advance> = due.into_iter().filter_map(|due| self.decide(&due, now)).collect();
            let unreadable = found - advances.len();
            let unfinished = advances.iter().any(|a| a.firing.next.is_some_and(|next| next <= now));
            let left_due = unreadable + self.advance(advances, now).await?;
            if found == left_due || (found < BATCH && !unfinished) {
                // Those that can't be decided about, or not be moved on, must not make this spin.
                let patience = (left_due > 0).then(|| time::after(now, POLL));
                return if patience.is_some() { Ok(patience) } else { self.store.triggers_next().await };
            }
        }
    }

    /// Applies decisions; how many could not be. One that the store can't take doesn't hold up the others.
    async fn advance(&self, advances: Vec<Advance>, now: Timestamp) -> Result<usize, StoreError> {
        let mut batches = vec![advances];
        let mut failed = 0;
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            match self.store.triggers_advance(batch.clone(), now).await {
                Ok(_) => {}
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) if batch.len() == 1 => {
                    tracing::error!(trigger = %batch[0].id, %error, "a trigger can't be moved on; it stays due");
                    failed += 1;
                }
                Err(_) => {
                    let rest = batch.split_off(batch.len() / 2);
                    batches.extend([rest, batch]);
                }
            }
        }
        Ok(failed)
    }

    fn decide(&self, due: &DueTrigger, now: Timestamp) -> Option<Advance> {
        let calendar = match self.calendar(due) {
            Ok(calendar) => calendar,
            Err(error) => {
                tracing::error!(trigger = %due.id, %error, "a stored schedule can't be read; the trigger stays due");
                return None;
            }
        };
        let rules = Rules {
            calendar: &calendar,
            catch_up: due.spec.catch_up,
            window: due.spec.catch_up_window,
            paused_through: due.paused_through,
        };
        let firing = fire(rules, due.due, now);
        let run_ids = firing.runs.iter().map(|_| RunId::new(now)).collect();
        Some(Advance { id: due.id, due: due.due, firing, run_ids })
    }

    fn calendar(&self, due: &DueTrigger) -> Result<Arc<Calendar>, ScheduleError> {
        let mut known = self.calendars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calendar) = known.get(&due.id) {
            return Ok(Arc::clone(calendar));
        }
        if known.len() >= CALENDARS_MAX {
            known.clear();
        }
        let calendar = Arc::new(due.spec.schedule.calendar()?);
        known.insert(due.id, Arc::clone(&calendar));
        Ok(calendar)
    }

    fn latest_wake(&self, next: Option<Timestamp>) -> Timestamp {
        let poll = time::after(self.clock.now(), POLL);
        next.map_or(poll, |next| next.min(poll))
    }
}
