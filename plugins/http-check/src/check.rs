//! What is expected of a page, and whether it is so.

use innkeeper::Failure;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes of the body that are read when the input doesn't say.
const BODY_BYTES_DEFAULT: usize = 256 * 1024;
/// Bytes of the body that can be asked for.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The timeout when the input doesn't say.
const TIMEOUT_MS_DEFAULT: u64 = 10_000;

/// What to fetch, and what to expect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub url: String,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A status, a class such as `"2xx"`, or a list of both; `"2xx"` by default.
    expect_status: Option<OneOrMore>,
    max_latency_ms: Option<f64>,
    /// A regular expression that the body must match somewhere.
    body_pattern: Option<String>,
    /// For the connection, the beginning of the response, and each silence in it.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    #[serde(default = "max_body_bytes")]
    pub max_body_bytes: usize,
}

fn get() -> String {
    "GET".into()
}

fn timeout_ms() -> u64 {
    TIMEOUT_MS_DEFAULT
}

fn max_body_bytes() -> usize {
    BODY_BYTES_DEFAULT
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(Status),
    More(Vec<Status>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Status {
    Code(u16),
    Class(String),
}

impl Status {
    fn allows(&self, status: u16) -> Result<bool, Failure> {
        match self {
            Self::Code(code) => Ok(*code == status),
            Self::Class(class) => {
                match class.to_ascii_lowercase().strip_suffix("xx").map(str::parse::<u16>) {
                    Some(Ok(hundreds @ 1..=5)) => Ok(status / 100 == hundreds),
                    _ => Err(bad_input(format!(
                        "expect_status: `{class}` is neither a number nor a class such as 2xx"
                    ))),
                }
            }
        }
    }
}

fn bad_input(message: String) -> Failure {
    Failure::permanent("bad-input", message)
}

/// The expectations, read.
#[derive(Debug)]
pub struct Checks {
    statuses: Vec<Status>,
    max_latency_ms: Option<f64>,
    body: Option<Regex>,
}

/// What came back.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    /// From the request's beginning to the body's end.
    pub latency_ms: f64,
    pub body: Vec<u8>,
    /// Whether the body is the whole body.
    pub whole: bool,
}

/// A page that is well.
#[derive(Debug, Serialize)]
pub struct Output {
    pub ok: bool,
    pub url: String,
    pub status: u16,
    pub latency_ms: f64,
    pub body_bytes: usize,
    pub body_whole: bool,
    pub checks: Vec<&'static str>,
}

impl Input {
    /// Reads the expectations; mistakes among them are permanent failures, found before anything is fetched.
    pub fn checks(&self) -> Result<Checks, Failure> {
        if self.max_body_bytes > BODY_BYTES_MAX {
            return Err(bad_input(format!("max_body_bytes: at most {BODY_BYTES_MAX} can be read")));
        }
        let body = self.body_pattern.as_deref().map(Regex::new).transpose();
        let statuses = match &self.expect_status {
            None => vec![Status::Class("2xx".into())],
            Some(OneOrMore::One(one)) => vec![one.copy()],
            Some(OneOrMore::More(more)) => more.iter().map(Status::copy).collect(),
        };
        for status in &statuses {
            status.allows(0)?;
        }
        let body = body.map_err(|e| bad_input(format!("body_pattern: {e}")))?;
        Ok(Checks { statuses, max_latency_ms: self.max_latency_ms, body })
    }
}

impl Status {
    fn copy(&self) -> Self {
        match self {
            Self::Code(code) => Self::Code(*code),
            Self::Class(class) => Self::Class(class.clone()),
        }
    }
}

impl Checks {
    /// Holds what came back against what is expected; the first that isn't so is the failure.
    pub fn apply(&self, url: &str, seen: &Seen) -> Result<Output, Failure> {
        let mut checks = vec!["status"];
        let mut allowed = false;
        for status in &self.statuses {
            allowed |= status.allows(seen.status)?;
        }
        if !allowed {
            let start: String = String::from_utf8_lossy(&seen.body).chars().take(80).collect();
            return Err(Failure::retryable("bad-status", format!("{url} answered {}: {start}", seen.status)));
        }
        if let Some(most) = self.max_latency_ms {
            checks.push("latency");
            if seen.latency_ms > most {
                let message = format!("{url} took {:.1} ms, at most {most} are expected", seen.latency_ms);
                return Err(Failure::retryable("too-slow", message));
            }
        }
        if let Some(pattern) = &self.body {
            checks.push("body");
            if !pattern.is_match(&String::from_utf8_lossy(&seen.body)) {
                let part = if seen.whole { "" } else { ", as far as it was read" };
                let message = format!("the body of {url} doesn't match `{pattern}`{part}");
                return Err(Failure::retryable("body-mismatch", message));
            }
        }
        Ok(Output {
            ok: true,
            url: url.into(),
            status: seen.status,
            latency_ms: (seen.latency_ms * 1000.0).round() / 1000.0,
            body_bytes: seen.body.len(),
            body_whole: seen.whole,
            checks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(expect: serde_json::Value, seen: Seen) -> Result<Output, Failure> {
        let mut input = json!({"url": "http://a.example/"});
        input.as_object_mut().unwrap().extend(expect.as_object().unwrap().clone());
        let input: Input = serde_json::from_value(input).unwrap();
        input.checks()?.apply(&input.url, &seen)
    }

    fn page(status: u16) -> Seen {
        Seen { status, latency_ms: 12.0, body: b"Welcome home".to_vec(), whole: true }
    }

    #[test]
    fn statuses_and_classes() {
        assert!(check(json!({}), page(204)).is_ok());
        assert_eq!(check(json!({}), page(500)).unwrap_err().code, "bad-status");
        assert!(check(json!({"expect_status": 404}), page(404)).is_ok());
        assert!(check(json!({"expect_status": ["3xx", 404]}), page(302)).is_ok());
        assert_eq!(check(json!({"expect_status": "ok"}), page(200)).unwrap_err().code, "bad-input");
    }

    #[test]
    fn latency_and_body() {
        assert_eq!(check(json!({"max_latency_ms": 10}), page(200)).unwrap_err().code, "too-slow");
        assert_eq!(check(json!({"max_latency_ms": 20}), page(200)).unwrap().checks, ["status", "latency"]);
        assert!(check(json!({"body_pattern": "Wel.*home$"}), page(200)).is_ok());
        assert_eq!(check(json!({"body_pattern": "Bye"}), page(200)).unwrap_err().code, "body-mismatch");
        let failure = check(json!({"body_pattern": "("}), page(200)).unwrap_err();
        assert!(failure.code == "bad-input" && !failure.is_retryable());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let input = json!({"url": "http://a.example/", "expect_staus": 200});
        assert!(serde_json::from_value::<Input>(input).unwrap_err().to_string().contains("expect_staus"));
    }
}
