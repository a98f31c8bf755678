//! Backfills: runs of a trigger for times that are past.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::backfill::{Backfill, BackfillPlan, BackfillSpec, Stretch, before_trigger};
use innkeeper_domain::ids::{BackfillId, RunId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::trigger::{Trigger, TriggerSpec, TriggerState};
use std::collections::BTreeSet;

/// A backfill to create, or to plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBackfill {
    pub id: BackfillId,
    pub trigger: Name,
    /// The trigger that the times are of: its name may be another's by now.
    pub trigger_id: TriggerId,
    pub spec: BackfillSpec,
    /// The nominal times of the range, in order; see `BackfillSpec::times`.
    pub times: Vec<Timestamp>,
}

impl NewBackfill {
    /// Its times that are not the trigger's own still, and how many are. `NotFound` if it is of another trigger;
    /// `Invalid` if all are the trigger's own.
    pub(crate) fn times_of(&self, trigger: &Trigger) -> Result<(&[Timestamp], u64), StoreError> {
        if trigger.id != self.trigger_id {
            return Err(StoreError::NotFound(format!("trigger `{}`", self.trigger)));
        }
        let next_at = trigger.next_at.filter(|_| trigger.state == TriggerState::Active);
        let times = before_trigger(&self.times, next_at).map_err(|e| StoreError::Invalid(e.to_string()))?;
        Ok((times, (self.times.len() - times.len()) as u64))
    }
}

/// A backfill that can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueBackfill {
    pub id: BackfillId,
    pub tenant: TenantId,
    pub trigger: TriggerId,
    pub trigger_spec: TriggerSpec,
    pub from: Timestamp,
    /// The first nominal time that is not dealt with.
    pub next_at: Timestamp,
    /// The last one that it goes to.
    pub last_at: Timestamp,
}

/// A stretch of a backfill's times, to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillStep {
    pub id: BackfillId,
    /// [`DueBackfill::next_at`] that the stretch begins with.
    pub next_at: Timestamp,
    pub stretch: Stretch,
    /// Ids for runs of the stretch's times, as many and in the same order; ascending, since runs that become ready at
    /// the same time are claimed in the order of their ids.
    pub run_ids: Vec<RunId>,
}

impl BackfillStep {
    /// The nominal time at this place of the stretch, and the id of its run.
    pub(crate) fn run(&self, place: usize) -> Option<(Timestamp, RunId)> {
        Some((*self.stretch.times.get(place)?, *self.run_ids.get(place)?))
    }
}

/// Backfills. The store doesn't check specs; see `BackfillSpec::times`.
#[async_trait]
pub trait BackfillStore: Send + Sync + 'static {
    /// What the backfill would do now; writes nothing. `NotFound` the trigger; `Invalid` if all times are the
    /// trigger's own still.
    async fn backfill_plan(
        &self,
        tenant: TenantId,
        backfill: NewBackfill,
    ) -> Result<BackfillPlan, StoreError>;

    /// `NotFound` the trigger; `Invalid` if all times are the trigger's own still; `Conflict` if the trigger has as
    /// many active ones as it may have.
    async fn backfill_create(
        &self,
        tenant: TenantId,
        backfill: NewBackfill,
        change: Change,
    ) -> Result<Backfill, StoreError>;

    /// `NotFound`; not of deleted triggers.
    async fn backfill_get(&self, tenant: TenantId, id: BackfillId) -> Result<Backfill, StoreError>;

    /// The newest first; of one trigger or of all, and of those only that belong to tasks in `only`, if that is given.
    /// `NotFound` the trigger.
    async fn backfill_list(
        &self,
        tenant: TenantId,
        trigger: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Backfill>, StoreError>;

    /// After this it creates no run, and those of its runs that have not begun are cancelled. Changes nothing of one
    /// that is not active. `NotFound`.
    async fn backfill_cancel(
        &self,
        tenant: TenantId,
        id: BackfillId,
        change: Change,
    ) -> Result<Backfill, StoreError>;

    /// Active backfills that can go on, the longest waiting first, of every tenant. One that can't be read is logged
    /// and left out.
    async fn backfills_due(&self, now: Timestamp, limit: usize) -> Result<Vec<DueBackfill>, StoreError>;

    /// Takes a backfill through a stretch, as far as `domain::backfill::step` says, in one commit: runs are inserted
    /// and the backfill goes on, or nothing is written. A step for a backfill that is no longer active, or no longer
    /// at that time, is left out. Returns how many runs were created.
    async fn backfill_advance(&self, step: BackfillStep, now: Timestamp) -> Result<u32, StoreError>;
}
