//! Components in PostgreSQL, with their bytes, and compiled ones that hosts share.

use super::connection::{in_transaction, reading};
use super::quota::{Counted, check_count, check_stored, exclude, hold_stored};
use super::row::{At, Json, Word, bad_token, digest, execute, limit, paged, row, rows, signed, unsigned};
use super::tenant::{by_id, hold as hold_tenant};
use super::{PostgresStore, audit};
use crate::record;
use crate::words::{ComponentQuery, component_used, damaged, uploading};
use crate::{ComponentStore, Page, Paged, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::audit::Change;
use innkeeper_domain::component::{Component, Digest};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::quota::{Quota, Quotas};
use innkeeper_domain::time::{from_micros, to_micros};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Row;

#[async_trait]
impl ComponentStore for PostgresStore {
    async fn component_put(
        &self,
        tenant: TenantId,
        component: Component,
        bytes: Vec<u8>,
        change: Change,
    ) -> Result<bool, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            // Looked at again under locks when the bytes are there, which may take a while: nobody is to wait for them.
            let quotas = uploading(by_id(c, tenant).await?)?;
            check(c, tenant, &quotas, &component).await?;
            // Bytes that are there are locked, so that no delete takes them meanwhile; damaged ones are mended.
            execute(
                c,
                "INSERT INTO component_bytes AS b (digest, bytes) VALUES ($1, $2)
                 ON CONFLICT (digest) DO UPDATE SET bytes = EXCLUDED.bytes WHERE b.bytes <> EXCLUDED.bytes",
                &[&&component.digest.0[..], &bytes],
            )
            .await?;
            let quotas = uploading(hold_tenant(c, tenant).await?)?;
            if quotas.get(Quota::Components).is_some() {
                exclude(c, tenant, Counted::Components).await?;
            }
            if quotas.get(Quota::StoredBytes).is_some() {
                hold_stored(c, tenant).await?;
            }
            check(c, tenant, &quotas, &component).await?;
            let inserted = execute(
                c,
                "INSERT INTO component (tenant_id, digest, size, shape, adapted, imports, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                &[
                    &tenant.0,
                    &&component.digest.0[..],
                    &signed(component.size),
                    &component.shape.as_str(),
                    &component.adapted,
                    &Json(&component.imports),
                    &At(component.created_at),
                ],
            )
            .await?;
            if inserted > 0 {
                let object = format!("component {}", component.digest);
                let difference = (Value::Null, record::component(&component));
                audit::record(c, &change, Some(tenant), object, difference).await?;
            }
            inserted == 0
        })
    }

    async fn component_get(&self, tenant: TenantId, digest: &str) -> Result<Component, StoreError> {
        reading!(&self.shared.pool, |c| component(c, tenant, digest).await?)
    }

    async fn component_list(&self, tenant: TenantId, page: Page) -> Result<Paged<Component>, StoreError> {
        let (before, digest) = match &page.after {
            None => (i64::MAX, Vec::new()),
            Some(token) => {
                let (at, digest) = token.split_once('-').ok_or_else(bad_token)?;
                let digest: Digest = digest.parse().map_err(|_| bad_token())?;
                (at.parse().map_err(|_| bad_token())?, digest.0.to_vec())
            }
        };
        reading!(&self.shared.pool, |c| {
            let list = format!(
                "{SELECT} WHERE tenant_id = $1 AND (created_at, digest) < ($2, $3)
                 ORDER BY created_at DESC, digest DESC LIMIT $4"
            );
            let rows = rows(c, &list, &[&tenant.0, &before, &digest, &limit(&page)]).await?;
            let rows = rows.iter().map(read_component).collect::<Result<_, _>>()?;
            paged(rows, &page, |last: &Component| {
                format!("{}-{}", to_micros(last.created_at), last.digest.hex())
            })
        })
    }

    async fn component_delete(
        &self,
        tenant: TenantId,
        digest: Digest,
        change: Change,
    ) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            // A task that is about to name it waits for this, or this for it.
            let mine = row(
                c,
                "SELECT 1 FROM component WHERE tenant_id = $1 AND digest = $2 FOR UPDATE",
                &[&tenant.0, &&digest.0[..]],
            )
            .await?;
            if mine.is_none() {
                return Err(StoreError::NotFound(format!("component {digest}")));
            }
            let user = row(
                c,
                "SELECT t.name FROM task_revision r JOIN task t ON t.id = r.task_id
                 WHERE r.component = $1 AND t.tenant_id = $2 AND t.deleted_at IS NULL LIMIT 1",
                &[&&digest.0[..], &tenant.0],
            )
            .await?;
            if let Some(user) = user {
                return Err(component_used(user.try_get(0)?, digest));
            }
            let before = component(c, tenant, &digest.to_string()).await?;
            let difference = (record::component(&before), Value::Null);
            audit::record(c, &change, Some(tenant), format!("component {digest}"), difference).await?;
            execute(
                c,
                "DELETE FROM component WHERE tenant_id = $1 AND digest = $2",
                &[&tenant.0, &&digest.0[..]],
            )
            .await?;
            // Locked first, and looked at after that: whoever uploads the same bytes holds the lock.
            row(c, "SELECT 1 FROM component_bytes WHERE digest = $1 FOR UPDATE", &[&&digest.0[..]]).await?;
            delete_unused(c, &[&digest.0[..]]).await?;
        })
    }

    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let bytes: Vec<u8> = reading!(&self.shared.pool, |c| {
            let found =
                row(c, "SELECT bytes FROM component_bytes WHERE digest = $1", &[&&digest.0[..]]).await?;
            match found {
                Some(found) => found.try_get(0)?,
                None => return Err(StoreError::NotFound(format!("component {digest}"))),
            }
        })?;
        if Sha256::digest(&bytes)[..] == digest.0 {
            Ok(bytes)
        } else {
            Err(damaged(&format!("component {digest}")))
        }
    }

    async fn artifact_get(&self, digest: Digest, variant: &str) -> Result<Option<Vec<u8>>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let found = row(
                c,
                "SELECT bytes FROM artifact WHERE digest = $1 AND variant = $2",
                &[&&digest.0[..], &variant],
            )
            .await?;
            match found {
                Some(found) => Some(found.try_get(0)?),
                None => None,
            }
        })
    }

    async fn artifact_put(&self, digest: Digest, variant: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            execute(
                c,
                "INSERT INTO artifact (digest, variant, bytes) VALUES ($1, $2, $3)
                 ON CONFLICT (digest, variant) DO UPDATE SET bytes = EXCLUDED.bytes",
                &[&&digest.0[..], &variant, &bytes],
            )
            .await?;
        })
    }
}

