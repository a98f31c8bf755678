//! Outcomes: what an attempt ended with.

use crate::limits::{FAILURE_CODE_CHARS_MAX, FAILURE_MESSAGE_BYTES_MAX};
use crate::payload::Payload;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// What an attempt ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Output(Payload),
    Failure(Failure),
}

/// How an attempt failed. The kinds are told apart by the host; what the guest says is in the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The guest returned a failure of its own.
    Guest,
    /// A command ended with an exit code other than zero.
    Exit,
    /// WebAssembly trapped: unreachable code, out-of-bounds access, stack overflow ...
    Trap,
    /// Over the attempt's timeout.
    Timeout,
    /// The run's first attempt had not begun by the start deadline.
    StartDeadline,
    /// The run was not over by its deadline.
    Deadline,
    /// Over the run's memory.
    Memory,
    /// Over the bound of the output.
    OutputTooLarge,
    /// Somebody asked for the run to end.
    Cancelled,
    /// The host that executed it was lost.
    HostLost,
    /// The tenant's CPU time of the day was used up.
    Quota,
    /// A secret that the task names isn't there, or can't be decrypted.
    Secret,
    /// The host itself failed; nothing is known against the guest.
    Internal,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Guest,
        Self::Exit,
        Self::Trap,
        Self::Timeout,
        Self::StartDeadline,
        Self::Deadline,
        Self::Memory,
        Self::OutputTooLarge,
        Self::Cancelled,
        Self::HostLost,
        Self::Quota,
        Self::Secret,
        Self::Internal,
    ];

    /// The word for it, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Exit => "exit",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::StartDeadline => "start-deadline",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::OutputTooLarge => "output-too-large",
            Self::Cancelled => "cancelled",
            Self::HostLost => "host-lost",
            Self::Quota => "quota",
            Self::Secret => "secret",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no failure kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a failure kind; they are guest, exit, trap, timeout, start-deadline, deadline, memory, output-too-large, cancelled, host-lost, quota, secret, internal"
)]
pub struct FailureKindError(String);

impl FromStr for FailureKind {
    type Err = FailureKindError;
    fn from_str(text: &str) -> Result<Self, FailureKindError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| FailureKindError(text.chars().take(64).collect()))
    }
}

/// What the guest says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryAdvice {
    #[default]
    ByPolicy,
    Never,
    /// By policy, but no sooner.
    After(Duration),
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// The guest's own short name for it; a command's exit code; otherwise the kind.
    pub code: String,
    /// For people.
    pub message: String,
    pub retry: RetryAdvice,
}

impl Failure {
    /// A failure that the host found.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::with_code(kind, kind.as_str(), message, RetryAdvice::ByPolicy)
    }

    /// A failure with a code. Code and message are cut to their bounds.
    pub fn with_code(kind: FailureKind, code: &str, message: impl Into<String>, retry: RetryAdvice) -> Self {
        let code = code.chars().filter(|c| !c.is_control()).take(FAILURE_CODE_CHARS_MAX).collect();
        Self { kind, code, message: cut(message.into(), FAILURE_MESSAGE_BYTES_MAX), retry }
    }
}

/// The longest beginning of `text` that has at most `max` bytes.
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

/// Text for people that may quote somebody: without what could steer a terminal, and of at most `max` bytes.
pub fn plain(text: &str, max: usize) -> String {
    cut(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(), max)
}

/// What an attempt used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// From instantiation to the end.
    pub wall: Duration,
    /// Time that a processor worked for it.
    pub cpu: Duration,
    /// The most memory that the guest's memories and tables had together, in bytes.
    pub peak_memory: u64,
}

/// An attempt's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    pub outcome: Outcome,
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back() {
        for kind in FailureKind::ALL {
            assert_eq!(kind.as_str().parse::<FailureKind>().unwrap(), kind);
        }
        assert!("oom".parse::<FailureKind>().is_err());
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("aé".into(), 2), "a");
        let long = Failure::new(FailureKind::Trap, "x".repeat(FAILURE_MESSAGE_BYTES_MAX + 1));
        assert_eq!(long.message.len(), FAILURE_MESSAGE_BYTES_MAX);
    }
}
