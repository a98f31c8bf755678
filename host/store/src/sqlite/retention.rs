//! Clearing away what is old, in SQLite.

use super::SqliteStore;
use super::component::is_unused;
use super::row::{At, Id, signed};
use super::{log, output, quota, retention_tenant, upload};
use crate::{Keep, RetentionStore, StoreError, Swept};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::bill::day_number;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::{AuditId, RunId, TenantId};
use innkeeper_domain::limits::{
    RETENTION_STEP_LINES, STORED_BYTES_PER_EVENT, STORED_BYTES_PER_LINE, STORED_BYTES_PER_RUN,
};
use rusqlite::{Connection, OptionalExtension, Params, params};
use uuid::Uuid;

/// Lines of logs that one step deletes.
const LINES: i64 = RETENTION_STEP_LINES as i64;

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn retention_step(&self, keep: Keep, limit: usize) -> Result<Swept, StoreError> {
        self.sweep_files(limit).await?;
        let most = limit as u64;
        let limit = signed(most);
        // What there is to do is looked for by a reader: the writer has better things to do.
        let found = self.read(move |c| find(c, keep, limit)).await?;
        if found == Found::default() {
            return Ok(Swept::default());
        }
        self.write(move |c| sweep(c, &found, keep, most)).await
    }
}

impl SqliteStore {
    /// Removes files that nobody names: their component was deleted while a run still needed it, or the process
    /// ended in between.
    async fn sweep_files(&self, limit: usize) -> Result<(), StoreError> {
        let files = self.files.clone();
        let digests = tokio::task::spawn_blocking(move || files.digests());
        let digests = digests.await.map_err(|e| StoreError::Unavailable(e.to_string()))??;
        let find = move |c: &Connection| {
            let mut unused = Vec::new();
            for digest in digests {
                if unused.len() < limit && is_unused(c, digest)? {
                    unused.push(digest);
                }
            }
            Ok(unused)
        };
        let unused = self.read(find).await?;
        if unused.is_empty() {
            return Ok(());
        }
        let files = self.files.clone();
        // By the writer, which looks again: an upload whose file is there has its row inserted by it, and writes
        // the file once more if it is gone by then.
        let remove = move |c: &Connection| {
            for digest in unused {
                if is_unused(c, digest)? {
                    files.remove(digest)?;
                }
            }
            Ok(())
        };
        self.write(remove).await
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    runs: Vec<Uuid>,
    logs: Vec<Uuid>,
    skips: Vec<i64>,
    uploads: Vec<(Uuid, [u8; 32])>,
    backfills: Vec<Uuid>,
    triggers: Vec<Uuid>,
    tasks: Vec<Uuid>,
    tenants: Vec<Uuid>,
    audit: Vec<Uuid>,
    bills: Vec<BillRow>,
    events: Vec<(Uuid, i64)>,
}

/// The key of a bill's row.
type BillRow = (Uuid, i64, Uuid, i64);

/// A run that is over and old.
const RUN_OVER: &str = "state IN ('succeeded', 'failed', 'cancelled') AND finished_at < ?2";
/// Triggers and tasks that were deleted and that nothing names any more.
pub(super) const TRIGGER_OVER: &str = "deleted_at < ?1
    AND NOT EXISTS (SELECT 1 FROM run r WHERE r.trigger_id = trigger.id)
    AND NOT EXISTS (SELECT 1 FROM skip s WHERE s.trigger_id = trigger.id)
    AND NOT EXISTS (SELECT 1 FROM backfill b WHERE b.trigger_id = trigger.id)";
/// Backfills that are over, with all of their runs.
pub(super) const BACKFILLS: &str =
    "SELECT id FROM backfill WHERE finished_at < ?1 AND unfinished = 0 LIMIT ?2";
pub(super) const TASK_OVER: &str = "deleted_at < ?1
    AND NOT EXISTS (SELECT 1 FROM run r WHERE r.task_id = task.id)
    AND NOT EXISTS (SELECT 1 FROM trigger g WHERE g.task_id = task.id)";
pub(super) const BILLS: &str = "SELECT tenant_id, day, task_id, shard FROM usage WHERE day < ?1 LIMIT ?2";
pub(super) const SKIPS: &str = "SELECT id FROM skip WHERE last_at < ?1 ORDER BY last_at LIMIT ?2";

/// Of each tenant the first, since an event is never older than the one before it.
pub(super) const EVENTS: &str = "SELECT e.tenant_id, e.sequence FROM event e WHERE e.at < ?1 AND (e.at < ?2
        OR NOT EXISTS (SELECT 1 FROM trigger g WHERE g.tenant_id = e.tenant_id AND g.state = 'active'
            AND g.event_cursor IS NOT NULL AND g.event_cursor < e.sequence))
    ORDER BY e.at, e.sequence LIMIT ?3";

