//! Clearing away what is old, in PostgreSQL. What another host is clearing away is passed by.

use super::connection::in_transaction;
use super::quota::Stored;
use super::row::{At, Parameters, execute, rows, signed, unsigned};
use super::{PostgresStore, Shard, component, retention_tenant};
use crate::{Keep, RetentionStore, StoreError, Swept};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::bill::day_number;
use innkeeper_domain::ids::{AuditId, RunId, TenantId};
use innkeeper_domain::limits::{
    RETENTION_STEP_LINES, STORED_BYTES_PER_EVENT, STORED_BYTES_PER_LINE, STORED_BYTES_PER_RUN,
};
use uuid::Uuid;

#[async_trait]
impl RetentionStore for PostgresStore {
    async fn retention_step(&self, keep: Keep, limit: usize) -> Result<Swept, StoreError> {
        let limit = signed(limit as u64);
        in_transaction!(&self.shared.pool, |c| {
            let mut lines = LINES;
            let mut stored = Stored::default();
            let of_tenants = retention_tenant::sweep(c, limit, &mut lines, &mut stored).await?;
            // Ids are in the order of creation, and what was created later hasn't ended before.
            let runs = ids(
                c,
                "SELECT id FROM run WHERE id < $1 AND state IN ('succeeded', 'failed', 'cancelled')
                     AND finished_at < $2
                 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED",
                &[&RunId::first(keep.runs_since).0, &At(keep.runs_since), &limit],
            )
            .await?;
            // No more lines are looked at than can be deleted.
            let logs = ids(
                c,
                "SELECT r.id FROM run r WHERE r.id IN (
                     SELECT run_id FROM (
                         SELECT l.run_id FROM run_log l JOIN run o ON o.id = l.run_id
                         WHERE l.run_id < $1 AND o.state IN ('succeeded', 'failed', 'cancelled')
                             AND o.finished_at < $2
                         ORDER BY l.run_id LIMIT $4) lines
                     GROUP BY run_id ORDER BY run_id LIMIT $3)
                 ORDER BY r.id FOR UPDATE SKIP LOCKED",
                &[&RunId::first(keep.logs_since).0, &At(keep.logs_since), &limit, &LINES],
            )
            .await?;
            let runs = delete_lines(c, runs, &mut lines, &mut stored).await?;
            let mut logs = delete_lines(c, logs, &mut lines, &mut stored).await?;
            // Those that go with their runs are none.
            logs.retain(|run| !runs.contains(run));
            let in_pieces = lines == 0 && runs.is_empty() && logs.is_empty();
            delete_runs(c, &runs, &mut stored).await?;
            // Those that are over, with all of their runs.
            let backfills = "DELETE FROM backfill WHERE id IN (SELECT id FROM backfill WHERE finished_at < $1
                AND unfinished = 0 LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let backfills = execute(c, backfills, &[&At(keep.runs_since), &limit]).await?;
            let triggers = ids(
                c,
                "SELECT g.id FROM trigger g WHERE g.deleted_at < $1
                 AND NOT EXISTS (SELECT 1 FROM run r WHERE r.trigger_id = g.id)
                 AND NOT EXISTS (SELECT 1 FROM skip s WHERE s.trigger_id = g.id)
                 AND NOT EXISTS (SELECT 1 FROM backfill b WHERE b.trigger_id = g.id)
                 ORDER BY g.id LIMIT $2 FOR UPDATE OF g SKIP LOCKED",
                &[&At(keep.runs_since), &limit],
            )
            .await?;
            let tasks = ids(
                c,
                "SELECT t.id FROM task t WHERE t.deleted_at < $1
                 AND NOT EXISTS (SELECT 1 FROM run r WHERE r.task_id = t.id)
                 AND NOT EXISTS (SELECT 1 FROM trigger g WHERE g.task_id = t.id)
                 ORDER BY t.id LIMIT $2 FOR UPDATE OF t SKIP LOCKED",
                &[&At(keep.runs_since), &limit],
            )
            .await?;
            execute(c, "DELETE FROM trigger WHERE id = ANY($1)", &[&triggers]).await?;
            execute(c, "DELETE FROM gate WHERE owner = ANY($1)", &[&tasks]).await?;
            execute(c, "DELETE FROM task_revision WHERE task_id = ANY($1)", &[&tasks]).await?;
            execute(c, "DELETE FROM task WHERE id = ANY($1)", &[&tasks]).await?;
            let skips = "DELETE FROM skip WHERE id IN (
                SELECT id FROM skip WHERE last_at < $1 ORDER BY last_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let skips = execute(c, skips, &[&At(keep.skips_since), &limit]).await?;
            let uploads = "DELETE FROM upload WHERE (tenant_id, digest) IN (
                SELECT tenant_id, digest FROM upload WHERE changed_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let uploads = execute(c, uploads, &[&At(keep.uploads_since), &limit]).await?;
            component::sweep(c, limit).await?;
            let audit = "DELETE FROM audit WHERE id IN (
                SELECT id FROM audit WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let audit = execute(c, audit, &[&AuditId::first(keep.audit_since).0, &limit]).await?;
            let bills = "DELETE FROM usage WHERE (tenant_id, day, task_id, shard) IN (
                SELECT tenant_id, day, task_id, shard FROM usage WHERE day < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)";
            let bills = execute(c, bills, &[&day_number(keep.usage_since), &limit]).await?;
            let events = delete_events(c, keep, limit, &mut stored).await?;
            stored.write(&self.shared, c, Shard::Others).await?;
            Swept {
                events,
                runs: runs.len() as u64,
                logs: logs.len() as u64 + u64::from(in_pieces),
                skips,
                uploads,
                definitions: backfills + (triggers.len() + tasks.len()) as u64,
                of_tenants,
                audit,
                bills,
            }
        })
    }
}

