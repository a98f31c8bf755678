//! The audit log: who changed what, and who was refused.

use crate::access::Role;
use crate::ids::{AuditId, TenantId};
use crate::name::Name;
use crate::word::words;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// Who asks, as it goes on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Such as `token 0198...` or `certificate ci.example.com`; what was shown, if nobody is known by it;
    /// `various` if that were several, as of what follows.
    pub name: String,
    /// None for somebody who isn't known, or several.
    pub role: Option<Role>,
    /// The network address that the call came from; empty for the host's own machine without a call.
    pub address: String,
    /// What was called, such as `TaskService/CreateTask`.
    pub action: String,
}

/// A change that is asked for: when, and by whom if it is to go on record. The record is committed together
/// with the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub now: Timestamp,
    pub by: Option<Arc<Actor>>,
}

/// The host's own change, which nobody asked for.
impl From<Timestamp> for Change {
    fn from(now: Timestamp) -> Self {
        Self { now, by: None }
    }
}

/// How a request ended that is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// Whoever asked may not, or isn't known.
    Denied,
}

words!(AuditOutcome, "an outcome", Done = "done", Denied = "denied");

/// A line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    pub id: AuditId,
    pub at: Timestamp,
    /// The tenant that it concerns, with its name then; none if it concerns all, or nobody knows.
    pub tenant: Option<(TenantId, Name)>,
    pub actor: Actor,
    /// What it was done to, such as "task `hello`".
    pub object: String,
    pub outcome: AuditOutcome,
    /// How it was; null where there was nothing, or that doesn't matter. Never has a secret's value.
    pub before: Value,
    /// How it is then.
    pub after: Value,
    /// How many this stands for: of refusals, those in quick succession are one line, and all that are beyond the lines
    /// of a minute.
    pub count: u64,
}