fn find(c: &Connection, keep: Keep, limit: i64) -> Result<Found, StoreError> {
    // Ids are in the order of creation, and what was created later hasn't ended before.
    let runs = ids(
        c,
        &format!("SELECT id FROM run WHERE id < ?1 AND {RUN_OVER} ORDER BY id LIMIT ?3"),
        params![Id(RunId::first(keep.runs_since).0), At(keep.runs_since), limit],
    )?;
    // No more pieces are looked at than lines can be deleted.
    let logs = ids(
        c,
        &format!(
            "SELECT DISTINCT run_id FROM (
                 SELECT l.run_id FROM log_piece l JOIN run r ON r.id = l.run_id
                 WHERE l.run_id < ?1 AND {RUN_OVER} ORDER BY l.run_id LIMIT ?4)
             ORDER BY run_id LIMIT ?3"
        ),
        params![Id(RunId::first(keep.logs_since).0), At(keep.logs_since), limit, LINES],
    )?;
    let select = |table: &str, over: &str| {
        let select = format!("SELECT id FROM {table} WHERE {over} LIMIT ?2");
        ids(c, &select, params![At(keep.runs_since), limit])
    };
    let backfills = ids(c, BACKFILLS, params![At(keep.runs_since), limit])?;
    let (triggers, tasks) = (select("trigger", TRIGGER_OVER)?, select("task", TASK_OVER)?);
    let mut skips = c.prepare_cached(SKIPS)?;
    let skips = skips.query_map(params![At(keep.skips_since), limit], |row| row.get(0))?;
    let mut uploads =
        c.prepare_cached("SELECT tenant_id, digest FROM upload WHERE changed_at < ?1 LIMIT ?2")?;
    let uploads = uploads
        .query_map(params![At(keep.uploads_since), limit], |row| Ok((row.get::<_, Id>(0)?.0, row.get(1)?)))?;
    let tenants = ids(c, retention_tenant::DELETED, [])?;
    let audit = ids(
        c,
        "SELECT id FROM audit WHERE id < ?1 ORDER BY id LIMIT ?2",
        params![Id(AuditId::first(keep.audit_since).0), limit],
    )?;
    let mut bills = c.prepare_cached(BILLS)?;
    let bills = bills.query_map(params![day_number(keep.usage_since), limit], |row| {
        Ok((row.get::<_, Id>(0)?.0, row.get(1)?, row.get::<_, Id>(2)?.0, row.get(3)?))
    })?;
    let mut events = c.prepare_cached(EVENTS)?;
    let held = At(keep.events_held_since.min(keep.events_since));
    let events = events.query_map(params![At(keep.events_since), held, limit], |row| {
        Ok((row.get::<_, Id>(0)?.0, row.get(1)?))
    })?;
    Ok(Found {
        events: events.collect::<Result<_, _>>()?,
        runs,
        logs,
        skips: skips.collect::<Result<_, _>>()?,
        uploads: uploads.collect::<Result<_, _>>()?,
        backfills,
        triggers,
        tasks,
        tenants,
        audit,
        bills: bills.collect::<Result<_, _>>()?,
    })
}

