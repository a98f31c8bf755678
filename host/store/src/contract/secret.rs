//! Secrets, sealed: the store never has the key.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;
use innkeeper_domain::secret::{SealedSecret, SecretInfo};

/// Secrets.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Keeps a secret, in the place of the one that the tenant has under this name. Its `tasks` are not looked for:
    /// they are empty. `Conflict` when the tenant has too many; `NotFound` the tenant.
    async fn secret_put(&self, secret: SealedSecret, change: Change) -> Result<SecretInfo, StoreError>;

    /// Those of these names that there are.
    async fn secrets_get(&self, tenant: TenantId, names: Vec<Name>) -> Result<Vec<SealedSecret>, StoreError>;

    /// By name.
    async fn secret_list(&self, tenant: TenantId, page: Page) -> Result<Paged<SecretInfo>, StoreError>;

    /// `NotFound`; `Conflict` while the current revision of a task names it.
    async fn secret_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<(), StoreError>;

    /// Some that aren't sealed under this key, of every tenant.
    async fn secrets_under_other_keys(
        &self,
        key_id: &str,
        limit: usize,
    ) -> Result<Vec<SealedSecret>, StoreError>;

    /// Puts `to` in the place of `from`, which it is another sealing of, unless that has changed meanwhile.
    /// Whether it did.
    async fn secret_reseal(&self, from: SealedSecret, to: SealedSecret) -> Result<bool, StoreError>;
}
