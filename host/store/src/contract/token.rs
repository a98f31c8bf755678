//! Tokens, and whom they speak for.

use crate::{Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{TenantId, TokenId};
use innkeeper_domain::tenant::Tenant;

/// The sha-256 of what its holder shows: all that is kept of it.
pub type TokenHash = [u8; 32];

/// A token that was found, whether or not it is worth anything still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub token: Token,
    /// [`Token::tenant`], as it stands now.
    pub tenant: Option<Tenant>,
}

/// Tokens. The store doesn't check them; see `Token::check`.
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// Sees to it that there is a token of this hash; if there is none, it becomes an admin's. One that is
    /// revoked stays so.
    async fn token_ensure(&self, hash: TokenHash, now: Timestamp) -> Result<(), StoreError>;

    /// `Exists` if there is one of this hash that isn't void: it is another's certificate or subject. One that
    /// is void is replaced. `Conflict` when the tenant has too many; `NotFound` the tenant.
    async fn token_create(&self, token: Token, hash: TokenHash, change: Change) -> Result<Token, StoreError>;

    /// None if there is no such token.
    async fn token_find(&self, hash: TokenHash) -> Result<Option<Found>, StoreError>;

    /// The newest first, with those that are void; of one tenant, or of all and of none.
    async fn token_list(&self, tenant: Option<TenantId>, page: Page) -> Result<Paged<Found>, StoreError>;

    /// After this the token is worth nothing. Revoking it again changes nothing. `NotFound`, also if it isn't
    /// `tenant`'s; none: whosever it is.
    async fn token_revoke(
        &self,
        tenant: Option<TenantId>,
        id: TokenId,
        change: Change,
    ) -> Result<Token, StoreError>;
}
