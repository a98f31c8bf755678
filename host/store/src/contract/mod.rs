//! The contract of a store: what every driver does alike.
//!
//! Shared by all calls: an `Ok` of a call that writes means that the disk has it. A call whose future is
//! dropped may still take place. Names and ids of another tenant's are answered as ones that don't exist.
//! Time is an argument, and so is who asks for a change: that goes on record in the same commit. Nothing
//! is written in part: a call's writes are one transaction.

mod audit;
mod backfill;
mod component;
mod event;
mod holiday;
mod host;
mod retention;
mod run;
mod secret;
mod task;
mod tenant;
mod token;
mod trigger;
mod upload;
mod usage;

pub use audit::{AuditFilter, AuditStore};
pub use backfill::{BackfillStep, BackfillStore, DueBackfill, NewBackfill};
pub use component::ComponentStore;
pub use event::{Deliver, EventStore, Look, NewEvent, Pending, PublishError, Published};
pub use holiday::HolidayStore;
pub use host::{HostStore, Orders};
pub use retention::{Keep, RetentionStore, Swept};
pub use run::{
    AttemptNews, Cancelled, Finish, GateStatus, NewRun, OnRevision, Retried, RunFilter, RunStore, StartError,
    StartOptions, Started,
};
pub use secret::SecretStore;
pub use task::{NewTask, OnGrowth, TaskStore};
pub use tenant::{NewTenant, TenantStore};
pub use token::{Found, TokenHash, TokenStore};
pub use trigger::{
    Advance, DueTrigger, Fired, NewFiring, NewTrigger, Outdated, QueuedRuns, Retiming, TriggerStore,
};
pub use upload::UploadStore;
pub use usage::{UsageFilter, UsageStore};

use crate::hints::Hints;
use std::sync::Arc;

/// All that a host asks of its store.
pub trait Store:
    TenantStore
    + TokenStore
    + AuditStore
    + UsageStore
    + SecretStore
    + HolidayStore
    + ComponentStore
    + UploadStore
    + TaskStore
    + TriggerStore
    + BackfillStore
    + EventStore
    + RunStore
    + HostStore
    + RetentionStore
{
    /// The wake-ups that go with this store.
    fn hints(&self) -> &Arc<Hints>;
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// At most so many rows; from 1.
    pub size: usize,
    /// [`Paged::next`] of the page before.
    pub after: Option<String>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paged<T> {
    pub items: Vec<T>,
    /// What [`Page::after`] takes to go on; none on the last page. Opaque.
    pub next: Option<String>,
}
