//! Webhooks: HTTP requests that start runs, on the same port as the calls. They have no token: who sends one has signed
//! it with its trigger's secret (`domain::webhook`).

mod answer;

use crate::Api;
use crate::auth::peer_address;
use crate::gate::Gate;
use crate::secret::VaultError;
use answer::{Answer, header};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Limited};
use innkeeper_domain::audit::Actor;
use innkeeper_domain::ids::{RunId, TenantId, TriggerId};
use innkeeper_domain::limits::{INPUT_BYTES_MAX, WEBHOOK_BODY_TIMEOUT, WEBHOOK_WAIT_MAX};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::rule::{Rule, WebhookRule};
use innkeeper_domain::trigger::Trigger;
use innkeeper_domain::webhook::{self, Delivery};
use innkeeper_store::{Fired, NewFiring, StoreError};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

/// What the paths of webhooks begin with; a trigger's id follows.
pub const WEBHOOK_PATH: &str = "/hooks/";

/// The longest that a run isn't looked at while somebody waits for it: wake-ups are hints.
const POLL: Duration = Duration::from_secs(2);

/// Answers requests to webhooks, and lets calls through.
#[derive(Clone)]
pub(crate) struct WebhookLayer {
    pub api: Api,
    pub gate: Arc<Gate>,
}

impl<S> Layer<S> for WebhookLayer {
    type Service = Webhooks<S>;
    fn layer(&self, inner: S) -> Webhooks<S> {
        Webhooks { layer: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Webhooks<S> {
    layer: WebhookLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Webhooks<S>
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_hook = request.uri().path().starts_with(WEBHOOK_PATH);
        // Calls end with trailers, which HTTP/1 clients don't read.
        if !is_hook && request.version() >= Version::HTTP_2 {
            let clone = self.inner.clone();
            let mut inner = std::mem::replace(&mut self.inner, clone);
            return Box::pin(async move { inner.call(request).await });
        }
        let layer = self.layer.clone();
        Box::pin(async move {
            let version = request.version();
            let answer = match is_hook {
                true => layer.answer(request).await.unwrap_or_else(|refused| refused),
                false => Answer::error(404, "calls are gRPC over HTTP/2 here, and webhooks are at /hooks/ID"),
            };
            Ok(answer.into_response(version))
        })
    }
}

/// What a sender asks for beside a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    /// How long it waits for the output.
    wait: Option<Duration>,
}

impl WebhookLayer {
    /// The answer; `Err` if the request is refused.
    async fn answer(&self, request: Request<Body>) -> Result<Answer, Answer> {
        let (parts, body) = request.into_parts();
        let id = trigger_id(parts.uri.path())?;
        if parts.method != Method::POST {
            return Err(Answer::error(405, "a webhook takes POST").with("allow", "POST"));
        }
        let asked = Asked::of(&parts)?;
        let (tenant, trigger) = self.api.store.trigger_by_id(id).await.map_err(of_store)?;
        let Rule::Webhook(rule) = &trigger.spec.rule else { return Err(unknown()) };
        let slot = self
            .api
            .webhooks
            .take(tenant)
            .map_err(|status| Answer::error(429, status.message()).with("retry-after", "1"))?;
        let body = read(&parts.headers, body).await?;
        let input = Payload { content_type: content_type(&parts.headers)?, bytes: body.into() };
        let delivery = self.verify(&parts, tenant, &trigger, rule, &input.bytes).await?;
        let answer = self.start(tenant, &trigger, delivery, input).await?;
        // Who waits holds no body any more.
        drop(slot);
        match (answer, asked.wait) {
            (Begun::Run(run), Some(wait)) => self.wait(tenant, run, wait).await,
            (Begun::Run(run), None) => Ok(Answer::accepted(run)),
            (Begun::Answered(answer), _) => Ok(answer),
        }
    }

    /// Whether it comes from who has the trigger's secret. One that doesn't goes on record.
    async fn verify(
        &self,
        parts: &Parts,
        tenant: TenantId,
        trigger: &Trigger,
        rule: &WebhookRule,
        body: &[u8],
    ) -> Result<Delivery, Answer> {
        let secret = self.api.vault.text(tenant, &rule.secret).await.map_err(|error| {
            tracing::error!(trigger = %trigger.id, secret = %rule.secret, %error, "a webhook can't be verified");
            match error {
                VaultError::Store(StoreError::Unavailable(_)) => unavailable(),
                _ => Answer::error(500, "the secret of this webhook can't be read; its owner must set it again"),
            }
        })?;
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let request = webhook::Request { header: &header, body };
        let verified = rule.scheme.verify(request, &secret, rule.tolerance, (self.api.now)());
        verified.map_err(|why| {
            let name = format!("sender to trigger {}", trigger.id);
            let address = peer_address(parts).to_string();
            let actor = Actor { name, role: None, address, action: "webhook".into() };
            self.gate.denied(&Arc::new(actor), None);
            Answer::error(401, why.to_string())
        })
    }

