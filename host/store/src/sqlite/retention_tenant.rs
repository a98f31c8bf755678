//! Clearing away what deleted tenants have left, in SQLite.

use super::retention::{delete_run, ids};
use super::row::{Id, signed};
use crate::StoreError;
use rusqlite::{Connection, params};
use uuid::Uuid;

pub(super) const DELETED: &str = "SELECT id FROM tenant WHERE deleted_at IS NOT NULL ORDER BY id";

/// Runs that no host executes.
const RUNS: &str = "SELECT id FROM run WHERE tenant_id = ?1 AND state <> 'running' ORDER BY id LIMIT ?2";

/// Triggers that were due some time: so that whoever looks for what is due doesn't meet them.
const FINISH: &str = "UPDATE trigger SET state = 'finished', next_at = NULL, due_at = NULL WHERE id IN (
    SELECT id FROM trigger WHERE tenant_id = ?1 AND state = 'active' AND due_at IS NOT NULL LIMIT ?2)";

/// What goes when no run is left, those first that name others: tables, their keys, and whose rows.
const ROWS: [(&str, &str, &str); 18] = [
    ("skip", "id", "trigger_id IN (SELECT id FROM trigger WHERE tenant_id = ?1)"),
    ("backfill", "id", OWN),
    ("trigger", "id", OWN),
    ("task_revision", "task_id, number", "task_id IN (SELECT id FROM task WHERE tenant_id = ?1)"),
    ("task", "id", OWN),
    ("upload_chunk", "tenant_id, digest, first_byte", OWN),
    ("upload", "tenant_id, digest", OWN),
    ("component", "tenant_id, digest", OWN),
    ("secret", "tenant_id, name", OWN),
    ("holiday_calendar", "tenant_id, name", OWN),
    ("token", "hash", OWN),
    ("usage", "tenant_id, day, task_id, shard", OWN),
    ("stored", "tenant_id, shard", OWN),
    ("start_rate", "tenant_id", OWN),
    ("event", "tenant_id, sequence", OWN),
    ("event_head", "tenant_id", OWN),
    ("begin_rate", "tenant_id", OWN),
    ("gate", "owner, kind, key", OWN),
];

const OWN: &str = "tenant_id = ?1";

/// Deletes up to `limit` rows of a tenant, and so many lines of logs; its own row last. Says how many those were.
pub(super) fn sweep(c: &Connection, tenant: Uuid, limit: u64, lines: &mut i64) -> Result<u64, StoreError> {
    let finished = c.execute(FINISH, params![Id(tenant), signed(limit)])? as u64;
    if finished > 0 {
        return Ok(finished);
    }
    let mut swept = 0;
    for run in ids(c, RUNS, params![Id(tenant), signed(limit)])? {
        swept += delete_run(c, run, lines)?;
        if *lines <= 0 {
            // Some of a log may be all that there was time for.
            return Ok(swept.max(1));
        }
    }
    if swept > 0 || c.prepare_cached("SELECT 1 FROM run WHERE tenant_id = ?1")?.exists([Id(tenant)])? {
        return Ok(swept);
    }
    for (table, key, of_tenant) in ROWS {
        let delete = format!(
            "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {of_tenant} LIMIT ?2)"
        );
        swept += c.execute(&delete, params![Id(tenant), signed(limit - swept)])? as u64;
        if swept == limit {
            return Ok(swept);
        }
    }
    swept += c.execute("DELETE FROM tenant WHERE id = ?1 AND deleted_at IS NOT NULL", [Id(tenant)])? as u64;
    Ok(swept)
}
