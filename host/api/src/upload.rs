//! Receiving the bytes of an upload. They gather in memory; of a large upload the store keeps what has come so
//! far, so that a cut connection costs little. That is a service and no condition: bytes that can't be kept are
//! received all the same.

use crate::Api;
use crate::proto::PushComponentRequest;
use crate::proto::push_component_request::{Header, Part};
use crate::status::{invalid, of_store};
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::{UPLOAD_CHUNK_BYTES_MAX, UPLOAD_CHUNK_TIMEOUT, UPLOAD_PIECE_BYTES};
use innkeeper_store::StoreError;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tonic::{Status, Streaming};

/// How many bytes of an upload the store has. A small upload is not begun there: it would cost more than it saves.
pub(crate) async fn begin(api: &Api, tenant: TenantId, digest: Digest, size: u64) -> Result<u64, StoreError> {
    if size <= UPLOAD_PIECE_BYTES {
        return Ok(0);
    }
    api.store.upload_begin(tenant, digest, size, (api.now)()).await
}

/// The next part of an upload; whoever has none for long gives its slot up.
pub(crate) async fn next(
    parts: &mut Streaming<PushComponentRequest>,
) -> Result<Option<PushComponentRequest>, Status> {
    timeout(UPLOAD_CHUNK_TIMEOUT, parts.message()).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!(
            "nothing of the upload came for {} s, so it was ended; go on where BeginUpload says",
            UPLOAD_CHUNK_TIMEOUT.as_secs()
        )))
    })
}

/// An upload that is being received.
pub(crate) struct Upload<'a> {
    api: &'a Api,
    tenant: TenantId,
    digest: Digest,
    size: u64,
    /// All so far.
    pub bytes: Vec<u8>,
    kept: Kept,
}

/// What the store has of an upload.
#[derive(Clone, Copy)]
enum Kept {
    /// Not known: not begun, or another connection goes on with the same.
    Unknown,
    /// So many bytes: fewer than were received, or more if another connection sends the same.
    First(u64),
    /// Nothing will be: the upload is small, or the tenant has begun too many.
    Never,
}

impl<'a> Upload<'a> {
    /// Begins, after the bytes that the header says are kept.
    pub async fn begin(
        api: &'a Api,
        tenant: TenantId,
        digest: Digest,
        header: &Header,
    ) -> Result<Self, Status> {
        let size = header.size;
        let kept = if size <= UPLOAD_PIECE_BYTES { Kept::Never } else { Kept::Unknown };
        let mut upload = Self { api, tenant, digest, size, bytes: Vec::new(), kept };
        if header.offset > 0 {
            upload.go_on(header.offset).await?;
        }
        Ok(upload)
    }

    async fn go_on(&mut self, offset: u64) -> Result<(), Status> {
        self.bytes = match self.api.store.upload_bytes(self.tenant, self.digest).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(of_store(error)),
        };
        let received = self.bytes.len() as u64;
        if offset > received {
            return Err(Status::failed_precondition(format!(
                "{received} bytes of this upload are kept, and not {offset}; ask BeginUpload where to go on"
            )));
        }
        self.kept = Kept::First(received);
        self.bytes.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Receives the rest. After `Ok` the bytes are all there and have the digest.
    pub async fn receive(&mut self, parts: &mut Streaming<PushComponentRequest>) -> Result<(), Status> {
        loop {
            match next(parts).await {
                Ok(Some(message)) => self.take(message)?,
                Ok(None) => break,
                Err(status) => {
                    self.keep().await;
                    return Err(status);
                }
            }
            if self.unkept() >= UPLOAD_PIECE_BYTES && self.received() < self.size {
                self.keep().await;
            }
        }
        if self.received() != self.size {
            self.keep().await;
            return Err(Status::data_loss(format!(
                "the upload ended after {} of {} bytes; push it again, or go on where BeginUpload says",
                self.received(),
                self.size
            )));
        }
        if Sha256::digest(&self.bytes)[..] != self.digest.0 {
            self.end().await;
            let digest = self.digest;
            return Err(Status::data_loss(format!(
                "the bytes don't have the digest {digest}; push them again, from the beginning"
            )));
        }
        Ok(())
    }

    /// Forgets what is kept: it is a component now, or can't become one.
    pub async fn end(&mut self) {
        if self.size <= UPLOAD_PIECE_BYTES {
            return;
        }
        self.kept = Kept::Never;
        if let Err(error) = self.api.store.upload_end(self.tenant, self.digest).await {
            tracing::warn!(%error, "what is kept of an upload that has ended stays until it is too old");
        }
    }

    fn take(&mut self, message: PushComponentRequest) -> Result<(), Status> {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(invalid("after the header an upload has chunks of bytes, and nothing else"));
        };
        if chunk.len() > UPLOAD_CHUNK_BYTES_MAX {
            return Err(invalid(format!("a chunk has at most {UPLOAD_CHUNK_BYTES_MAX} bytes")));
        }
        self.bytes.extend_from_slice(&chunk);
        if self.received() > self.size {
            return Err(invalid(format!(
                "the upload has more than the {} bytes that its header said",
                self.size
            )));
        }
        Ok(())
    }

    fn received(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes that the store hasn't, as far as is known.
    fn unkept(&self) -> u64 {
        match self.kept {
            Kept::Unknown => self.received(),
            Kept::First(kept) => self.received().saturating_sub(kept),
            Kept::Never => 0,
        }
    }

    /// Lets the store have what it hasn't.
    async fn keep(&mut self) {
        // Twice, for another connection may go on with the same upload at the same time, or end it.
        for _ in 0..2 {
            match self.append().await {
                Ok(kept) => {
                    self.kept = kept;
                    return;
                }
                Err(StoreError::Conflict(_) | StoreError::NotFound(_)) => self.kept = Kept::Unknown,
                Err(error) => {
                    tracing::warn!(%error, "a part of an upload can't be kept");
                    return;
                }
            }
        }
    }

    async fn append(&self) -> Result<Kept, StoreError> {
        let kept = match self.kept {
            Kept::Never => return Ok(Kept::Never),
            Kept::First(kept) => kept,
            Kept::Unknown => match begin(self.api, self.tenant, self.digest, self.size).await {
                Err(StoreError::Conflict(_)) => return Ok(Kept::Never),
                begun => begun?,
            },
        };
        let new = usize::try_from(kept).ok().and_then(|kept| self.bytes.get(kept..)).unwrap_or_default();
        if new.is_empty() {
            return Ok(Kept::First(kept));
        }
        let (store, now) = (&self.api.store, (self.api.now)());
        store.upload_append(self.tenant, self.digest, kept, new.to_vec(), now).await.map(Kept::First)
    }
}
