//! What can be asked of a store, as data: what failed can be shown, repeated and shortened.

use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::AuditOutcome;
use innkeeper_domain::backfill::Again;
use innkeeper_domain::component::Digest;
use innkeeper_domain::holiday::Holiday;
use innkeeper_domain::host::{Host, HostState, Labels};
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TokenId};
use innkeeper_domain::name::Name;
use innkeeper_domain::run::Lease;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::tenant::TenantUpdate;
use innkeeper_store::{
    Advance, AttemptNews, Finish, Keep, NewEvent, NewRun, NewTask, NewTenant, NewTrigger, OnGrowth,
    OnRevision, QueuedRuns, RunFilter,
};
use std::collections::BTreeSet;

/// Tenants are named by their place in [`TENANTS`]: their ids are each store's own.
pub type TenantPlace = usize;
pub const TENANTS: [&str; 2] = ["default", "other"];

/// An operation and the time that it is given.
#[derive(Debug, Clone)]
pub struct Step {
    pub at: Timestamp,
    pub operation: Operation,
}

/// How the host that lives ends before the next one starts: on SQLite there is only ever one, so no store is
/// asked for more.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    Stopped,
    /// As one that was lost.
    Reaped,
}

#[derive(Debug, Clone)]
pub enum Operation {
    TenantGet(&'static str),
    TenantCreate(NewTenant),
    TenantUpdate {
        name: &'static str,
        update: TenantUpdate,
    },
    /// Never one of [`TENANTS`].
    TenantDelete(&'static str),
    TenantList {
        size: usize,
    },
    TokenEnsure([u8; 32]),
    TokenFind([u8; 32]),
    /// Of no tenant if it is an admin's.
    TokenCreate {
        tenant: TenantPlace,
        token: Token,
        hash: [u8; 32],
    },
    TokenRevoke {
        tenant: Option<TenantPlace>,
        id: TokenId,
    },
    TokenList {
        tenant: Option<TenantPlace>,
        size: usize,
    },
    SecretPut {
        tenant: TenantPlace,
        name: Name,
        key_id: &'static str,
        sealed: Vec<u8>,
    },
    SecretsGet {
        tenant: TenantPlace,
        names: Vec<Name>,
    },
    SecretDelete {
        tenant: TenantPlace,
        name: Name,
    },
    SecretList {
        tenant: TenantPlace,
        size: usize,
    },
    /// Those that aren't sealed under this key, sealed under it.
    SecretsReseal {
        key_id: &'static str,
        limit: usize,
    },
    /// Lines of one time are in no order.
    AuditList {
        tenant: Option<TenantPlace>,
        outcome: Option<AuditOutcome>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        size: usize,
    },
    ComponentPut {
        tenant: TenantPlace,
        bytes: Vec<u8>,
    },
    ComponentGet {
        tenant: TenantPlace,
        digest: String,
    },
    ComponentDelete {
        tenant: TenantPlace,
        digest: Digest,
    },
    ComponentBytes(Digest),
    ComponentList {
        tenant: TenantPlace,
        size: usize,
    },
    UploadBegin {
        tenant: TenantPlace,
        digest: Digest,
        size: u64,
    },
    UploadAppend {
        tenant: TenantPlace,
        digest: Digest,
        first: u64,
        bytes: Vec<u8>,
    },
    UploadBytes {
        tenant: TenantPlace,
        digest: Digest,
    },
    UploadEnd {
        tenant: TenantPlace,
        digest: Digest,
    },
    TaskCreate {
        tenant: TenantPlace,
        task: NewTask,
    },
    TaskUpdate {
        tenant: TenantPlace,
        name: Name,
        spec: TaskSpec,
        expected: Option<u32>,
        growth: OnGrowth,
    },
    TaskRollback {
        tenant: TenantPlace,
        name: Name,
        revision: u32,
        expected: Option<u32>,
        growth: OnGrowth,
    },
    TaskDelete {
        tenant: TenantPlace,
        name: Name,
    },
    TaskGet {
        tenant: TenantPlace,
        name: Name,
    },
    TaskSpecOf {
        task: TaskId,
    },
    TaskList {
        tenant: TenantPlace,
        only: Option<BTreeSet<Name>>,
        size: usize,
    },
    TaskRevisions {
        tenant: TenantPlace,
        name: Name,
        size: usize,
    },
    TriggerCreate {
        tenant: TenantPlace,
        trigger: NewTrigger,
    },
    TriggerGet {
        tenant: TenantPlace,
        name: Name,
    },
    TriggerPause {
        tenant: TenantPlace,
        name: Name,
        note: String,
        queued: QueuedRuns,
    },
    TriggerResume {
        tenant: TenantPlace,
        name: Name,
    },
    TriggerDelete {
        tenant: TenantPlace,
        name: Name,
    },
    TriggerList {
        tenant: TenantPlace,
        task: Option<Name>,
        only: Option<BTreeSet<Name>>,
        size: usize,
    },
    TriggerSkips {
        tenant: TenantPlace,
        name: Name,
        size: usize,
    },
    TriggerPlans {
        tenant: TenantPlace,
        task: Option<Name>,
        only: Option<BTreeSet<Name>>,
        size: usize,
    },
    HolidaysPut {
        tenant: TenantPlace,
        name: Name,
        holidays: Vec<Holiday>,
    },
    HolidaysGet {
        tenant: TenantPlace,
        name: Name,
    },
    HolidaysDelete {
        tenant: TenantPlace,
        name: Name,
    },
    HolidaysList {
        tenant: TenantPlace,
        size: usize,
    },
    HolidaysDates {
        tenant: TenantPlace,
        names: BTreeSet<Name>,
    },
    TriggersNext,
    /// What the scheduler does: decides with `fire` about all that is due, and applies that. The runs' ids
    /// come from the seed.
    Schedule {
        ids: u64,
    },
    /// Of the trigger's times since this instant.
    BackfillCreate {
        tenant: TenantPlace,
        id: BackfillId,
        trigger: Name,
        from: Timestamp,
        concurrency: u32,
        again: Again,
    },
    BackfillCancel {
        tenant: TenantPlace,
        id: BackfillId,
    },
    BackfillList {
        tenant: TenantPlace,
        trigger: Option<Name>,
        size: usize,
    },
    /// Takes all that can go on through so many times. The runs' ids come from the seed.
    Backfill {
        ids: u64,
        times: usize,
    },
    EventsPublish {
        tenant: TenantPlace,
        events: Vec<NewEvent>,
    },
    EventsAfter {
        tenant: TenantPlace,
        after: u64,
        limit: usize,
    },
    /// What the delivery does. The runs' ids come from the seed.
    Deliver {
        ids: u64,
    },
    /// Of a webhook's trigger, or what is refused.
    TriggerFire {
        tenant: TenantPlace,
        trigger: Name,
        id: RunId,
        occurrence: &'static str,
    },
    /// A decision that was made before.
    Advance(Vec<Advance>),
    RunsStart {
        tenant: TenantPlace,
        starts: Vec<NewRun>,
    },
    RunGet {
        tenant: TenantPlace,
        id: RunId,
    },
    RunList {
        tenant: TenantPlace,
        filter: RunFilter,
        size: usize,
    },
    RunCancel {
        tenant: TenantPlace,
        id: RunId,
    },
    RunsCancel {
        tenant: TenantPlace,
        ids: Vec<RunId>,
    },
    RunsRetry {
        tenant: TenantPlace,
        ids: Vec<RunId>,
        on: OnRevision,
    },
    /// All whose time has passed.
    RunsExpire,
    TaskPause {
        tenant: TenantPlace,
        name: Name,
        note: String,
        queued: QueuedRuns,
    },
    TaskResume {
        tenant: TenantPlace,
        name: Name,
    },
    RunPause {
        tenant: TenantPlace,
        id: RunId,
    },
    RunResume {
        tenant: TenantPlace,
        id: RunId,
    },
    RunLogs {
        tenant: TenantPlace,
        id: RunId,
        after: (u32, u32),
        limit: usize,
    },
    RunsClaim {
        host: HostId,
        labels: Labels,
        limit: usize,
    },
    RunsNextReady(Labels),
    RunsNews(Vec<AttemptNews>),
    RunFinish(Finish),
    HostStart {
        host: Host,
        before: Ending,
        lease_until: Timestamp,
    },
    HostRenew {
        host: HostId,
        lease_until: Timestamp,
    },
    HostsReap,
    HostStop(HostId),
    HostOrders(HostId),
    HostRelease {
        host: HostId,
        keep: Vec<Lease>,
    },
    HostList,
    /// With a note, or over.
    FleetPause(Option<String>),
    HostSetState {
        name: Name,
        state: HostState,
    },
    /// Steps of the retention until nothing is left to delete.
    Retain {
        keep: Keep,
        limit: usize,
    },
}
