//! What drivers say of uploads that can't go on.

use crate::StoreError;
use innkeeper_domain::component::Digest;
use innkeeper_domain::limits::UPLOADS_BEGUN_MAX;

pub(crate) fn too_many() -> StoreError {
    StoreError::Conflict(format!(
        "{UPLOADS_BEGUN_MAX} uploads have begun and not ended; go on with one, or wait until they are forgotten"
    ))
}

pub(crate) fn missing(digest: Digest) -> StoreError {
    StoreError::NotFound(format!("upload of {digest}"))
}

pub(crate) fn misplaced(at: u64, bytes: usize, received: u64, size: u64) -> StoreError {
    StoreError::Conflict(format!(
        "{bytes} bytes at {at} don't fit an upload that has {received} of {size}; ask how many it has and go on there"
    ))
}
