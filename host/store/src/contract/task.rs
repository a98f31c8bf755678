//! Tasks and their revisions.

use crate::{Page, Paged, QueuedRuns, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{TaskId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::task::{Revision, Task, TaskSpec};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A task to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    pub id: TaskId,
    pub name: Name,
    pub spec: TaskSpec,
}

/// What is done with a new revision whose grants are more than those of the one it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGrowth {
    Refuse,
    /// Whoever changes the task knows.
    Accept,
}

/// Tasks. The store doesn't check specs; see `TaskSpec::check`.
#[async_trait]
pub trait TaskStore: Send + Sync + 'static {
    /// `Exists`; `NotFound` if the tenant has no such component, or no such secret; `Quota` the memory of a run.
    async fn task_create(&self, tenant: TenantId, task: NewTask, change: Change) -> Result<Task, StoreError>;

    /// Makes a new revision. Its limits hold at once, for runs of older revisions too. `NotFound` the task, the component
    /// or a secret; `Quota`; `Conflict` if the current revision is not `expected`, or if the new one's grants are more than
    /// its are and that is not accepted.
    async fn task_update(
        &self,
        tenant: TenantId,
        name: &Name,
        spec: TaskSpec,
        expected: Option<u32>,
        growth: OnGrowth,
        change: Change,
    ) -> Result<Task, StoreError>;

    /// Makes a new revision that repeats an older one. `NotFound` the task, the revision or its component; `Conflict` as
    /// an update.
    async fn task_rollback(
        &self,
        tenant: TenantId,
        name: &Name,
        revision: u32,
        expected: Option<u32>,
        growth: OnGrowth,
        change: Change,
    ) -> Result<Task, StoreError>;

    /// After this nothing of it begins until it is resumed; what executes goes on. Pausing again changes the note. Says
    /// how many queued runs were cancelled. `NotFound`.
    async fn task_pause(
        &self,
        tenant: TenantId,
        name: &Name,
        note: String,
        queued: QueuedRuns,
        change: Change,
    ) -> Result<(Task, u64), StoreError>;

    /// Resuming one that isn't paused changes nothing. `NotFound`.
    async fn task_resume(&self, tenant: TenantId, name: &Name, change: Change) -> Result<Task, StoreError>;

    /// `NotFound`.
    async fn task_get(&self, tenant: TenantId, name: &Name) -> Result<Task, StoreError>;

    /// By name; those of `only`, or all.
    async fn task_list(
        &self,
        tenant: TenantId,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Task>, StoreError>;

    /// The newest first. `NotFound` the task.
    async fn task_revisions(
        &self,
        tenant: TenantId,
        name: &Name,
        page: Page,
    ) -> Result<Paged<Revision>, StoreError>;

    /// What a revision says; it never changes. Also of deleted tasks, whose runs may still be executed.
    async fn task_spec(&self, task: TaskId, revision: u32) -> Result<Arc<TaskSpec>, StoreError>;

    /// Deletes the task and its triggers, cancels its runs that have not begun, and says how many those
    /// were. `NotFound`.
    async fn task_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<u64, StoreError>;
}
