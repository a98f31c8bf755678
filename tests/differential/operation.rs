//! What can be asked of a store, as data: what failed can be shown, repeated and shortened.

use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::host::{Host, HostState, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId};
use innkeeper_domain::name::Name;
use innkeeper_domain::run::Lease;
use innkeeper_domain::task::TaskSpec;
use innkeeper_store::{Advance, AttemptNews, Finish, Keep, NewRun, NewTask, NewTrigger, RunFilter};

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
    TokenPut {
        hash: [u8; 32],
        tenant: Option<TenantPlace>,
    },
    TokenFind([u8; 32]),
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
    },
    TaskRollback {
        tenant: TenantPlace,
        name: Name,
        revision: u32,
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
        size: usize,
    },
    TriggerSkips {
        tenant: TenantPlace,
        name: Name,
        size: usize,
    },
    TriggersNext,
    /// What the scheduler does: decides with `fire` about all that is due, and applies that. The runs' ids
    /// come from the seed.
    Schedule {
        ids: u64,
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
