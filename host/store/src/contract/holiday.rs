//! Holiday calendars.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::holiday::{Holiday, HolidayCalendar, HolidayCalendarInfo, HolidayDates};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Holiday calendars. What a decision about a trigger was given before a change holds for that decision; see
/// `TriggerStore::triggers_due`.
#[async_trait]
pub trait HolidayStore: Send + Sync + 'static {
    /// Puts a calendar, in the place of the one that the tenant has under this name. `Conflict` when the tenant has
    /// too many; `NotFound` the tenant.
    async fn holidays_put(
        &self,
        tenant: TenantId,
        name: &Name,
        holidays: Vec<Holiday>,
        change: Change,
    ) -> Result<HolidayCalendar, StoreError>;

    /// `NotFound`.
    async fn holidays_get(&self, tenant: TenantId, name: &Name) -> Result<HolidayCalendar, StoreError>;

    /// By name.
    async fn holidays_list(
        &self,
        tenant: TenantId,
        page: Page,
    ) -> Result<Paged<HolidayCalendarInfo>, StoreError>;

    /// `NotFound`; `Conflict` while a trigger excludes it.
    async fn holidays_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<(), StoreError>;

    /// The dates of those of these calendars that there are.
    async fn holidays_dates(
        &self,
        tenant: TenantId,
        names: BTreeSet<Name>,
    ) -> Result<BTreeMap<Name, Arc<HolidayDates>>, StoreError>;
}
