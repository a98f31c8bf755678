//! Tenants in SQLite.

use super::SqliteStore;
use super::audit::record;
use super::row::{At, Id, Json, Word, after_name, limit, paged, signed, unsigned};
use crate::record::tenant as shown;
use crate::words::{name_of_deleted, too_many_tenants};
use crate::{NewTenant, Page, Paged, StoreError, TenantStore};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::bill::day_number;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::TENANTS_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::{Quota, QuotaUse, Quotas};
use innkeeper_domain::tenant::{Tenant, TenantPause, TenantUpdate};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::sync::Arc;

#[async_trait]
impl TenantStore for SqliteStore {
    async fn tenant_ensure(&self, name: &Name, now: Timestamp) -> Result<Tenant, StoreError> {
        let name = name.clone();
        self.write(move |c| {
            if let Some(tenant) = find(c, &name)? {
                return Ok(tenant);
            }
            insert(c, TenantId::new(now), &name, 1, &Quotas::default(), now)?;
            get(c, &name)
        })
        .await
    }

    async fn tenant_create(&self, tenant: NewTenant, change: Change) -> Result<Tenant, StoreError> {
        self.write(move |c| {
            if find(c, &tenant.name)?.is_some() {
                return Err(StoreError::Exists(format!("tenant `{}`", tenant.name)));
            }
            let count: i64 =
                c.query_row("SELECT count(*) FROM tenant WHERE deleted_at IS NULL", [], |row| row.get(0))?;
            if count >= signed(TENANTS_MAX) {
                return Err(too_many_tenants());
            }
            insert(c, tenant.id, &tenant.name, tenant.weight, &tenant.quotas, change.now)?;
            let created = get(c, &tenant.name)?;
            let object = || format!("tenant `{}`", created.name);
            record(c, &change, Some(created.id), object, || (Value::Null, shown(&created)))?;
            Ok(created)
        })
        .await
    }

    async fn tenant_get(&self, name: &Name) -> Result<Tenant, StoreError> {
        let name = name.clone();
        self.read(move |c| get(c, &name)).await
    }

    async fn tenant_list(&self, page: Page) -> Result<Paged<Tenant>, StoreError> {
        self.read(move |c| {
            let mut list = c.prepare_cached(&format!(
                "{} WHERE n.deleted_at IS NULL AND n.name > ?1 ORDER BY n.name LIMIT ?2",
                select()
            ))?;
            let rows =
                list.query_map(params![after_name(&page)?, limit(&page)], |row| read_tenant(row, 0))?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Tenant| last.name.to_string()))
        })
        .await
    }

    async fn tenant_update(
        &self,
        name: &Name,
        update: TenantUpdate,
        change: Change,
    ) -> Result<Tenant, StoreError> {
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let change_it = move |c: &Connection| {
            let before = get(c, &name)?;
            let quotas = Json(update.quotas.clone());
            let after = update.apply(before.clone());
            // Quotas that only another version knows stay.
            c.execute(
                "UPDATE tenant SET state = ?2, note = ?3, weight = ?4, quotas = json_patch(quotas, ?5), paused_at = ?6,
                     pause_note = ?7
                 WHERE id = ?1",
                params![
                    Id(after.id.0),
                    after.state.as_str(),
                    after.note,
                    after.weight,
                    quotas,
                    after.pause.as_ref().map(|pause| At(pause.at)),
                    after.pause.as_ref().map_or("", |pause| &pause.note),
                ],
            )?;
            let object = || format!("tenant `{name}`");
            record(c, &change, Some(after.id), object, || (shown(&before), shown(&after)))?;
            Ok(after)
        };
        let wake = move |_: &Tenant| {
            hints.runs_ready.notify_one();
            hints.triggers_changed.notify_one();
        };
        self.writer.write(change_it, wake).await
    }

    async fn tenant_delete(&self, name: &Name, change: Change) -> Result<(), StoreError> {
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let delete = move |c: &Connection| {
            let tenant = get(c, &name)?;
            let object = || format!("tenant `{name}`");
            record(c, &change, Some(tenant.id), object, || (shown(&tenant), Value::Null))?;
            let (id, now) = (Id(tenant.id.0), At(change.now));
            c.execute(
                "UPDATE tenant SET name = ?2, deleted_at = ?3 WHERE id = ?1",
                params![id, name_of_deleted(tenant.id), now],
            )?;
            c.execute("DELETE FROM token WHERE tenant_id = ?1", [&id])?;
            c.execute("DELETE FROM secret WHERE tenant_id = ?1", [&id])?;
            // Its triggers aren't due any more; the retention sees to them.
            c.execute(
                "UPDATE task SET deleted_at = ?2 WHERE tenant_id = ?1 AND deleted_at IS NULL",
                params![id, now],
            )?;
            Ok(())
        };
        let wake = move |(): &()| hints.orders.notify_one();
        self.writer.write(delete, wake).await
    }

    async fn tenant_use(&self, tenant: TenantId, now: Timestamp) -> Result<QuotaUse, StoreError> {
        self.read(move |c| {
            let count = |sql: &str| -> Result<u64, StoreError> {
                Ok(unsigned(c.prepare_cached(sql)?.query_row([Id(tenant.0)], |row| row.get(0))?))
            };
            let cpu = c
                .prepare_cached("SELECT coalesce(sum(cpu), 0) FROM usage WHERE tenant_id = ?1 AND day = ?2")?
                .query_row(params![Id(tenant.0), day_number(now)], |row| row.get(0))?;
            let [components, sizes] = [
                "SELECT count(*) FROM component WHERE tenant_id = ?1",
                "SELECT coalesce(sum(size), 0) FROM component WHERE tenant_id = ?1",
            ]
            .map(count);
            let stored = sizes?
                + count("SELECT coalesce(sum(size), 0) FROM upload WHERE tenant_id = ?1")?
                + count("SELECT coalesce(sum(bytes), 0) FROM stored WHERE tenant_id = ?1")?;
            let running =
                "SELECT count(*) FROM run WHERE +tenant_id = ?1 AND state = 'running' AND host_id IS NOT NULL";
            let triggers = "SELECT count(*) FROM trigger WHERE tenant_id = ?1 AND deleted_at IS NULL";
            Ok(QuotaUse(
                [
                    (Quota::ConcurrentRuns, count(running)?),
                    (Quota::CpuPerDay, unsigned(cpu)),
                    (Quota::StoredBytes, stored),
                    (Quota::Triggers, count(triggers)?),
                    (Quota::Components, components?),
                ]
                .into(),
            ))
        })
        .await
    }
}

