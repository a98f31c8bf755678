//! Runs: started, claimed, finished, read.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::Rejection;
use innkeeper_domain::audit::Change;
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::failure::{AttemptEnd, FailureKind};
use innkeeper_domain::gate::{Gate, GateKind};
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId};
use innkeeper_domain::limits::NEWS_COST;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, Lease, LogLine, Progress, Run, RunState};
use std::collections::BTreeSet;
use uuid::Uuid;

/// A run to start by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    pub id: RunId,
    pub task: Name,
    pub input: Payload,
    pub idempotency_key: Option<String>,
    pub options: StartOptions,
}

/// What a start says in place of its task, or beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StartOptions {
    pub deadlines: Deadlines,
    pub labels: Labels,
    /// None: its task's.
    pub priority: Option<u8>,
}

/// A run that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub id: RunId,
    /// Whether it was there already, under the same idempotency key.
    pub existed: bool,
}

/// Why a run was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("there is no task `{0}`")]
    NoTask(Name),
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// A gate, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateStatus {
    pub kind: GateKind,
    pub task: TaskId,
    /// The task, or the trigger.
    pub owner: Uuid,
    /// Empty but for keys.
    pub key: String,
    pub gate: Gate,
}

/// Which runs are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    pub task: Option<Name>,
    pub trigger: Option<Name>,
    /// Only those of these tasks, if they are given; what isn't among them is as if it weren't there.
    pub only: Option<BTreeSet<Name>>,
    /// Any of these; all states when empty.
    pub states: Vec<RunState>,
    /// Of those that failed, or were cancelled, by any of these; all when empty.
    pub failure_kinds: Vec<FailureKind>,
    /// Only those that ended then or later.
    pub ended_since: Option<Timestamp>,
    /// Only those that have all of these.
    pub labels: Labels,
}

/// What a cancel of several runs has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cancelled {
    /// Those that were queued or waited: they are over.
    pub ended: u64,
    /// Those that execute: they are told to end.
    pub told: u64,
}

/// By which revision of its task a run is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRevision {
    /// The one that it is pinned to.
    Pinned,
    /// The task's current one, which it is pinned to from then on.
    Current,
}

/// What a retry of several runs has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retried {
    /// Those that are queued again.
    pub reopened: Vec<RunId>,
    /// Those that can't be: they are not over, have succeeded, aren't there, or their task is deleted.
    pub left_out: u64,
    /// Why it stopped before the end: the first that was refused, and none after it, is queued again.
    pub refused: Option<Rejection>,
}

/// The end of an attempt, to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    pub lease: Lease,
    pub end: AttemptEnd,
    /// When to try again, if the retry policy says so; for failures only.
    pub again_at: Option<Timestamp>,
    /// Lines of its log that are not stored yet.
    pub lines: Vec<LogLine>,
}

/// What a running attempt has said since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptNews {
    pub lease: Lease,
    pub lines: Vec<LogLine>,
    pub progress: Option<Progress>,
}

impl AttemptNews {
    /// What writing them costs, in bytes of one value that would take as long.
    pub fn cost(&self) -> usize {
        NEWS_COST + self.lines.iter().map(LogLine::cost).sum::<usize>()
    }
}

