//! The pause of the whole fleet, in SQLite.

use super::audit;
use super::row::At;
use crate::{StoreError, record};
use innkeeper_domain::audit::Change;
use innkeeper_domain::host::FleetPause;
use rusqlite::{Connection, OptionalExtension, params};

/// Whether the fleet is paused, as an expression.
pub(super) const IS_PAUSED: &str = "EXISTS (SELECT 1 FROM fleet_pause)";

/// None if it isn't paused.
pub(super) fn get(c: &Connection) -> Result<Option<FleetPause>, StoreError> {
    let mut get = c.prepare_cached("SELECT note, at FROM fleet_pause")?;
    let pause = get.query_row([], |row| Ok(FleetPause { note: row.get(0)?, at: row.get::<_, At>(1)?.0 }));
    Ok(pause.optional()?)
}

/// Pauses the fleet with this note, or ends its pause.
pub(super) fn set(
    c: &Connection,
    note: Option<&str>,
    change: &Change,
) -> Result<Option<FleetPause>, StoreError> {
    let before = get(c)?;
    match note {
        Some(note) => c.execute(
            "INSERT INTO fleet_pause (id, note, at) VALUES (1, ?1, ?2)
             ON CONFLICT (id) DO UPDATE SET note = excluded.note",
            params![note, At(change.now)],
        )?,
        None => c.execute("DELETE FROM fleet_pause", [])?,
    };
    c.execute("UPDATE host SET paused = ?1", [note.is_some()])?;
    let after = get(c)?;
    let difference = || (record::fleet(before.as_ref()), record::fleet(after.as_ref()));
    if before != after {
        audit::record(c, change, None, || "the fleet".into(), difference)?;
    }
    Ok(after)
}
