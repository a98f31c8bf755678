//! Components in SQLite, and their bytes in files.

use super::SqliteStore;
use super::audit;
use super::files::ComponentFiles;
use super::quota::{check_count, check_stored};
use super::row::{At, Id, Json, Word, bad_token, limit, paged, signed, unsigned};
use super::tenant::by_id;
use crate::record;
use crate::words::{ComponentQuery, component_used, uploading};
use crate::{ComponentStore, Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::audit::Change;
use innkeeper_domain::component::{Component, Digest};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::time::{from_micros, to_micros};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::sync::Arc;

#[async_trait]
impl ComponentStore for SqliteStore {
    async fn component_put(
        &self,
        tenant: TenantId,
        component: Component,
        bytes: Vec<u8>,
        change: Change,
    ) -> Result<bool, StoreError> {
        let (component, bytes) = (Arc::new(component), Arc::new(bytes));
        loop {
            let (files, digest, bytes) = (self.files.clone(), component.digest, Arc::clone(&bytes));
            // The file first: a row without its file would be a promise not kept, the reverse is only litter.
            tokio::task::spawn_blocking(move || files.put(digest, &bytes))
                .await
                .map_err(|e| StoreError::Unavailable(e.to_string()))??;
            let (files, component) = (self.files.clone(), Arc::clone(&component));
            let change = change.clone();
            let inserted = self.write(move |c| insert(c, &files, tenant, &component, &change)).await?;
            // A delete of the same bytes may have come in between.
            if let Some(existed) = inserted {
                return Ok(existed);
            }
        }
    }

    async fn component_get(&self, tenant: TenantId, digest: &str) -> Result<Component, StoreError> {
        let digest = digest.to_string();
        self.read(move |c| component(c, tenant, &digest)).await
    }

    async fn component_list(&self, tenant: TenantId, page: Page) -> Result<Paged<Component>, StoreError> {
        self.read(move |c| {
            let (before, digest) = match &page.after {
                None => (i64::MAX, Vec::new()),
                Some(token) => {
                    let (at, digest) = token.split_once('-').ok_or_else(bad_token)?;
                    let digest: Digest = digest.parse().map_err(|_| bad_token())?;
                    (at.parse().map_err(|_| bad_token())?, digest.0.to_vec())
                }
            };
            let mut list = c.prepare_cached(&format!(
                "{SELECT} WHERE tenant_id = ?1 AND (created_at, digest) < (?2, ?3)
                 ORDER BY created_at DESC, digest DESC LIMIT ?4"
            ))?;
            let rows = list.query_map(params![Id(tenant.0), before, digest, limit(&page)], read_component)?;
            let rows = rows.collect::<Result<_, _>>()?;
            Ok(paged(rows, &page, |last| format!("{}-{}", to_micros(last.created_at), last.digest.hex())))
        })
        .await
    }

    async fn component_delete(
        &self,
        tenant: TenantId,
        digest: Digest,
        change: Change,
    ) -> Result<(), StoreError> {
        let files = self.files.clone();
        let forget = move |c: &Connection| {
            let user = c
                .query_row(
                    "SELECT t.name FROM task_revision r JOIN task t ON t.id = r.task_id
                     WHERE r.component = ?1 AND t.tenant_id = ?2 AND t.deleted_at IS NULL LIMIT 1",
                    params![digest.0, Id(tenant.0)],
                    |row| row.get::<_, String>(0),
                )
                .optional()?;
            if let Some(task) = user {
                return Err(component_used(&task, digest));
            }
            if let Ok(before) = component(c, tenant, &digest.to_string()) {
                let object = || format!("component {digest}");
                let difference = || (record::component(&before), Value::Null);
                audit::record(c, &change, Some(tenant), object, difference)?;
            }
            let deleted = c.execute(
                "DELETE FROM component WHERE tenant_id = ?1 AND digest = ?2",
                params![Id(tenant.0), digest.0],
            )?;
            if deleted == 0 {
                return Err(StoreError::NotFound(format!("component {digest}")));
            }
            Ok(())
        };
        self.write(forget).await?;
        // After the commit, and by the writer: a crash in between leaves a file that nobody names, not a
        // name without its file, and no upload comes between the look and the removal.
        let clean_up =
            move |c: &Connection| if is_unused(c, digest)? { files.remove(digest) } else { Ok(()) };
        if let Err(error) = self.write(clean_up).await {
            tracing::warn!(%error, "a deleted component's file stays behind");
        }
        Ok(())
    }

    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || files.get(digest))
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))?
    }

    async fn artifact_get(&self, _digest: Digest, _variant: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    async fn artifact_put(&self, _digest: Digest, _variant: &str, _bytes: Vec<u8>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Whether the tenant had it already; none if the file is gone.
fn insert(
    c: &Connection,
    files: &ComponentFiles,
    tenant: TenantId,
    component: &Component,
    change: &Change,
) -> Result<Option<bool>, StoreError> {
    if !files.contains(component.digest) {
        return Ok(None);
    }
    let quotas = uploading(by_id(c, tenant)?)?;
    let mut exists = c.prepare_cached("SELECT 1 FROM component WHERE tenant_id = ?1 AND digest = ?2")?;
    if exists.exists(params![Id(tenant.0), component.digest.0])? {
        return Ok(Some(true));
    }
    check_count(c, tenant, &quotas, Quota::Components, "component WHERE TRUE")?;
    check_stored(c, tenant, &quotas, component.digest, component.size)?;
    c.execute(
        "INSERT INTO component (tenant_id, digest, size, shape, adapted, imports, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            Id(tenant.0),
            component.digest.0,
            signed(component.size),
            component.shape.as_str(),
            component.adapted,
            Json(&component.imports),
            At(component.created_at),
        ],
    )?;
    let object = || format!("component {}", component.digest);
    audit::record(c, change, Some(tenant), object, || (Value::Null, record::component(component)))?;
    Ok(Some(false))
}

/// Whether neither a tenant has it nor an unfinished run of a deleted task still needs it.
pub(super) fn is_unused(c: &Connection, digest: Digest) -> Result<bool, StoreError> {
    let used: bool = c.query_row(
        "SELECT EXISTS (SELECT 1 FROM component WHERE digest = ?1)
             OR EXISTS (SELECT 1 FROM task_revision r JOIN task t ON t.id = r.task_id
                        WHERE r.component = ?1 AND t.unfinished > 0)",
        [digest.0],
        |row| row.get(0),
    )?;
    Ok(!used)
}

const SELECT: &str = "SELECT digest, size, shape, adapted, imports, created_at FROM component";

fn read_component(row: &Row) -> rusqlite::Result<Component> {
    Ok(Component {
        digest: Digest(row.get(0)?),
        size: unsigned(row.get(1)?),
        shape: shape(row)?,
        adapted: row.get(3)?,
        imports: row.get::<_, Json<_>>(4)?.0,
        created_at: from_micros(row.get(5)?),
    })
}

fn shape(row: &Row) -> rusqlite::Result<innkeeper_domain::component::Shape> {
    Ok(row.get::<_, Word<_>>(2)?.0)
}

/// The tenant's component whose digest begins so.
pub(super) fn component(c: &Connection, tenant: TenantId, digest: &str) -> Result<Component, StoreError> {
    let query = ComponentQuery::parse(digest)?;
    let mut get =
        c.prepare_cached(&format!("{SELECT} WHERE tenant_id = ?1 AND digest BETWEEN ?2 AND ?3 LIMIT 2"))?;
    let rows = get.query_map(params![Id(tenant.0), query.low, query.high], read_component)?;
    query.only_one(rows.collect::<Result<_, _>>()?)
}
