//! Where a call comes from, as far as the connection tells.

use async_trait::async_trait;
use std::net::SocketAddr;

/// The other end of a connection. Every request has it among its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// The names in its verified client certificate, as `URI:..`, `DNS:..` and `CN:..`, in this order; none if it
    /// showed none.
    pub certificate: Vec<String>,
}

/// Verifies an identity provider's signed tokens.
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// Whose tokens these are.
    fn issuer(&self) -> &str;

    /// The subject of a token that is signed by the issuer, meant for this host, and valid now.
    async fn subject(&self, token: &str) -> Result<String, IdentityError>;
}

/// Why a token has no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not good; the text says what is wrong with it.
    #[error("{0}")]
    Bad(String),
    /// It may be good, and can't be checked now; the text says why.
    #[error("{0}")]
    Unavailable(String),
}
