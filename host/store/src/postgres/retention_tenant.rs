//! Clearing away what deleted tenants have left, in PostgreSQL. A tenant that another host is clearing away is
//! passed by.

use super::quota::Stored;
use super::retention::{delete_lines, delete_runs, ids};
use super::row::{execute, row, signed, unsigned};
use crate::StoreError;
use deadpool_postgres::GenericClient;
use uuid::Uuid;

const DELETED: &str = "SELECT id FROM tenant WHERE deleted_at IS NOT NULL ORDER BY id FOR UPDATE SKIP LOCKED";

/// Runs that no host executes.
const RUNS: &str = "SELECT id FROM run WHERE tenant_id = $1 AND state <> 'running' ORDER BY id LIMIT $2
    FOR UPDATE SKIP LOCKED";

/// Triggers that were due some time: so that whoever looks for what is due doesn't meet them.
const FINISH: &str = "UPDATE trigger SET state = 'finished', next_at = NULL, due_at = NULL WHERE id IN (
    SELECT id FROM trigger WHERE tenant_id = $1 AND state = 'active' AND due_at IS NOT NULL LIMIT $2
    FOR UPDATE SKIP LOCKED)";

/// What goes when no run is left, those first that name others: tables and whose rows. Chunks go with their uploads.
const ROWS: [(&str, &str); 17] = [
    ("skip", "trigger_id IN (SELECT id FROM trigger WHERE tenant_id = $1)"),
    ("backfill", OWN),
    ("trigger", OWN),
    ("task_revision", "task_id IN (SELECT id FROM task WHERE tenant_id = $1)"),
    ("task", OWN),
    ("upload", OWN),
    ("component", OWN),
    ("secret", OWN),
    ("holiday_calendar", OWN),
    ("token", OWN),
    ("usage", OWN),
    ("stored", OWN),
    ("start_rate", OWN),
    ("begin_rate", OWN),
    ("gate", OWN),
    ("event", OWN),
    ("event_head", OWN),
];

const OWN: &str = "tenant_id = $1";

/// Deletes up to `limit` rows of tenants, and so many lines of logs; a tenant's own row last. Says how many those
/// were.
pub(super) async fn sweep(
    c: &impl GenericClient,
    limit: i64,
    lines: &mut i64,
    stored: &mut Stored,
) -> Result<u64, StoreError> {
    let limit = unsigned(limit);
    let mut swept = 0;
    for tenant in ids(c, DELETED, &[]).await? {
        if swept < limit && *lines > 0 {
            swept += sweep_tenant(c, tenant, limit - swept, lines, stored).await?;
        }
    }
    Ok(swept)
}

async fn sweep_tenant(
    c: &impl GenericClient,
    tenant: Uuid,
    limit: u64,
    lines: &mut i64,
    stored: &mut Stored,
) -> Result<u64, StoreError> {
    let finished = execute(c, FINISH, &[&tenant, &signed(limit)]).await?;
    if finished > 0 {
        return Ok(finished);
    }
    let runs = ids(c, RUNS, &[&tenant, &signed(limit)]).await?;
    if !runs.is_empty() {
        let runs = delete_lines(c, runs, lines, stored).await?;
        delete_runs(c, &runs, stored).await?;
        // Some of a log may be all that there was time for.
        return Ok((runs.len() as u64).max(1));
    }
    if row(c, "SELECT 1 FROM run WHERE tenant_id = $1 LIMIT 1", &[&tenant]).await?.is_some() {
        return Ok(0);
    }
    let mut swept = 0;
    for (table, of_tenant) in ROWS {
        let delete = format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE {of_tenant} LIMIT $2))"
        );
        swept += execute(c, &delete, &[&tenant, &signed(limit - swept)]).await?;
        if swept == limit {
            return Ok(swept);
        }
    }
    swept += execute(c, "DELETE FROM tenant WHERE id = $1", &[&tenant]).await?;
    Ok(swept)
}
