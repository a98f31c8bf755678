//! Clearing away what is old, in SQLite.

use super::SqliteStore;
use super::row::{At, Id, signed};
use super::upload;
use crate::{Keep, RetentionStore, StoreError, Swept};
use async_trait::async_trait;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::{RunId, TenantId};
use rusqlite::{Connection, Params, params};

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn retention_step(&self, keep: Keep, limit: usize) -> Result<Swept, StoreError> {
        let limit = signed(limit as u64);
        // What there is to do is looked for by a reader: the writer has better things to do.
        let found = self.read(move |c| find(c, keep, limit)).await?;
        if found == Found::default() {
            return Ok(Swept::default());
        }
        self.write(move |c| sweep(c, &found)).await
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    runs: Vec<uuid::Uuid>,
    logs: Vec<uuid::Uuid>,
    skips: Vec<i64>,
    uploads: Vec<(uuid::Uuid, [u8; 32])>,
    triggers: Vec<uuid::Uuid>,
    tasks: Vec<uuid::Uuid>,
}

fn find(c: &Connection, keep: Keep, limit: i64) -> Result<Found, StoreError> {
    // Ids are in the order of creation, and what was created later hasn't ended before.
    let runs = ids(
        c,
        "SELECT id FROM run WHERE id < ?1 AND state IN ('succeeded', 'failed', 'cancelled') AND finished_at < ?2
         ORDER BY id LIMIT ?3",
        params![Id(RunId::first(keep.runs_since).0), At(keep.runs_since), limit],
    )?;
    let logs = ids(
        c,
        "SELECT DISTINCT l.run_id FROM run_log l JOIN run r ON r.id = l.run_id
         WHERE l.run_id < ?1 AND r.state IN ('succeeded', 'failed', 'cancelled') AND r.finished_at < ?2
         ORDER BY l.run_id LIMIT ?3",
        params![Id(RunId::first(keep.logs_since).0), At(keep.logs_since), limit],
    )?;
    let triggers = ids(
        c,
        "SELECT g.id FROM trigger g WHERE g.deleted_at < ?1
         AND NOT EXISTS (SELECT 1 FROM run r WHERE r.trigger_id = g.id)
         AND NOT EXISTS (SELECT 1 FROM skip s WHERE s.trigger_id = g.id) LIMIT ?2",
        params![At(keep.runs_since), limit],
    )?;
    let tasks = ids(
        c,
        "SELECT t.id FROM task t WHERE t.deleted_at < ?1 AND NOT EXISTS (SELECT 1 FROM run r WHERE r.task_id = t.id)
         AND NOT EXISTS (SELECT 1 FROM trigger g WHERE g.task_id = t.id) LIMIT ?2",
        params![At(keep.runs_since), limit],
    )?;
    let mut skips = c.prepare_cached("SELECT id FROM skip WHERE last_at < ?1 ORDER BY id LIMIT ?2")?;
    let skips = skips.query_map(params![At(keep.skips_since), limit], |row| row.get(0))?;
    let mut uploads =
        c.prepare_cached("SELECT tenant_id, digest FROM upload WHERE changed_at < ?1 LIMIT ?2")?;
    let uploads = uploads
        .query_map(params![At(keep.uploads_since), limit], |row| Ok((row.get::<_, Id>(0)?.0, row.get(1)?)))?;
    Ok(Found {
        runs,
        logs,
        skips: skips.collect::<Result<_, _>>()?,
        uploads: uploads.collect::<Result<_, _>>()?,
        triggers,
        tasks,
    })
}

fn ids(c: &Connection, sql: &str, parameters: impl Params) -> Result<Vec<uuid::Uuid>, StoreError> {
    let mut list = c.prepare_cached(sql)?;
    let rows = list.query_map(parameters, |row| Ok(row.get::<_, Id>(0)?.0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn sweep(c: &Connection, found: &Found) -> Result<Swept, StoreError> {
    let delete = |sql: &str, ids: &[uuid::Uuid]| {
        let mut delete = c.prepare_cached(sql)?;
        ids.iter().try_fold(0, |sum, id| Ok::<_, StoreError>(sum + delete.execute([Id(*id)])? as u64))
    };
    delete("DELETE FROM run_log WHERE run_id = ?1", &found.runs)?;
    delete("DELETE FROM attempt WHERE run_id = ?1", &found.runs)?;
    let runs = delete("DELETE FROM run WHERE id = ?1", &found.runs)?;
    delete("DELETE FROM run_log WHERE run_id = ?1", &found.logs)?;
    let triggers = delete("DELETE FROM trigger WHERE id = ?1", &found.triggers)?;
    delete("DELETE FROM task_revision WHERE task_id = ?1", &found.tasks)?;
    let tasks = delete("DELETE FROM task WHERE id = ?1", &found.tasks)?;
    let mut forget = c.prepare_cached("DELETE FROM skip WHERE id = ?1")?;
    let mut skips = 0;
    for id in &found.skips {
        skips += forget.execute([id])? as u64;
    }
    for (tenant, digest) in &found.uploads {
        upload::end(c, TenantId(*tenant), Digest(*digest))?;
    }
    Ok(Swept {
        runs,
        logs: found.logs.len() as u64,
        skips,
        uploads: found.uploads.len() as u64,
        definitions: triggers + tasks,
    })
}
