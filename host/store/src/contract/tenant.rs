//! Tenants and the tokens that speak for them.

use crate::StoreError;
use async_trait::async_trait;
use innkeeper_domain::{Timestamp, ids::TenantId, name::Name};

/// A unit of isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub name: Name,
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, in every tenant.
    Admin,
}

/// Whom a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHolder {
    /// None: every tenant.
    pub tenant: Option<TenantId>,
    pub role: Role,
}

/// Tenants and tokens.
#[async_trait]
pub trait TenantStore: Send + Sync + 'static {
    /// The tenant of that name, made if there is none.
    async fn tenant_ensure(&self, name: &Name, now: Timestamp) -> Result<Tenant, StoreError>;

    /// The tenant of that name. `NotFound`.
    async fn tenant_get(&self, name: &Name) -> Result<Tenant, StoreError>;

    /// Keeps a token, as the sha-256 of its text. Keeping the same token again changes nothing.
    async fn token_put(&self, hash: [u8; 32], holder: TokenHolder, now: Timestamp) -> Result<(), StoreError>;

    /// Whom the token of this hash speaks for; none if there is no such token.
    async fn token_find(&self, hash: [u8; 32]) -> Result<Option<TokenHolder>, StoreError>;
}
