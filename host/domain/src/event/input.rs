//! The inputs of runs that events start.

use super::Event;
use crate::expression::{Expression, Variables};
use crate::limits::INPUT_BYTES_MAX;
use crate::payload::Payload;
use crate::rule::EventRule;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// What expressions over one event can name.
pub const EVENT_VARIABLES: [&str; 5] = ["data", "topic", "id", "time", "content_type"];

/// What expressions over several can name: a list of objects that have these.
pub const BATCH_VARIABLES: [&str; 1] = ["events"];

/// The event as an expression sees it; none if its data isn't JSON.
pub(super) fn variables(event: &Event) -> Option<Variables> {
    let data: Value = serde_json::from_slice(&event.data.bytes).ok()?;
    Some(
        Variables::new()
            .with("data", data)
            .with("topic", json!(event.topic.as_str()))
            .with("id", json!(event.id))
            .with("time", json!(event.at.to_string()))
            .with("content_type", json!(event.data.content_type)),
    )
}

fn object(event: &Event) -> Option<Value> {
    Some(json!({
        "data": serde_json::from_slice::<Value>(&event.data.bytes).ok()?,
        "topic": event.topic.as_str(),
        "id": event.id,
        "time": event.at.to_string(),
        "content_type": event.data.content_type,
    }))
}

/// The event as JSON: its data as they are if they are JSON, digits and all.
fn text(event: &Event) -> String {
    let quoted = |text: &str| Value::String(text.into()).to_string();
    let (id, topic) = (quoted(&event.id), quoted(event.topic.as_str()));
    let begin = format!(r#"{{"id":{id},"topic":{topic},"time":"{}""#, event.at);
    let data = &event.data.bytes;
    let is_json = serde_json::from_slice::<IgnoredAny>(data).is_ok();
    match std::str::from_utf8(data) {
        Ok(data) if is_json => format!(r#"{begin},"data":{data}}}"#),
        _ => {
            let (kind, data) = (quoted(&event.data.content_type), STANDARD.encode(data));
            format!(r#"{begin},"content_type":{kind},"data_base64":"{data}"}}"#)
        }
    }
}

/// The input of a run of one event, or of those of a batch; none if the expression makes none of them. What that goes
/// through is added to `work`.
pub(super) fn of(
    rule: &EventRule,
    expression: Option<&Expression>,
    events: &[&Event],
    is_batch: bool,
    work: &mut usize,
) -> Option<Payload> {
    debug_assert_eq!(rule.input_from.is_some(), expression.is_some());
    let payload = match (expression, events) {
        (None, [event]) if !is_batch => Payload::json(text(event)),
        (None, events) => {
            let events: Vec<String> = events.iter().map(|event| text(event)).collect();
            Payload::json(format!(r#"{{"events":[{}]}}"#, events.join(",")))
        }
        (Some(expression), [event]) if !is_batch => {
            Payload::json(expression.value(&variables(event)?, work).ok()?.to_string())
        }
        (Some(expression), events) => {
            let events: Option<Vec<Value>> = events.iter().map(|event| object(event)).collect();
            let variables = Variables::new().with("events", Value::Array(events?));
            Payload::json(expression.value(&variables, work).ok()?.to_string())
        }
    };
    payload.check("the input", INPUT_BYTES_MAX).is_ok().then_some(payload)
}

/// A text as every store can keep it.
pub fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The input of a run that comes after one that failed, as the event of its end tells it, or was cancelled with no
/// failure.
pub(super) fn of_failure(event: &Event) -> Payload {
    let end: Value = serde_json::from_slice(&event.data.bytes).unwrap_or_default();
    match end.get("failure").filter(|failure| failure.is_object()) {
        Some(failure) => Payload::json(failure.to_string()),
        None => {
            let cancelled = json!({"kind": "cancelled", "code": "", "message": "it was cancelled"});
            Payload::json(cancelled.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn event(data: &[u8]) -> Event {
        Event {
            sequence: 1,
            id: "7".into(),
            topic: "orders.new".parse().unwrap(),
            data: Payload { content_type: "text/x".into(), bytes: data.into() },
            at: Timestamp::UNIX_EPOCH,
            depth: 0,
            ended: None,
        }
    }

    fn made(text: Option<&str>, events: &[&Event], is_batch: bool) -> Option<String> {
        let rule = EventRule { input_from: text.map(Into::into), ..EventRule::new("**".parse().unwrap()) };
        let names: &[&str] = if is_batch { &BATCH_VARIABLES } else { &EVENT_VARIABLES };
        let expression = text.map(|text| Expression::parse(text, names).unwrap());
        let input = of(&rule, expression.as_ref(), events, is_batch, &mut 0)?;
        Some(String::from_utf8(input.bytes).unwrap())
    }

    #[test]
    fn inputs() {
        let (json, bytes) = (event(b"{\"total\": 123456789012345678901234567890}"), event(&[255, 0]));
        let one = r#"{"id":"7","topic":"orders.new","time":"1970-01-01T00:00:00Z","#;
        let whole = format!(r#"{one}"data":{{"total": 123456789012345678901234567890}}}}"#);
        assert_eq!(made(None, &[&json], false).as_deref(), Some(whole.as_str()), "no digit is lost");
        let encoded = format!(r#"{one}"content_type":"text/x","data_base64":"/wA="}}"#);
        assert_eq!(made(None, &[&bytes], false), Some(encoded.clone()));
        assert_eq!(made(None, &[&bytes], true), Some(format!(r#"{{"events":[{encoded}]}}"#)));
        let small = event(b"{\"n\": 2}");
        assert_eq!(made(Some("data.n"), &[&small], false).as_deref(), Some("2"));
        assert_eq!(made(Some("events.map(e, e.data.n)"), &[&small, &small], true).as_deref(), Some("[2,2]"));
        assert_eq!(made(Some("data.n"), &[&bytes], false), None);
        assert_eq!(made(Some("data.missing"), &[&small], false), None);
    }

    #[test]
    fn failures() {
        let of = |data: &[u8]| serde_json::from_slice::<Value>(&of_failure(&event(data)).bytes).unwrap();
        let failure = json!({"kind": "guest", "code": "7", "message": "no"});
        assert_eq!(of(json!({"failure": failure}).to_string().as_bytes()), failure);
        assert_eq!(of(br#"{"failure": null}"#)["kind"], "cancelled");
    }
}
