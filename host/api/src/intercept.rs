//! What stands before the services: it lets a request through, or answers in their place.

use http::{Request, Response};
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

pub(crate) trait Intercept: Clone + Send + 'static {
    /// The request as the services get it, or the answer.
    fn intercept(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = ControlFlow<Response<Body>, Request<Body>>> + Send;
}

/// Puts what intercepts before the services.
#[derive(Clone)]
pub(crate) struct Before<I>(pub I);

impl<I: Intercept, S> Layer<S> for Before<I> {
    type Service = Intercepted<I, S>;
    fn layer(&self, inner: S) -> Intercepted<I, S> {
        Intercepted { by: self.0.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Intercepted<I, S> {
    by: I,
    inner: S,
}

impl<I, S> Service<Request<Body>> for Intercepted<I, S>
where
    I: Intercept,
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let by = self.by.clone();
        Box::pin(async move {
            match by.intercept(request).await {
                ControlFlow::Continue(request) => inner.call(request).await,
                ControlFlow::Break(answer) => Ok(answer),
            }
        })
    }
}
