//! Events: messages on topics inside a tenant.

mod cycle;
mod deliver;
mod host_topic;
mod input;
mod topic;

pub use cycle::{AfterLoop, Edge, find_loop};
pub use deliver::{Deciders, Delivered, Delivery, Given, Item, Waiting, deliver};
pub use host_topic::HostTopic;
pub use input::{BATCH_VARIABLES, EVENT_VARIABLES, without_nul};
pub use topic::{Topic, TopicError, TopicPattern};

use crate::ids::{RunId, TaskId};
use crate::limits::{EVENT_BYTES_MAX, EVENT_ID_CHARS_MAX};
use crate::payload::{Payload, PayloadError};
use crate::run::RunState;
use jiff::Timestamp;

/// An event. Sequences count a tenant's events in the order of their commits, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub sequence: u64,
    /// Unique in the tenant, as long as the event is kept.
    pub id: String,
    pub topic: Topic,
    pub data: Payload,
    /// When it was published; never before the one before it.
    pub at: Timestamp,
    /// How many runs in a row led to it, each started by an event of the one before.
    pub depth: u32,
    /// Of the end of a run: which.
    pub ended: Option<Ended>,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub run: RunId,
    pub task: TaskId,
    pub state: RunState,
}

/// How the ids of the host's own events begin, so that nobody can take one before it is needed.
pub const OWN_IDS: &str = "innkeeper/";

/// An event that can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Data(#[from] PayloadError),
    #[error("an event's id has 1 to {EVENT_ID_CHARS_MAX} visible ASCII characters")]
    Id,
    #[error("ids that begin with `{OWN_IDS}` are those of the host's own events; choose another")]
    OwnId,
}

/// Checks the bounds of an event that somebody publishes.
pub fn check(id: &str, topic: &str, data: &Payload) -> Result<Topic, EventError> {
    let topic = Topic::published(topic)?;
    data.check("the event", EVENT_BYTES_MAX)?;
    let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
    if id.is_empty() || id.len() > EVENT_ID_CHARS_MAX || !visible {
        return Err(EventError::Id);
    }
    if id.starts_with(OWN_IDS) {
        return Err(EventError::OwnId);
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert!(check("1", "a", &Payload::json("{}")).is_ok());
        assert_eq!(check("", "a", &Payload::default()), Err(EventError::Id));
        assert_eq!(check("a b", "a", &Payload::default()), Err(EventError::Id));
        assert_eq!(check("innkeeper/run/1/2", "a", &Payload::default()), Err(EventError::OwnId));
        let large = Payload::json(vec![b'1'; EVENT_BYTES_MAX + 1]);
        assert!(matches!(check("1", "a", &large), Err(EventError::Data(_))));
    }
}
