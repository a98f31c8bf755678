//! Runs: started, claimed, finished, read.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::Rejection;
use innkeeper_domain::audit::Change;
use innkeeper_domain::failure::AttemptEnd;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{HostId, RunId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, Lease, LogLine, Progress, Run, RunState};
use std::collections::BTreeSet;

/// A run to start by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    pub id: RunId,
    pub task: Name,
    pub input: Payload,
    pub idempotency_key: Option<String>,
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

/// Which runs are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunFilter {
    pub task: Option<Name>,
    pub trigger: Option<Name>,
    /// Only those of these tasks, if they are given; what isn't among them is as if it weren't there.
    pub only: Option<BTreeSet<Name>>,
    /// Any of these; all states when empty.
    pub states: Vec<RunState>,
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

    /// Lines of a run's log in order, after the one with this attempt and sequence. `NotFound`.
    async fn run_logs(
        &self,
        tenant: TenantId,
        id: RunId,
        after: (u32, u32),
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError>;

    /// Leases ready runs to a host, shared between tenants by `domain::fairness`, and none that are over a
    /// tenant's quotas, or a suspended tenant's. A tenant over its stored bytes, or without CPU time left, begins
    /// nothing; what it adds by attempts that execute already is all that it can be over by. Of each tenant first
    /// those that require some of the host's labels, then those that require none, each the longest ready first.
    /// None unless the host is active; `LeaseLost` if its life has ended.
    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError>;

    /// When, after this instant, the next run that waits becomes ready for a host with these labels; none if
    /// none waits. It says nothing of runs that are held back by a quota of their tenant: nothing tells when there
    /// is room again (a deletion, the retention, midnight, another quota), so hosts look every second as well.
    async fn runs_next_ready(
        &self,
        labels: &Labels,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Keeps what running attempts have said. News of an attempt that has lost its lease are dropped.
    async fn runs_news(&self, news: Vec<AttemptNews>) -> Result<(), StoreError>;

    /// Commits the end of an attempt, together with all that belongs to it. `LeaseLost`: nothing was
    /// written. Returns the run's state after it.
    async fn run_finish_if_leased(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError>;
}
