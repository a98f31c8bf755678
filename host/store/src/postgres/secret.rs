//! Sealed secrets in PostgreSQL.

use super::audit::record;
use super::connection::{in_transaction, reading};
use super::quota::{Counted, exclude};
use super::row::{At, Json, Word, after_name, execute, limit, paged, row, rows, signed};
use super::tenant::hold;
use super::{PostgresStore, trigger};
use crate::record::secret as shown;
use crate::secrets::{SECRETS_IN_JSON, in_json, names, verifies_with, with_users};
use crate::words::{no_secret, secret_used, secret_verifies, too_many_secrets};
use crate::{Page, Paged, SecretStore, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::SECRETS_PER_TENANT_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::secret::{SealedSecret, SecretInfo};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::trigger::TriggerSpec;
use serde_json::Value;
use tokio_postgres::Row;

#[async_trait]
impl SecretStore for PostgresStore {
    async fn secret_put(&self, secret: SealedSecret, change: Change) -> Result<SecretInfo, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            hold(c, secret.tenant).await?;
            exclude(c, secret.tenant, Counted::Secrets).await?;
            let before = find(c, secret.tenant, &secret.name, "FOR NO KEY UPDATE").await?;
            if before.is_none() {
                let count =
                    row(c, "SELECT count(*) FROM secret WHERE tenant_id = $1", &[&secret.tenant.0]).await?;
                if count.map_or(Ok(0), |count| count.try_get::<_, i64>(0))? >= signed(SECRETS_PER_TENANT_MAX)
                {
                    return Err(too_many_secrets());
                }
            }
            let put = row(
                c,
                "INSERT INTO secret (tenant_id, name, key_id, sealed, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (tenant_id, name) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed,
                     updated_at = excluded.updated_at
                 RETURNING tenant_id, name, key_id, sealed, created_at, updated_at",
                &[
                    &secret.tenant.0,
                    &secret.name.as_str(),
                    &secret.key_id,
                    &secret.sealed,
                    &At(secret.created_at),
                    &At(secret.updated_at),
                ],
            )
            .await?;
            let after = read_secret(&put.ok_or_else(|| no_secret(&secret.name))?)?;
            let difference = (before.as_ref().map_or(Value::Null, shown), shown(&after));
            record(c, &change, Some(after.tenant), format!("secret `{}`", after.name), difference).await?;
            with_users(after, &[])
        })
    }

    async fn secrets_get(&self, tenant: TenantId, names: Vec<Name>) -> Result<Vec<SealedSecret>, StoreError> {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        reading!(&self.shared.pool, |c| {
            let get = format!("{SELECT} WHERE tenant_id = $1 AND name = ANY($2) ORDER BY name");
            rows(c, &get, &[&tenant.0, &names]).await?.iter().map(read_secret).collect::<Result<_, _>>()?
        })
    }

    async fn secret_list(&self, tenant: TenantId, page: Page) -> Result<Paged<SecretInfo>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let list = format!("{SELECT} WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3");
            let found = rows(c, &list, &[&tenant.0, &after_name(&page)?, &limit(&page)]).await?;
            let found = found.iter().map(read_secret).collect::<Result<_, _>>()?;
            let found = paged(found, &page, |last: &SealedSecret| last.name.to_string());
            let users = users(c, tenant, SECRETS_IN_JSON).await?;
            let items = found.items.into_iter().map(|secret| with_users(secret, &users)).collect();
            Paged { items, next: found.next }
        })
    }

    async fn secret_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            // A task that is about to name it waits for this, or this for it.
            let before = find(c, tenant, name, "FOR UPDATE").await?.ok_or_else(|| no_secret(name))?;
            if let Some((task, _)) =
                users(c, tenant, &in_json(name)).await?.iter().find(|(_, spec)| names(spec, name))
            {
                return Err(secret_used(name, task));
            }
            let verifies = |spec: &TriggerSpec| verifies_with(spec, name);
            if let Some(trigger) = trigger::naming(c, tenant, &in_json(name), verifies).await? {
                return Err(secret_verifies(name, &trigger));
            }
            let delete = "DELETE FROM secret WHERE tenant_id = $1 AND name = $2";
            execute(c, delete, &[&tenant.0, &name.as_str()]).await?;
            let difference = (shown(&before), Value::Null);
            record(c, &change, Some(tenant), format!("secret `{name}`"), difference).await?;
        })
    }

    async fn secrets_under_other_keys(
        &self,
        key_id: &str,
        limit: usize,
    ) -> Result<Vec<SealedSecret>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let list = format!("{SELECT} WHERE key_id <> $1 ORDER BY tenant_id, name LIMIT $2");
            let found = rows(c, &list, &[&key_id, &signed(limit as u64)]).await?;
            found.iter().map(read_secret).collect::<Result<_, _>>()?
        })
    }

    async fn secret_reseal(&self, from: SealedSecret, to: SealedSecret) -> Result<bool, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            let reseal = "UPDATE secret SET key_id = $4, sealed = $5 WHERE tenant_id = $1 AND name = $2 AND sealed = $3";
            let values: super::row::Parameters<'_> =
                &[&from.tenant.0, &from.name.as_str(), &from.sealed, &to.key_id, &to.sealed];
            execute(c, reseal, values).await? > 0
        })
    }
}

const SELECT: &str = "SELECT tenant_id, name, key_id, sealed, created_at, updated_at FROM secret";

fn read_secret(row: &Row) -> Result<SealedSecret, StoreError> {
    Ok(SealedSecret {
        tenant: TenantId(row.try_get(0)?),
        name: row.try_get::<_, Word<_>>(1)?.0,
        key_id: row.try_get(2)?,
        sealed: row.try_get(3)?,
        created_at: row.try_get::<_, At>(4)?.0,
        updated_at: row.try_get::<_, At>(5)?.0,
    })
}

/// With its row locked as `lock` says.
async fn find(
    c: &impl GenericClient,
    tenant: TenantId,
    name: &Name,
    lock: &'static str,
) -> Result<Option<SealedSecret>, StoreError> {
    let get = format!("{SELECT} WHERE tenant_id = $1 AND name = $2 {lock}");
    row(c, &get, &[&tenant.0, &name.as_str()]).await?.map(|found| read_secret(&found)).transpose()
}

/// Refuses a definition that names a secret which isn't there, and keeps those that it names until the end of the
/// transaction.
pub(super) async fn check(
    c: &impl GenericClient,
    tenant: TenantId,
    named: impl IntoIterator<Item = &Name>,
) -> Result<(), StoreError> {
    for name in named {
        find(c, tenant, name, "FOR SHARE").await?.ok_or_else(|| no_secret(name))?;
    }
    Ok(())
}

/// The tenant's tasks with what their current revisions say, of those that have this in their JSON.
async fn users(
    c: &impl GenericClient,
    tenant: TenantId,
    having: &str,
) -> Result<Vec<(Name, TaskSpec)>, StoreError> {
    let found = rows(
        c,
        "SELECT t.name, r.spec FROM task t JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
         WHERE t.tenant_id = $1 AND t.deleted_at IS NULL AND strpos(r.spec, $2) > 0 ORDER BY t.name",
        &[&tenant.0, &having],
    )
    .await?;
    let read = |row: &Row| Ok((row.try_get::<_, Word<_>>(0)?.0, row.try_get::<_, Json<_>>(1)?.0));
    found.iter().map(read).collect()
}
