//! Clearing away what is old, in small steps.

use crate::StoreError;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;

/// What is kept: everything from these instants on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Runs that ended before are deleted, with their attempts and logs.
    pub runs_since: Timestamp,
    /// Logs of runs that ended before are deleted.
    pub logs_since: Timestamp,
    /// Skip records whose last time is before are deleted.
    pub skips_since: Timestamp,
    /// Uploads that nobody went on with since are deleted.
    pub uploads_since: Timestamp,
    /// Lines of the audit log from before are deleted.
    pub audit_since: Timestamp,
    /// What was used on days that ended before is deleted.
    pub usage_since: Timestamp,
    /// Events from before are deleted, but for those that an active trigger hasn't dealt with yet,
    pub events_since: Timestamp,
    /// and are from this instant on.
    pub events_held_since: Timestamp,
}

/// What one step has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub runs: u64,
    /// Runs whose logs were deleted; one if there was only time for a part of a long log.
    pub logs: u64,
    pub skips: u64,
    pub uploads: u64,
    /// Deleted tasks and triggers of which no run is left.
    pub definitions: u64,
    /// Rows of deleted tenants, and the tenants' own when none of theirs is left.
    pub of_tenants: u64,
    /// Lines of the audit log.
    pub audit: u64,
    /// Bills.
    pub bills: u64,
    pub events: u64,
}

impl Swept {
    /// Whether there was nothing to delete.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The retention.
#[async_trait]
pub trait RetentionStore: Send + Sync + 'static {
    /// Deletes at most `limit` of each, the oldest first, and `RETENTION_STEP_LINES` lines of logs, or as many more as
    /// are stored together with the last of them.
    /// Unfinished runs stay, and so does a deleted task or trigger as long as one of its runs does. Bytes that
    /// neither a component nor an unfinished run names go too, and are not counted. When it returns nothing,
    /// nothing is left to delete.
    async fn retention_step(&self, keep: Keep, limit: usize) -> Result<Swept, StoreError>;
}
