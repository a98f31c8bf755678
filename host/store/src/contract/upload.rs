//! Uploads that have begun. What was received stays for a while, so that a cut connection costs little.

use crate::StoreError;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::TenantId;

/// Uploads that have begun and not ended, each tenant's for itself.
#[async_trait]
pub trait UploadStore: Send + Sync + 'static {
    /// Begins an upload, or goes on with one: how many bytes there are already. One that was begun with
    /// another size begins anew. `Conflict` when the tenant has too many, or is suspended; `Quota`; `NotFound` the
    /// tenant.
    async fn upload_begin(
        &self,
        tenant: TenantId,
        digest: Digest,
        size: u64,
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Keeps the bytes that follow the first `at`; returns how many there are then. `Conflict` if there
    /// are not `at` of them, or too many; `NotFound` if it wasn't begun.
    async fn upload_append(
        &self,
        tenant: TenantId,
        digest: Digest,
        at: u64,
        bytes: Vec<u8>,
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// All bytes so far. `NotFound`.
    async fn upload_bytes(&self, tenant: TenantId, digest: Digest) -> Result<Vec<u8>, StoreError>;

    /// Forgets an upload, if there is one.
    async fn upload_end(&self, tenant: TenantId, digest: Digest) -> Result<(), StoreError>;
}
