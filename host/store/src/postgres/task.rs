//! Tasks in PostgreSQL.

use super::cancel::{OF_TASK, cancel_unbegun};
use super::component::hold;
use super::connection::{in_transaction, reading};
use super::row::{At, Json, Small, Word, after_name, bad_token, execute, limit, paged, row, rows, text};
use super::{PostgresStore, SPECS_CACHED_MAX, Shared, audit, backfill, event_deliver, gate, secret, tenant};
use crate::gates::limits_differ;
use crate::record;
use crate::words::{is_followed, may_become};
use crate::{NewTask, OnGrowth, Page, Paged, QueuedRuns, StoreError, TaskStore};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::{TaskId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::task::{Revision, Task, TaskPause, TaskSpec};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use tokio_postgres::Row;

#[async_trait]
impl TaskStore for PostgresStore {
    async fn task_create(&self, tenant: TenantId, task: NewTask, change: Change) -> Result<Task, StoreError> {
        let now = change.now;
        in_transaction!(&self.shared.pool, |c| {
            // A task that a suspension didn't lock must not start anything as the tenant stood before.
            tenant::hold(c, tenant).await?;
            let inserted = execute(
                c,
                "INSERT INTO task (id, tenant_id, name, revision, created_at) VALUES ($1, $2, $3, 1, $4)
                 ON CONFLICT DO NOTHING",
                &[&task.id.0, &tenant.0, &task.name.as_str(), &At(now)],
            )
            .await?;
            if inserted == 0 {
                return Err(StoreError::Exists(format!("task `{}`", task.name)));
            }
            revise(c, tenant, task.id, 1, &task.spec, None, now).await?;
            let created = get(c, tenant, &task.name).await?;
            put_on_record(c, &change, tenant, None, Some(&created)).await?;
            created
        })
    }

    async fn task_update(
        &self,
        tenant: TenantId,
        name: &Name,
        spec: TaskSpec,
        expected: Option<u32>,
        growth: OnGrowth,
        change: Change,
    ) -> Result<Task, StoreError> {
        let now = change.now;
        let updated = in_transaction!(&self.shared.pool, |c| {
            if limits_differ(&get(c, tenant, name).await?.spec, &spec) {
                gate::lock_executing(c, tenant, name).await?;
            }
            let (task, revision) = lock(c, tenant, name, "NO KEY UPDATE").await?;
            let before = get(c, tenant, name).await?;
            may_become(&before, &spec, expected, growth)?;
            revise(c, tenant, task, revision + 1, &spec, None, now).await?;
            if limits_differ(&before.spec, &spec) {
                gate::regate_task(c, tenant, task).await?;
            }
            let updated = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), Some(&updated)).await?;
            updated
        })?;
        // Its limits may be wider now.
        self.shared.wakes.runs_ready();
        Ok(updated)
    }

    async fn task_rollback(
        &self,
        tenant: TenantId,
        name: &Name,
        to: u32,
        expected: Option<u32>,
        growth: OnGrowth,
        change: Change,
    ) -> Result<Task, StoreError> {
        let now = change.now;
        let updated = in_transaction!(&self.shared.pool, |c| {
            gate::lock_executing(c, tenant, name).await?;
            let (task, revision) = lock(c, tenant, name, "NO KEY UPDATE").await?;
            let missing = || StoreError::NotFound(format!("revision {to} of task `{name}`"));
            let old = spec(c, task, to).await?.ok_or_else(missing)?;
            let before = get(c, tenant, name).await?;
            may_become(&before, &old, expected, growth)?;
            revise(c, tenant, task, revision + 1, &old, Some(to), now).await?;
            if limits_differ(&before.spec, &old) {
                gate::regate_task(c, tenant, task).await?;
            }
            let updated = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), Some(&updated)).await?;
            updated
        })?;
        // Its limits may be wider now.
        self.shared.wakes.runs_ready();
        Ok(updated)
    }

    async fn task_pause(
        &self,
        tenant: TenantId,
        name: &Name,
        note: String,
        queued: QueuedRuns,
        change: Change,
    ) -> Result<(Task, u64), StoreError> {
        let now = change.now;
        let (paused, cancelled) = in_transaction!(&self.shared.pool, |c| {
            gate::lock_executing(c, tenant, name).await?;
            let (task, _) = lock(c, tenant, name, "NO KEY UPDATE").await?;
            let before = get(c, tenant, name).await?;
            let pause = "UPDATE task SET paused_at = coalesce(paused_at, $2), pause_note = $3 WHERE id = $1";
            execute(c, pause, &[&task.0, &At(now), &text(&note)]).await?;
            let cancelled = match queued {
                QueuedRuns::Keep => Vec::new(),
                QueuedRuns::Cancel => cancel_unbegun(&self.shared, c, OF_TASK, task.0, now).await?,
            };
            if before.paused.is_none() {
                gate::regate_task(c, tenant, task).await?;
            }
            let paused = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), Some(&paused)).await?;
            (paused, cancelled)
        })?;
        let count = cancelled.len() as u64;
        self.shared.wakes.runs_changed(cancelled);
        Ok((paused, count))
    }

    async fn task_resume(&self, tenant: TenantId, name: &Name, change: Change) -> Result<Task, StoreError> {
        let task = in_transaction!(&self.shared.pool, |c| {
            gate::lock_executing(c, tenant, name).await?;
            let (task, _) = lock(c, tenant, name, "NO KEY UPDATE").await?;
            let before = get(c, tenant, name).await?;
            if before.paused.is_some() {
                resume(c, tenant, task).await?;
                let resumed = get(c, tenant, name).await?;
                put_on_record(c, &change, tenant, Some(&before), Some(&resumed)).await?;
                resumed
            } else {
                before
            }
        })?;
        self.shared.wakes.runs_ready();
        Ok(task)
    }

    async fn task_get(&self, tenant: TenantId, name: &Name) -> Result<Task, StoreError> {
        reading!(&self.shared.pool, |c| get(c, tenant, name).await?)
    }

    async fn task_list(
        &self,
        tenant: TenantId,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Task>, StoreError> {
        let only: Option<Vec<&str>> = only.as_ref().map(|only| only.iter().map(Name::as_str).collect());
        reading!(&self.shared.pool, |c| {
            let list = format!(
                "{SELECT} WHERE t.tenant_id = $1 AND t.deleted_at IS NULL AND t.name > $2
                     AND ($4::text[] IS NULL OR t.name = ANY($4)) ORDER BY t.name LIMIT $3"
            );
            let after = after_name(&page)?;
            let rows = rows(c, &list, &[&tenant.0, &after, &limit(&page), &only]).await?;
            let rows = rows.iter().map(read_task).collect::<Result<_, _>>()?;
            paged(rows, &page, |last: &Task| last.name.to_string())
        })
    }

    async fn task_revisions(
        &self,
        tenant: TenantId,
        name: &Name,
        page: Page,
    ) -> Result<Paged<Revision>, StoreError> {
        let before: u32 = match &page.after {
            None => u32::MAX,
            Some(token) => token.parse().map_err(|_| bad_token())?,
        };
        reading!(&self.shared.pool, |c| {
            let task = get(c, tenant, name).await?;
            let rows = rows(
                c,
                "SELECT number, spec, rollback_of, created_at FROM task_revision
                 WHERE task_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
                &[&task.id.0, &Small(before), &limit(&page)],
            )
            .await?;
            let read = |row: &Row| {
                Ok::<_, StoreError>(Revision {
                    number: row.try_get::<_, Small>(0)?.0,
                    spec: row.try_get::<_, Json<_>>(1)?.0,
                    rollback_of: row.try_get::<_, Option<Small>>(2)?.map(|number| number.0),
                    created_at: row.try_get::<_, At>(3)?.0,
                })
            };
            let rows = rows.iter().map(read).collect::<Result<_, _>>()?;
            paged(rows, &page, |last: &Revision| last.number.to_string())
        })
    }

    async fn task_spec(&self, task: TaskId, revision: u32) -> Result<Arc<TaskSpec>, StoreError> {
        if let Some(known) = self.shared.known_spec(task, revision) {
            return Ok(known);
        }
        reading!(&self.shared.pool, |c| self.shared.spec(c, task, revision).await?)
    }

    async fn task_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<u64, StoreError> {
        let now = change.now;
        let cancelled = in_transaction!(&self.shared.pool, |c| {
            if get(c, tenant, name).await?.paused.is_some() {
                gate::lock_executing(c, tenant, name).await?;
            }
            let (task, _) = lock(c, tenant, name, "NO KEY UPDATE").await?;
            if let Some(trigger) = event_deliver::follower(c, task).await? {
                return Err(is_followed(name, &trigger));
            }
            let before = get(c, tenant, name).await?;
            put_on_record(c, &change, tenant, Some(&before), None).await?;
            execute(c, "UPDATE task SET deleted_at = $2 WHERE id = $1", &[&task.0, &At(now)]).await?;
            execute(
                c,
                "WITH locked AS MATERIALIZED (SELECT id FROM trigger WHERE task_id = $1 AND deleted_at IS NULL
                     ORDER BY id FOR NO KEY UPDATE)
                 UPDATE trigger g SET deleted_at = $2, state = 'finished', next_at = NULL, due_at = NULL FROM locked l
                 WHERE g.id = l.id",
                &[&task.0, &At(now)],
            )
            .await?;
            backfill::end(c, backfill::OF_TASK, task.0, now).await?;
            let cancelled = cancel_unbegun(&self.shared, c, OF_TASK, task.0, now).await?;
            if before.paused.is_some() {
                // What executes of it may be tried again.
                resume(c, tenant, task).await?;
            }
            cancelled
        })?;
        let count = cancelled.len() as u64;
        self.shared.wakes.runs_changed(cancelled);
        Ok(count)
    }
}

