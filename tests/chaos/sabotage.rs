//! A store with a bug: it does all that the store behind it does, but for one thing.

use crate::pass_on::{
    pass_on, pass_on_events, pass_on_hosts, pass_on_runs, pass_on_tasks, pass_on_the_rest, pass_on_triggers,
};
use crate::two_commits::in_two;
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::{AuditEntry, Change};
use innkeeper_domain::backfill::{Backfill, BackfillPlan};
use innkeeper_domain::bill::Bill;
use innkeeper_domain::component::{Component, Digest};
use innkeeper_domain::forecast::Plan;
use innkeeper_domain::holiday::{Holiday, HolidayCalendar, HolidayCalendarInfo, HolidayDates};
use innkeeper_domain::host::{FleetPause, Host, HostState, HostStatus, Labels};
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TenantId, TokenId};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::QuotaUse;
use innkeeper_domain::run::{Claimed, Lease, LogLine, Run, RunState};
use innkeeper_domain::secret::{SealedSecret, SecretInfo};
use innkeeper_domain::task::{Revision, Task, TaskSpec};
use innkeeper_domain::tenant::{Tenant, TenantUpdate};
use innkeeper_domain::trigger::{SkipRange, SkipReason, Trigger};
use innkeeper_store::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Between the two halves of what should be one.
const LATER: Duration = Duration::from_millis(20);

/// What is wrong with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Nothing: to see that the rest of the host is right.
    None,
    /// The triggers go on in one commit, and their runs come in a later one.
    AdvanceBeforeInsert,
    /// An outcome is committed whoever has the lease.
    NoFence,
    /// A start is acknowledged at once, and committed a little later.
    AcknowledgeBeforeCommit,
    /// Tasks are created without their limits.
    LimitsForgotten,
}

impl Bug {
    pub fn named(name: &str) -> Self {
        match name {
            "none" => Self::None,
            "advance-before-insert" => Self::AdvanceBeforeInsert,
            "no-fence" => Self::NoFence,
            "acknowledge-before-commit" => Self::AcknowledgeBeforeCommit,
            "limits-forgotten" => Self::LimitsForgotten,
            _ => panic!("`{name}` is no bug"),
        }
    }
}

pub struct Sabotaged {
    shared: Arc<Shared>,
    /// What goes on though nobody waits for it.
    tasks: TaskTracker,
}

struct Shared {
    store: Arc<dyn Store>,
    bug: Bug,
    tenant: TenantId,
    /// What was acknowledged by key, and isn't committed yet.
    pending: Mutex<HashMap<(Name, String), NewRun>>,
}

impl Sabotaged {
    pub fn new(store: Arc<dyn Store>, bug: Bug, tenant: TenantId) -> Self {
        let shared = Shared { store, bug, tenant, pending: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: TaskTracker::new() }
    }

    fn inner(&self) -> &dyn Store {
        self.shared.store.as_ref()
    }

    async fn pass<T>(
        &self,
        _call: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        answer.await
    }

    async fn in_two_commits(&self, advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError> {
        let (first, then) = in_two(advances);
        self.inner().triggers_advance(first, now).await?;
        tokio::time::sleep(LATER).await;
        self.inner().triggers_advance(then, now).await
    }

    /// New starts are acknowledged at once; those whose key may be known go the honest way.
    async fn acknowledge_first(
        &self,
        tenant: TenantId,
        starts: Vec<NewRun>,
        change: Change,
    ) -> Result<Vec<Result<Started, StartError>>, StoreError> {
        let is_new = starts.iter().all(|start| self.shared.is_new(start));
        if !is_new || self.shared.any_known(&starts).await? {
            return self.inner().runs_start(tenant, starts, change).await;
        }
        let answers = starts.iter().map(|start| Ok(Started { id: start.id, existed: false })).collect();
        for start in &starts {
            if let Some(key) = &start.idempotency_key {
                self.shared.pending().insert((start.task.clone(), key.clone()), start.clone());
            }
        }
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            tokio::time::sleep(LATER).await;
            if let Err(error) = shared.store.runs_start(tenant, starts.clone(), change).await {
                tracing::error!(%error, "acknowledged runs can't be started");
            }
            shared.pending().retain(|_, pending| !starts.contains(pending));
        });
        Ok(answers)
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, HashMap<(Name, String), NewRun>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_new(&self, start: &NewRun) -> bool {
        let key = start.idempotency_key.clone();
        key.is_some_and(|key| !self.pending().contains_key(&(start.task.clone(), key)))
    }

    /// Whether a run has one of these keys.
    async fn any_known(&self, starts: &[NewRun]) -> Result<bool, StoreError> {
        // Lists don't look at keys, and this is a test's: a thousand of the newest will do.
        let page = Page { size: 1_000, after: None };
        let runs = self.store.run_list(self.tenant, RunFilter::default(), page).await?.items;
        Ok(runs.iter().any(|run| {
            let same =
                |start: &NewRun| start.task == run.task && start.idempotency_key == run.idempotency_key;
            starts.iter().any(same)
        }))
    }

