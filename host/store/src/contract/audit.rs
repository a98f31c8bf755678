//! The audit log. Changes are written to it by the calls that make them, in the same commit.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::{AuditEntry, AuditOutcome};
use innkeeper_domain::ids::TenantId;

/// Which lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Those that concern this tenant; none: all.
    pub tenant: Option<TenantId>,
    pub outcome: Option<AuditOutcome>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// The audit log.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Adds lines about what was refused.
    async fn audit_append(&self, entries: Vec<AuditEntry>) -> Result<(), StoreError>;

    /// The newest first.
    async fn audit_list(&self, filter: AuditFilter, page: Page) -> Result<Paged<AuditEntry>, StoreError>;
}
