//! The delivery: events become runs of the triggers that follow them.
//!
//! Load, decide, apply, as the scheduler does with time. What waits to be gathered is remembered nowhere: it stays after
//! the trigger's cursor. Any number of hosts may do so at once; a decision for a cursor that has moved is void.

use crate::clock::Clock;
use innkeeper_domain::event::{Deciders, Item, deliver};
use innkeeper_domain::expression::Compiled;
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::limits::EVENT_TRIGGERS_PER_LOOK;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Deliver, Pending, Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks at the store: wake-ups are hints, polling is the truth.
const POLL: Duration = Duration::from_secs(1);

/// Triggers of which is kept in memory when to look again.
const LOOKS_MAX: usize = 10_000;

/// Starts runs of triggers when events have come.
pub struct Deliverer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    poll: Duration,
    compiled: Compiled,
    /// When what waits to be gathered is to be looked at, as far as it is known here.
    looks: Mutex<HashMap<TriggerId, Timestamp>>,
}

/// What a look at the events came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Nothing is to be done now.
    Idle,
    /// Something was done, and there may be more.
    Busy,
}

impl Deliverer {
    /// One for all the triggers in the store.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, poll: POLL, compiled: Compiled::default(), looks: Mutex::default() }
    }

    /// One that waits for `poll` at most between two looks at the store, instead of a second.
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// Works until it is told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let mut events = self.store.hints().watch_events();
        while !stop.is_cancelled() {
            events.mark_unchanged();
            match self.step().await {
                Ok(Looked::Busy) => continue,
                Ok(Looked::Idle) => {}
                Err(error) => tracing::error!(%error, "events can't be delivered; it tries again"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.clock.sleep_until(self.next_look()) => {}
                _ = events.changed() => {}
            }
        }
    }

    /// Takes the triggers that have events to deal with a step further, those first that were looked at the longest ago.
    /// One that the store can't take doesn't hold up the others.
    pub async fn step(&self) -> Result<Looked, StoreError> {
        let now = self.clock.now();
        self.looks().retain(|_, at| *at > now);
        let mut looked = Looked::Idle;
        for pending in self.store.events_pending(now, EVENT_TRIGGERS_PER_LOOK).await? {
            match self.deliver(&pending, now).await {
                Ok(()) => looked = Looked::Busy,
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(trigger = %pending.id, %error, "events can't be delivered to a trigger")
                }
            }
        }
        Ok(looked)
    }

    async fn deliver(&self, pending: &Pending, now: Timestamp) -> Result<(), StoreError> {
        let deciders = Deciders::read(&pending.spec.rule, &self.compiled)
            .map_err(|e| StoreError::Corrupt(format!("a stored expression can't be read: {e}")))?;
        let delivery = deliver(pending.waiting(), &deciders, now);
        let runs = delivery.items.iter().filter(|item| matches!(item, Item::Run(_)));
        let mut run_ids: Vec<RunId> = runs.map(|_| RunId::new(now)).collect();
        // What became ready at the same time is executed in the order of the ids.
        run_ids.sort();
        if let Some(look_at) = delivery.look_at {
            let mut looks = self.looks();
            if looks.len() < LOOKS_MAX {
                looks.insert(pending.id, look_at);
            }
        }
        let deliver =
            Deliver { id: pending.id, tenant: pending.tenant, cursor: pending.cursor, delivery, run_ids };
        self.store.events_deliver(deliver, now).await.map(|_| ())
    }

    fn next_look(&self) -> Timestamp {
        let poll = time::after(self.clock.now(), self.poll);
        self.looks().values().min().map_or(poll, |look| poll.min(*look))
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<TriggerId, Timestamp>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
