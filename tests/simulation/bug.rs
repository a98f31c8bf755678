//! Bugs that are put in on purpose, and must be found.

use crate::checker::Rule;
use crate::record::{Event, Record};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{BundledZones, TimeZone, Zones};
use innkeeper_domain::event::Item;
use innkeeper_domain::ids::{RunId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::run::{Lease, Run, RunState};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::timetable::Upcoming;
use innkeeper_domain::trigger::{SkipReason, Trigger, TriggerState};
use innkeeper_store::{Advance, Deliver, Finish, OnGrowth, Page, Retiming, RunFilter, Store, StoreError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A zone's clock never changes.
    NaiveDst,
    /// Triggers go on in one commit, and their runs come in a later one.
    AdvanceBeforeInsert,
    /// Resuming a trigger that isn't paused takes it back to its last run.
    DoubleResume,
    /// Of the times that a newer one takes the place of, the last is forgotten.
    CatchUpOffByOne,
    /// An outcome is committed whoever has the lease.
    NoFence,
    /// Claims know no concurrency of a task.
    LimitForgotten,
    /// Claims know no rate of a task.
    RateForgotten,
    /// An attempt's end takes the turn of a run that waits.
    SlotLost,
    /// Triggers are created as if their runs could overlap.
    OverlapForgotten,
    /// Nobody ends what is past its deadline.
    NothingExpires,
    /// An event makes two runs of a trigger.
    DeliveredTwice,
    /// A trigger goes on over events without the runs.
    EventLost,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::NaiveDst,
        Self::AdvanceBeforeInsert,
        Self::DoubleResume,
        Self::CatchUpOffByOne,
        Self::NoFence,
        Self::LimitForgotten,
        Self::RateForgotten,
        Self::SlotLost,
        Self::OverlapForgotten,
        Self::NothingExpires,
        Self::DeliveredTwice,
        Self::EventLost,
    ];

    /// The rules by which it is to be found.
    pub fn breaks(self) -> &'static [Rule] {
        match self {
            Self::None => &[],
            Self::NaiveDst => &[Rule::Every, Rule::NotEarly],
            Self::AdvanceBeforeInsert => &[Rule::Every],
            Self::DoubleResume | Self::CatchUpOffByOne => &[Rule::Once],
            Self::NoFence => &[Rule::Fenced],
            Self::LimitForgotten => &[Rule::Limit],
            Self::RateForgotten => &[Rule::Rate],
            Self::SlotLost => &[Rule::Stuck],
            Self::OverlapForgotten => &[Rule::Overlap],
            Self::NothingExpires => &[Rule::Deadline],
            Self::DeliveredTwice | Self::EventLost => &[Rule::Events],
        }
    }
}

/// A zone as it was when the simulation began, for ever.
pub fn without_changes(zone: &str, begin: Timestamp) -> Option<TimeZone> {
    Some(TimeZone::fixed(BundledZones.zone(zone)?.to_offset(begin)))
}

pub fn lose_one(advance: &mut Advance) {
    let skips = &mut advance.firing.skips;
    if let Some(last) = skips.iter_mut().rev().find(|skip| skip.reason == SkipReason::Superseded) {
        last.count -= 1;
    }
    skips.retain(|skip| skip.count > 0);
}

pub async fn resume_again(store: &dyn Store, before: &Trigger, after: &Trigger) -> Result<(), StoreError> {
    let (TriggerState::Active, Some(was), Some(last)) = (&before.state, after.next_at, after.last_nominal)
    else {
        return Ok(());
    };
    let edition = after.spec.edition(&BundledZones).to_string();
    let next = Some(Upcoming::punctual(last));
    store.triggers_retime(vec![Retiming { id: after.id, was, next, edition }]).await
}

/// Commits under the lease of whoever has the run.
pub async fn finish_under_any_lease(
    store: &dyn Store,
    record: &Record,
    finish: Finish,
    now: Timestamp,
) -> Result<RunState, StoreError> {
    let claimed = |lease: &Lease| lease.run == finish.lease.run;
    let last = record.entries().iter().rev().find_map(|entry| match &entry.event {
        Event::Claimed { leases, .. } => leases.iter().copied().find(claimed),
        _ => None,
    });
    let lease = last.ok_or(StoreError::LeaseLost)?;
    store.run_finish_if_leased(Finish { lease, lines: Vec::new(), ..finish }, now).await
}

/// Delivers events, and with a bug not as it should.
pub async fn deliver(
    bug: Bug,
    store: &dyn Store,
    mut deliver: Deliver,
    now: Timestamp,
) -> Result<u32, StoreError> {
    if bug == Bug::EventLost {
        deliver.delivery.items.retain(|item| matches!(item, Item::Skip(_)));
        deliver.run_ids.clear();
    }
    let created = store.events_deliver(deliver.clone(), now).await?;
    if bug == Bug::DeliveredTwice && created > 0 {
        deliver.cursor = deliver.delivery.cursor;
        deliver.run_ids.iter_mut().for_each(|id| *id = RunId::new(now));
        deliver.run_ids.sort();
        for item in &mut deliver.delivery.items {
            if let Item::Run(run) = item {
                run.occurrence.push_str("/again");
            }
        }
        store.events_deliver(deliver, now).await?;
    }
    Ok(created)
}

/// What a task says, while something else is said.
pub struct Forgotten(Option<(Name, TaskSpec)>);

/// Takes the limits from a task of which runs wait.
pub async fn forget_limits(
    bug: Bug,
    store: &dyn Store,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Forgotten, StoreError> {
    let task = match bug {
        Bug::LimitForgotten => "paired",
        Bug::RateForgotten => "rated",
        _ => return Ok(Forgotten(None)),
    };
    let task: Name = task.parse().expect("a name");
    let known = store.task_get(tenant, &task).await?;
    // A change wakes who claims: without something to claim that would go on for ever.
    if known.paused.is_some() || first_queued(store, tenant, &task, now).await?.is_none() {
        return Ok(Forgotten(None));
    }
    let spec = known.spec;
    let without = TaskSpec { concurrency: None, rate: None, ..spec.clone() };
    store.task_update(tenant, &task, without, None, OnGrowth::Accept, now.into()).await?;
    Ok(Forgotten(Some((task, spec))))
}

/// Gives them back.
pub async fn restore_limits(
    forgotten: Forgotten,
    store: &dyn Store,
    tenant: TenantId,
    now: Timestamp,
) -> Result<(), StoreError> {
    if let Some((task, spec)) = forgotten.0 {
        store.task_update(tenant, &task, spec, None, OnGrowth::Accept, now.into()).await?;
    }
    Ok(())
}

/// A run that waits is never let go on.
pub async fn lose_slot(store: &dyn Store, tenant: TenantId, now: Timestamp) -> Result<(), StoreError> {
    let task = "paired".parse().expect("a name");
    if let Some(run) = first_queued(store, tenant, &task, now).await? {
        store.run_pause(tenant, run, now.into()).await?;
    }
    Ok(())
}

async fn first_queued(
    store: &dyn Store,
    tenant: TenantId,
    task: &Name,
    now: Timestamp,
) -> Result<Option<RunId>, StoreError> {
    let filter =
        RunFilter { task: Some(task.clone()), states: vec![RunState::Queued], ..RunFilter::default() };
    let runs = store.run_list(tenant, filter, Page { size: 1_000, after: None }).await?;
    // One that waits for its trigger's runs before it can't be claimed.
    let waits = |run: &Run| run.trigger.is_some() || run.available_at > now;
    Ok(runs.items.iter().find(|run| !waits(run)).map(|run| run.id))
}
