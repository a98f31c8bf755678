//! Tenants in PostgreSQL.

use super::PostgresStore;
use super::audit::record;
use super::connection::{in_transaction, reading};
use super::row::{
    At, Json, Small, Word, after_name, execute, limit, paged, row, rows, signed, text, unsigned,
};
use crate::record::tenant as shown;
use crate::words::{name_of_deleted, too_many_tenants};
use crate::{NewTenant, Page, Paged, StoreError, TenantStore};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::bill::day_number;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::TENANTS_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::quota::{Quota, QuotaUse, Quotas};
use innkeeper_domain::tenant::{Tenant, TenantPause, TenantUpdate};
use serde_json::Value;
use tokio_postgres::Row;

#[async_trait]
impl TenantStore for PostgresStore {
    async fn tenant_ensure(&self, name: &Name, now: Timestamp) -> Result<Tenant, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            insert(c, TenantId::new(now), name, 1, &Quotas::default(), now).await?;
            get(c, name).await?
        })
    }

    async fn tenant_create(&self, tenant: NewTenant, change: Change) -> Result<Tenant, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            // One at a time, so that the count holds.
            c.batch_execute("LOCK TABLE tenant IN SHARE ROW EXCLUSIVE MODE").await?;
            if find(c, "n.name = $1", &[&tenant.name.as_str()]).await?.is_some() {
                return Err(StoreError::Exists(format!("tenant `{}`", tenant.name)));
            }
            let count = row(c, "SELECT count(*) FROM tenant WHERE deleted_at IS NULL", &[]).await?;
            if count.map_or(Ok(0), |count| count.try_get::<_, i64>(0))? >= signed(TENANTS_MAX) {
                return Err(too_many_tenants());
            }
            insert(c, tenant.id, &tenant.name, tenant.weight, &tenant.quotas, change.now).await?;
            let created = get(c, &tenant.name).await?;
            let object = format!("tenant `{}`", created.name);
            record(c, &change, Some(created.id), object, (Value::Null, shown(&created))).await?;
            created
        })
    }

    async fn tenant_get(&self, name: &Name) -> Result<Tenant, StoreError> {
        reading!(&self.shared.pool, |c| get(c, name).await?)
    }

    async fn tenant_list(&self, page: Page) -> Result<Paged<Tenant>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let list =
                format!("{} WHERE n.deleted_at IS NULL AND n.name > $1 ORDER BY n.name LIMIT $2", select());
            let found = rows(c, &list, &[&after_name(&page)?, &limit(&page)]).await?;
            let found = found.iter().map(|row| read_tenant(row, 0)).collect::<Result<_, _>>()?;
            paged(found, &page, |last: &Tenant| last.name.to_string())
        })
    }

    async fn tenant_update(
        &self,
        name: &Name,
        update: TenantUpdate,
        change: Change,
    ) -> Result<Tenant, StoreError> {
        let updated = in_transaction!(&self.shared.pool, |c| {
            let before = lock(c, name).await?;
            let after = update.clone().apply(before.clone());
            // Quotas that only another version knows stay.
            execute(
                c,
                "UPDATE tenant SET state = $2, note = $3, weight = $4,
                     quotas = jsonb_strip_nulls(quotas::jsonb || $5::text::jsonb)::text, paused_at = $6,
                     pause_note = $7
                 WHERE id = $1",
                &[
                    &after.id.0,
                    &after.state.as_str(),
                    &text(&after.note),
                    &Small(after.weight),
                    &Json(&update.quotas),
                    &after.pause.as_ref().map(|pause| At(pause.at)),
                    &after.pause.as_ref().map_or("".into(), |pause| text(&pause.note)),
                ],
            )
            .await?;
            let object = format!("tenant `{name}`");
            record(c, &change, Some(after.id), object, (shown(&before), shown(&after))).await?;
            get(c, name).await?
        })?;
        self.shared.wakes.runs_ready();
        self.shared.wakes.triggers_changed();
        Ok(updated)
    }

    async fn tenant_delete(&self, name: &Name, change: Change) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            let tenant = lock(c, name).await?;
            let object = format!("tenant `{name}`");
            record(c, &change, Some(tenant.id), object, (shown(&tenant), Value::Null)).await?;
            let (id, now) = (tenant.id.0, At(change.now));
            execute(
                c,
                "UPDATE tenant SET name = $2, deleted_at = $3 WHERE id = $1",
                &[&id, &name_of_deleted(tenant.id), &now],
            )
            .await?;
            execute(c, "DELETE FROM token WHERE tenant_id = $1", &[&id]).await?;
            execute(c, "DELETE FROM secret WHERE tenant_id = $1", &[&id]).await?;
            execute(
                c,
                "UPDATE task SET deleted_at = $2 WHERE tenant_id = $1 AND deleted_at IS NULL",
                &[&id, &now],
            )
            .await?;
            // Its triggers aren't due any more; the retention sees to them.
        })?;
        self.shared.wakes.orders();
        Ok(())
    }

    async fn tenant_use(&self, tenant: TenantId, now: Timestamp) -> Result<QuotaUse, StoreError> {
        let used = reading!(&self.shared.pool, |c| {
            row(
                c,
                "SELECT (SELECT count(*) FROM run WHERE tenant_id = $1 AND state = 'running' AND host_id IS NOT NULL),
                     (SELECT coalesce(sum(cpu), 0)::bigint FROM usage WHERE tenant_id = $1 AND day = $2),
                     (SELECT coalesce(sum(size), 0)::bigint FROM component WHERE tenant_id = $1)
                         + (SELECT coalesce(sum(size), 0)::bigint FROM upload WHERE tenant_id = $1)
                         + (SELECT coalesce(sum(bytes), 0)::bigint FROM stored WHERE tenant_id = $1),
                     (SELECT count(*) FROM trigger WHERE tenant_id = $1 AND deleted_at IS NULL),
                     (SELECT count(*) FROM component WHERE tenant_id = $1)",
                &[&tenant.0, &day_number(now)],
            )
            .await?
        })?;
        let used = used.ok_or_else(|| StoreError::Corrupt("a count gave no row".into()))?;
        let quotas =
            [Quota::ConcurrentRuns, Quota::CpuPerDay, Quota::StoredBytes, Quota::Triggers, Quota::Components];
        let numbers = quotas.into_iter().enumerate();
        let numbers = numbers.map(|(at, quota)| Ok((quota, unsigned(used.try_get(at)?))));
        Ok(QuotaUse(numbers.collect::<Result<_, StoreError>>()?))
    }
}