async fn resume(c: &impl GenericClient, tenant: TenantId, task: TaskId) -> Result<(), StoreError> {
    execute(c, "UPDATE task SET paused_at = NULL, pause_note = '' WHERE id = $1", &[&task.0]).await?;
    gate::regate_task(c, tenant, task).await
}

const SELECT: &str =
    "SELECT t.id, t.name, t.revision, r.spec, t.created_at, r.created_at, t.paused_at, t.pause_note
    FROM task t JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision";

fn read_task(row: &Row) -> Result<Task, StoreError> {
    Ok(Task {
        id: TaskId(row.try_get(0)?),
        name: row.try_get::<_, Word<_>>(1)?.0,
        revision: row.try_get::<_, Small>(2)?.0,
        spec: row.try_get::<_, Json<_>>(3)?.0,
        created_at: row.try_get::<_, At>(4)?.0,
        updated_at: row.try_get::<_, At>(5)?.0,
        paused: match row.try_get::<_, Option<At>>(6)? {
            Some(at) => Some(TaskPause { note: row.try_get(7)?, at: at.0 }),
            None => None,
        },
    })
}

/// The tenant's task of that name.
pub(super) async fn get(c: &impl GenericClient, tenant: TenantId, name: &Name) -> Result<Task, StoreError> {
    let get = format!("{SELECT} WHERE t.tenant_id = $1 AND t.name = $2 AND t.deleted_at IS NULL");
    match row(c, &get, &[&tenant.0, &name.as_str()]).await? {
        Some(found) => read_task(&found),
        None => Err(StoreError::NotFound(format!("task `{name}`"))),
    }
}

