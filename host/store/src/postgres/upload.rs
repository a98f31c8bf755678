//! Uploads under way in PostgreSQL.

use super::PostgresStore;
use super::connection::{in_transaction, reading};
use super::quota::{Counted, check_stored, exclude, hold_stored};
use super::row::{At, execute, row, rows, signed, unsigned};
use super::tenant::hold;
use crate::words::{misplaced, missing, too_many, uploading};
use crate::{StoreError, UploadStore};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::UPLOADS_BEGUN_MAX;
use innkeeper_domain::quota::Quota;

#[async_trait]
impl UploadStore for PostgresStore {
    async fn upload_begin(
        &self,
        tenant: TenantId,
        digest: Digest,
        size: u64,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            let quotas = uploading(hold(c, tenant).await?)?;
            exclude(c, tenant, Counted::Uploads).await?;
            match lock(c, tenant, digest).await? {
                Some((of, received)) if of == size => received,
                found => {
                    if found.is_some() {
                        end(c, tenant, digest).await?;
                    }
                    let begun =
                        row(c, "SELECT count(*) FROM upload WHERE tenant_id = $1", &[&tenant.0]).await?;
                    let begun: i64 = begun.map_or(Ok(0), |begun| begun.try_get(0))?;
                    if unsigned(begun) >= UPLOADS_BEGUN_MAX as u64 {
                        return Err(too_many());
                    }
                    if quotas.get(Quota::StoredBytes).is_some() {
                        hold_stored(c, tenant).await?;
                    }
                    check_stored(c, tenant, &quotas, digest, size).await?;
                    execute(
                        c,
                        "INSERT INTO upload (tenant_id, digest, size, changed_at) VALUES ($1, $2, $3, $4)",
                        &[&tenant.0, &&digest.0[..], &signed(size), &At(now)],
                    )
                    .await?;
                    0
                }
            }
        })
    }

    async fn upload_append(
        &self,
        tenant: TenantId,
        digest: Digest,
        at: u64,
        bytes: Vec<u8>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            let (size, received) = lock(c, tenant, digest).await?.ok_or_else(|| missing(digest))?;
            let then = at + bytes.len() as u64;
            if received != at || then > size {
                return Err(misplaced(at, bytes.len(), received, size));
            }
            // A chunk of nothing would be in the way of the next one.
            if !bytes.is_empty() {
                execute(
                    c,
                    "INSERT INTO upload_chunk (tenant_id, digest, first_byte, bytes) VALUES ($1, $2, $3, $4)",
                    &[&tenant.0, &&digest.0[..], &signed(at), &bytes],
                )
                .await?;
            }
            execute(
                c,
                "UPDATE upload SET received = $3, changed_at = $4 WHERE tenant_id = $1 AND digest = $2",
                &[&tenant.0, &&digest.0[..], &signed(then), &At(now)],
            )
            .await?;
            then
        })
    }

    async fn upload_bytes(&self, tenant: TenantId, digest: Digest) -> Result<Vec<u8>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let exists = "SELECT 1 FROM upload WHERE tenant_id = $1 AND digest = $2";
            row(c, exists, &[&tenant.0, &&digest.0[..]]).await?.ok_or_else(|| missing(digest))?;
            let chunks =
                "SELECT bytes FROM upload_chunk WHERE tenant_id = $1 AND digest = $2 ORDER BY first_byte";
            let mut bytes = Vec::new();
            for chunk in rows(c, chunks, &[&tenant.0, &&digest.0[..]]).await? {
                bytes.extend_from_slice(chunk.try_get(0)?);
            }
            bytes
        })
    }

    async fn upload_end(&self, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| end(c, tenant, digest).await?)
    }
}

/// An upload's size, and how much of it is there.
async fn lock(
    c: &impl GenericClient,
    tenant: TenantId,
    digest: Digest,
) -> Result<Option<(u64, u64)>, StoreError> {
    let lock = "SELECT size, received FROM upload WHERE tenant_id = $1 AND digest = $2 FOR NO KEY UPDATE";
    match row(c, lock, &[&tenant.0, &&digest.0[..]]).await? {
        Some(found) => Ok(Some((unsigned(found.try_get(0)?), unsigned(found.try_get(1)?)))),
        None => Ok(None),
    }
}

/// Its chunks go with it.
async fn end(c: &impl GenericClient, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
    execute(c, "DELETE FROM upload WHERE tenant_id = $1 AND digest = $2", &[&tenant.0, &&digest.0[..]])
        .await?;
    Ok(())
}
