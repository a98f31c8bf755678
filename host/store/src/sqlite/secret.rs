//! Sealed secrets in SQLite.

use super::audit::record;
use super::row::{At, Id, Json, Word, after_name, limit, paged, signed};
use super::{SqliteStore, trigger};
use crate::record::secret as shown;
use crate::secrets::{SECRETS_IN_JSON, in_json, names, verifies_with, with_users};
use crate::words::{no_secret, secret_used, secret_verifies, too_many_secrets};
use crate::{Page, Paged, SecretStore, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::SECRETS_PER_TENANT_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::secret::{SealedSecret, SecretInfo};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::trigger::TriggerSpec;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::collections::BTreeSet;

#[async_trait]
impl SecretStore for SqliteStore {
    async fn secret_put(&self, secret: SealedSecret, change: Change) -> Result<SecretInfo, StoreError> {
        self.write(move |c| {
            super::tenant::by_id(c, secret.tenant)?;
            let before = find(c, secret.tenant, &secret.name)?;
            if before.is_none() {
                let count: i64 = c.query_row(
                    "SELECT count(*) FROM secret WHERE tenant_id = ?1",
                    [Id(secret.tenant.0)],
                    |row| row.get(0),
                )?;
                if count >= signed(SECRETS_PER_TENANT_MAX) {
                    return Err(too_many_secrets());
                }
            }
            let created_at = before.as_ref().map_or(secret.created_at, |before| before.created_at);
            let after = SealedSecret { created_at, ..secret };
            c.execute(
                "INSERT INTO secret (tenant_id, name, key_id, sealed, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (tenant_id, name) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed,
                     updated_at = excluded.updated_at",
                params![
                    Id(after.tenant.0),
                    after.name.as_str(),
                    after.key_id,
                    after.sealed,
                    At(after.created_at),
                    At(after.updated_at),
                ],
            )?;
            let object = || format!("secret `{}`", after.name);
            let difference = || (before.as_ref().map_or(Value::Null, shown), shown(&after));
            record(c, &change, Some(after.tenant), object, difference)?;
            Ok(with_users(after, &[]))
        })
        .await
    }

    async fn secrets_get(&self, tenant: TenantId, names: Vec<Name>) -> Result<Vec<SealedSecret>, StoreError> {
        self.read(move |c| {
            let names: BTreeSet<Name> = names.into_iter().collect();
            let found = names.iter().map(|name| find(c, tenant, name));
            found.filter_map(Result::transpose).collect()
        })
        .await
    }

    async fn secret_list(&self, tenant: TenantId, page: Page) -> Result<Paged<SecretInfo>, StoreError> {
        self.read(move |c| {
            let mut list = c.prepare_cached(&format!(
                "{SELECT} WHERE tenant_id = ?1 AND name > ?2 ORDER BY name LIMIT ?3"
            ))?;
            let rows =
                list.query_map(params![Id(tenant.0), after_name(&page)?, limit(&page)], read_secret)?;
            let rows =
                paged(rows.collect::<Result<_, _>>()?, &page, |last: &SealedSecret| last.name.to_string());
            let users = users(c, tenant, SECRETS_IN_JSON)?;
            let items = rows.items.into_iter().map(|secret| with_users(secret, &users)).collect();
            Ok(Paged { items, next: rows.next })
        })
        .await
    }

    async fn secret_delete(&self, tenant: TenantId, name: &Name, change: Change) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(move |c| {
            let before = find(c, tenant, &name)?.ok_or_else(|| no_secret(&name))?;
            if let Some((task, _)) =
                users(c, tenant, &in_json(&name))?.iter().find(|(_, spec)| names(spec, &name))
            {
                return Err(secret_used(&name, task));
            }
            let verifies = |spec: &TriggerSpec| verifies_with(spec, &name);
            if let Some(trigger) = trigger::naming(c, tenant, &in_json(&name), verifies)? {
                return Err(secret_verifies(&name, &trigger));
            }
            c.execute(
                "DELETE FROM secret WHERE tenant_id = ?1 AND name = ?2",
                params![Id(tenant.0), name.as_str()],
            )?;
            let object = || format!("secret `{name}`");
            record(c, &change, Some(tenant), object, || (shown(&before), Value::Null))
        })
        .await
    }

    async fn secrets_under_other_keys(
        &self,
        key_id: &str,
        limit: usize,
    ) -> Result<Vec<SealedSecret>, StoreError> {
        let key_id = key_id.to_string();
        self.read(move |c| {
            let mut list =
                c.prepare_cached(&format!("{SELECT} WHERE key_id <> ?1 ORDER BY tenant_id, name LIMIT ?2"))?;
            let rows = list.query_map(params![key_id, signed(limit as u64)], read_secret)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn secret_reseal(&self, from: SealedSecret, to: SealedSecret) -> Result<bool, StoreError> {
        self.write(move |c| {
            let changed = c.execute(
                "UPDATE secret SET key_id = ?4, sealed = ?5 WHERE tenant_id = ?1 AND name = ?2 AND sealed = ?3",
                params![Id(from.tenant.0), from.name.as_str(), from.sealed, to.key_id, to.sealed],
            )?;
            Ok(changed > 0)
        })
        .await
    }
}

const SELECT: &str = "SELECT tenant_id, name, key_id, sealed, created_at, updated_at FROM secret";

fn read_secret(row: &Row) -> rusqlite::Result<SealedSecret> {
    Ok(SealedSecret {
        tenant: TenantId(row.get::<_, Id>(0)?.0),
        name: row.get::<_, Word<_>>(1)?.0,
        key_id: row.get(2)?,
        sealed: row.get(3)?,
        created_at: row.get::<_, At>(4)?.0,
        updated_at: row.get::<_, At>(5)?.0,
    })
}

fn find(c: &Connection, tenant: TenantId, name: &Name) -> Result<Option<SealedSecret>, StoreError> {
    let mut get = c.prepare_cached(&format!("{SELECT} WHERE tenant_id = ?1 AND name = ?2"))?;
    Ok(get.query_row(params![Id(tenant.0), name.as_str()], read_secret).optional()?)
}

/// Refuses a definition that names a secret which isn't there.
pub(super) fn check<'a>(
    c: &Connection,
    tenant: TenantId,
    named: impl IntoIterator<Item = &'a Name>,
) -> Result<(), StoreError> {
    for name in named {
        find(c, tenant, name)?.ok_or_else(|| no_secret(name))?;
    }
    Ok(())
}

/// The tenant's tasks with what their current revisions say, of those that have this in their JSON.
fn users(c: &Connection, tenant: TenantId, having: &str) -> Result<Vec<(Name, TaskSpec)>, StoreError> {
    let mut list = c.prepare_cached(
        "SELECT t.name, r.spec FROM task t JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
         WHERE t.tenant_id = ?1 AND t.deleted_at IS NULL AND instr(r.spec, ?2) > 0 ORDER BY t.name",
    )?;
    let rows = list.query_map(params![Id(tenant.0), having], |row| {
        Ok((row.get::<_, Word<Name>>(0)?.0, row.get::<_, Json<TaskSpec>>(1)?.0))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
