//! Stores that stand before a store: what most of their methods do is the same, and written here once.

/// Implements traits of the store's contract for a type that has `inner(&self) -> &dyn Store`, and
/// `pass(&self, call: &'static str, answer: impl Future<..>)`, through which every answer goes. What the types differ in
/// is their own: the methods that the macros below leave out.
macro_rules! pass_on {
    ($type:ident, $trait:ident: $(fn $name:ident($($argument:ident: $of:ty),*) -> $answer:ty;)+ => { $($own:tt)* }) => {
        #[async_trait::async_trait]
        impl $trait for $type {
            $(
                async fn $name(&self, $($argument: $of),*) -> Result<$answer, StoreError> {
                    self.pass(stringify!($name), self.inner().$name($($argument),*)).await
                }
            )+
            $($own)*
        }
    };
}

/// Every trait that no type has methods of its own of.
macro_rules! pass_on_the_rest {
    ($type:ident) => {
        pass_on!($type, TenantStore:
            fn tenant_ensure(name: &Name, now: Timestamp) -> Tenant;
            fn tenant_get(name: &Name) -> Tenant;
            fn tenant_create(tenant: NewTenant, change: Change) -> Tenant;
            fn tenant_list(page: Page) -> Paged<Tenant>;
            fn tenant_update(name: &Name, update: TenantUpdate, change: Change) -> Tenant;
            fn tenant_delete(name: &Name, change: Change) -> ();
            fn tenant_use(tenant: TenantId, now: Timestamp) -> QuotaUse;
            => {}
        );
        pass_on!($type, TokenStore:
            fn token_ensure(hash: TokenHash, now: Timestamp) -> ();
            fn token_create(token: Token, hash: TokenHash, change: Change) -> Token;
            fn token_find(hash: TokenHash) -> Option<Found>;
            fn token_list(tenant: Option<TenantId>, page: Page) -> Paged<Found>;
            fn token_revoke(tenant: Option<TenantId>, id: TokenId, change: Change) -> Token;
            => {}
        );
        pass_on!($type, AuditStore:
            fn audit_append(entries: Vec<AuditEntry>) -> ();
            fn audit_list(filter: AuditFilter, page: Page) -> Paged<AuditEntry>;
            => {}
        );
        pass_on!($type, UsageStore:
            fn usage_list(filter: UsageFilter, page: Page) -> Paged<Bill>;
            => {}
        );
        pass_on!($type, SecretStore:
            fn secret_put(secret: SealedSecret, change: Change) -> SecretInfo;
            fn secrets_get(tenant: TenantId, names: Vec<Name>) -> Vec<SealedSecret>;
            fn secret_list(tenant: TenantId, page: Page) -> Paged<SecretInfo>;
            fn secret_delete(tenant: TenantId, name: &Name, change: Change) -> ();
            fn secrets_under_other_keys(key_id: &str, limit: usize) -> Vec<SealedSecret>;
            fn secret_reseal(from: SealedSecret, to: SealedSecret) -> bool;
            => {}
        );
        pass_on!($type, HolidayStore:
            fn holidays_put(tenant: TenantId, name: &Name, holidays: Vec<Holiday>, change: Change) -> HolidayCalendar;
            fn holidays_get(tenant: TenantId, name: &Name) -> HolidayCalendar;
            fn holidays_list(tenant: TenantId, page: Page) -> Paged<HolidayCalendarInfo>;
            fn holidays_delete(tenant: TenantId, name: &Name, change: Change) -> ();
            fn holidays_dates(tenant: TenantId, names: BTreeSet<Name>) -> BTreeMap<Name, Arc<HolidayDates>>;
            => {}
        );
        pass_on!($type, ComponentStore:
            fn component_put(tenant: TenantId, component: Component, bytes: Vec<u8>, change: Change) -> bool;
            fn component_get(tenant: TenantId, digest: &str) -> Component;
            fn component_list(tenant: TenantId, page: Page) -> Paged<Component>;
            fn component_delete(tenant: TenantId, digest: Digest, change: Change) -> ();
            fn component_bytes(digest: Digest) -> Vec<u8>;
            fn artifact_get(digest: Digest, variant: &str) -> Option<Vec<u8>>;
            fn artifact_put(digest: Digest, variant: &str, bytes: Vec<u8>) -> ();
            => {}
        );
        pass_on!($type, UploadStore:
            fn upload_begin(tenant: TenantId, digest: Digest, size: u64, now: Timestamp) -> u64;
            fn upload_append(tenant: TenantId, digest: Digest, at: u64, bytes: Vec<u8>, now: Timestamp) -> u64;
            fn upload_bytes(tenant: TenantId, digest: Digest) -> Vec<u8>;
            fn upload_end(tenant: TenantId, digest: Digest) -> ();
            => {}
        );
        pass_on!($type, BackfillStore:
            fn backfill_plan(tenant: TenantId, backfill: NewBackfill) -> BackfillPlan;
            fn backfill_create(tenant: TenantId, backfill: NewBackfill, change: Change) -> Backfill;
            fn backfill_get(tenant: TenantId, id: BackfillId) -> Backfill;
            fn backfill_list(
                tenant: TenantId, trigger: Option<&Name>, only: Option<BTreeSet<Name>>, page: Page
            ) -> Paged<Backfill>;
            fn backfill_cancel(tenant: TenantId, id: BackfillId, change: Change) -> Backfill;
            fn backfills_due(now: Timestamp, limit: usize) -> Vec<DueBackfill>;
            fn backfill_advance(step: BackfillStep, now: Timestamp) -> u32;
            => {}
        );
        pass_on!($type, RetentionStore:
            fn retention_step(keep: Keep, limit: usize) -> Swept;
            => {}
        );
    };
}

