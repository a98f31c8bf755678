//! What can go wrong with a store, named for what the caller does about it.

use innkeeper_domain::quota::QuotaExceeded;

/// An error of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing in the tenant. The text names it: "task `x`".
    #[error("there is no {0}")]
    NotFound(String),
    /// There is one of that name already.
    #[error("there is a {0} already")]
    Exists(String),
    /// The state of things forbids it; the text says why and what would help.
    #[error("{0}")]
    Conflict(String),
    /// A quota of the tenant's forbids it.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The request can't be understood: a page token that isn't one, say.
    #[error("{0}")]
    Invalid(String),
    /// The attempt is no longer this host's: nothing was written, and its outcome is void.
    #[error("the lease is lost: another host, or a later attempt, has the run")]
    LeaseLost,
    /// The store can't do it now (disk full, I/O error, shutting down); the same call may work later. Nothing
    /// was written, unless the connection broke during the commit: then it may have been. A start is safe to
    /// repeat with an idempotency key.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored can't be read back.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
}
