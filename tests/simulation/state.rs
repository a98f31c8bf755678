//! What is there in the end.

use innkeeper_domain::Timestamp;
use innkeeper_domain::event::Event;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::run::Run;
use innkeeper_domain::trigger::{SkipRange, Trigger};
use innkeeper_store::{Page, Paged, RunFilter, Store, StoreError};
use std::fmt;

#[derive(Clone)]
pub struct State {
    pub triggers: Vec<TriggerSeen>,
    /// Of triggers that are deleted, too; the oldest first.
    pub runs: Vec<Run>,
    /// In order.
    pub events: Vec<Event>,
    /// What was due by then must be accounted for.
    pub settled_at: Timestamp,
    /// Of the zones, in the end.
    pub edition: usize,
}

#[derive(Clone)]
pub struct TriggerSeen {
    pub trigger: Trigger,
    /// The oldest first.
    pub skips: Vec<SkipRange>,
}

impl State {
    pub async fn read(store: &dyn Store, tenant: TenantId, settled_at: Timestamp, edition: usize) -> Self {
        let mut triggers = Vec::new();
        for trigger in all(|page| store.trigger_list(tenant, None, None, page)).await {
            let name = trigger.name.clone();
            let mut skips = all(|page| store.trigger_skips(tenant, &name, page)).await;
            skips.reverse();
            triggers.push(TriggerSeen { trigger, skips });
        }
        let mut runs = Vec::new();
        for run in all(|page| store.run_list(tenant, RunFilter::default(), page)).await.iter().rev() {
            runs.push(store.run_get(tenant, run.id).await.expect("a run"));
        }
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |last| last.sequence);
            let more = store.events_after(tenant, after, 1_000).await.expect("events");
            if more.is_empty() {
                break;
            }
            events.extend(more);
        }
        Self { triggers, runs, events, settled_at, edition }
    }
}

/// All pages of a list.
pub async fn all<T, F>(list: impl Fn(Page) -> F) -> Vec<T>
where
    F: Future<Output = Result<Paged<T>, StoreError>>,
{
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = list(Page { size: 1_000, after }).await.expect("a list");
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for TriggerSeen { trigger, skips } in &self.triggers {
            writeln!(f, "{trigger:?} {skips:?}")?;
        }
        self.events.iter().try_for_each(|event| writeln!(f, "{event:?}"))?;
        self.runs.iter().try_for_each(|run| writeln!(f, "{run:?}"))
    }
}