/// Runs.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Starts runs by hand in one commit; each passes `admit`, and succeeds or fails by itself. Results
    /// are in the order of the starts. `Quota`: the tenant's forbids the whole call.
    async fn runs_start(
        &self,
        tenant: TenantId,
        starts: Vec<NewRun>,
        change: Change,
    ) -> Result<Vec<Result<Started, StartError>>, StoreError>;

    /// `NotFound`.
    async fn run_get(&self, tenant: TenantId, id: RunId) -> Result<Run, StoreError>;

    /// The newest first, without inputs, outputs and attempts. `NotFound` the task or trigger named.
    async fn run_list(
        &self,
        tenant: TenantId,
        filter: RunFilter,
        page: Page,
    ) -> Result<Paged<Run>, StoreError>;

    /// Cancels a run that has not begun; asks one that runs to end; changes nothing of one that is over.
    /// `NotFound`.
    async fn run_cancel(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError>;

    /// Cancels these of the tenant's runs as [`run_cancel`](Self::run_cancel) does each, in one commit. Those that are
    /// over, or aren't there, are left as they are.
    async fn runs_cancel(
        &self,
        tenant: TenantId,
        ids: Vec<RunId>,
        change: Change,
    ) -> Result<Cancelled, StoreError>;

    /// Queues these of the tenant's runs again that failed or were cancelled, in one commit, the oldest first. Each
    /// passes `admit` as a start by hand does; attempts are counted on, but the retry policy's tries and the losses of
    /// hosts begin anew, and so do its deadlines. It counts as unfinished again for its task, its trigger and its
    /// backfill, none of which is active again for that. When it ends it is on the bill once more.
    async fn runs_retry(
        &self,
        tenant: TenantId,
        ids: Vec<RunId>,
        on: OnRevision,
        change: Change,
    ) -> Result<Retried, StoreError>;

    /// Ends up to `limit` runs of each kind, of every tenant, whose time has passed: those that have not begun by their start deadline
    /// or aren't over by their deadline fail; those that a host should have ended `OVERDUE_GRACE` ago, for their
    /// deadline or a cancel, are taken from it. Returns how many that were.
    async fn runs_expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError>;

    /// Pauses a run: one that hasn't begun is held, and of one that executes there is no other attempt. `NotFound`;
    /// `Conflict` if it is over.
    async fn run_pause(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError>;

    /// Lets a paused run go on; another it leaves as it is. `NotFound`; `Conflict` if it is over.
    async fn run_resume(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError>;

    /// The tenant's gates: those of tasks with limits that have had a run since, and others as long as runs hold a slot or wait; in order of
    /// their owners, kinds and keys, up to `limit`.
    async fn gates_list(&self, tenant: TenantId, limit: usize) -> Result<Vec<GateStatus>, StoreError>;

    /// Lines of a run's log in order, after the one with this attempt and sequence. `NotFound`.
    async fn run_logs(
        &self,
        tenant: TenantId,
        id: RunId,
        after: (u32, u32),
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError>;

    /// Leases ready runs to a host, shared between tenants by `domain::fairness`, and none that are over a
    /// tenant's quotas, or a suspended tenant's. Before that, runs that wait for limits are let pass, as many as there is
    /// room for: never more hold a slot than may, whichever hosts claim at the same time. A tenant over its stored bytes, or without CPU time left, begins
    /// nothing; what it adds by attempts that execute already is all that it can be over by. Of each tenant first
    /// those of the highest priority; of these those that require some of the host's labels, then those that require
    /// none, each the longest ready first. None of a paused tenant or fleet, and none whose deadline, or start deadline if
    /// none of its attempts has begun, has passed.
    /// None unless the host is active; `LeaseLost` if its life has ended.
    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError>;

    /// When, after this instant, the next run that waits becomes ready for a host with these labels, or the next gate
    /// may open by itself; none if nothing waits. It says nothing of runs that are held back by a quota of their
    /// tenant: nothing tells when there is room again (a deletion, the retention, midnight, another quota), so hosts
    /// look every second as well.
    async fn runs_next_ready(
        &self,
        labels: &Labels,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Keeps what running attempts have said. News of an attempt that has lost its lease are dropped. Where the store is
    /// this machine's, the last of it may be lost if the machine fails, with the attempt.
    async fn runs_news(&self, news: Vec<AttemptNews>) -> Result<(), StoreError>;

    /// Commits the end of an attempt, together with all that belongs to it. `LeaseLost`: nothing is
    /// seen of it. Returns the run's state after it.
    async fn run_finish_if_leased(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError>;
}
