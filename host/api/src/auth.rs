//! Who calls. Every call but the health check carries a token; a call without a good one reaches no
//! service. This is the one place where that is decided.

use crate::Api;
use crate::status::of_store;
use http::{HeaderMap, Request, Response};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::name::Name;
use innkeeper_store::{Role, TokenHolder};
use sha2::{Digest, Sha256};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// The tenant that calls are for when they name none.
pub const TENANT_DEFAULT: &str = "default";

/// The header that names a call's tenant.
pub const TENANT_HEADER: &str = "innkeeper-tenant";

/// Paths that need no token: load balancers and orchestrators ask for health without one.
const OPEN: &str = "/grpc.health.v1.Health/";

/// Who calls, and for which tenant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub tenant: TenantId,
    holder: TokenHolder,
}

impl Caller {
    /// The caller of a request that came through [`AuthLayer`].
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let missing = || Status::unauthenticated("the call was not authenticated");
        request.extensions().get::<Self>().copied().ok_or_else(missing)
    }

    /// Lets those through who speak for every tenant: for what concerns all of them.
    pub fn of_every_tenant<T>(request: &tonic::Request<T>) -> Result<(), Status> {
        match Self::of(request)?.holder {
            TokenHolder { tenant: None, role: Role::Admin } => Ok(()),
            TokenHolder { tenant: Some(_), role: Role::Admin } => Err(Status::permission_denied(
                "the token speaks for one tenant, and this concerns all of them; use the host's admin's",
            )),
        }
    }
}

/// What is stored of a token: the sha-256 of its text.
pub fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl Api {
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Status> {
        let token = headers
            .get(http::header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer ")));
        let Some(token) = token else {
            return Err(Status::unauthenticated(
                "the call has no token; send `authorization: Bearer TOKEN` (the first admin's is in admin.token \
                 in the host's data folder)",
            ));
        };
        let holder = self.store.token_find(token_hash(token.trim())).await.map_err(of_store)?;
        let Some(holder) = holder else {
            return Err(Status::unauthenticated("the token is not one of this host's"));
        };
        let name = headers.get(TENANT_HEADER).map_or(Ok(TENANT_DEFAULT), |value| value.to_str());
        let name = name.ok().and_then(|name| name.parse::<Name>().ok());
        let unknown = || Status::not_found(format!("there is no such tenant as `{TENANT_HEADER}` names"));
        let tenant = self.store.tenant_get(&name.ok_or_else(unknown)?).await.map_err(of_store)?;
        if holder.tenant.is_some_and(|own| own != tenant.id) {
            return Err(Status::not_found(format!("there is no tenant `{}`", tenant.name)));
        }
        Ok(Caller { tenant: tenant.id, holder })
    }
}

/// Puts [`Auth`] before the services.
#[derive(Clone)]
pub(crate) struct AuthLayer(pub Api);

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;
    fn layer(&self, inner: S) -> Auth<S> {
        Auth { api: self.0.clone(), inner }
    }
}

/// Lets calls with a good token through, with a [`Caller`].
#[derive(Clone)]
pub(crate) struct Auth<S> {
    api: Api,
    inner: S,
}

impl<S> Service<Request<Body>> for Auth<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let api = self.api.clone();
        Box::pin(async move {
            if !request.uri().path().starts_with(OPEN) {
                match api.caller(request.headers()).await {
                    Ok(caller) => request.extensions_mut().insert(caller),
                    Err(status) => return Ok(status.into_http()),
                };
            }
            inner.call(request).await
        })
    }
}
