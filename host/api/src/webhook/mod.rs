//! Webhooks: HTTP requests that start runs, on the same port as the calls. They have no token: who sends one has signed
//! it with its trigger's secret (`domain::webhook`).

mod answer;
mod record;

use crate::Api;
use crate::auth::peer_address;
use crate::gate::Gate;
use crate::intercept::Intercept;
use crate::login_limit::network;
use crate::peer::Peer;
use crate::secret::VaultError;
use crate::slots::Slots;
use answer::{Answer, header};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use innkeeper_domain::ids::{RunId, TenantId, TriggerId};
use innkeeper_domain::limits::{
    INPUT_BYTES_MAX, WEBHOOK_BODY_STILL_MAX, WEBHOOK_BODY_TIMEOUT, WEBHOOK_WAIT_MAX,
};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::rule::{Rule, WebhookRule};
use innkeeper_domain::run::Run;
use innkeeper_domain::secret::SecretText;
use innkeeper_domain::trigger::Trigger;
use innkeeper_domain::webhook::{Delivery, Scheme};
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Fired, NewFiring, StoreError};
use record::{Names, Said};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tonic::body::Body;

/// What the paths of webhooks begin with; a trigger's id follows.
pub const WEBHOOK_PATH: &str = "/hooks/";

/// The longest that a run isn't looked at while somebody waits for it: wake-ups are hints.
const POLL: Duration = Duration::from_secs(2);

/// Answers requests to webhooks, and lets calls through.
#[derive(Clone)]
pub(crate) struct Webhooks {
    api: Api,
    gate: Arc<Gate>,
    senders: Slots<IpAddr>,
    names: Names,
    said: Said,
}

impl Intercept for Webhooks {
    async fn intercept(self, request: Request<Body>) -> ControlFlow<Response<Body>, Request<Body>> {
        let version = request.version();
        let is_hook = request.uri().path().starts_with(WEBHOOK_PATH);
        // Calls end with trailers, which HTTP/1 clients don't read.
        if !is_hook && version >= Version::HTTP_2 {
            return ControlFlow::Continue(request);
        }
        let answer = match is_hook {
            true => self.answer(request).await.unwrap_or_else(|refused| refused),
            false => Answer::error(404, "calls are gRPC over HTTP/2 here, and webhooks are at /hooks/ID"),
        };
        ControlFlow::Break(answer.into_response(version))
    }
}

/// What a sender asks for beside a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    /// How long it waits for the output.
    wait: Option<Duration>,
}

impl Webhooks {
    pub fn new(api: Api, gate: Arc<Gate>) -> Self {
        Self { api, gate, senders: Slots::senders(), names: Names::default(), said: Said::default() }
    }

