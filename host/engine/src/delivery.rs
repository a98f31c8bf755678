//! The delivery: events become runs of the triggers that follow them.
//!
//! Load, decide, apply, as the scheduler does with time. What waits to be gathered is remembered nowhere: it stays after
//! the trigger's cursor. Any number of hosts may do so at once; a decision for a cursor that has moved is void.

use crate::clock::Clock;
use innkeeper_domain::event::{Deciders, Delivery, Item, deliver};
use innkeeper_domain::expression::Compiled;
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::limits::EVENT_TRIGGERS_PER_LOOK;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Deliver, Look, Pending, Store, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks at the store: wake-ups are hints, polling is the truth.
const POLL: Duration = Duration::from_secs(1);

/// Triggers of which it is kept in memory when to look again.
const LOOKS_MAX: usize = 10_000;

/// Starts runs of triggers when events have come.
pub struct Deliverer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    poll: Duration,
    compiled: Compiled,
    /// When what waits to be gathered is to be looked at, as far as it is known here.
    looks: Times,
    /// Until when triggers are left alone that events couldn't be delivered to.
    failed: Times,
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
        Self {
            store,
            clock,
            poll: POLL,
            compiled: Compiled::default(),
            looks: Mutex::default(),
            failed: Mutex::default(),
        }
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
    /// One that the store can't take, or that somebody has locked, comes after the others the next time; a store that is away
    /// for two of them is away for all. Triggers for which there is nothing go on together.
    pub async fn step(&self) -> Result<Looked, StoreError> {
        let now = self.clock.now();
        of(&self.looks).retain(|_, at| *at > now);
        of(&self.failed).retain(|_, at| *at > now);
        let (mut looked, mut looks, mut failed, mut away) = (Looked::Idle, Vec::new(), 0, false);
        for pending in self.store.events_pending(now, EVENT_TRIGGERS_PER_LOOK).await? {
            if of(&self.failed).contains_key(&pending.id) {
                continue;
            }
            let delivered = match self.decide(&pending, now) {
                Ok(delivery) if delivery.items.is_empty() => {
                    let Delivery { cursor: past, seen, look_at, .. } = delivery;
                    looks.push(Look { id: pending.id, cursor: pending.cursor, past, seen, look_at });
                    continue;
                }
                Ok(delivery) => self.deliver(&pending, delivery, now).await,
                Err(error) => Err(error),
            };
            match delivered {
                Ok(()) => (looked, away) = (Looked::Busy, false),
                Err(error @ StoreError::Unavailable(_)) if away => return Err(error),
                Err(error) => {
                    away = matches!(error, StoreError::Unavailable(_));
                    failed += 1;
                    remember(&self.failed, pending.id, time::after(now, POLL));
                    tracing::error!(trigger = %pending.id, %error, "events can't be delivered to a trigger; it tries again");
                    let Pending { id, cursor, .. } = pending;
                    looks.push(Look { id, cursor, past: cursor, seen: cursor, look_at: None });
                }
            }
        }
        if !looks.is_empty() && self.store.events_look(looks, now).await? > failed {
            looked = Looked::Busy;
        }
        Ok(looked)
    }

    fn decide(&self, pending: &Pending, now: Timestamp) -> Result<Delivery, StoreError> {
        let deciders = Deciders::read(&pending.spec.rule, &self.compiled)
            .map_err(|e| StoreError::Corrupt(format!("a stored expression can't be read: {e}")))?;
        let delivery = deliver(pending.waiting(), &deciders, now);
        if let Some(look_at) = delivery.look_at {
            remember(&self.looks, pending.id, look_at);
        }
        Ok(delivery)
    }

    async fn deliver(&self, pending: &Pending, delivery: Delivery, now: Timestamp) -> Result<(), StoreError> {
        let runs = delivery.items.iter().filter(|item| matches!(item, Item::Run(_)));
        let mut run_ids: Vec<RunId> = runs.map(|_| RunId::new(now)).collect();
        // What became ready at the same time is executed in the order of the ids.
        run_ids.sort();
        let deliver =
            Deliver { id: pending.id, tenant: pending.tenant, cursor: pending.cursor, delivery, run_ids };
        self.store.events_deliver(deliver, now).await.map(|_| ())
    }

    fn next_look(&self) -> Timestamp {
        let poll = time::after(self.clock.now(), self.poll);
        of(&self.looks).values().min().map_or(poll, |look| poll.min(*look))
    }
}

type Times = Mutex<HashMap<TriggerId, Timestamp>>;

fn of(times: &Times) -> MutexGuard<'_, HashMap<TriggerId, Timestamp>> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(times: &Times, trigger: TriggerId, at: Timestamp) {
    let mut times = of(times);
    if times.len() < LOOKS_MAX {
        times.insert(trigger, at);
    }
}
