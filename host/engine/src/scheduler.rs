//! The scheduler: due triggers become runs.
//!
//! Load, decide, apply. The decision is `domain`'s and pure; applying is one transaction that writes the
//! runs and moves the triggers on, so that a crash before it repeats the decision and one after it finds
//! it done.

use crate::clock::Clock;
use innkeeper_domain::calendar::{ScheduleError, Zones};
use innkeeper_domain::firing::{Rules, fire};
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::timetable::Timetable;
use innkeeper_domain::trigger::TriggerSpec;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Advance, DueTrigger, Outdated, Retiming, Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Triggers that one step decides about together. Their inputs are in one transaction.
const BATCH: usize = 250;

/// The longest wait between two looks at the store: wake-ups are hints, polling is the truth.
const POLL: Duration = Duration::from_secs(1);

/// How often it looks for triggers whose times were reckoned by another edition of the zones, as hosts of another
/// version leave them.
const LOOK_FOR_OUTDATED: Duration = Duration::from_secs(600);

/// Timetables that are kept in memory.
const TIMETABLES_MAX: usize = 100_000;

/// Starts runs of triggers when they are due.
pub struct Scheduler {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    zones: Arc<dyn Zones>,
    poll: Duration,
    /// A trigger's schedule never changes, so neither does what was read from it.
    timetables: Mutex<HashMap<TriggerId, Arc<Timetable>>>,
}

impl Scheduler {
    /// A scheduler of all the triggers in the store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, zones: Arc<dyn Zones>) -> Self {
        Self { store, clock, zones, poll: POLL, timetables: Mutex::default() }
    }

    /// One that waits for `poll` at most between two looks at the store, instead of a second.
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// Works until it is told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.start_due(&stop), self.keep_reckoned(&stop));
    }

    async fn start_due(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let wake_at = match self.step().await {
                Ok(next) => self.latest_wake(next),
                Err(error) => {
                    tracing::error!(%error, "the scheduler can't go on; it tries again");
                    time::after(self.clock.now(), self.poll)
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.clock.sleep_until(wake_at) => {}
                () = self.store.hints().triggers_changed.notified() => {}
            }
        }
    }

    /// Beside the starts, which don't wait for it: what is due is reckoned anew when it is decided about.
    async fn keep_reckoned(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let again_at = time::after(self.clock.now(), self.retime_patiently(stop).await);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.clock.sleep_until(again_at) => {}
            }
        }
    }

    /// Reckons anew what is outdated, and says how soon to look again.
    async fn retime_patiently(&self, stop: &CancellationToken) -> Duration {
        let retimed = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(0),
            retimed = self.retime() => retimed,
        };
        match retimed {
            Ok(0) => LOOK_FOR_OUTDATED,
            Ok(triggers) => {
                let edition = self.zones.edition();
                tracing::info!(
                    triggers,
                    edition,
                    "next times were reckoned anew by this edition of the time zones"
                );
                LOOK_FOR_OUTDATED
            }
            Err(error) => {
                tracing::error!(%error, "next times can't be reckoned anew; it tries again");
                self.poll
            }
        }
    }

    /// Reckons anew the next times of triggers that were reckoned by another edition of the zones; of how many.
    pub async fn retime(&self) -> Result<usize, StoreError> {
        let edition = self.zones.edition();
        let mut retimed = 0;
        loop {
            let outdated = self.store.triggers_outdated(edition, BATCH).await?;
            let retimings: Vec<Retiming> = outdated.iter().filter_map(|one| self.reckon(one)).collect();
            if retimings.is_empty() {
                return Ok(retimed);
            }
            retimed += retimings.len();
            self.store.triggers_retime(retimings).await?;
        }
    }

    fn reckon(&self, outdated: &Outdated) -> Option<Retiming> {
        match self.timetable(outdated.id, &outdated.spec) {
            Ok(timetable) => Some(Retiming {
                id: outdated.id,
                was: outdated.next_at,
                next: timetable.resume_after(outdated.covered).map(|next| timetable.upcoming(next)),
                edition: outdated.spec.edition(self.zones.as_ref()).into(),
            }),
            Err(error) => {
                tracing::error!(trigger = %outdated.id, %error, "a stored schedule can't be read; its next time stays");
                None
            }
        }
    }

    /// Due triggers that a host with another edition of the zones has moved on, reckoned anew: one decision mustn't
    /// begin at a time of one edition and go on by another, or a day could have its time twice.
    fn reckon_foreign(&self, due: &[DueTrigger]) -> Vec<Retiming> {
        let own = |due: &DueTrigger| due.spec.edition(self.zones.as_ref()) == due.edition;
        let foreign = due.iter().filter(|due| !due.edition.is_empty() && !own(due));
        let outdated = foreign.map(|due| Outdated {
            id: due.id,
            spec: due.spec.clone(),
            next_at: due.due,
            covered: due.covered,
        });
        outdated.filter_map(|outdated| self.reckon(&outdated)).collect()
    }

    /// Handles everything that is due now, and says when to look again: when the next trigger is due.
    pub async fn step(&self) -> Result<Option<Timestamp>, StoreError> {
        loop {
            let now = self.clock.now();
            let due = self.store.triggers_due(now, BATCH).await?;
            let foreign = self.reckon_foreign(&due);
            if !foreign.is_empty() {
                self.store.triggers_retime(foreign).await?;
                continue;
            }
            let found = due.len();
            let mut advances = Vec::with_capacity(found);
            for due in due {
                advances.extend(self.decide(&due, now));
                // One that has much to catch up on takes a while.
                tokio::task::yield_now().await;
            }
            let unreadable = found - advances.len();
            let unfinished = advances.iter().any(|a| a.firing.next.is_some_and(|next| next.due <= now));
            let left_due = unreadable + self.advance(advances, now).await?;
            if found == left_due || (found < BATCH && !unfinished) {
                // Those that can't be decided about, or not be moved on, must not make this spin.
                let patience = (left_due > 0).then(|| time::after(now, self.poll));
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
        let timetable = match self.timetable(due.id, &due.spec) {
            Ok(timetable) => timetable,
            Err(error) => {
                tracing::error!(trigger = %due.id, %error, "a stored schedule can't be read; the trigger stays due");
                return None;
            }
        };
        let rules = Rules::of(&due.spec, &timetable, &due.holidays, due.paused_through);
        let firing = fire(rules, due.due, now);
        // Another edition of the zones can have drawn another jitter.
        firing.covered?;
        let mut run_ids: Vec<RunId> = firing.runs.iter().map(|_| RunId::new(now)).collect();
        // What became ready at the same time is executed in the order of the ids.
        run_ids.sort();
        let edition = due.spec.edition(self.zones.as_ref()).into();
        Some(Advance { id: due.id, due: due.due, firing, run_ids, edition })
    }

    fn timetable(&self, id: TriggerId, spec: &TriggerSpec) -> Result<Arc<Timetable>, ScheduleError> {
        let mut known = self.timetables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(timetable) = known.get(&id) {
            return Ok(Arc::clone(timetable));
        }
        if known.len() >= TIMETABLES_MAX {
            known.clear();
        }
        let timetable = Arc::new(Timetable::new(id, spec, self.zones.as_ref())?);
        known.insert(id, Arc::clone(&timetable));
        Ok(timetable)
    }

    fn latest_wake(&self, next: Option<Timestamp>) -> Timestamp {
        let poll = time::after(self.clock.now(), self.poll);
        next.map_or(poll, |next| next.min(poll))
    }
}
