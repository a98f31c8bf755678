//! What publishing events and the ends of runs say, for every driver alike.

use crate::{NewEvent, PublishError, Published, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::Rejection;
use innkeeper_domain::event::without_nul;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::RunState;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Topics that the audit log names of one call.
const TOPICS_SHOWN: usize = 10;

pub(crate) fn suspended() -> StoreError {
    StoreError::Conflict(Rejection::TenantSuspended.to_string())
}

/// What a call is about that publishes events.
pub(crate) fn object(events: &[NewEvent]) -> String {
    match events {
        [event] => format!("event on `{}`", event.topic),
        events => format!("{} events", events.len()),
    }
}

/// What such a call has done, for the audit log; none if nothing.
pub(crate) fn published(events: &[NewEvent], results: &[Result<Published, PublishError>]) -> Option<Value> {
    let new = events.iter().zip(results).filter(|(_, result)| matches!(result, Ok(event) if !event.existed));
    let new: Vec<&NewEvent> = new.map(|(event, _)| event).collect();
    let topics: BTreeSet<&str> = new.iter().map(|event| event.topic.as_str()).collect();
    let topics: Vec<&str> = topics.into_iter().take(TOPICS_SHOWN).collect();
    (!new.is_empty()).then(|| json!({"events": new.len(), "topics": topics}))
}

/// A run that has ended, as its event tells it.
pub(crate) struct EndedRun {
    pub run: RunId,
    pub task: String,
    pub trigger: Option<String>,
    pub state: RunState,
    pub attempt: u32,
    pub nominal_at: Timestamp,
    pub depth: u32,
    /// Kind, code and message.
    pub failure: Option<(String, String, String)>,
}

impl EndedRun {
    pub fn data(&self) -> Payload {
        let failure = self.failure.as_ref().filter(|_| self.state != RunState::Succeeded).map(
            |(kind, code, message)| {
                let [code, message] = [code, message].map(|text| without_nul(text));
                json!({"kind": kind, "code": code, "message": message})
            },
        );
        let data = json!({
            "run": self.run,
            "task": self.task,
            "trigger": self.trigger,
            "state": self.state.as_str(),
            "attempt": self.attempt,
            "nominal_at": self.nominal_at.to_string(),
            "depth": self.depth,
            "failure": failure,
        });
        Payload::json(data.to_string())
    }
}