    async fn start(
        &self,
        tenant: TenantId,
        trigger: &Trigger,
        delivery: Delivery,
        input: Payload,
    ) -> Result<Begun, Answer> {
        let now = (self.api.now)();
        let nominal_at = delivery.signed_at.unwrap_or(now);
        let run_id = RunId::new(now);
        let firing = NewFiring { run_id, occurrence: delivery.key, nominal_at, input };
        let fired = self.api.store.trigger_fire(tenant, trigger.id, firing, now).await.map_err(of_store)?;
        Ok(match fired {
            Fired::Run(run) => Begun::Run(run),
            Fired::Existing(run) => {
                let first = self.api.store.run_get(tenant, run).await.map_err(of_store)?;
                // A sender that tries again signs again, with the time then. Where no time is signed the two can't be
                // told apart.
                let is_signed_again = delivery.signed_at.is_some_and(|at| at > first.nominal_at);
                Begun::Answered(if is_signed_again { Answer::existing(run) } else { Answer::replayed(run) })
            }
            Fired::Skipped(reason) => Begun::Answered(Answer::skipped(reason)),
        })
    }

    /// Waits for the run's end, and answers with its output.
    async fn wait(&self, tenant: TenantId, id: RunId, wait: Duration) -> Result<Answer, Answer> {
        let over = Instant::now() + wait;
        let Ok(_slot) = self.api.streams.take(tenant) else { return Ok(Answer::accepted(id)) };
        let mut watch = self.api.store.hints().watch_run(id);
        loop {
            let run = self.api.store.run_get(tenant, id).await.map_err(of_store)?;
            if run.state.is_final() {
                return Ok(Answer::ended(run));
            }
            let next = over.min(Instant::now() + POLL);
            tokio::select! {
                () = self.api.stop.cancelled() => return Ok(Answer::accepted(id)),
                _ = timeout_at(next, watch.changed()) => {}
            }
            if Instant::now() >= over {
                return Ok(Answer::accepted(id));
            }
        }
    }
}

enum Begun {
    Run(RunId),
    Answered(Answer),
}

impl Asked {
    /// What the query (`wait=SECONDS`) or the header `prefer: wait=SECONDS` says.
    fn of(parts: &Parts) -> Result<Self, Answer> {
        let query = parts.uri.query().unwrap_or_default().split('&');
        let query = query.filter_map(|part| part.split_once('='));
        let in_query = query.filter(|(name, _)| *name == "wait").map(|(_, value)| value).next();
        let prefer = header(&parts.headers, "prefer").unwrap_or_default().split([',', ';']);
        let preferred = prefer.filter_map(|part| part.trim().strip_prefix("wait=")).next();
        let Some(text) = in_query.or(preferred) else { return Ok(Self { wait: None }) };
        let most = WEBHOOK_WAIT_MAX.as_secs();
        match text.trim_end_matches('s').parse() {
            Ok(seconds @ 1..) if seconds <= most => Ok(Self { wait: Some(Duration::from_secs(seconds)) }),
            _ => Err(Answer::error(400, format!("`wait` is a number of seconds from 1 to {most}"))),
        }
    }
}

fn trigger_id(path: &str) -> Result<TriggerId, Answer> {
    path.strip_prefix(WEBHOOK_PATH).and_then(|id| id.parse().ok()).ok_or_else(unknown)
}

fn unknown() -> Answer {
    Answer::error(404, "there is no webhook at this URL")
}

fn unavailable() -> Answer {
    Answer::error(503, "the host can't take it now; send it again later").with("retry-after", "5")
}

fn content_type(headers: &HeaderMap) -> Result<String, Answer> {
    let text = header(headers, "content-type").unwrap_or_default();
    let payload = Payload { content_type: text.into(), bytes: Vec::new() };
    payload.check("the body", INPUT_BYTES_MAX).map_err(|error| Answer::error(400, error.to_string()))?;
    Ok(payload.content_type)
}

/// The whole body, within its bounds.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Answer> {
    let too_large = || Answer::error(413, format!("a body has at most {INPUT_BYTES_MAX} bytes"));
    let told = header(headers, "content-length").and_then(|length| length.parse::<u64>().ok());
    if told.is_some_and(|length| length > INPUT_BYTES_MAX as u64) {
        return Err(too_large());
    }
    match timeout(WEBHOOK_BODY_TIMEOUT, Limited::new(body, INPUT_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Answer::error(400, "the body broke off")),
        Err(_) => {
            let seconds = WEBHOOK_BODY_TIMEOUT.as_secs();
            Err(Answer::error(408, format!("the body did not come within {seconds} s")))
        }
    }
}

fn of_store(error: StoreError) -> Answer {
    match error {
        StoreError::NotFound(_) => unknown(),
        StoreError::Unavailable(_) => unavailable(),
        StoreError::Conflict(words) => Answer::error(410, words),
        StoreError::Invalid(words) => Answer::error(400, words),
        StoreError::Quota(exceeded) => Answer::error(429, exceeded.to_string()),
        StoreError::Exists(_) | StoreError::LeaseLost | StoreError::Corrupt(_) => {
            tracing::error!(%error, "a webhook failed");
            Answer::error(500, "the host failed")
        }
    }
}

#[cfg(test)]
mod tests;
