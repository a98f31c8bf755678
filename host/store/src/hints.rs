//! Wake-ups. They only save waiting: whoever is woken reads the store, and whoever isn't polls it.

use innkeeper_domain::ids::{RunId, TenantId};
use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// The wake-ups of one store.
#[derive(Debug, Default)]
pub struct Hints {
    /// Runs may have become ready to be claimed. In the embedded store they may be about to be committed: a claim comes after
    /// that, though a read may come before it.
    pub runs_ready: Notify,
    /// The next due time of the triggers may have come closer.
    pub triggers_changed: Notify,
    /// Backfills may be able to go on.
    pub backfills_changed: Notify,
    /// Running runs were asked to end, or hosts to stop claiming.
    pub orders: Notify,
    /// How often events may have come.
    events: watch::Sender<u64>,
    watched: Mutex<HashMap<RunId, Watched>>,
    /// Tenants that may have only so many runs at one time, as the last claims saw it.
    limited: Mutex<HashSet<TenantId>>,
}

#[derive(Debug)]
struct Watched {
    changed: watch::Sender<u64>,
    watchers: usize,
}

/// Somebody's interest in one run. Ends when dropped.
#[derive(Debug)]
pub struct RunWatch {
    hints: Arc<Hints>,
    run: RunId,
    changed: watch::Receiver<u64>,
}

impl Hints {
    /// Begins to watch a run: read it after this call, so that no change falls in between.
    pub fn watch_run(self: &Arc<Self>, run: RunId) -> RunWatch {
        let mut watched = self.watched();
        let entry =
            watched.entry(run).or_insert_with(|| Watched { changed: watch::Sender::new(0), watchers: 0 });
        entry.watchers += 1;
        RunWatch { hints: Arc::clone(self), run, changed: entry.changed.subscribe() }
    }

    /// Tells the watchers of a run that it, or its log, has changed.
    pub fn run_changed(&self, run: RunId) {
        if let Some(watched) = self.watched().get(&run) {
            watched.changed.send_modify(|count| *count += 1);
        }
    }

    /// Tells everybody who waits for events that some may have come.
    pub(crate) fn events_changed(&self) {
        self.events.send_modify(|count| *count += 1);
    }

    /// Changes whenever events may have come.
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// A claim saw that these tenants are limited, or not, in how many runs they have at one time.
    pub(crate) fn limits_seen(&self, tenants: impl IntoIterator<Item = (TenantId, bool)>) {
        let mut limited = self.limited();
        for (tenant, is_limited) in tenants {
            if is_limited {
                limited.insert(tenant);
            } else {
                limited.remove(&tenant);
            }
        }
    }

    /// Whether the end of one of the tenant's runs may let another begin that was held back.
    pub(crate) fn makes_room(&self, tenant: TenantId) -> bool {
        self.limited().contains(&tenant)
    }

    fn limited(&self) -> MutexGuard<'_, HashSet<TenantId>> {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the watchers of every run: some have changed, and it isn't known which.
    pub(crate) fn all_runs_changed(&self) {
        self.watched().values().for_each(|watched| watched.changed.send_modify(|count| *count += 1));
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<RunId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunWatch {
    /// Waits for a change since the last call, or since the watch began.
    pub async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The sender lives as long as its watchers do.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for RunWatch {
    fn drop(&mut self) {
        let mut watched = self.hints.watched();
        if let Entry::Occupied(mut entry) = watched.entry(self.run) {
            entry.get_mut().watchers -= 1;
            if entry.get().watchers == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::Timestamp;

    #[tokio::test]
    async fn watchers_are_woken_and_forgotten() {
        let hints = Arc::new(Hints::default());
        let run = RunId::new(Timestamp::UNIX_EPOCH);
        let (mut one, mut two) = (hints.watch_run(run), hints.watch_run(run));
        hints.run_changed(run);
        one.changed().await;
        two.changed().await;
        drop(one);
        assert_eq!(hints.watched().len(), 1);
        drop(two);
        assert!(hints.watched().is_empty());
        hints.run_changed(run);
    }
}
