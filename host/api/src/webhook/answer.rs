//! What the sender of a webhook is answered: the one place of HTTP's status codes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use http_body_util::Full;
use innkeeper_domain::failure::Failure;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::Run;
use innkeeper_domain::trigger::SkipReason;
use serde_json::{Value, json};
use tonic::body::Body;

/// The header that names the run of an answer.
const RUN_HEADER: &str = "innkeeper-run";

#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: Vec<(&'static str, HeaderValue)>,
    body: Bytes,
}

/// A header's value, if it is visible ASCII.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Answer {
    fn json(status: u16, value: &Value) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let answer = Self { status, headers: Vec::new(), body: format!("{value}\n").into() };
        answer.with("content-type", "application/json")
    }

    /// Why there is no run; `status` is HTTP's.
    pub fn error(status: u16, words: impl Into<String>) -> Self {
        Self::json(status, &json!({"error": words.into()}))
    }

    /// The same with one header more.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    fn of_run(self, run: RunId) -> Self {
        self.with(RUN_HEADER, &run.to_string())
    }

    /// The run is there, and goes its way.
    pub fn accepted(run: RunId) -> Self {
        Self::json(202, &json!({"run": run.to_string()})).of_run(run)
    }

    /// The sender tried again what has its run.
    pub fn existing(run: RunId) -> Self {
        Self::json(202, &json!({"run": run.to_string(), "existing": true})).of_run(run)
    }

    /// The very same request was here before.
    pub fn replayed(run: RunId) -> Self {
        let error = "this very request was here before, and has its run";
        Self::json(409, &json!({"error": error, "run": run.to_string()})).of_run(run)
    }

    /// The delivery's id has a run, of something else.
    pub fn other_body(run: RunId) -> Self {
        let error = "another body under this id was here before, and has its run";
        Self::json(409, &json!({"error": error, "run": run.to_string()})).of_run(run)
    }

    /// There is no run, as the trigger, its tenant or their limits say.
    pub fn skipped(reason: SkipReason) -> Self {
        let skipped = |status| Self::json(status, &json!({"skipped": reason.as_str()}));
        match reason {
            SkipReason::Paused | SkipReason::TenantSuspended => skipped(503).with("retry-after", "60"),
            SkipReason::QueueFull | SkipReason::Quota => skipped(429).with("retry-after", "10"),
            // As it was told to: trying again would change nothing.
            _ => skipped(200),
        }
    }

    /// A run that has ended: its output, or how it failed.
    pub fn ended(run: Run) -> Self {
        let id = run.id;
        if let Some(output) = run.output {
            let answer = Self { status: StatusCode::OK, headers: Vec::new(), body: output.bytes.into() };
            let content_type = Some(output.content_type).filter(|text| !text.is_empty());
            return answer.with("content-type", content_type.as_deref().unwrap_or(UNKNOWN_BYTES)).of_run(id);
        }
        let failure = run.failure.map(|Failure { kind, code, message, .. }| {
            json!({"kind": kind.as_str(), "code": code, "message": message})
        });
        let ended = json!({"run": id.to_string(), "state": run.state.as_str(), "failure": failure});
        Self::json(502, &ended).of_run(id)
    }

    /// Connections of HTTP/1 end with their answer, so that nobody holds one idle.
    pub fn into_response(self, version: Version) -> Response<Body> {
        let mut response = Response::new(Body::new(Full::new(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers.into_iter().map(|(name, value)| (HeaderName::from_static(name), value)));
        headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if version < Version::HTTP_2 {
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What a body is whose kind nobody has said.
const UNKNOWN_BYTES: &str = "application/octet-stream";
