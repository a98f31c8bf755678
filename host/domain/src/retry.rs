//! Whether and when a failed attempt is tried again.

use crate::calendar::human_duration;
use crate::failure::{Failure, FailureKind, RetryAdvice};
use crate::ids::RunId;
use crate::limits::{ATTEMPTS_MAX, BACKOFF_MAX};
use crate::time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// A task's retry policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Tries in all, the first one included.
    pub max_attempts: u32,
    pub backoff: Backoff,
    /// The kinds of failure that are tried again. `cancelled` and passed deadlines never are, and `host-lost` has a
    /// count of its own: none of them can be listed. `quota` and `secret` are only if they are named: somebody has to do
    /// something about those first.
    pub on: BTreeSet<FailureKind>,
}

/// The wait before the next attempt: `initial * factor^(n-1)` after the n-th, at most `max`, less a
/// random part of up to `jitter_percent` of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    pub initial: Duration,
    pub factor: u32,
    pub max: Duration,
    pub jitter_percent: u32,
}

impl Default for RetryPolicy {
    /// One attempt; where more are asked for, 1 s, 2 s, 4 s ... up to 5 min, with a tenth of jitter.
    fn default() -> Self {
        Self {
            max_attempts: 1,
            backoff: Backoff {
                initial: Duration::from_secs(1),
                factor: 2,
                max: Duration::from_secs(300),
                jitter_percent: 10,
            },
            on: FailureKind::ALL.into_iter().filter(|kind| is_usual(*kind)).collect(),
        }
    }
}

/// A kind of failure that may be listed, by its word.
pub fn listed_kind(word: &str) -> Result<FailureKind, RetryError> {
    let listed = word.parse().ok().filter(|kind| can_be_listed(*kind));
    listed.ok_or_else(|| RetryError::Kind(word.chars().take(64).collect()))
}

fn listed_kinds() -> String {
    let kinds = FailureKind::ALL.into_iter().filter(|kind| can_be_listed(*kind));
    kinds.map(FailureKind::as_str).collect::<Vec<_>>().join(", ")
}

fn can_be_listed(kind: FailureKind) -> bool {
    !matches!(
        kind,
        FailureKind::Cancelled | FailureKind::HostLost | FailureKind::StartDeadline | FailureKind::Deadline
    )
}

/// Whether it is tried again where the policy names no kinds.
fn is_usual(kind: FailureKind) -> bool {
    can_be_listed(kind) && !matches!(kind, FailureKind::Quota | FailureKind::Secret)
}

/// A policy that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    #[error("{0} attempts were asked for; 1 to {ATTEMPTS_MAX} are possible")]
    Attempts(u32),
    #[error("a backoff of {} was asked for; it may be 1ms to {}", human_duration(*.0), human_duration(BACKOFF_MAX))]
    Wait(Duration),
    #[error("a backoff factor of {0} was asked for; it may be 1 (the same wait each time) to 10")]
    Factor(u32),
    #[error("a jitter of {0} % was asked for; it may be 0 to 100")]
    Jitter(u32),
    #[error("`{0}` can't be listed as a failure to retry; what can be: {kinds}", kinds = listed_kinds())]
    Kind(String),
}

impl RetryPolicy {
    /// Checks every bound.
    pub fn check(&self) -> Result<(), RetryError> {
        if !(1..=ATTEMPTS_MAX).contains(&self.max_attempts) {
            return Err(RetryError::Attempts(self.max_attempts));
        }
        let Backoff { initial, factor, max, jitter_percent } = self.backoff;
        if let Some(wait) =
            [initial, max].into_iter().find(|w| *w < Duration::from_millis(1) || *w > BACKOFF_MAX)
        {
            return Err(RetryError::Wait(wait));
        }
        if !(1..=10).contains(&factor) {
            return Err(RetryError::Factor(factor));
        }
        if jitter_percent > 100 {
            return Err(RetryError::Jitter(jitter_percent));
        }
        self.on
            .iter()
            .find(|kind| !can_be_listed(**kind))
            .map_or(Ok(()), |kind| Err(RetryError::Kind(kind.to_string())))
    }

    /// When to try again after attempt `attempt` (from 1) of `run` failed at `now`; none for not again.
    /// The same arguments give the same instant: the jitter comes from the run and the attempt.
    pub fn next_attempt(
        &self,
        run: RunId,
        attempt: u32,
        failure: &Failure,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if attempt >= self.max_attempts || !self.on.contains(&failure.kind) {
            return None;
        }
        let wait = self.backoff.wait(run, attempt);
        match failure.retry {
            RetryAdvice::Never => None,
            RetryAdvice::ByPolicy => Some(time::after(now, wait)),
            RetryAdvice::After(least) => Some(time::after(now, wait.max(least.min(BACKOFF_MAX)))),
        }
    }
}

