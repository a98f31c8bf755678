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
    /// Reads it for the first time.
    pub async fn read(pool: &Pool) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new(read(pool).await?)))
    }

    /// Reads it again.
    pub async fn refresh(&self, pool: &Pool) -> Result<(), StoreError> {
        let new = read(pool).await?;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

async fn read(pool: &Pool) -> Result<Reading, StoreError> {
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    reading!(pool, |c| {
        // So that preparing it doesn't count.
        c.prepare_cached(NOW).await?;
        let asked = Instant::now();
        let answer = row(c, NOW, &[]).await?;
        let uncertainty = asked.elapsed() / 2;
        let time = answer.ok_or_else(|| StoreError::Corrupt("the database has no clock".into()))?;
        Reading { at: asked + uncertainty, time: time.try_get::<_, At>(0)?.0, uncertainty }
    })
}
