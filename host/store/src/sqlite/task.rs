//! Tasks in SQLite.

use super::cancel::{OF_TASK, cancel_unbegun};
use super::component::component;
use super::row::{At, Id, Json, Word, after_name, bad_token, limit, paged};
use super::{SqliteStore, audit, backfill, event_deliver, gate, secret, tenant};
use crate::gates::limits_differ;
use crate::record;
use crate::words::{is_followed, may_become};
use crate::{NewTask, OnGrowth, Page, Paged, QueuedRuns, StoreError, TaskStore};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::task::{Revision, Task, TaskPause, TaskSpec};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

#[async_trait]
impl TaskStore for SqliteStore {
    async fn task_create(&self, tenant: TenantId, task: NewTask, change: Change) -> Result<Task, StoreError> {
        let now = change.now;
        self.write(move |c| {
            if find(c, tenant, &task.name)?.is_some() {
                return Err(StoreError::Exists(format!("task `{}`", task.name)));
            }
            c.execute(
                "INSERT INTO task (id, tenant_id, name, revision, created_at) VALUES (?1, ?2, ?3, 1, ?4)",
                params![Id(task.id.0), Id(tenant.0), task.name.as_str(), At(now)],
            )?;
            revise(c, tenant, task.id, 1, &task.spec, None, now)?;
            let created = get(c, tenant, &task.name)?;
            put_on_record(c, &change, tenant, None, Some(&created))?;
            Ok(created)
        })
        .await
    }

    async fn task_update(
        &self,
        tenant: TenantId,
        name: &Name,
        spec: TaskSpec,
        expected: Option<u32>,
        growth: OnGrowth,
        by: Change,
    ) -> Result<Task, StoreError> {
        let now = by.now;
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let change = move |c: &Connection| {
            let task = get(c, tenant, &name)?;
            may_become(&task, &spec, expected, growth)?;
            revise(c, tenant, task.id, task.revision + 1, &spec, None, now)?;
            if limits_differ(&task.spec, &spec) {
                gate::regate_task(c, tenant, task.id)?;
            }
            let updated = get(c, tenant, &name)?;
            put_on_record(c, &by, tenant, Some(&task), Some(&updated))?;
            Ok(updated)
        };
        // Its limits may be wider now.
        self.writer.write(change, move |_| hints.runs_ready.notify_one()).await
    }

    async fn task_rollback(
        &self,
        tenant: TenantId,
        name: &Name,
        revision: u32,
        expected: Option<u32>,
        growth: OnGrowth,
        by: Change,
    ) -> Result<Task, StoreError> {
        let now = by.now;
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let change = move |c: &Connection| {
            let task = get(c, tenant, &name)?;
            let old = spec(c, task.id, revision)?
                .ok_or_else(|| StoreError::NotFound(format!("revision {revision} of task `{name}`")))?;
            may_become(&task, &old, expected, growth)?;
            revise(c, tenant, task.id, task.revision + 1, &old, Some(revision), now)?;
            if limits_differ(&task.spec, &old) {
                gate::regate_task(c, tenant, task.id)?;
            }
            let updated = get(c, tenant, &name)?;
            put_on_record(c, &by, tenant, Some(&task), Some(&updated))?;
            Ok(updated)
        };
        // Its limits may be wider now.
        self.writer.write(change, move |_| hints.runs_ready.notify_one()).await
    }

    async fn task_pause(
        &self,
        tenant: TenantId,
        name: &Name,
        note: String,
        queued: QueuedRuns,
        change: Change,
    ) -> Result<(Task, u64), StoreError> {
        let (now, name) = (change.now, name.clone());
        let hints = Arc::clone(&self.hints);
        let pause = move |c: &Connection| {
            let task = get(c, tenant, &name)?;
            c.execute(
                "UPDATE task SET paused_at = coalesce(paused_at, ?2), pause_note = ?3 WHERE id = ?1",
                params![Id(task.id.0), At(now), note],
            )?;
            let cancelled = match queued {
                QueuedRuns::Keep => Vec::new(),
                QueuedRuns::Cancel => cancel_unbegun(c, OF_TASK, task.id.0, now)?,
            };
            if task.paused.is_none() {
                gate::regate_task(c, tenant, task.id)?;
            }
            let paused = get(c, tenant, &name)?;
            put_on_record(c, &change, tenant, Some(&task), Some(&paused))?;
            Ok((paused, cancelled))
        };
        let wake = move |(_, cancelled): &(Task, Vec<RunId>)| {
            cancelled.iter().for_each(|run| hints.run_changed(*run));
        };
        let (task, cancelled) = self.writer.write(pause, wake).await?;
        Ok((task, cancelled.len() as u64))
    }