impl Backoff {
    fn wait(&self, run: RunId, attempt: u32) -> Duration {
        let factor = u64::from(self.factor).saturating_pow(attempt.saturating_sub(1));
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let full = micros(self.initial).saturating_mul(factor).min(micros(self.max));
        let jitter = u128::from(full) * u128::from(self.jitter_percent) / 100;
        let taken = (jitter * u128::from(spread(run, attempt))) >> 32;
        Duration::from_micros(full - u64::try_from(taken).unwrap_or(full))
    }
}

/// A number that looks random, evenly spread over 32 bits, always the same for the same arguments.
fn spread(run: RunId, attempt: u32) -> u32 {
    // FNV-1a, then a multiply-xorshift so that the high bits depend on every input bit.
    let bytes = run.0.as_bytes().iter().copied().chain(attempt.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    ((hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(max_attempts: u32) -> RetryPolicy {
        RetryPolicy { max_attempts, ..RetryPolicy::default() }
    }

    fn failure(kind: FailureKind, retry: RetryAdvice) -> Failure {
        Failure { retry, ..Failure::new(kind, "") }
    }

    #[test]
    fn waits_grow_and_end() {
        let run = RunId(uuid::Uuid::from_u128(7));
        let now = Timestamp::UNIX_EPOCH;
        let exact = RetryPolicy { backoff: Backoff { jitter_percent: 0, ..policy(9).backoff }, ..policy(4) };
        let trap = failure(FailureKind::Trap, RetryAdvice::ByPolicy);
        let waits: Vec<_> =
            (1..=4).map(|n| exact.next_attempt(run, n, &trap, now).map(|t| t.as_second())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), None]);
    }

    #[test]
    fn the_guest_has_a_say() {
        let run = RunId(uuid::Uuid::from_u128(7));
        let now = Timestamp::UNIX_EPOCH;
        let never = failure(FailureKind::Guest, RetryAdvice::Never);
        assert_eq!(policy(3).next_attempt(run, 1, &never, now), None);
        let later = failure(FailureKind::Guest, RetryAdvice::After(Duration::from_secs(60)));
        assert_eq!(policy(3).next_attempt(run, 1, &later, now).unwrap().as_second(), 60);
        let cancelled = failure(FailureKind::Cancelled, RetryAdvice::ByPolicy);
        assert_eq!(policy(3).next_attempt(run, 1, &cancelled, now), None);
    }

    #[test]
    fn what_somebody_must_mend_first_is_tried_again_only_if_named() {
        let run = RunId(uuid::Uuid::from_u128(7));
        let missing = failure(FailureKind::Secret, RetryAdvice::ByPolicy);
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(policy(3).next_attempt(run, 1, &missing, now), None);
        let named = RetryPolicy { on: [FailureKind::Secret].into(), ..policy(3) };
        assert_eq!(named.check(), Ok(()));
        assert!(named.next_attempt(run, 1, &missing, now).is_some());
    }

    #[test]
    fn bounds() {
        assert!(policy(1).check().is_ok());
        assert_eq!(policy(0).check(), Err(RetryError::Attempts(0)));
        let mut listed = policy(2);
        listed.on.insert(FailureKind::Cancelled);
        assert_eq!(listed.check(), Err(RetryError::Kind("cancelled".into())));
        let words = listed_kind("bogus").unwrap_err().to_string();
        assert!(words.contains("guest, exit") && !words.contains("cancelled"), "{words}");
        assert_eq!(listed_kind("exit"), Ok(FailureKind::Exit));
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bounds(id: u128, attempt in 1u32..1000, initial in 1u64..100_000, factor in 1u32..=10, jitter in 0u32..=100) {
            let backoff = Backoff {
                initial: Duration::from_millis(initial), factor, max: Duration::from_secs(300), jitter_percent: jitter,
            };
            let full = Backoff { jitter_percent: 0, ..backoff.clone() }.wait(RunId(uuid::Uuid::from_u128(id)), attempt);
            let wait = backoff.wait(RunId(uuid::Uuid::from_u128(id)), attempt);
            prop_assert!(wait <= full && full <= Duration::from_secs(300));
            prop_assert!(wait >= full.mul_f64(f64::from(100 - jitter) / 100.0).saturating_sub(Duration::from_micros(2)));
        }
    }
}
