//! Events: published, read, delivered to triggers.

use crate::StoreError;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::event::{Delivery, Event, Topic, Waiting};
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::trigger::TriggerSpec;

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    pub id: String,
    pub topic: Topic,
    pub data: Payload,
}

/// An event that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub sequence: u64,
    /// Whether it was there already, under the same id.
    pub existed: bool,
}

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("event `{0}` was published with another topic or other data; use a new id, or the same event")]
    IdTaken(String),
}

/// A trigger that has events to deal with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub id: TriggerId,
    pub tenant: TenantId,
    pub spec: TriggerSpec,
    pub after: Option<TaskId>,
    pub paused_through: Option<Timestamp>,
    pub cursor: u64,
    pub events: Vec<Event>,
    pub more: bool,
    pub head: u64,
    pub expired_at: Option<Timestamp>,
}

impl Pending {
    /// For the decision.
    pub fn waiting(&self) -> Waiting<'_> {
        Waiting {
            spec: &self.spec,
            after: self.after,
            paused_through: self.paused_through,
            cursor: self.cursor,
            events: &self.events,
            more: self.more,
            head: self.head,
            expired_at: self.expired_at,
        }
    }
}

/// A decision, to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliver {
    pub id: TriggerId,
    pub tenant: TenantId,
    /// [`Pending::cursor`] that the decision was made for.
    pub cursor: u64,
    pub delivery: Delivery,
    /// Ids for the runs of the delivery, as many and in the same order; ascending.
    pub run_ids: Vec<RunId>,
}

/// A look at a trigger's events that comes to nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub id: TriggerId,
    /// [`Pending::cursor`] that was looked from.
    pub cursor: u64,
    /// Everything up to there isn't wanted.
    pub past: u64,
    /// Everything up to there was looked at: it is time to look again when there is more.
    pub seen: u64,
    /// Or at this instant.
    pub look_at: Option<Timestamp>,
}

/// Events.
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Publishes events in one commit, in this order; results are in that order too. The same id with the same
    /// topic and data is the same event, as long as that is kept. `NotFound` the tenant; `Conflict` if it is
    /// suspended; `Quota`: nothing of the call is published.
    async fn events_publish(
        &self,
        tenant: TenantId,
        events: Vec<NewEvent>,
        change: Change,
    ) -> Result<Vec<Result<Published, PublishError>>, StoreError>;

    /// Events after this sequence, in order; at most so many, and no more than `EVENT_BYTES_PER_DECISION` of data but
    /// for one event.
    async fn events_after(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError>;

    /// The sequence of the last event; 0 before the first.
    async fn events_head(&self, tenant: TenantId) -> Result<u64, StoreError>;

    /// Active triggers for which events have come that they haven't looked at, or whose time to look has come; those
    /// first that were looked at the longest ago. Each with the next events after its cursor.
    async fn events_pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Pending>, StoreError>;

    /// Applies a decision, whole or not at all, in one commit: `admit` is asked for every run, and a run inserted or a
    /// skip recorded; then the cursor is moved on. Void for a trigger that is not active any more, or whose cursor has
    /// moved. Returns how many runs were created.
    async fn events_deliver(&self, deliver: Deliver, now: Timestamp) -> Result<u32, StoreError>;

    /// Notes looks, in one commit: they come after those of other triggers the next time. Void for a trigger that is not
    /// active any more, whose cursor has moved, or that somebody else is changing. Returns how many were noted.
    async fn events_look(&self, looks: Vec<Look>, now: Timestamp) -> Result<u32, StoreError>;
}
