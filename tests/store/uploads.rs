//! Uploads that are cut off and gone on with.

use super::*;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::UPLOADS_BEGUN_MAX;

const WHOLE: Digest = Digest([7; 32]);

async fn begin(f: &Fixture, tenant: TenantId, size: u64) -> Result<u64, StoreError> {
    f.store.upload_begin(tenant, WHOLE, size, at(2)).await
}

async fn append(f: &Fixture, tenant: TenantId, place: u64, bytes: &[u8]) -> Result<u64, StoreError> {
    f.store.upload_append(tenant, WHOLE, place, bytes.to_vec(), at(3)).await
}

fn is_missing<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::NotFound(_)))
}

fn is_conflict<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Conflict(_)))
}

pub async fn an_upload_goes_on_where_it_stopped(f: Fixture) {
    let tenant = f.tenant.id;
    assert!(is_missing(&append(&f, tenant, 0, b"ab").await));
    assert!(is_missing(&f.store.upload_bytes(tenant, WHOLE).await));
    assert_eq!(begin(&f, tenant, 6).await, Ok(0));
    assert_eq!(f.store.upload_bytes(tenant, WHOLE).await, Ok(vec![]));
    assert_eq!(append(&f, tenant, 0, b"ab").await, Ok(2));
    assert_eq!(begin(&f, tenant, 6).await, Ok(2));
    for (place, bytes) in [(0, "ab"), (1, "bc"), (3, "d"), (2, "cdefg")] {
        let misplaced = append(&f, tenant, place, bytes.as_bytes()).await;
        assert!(is_conflict(&misplaced), "{bytes} at {place}: {misplaced:?}");
    }
    assert_eq!(append(&f, tenant, 2, b"cdef").await, Ok(6));
    assert_eq!(f.store.upload_bytes(tenant, WHOLE).await, Ok(b"abcdef".to_vec()));
    // Of another size it is another upload.
    assert_eq!(begin(&f, tenant, 5).await, Ok(0));
    assert_eq!(f.store.upload_bytes(tenant, WHOLE).await, Ok(vec![]));
    assert_eq!(append(&f, tenant, 0, b"abcde").await, Ok(5));
    f.store.upload_end(tenant, WHOLE).await.unwrap();
    f.store.upload_end(tenant, WHOLE).await.unwrap();
    assert!(is_missing(&f.store.upload_bytes(tenant, WHOLE).await));
    assert_eq!(begin(&f, tenant, 5).await, Ok(0));
}

pub async fn uploads_of_tenants_are_their_own(f: Fixture) {
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    begin(&f, f.tenant.id, 4).await.unwrap();
    append(&f, f.tenant.id, 0, b"ab").await.unwrap();
    assert!(is_missing(&f.store.upload_bytes(other, WHOLE).await));
    assert!(is_missing(&append(&f, other, 2, b"cd").await));
    assert_eq!(begin(&f, other, 4).await, Ok(0));
    assert_eq!(append(&f, other, 0, b"xyz").await, Ok(3));
    f.store.upload_end(other, WHOLE).await.unwrap();
    assert_eq!(f.store.upload_bytes(f.tenant.id, WHOLE).await, Ok(b"ab".to_vec()));
}

pub async fn a_tenant_begins_so_many_uploads(f: Fixture) {
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    let nth = |n: usize| Digest([u8::try_from(n).unwrap(); 32]);
    let begin = async |tenant, n| f.store.upload_begin(tenant, nth(n), 9, at(2)).await;
    for n in 1..=UPLOADS_BEGUN_MAX {
        assert_eq!(begin(f.tenant.id, n).await, Ok(0));
    }
    let next = UPLOADS_BEGUN_MAX + 1;
    assert!(is_conflict(&begin(f.tenant.id, next).await));
    assert_eq!((begin(f.tenant.id, 1).await, begin(other, next).await), (Ok(0), Ok(0)));
    f.store.upload_end(f.tenant.id, nth(1)).await.unwrap();
    assert_eq!(begin(f.tenant.id, next).await, Ok(0));
}
