//! What happened, as it was seen from outside: what clients asked and were told, and what was done to the
//! hosts.

use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::Schedule;
use innkeeper_domain::ids::RunId;
use innkeeper_engine::clock::{Clock, SystemClock};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    Acknowledged(T),
    /// With words: nothing was to change.
    Refused(String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call<Q, A> {
    pub asked: Q,
    pub asked_at: Timestamp,
    pub answered_at: Timestamp,
    pub answer: Answer<A>,
}

/// The start of a run by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub task: String,
    pub key: String,
    pub input: String,
}

/// What is asked of a trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Create(Schedule),
    Pause,
    Resume,
}

/// A host that was killed or frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its incarnation.
    pub host: String,
    pub at: Timestamp,
    /// When its runs must have been taken up at the latest, if the database is there.
    pub by: Timestamp,
}

/// The database was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    pub from: Timestamp,
    pub to: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    pub starts: Vec<Call<Start, RunId>>,
    /// Acknowledged with whether the run was cancelled by then.
    pub cancels: Vec<Call<RunId, bool>>,
    /// By the trigger's name.
    pub triggers: Vec<Call<(String, Asked), ()>>,
    pub losses: Vec<Loss>,
    pub outages: Vec<Outage>,
    /// Everything that was due by then must be accounted for.
    pub settled_at: Timestamp,
}

/// A history that is being written, by many.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The machine's time.
pub fn now() -> Timestamp {
    SystemClock.now()
}