    async fn task_resume(&self, tenant: TenantId, name: &Name, change: Change) -> Result<Task, StoreError> {
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let resume = move |c: &Connection| {
            let task = get(c, tenant, &name)?;
            if task.paused.is_none() {
                return Ok(task);
            }
            resume(c, tenant, task.id)?;
            let resumed = get(c, tenant, &name)?;
            put_on_record(c, &change, tenant, Some(&task), Some(&resumed))?;
            Ok(resumed)
        };
        self.writer.write(resume, move |_| hints.runs_ready.notify_one()).await
    }

    async fn task_get(&self, tenant: TenantId, name: &Name) -> Result<Task, StoreError> {
        let name = name.clone();
        self.read(move |c| get(c, tenant, &name)).await
    }

    async fn task_list(
        &self,
        tenant: TenantId,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Task>, StoreError> {
        self.read(move |c| {
            let mut list = c.prepare_cached(&format!(
                "{SELECT} WHERE t.tenant_id = ?1 AND t.deleted_at IS NULL AND t.name > ?2
                     AND (?4 IS NULL OR t.name IN (SELECT value FROM json_each(?4))) ORDER BY t.name LIMIT ?3"
            ))?;
            let after = after_name(&page)?;
            let rows = list
                .query_map(params![Id(tenant.0), after, limit(&page), only.as_ref().map(Json)], read_task)?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Task| last.name.to_string()))
        })
        .await
    }

    async fn task_revisions(
        &self,
        tenant: TenantId,
        name: &Name,
        page: Page,
    ) -> Result<Paged<Revision>, StoreError> {
        let name = name.clone();
        self.read(move |c| {
            let task = get(c, tenant, &name)?;
            let before: u32 = match &page.after {
                None => u32::MAX,
                Some(token) => token.parse().map_err(|_| bad_token())?,
            };
            let mut list = c.prepare_cached(
                "SELECT number, spec, rollback_of, created_at FROM task_revision
                 WHERE task_id = ?1 AND number < ?2 ORDER BY number DESC LIMIT ?3",
            )?;
            let rows = list.query_map(params![Id(task.id.0), before, limit(&page)], |row| {
                Ok(Revision {
                    number: row.get(0)?,
                    spec: row.get::<_, Json<_>>(1)?.0,
                    rollback_of: row.get(2)?,
                    created_at: row.get::<_, At>(3)?.0,
                })
            })?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Revision| last.number.to_string()))
        })
        .await
    }

    async fn task_spec(&self, task: TaskId, revision: u32) -> Result<Arc<TaskSpec>, StoreError> {
        let key = (task, revision);
        if let Some(known) = self.specs.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(known));
        }
        let missing = || StoreError::Corrupt(format!("revision {revision} of task {task} is missing"));
        let found = self.read(move |c| spec(c, task, revision)).await?.ok_or_else(missing)?;
        let found = Arc::new(found);
        let mut known = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= super::SPECS_CACHED_MAX {
            known.clear();
        }
        known.insert(key, Arc::clone(&found));
        Ok(found)
    }

    async fn task_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<u64, StoreError> {
        let now = change.now;
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let cancelled = self
            .writer
            .write(
                move |c| {
                    let before = get(c, tenant, &name)?;
                    let task = before.id;
                    if let Some(trigger) = event_deliver::follower(c, task)? {
                        return Err(is_followed(&name, &trigger));
                    }
                    put_on_record(c, &change, tenant, Some(&before), None)?;
                    c.execute("UPDATE task SET deleted_at = ?2 WHERE id = ?1", params![Id(task.0), At(now)])?;
                    c.execute(
                        "UPDATE trigger SET deleted_at = ?2, state = 'finished', next_at = NULL, due_at = NULL
                         WHERE task_id = ?1 AND deleted_at IS NULL",
                        params![Id(task.0), At(now)],
                    )?;
                    backfill::end(c, backfill::OF_TASK, task.0, now)?;
                    let cancelled = cancel_unbegun(c, OF_TASK, task.0, now)?;
                    if before.paused.is_some() {
                        // What executes of it may be tried again.
                        resume(c, tenant, task)?;
                    }
                    Ok(cancelled)
                },
                move |cancelled| cancelled.iter().for_each(|run| hints.run_changed(*run)),
            )
            .await?;
        Ok(cancelled.len() as u64)
    }
}