/// The ids that a query selects.
pub(super) fn ids(c: &Connection, sql: &str, parameters: impl Params) -> Result<Vec<Uuid>, StoreError> {
    let mut list = c.prepare_cached(sql)?;
    let rows = list.query_map(parameters, |row| Ok(row.get::<_, Id>(0)?.0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes what was found, as far as it is still so: it may have changed since.
fn sweep(c: &Connection, found: &Found, keep: Keep, most: u64) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    let mut lines = LINES;
    for run in &found.runs {
        if is_over(c, *run, keep.runs_since)? {
            swept.runs += delete_run(c, *run, &mut lines)?;
        }
    }
    for run in &found.logs {
        // Those that went with their runs just now are none.
        if is_over(c, *run, keep.logs_since)? && delete_lines(c, *run, &mut lines)? {
            swept.logs += 1;
        }
    }
    if lines <= 0 && swept == Swept::default() {
        swept.logs = 1;
    }
    // What is over stays so.
    let mut delete = c.prepare_cached("DELETE FROM backfill WHERE id = ?1")?;
    for backfill in &found.backfills {
        swept.definitions += delete.execute([Id(*backfill)])? as u64;
    }
    let mut delete = c.prepare_cached(&format!("DELETE FROM trigger WHERE id = ?2 AND {TRIGGER_OVER}"))?;
    for trigger in &found.triggers {
        swept.definitions += delete.execute(params![At(keep.runs_since), Id(*trigger)])? as u64;
    }
    let mut is_task_over = c.prepare_cached(&format!("SELECT 1 FROM task WHERE id = ?2 AND {TASK_OVER}"))?;
    for task in &found.tasks {
        if is_task_over.exists(params![At(keep.runs_since), Id(*task)])? {
            c.prepare_cached("DELETE FROM gate WHERE owner = ?1")?.execute([Id(*task)])?;
            c.prepare_cached("DELETE FROM task_revision WHERE task_id = ?1")?.execute([Id(*task)])?;
            swept.definitions +=
                c.prepare_cached("DELETE FROM task WHERE id = ?1")?.execute([Id(*task)])? as u64;
        }
    }
    // A range of skips grows as long as nothing else comes.
    let mut forget = c.prepare_cached("DELETE FROM skip WHERE id = ?1 AND last_at < ?2")?;
    for id in &found.skips {
        swept.skips += forget.execute(params![id, At(keep.skips_since)])? as u64;
    }
    let mut is_old =
        c.prepare_cached("SELECT 1 FROM upload WHERE tenant_id = ?1 AND digest = ?2 AND changed_at < ?3")?;
    for (tenant, digest) in &found.uploads {
        if is_old.exists(params![Id(*tenant), digest, At(keep.uploads_since)])? {
            upload::end(c, TenantId(*tenant), Digest(*digest))?;
            swept.uploads += 1;
        }
    }
    for tenant in &found.tenants {
        let room = most - swept.of_tenants;
        if room > 0 && lines > 0 {
            swept.of_tenants += retention_tenant::sweep(c, *tenant, room, &mut lines)?;
        }
    }
    let mut forget = c.prepare_cached("DELETE FROM audit WHERE id = ?1")?;
    for id in &found.audit {
        swept.audit += forget.execute([Id(*id)])? as u64;
    }
    let mut forget = c.prepare_cached(
        "DELETE FROM usage WHERE tenant_id = ?1 AND day = ?2 AND task_id = ?3 AND shard = ?4",
    )?;
    for (tenant, day, task, shard) in &found.bills {
        swept.bills += forget.execute(params![Id(*tenant), day, Id(*task), shard])? as u64;
    }
    for (tenant, sequence) in &found.events {
        swept.events += delete_event(c, *tenant, *sequence)?;
    }
    Ok(swept)
}

/// Deletes an event, if it is there; how many that were.
fn delete_event(c: &Connection, tenant: Uuid, sequence: i64) -> Result<u64, StoreError> {
    let mut delete = c.prepare_cached(
        "DELETE FROM event WHERE tenant_id = ?1 AND sequence = ?2 RETURNING octet_length(data), at",
    )?;
    let deleted = delete
        .query_row(params![Id(tenant), sequence], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, At>(1)?)));
    let Some((bytes, at)) = deleted.optional()? else { return Ok(0) };
    c.prepare_cached("UPDATE event_head SET expired_at = ?2 WHERE tenant_id = ?1")?
        .execute(params![Id(tenant), at])?;
    quota::store(c, TenantId(tenant), -(bytes + signed(STORED_BYTES_PER_EVENT)))?;
    Ok(1)
}

fn is_over(c: &Connection, run: Uuid, since: Timestamp) -> Result<bool, StoreError> {
    let mut get = c.prepare_cached(&format!("SELECT 1 FROM run WHERE id = ?1 AND {RUN_OVER}"))?;
    Ok(get.exists(params![Id(run), At(since)])?)
}

/// Deletes a run with its attempts, if there is room for all lines of its log; else a part of these. How many runs
/// that were.
pub(super) fn delete_run(c: &Connection, run: Uuid, lines: &mut i64) -> Result<u64, StoreError> {
    if !delete_lines(c, run, lines)? {
        return Ok(0);
    }
    c.prepare_cached("DELETE FROM attempt WHERE run_id = ?1")?.execute([Id(run)])?;
    let further = output::delete_further(c, RunId(run))?;
    let mut delete = c.prepare_cached(
        "DELETE FROM run WHERE id = ?1
         RETURNING tenant_id, octet_length(input) + coalesce(octet_length(output), 0)",
    )?;
    let deleted = delete.query_row([Id(run)], |row| Ok((row.get::<_, Id>(0)?.0, row.get::<_, i64>(1)?)));
    let Some((tenant, bytes)) = deleted.optional()? else { return Ok(0) };
    quota::store(c, TenantId(tenant), -(bytes + further + signed(STORED_BYTES_PER_RUN)))?;
    Ok(1)
}

/// Deletes the run's log, about so many lines of it at the most. Whether it has none any more.
fn delete_lines(c: &Connection, run: Uuid, lines: &mut i64) -> Result<bool, StoreError> {
    let (count, bytes) = log::delete(c, RunId(run), *lines)?;
    if count > 0 {
        let bytes = bytes + count * signed(STORED_BYTES_PER_LINE);
        let of = "SELECT tenant_id FROM run WHERE id = ?1";
        let tenant = c.prepare_cached(of)?.query_row([Id(run)], |row| Ok(row.get::<_, Id>(0)?.0))?;
        quota::store(c, TenantId(tenant), -bytes)?;
    }
    *lines -= count;
    Ok(*lines > 0)
}