/// Locks the tenant's task of that name, as `FOR` says, and tells its current revision.
pub(super) async fn lock(
    c: &impl GenericClient,
    tenant: TenantId,
    name: &Name,
    strength: &'static str,
) -> Result<(TaskId, u32), StoreError> {
    let lock = format!(
        "SELECT id, revision FROM task WHERE tenant_id = $1 AND name = $2 AND deleted_at IS NULL FOR {strength}"
    );
    let found = row(c, &lock, &[&tenant.0, &name.as_str()]).await?;
    let found = found.ok_or_else(|| StoreError::NotFound(format!("task `{name}`")))?;
    Ok((TaskId(found.try_get(0)?), found.try_get::<_, Small>(1)?.0))
}

impl Shared {
    fn known_spec(&self, task: TaskId, revision: u32) -> Option<Arc<TaskSpec>> {
        self.specs.lock().unwrap_or_else(PoisonError::into_inner).get(&(task, revision)).cloned()
    }

    /// What a revision says, from memory if it is known.
    pub(super) async fn spec(
        &self,
        c: &impl GenericClient,
        task: TaskId,
        revision: u32,
    ) -> Result<Arc<TaskSpec>, StoreError> {
        if let Some(known) = self.known_spec(task, revision) {
            return Ok(known);
        }
        let missing = || StoreError::Corrupt(format!("revision {revision} of task {task} is missing"));
        let found = Arc::new(spec(c, task, revision).await?.ok_or_else(missing)?);
        let mut known = self.specs.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SPECS_CACHED_MAX {
            known.clear();
        }
        known.insert((task, revision), Arc::clone(&found));
        Ok(found)
    }
}

async fn spec(c: &impl GenericClient, task: TaskId, revision: u32) -> Result<Option<TaskSpec>, StoreError> {
    let get = "SELECT spec FROM task_revision WHERE task_id = $1 AND number = $2";
    match row(c, get, &[&task.0, &Small(revision)]).await? {
        Some(found) => Ok(Some(found.try_get::<_, Json<_>>(0)?.0)),
        None => Ok(None),
    }
}

async fn put_on_record(
    c: &impl GenericClient,
    change: &Change,
    tenant: TenantId,
    before: Option<&Task>,
    after: Option<&Task>,
) -> Result<(), StoreError> {
    let object = before.or(after).map(|task| format!("task `{}`", task.name)).unwrap_or_default();
    let show = |task: Option<&Task>| task.map_or(Value::Null, record::task);
    audit::record(c, change, Some(tenant), object, (show(before), show(after))).await
}

async fn revise(
    c: &impl GenericClient,
    tenant: TenantId,
    task: TaskId,
    number: u32,
    spec: &TaskSpec,
    rollback_of: Option<u32>,
    now: Timestamp,
) -> Result<(), StoreError> {
    hold(c, tenant, spec.component).await?;
    secret::check(c, tenant, spec.secrets.values()).await?;
    tenant::by_id(c, tenant).await?.quotas.check(Quota::RunMemory, 0, spec.memory)?;
    execute(
        c,
        "INSERT INTO task_revision (task_id, number, component, spec, rollback_of, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[&task.0, &Small(number), &&spec.component.0[..], &Json(spec), &rollback_of.map(Small), &At(now)],
    )
    .await?;
    execute(c, "UPDATE task SET revision = $2 WHERE id = $1", &[&task.0, &Small(number)]).await?;
    Ok(())
}