fn resume(c: &Connection, tenant: TenantId, task: TaskId) -> Result<(), StoreError> {
    c.execute("UPDATE task SET paused_at = NULL, pause_note = '' WHERE id = ?1", [Id(task.0)])?;
    gate::regate_task(c, tenant, task)
}

const SELECT: &str =
    "SELECT t.id, t.name, t.revision, r.spec, t.created_at, r.created_at, t.paused_at, t.pause_note
    FROM task t JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision";

fn read_task(row: &Row) -> rusqlite::Result<Task> {
    Ok(Task {
        id: TaskId(row.get::<_, Id>(0)?.0),
        name: row.get::<_, Word<_>>(1)?.0,
        revision: row.get(2)?,
        spec: row.get::<_, Json<_>>(3)?.0,
        created_at: row.get::<_, At>(4)?.0,
        updated_at: row.get::<_, At>(5)?.0,
        paused: match row.get::<_, Option<At>>(6)? {
            Some(at) => Some(TaskPause { note: row.get(7)?, at: at.0 }),
            None => None,
        },
    })
}

fn find(c: &Connection, tenant: TenantId, name: &Name) -> Result<Option<Task>, StoreError> {
    let mut get = c.prepare_cached(&format!(
        "{SELECT} WHERE t.tenant_id = ?1 AND t.name = ?2 AND t.deleted_at IS NULL"
    ))?;
    Ok(get.query_row(params![Id(tenant.0), name.as_str()], read_task).optional()?)
}

/// The tenant's task of that name.
pub(super) fn get(c: &Connection, tenant: TenantId, name: &Name) -> Result<Task, StoreError> {
    find(c, tenant, name)?.ok_or_else(|| StoreError::NotFound(format!("task `{name}`")))
}

/// What a revision says that a run is pinned to.
pub(super) fn pinned(c: &Connection, task: TaskId, revision: u32) -> Result<TaskSpec, StoreError> {
    let missing = || StoreError::Corrupt(format!("revision {revision} of task {task} is missing"));
    spec(c, task, revision)?.ok_or_else(missing)
}

fn spec(c: &Connection, task: TaskId, revision: u32) -> Result<Option<TaskSpec>, StoreError> {
    let mut get = c.prepare_cached("SELECT spec FROM task_revision WHERE task_id = ?1 AND number = ?2")?;
    let spec = get.query_row(params![Id(task.0), revision], |row| Ok(row.get::<_, Json<_>>(0)?.0));
    Ok(spec.optional()?)
}

fn put_on_record(
    c: &Connection,
    change: &Change,
    tenant: TenantId,
    before: Option<&Task>,
    after: Option<&Task>,
) -> Result<(), StoreError> {
    let object = || before.or(after).map(|task| format!("task `{}`", task.name)).unwrap_or_default();
    let show = |task: Option<&Task>| task.map_or(Value::Null, record::task);
    audit::record(c, change, Some(tenant), object, || (show(before), show(after)))
}

fn revise(
    c: &Connection,
    tenant: TenantId,
    task: TaskId,
    number: u32,
    spec: &TaskSpec,
    rollback_of: Option<u32>,
    now: Timestamp,
) -> Result<(), StoreError> {
    component(c, tenant, &spec.component.to_string())?;
    secret::check(c, tenant, spec.secrets.values())?;
    tenant::by_id(c, tenant)?.quotas.check(Quota::RunMemory, 0, spec.memory)?;
    c.execute(
        "INSERT INTO task_revision (task_id, number, component, spec, rollback_of, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![Id(task.0), number, spec.component.0, Json(spec), rollback_of, At(now)],
    )?;
    c.execute("UPDATE task SET revision = ?2 WHERE id = ?1", params![Id(task.0), number])?;
    Ok(())
}
