//! How many bytes of requests may be under way: on this host, and of one tenant. A call takes what it has received, and
//! what its messages take when they are decoded; it gives all back when its answer begins and its body is gone. Calls
//! of strangers are not counted: what may be called by them has small requests.

use crate::caller::{Caller, Known};
use bytes::Bytes;
use futures::stream::StreamExt;
use http::{Extensions, Request, Response};
use http_body_util::{BodyStream, StreamBody};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::{CALL_BYTES_MAX, CALL_BYTES_PER_TENANT_MAX};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::task::futures::TaskLocalFuture;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// Of the call that is being answered; none is a stranger's.
    static OF_CALL: Option<Arc<Share>>;
}

/// Takes bytes for the call that is being answered. Outside of one nothing is counted: clients decode answers.
pub(crate) fn take(bytes: usize) -> Result<(), Status> {
    OF_CALL.try_with(|share| share.as_ref().map_or(Ok(()), |share| share.take(bytes))).unwrap_or(Ok(()))
}

/// Counts the bytes under way. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    all_max: usize,
    each_max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    each: HashMap<TenantId, usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(CALL_BYTES_MAX, CALL_BYTES_PER_TENANT_MAX)
    }
}

impl Budget {
    fn new(all_max: usize, each_max: usize) -> Self {
        Self { all_max, each_max, taken: Arc::default() }
    }

    /// A call's, which has taken nothing yet. Without a tenant it counts to the host alone.
    fn share(&self, tenant: Option<TenantId>) -> Arc<Share> {
        Arc::new(Share { budget: self.clone(), tenant, bytes: AtomicUsize::new(0) })
    }

    /// The share of a call that came through [`crate::auth::Auth`]; strangers have none.
    fn share_of(&self, extensions: &Extensions) -> Option<Arc<Share>> {
        let known = extensions.get::<Known>()?;
        let tenant = extensions.get::<Caller>().map(|caller| caller.tenant);
        Some(self.share(tenant.or(known.token.tenant)))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one call has taken, given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    tenant: Option<TenantId>,
    bytes: AtomicUsize,
}

impl Share {
    /// Takes more; nothing of it if it is too much.
    fn take(&self, bytes: usize) -> Result<(), Status> {
        let Budget { all_max, each_max, .. } = self.budget;
        let mut taken = self.budget.taken();
        let own = self.tenant.and_then(|tenant| taken.each.get(&tenant).copied()).unwrap_or_default();
        let (own, all) = (own.saturating_add(bytes), taken.all.saturating_add(bytes));
        if self.tenant.is_some() && own > each_max {
            return Err(too_many("the tenant", each_max));
        }
        if all > all_max {
            return Err(too_many("the host", all_max));
        }
        taken.all = all;
        if let Some(tenant) = self.tenant {
            taken.each.insert(tenant, own);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        let mut taken = self.budget.taken();
        taken.all = taken.all.saturating_sub(bytes);
        let Some(tenant) = self.tenant else { return };
        if let Some(own) = taken.each.get_mut(&tenant) {
            *own = own.saturating_sub(bytes);
            if *own == 0 {
                taken.each.remove(&tenant);
            }
        }
    }
}

fn too_many(whose: &str, max: usize) -> Status {
    Status::resource_exhausted(format!(
        "{whose} has too many bytes of requests under way; {max} may be at one time on one host; try again in a while"
    ))
}

/// A body whose bytes count as they come. It fails when they are too many.
fn counted(body: Body, share: Arc<Share>) -> Body {
    let frames = BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        share.take(frame.data_ref().map_or(0, Bytes::len))?;
        Ok::<_, Status>(frame)
    });
    Body::new(StreamBody::new(frames))
}

/// Counts what calls receive. It stands behind [`crate::auth::Auth`].
#[derive(Clone)]
pub(crate) struct WithinBudget(pub Budget);

impl<S> Layer<S> for WithinBudget {
    type Service = Counting<S>;
    fn layer(&self, inner: S) -> Counting<S> {
        Counting { budget: self.0.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Counting<S> {
    budget: Budget,
    inner: S,
}

impl<S: Service<Request<Body>, Response = Response<Body>>> Service<Request<Body>> for Counting<S> {
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = TaskLocalFuture<Option<Arc<Share>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let share = self.budget.share_of(request.extensions());
        let request = match &share {
            Some(share) => request.map(|body| counted(body, Arc::clone(share))),
            None => request,
        };
        OF_CALL.scope(share, self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use innkeeper_domain::Timestamp;
    use tonic::Code;

    fn tenants<const N: usize>() -> [TenantId; N] {
        [0; N].map(|_| TenantId::new(Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn one_tenants_bytes_leave_room_for_others() {
        let budget = Budget::new(30, 20);
        let [a, b] = tenants();
        let (first, second) = (budget.share(Some(a)), budget.share(Some(a)));
        first.take(15).unwrap();
        second.take(5).unwrap();
        let refused = second.take(1).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("the tenant has too many bytes"), "{refused:?}");
        let (third, admins) = (budget.share(Some(b)), budget.share(None));
        third.take(5).unwrap();
        admins.take(5).unwrap();
        for refused in [third.take(1).unwrap_err(), admins.take(1).unwrap_err()] {
            assert!(refused.message().contains("the host has too many bytes"), "{refused:?}");
        }
        drop(first);
        assert_eq!(budget.taken().all, 15);
        assert_eq!(budget.taken().each[&a], 5);
        third.take(15).unwrap();
        third.take(usize::MAX).unwrap_err();
        drop((second, third, admins));
        assert!(budget.taken().all == 0 && budget.taken().each.is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn a_body_over_the_budget_fails_with_the_reason_and_gives_all_back() {
        let budget = Budget::new(100, 10);
        let [tenant] = tenants();
        let body = |bytes: usize| Body::new(Full::new(Bytes::from(vec![7; bytes])));
        let share = budget.share(Some(tenant));
        let whole = counted(body(10), Arc::clone(&share)).collect().await.unwrap();
        assert_eq!(whole.to_bytes().len(), 10);
        // The body is gone, and the call isn't.
        assert_eq!(budget.taken().all, 10);
        let refused = counted(body(1), budget.share(Some(tenant))).collect().await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let decoding = OF_CALL.scope(Some(share), async { take(1) }).await;
        assert_eq!(decoding.unwrap_err().code(), Code::ResourceExhausted);
        assert!(budget.taken().all == 0 && budget.taken().each.is_empty(), "nothing is left behind");
        assert!(take(1_000).is_ok(), "outside of a call nothing is counted");
    }
}