/// Without `task_create`.
macro_rules! pass_on_tasks {
    ($type:ident, { $($own:tt)* }) => {
        pass_on!($type, TaskStore:
            fn task_update(
                tenant: TenantId, name: &Name, spec: TaskSpec, expected: Option<u32>, growth: OnGrowth, change: Change
            ) -> Task;
            fn task_rollback(
                tenant: TenantId,
                name: &Name,
                revision: u32,
                expected: Option<u32>,
                growth: OnGrowth,
                change: Change
            ) -> Task;
            fn task_pause(
                tenant: TenantId,
                name: &Name,
                note: String,
                queued: QueuedRuns,
                change: Change
            ) -> (Task, u64);
            fn task_resume(tenant: TenantId, name: &Name, change: Change) -> Task;
            fn task_get(tenant: TenantId, name: &Name) -> Task;
            fn task_list(tenant: TenantId, only: Option<BTreeSet<Name>>, page: Page) -> Paged<Task>;
            fn task_revisions(tenant: TenantId, name: &Name, page: Page) -> Paged<Revision>;
            fn task_spec(task: TaskId, revision: u32) -> Arc<TaskSpec>;
            fn task_delete(tenant: TenantId, name: &Name, change: Change) -> u64;
            => { $($own)* }
        );
    };
}

/// Without `events_deliver`.
macro_rules! pass_on_events {
    ($type:ident, { $($own:tt)* }) => {
        pass_on!($type, EventStore:
            fn events_publish(
                tenant: TenantId, events: Vec<innkeeper_store::NewEvent>, change: Change
            ) -> Vec<Result<innkeeper_store::Published, innkeeper_store::PublishError>>;
            fn events_after(tenant: TenantId, after: u64, limit: usize) -> Vec<innkeeper_domain::event::Event>;
            fn events_head(tenant: TenantId) -> u64;
            fn events_pending(now: Timestamp, limit: usize) -> Vec<innkeeper_store::Pending>;
            fn events_look(looks: Vec<innkeeper_store::Look>, now: Timestamp) -> u32;
            => { $($own)* }
        );
    };
}

