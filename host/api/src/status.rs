//! Which status code an error has.

use innkeeper_domain::admit::Rejection;
use innkeeper_domain::component::Refusal;
use innkeeper_domain::failure::plain;
use innkeeper_domain::limits::REFUSAL_BYTES_MAX;
use innkeeper_domain::quota::QuotaExceeded;
use innkeeper_store::{StartError, StoreError};
use tonic::{Code, Status};

/// A status in words that may quote the request, and are sent as a header.
fn status(code: Code, words: impl std::fmt::Display) -> Status {
    Status::new(code, plain(&words.to_string(), REFUSAL_BYTES_MAX))
}

/// The status of a store's error.
pub(crate) fn of_store(error: StoreError) -> Status {
    let code = match &error {
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::Exists(_) => Code::AlreadyExists,
        StoreError::Conflict(_) => Code::FailedPrecondition,
        StoreError::Quota(_) => Code::ResourceExhausted,
        StoreError::Invalid(_) => Code::InvalidArgument,
        StoreError::Unavailable(_) => Code::Unavailable,
        StoreError::LeaseLost | StoreError::Corrupt(_) => Code::Internal,
    };
    if code == Code::Internal {
        tracing::error!(%error, "a call failed");
    }
    status(code, error)
}

/// The status of a request that a quota forbids.
pub(crate) fn of_quota(error: QuotaExceeded) -> Status {
    of_store(error.into())
}

/// The status of a start that was refused.
pub(crate) fn of_start(error: &StartError) -> Status {
    let code = match error {
        StartError::NoTask(_) => Code::NotFound,
        StartError::Rejected(Rejection::KeyConflict(_)) => Code::AlreadyExists,
        StartError::Rejected(Rejection::TooManyUnfinished { .. } | Rejection::Quota(_)) => {
            Code::ResourceExhausted
        }
        StartError::Rejected(Rejection::TenantSuspended) => Code::FailedPrecondition,
    };
    status(code, error)
}

/// The status of a refused upload.
pub(crate) fn of_refusal(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::NotATask(_) | Refusal::TooLarge { .. } | Refusal::NotCompiled(_) => Code::InvalidArgument,
        Refusal::Unavailable(_) => Code::Unavailable,
    };
    status(code, refusal)
}

/// The status of an argument that is mistaken.
pub(crate) fn invalid(error: impl std::fmt::Display) -> Status {
    status(Code::InvalidArgument, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_says_is_quoted_without_harm() {
        let status = invalid(format!("`\x1b]0;owned\x07{}` is not a name", "é".repeat(REFUSAL_BYTES_MAX)));
        assert!(status.message().starts_with("` ]0;owned é"), "{}", status.message());
        assert!(status.message().len() <= REFUSAL_BYTES_MAX);
    }
}
