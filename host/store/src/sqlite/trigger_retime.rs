//! Triggers in SQLite whose next times were reckoned by another edition of the zones.

use super::row::{At, Id, Json, signed};
use crate::{Outdated, Retiming, StoreError};
use innkeeper_domain::calendar::Covered;
use innkeeper_domain::ids::TriggerId;
use rusqlite::{Connection, Row, params};

/// Two ranges of one index: what is sorted before the edition, and what is after.
pub(super) const OUTDATED: &str = "SELECT id, spec, next_at, covered_at, covered_offset FROM trigger
    WHERE (zone_edition < ?1 OR zone_edition > ?1) AND zone_edition <> '' AND state <> 'finished'
        AND next_at IS NOT NULL LIMIT ?2";

pub(super) fn outdated(c: &Connection, edition: &str, limit: usize) -> Result<Vec<Outdated>, StoreError> {
    let mut list = c.prepare_cached(OUTDATED)?;
    let rows = list.query_map(params![edition, signed(limit as u64)], |row| {
        Ok((TriggerId(row.get::<_, Id>(0)?.0), read(row)))
    })?;
    let mut found = Vec::new();
    for row in rows {
        match row? {
            (_, Ok(trigger)) => found.push(trigger),
            (id, Err(error)) => {
                tracing::error!(trigger = %id, %error, "a stored trigger can't be read; its next time stays");
            }
        }
    }
    Ok(found)
}

fn read(row: &Row) -> rusqlite::Result<Outdated> {
    Ok(Outdated {
        id: TriggerId(row.get::<_, Id>(0)?.0),
        spec: row.get::<_, Json<_>>(1)?.0,
        next_at: row.get::<_, At>(2)?.0,
        covered: Covered { at: row.get::<_, At>(3)?.0, offset: row.get(4)? },
    })
}

pub(super) fn apply(c: &Connection, retiming: &Retiming) -> Result<(), StoreError> {
    c.prepare_cached(
        "UPDATE trigger SET next_at = ?3, due_at = ?4, zone_edition = ?5,
             state = CASE WHEN ?3 IS NULL THEN 'finished' ELSE state END
         WHERE id = ?1 AND next_at = ?2 AND state <> 'finished'",
    )?
    .execute(params![
        Id(retiming.id.0),
        At(retiming.was),
        retiming.next.map(|next| At(next.nominal)),
        retiming.next.map(|next| At(next.due)),
        retiming.edition,
    ])?;
    Ok(())
}