/// Without `host_start`, `hosts_reap`, `host_stop`, `host_release`.
macro_rules! pass_on_hosts {
    ($type:ident, { $($own:tt)* }) => {
        pass_on!($type, HostStore:
            fn host_renew(host: HostId, lease_until: Timestamp) -> ();
            fn host_orders(host: HostId) -> Orders;
            fn host_list() -> Vec<HostStatus>;
            fn fleet_pause(note: String, change: Change) -> FleetPause;
            fn fleet_unpause(change: Change) -> ();
            fn fleet_paused() -> Option<FleetPause>;
            fn host_set_state(name: &Name, state: HostState, change: Change) -> Vec<HostStatus>;
            => { $($own)* }
        );
    };
}

/// Without `trigger_create`, `trigger_resume` and `triggers_advance`.
macro_rules! pass_on_triggers {
    ($type:ident, { $($own:tt)* }) => {
        pass_on!($type, TriggerStore:
            fn trigger_get(tenant: TenantId, name: &Name) -> Trigger;
            fn trigger_list(tenant: TenantId, task: Option<&Name>, only: Option<BTreeSet<Name>>, page: Page) -> Paged<Trigger>;
            fn trigger_plans(tenant: TenantId, task: Option<&Name>, only: Option<BTreeSet<Name>>, page: Page) -> Paged<Plan>;
            fn trigger_pause(tenant: TenantId, name: &Name, note: String, queued: QueuedRuns, change: Change) -> Trigger;
            fn trigger_delete(tenant: TenantId, name: &Name, change: Change) -> u64;
            fn trigger_skips(tenant: TenantId, name: &Name, page: Page) -> Paged<SkipRange>;
            fn triggers_due(now: Timestamp, limit: usize) -> Vec<DueTrigger>;
            fn trigger_skip_counts(tenant: TenantId, name: &Name) -> BTreeMap<SkipReason, u64>;
            fn triggers_next() -> Option<Timestamp>;
            fn triggers_outdated(edition: &str, limit: usize) -> Vec<Outdated>;
            fn triggers_retime(retimings: Vec<Retiming>) -> ();
            fn trigger_by_id(id: innkeeper_domain::ids::TriggerId) -> (TenantId, Trigger);
            fn trigger_fire(
                tenant: TenantId, trigger: innkeeper_domain::ids::TriggerId, firing: innkeeper_store::NewFiring, now: Timestamp
            ) -> innkeeper_store::Fired;
            => { $($own)* }
        );
    };
}

/// Without `run_get`, `runs_start`, `runs_claim`, `runs_expire` and `run_finish_if_leased`.
macro_rules! pass_on_runs {
    ($type:ident, { $($own:tt)* }) => {
        pass_on!($type, RunStore:
            fn run_list(tenant: TenantId, filter: RunFilter, page: Page) -> Paged<Run>;
            fn run_cancel(tenant: TenantId, id: RunId, change: Change) -> Run;
            fn runs_cancel(tenant: TenantId, ids: Vec<RunId>, change: Change) -> Cancelled;
            fn runs_retry(tenant: TenantId, ids: Vec<RunId>, on: OnRevision, change: Change) -> Retried;
            fn run_pause(tenant: TenantId, id: RunId, change: Change) -> Run;
            fn run_resume(tenant: TenantId, id: RunId, change: Change) -> Run;
            fn gates_list(tenant: TenantId, limit: usize) -> Vec<GateStatus>;
            fn run_logs(tenant: TenantId, id: RunId, after: (u32, u32), limit: usize) -> Vec<LogLine>;
            fn runs_next_ready(labels: &Labels, after: Timestamp) -> Option<Timestamp>;
            fn runs_news(news: Vec<AttemptNews>) -> ();
            => { $($own)* }
        );
    };
}

pub(crate) use {
    pass_on, pass_on_events, pass_on_hosts, pass_on_runs, pass_on_tasks, pass_on_the_rest, pass_on_triggers,
};
