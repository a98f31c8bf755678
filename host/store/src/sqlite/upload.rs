//! Uploads under way in SQLite.

use super::SqliteStore;
use super::quota::check_stored;
use super::row::{At, Id, signed, unsigned};
use super::tenant::by_id;
use super::writer::Size;
use crate::words::{misplaced, missing, too_many, uploading};
use crate::{StoreError, UploadStore};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::UPLOADS_BEGUN_MAX;
use rusqlite::{Connection, OptionalExtension, params};

#[async_trait]
impl UploadStore for SqliteStore {
    async fn upload_begin(
        &self,
        tenant: TenantId,
        digest: Digest,
        size: u64,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write(move |c| {
            let quotas = uploading(by_id(c, tenant)?)?;
            match find(c, tenant, digest)? {
                Some((of, received)) if of == size => return Ok(received),
                Some(_) => end(c, tenant, digest)?,
                None => {}
            }
            let begun: i64 =
                c.query_row("SELECT count(*) FROM upload WHERE tenant_id = ?1", [Id(tenant.0)], |row| {
                    row.get(0)
                })?;
            if unsigned(begun) >= UPLOADS_BEGUN_MAX as u64 {
                return Err(too_many());
            }
            check_stored(c, tenant, &quotas, digest, size)?;
            c.execute(
                "INSERT INTO upload (tenant_id, digest, size, changed_at) VALUES (?1, ?2, ?3, ?4)",
                params![Id(tenant.0), digest.0, signed(size), At(now)],
            )?;
            Ok(0)
        })
        .await
    }

    async fn upload_append(
        &self,
        tenant: TenantId,
        digest: Digest,
        at: u64,
        bytes: Vec<u8>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let sent = bytes.len();
        let append = move |c: &Connection| {
            let (size, received) = find(c, tenant, digest)?.ok_or_else(|| missing(digest))?;
            let then = at + bytes.len() as u64;
            if received != at || then > size {
                return Err(misplaced(at, bytes.len(), received, size));
            }
            // A chunk of nothing would be in the way of the next one.
            if !bytes.is_empty() {
                c.execute(
                    "INSERT INTO upload_chunk (tenant_id, digest, first_byte, bytes) VALUES (?1, ?2, ?3, ?4)",
                    params![Id(tenant.0), digest.0, signed(at), bytes],
                )?;
            }
            c.execute(
                "UPDATE upload SET received = ?3, changed_at = ?4 WHERE tenant_id = ?1 AND digest = ?2",
                params![Id(tenant.0), digest.0, signed(then), At(now)],
            )?;
            Ok(then)
        };
        self.writer.write_sized(Size::of(sent), append, |_| ()).await
    }

    async fn upload_bytes(&self, tenant: TenantId, digest: Digest) -> Result<Vec<u8>, StoreError> {
        self.read(move |c| {
            find(c, tenant, digest)?.ok_or_else(|| missing(digest))?;
            let mut list = c.prepare_cached(
                "SELECT bytes FROM upload_chunk WHERE tenant_id = ?1 AND digest = ?2 ORDER BY first_byte",
            )?;
            let chunks = list.query_map(params![Id(tenant.0), digest.0], |row| row.get::<_, Vec<u8>>(0))?;
            Ok(chunks.collect::<Result<Vec<_>, _>>()?.concat())
        })
        .await
    }

    async fn upload_end(&self, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
        self.write(move |c| end(c, tenant, digest)).await
    }
}

/// An upload's size, and how much of it is there.
fn find(c: &Connection, tenant: TenantId, digest: Digest) -> Result<Option<(u64, u64)>, StoreError> {
    let mut get =
        c.prepare_cached("SELECT size, received FROM upload WHERE tenant_id = ?1 AND digest = ?2")?;
    let found = get
        .query_row(params![Id(tenant.0), digest.0], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))));
    Ok(found.optional()?)
}

pub(super) fn end(c: &Connection, tenant: TenantId, digest: Digest) -> Result<(), StoreError> {
    for table in ["upload_chunk", "upload"] {
        c.execute(
            &format!("DELETE FROM {table} WHERE tenant_id = ?1 AND digest = ?2"),
            params![Id(tenant.0), digest.0],
        )?;
    }
    Ok(())
}