/// A tenant's columns, of a table that goes by `n`, as [`read_tenant`] takes them.
pub(super) const TENANT_COLUMNS: &str = "n.id, n.name, n.state, n.note, n.weight, n.quotas, n.created_at,
    n.paused_at, n.pause_note";

fn select() -> String {
    format!("SELECT {TENANT_COLUMNS} FROM tenant n")
}

/// A tenant, from the columns from this one on.
pub(super) fn read_tenant(row: &Row, first: usize) -> rusqlite::Result<Tenant> {
    let note = row.get(first + 8)?;
    let pause = row.get::<_, Option<At>>(first + 7)?.map(|at| TenantPause { note, at: at.0 });
    Ok(Tenant {
        id: TenantId(row.get::<_, Id>(first)?.0),
        pause,
        name: row.get::<_, Word<_>>(first + 1)?.0,
        state: row.get::<_, Word<_>>(first + 2)?.0,
        note: row.get(first + 3)?,
        weight: row.get(first + 4)?,
        quotas: row.get::<_, Json<_>>(first + 5)?.0,
        created_at: row.get::<_, At>(first + 6)?.0,
    })
}

fn insert(
    c: &Connection,
    id: TenantId,
    name: &Name,
    weight: u32,
    quotas: &Quotas,
    now: Timestamp,
) -> Result<(), StoreError> {
    c.execute(
        "INSERT INTO tenant (id, name, weight, quotas, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![Id(id.0), name.as_str(), weight, Json(quotas), At(now)],
    )?;
    Ok(())
}

fn find(c: &Connection, name: &Name) -> Result<Option<Tenant>, StoreError> {
    let mut get = c.prepare_cached(&format!("{} WHERE n.name = ?1 AND n.deleted_at IS NULL", select()))?;
    Ok(get.query_row([name.as_str()], |row| read_tenant(row, 0)).optional()?)
}

/// The tenant of that name.
fn get(c: &Connection, name: &Name) -> Result<Tenant, StoreError> {
    find(c, name)?.ok_or_else(|| StoreError::NotFound(format!("tenant `{name}`")))
}

/// The tenant, unless it is deleted.
pub(super) fn by_id(c: &Connection, id: TenantId) -> Result<Tenant, StoreError> {
    let mut get = c.prepare_cached(&format!("{} WHERE n.id = ?1 AND n.deleted_at IS NULL", select()))?;
    let tenant = get.query_row([Id(id.0)], |row| read_tenant(row, 0)).optional()?;
    tenant.ok_or_else(|| StoreError::NotFound(format!("tenant {id}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_quota_that_only_another_version_knows_outlives_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let (name, now) = ("acme".parse().unwrap(), Timestamp::UNIX_EPOCH);
        store.tenant_ensure(&name, now).await.unwrap();
        let later = r#"UPDATE tenant SET quotas = '{"later": 9, "triggers": 3}'"#;
        store.write(move |c| Ok(c.execute(later, [])?)).await.unwrap();
        let quotas = [(Quota::Triggers, None), (Quota::FanOut, Some(2))].into();
        let update = TenantUpdate { quotas, ..TenantUpdate::default() };
        let changed = store.tenant_update(&name, update, now.into()).await.unwrap();
        assert_eq!(changed.quotas, Quotas([(Quota::FanOut, 2)].into()));
        let get = "SELECT quotas FROM tenant";
        let kept = store.read(move |c| Ok(c.query_row(get, [], |row| row.get::<_, Json<Value>>(0))?.0));
        assert_eq!(kept.await.unwrap(), json!({"later": 9, "fan-out": 2}));
    }
}
