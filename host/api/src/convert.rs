//! Conversions that several services need.

use crate::proto;
use crate::status::invalid;
use innkeeper_domain::Timestamp;
use innkeeper_domain::host::Labels;
use innkeeper_domain::limits::{INPUT_BYTES_MAX, NOTE_CHARS_MAX, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::check_priority;
use innkeeper_store::Page;
use std::time::Duration;
use tonic::Status;

/// A name of `what`, such as "the task".
pub(crate) fn name(text: &str, what: &str) -> Result<Name, Status> {
    text.parse().map_err(|e| invalid(format!("{what}: {e}")))
}

/// A name that may be left out.
pub(crate) fn optional_name(text: &str, what: &str) -> Result<Option<Name>, Status> {
    if text.is_empty() { Ok(None) } else { name(text, what).map(Some) }
}

/// A page of a list.
pub(crate) fn page(size: u32, token: String) -> Result<Page, Status> {
    let size = match usize::try_from(size) {
        Ok(0) => PAGE_ROWS_DEFAULT,
        Ok(size) if size <= PAGE_ROWS_MAX => size,
        _ => {
            return Err(invalid(format!(
                "a page of {size} rows was asked for; at most {PAGE_ROWS_MAX} are possible"
            )));
        }
    };
    Ok(Page { size, after: Some(token).filter(|token| !token.is_empty()) })
}

/// An input, within its bounds.
pub(crate) fn input(payload: Option<proto::Payload>) -> Result<Payload, Status> {
    let proto::Payload { content_type, bytes } = payload.unwrap_or_default();
    let payload = Payload { content_type, bytes };
    payload.check("the input", INPUT_BYTES_MAX).map_err(invalid)?;
    Ok(payload)
}

pub(crate) fn from_payload(payload: Payload) -> proto::Payload {
    proto::Payload { content_type: payload.content_type, bytes: payload.bytes }
}

/// Labels, from `KEY=VALUE` texts.
pub(crate) fn labels(texts: &[String]) -> Result<Labels, Status> {
    Labels::parse(texts.iter().map(String::as_str)).map_err(invalid)
}

pub(crate) fn from_labels(labels: &Labels) -> Vec<String> {
    labels.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

pub(crate) fn from_instant(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_microsecond();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// An instant, cut to microseconds.
pub(crate) fn instant(at: &prost_types::Timestamp, what: &str) -> Result<Timestamp, Status> {
    let micros = at.seconds.checked_mul(1_000_000).and_then(|m| m.checked_add(i64::from(at.nanos / 1_000)));
    micros
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .ok_or_else(|| invalid(format!("{what} is no instant between the years -9999 and 9999")))
}

pub(crate) fn from_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration that may be absent.
pub(crate) fn optional_duration(
    duration: Option<prost_types::Duration>,
    what: &str,
) -> Result<Option<Duration>, Status> {
    duration.map(|given| self::duration(Some(given), Duration::ZERO, what)).transpose()
}

/// A note, within its bound.
pub(crate) fn note(text: String) -> Result<String, Status> {
    if text.chars().count() > NOTE_CHARS_MAX {
        return Err(invalid(format!("a note has at most {NOTE_CHARS_MAX} characters")));
    }
    Ok(text)
}

/// A duration; `default` if it is absent.
pub(crate) fn duration(
    duration: Option<prost_types::Duration>,
    default: Duration,
    what: &str,
) -> Result<Duration, Status> {
    let Some(duration) = duration else { return Ok(default) };
    Duration::try_from(duration).map_err(|_| invalid(format!("{what} is negative or too long")))
}

/// A priority; whether it is in range is checked with what it belongs to.
pub(crate) fn priority(priority: Option<u32>) -> Result<Option<u8>, Status> {
    let small = priority.map(|priority| u8::try_from(priority).unwrap_or(u8::MAX));
    small.map_or(Ok(()), check_priority).map_err(invalid)?;
    Ok(small)
}