/// Lines of logs that one step deletes.
const LINES: i64 = RETENTION_STEP_LINES as i64;

/// Deletes events: of each tenant the first, since an event is never older than the one before it. Whoever publishes
/// isn't waited for; another host that deletes the same is.
async fn delete_events(
    c: &impl GenericClient,
    keep: Keep,
    limit: i64,
    stored: &mut Stored,
) -> Result<u64, StoreError> {
    let held = At(keep.events_held_since.min(keep.events_since));
    let delete = "WITH old AS MATERIALIZED (
            SELECT e.tenant_id, e.sequence FROM event e WHERE e.at < $1 AND (e.at < $2
                OR NOT EXISTS (SELECT 1 FROM trigger g WHERE g.tenant_id = e.tenant_id AND g.state = 'active'
                    AND g.event_cursor IS NOT NULL AND g.event_cursor < e.sequence))
            ORDER BY e.at, e.sequence LIMIT $3),
        deleted AS (DELETE FROM event e USING old o WHERE e.tenant_id = o.tenant_id AND e.sequence = o.sequence
            RETURNING e.tenant_id, octet_length(e.data)::bigint AS bytes, e.at)
        SELECT tenant_id, count(*), sum(bytes + $4::bigint)::bigint, max(at) FROM deleted
        GROUP BY tenant_id ORDER BY tenant_id";
    let mut events = 0;
    let each = signed(STORED_BYTES_PER_EVENT);
    for found in rows(c, delete, &[&At(keep.events_since), &held, &limit, &each]).await? {
        let (tenant, count): (Uuid, i64) = (found.try_get(0)?, found.try_get(1)?);
        let expire = "UPDATE event_head SET expired_at = greatest(expired_at, $2) WHERE tenant_id = $1";
        execute(c, expire, &[&tenant, &At(found.try_get::<_, At>(3)?.0)]).await?;
        stored.add(TenantId(tenant), -found.try_get::<_, i64>(2)?);
        events += unsigned(count);
    }
    Ok(events)
}

/// Deletes runs that have no log any more, with their attempts.
pub(super) async fn delete_runs(
    c: &impl GenericClient,
    runs: &[Uuid],
    stored: &mut Stored,
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    execute(c, "DELETE FROM attempt WHERE run_id = ANY($1)", &[&runs]).await?;
    let delete = "WITH deleted AS (DELETE FROM run WHERE id = ANY($1) RETURNING tenant_id, input, output)
        SELECT tenant_id, sum($2::bigint + octet_length(input) + coalesce(octet_length(output), 0))::bigint
        FROM deleted GROUP BY tenant_id";
    for row in rows(c, delete, &[&runs, &signed(STORED_BYTES_PER_RUN)]).await? {
        stored.add(TenantId(row.try_get(0)?), -row.try_get::<_, i64>(1)?);
    }
    Ok(())
}

/// Deletes the logs of these runs, up to so many lines. Returns the runs that have none any more.
pub(super) async fn delete_lines(
    c: &impl GenericClient,
    runs: Vec<Uuid>,
    lines: &mut i64,
    stored: &mut Stored,
) -> Result<Vec<Uuid>, StoreError> {
    if runs.is_empty() || *lines == 0 {
        return Ok(Vec::new());
    }
    let deleted = rows(
        c,
        "WITH deleted AS (
             DELETE FROM run_log WHERE ctid = ANY(ARRAY(
                 SELECT l.ctid FROM unnest($1::uuid[]) AS o (id),
                     LATERAL (SELECT ctid FROM run_log WHERE run_id = o.id LIMIT $2) l LIMIT $2))
             RETURNING run_id, text)
         SELECT r.tenant_id, count(*), sum($3::bigint + octet_length(d.text))::bigint
         FROM deleted d JOIN run r ON r.id = d.run_id GROUP BY r.tenant_id",
        &[&runs, lines, &signed(STORED_BYTES_PER_LINE)],
    )
    .await?;
    for row in &deleted {
        *lines -= row.try_get::<_, i64>(1)?;
        stored.add(TenantId(row.try_get(0)?), -row.try_get::<_, i64>(2)?);
    }
    let rid = "SELECT o.id FROM unnest($1::uuid[]) AS o (id)
        WHERE NOT EXISTS (SELECT 1 FROM run_log l WHERE l.run_id = o.id)";
    ids(c, rid, &[&runs]).await
}

/// The ids that a query selects.
pub(super) async fn ids(
    c: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<Uuid>, StoreError> {
    let found = rows(c, sql, parameters).await?;
    found.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