/// A tenant's columns, of a table that goes by `n`, as [`read_tenant`] takes them.
pub(super) const TENANT_COLUMNS: &str = "n.id, n.name, n.state, n.note, n.weight, n.quotas, n.created_at,
    n.paused_at, n.pause_note";

fn select() -> String {
    format!("SELECT {TENANT_COLUMNS} FROM tenant n")
}

/// A tenant, from the columns from this one on.
pub(super) fn read_tenant(row: &Row, first: usize) -> Result<Tenant, StoreError> {
    let note = row.try_get(first + 8)?;
    let pause = row.try_get::<_, Option<At>>(first + 7)?.map(|at| TenantPause { note, at: at.0 });
    Ok(Tenant {
        id: TenantId(row.try_get(first)?),
        pause,
        name: row.try_get::<_, Word<_>>(first + 1)?.0,
        state: row.try_get::<_, Word<_>>(first + 2)?.0,
        note: row.try_get(first + 3)?,
        weight: row.try_get::<_, Small>(first + 4)?.0,
        quotas: row.try_get::<_, Json<_>>(first + 5)?.0,
        created_at: row.try_get::<_, At>(first + 6)?.0,
    })
}

/// Does nothing if there is one of that name.
async fn insert(
    c: &impl GenericClient,
    id: TenantId,
    name: &Name,
    weight: u32,
    quotas: &Quotas,
    now: Timestamp,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO tenant (id, name, weight, quotas, created_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING";
    let values: super::row::Parameters<'_> =
        &[&id.0, &name.as_str(), &Small(weight), &Json(quotas), &At(now)];
    execute(c, insert, values).await?;
    Ok(())
}

async fn find(
    c: &impl GenericClient,
    condition: &str,
    value: super::row::Parameters<'_>,
) -> Result<Option<Tenant>, StoreError> {
    let found = row(c, &format!("{} WHERE {condition} AND n.deleted_at IS NULL", select()), value).await?;
    found.map(|found| read_tenant(&found, 0)).transpose()
}

/// The tenant of that name.
async fn get(c: &impl GenericClient, name: &Name) -> Result<Tenant, StoreError> {
    let tenant = find(c, "n.name = $1", &[&name.as_str()]).await?;
    tenant.ok_or_else(|| StoreError::NotFound(format!("tenant `{name}`")))
}

/// The tenant, unless it is deleted.
pub(super) async fn by_id(c: &impl GenericClient, id: TenantId) -> Result<Tenant, StoreError> {
    let tenant = find(c, "n.id = $1", &[&id.0]).await?;
    tenant.ok_or_else(|| StoreError::NotFound(format!("tenant {id}")))
}

/// The tenant, unless it is deleted, as it stays until the transaction ends: so that nothing is made in one that is
/// deleted or suspended just then. Claims don't wait for it, nor do others that call this.
pub(super) async fn hold(c: &impl GenericClient, id: TenantId) -> Result<Tenant, StoreError> {
    let hold = format!("{} WHERE n.id = $1 AND n.deleted_at IS NULL FOR SHARE", select());
    let tenant = row(c, &hold, &[&id.0]).await?.map(|found| read_tenant(&found, 0)).transpose()?;
    tenant.ok_or_else(|| StoreError::NotFound(format!("tenant {id}")))
}

/// Locks whatever could begin something of the tenant as it stood: claims hold its row, starts and due triggers
/// their task's, and read the tenant after that. Who makes a task holds the tenant's row too. Hosts' rows are left
/// alone, and references to the tenant's too until it is deleted.
async fn lock(c: &impl GenericClient, name: &Name) -> Result<Tenant, StoreError> {
    let lock = "SELECT 1 FROM tenant WHERE name = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    row(c, lock, &[&name.as_str()]).await?;
    let tenant = get(c, name).await?;
    let tasks =
        "SELECT 1 FROM task WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE";
    rows(c, tasks, &[&tenant.id.0]).await?;
    Ok(tenant)
}
