//! Instants and durations as Innkeeper keeps them: whole microseconds, UTC.

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Tells what the time is: the machine's, or the shared database's.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Cuts an instant down to the microseconds that are stored, so that a value compares equal to
/// itself after a round trip through the store.
pub fn to_micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The instant of so many microseconds since 1970. Values out of jiff's range (years -9999 to 9999)
/// are brought to its nearest end.
pub fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// `at + by`, or the last instant there is.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `at - by`, or the first instant there is.
pub fn before(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// How long from `start` to `end`; zero if `end` is not later.
pub fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stays_in_range() {
        assert_eq!(after(Timestamp::MAX, Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(before(Timestamp::MIN, Duration::MAX), Timestamp::MIN);
        assert_eq!(from_micros(i64::MAX), Timestamp::MAX);
        let t = from_micros(1_700_000_000_123_456);
        assert_eq!(to_micros(t), 1_700_000_000_123_456);
        assert_eq!(between(after(t, Duration::from_millis(5)), t), Duration::ZERO);
        assert_eq!(between(t, after(t, Duration::from_millis(5))), Duration::from_millis(5));
    }
}
