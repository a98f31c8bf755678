//! Where a call comes from, as far as the connection tells.

use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The other end of a connection. Every request has it among its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The names in its verified client certificate, as `URI:..`, `DNS:..` and `CN:..`, in this order; none if it
    /// showed none.
    pub certificate: Vec<String>,
    pub(crate) standing: Standing,
}

/// What the calls on a connection have shown of who is there. Clones are of the same connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing(Arc<AtomicU8>);

/// For how long a connection may stay whose time is over, unless it has earned more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    ForEver,
    OnceMore,
    No,
}

impl Standing {
    const STRANGER: u8 = 0;
    const ASKED_HEALTH: u8 = 1;
    /// It has asked for health, and has had its time for that.
    const SPARED: u8 = 2;
    const KNOWN: u8 = 3;

    /// Somebody whom the host knows has called, or sent a webhook.
    pub fn becomes_known(&self) {
        self.0.store(Self::KNOWN, Ordering::Relaxed);
    }

    /// Somebody has asked for health.
    pub fn asks_health(&self) {
        self.change(Self::STRANGER, Self::ASKED_HEALTH);
    }

    /// Its time is over.
    pub fn stay(&self) -> Stay {
        if self.change(Self::ASKED_HEALTH, Self::SPARED) {
            return Stay::OnceMore;
        }
        if self.0.load(Ordering::Relaxed) == Self::KNOWN { Stay::ForEver } else { Stay::No }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_goes_and_one_who_asks_for_health_goes_a_little_later() {
        let standing = Standing::default();
        assert_eq!(standing.stay(), Stay::No);
        standing.asks_health();
        assert_eq!(standing.stay(), Stay::OnceMore);
        standing.asks_health();
        assert_eq!(standing.stay(), Stay::No, "asking again earns nothing");
        standing.clone().becomes_known();
        standing.asks_health();
        assert_eq!(standing.stay(), Stay::ForEver);
    }
}
