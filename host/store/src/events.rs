//! What publishing events and the ends of runs say, for every driver alike.

use crate::{NewEvent, PublishError, Published, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::Rejection;
use innkeeper_domain::event::{HostTopic, OWN_IDS, without_nul};
use innkeeper_domain::ids::{RunId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::QuotaExceeded;
use innkeeper_domain::run::RunState;
use innkeeper_domain::trigger::SkipRange;
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

/// An event of the host's that is no end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostEvent {
    pub topic: HostTopic,
    /// The event's id without its sequence, or the whole id: then it is told once.
    pub id: String,
    pub once: bool,
    pub data: Payload,
}

impl HostEvent {
    /// Due times that have no run.
    pub fn skipped((id, name): (TriggerId, &Name), task: &Name, skip: &SkipRange) -> Self {
        let data = json!({
            "trigger": name.as_str(),
            "task": task.as_str(),
            "from": skip.from.to_string(),
            "to": skip.to.to_string(),
            "count": skip.count,
            "reason": skip.reason.as_str(),
        });
        let data = Payload::json(data.to_string());
        Self { topic: HostTopic::TriggerSkipped, id: format!("{OWN_IDS}skip/{id}"), once: false, data }
    }

    /// A run that a quota has kept from being started. Once an hour, so that one who is refused again and again doesn't
    /// fill the tenant's store.
    pub fn refused(exceeded: &QuotaExceeded, now: Timestamp) -> Self {
        let QuotaExceeded { quota, limit, used, asked } = exceeded;
        let data = json!({"quota": quota.as_str(), "limit": limit, "used": used, "asked": asked});
        let id = format!("{OWN_IDS}quota/{quota}/{}", now.strftime("%Y-%m-%dT%H"));
        Self { topic: HostTopic::QuotaReached, id, once: true, data: Payload::json(data.to_string()) }
    }
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
    /// The id of its event with this sequence: a run that was retried ends again.
    pub fn id(&self, sequence: u64) -> String {
        format!("{OWN_IDS}run/{}/{sequence}", self.run)
    }

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
