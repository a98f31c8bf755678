//! Events: messages on topics inside a tenant.

mod cycle;
mod deliver;
mod input;
mod topic;

pub use cycle::{AfterLoop, Edge, find_loop};
pub use deliver::{Deciders, Delivered, Delivery, Given, Item, Waiting, deliver};
pub use input::{BATCH_VARIABLES, EVENT_VARIABLES, failure_json, without_nul};
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

/// An event that can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Data(#[from] PayloadError),
    #[error("an event's id has 1 to {EVENT_ID_CHARS_MAX} visible ASCII characters")]
    Id,
}

/// Checks the bounds of an event that somebody publishes.
pub fn check(id: &str, topic: &str, data: &Payload) -> Result<Topic, EventError> {
    let topic = Topic::published(topic)?;
    data.check("the event", EVENT_BYTES_MAX)?;
    let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
    if id.is_empty() || id.len() > EVENT_ID_CHARS_MAX || !visible {
        return Err(EventError::Id);
    }
    Ok(topic)
}

/// The topic of a run's end; none if it isn't over.
pub fn run_topic(state: RunState) -> Option<&'static str> {
    match state {
        RunState::Succeeded => Some("innkeeper.run.succeeded"),
        RunState::Failed => Some("innkeeper.run.failed"),
        RunState::Cancelled => Some("innkeeper.run.cancelled"),
        _ => None,
    }
}

/// How a run ended whose end is on this topic.
pub fn run_state(topic: &Topic) -> Option<RunState> {
    let ends = [RunState::Succeeded, RunState::Failed, RunState::Cancelled];
    ends.into_iter().find(|state| run_topic(*state) == Some(topic.as_str()))
}

/// Which ends of runs a pattern wants, a bit each: 1 succeeded, 2 failed, 4 cancelled.
pub fn watched(pattern: &TopicPattern) -> u32 {
    [RunState::Succeeded, RunState::Failed, RunState::Cancelled]
        .into_iter()
        .map(|state| {
            let topic = run_topic(state).and_then(|topic| topic.parse().ok());
            if topic.is_some_and(|topic| pattern.matches(&topic)) { watched_bit(state) } else { 0 }
        })
        .sum()
}

/// The bit of [`watched`] for an end in this state; none if it is no end.
pub fn watched_bit(state: RunState) -> u32 {
    match state {
        RunState::Succeeded => 1,
        RunState::Failed => 2,
        RunState::Cancelled => 4,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_ends_a_pattern_wants() {
        for (pattern, bits) in [
            ("innkeeper.run.failed", 2),
            ("innkeeper.run.*", 7),
            ("innkeeper.**", 7),
            ("**", 7),
            ("*", 0),
            ("orders.**", 0),
        ] {
            assert_eq!(watched(&pattern.parse().unwrap()), bits, "{pattern}");
        }
    }

    #[test]
    fn bounds() {
        assert!(check("1", "a", &Payload::json("{}")).is_ok());
        assert_eq!(check("", "a", &Payload::default()), Err(EventError::Id));
        assert_eq!(check("a b", "a", &Payload::default()), Err(EventError::Id));
        let large = Payload::json(vec![b'1'; EVENT_BYTES_MAX + 1]);
        assert!(matches!(check("1", "a", &large), Err(EventError::Data(_))));
    }
}
