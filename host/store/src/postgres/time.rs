//! The database's clock, which all hosts of a fleet go by.

use super::connection::reading;
use super::row::{At, row};
use crate::StoreError;
use deadpool_postgres::Pool;
use innkeeper_domain::{Timestamp, time};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far a reading may be off before an older, better one is kept.
const UNCERTAINTY_MAX: Duration = Duration::from_millis(5);
/// How far a reading may be off at all; one that is worse is refused.
const UNCERTAINTY_BEARABLE: Duration = Duration::from_secs(1);
/// By how much the database's clock may go otherwise than this machine's steady one without a word.
const STEP: Duration = Duration::from_secs(1);
/// How long a good reading is kept: clocks drift by less than a millisecond in that time.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// What the database's time is, by the last reading and this machine's steady clock: a machine whose own
/// clock is wrong, or is set, does no harm.
#[derive(Debug)]
pub(super) struct DatabaseTime(Mutex<Reading>);

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    time: Timestamp,
    /// Half of how long the reading took.
    uncertainty: Duration,
}

impl DatabaseTime {
    /// Reads it for the first time. `Unavailable` if that takes too long to be of use.
    pub async fn read(pool: &Pool) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new(read(pool).await?)))
    }

    /// Reads it again. After an error the last reading stands.
    pub async fn refresh(&self, pool: &Pool) -> Result<(), StoreError> {
        let new = read(pool).await?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(by) = last.step_until(&new) {
            tracing::warn!(
                by = by.as_secs_f64(),
                "the database's clock was set, or this machine stood still; leases and triggers go by the database"
            );
        }
        let better = new.uncertainty <= last.uncertainty.max(UNCERTAINTY_MAX);
        if better || last.at.elapsed() > GOOD_FOR {
            *last = new;
        }
        Ok(())
    }

    /// The instant, in whole microseconds.
    pub fn now(&self) -> Timestamp {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        time::from_micros(time::to_micros(time::after(last.time, last.at.elapsed())))
    }
}

impl Reading {
    /// By how much the database's clock has stepped since, if it has: forwards or backwards.
    fn step_until(&self, new: &Self) -> Option<Duration> {
        let expected = time::after(self.time, new.at.saturating_duration_since(self.at));
        let by = time::between(expected, new.time).max(time::between(new.time, expected));
        (by > STEP + self.uncertainty + new.uncertainty).then_some(by)
    }

    fn bearable(self) -> Result<Self, StoreError> {
        if self.uncertainty > UNCERTAINTY_BEARABLE {
            let took = self.uncertainty * 2;
            return Err(StoreError::Unavailable(format!("its clock took {took:.1?} to be read")));
        }
        Ok(self)
    }
}

async fn read(pool: &Pool) -> Result<Reading, StoreError> {
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let reading: Reading = reading!(pool, |c| {
        // So that preparing it doesn't count.
        c.prepare_cached(NOW).await?;
        let asked = Instant::now();
        let answer = row(c, NOW, &[]).await?;
        let uncertainty = asked.elapsed() / 2;
        let time = answer.ok_or_else(|| StoreError::Corrupt("the database has no clock".into()))?;
        Reading { at: asked + uncertainty, time: time.try_get::<_, At>(0)?.0, uncertainty }
    })?;
    reading.bearable()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, second: i64, uncertainty: Duration) -> Reading {
        Reading { at, time: Timestamp::from_second(second).unwrap(), uncertainty }
    }

    #[test]
    fn a_step_of_the_clock_is_noticed_both_ways() {
        let (begun, good) = (Instant::now(), Duration::from_millis(1));
        let (first, later) = (reading(begun, 1_000, good), begun + Duration::from_secs(10));
        for (second, by) in [(1_010, None), (1_011, None), (1_070, Some(60)), (990, Some(20))] {
            let by = by.map(Duration::from_secs);
            assert_eq!(first.step_until(&reading(later, second, good)), by, "{second}");
        }
        // It may be only the reading that is off.
        assert_eq!(first.step_until(&reading(later, 1_012, Duration::from_secs(1))), None);
    }

    #[test]
    fn a_reading_that_took_long_is_refused() {
        let took = |uncertainty| reading(Instant::now(), 1_000, uncertainty).bearable();
        assert!(took(Duration::from_millis(900)).is_ok());
        assert!(matches!(took(Duration::from_millis(1_100)), Err(StoreError::Unavailable(_))));
    }
}