    /// Commits under the lease of whoever has the run.
    async fn finish_under_any_lease(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError> {
        let run = self.store.run_get(self.tenant, finish.lease.run).await?;
        for living in self.store.host_list().await? {
            let lease = Lease { host: living.host.id, attempt: run.attempt, ..finish.lease };
            let finish = Finish { lease, lines: Vec::new(), ..finish.clone() };
            match self.store.run_finish_if_leased(finish, now).await {
                Err(StoreError::LeaseLost) => {}
                answer => return answer,
            }
        }
        Err(StoreError::LeaseLost)
    }

    /// A run that isn't there yet, as if it were.
    fn promised(&self, id: RunId) -> Option<Run> {
        let start = self.pending().values().find(|start| start.id == id).cloned()?;
        let at = Timestamp::UNIX_EPOCH;
        Some(Run {
            id,
            task_id: TaskId(id.0),
            task: start.task,
            revision: 1,
            trigger: None,
            backfill: None,
            nominal_at: at,
            state: RunState::Queued,
            attempt: 0,
            idempotency_key: start.idempotency_key,
            priority: start.options.priority.unwrap_or(5),
            concurrency_key: None,
            passage: innkeeper_domain::gate::Passage::default(),
            waits_for: None,
            input: start.input,
            output: None,
            failure: None,
            progress: None,
            cancel_requested: false,
            created_at: at,
            available_at: at,
            started_at: None,
            finished_at: None,
            start_by: None,
            end_by: None,
            reopened_at: None,
            labels: Labels::default(),
            attempts: Vec::new(),
        })
    }
}

impl Store for Sabotaged {
    fn hints(&self) -> &Arc<Hints> {
        self.inner().hints()
    }
}

pass_on_the_rest!(Sabotaged);

pass_on_tasks!(Sabotaged, {
    async fn task_create(
        &self,
        tenant: TenantId,
        mut task: NewTask,
        change: Change,
    ) -> Result<Task, StoreError> {
        if self.shared.bug == Bug::LimitsForgotten {
            task.spec =
                TaskSpec { concurrency: None, concurrency_key: None, key_concurrency: 1, ..task.spec };
        }
        self.inner().task_create(tenant, task, change).await
    }
});

pass_on_events!(Sabotaged, {
    async fn events_deliver(&self, deliver: Deliver, now: Timestamp) -> Result<u32, StoreError> {
        self.inner().events_deliver(deliver, now).await
    }
});

pass_on_hosts!(Sabotaged, {
    async fn host_start(
        &self,
        host: Host,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.inner().host_start(host, lease_until, now).await
    }

    async fn hosts_reap(&self, by: HostId, now: Timestamp) -> Result<u64, StoreError> {
        self.inner().hosts_reap(by, now).await
    }

    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError> {
        self.inner().host_stop(host, now).await
    }

    async fn host_release(&self, host: HostId, keep: Vec<Lease>, now: Timestamp) -> Result<u64, StoreError> {
        self.inner().host_release(host, keep, now).await
    }
});

pass_on_triggers!(Sabotaged, {
    async fn trigger_create(
        &self,
        tenant: TenantId,
        trigger: NewTrigger,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        self.inner().trigger_create(tenant, trigger, change).await
    }

    async fn trigger_resume(
        &self,
        tenant: TenantId,
        name: &Name,
        change: Change,
    ) -> Result<Trigger, StoreError> {
        self.inner().trigger_resume(tenant, name, change).await
    }

    async fn triggers_advance(&self, advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError> {
        match self.shared.bug {
            Bug::AdvanceBeforeInsert => self.in_two_commits(advances, now).await,
            _ => self.inner().triggers_advance(advances, now).await,
        }
    }
});

pass_on_runs!(Sabotaged, {
    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.inner().runs_claim(host, labels, limit, now).await
    }

    async fn runs_expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        self.inner().runs_expire(now, limit).await
    }

    async fn run_get(&self, tenant: TenantId, id: RunId) -> Result<Run, StoreError> {
        match self.shared.promised(id) {
            Some(run) => Ok(run),
            None => self.inner().run_get(tenant, id).await,
        }
    }

    async fn runs_start(
        &self,
        tenant: TenantId,
        starts: Vec<NewRun>,
        change: Change,
    ) -> Result<Vec<Result<Started, StartError>>, StoreError> {
        match self.shared.bug {
            Bug::AcknowledgeBeforeCommit => self.acknowledge_first(tenant, starts, change).await,
            _ => self.inner().runs_start(tenant, starts, change).await,
        }
    }

    async fn run_finish_if_leased(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError> {
        if self.shared.bug != Bug::NoFence {
            return self.inner().run_finish_if_leased(finish, now).await;
        }
        let shared = Arc::clone(&self.shared);
        // Calls take place though nobody waits for them any more: a host that has lost its leases ends its
        // attempts at once.
        let finishing = self.tasks.spawn(async move {
            match shared.store.run_finish_if_leased(finish.clone(), now).await {
                Err(StoreError::LeaseLost) => shared.finish_under_any_lease(finish, now).await,
                answer => answer,
            }
        });
        finishing.await.unwrap_or(Err(StoreError::LeaseLost))
    }
});
