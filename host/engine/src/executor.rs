//! The two seams of the engine: what it asks of a sandbox, and what a running attempt asks of it.
//!
//! Neither knows the other's insides. The runtime implements [`Executor`] and calls [`AttemptPort`];
//! the dispatcher does the reverse. Both are narrow enough to be a protocol to another process.

use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::run::{Claimed, LogLevel, Progress};
use innkeeper_domain::secret::SecretText;
use innkeeper_domain::task::TaskSpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One attempt to execute: everything that the sandbox may know.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub claimed: Claimed,
    pub spec: Arc<TaskSpec>,
    /// The secrets that the task names, by the config key that each is shown under.
    pub secrets: BTreeMap<String, SecretText>,
    /// When the attempt is to be over; the executor ends it with a `timeout` failure by then.
    pub deadline: Timestamp,
}

/// Executes attempts in a sandbox.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Executes one attempt to its end. Never fails: what goes wrong is in the outcome, the host's own
    /// faults as `internal`. Returns by the deadline and a little, whatever the guest does. Dropping the
    /// future ends the guest and frees all it had.
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd;
}

/// The sandbox of a host that executes nothing: it claims no run, so this is never asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExecutor;

#[async_trait]
impl Executor for NoExecutor {
    async fn execute(&self, _invocation: Invocation, _port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let failure = Failure::new(FailureKind::Internal, "this host executes no runs");
        AttemptEnd { outcome: Outcome::Failure(failure), usage: Usage::default() }
    }
}

/// What a running attempt may ask for. Every call concerns that attempt alone.
#[async_trait]
pub trait AttemptPort: Send + Sync + 'static {
    /// Adds to the attempt's log, in order. Doesn't wait for the disk; lines are bounded by the caller.
    fn log(&self, level: LogLevel, text: String);

    /// Tells how far the attempt is. Only the newest is kept.
    fn progress(&self, progress: Progress);

    /// Whether the run is to be cancelled.
    fn is_cancelled(&self) -> bool;

    /// Waits until the run is to be cancelled; for ever if it never is.
    async fn cancelled(&self);
}
