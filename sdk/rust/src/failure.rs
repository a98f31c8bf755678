//! Failures.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a run failed, and whether to try again.
///
/// Any error turns into one with `?`: its code is `failed`, and the task's retry policy decides. It is no
/// `Error` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A short name that programs can compare, in kebab-case.
    pub code: String,
    /// For people.
    pub message: String,
    retry: Retry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    ByPolicy,
    Never,
    After(Duration),
}

impl Failure {
    /// A failure that the task's retry policy decides about.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry: Retry::ByPolicy }
    }

    /// A failure that the same input would always end with: it is not tried again.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retry: Retry::Never, ..Self::retryable(code, message) }
    }

    /// A failure that may be tried again as the policy says, but no sooner than after `wait`.
    pub fn retry_after(code: impl Into<String>, message: impl Into<String>, wait: Duration) -> Self {
        Self { retry: Retry::After(wait), ..Self::retryable(code, message) }
    }

    /// Whether the task's retry policy has a say.
    pub fn is_retryable(&self) -> bool {
        self.retry != Retry::Never
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn into_wire(self) -> crate::bindings::exports::innkeeper::task::handler::Failure {
        use crate::bindings::exports::innkeeper::task::handler::{Failure as Wire, Retry as WireRetry};
        let retry = match self.retry {
            Retry::ByPolicy => WireRetry::ByPolicy,
            Retry::Never => WireRetry::Never,
            Retry::After(wait) => WireRetry::After(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        Wire { code: self.code, message: self.message, retry }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            message.push_str(": ");
            message.push_str(&deeper.to_string());
            cause = deeper.source();
        }
        Self::retryable("failed", message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_a_retryable_failure() {
        fn parse() -> Result<u8, Failure> {
            Ok("x".parse::<u8>()?)
        }
        let failure = parse().unwrap_err();
        assert_eq!(failure.to_string(), "failed: invalid digit found in string");
        assert!(failure.is_retryable());
        assert!(!Failure::permanent("bad", "input").is_retryable());
        assert!(Failure::retry_after("busy", "later", Duration::from_secs(1)).is_retryable());
    }
}