/// Refuses a component that is over the tenant's quotas, unless it has it already.
async fn check(
    c: &impl GenericClient,
    tenant: TenantId,
    quotas: &Quotas,
    component: &Component,
) -> Result<(), StoreError> {
    let exists = "SELECT 1 FROM component WHERE tenant_id = $1 AND digest = $2";
    if row(c, exists, &[&tenant.0, &&component.digest.0[..]]).await?.is_none() {
        check_count(c, tenant, quotas, Quota::Components, "component WHERE TRUE").await?;
        check_stored(c, tenant, quotas, component.digest, component.size).await?;
    }
    Ok(())
}

/// That neither a tenant has the component nor an unfinished run of a deleted task still needs it.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM component k WHERE k.digest = b.digest)
    AND NOT EXISTS (SELECT 1 FROM task_revision r JOIN task t ON t.id = r.task_id
                    WHERE r.component = b.digest AND t.unfinished > 0)";

/// Deletes those of these bytes that nobody names, with what they were compiled to. Their rows are locked.
async fn delete_unused(c: &impl GenericClient, digests: &[&[u8]]) -> Result<(), StoreError> {
    for table in ["component_bytes", "artifact"] {
        let delete = format!("DELETE FROM {table} b WHERE digest = ANY($1) AND {UNUSED}");
        execute(c, &delete, &[&digests]).await?;
    }
    Ok(())
}

/// Deletes bytes that nobody names: their component was deleted while a run still needed it.
pub(super) async fn sweep(c: &impl GenericClient, limit: i64) -> Result<(), StoreError> {
    let unused = format!(
        "SELECT digest FROM component_bytes b WHERE {UNUSED} ORDER BY digest LIMIT $1 FOR UPDATE SKIP LOCKED"
    );
    let found = rows(c, &unused, &[&limit]).await?;
    let digests = found.iter().map(|row| row.try_get(0)).collect::<Result<Vec<&[u8]>, _>>()?;
    if !digests.is_empty() {
        delete_unused(c, &digests).await?;
    }
    // Of bytes that went before. An artifact that is deleted while its component is uploaded is made again.
    let artifacts = format!(
        "DELETE FROM artifact WHERE digest IN (
             SELECT DISTINCT digest FROM artifact b WHERE {UNUSED} ORDER BY digest LIMIT $1)"
    );
    execute(c, &artifacts, &[&limit]).await?;
    Ok(())
}

const SELECT: &str = "SELECT digest, size, shape, adapted, imports, created_at FROM component";

fn read_component(row: &Row) -> Result<Component, StoreError> {
    Ok(Component {
        digest: digest(row.try_get(0)?)?,
        size: unsigned(row.try_get(1)?),
        shape: row.try_get::<_, Word<_>>(2)?.0,
        adapted: row.try_get(3)?,
        imports: row.try_get::<_, Json<_>>(4)?.0,
        created_at: from_micros(row.try_get(5)?),
    })
}

/// The tenant's component whose digest begins so.
async fn component(c: &impl GenericClient, tenant: TenantId, digest: &str) -> Result<Component, StoreError> {
    let query = ComponentQuery::parse(digest)?;
    let get = format!("{SELECT} WHERE tenant_id = $1 AND digest BETWEEN $2 AND $3 LIMIT 2");
    let found = rows(c, &get, &[&tenant.0, &query.low, &query.high]).await?;
    query.only_one(found.iter().map(read_component).collect::<Result<_, _>>()?)
}

/// `NotFound` unless the tenant has the component; it can't be deleted until the transaction ends.
pub(super) async fn hold(c: &impl GenericClient, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
    let hold = "SELECT 1 FROM component WHERE tenant_id = $1 AND digest = $2 FOR KEY SHARE";
    let held = row(c, hold, &[&tenant.0, &&digest.0[..]]).await?;
    held.map(|_| ()).ok_or_else(|| StoreError::NotFound(format!("component {digest}")))
}
