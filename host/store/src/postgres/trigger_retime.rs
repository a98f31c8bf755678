//! Triggers in PostgreSQL whose next times were reckoned by another edition of the zones.

use super::row::{At, Json, execute, rows, signed};
use crate::{Outdated, Retiming, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::calendar::Covered;
use innkeeper_domain::ids::TriggerId;
use tokio_postgres::Row;
use uuid::Uuid;

/// Two ranges of one index: what is sorted before the edition, and what is after.
const OUTDATED: &str = "SELECT id, spec, next_at, covered_at, covered_offset FROM trigger
    WHERE (zone_edition < $1 OR zone_edition > $1) AND zone_edition <> '' AND state <> 'finished'
        AND next_at IS NOT NULL LIMIT $2";

pub(super) async fn outdated(
    c: &impl GenericClient,
    edition: &str,
    limit: usize,
) -> Result<Vec<Outdated>, StoreError> {
    let mut found = Vec::new();
    for row in &rows(c, OUTDATED, &[&edition, &signed(limit as u64)]).await? {
        match read(row) {
            Ok(trigger) => found.push(trigger),
            Err(error) => {
                let id: Uuid = row.try_get(0)?;
                tracing::error!(trigger = %id, %error, "a stored trigger can't be read; its next time stays");
            }
        }
    }
    Ok(found)
}

fn read(row: &Row) -> Result<Outdated, StoreError> {
    Ok(Outdated {
        id: TriggerId(row.try_get(0)?),
        spec: row.try_get::<_, Json<_>>(1)?.0,
        next_at: row.try_get::<_, At>(2)?.0,
        covered: read_covered(row, 3)?,
    })
}

/// Of two columns, from this one on.
pub(super) fn read_covered(row: &Row, column: usize) -> Result<Covered, StoreError> {
    let offset = i32::try_from(row.try_get::<_, i64>(column + 1)?);
    let offset = offset.map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(Covered { at: row.try_get::<_, At>(column)?.0, offset })
}

pub(super) async fn apply(c: &impl GenericClient, retimings: &[Retiming]) -> Result<(), StoreError> {
    let mut sorted: Vec<&Retiming> = retimings.iter().collect();
    // In the order in which everybody locks.
    sorted.sort_by_key(|retiming| retiming.id);
    for retiming in sorted {
        execute(
            c,
            "UPDATE trigger SET next_at = $3, due_at = $4, zone_edition = $5,
                 state = CASE WHEN $3::bigint IS NULL THEN 'finished' ELSE state END
             WHERE id = $1 AND next_at = $2 AND state <> 'finished'",
            &[
                &retiming.id.0,
                &At(retiming.was),
                &retiming.next.map(|next| At(next.nominal)),
                &retiming.next.map(|next| At(next.due)),
                &retiming.edition,
            ],
        )
        .await?;
    }
    Ok(())
}
