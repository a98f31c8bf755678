//! What a tenant has used: the bill at the end.
//!
//! Every run is on one bill, that of the day of its end, also one that was cancelled before it began or whose host
//! was lost too often; then with no attempt. An attempt is on the bill of the day on which its outcome was
//! committed, with its log; one that never had an outcome costs nothing.

use crate::failure::Usage;
use crate::ids::TaskId;
use crate::name::Name;
use jiff::Timestamp;
use jiff::civil::Date;
use std::time::Duration;

/// What the attempts of a task used on one day, in UTC, of those that ended on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    pub tenant: Name,
    pub task_id: TaskId,
    pub task: Name,
    pub day: Date,
    pub used: Used,
}

/// Sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Runs that came to their end.
    pub runs: u64,
    /// Attempts that ended with an outcome.
    pub attempts: u64,
    pub cpu: Duration,
    pub wall: Duration,
    /// Peak memory times wall time, in byte-seconds.
    pub memory_seconds: u64,
    pub input_bytes: u64,
    pub output_bytes: u64,
    pub log_bytes: u64,
}

impl Usage {
    /// Its peak memory for as long as it took, in byte-seconds, to the nearest.
    pub fn memory_seconds(&self) -> u64 {
        let exact = u128::from(self.peak_memory) * self.wall.as_micros();
        u64::try_from((exact + 500_000) / 1_000_000).unwrap_or(u64::MAX)
    }
}

/// The day of an instant in UTC, as days since 1970.
pub fn day_number(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

/// The day that [`day_number`] gave a number.
pub fn day_of_number(number: i64) -> Option<Date> {
    let at = Timestamp::from_second(number.checked_mul(86_400)?).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_datetime(at).date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_numbers_before_1970_too() {
        for (second, day) in
            [(0, "1970-01-01"), (86_399, "1970-01-01"), (86_400, "1970-01-02"), (-1, "1969-12-31")]
        {
            let number = day_number(Timestamp::from_second(second).unwrap());
            assert_eq!(day_of_number(number).unwrap().to_string(), day);
        }
        assert_eq!(day_of_number(i64::MAX), None);
    }

    #[test]
    fn memory_seconds_of_short_attempts_are_not_lost() {
        let usage = |micros, peak_memory| Usage {
            wall: Duration::from_micros(micros),
            peak_memory,
            ..Usage::default()
        };
        assert_eq!(usage(100, 65_536).memory_seconds(), 7);
        assert_eq!(usage(2_000_000, 1 << 30).memory_seconds(), 2 << 30);
        assert_eq!(usage(u64::MAX, u64::MAX).memory_seconds(), u64::MAX);
    }
}
