//! Uploaded components.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::component::{Component, Digest};
use innkeeper_domain::ids::TenantId;

/// Components and their bytes.
#[async_trait]
pub trait ComponentStore: Send + Sync + 'static {
    /// Keeps a component. `Quota`; `Conflict` if the tenant is suspended; `NotFound` the tenant. True if it had the
    /// component already; then nothing changes.
    async fn component_put(
        &self,
        tenant: TenantId,
        component: Component,
        bytes: Vec<u8>,
        change: Change,
    ) -> Result<bool, StoreError>;

    /// The component whose digest begins with these hex digits (with or without `sha256:`); fewer than 12
    /// are `Invalid`. `NotFound`, also when several begin so.
    async fn component_get(&self, tenant: TenantId, digest: &str) -> Result<Component, StoreError>;

    /// The newest first.
    async fn component_list(&self, tenant: TenantId, page: Page) -> Result<Paged<Component>, StoreError>;

    /// Forgets a component. `Conflict` while a revision of a task names it.
    async fn component_delete(
        &self,
        tenant: TenantId,
        digest: Digest,
        change: Change,
    ) -> Result<(), StoreError>;

    /// The bytes as uploaded, whichever tenant did. `NotFound`; `Corrupt` if they don't have the digest.
    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, StoreError>;

    /// A compiled component that some host has shared; none where hosts don't share them, and none that
    /// can't be read. What it is worth is the caller's to check: it is not this store's word.
    async fn artifact_get(&self, digest: Digest, variant: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Shares a compiled component with hosts of the same variant. Does nothing where there is one host.
    async fn artifact_put(&self, digest: Digest, variant: &str, bytes: Vec<u8>) -> Result<(), StoreError>;
}
