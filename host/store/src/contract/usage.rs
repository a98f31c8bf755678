//! What tenants have used. Written in the commit that ends an attempt or a run, so that it is exact whatever
//! crashes: an attempt whose outcome isn't committed costs nothing.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::bill::Bill;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;
use jiff::civil::Date;

/// Which bills are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFilter {
    /// Of this tenant; none: of all.
    pub tenant: Option<TenantId>,
    pub task: Option<Name>,
    /// The first and the last day.
    pub days: (Date, Date),
}

/// Usage.
#[async_trait]
pub trait UsageStore: Send + Sync + 'static {
    /// A bill for each tenant, task and day on which something of it ended, the newest day first; also of tasks
    /// that are deleted.
    async fn usage_list(&self, filter: UsageFilter, page: Page) -> Result<Paged<Bill>, StoreError>;
}
