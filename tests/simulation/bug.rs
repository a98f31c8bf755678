//! Bugs that are put in on purpose, and must be found.

use crate::checker::Rule;
use crate::record::{Event, Record};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{BundledZones, TimeZone, Zones};
use innkeeper_domain::run::{Lease, RunState};
use innkeeper_domain::timetable::Upcoming;
use innkeeper_domain::trigger::{SkipReason, Trigger, TriggerState};
use innkeeper_store::{Advance, Finish, Retiming, Store, StoreError};

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
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NaiveDst, Self::AdvanceBeforeInsert, Self::DoubleResume, Self::CatchUpOffByOne, Self::NoFence];

    /// The rules by which it is to be found.
    pub fn breaks(self) -> &'static [Rule] {
        match self {
            Self::None => &[],
            Self::NaiveDst => &[Rule::Every, Rule::NotEarly],
            Self::AdvanceBeforeInsert => &[Rule::Every],
            Self::DoubleResume | Self::CatchUpOffByOne => &[Rule::Once],
            Self::NoFence => &[Rule::Fenced],
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
        Event::Claimed(leases) => leases.iter().copied().find(claimed),
        _ => None,
    });
    let lease = last.ok_or(StoreError::LeaseLost)?;
    store.run_finish_if_leased(Finish { lease, lines: Vec::new(), ..finish }, now).await
}
