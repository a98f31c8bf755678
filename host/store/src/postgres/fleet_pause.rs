//! The pause of the whole fleet, in PostgreSQL.

use super::connection::reading;
use super::row::{At, execute, row, rows, text};
use super::{Shared, audit};
use crate::{StoreError, record};
use deadpool_postgres::GenericClient;
use innkeeper_domain::audit::Change;
use innkeeper_domain::host::FleetPause;
use innkeeper_domain::limits::DATABASE_TIMEOUT;
use std::time::{Duration, Instant};

/// How often older transactions are looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Whether the fleet is paused, as an expression.
pub(super) const IS_PAUSED: &str = "EXISTS (SELECT 1 FROM fleet_pause)";

/// Until the transaction ends nobody else changes the pause: for a host that begins its life, and takes it over.
pub(super) const HOLD: &str = "LOCK TABLE fleet_pause IN SHARE MODE";

/// None if it isn't paused.
pub(super) async fn get(c: &impl GenericClient) -> Result<Option<FleetPause>, StoreError> {
    match row(c, "SELECT note, at FROM fleet_pause", &[]).await? {
        Some(found) => Ok(Some(FleetPause { note: found.try_get(0)?, at: found.try_get::<_, At>(1)?.0 })),
        None => Ok(None),
    }
}

/// Waits until every transaction has ended that may not have seen the pause, which is committed: then no trigger starts a
/// run any more.
pub(super) async fn wait(shared: &Shared) -> Result<(), StoreError> {
    let begun = Instant::now();
    let mut all_began_before = None;
    loop {
        let (oldest, next): (i64, i64) = reading!(&shared.pool, |c| {
            let get = "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
                FROM pg_current_snapshot() AS s";
            let found = row(c, get, &[]).await?;
            let found = found.ok_or_else(|| StoreError::Corrupt("there is no snapshot".into()))?;
            (found.try_get(0)?, found.try_get(1)?)
        })?;
        if oldest >= *all_began_before.get_or_insert(next) {
            return Ok(());
        }
        if begun.elapsed() > DATABASE_TIMEOUT {
            let words = "the fleet is paused, but work from before that is still under way in the database; pause it again";
            return Err(StoreError::Unavailable(words.into()));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Pauses the fleet with this note, or ends its pause. Claims hold a host's row, so this waits for those under way; a
/// host that begins its life has either been seen here or waits for this.
pub(super) async fn set(
    c: &impl GenericClient,
    note: Option<&str>,
    change: &Change,
) -> Result<Option<FleetPause>, StoreError> {
    c.batch_execute("LOCK TABLE fleet_pause IN SHARE ROW EXCLUSIVE MODE").await?;
    let before = get(c).await?;
    match note {
        Some(note) => {
            let pause = "INSERT INTO fleet_pause (id, note, at) VALUES (1, $1, $2)
                ON CONFLICT (id) DO UPDATE SET note = EXCLUDED.note";
            execute(c, pause, &[&text(note), &At(change.now)]).await?;
        }
        None => {
            execute(c, "DELETE FROM fleet_pause", &[]).await?;
        }
    }
    rows(c, "SELECT 1 FROM host ORDER BY id FOR UPDATE", &[]).await?;
    execute(c, "UPDATE host SET paused = $1", &[&note.is_some()]).await?;
    let after = get(c).await?;
    if before != after {
        let difference = (record::fleet(before.as_ref()), record::fleet(after.as_ref()));
        audit::record(c, change, None, "the fleet".into(), difference).await?;
    }
    Ok(after)
}