    /// The answer; `Err` if the request is refused.
    async fn answer(&self, request: Request<Body>) -> Result<Answer, Answer> {
        let (parts, body) = request.into_parts();
        let id = trigger_id(parts.uri.path())?;
        if parts.method != Method::POST {
            return Err(Answer::error(405, "a webhook takes POST").with("allow", "POST"));
        }
        let asked = Asked::of(&parts)?;
        let content_type = content_type(&parts.headers)?;
        let (tenant, trigger) = self.api.store.trigger_by_id(id).await.map_err(of_store)?;
        let Rule::Webhook(rule) = &trigger.spec.rule else { return Err(unknown()) };
        // Who can't be the sender, by the headers alone, takes no slot, and no body is read.
        let header = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
        let delivery = match rule.scheme.claim(&header, rule.tolerance, (self.api.now)()) {
            Err(why) => Err(why),
            Ok(claim) => {
                let slots = (
                    self.senders.take(network(peer_address(&parts))).map_err(busy)?,
                    self.api.webhooks.take(tenant).map_err(busy)?,
                );
                let input = Payload { content_type, bytes: read(&parts.headers, body).await? };
                let secret = self.secret(tenant, &trigger, rule).await?;
                claim.verify(&input.bytes, &secret).map(|delivery| (delivery, input, slots))
            }
        };
        let (delivery, input, slots) = match delivery {
            Ok(delivery) => delivery,
            Err(why) => {
                record::refused(&self.gate, &self.names, &*self.api.store, &parts, tenant, &trigger).await;
                return Err(Answer::error(401, why.to_string()));
            }
        };
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.standing.becomes_known();
        }
        let begun = self.start(tenant, &trigger, rule, delivery, input).await?;
        // Who waits holds no body any more.
        drop(slots);
        match (begun, asked.wait) {
            (Begun::Run(run) | Begun::Existing(run), Some(wait)) => self.wait(tenant, run, wait).await,
            (Begun::Run(run), None) => Ok(Answer::accepted(run)),
            (Begun::Existing(run), None) => Ok(Answer::existing(run)),
            (Begun::Answered(answer), _) => Ok(answer),
        }
    }

    /// What the trigger's requests are signed with.
    async fn secret(
        &self,
        tenant: TenantId,
        trigger: &Trigger,
        rule: &WebhookRule,
    ) -> Result<SecretText, Answer> {
        self.api.vault.text(tenant, &rule.secret).await.map_err(|error| {
            if self.said.is_due(trigger.id, (self.api.now)()) {
                tracing::error!(trigger = %trigger.id, secret = %rule.secret, %error, "a webhook can't be verified");
            }
            match error {
                VaultError::Store(StoreError::Unavailable(_)) => unavailable(),
                _ => Answer::error(500, "the secret of this webhook can't be read; its owner must set it again"),
            }
        })
    }

    async fn start(
        &self,
        tenant: TenantId,
        trigger: &Trigger,
        rule: &WebhookRule,
        delivery: Delivery,
        input: Payload,
    ) -> Result<Begun, Answer> {
        let now = (self.api.now)();
        // A sender's clock may be ahead: a run isn't due before it is asked for.
        let nominal_at = delivery.signed_at.map_or(now, |at| at.min(now));
        let run_id = RunId::new(now);
        // The id that a sender gives is for one body. Stripe's is an event's, told anew each time.
        let sent = (rule.scheme == Scheme::Standard).then(|| input.bytes.clone());
        let firing = NewFiring { run_id, occurrence: delivery.key, nominal_at, input };
        let fired = self.api.store.trigger_fire(tenant, trigger.id, firing, now).await.map_err(of_store)?;
        Ok(match fired {
            Fired::Run(run) => Begun::Run(run),
            Fired::Existing(id) => {
                let first = self.api.store.run_get(tenant, id).await.map_err(of_store)?;
                if sent.is_some_and(|sent| sent != first.input.bytes) {
                    Begun::Answered(Answer::other_body(id))
                } else if is_signed_again(delivery.signed_at, &first, rule.tolerance) {
                    Begun::Existing(id)
                } else {
                    Begun::Answered(Answer::replayed(id))
                }
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

/// Whether a sender tries again: it signs again then, with the time then. Where no time is signed, that can't be told
/// from the very same request.
fn is_signed_again(signed_at: Option<Timestamp>, first: &Run, tolerance: Duration) -> bool {
    // The first was signed when it was due, or if the sender's clock was ahead, at most so much later.
    let was_ahead = first.nominal_at == first.created_at;
    let latest = if was_ahead { time::after(first.nominal_at, tolerance) } else { first.nominal_at };
    signed_at.is_some_and(|at| at > latest)
}

enum Begun {
    Run(RunId),
    /// The delivery's run of before.
    Existing(RunId),
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

fn busy(status: Status) -> Answer {
    Answer::error(429, status.message()).with("retry-after", "1")
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
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Answer> {
    let told = header(headers, "content-length").and_then(|length| length.parse::<u64>().ok());
    if told.is_some_and(|length| length > INPUT_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let collected = timeout(WEBHOOK_BODY_TIMEOUT, collect(body, WEBHOOK_BODY_STILL_MAX)).await;
    collected.unwrap_or_else(|_| Err(late("did not come", WEBHOOK_BODY_TIMEOUT)))
}

fn too_large() -> Answer {
    Answer::error(413, format!("a body has at most {INPUT_BYTES_MAX} bytes"))
}

fn late(what: &str, limit: Duration) -> Answer {
    Answer::error(408, format!("the body {what} within {} s", limit.as_secs()))
}

/// A body that doesn't stand still for so long.
async fn collect(body: Body, still: Duration) -> Result<Vec<u8>, Answer> {
    let (mut body, mut bytes) = (Limited::new(body, INPUT_BYTES_MAX), Vec::new());
    loop {
        let next = timeout(still, body.frame()).await.map_err(|_| late("did not go on", still))?;
        let Some(frame) = next else { return Ok(bytes) };
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => too_large(),
            false => Answer::error(400, "the body broke off"),
        })?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
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
