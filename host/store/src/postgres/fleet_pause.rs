//! The pause of the whole fleet, in PostgreSQL.

use super::audit;
use super::row::{At, execute, row, rows, text};
use crate::{StoreError, record};
use deadpool_postgres::GenericClient;
use innkeeper_domain::audit::Change;
use innkeeper_domain::host::FleetPause;

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
