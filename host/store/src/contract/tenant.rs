//! Tenants.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::{QuotaUse, Quotas};
use innkeeper_domain::tenant::{Tenant, TenantUpdate};

/// A tenant to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTenant {
    pub id: TenantId,
    pub name: Name,
    pub weight: u32,
    pub quotas: Quotas,
}

/// Tenants. The store doesn't check weights and notes; see `TenantUpdate::check`.
#[async_trait]
pub trait TenantStore: Send + Sync + 'static {
    /// The tenant of that name, made if there is none, with a weight of 1 and no quotas.
    async fn tenant_ensure(&self, name: &Name, now: Timestamp) -> Result<Tenant, StoreError>;

    /// `Exists`; `Conflict` when there are too many.
    async fn tenant_create(&self, tenant: NewTenant, change: Change) -> Result<Tenant, StoreError>;

    /// The tenant of that name. `NotFound`.
    async fn tenant_get(&self, name: &Name) -> Result<Tenant, StoreError>;

    /// By name.
    async fn tenant_list(&self, page: Page) -> Result<Paged<Tenant>, StoreError>;

    /// Changes what `update` says. After a pause nothing of the tenant is claimed, and its due times are skipped as
    /// `paused`; what is started by hand waits. After a suspension nothing of the tenant begins: no run is created or
    /// claimed; its due times are skipped as `tenant-suspended`. What executes goes on. `NotFound`.
    async fn tenant_update(
        &self,
        name: &Name,
        update: TenantUpdate,
        change: Change,
    ) -> Result<Tenant, StoreError>;

    /// Deletes the tenant. After this its name is free, its tokens are void, nothing of it is found, begins or
    /// is committed, and hosts are told to end what executes of it. The retention clears its rows away. Its
    /// lines of the audit log stay. `NotFound`.
    async fn tenant_delete(&self, name: &Name, change: Change) -> Result<(), StoreError>;

    /// What it uses of its quotas now.
    async fn tenant_use(&self, tenant: TenantId, now: Timestamp) -> Result<QuotaUse, StoreError>;
}
