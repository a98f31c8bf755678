//! Sees what commits have made of runs and tasks, where that isn't in the store's answers: it looks at the rows just
//! after the commit, and puts what is new on record.

use crate::record::{Event, Record};
use crate::state::all;
use crate::tasks::TaskLimits;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{RunId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::run::{Run, RunState};
use innkeeper_store::Store;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Calls after which all unfinished runs are looked at: they are few.
const CHANGE_RUNS: [&str; 4] = ["trigger_delete", "host_start", "host_stop", "task_update"];
const CHANGE_TASKS: [&str; 3] = ["task_update", "task_pause", "task_resume"];

/// A run as it stands after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub run: RunId,
    pub state: RunState,
    /// Whether it is to be cancelled.
    pub is_cancelled: bool,
    pub available_at: Timestamp,
}

impl Standing {
    fn of(run: &Run) -> Self {
        Self {
            run: run.id,
            state: run.state,
            is_cancelled: run.cancel_requested,
            available_at: run.available_at,
        }
    }
}

/// One for all the processes of a seed.
pub struct Observer {
    record: Arc<Record>,
    pub tenant: TenantId,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Those that aren't over, and their triggers.
    unfinished: BTreeMap<RunId, (Standing, Option<Name>)>,
    tasks: Vec<TaskLimits>,
}

impl Observer {
    pub fn new(record: Arc<Record>, tenant: TenantId) -> Self {
        Self { record, tenant, known: Mutex::default() }
    }

    /// A call has been committed that says nothing of what it has changed.
    pub async fn after(&self, call: &'static str, store: &dyn Store) {
        if CHANGE_TASKS.contains(&call) {
            self.look_at_tasks(store).await;
        }
        if CHANGE_RUNS.contains(&call) {
            self.look_at_all(store).await;
        }
    }

    pub async fn look_at_tasks(&self, store: &dyn Store) {
        let tasks = all(|page| store.task_list(self.tenant, None, page)).await;
        let tasks: Vec<TaskLimits> = tasks.into_iter().map(TaskLimits::of).collect();
        let changed: Vec<_> =
            tasks.iter().filter(|task| !self.known().tasks.contains(task)).cloned().collect();
        self.known().tasks = tasks;
        if !changed.is_empty() {
            self.record.add(Event::Tasks(changed));
        }
    }

    /// Looks at every run that isn't over.
    pub async fn look_at_all(&self, store: &dyn Store) {
        let ids: Vec<RunId> = self.known().unfinished.keys().copied().collect();
        self.look_at(store, ids).await;
    }

    /// Looks at runs, and at the others of the triggers of those that are new, for they may have been cancelled by it.
    pub async fn look_at(&self, store: &dyn Store, mut ids: Vec<RunId>) {
        let mut changed = Vec::new();
        let mut place = 0;
        while let Some(id) = ids.get(place).copied() {
            place += 1;
            // One that was not admitted isn't there.
            let Ok(run) = store.run_get(self.tenant, id).await else { continue };
            let standing = Standing::of(&run);
            let before = self.known().unfinished.get(&id).map(|(known, _)| *known);
            if before != Some(standing) {
                changed.push(standing);
            }
            if before.is_none() && run.trigger.is_some() {
                let others = self.of_trigger(&run.trigger);
                ids.extend(
                    others.into_iter().filter(|other| !changed.iter().any(|known| known.run == *other)),
                );
            }
            self.know(standing, run.trigger);
        }
        if !changed.is_empty() {
            self.record.add(Event::Runs(changed));
        }
    }

    fn of_trigger(&self, trigger: &Option<Name>) -> Vec<RunId> {
        let known = self.known();
        known.unfinished.iter().filter(|(_, (_, of))| of == trigger).map(|(id, _)| *id).collect()
    }

    fn know(&self, standing: Standing, trigger: Option<Name>) {
        let mut known = self.known();
        if standing.state.is_final() {
            known.unfinished.remove(&standing.run);
        } else {
            known.unfinished.insert(standing.run, (standing, trigger));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
