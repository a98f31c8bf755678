//! Triggers, and what is due.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::calendar::Covered;
use innkeeper_domain::firing::Firing;
use innkeeper_domain::forecast::Plan;
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::{RunId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::timetable::{Reckoning, Upcoming};
use innkeeper_domain::trigger::{SkipRange, SkipReason, Trigger, TriggerSpec};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a trigger's runs that have not begun when it is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueuedRuns {
    /// They go on, or wait.
    Keep,
    Cancel,
}

/// A trigger to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTrigger {
    pub id: TriggerId,
    pub task: Name,
    /// None: the task's name and the first free number.
    pub name: Option<Name>,
    pub spec: TriggerSpec,
    pub input: Payload,
    /// Its first nominal time, if it has a schedule.
    pub first: Option<Reckoning>,
}

/// A trigger whose next nominal time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTrigger {
    pub id: TriggerId,
    pub spec: TriggerSpec,
    pub due: Timestamp,
    /// What `due` was reckoned from, and [`Reckoning::edition`].
    pub covered: Covered,
    pub edition: String,
    /// Nominal times up to this instant passed while it was paused.
    pub paused_through: Option<Timestamp>,
    /// The dates that it excludes, as they are now.
    pub holidays: Holidays,
}

/// A decision about a due trigger, to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    pub id: TriggerId,
    /// [`DueTrigger::due`] that the decision was made for.
    pub due: Timestamp,
    pub firing: Firing,
    /// Ids for the runs of `firing`, as many and in the same order.
    pub run_ids: Vec<RunId>,
    /// [`Reckoning::edition`] of the decision.
    pub edition: String,
}

/// A run to start of a trigger, for something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFiring {
    pub run_id: RunId,
    /// What happened: a trigger has one run of it.
    pub occurrence: String,
    /// When.
    pub nominal_at: Timestamp,
    pub input: Payload,
}

/// What came of a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    Run(RunId),
    /// The occurrence had its run already.
    Existing(RunId),
    /// It has no run, on record with the reason.
    Skipped(SkipReason),
}

/// A trigger whose next nominal time was reckoned by another edition of the zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outdated {
    pub id: TriggerId,
    pub spec: TriggerSpec,
    pub next_at: Timestamp,
    pub covered: Covered,
}

/// A new reckoning, to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retiming {
    pub id: TriggerId,
    /// [`Outdated::next_at`] that this takes the place of.
    pub was: Timestamp,
    /// None: the trigger has finished.
    pub next: Option<Upcoming>,
    pub edition: String,
}

/// Triggers. The store doesn't check specs; see `TriggerSpec::check`.
#[async_trait]
pub trait TriggerStore: Send + Sync + 'static {
    /// `Exists`; `NotFound` the task, or a holiday calendar that it excludes; `Quota`.
    async fn trigger_create(
        &self,
        tenant: TenantId,
        trigger: NewTrigger,
        change: Change,
    ) -> Result<Trigger, StoreError>;

    /// `NotFound`.
    async fn trigger_get(&self, tenant: TenantId, name: &Name) -> Result<Trigger, StoreError>;

    /// By name; of one task or of all, and of those only that belong to tasks in `only`, if that is given.
    /// `NotFound` the task.
    async fn trigger_list(
        &self,
        tenant: TenantId,
        task: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Trigger>, StoreError>;

    /// What a forecast needs of those that are not finished; else as [`trigger_list`](Self::trigger_list).
    async fn trigger_plans(
        &self,
        tenant: TenantId,
        task: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Plan>, StoreError>;

    /// After this no run is created, until it is resumed; of its runs that have not begun, its backfills' included,
    /// becomes what `queued` says. `NotFound`; `Conflict` if it has finished.
    async fn trigger_pause(
        &self,
        tenant: TenantId,
        name: &Name,
        note: String,
        queued: QueuedRuns,
        change: Change,
    ) -> Result<Trigger, StoreError>;

    /// Nominal times up to now that have no run will be skipped as `paused`. Resuming an active trigger
    /// changes nothing. `NotFound`; `Conflict` if it has finished.
    async fn trigger_resume(
        &self,
        tenant: TenantId,
        name: &Name,
        change: Change,
    ) -> Result<Trigger, StoreError>;

    /// Deletes it, cancels its runs that have not begun, and says how many those were. `NotFound`.
    async fn trigger_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<u64, StoreError>;

    /// Nominal times without a run, the newest first. `NotFound` the trigger.
    async fn trigger_skips(
        &self,
        tenant: TenantId,
        name: &Name,
        page: Page,
    ) -> Result<Paged<SkipRange>, StoreError>;

    /// How many skipped times are still on record, by reason. `NotFound` the trigger.
    async fn trigger_skip_counts(
        &self,
        tenant: TenantId,
        name: &Name,
    ) -> Result<BTreeMap<SkipReason, u64>, StoreError>;

    /// Active triggers whose time has come, their jitter included, of every tenant, the longest due first. Of more than
    /// `limit` one half are those that are due the longest, the other those that became due last: whose triggers have much
    /// to catch up on doesn't keep others' waiting. One that can't be read is logged and left out.
    async fn triggers_due(&self, now: Timestamp, limit: usize) -> Result<Vec<DueTrigger>, StoreError>;

    /// When the next active trigger is due, those aside that were found to be unreadable; none if there is none.
    async fn triggers_next(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Applies decisions, each whole or not at all, in one commit: for every run of the firing `admit` is
    /// asked, and a run inserted or a skip recorded; then the trigger goes on to `firing.next`; or, of a fixed delay,
    /// waits for the end of its run, which is what sets its next time then, in the same commit. A decision
    /// for a trigger that is no longer active, or no longer due at that time, is left out. Returns how
    /// many runs were created.
    async fn triggers_advance(&self, advances: Vec<Advance>, now: Timestamp) -> Result<u32, StoreError>;

    /// The trigger of this id, and whose it is; not a deleted tenant's. `NotFound`.
    async fn trigger_by_id(&self, id: TriggerId) -> Result<(TenantId, Trigger), StoreError>;

    /// Starts a run of a webhook's trigger, if `admit` lets it; a skip is put on record. A pause that was answered
    /// before is seen. `NotFound`; `Invalid`: it is no webhook's trigger, or the occurrence is too long; `Conflict` if
    /// it has finished.
    async fn trigger_fire(
        &self,
        tenant: TenantId,
        trigger: TriggerId,
        firing: NewFiring,
        now: Timestamp,
    ) -> Result<Fired, StoreError>;

    /// Some triggers that are not finished whose next nominal time was reckoned by another edition of the zones. One
    /// that can't be read is logged and left out.
    async fn triggers_outdated(&self, edition: &str, limit: usize) -> Result<Vec<Outdated>, StoreError>;

    /// Applies new reckonings in one commit; one for a trigger whose next time has changed meanwhile is left out.
    async fn triggers_retime(&self, retimings: Vec<Retiming>) -> Result<(), StoreError>;
}
