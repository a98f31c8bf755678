//! What `-o json` prints. Names are snake_case, instants RFC 3339, durations seconds. Payloads are the JSON
//! value itself where they are JSON, a string where they are text, else `{"base64": ..}`.

use super::output::domain_instant;
use super::task_grants;
use innkeeper_api::proto::{
    self, Backfill, BackfillPlan, Component, Failure, Host, LogLine, Payload, Revision, Run, Skip, Task,
    TaskSpec, Trigger, backfill, component, host, run, trigger,
};
use serde_json::{Map, Value, json};
use std::time::Duration;

pub fn instant(at: Option<prost_types::Timestamp>) -> Value {
    at.and_then(domain_instant).map_or(Value::Null, |at| Value::String(at.to_string()))
}

/// Seconds.
pub fn seconds(duration: Option<prost_types::Duration>) -> Value {
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration.map_or(Value::Null, |duration| json!(duration.as_secs_f64()))
}

pub fn component(component: &Component) -> Value {
    json!({
        "digest": component.digest,
        "size": component.size,
        "shape": shape(component),
        "adapted": component.adapted,
        "imports": component.imports,
        "could_ask_for": task_grants::could_ask_for(&component.imports),
        "created_at": instant(component.created_at),
    })
}

pub fn host(host: &Host) -> Value {
    json!({
        "id": host.id,
        "name": host.name,
        "state": host_state(host),
        "roles": host.roles,
        "labels": labels(&host.labels),
        "running": host.running,
        "capacity": host.capacity,
        "address": (!host.address.is_empty()).then_some(&host.address),
        "version": host.version,
        "started_at": instant(host.started_at),
        "lease_until": instant(host.lease_until),
        "lease_left": seconds(host.lease_left),
    })
}

/// The word for a host's state.
pub fn host_state(host: &Host) -> &'static str {
    match host.state() {
        host::State::Active => "active",
        host::State::Cordoned => "cordoned",
        host::State::Draining => "draining",
        host::State::Unspecified => "unknown",
    }
}

/// `KEY=VALUE` texts as an object.
fn labels(labels: &[String]) -> Value {
    labels.iter().map(|label| label.split_once('=').unwrap_or((label, ""))).collect()
}

/// The word for a component's shape.
pub fn shape(component: &Component) -> &'static str {
    match component.shape() {
        component::Shape::Handler => "handler",
        component::Shape::Command => "command",
        component::Shape::Unspecified => "unknown",
    }
}

pub fn spec(spec: &TaskSpec) -> Value {
    let retry = spec.retry.clone().unwrap_or_default();
    let mut config: Vec<_> = spec.config.iter().collect();
    config.sort();
    let mut secrets: Vec<_> = spec.secrets.iter().collect();
    secrets.sort();
    json!({
        "component": spec.component,
        "config": config.into_iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>(),
        "secrets": secrets.into_iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>(),
        "arguments": spec.arguments,
        "timeout": seconds(spec.timeout),
        "memory_bytes": spec.memory_bytes,
        "scratch_bytes": (spec.scratch_bytes > 0).then_some(spec.scratch_bytes),
        "allow_http": spec.allow_http,
        "requires": labels(&spec.requires),
        "start_deadline": seconds(spec.start_deadline),
        "deadline": seconds(spec.deadline),
        "cancel_grace": seconds(spec.cancel_grace),
        "labels": labels(&spec.labels),
        "concurrency": (spec.concurrency > 0).then_some(spec.concurrency),
        "concurrency_key": (!spec.concurrency_key.is_empty()).then_some(&spec.concurrency_key),
        "key_concurrency": (!spec.concurrency_key.is_empty()).then_some(spec.key_concurrency),
        "rate": (!spec.rate.is_empty()).then_some(&spec.rate),
        "priority": spec.priority,
        "retry": {
            "max_attempts": retry.max_attempts,
            "initial_backoff": seconds(retry.initial_backoff),
            "backoff_factor": retry.backoff_factor,
            "max_backoff": seconds(retry.max_backoff),
            "jitter_percent": retry.jitter_percent,
            "on": retry.on,
        },
    })
}

pub fn task(task: &Task) -> Value {
    json!({
        "id": task.id,
        "name": task.name,
        "revision": task.revision,
        "spec": spec(&task.spec.clone().unwrap_or_default()),
        "created_at": instant(task.created_at),
        "updated_at": instant(task.updated_at),
        "paused_at": instant(task.paused_at),
        "pause_note": task.paused_at.is_some().then_some(&task.pause_note),
    })
}

pub fn revision(revision: &Revision) -> Value {
    json!({
        "number": revision.number,
        "rollback_of": (revision.rollback_of > 0).then_some(revision.rollback_of),
        "spec": spec(&revision.spec.clone().unwrap_or_default()),
        "created_at": instant(revision.created_at),
    })
}

pub fn trigger(trigger: &Trigger) -> Value {
    let schedule = match trigger.schedule.as_ref().and_then(|schedule| schedule.kind.as_ref()) {
        Some(proto::schedule::Kind::Cron(cron)) => {
            json!({
                "cron": cron.expression,
                "time_zone": cron.time_zone,
                "dialect": cron.dialect,
                "gap": cron.gap,
                "fold": cron.fold,
            })
        }
        Some(proto::schedule::Kind::Interval(interval)) => {
            json!({"every": seconds(interval.every), "anchor": instant(interval.anchor)})
        }
        Some(proto::schedule::Kind::FixedDelay(fixed)) => {
            json!({"fixed_delay": seconds(fixed.delay), "anchor": instant(fixed.anchor)})
        }
        Some(proto::schedule::Kind::Once(at)) => json!({"at": instant(Some(*at))}),
        None => Value::Null,
    };
    json!({
        "id": trigger.id,
        "name": trigger.name,
        "task": trigger.task,
        "schedule": schedule,
        "event": trigger.event.as_ref().map(|event| {
            json!({
                "pattern": event.pattern,
                "filter": (!event.filter.is_empty()).then_some(&event.filter),
                "input_from": (!event.input_from.is_empty()).then_some(&event.input_from),
                "debounce": seconds(event.debounce),
                "max_wait": seconds(event.max_wait),
                "batch": (event.batch > 0).then_some(event.batch),
                "batch_wait": seconds(event.batch_wait),
            })
        }),
        "after": trigger.after.as_ref().map(|after| json!({"task": after.task, "when": after.when})),
        "webhook": trigger.webhook.as_ref().map(|webhook| {
            json!({
                "scheme": webhook.scheme,
                "secret": webhook.secret,
                "tolerance": seconds(webhook.tolerance),
                "url": webhook.path,
            })
        }),
        "behind": trigger.behind,
        "description": trigger.description,
        "input": payload(trigger.input.as_ref()),
        "input_content_type": trigger.input.as_ref().map(|input| &input.content_type),
        "overlap": trigger.overlap,
        "priority": trigger.priority,
        "catch_up": trigger.catch_up,
        "catch_up_window": seconds(trigger.catch_up_window),
        "state": trigger_state(trigger),
        "pause_note": (!trigger.pause_note.is_empty()).then_some(&trigger.pause_note),
        "not_before": instant(trigger.not_before),
        "not_after": instant(trigger.not_after),
        "max_runs": (trigger.max_runs > 0).then_some(trigger.max_runs),
        "jitter": seconds(trigger.jitter),
        "exclude": trigger.exclude,
        "labels": labels(&trigger.labels),
        "next_start_at": instant(trigger.next_start_at),
        "next_times": trigger.next_times.iter().map(|at| instant(Some(*at))).collect::<Vec<_>>(),
        "last_nominal_at": instant(trigger.last_nominal_at),
        "started": trigger.started,
        "skipped": trigger.skipped,
        "created_at": instant(trigger.created_at),
    })
}

/// The word for a trigger's state.
pub fn trigger_state(trigger: &Trigger) -> &'static str {
    match trigger.state() {
        trigger::State::Active => "active",
        trigger::State::Paused => "paused",
        trigger::State::Finished => "finished",
        trigger::State::Unspecified => "unknown",
    }
}

pub fn skip(skip: &Skip) -> Value {
    json!({"from": instant(skip.from), "to": instant(skip.to), "count": skip.count, "reason": skip.reason})
}

pub fn backfill(backfill: &Backfill) -> Value {
    json!({
        "id": backfill.id,
        "trigger": backfill.trigger,
        "task": backfill.task,
        "from": instant(backfill.from),
        "to": instant(backfill.to),
        "concurrency": backfill.concurrency,
        "again": backfill.again,
        "state": backfill_state(backfill),
        "waits_for": (!backfill.waits_for.is_empty()).then_some(&backfill.waits_for),
        "times": backfill.times,
        "left_to_trigger": backfill.left_to_trigger,
        "created": backfill.created,
        "left_out": backfill.left_out,
        "remaining": backfill.remaining,
        "unfinished": backfill.unfinished,
        "succeeded": backfill.succeeded,
        "failed": backfill.failed,
        "cancelled": backfill.cancelled,
        "created_at": instant(backfill.created_at),
        "finished_at": instant(backfill.finished_at),
    })
}

/// The word for a backfill's state.
pub fn backfill_state(backfill: &Backfill) -> &'static str {
    match backfill.state() {
        backfill::State::Active => "active",
        backfill::State::Finished => "finished",
        backfill::State::Cancelled => "cancelled",
        backfill::State::Unspecified => "unknown",
    }
}

pub fn backfill_plan(plan: &BackfillPlan) -> Value {
    let instants =
        |times: &[prost_types::Timestamp]| -> Value { times.iter().map(|at| instant(Some(*at))).collect() };
    let ran: serde_json::Map<String, Value> =
        plan.ran.iter().map(|ran| (ran.state.clone(), ran.count.into())).collect();
    json!({
        "times": plan.times,
        "left_to_trigger": plan.left_to_trigger,
        "ran": ran,
        "runs": plan.runs,
        "first": instants(&plan.first),
        "last": instants(&plan.last),
    })
}

pub fn run(run: &Run) -> Value {
    let content_type =
        |payload: &Option<Payload>| payload.as_ref().map(|payload| payload.content_type.clone());
    let mut value = json!({
        "id": run.id,
        "task": run.task,
        "revision": run.revision,
        "trigger": (!run.trigger.is_empty()).then_some(&run.trigger),
        "backfill": (!run.backfill.is_empty()).then_some(&run.backfill),
        "priority": run.priority,
        "concurrency_key": (!run.concurrency_key.is_empty()).then_some(&run.concurrency_key),
        "paused": run.paused,
        "waits_for": (!run.waits_for.is_empty()).then_some(&run.waits_for),
        "nominal_at": instant(run.nominal_at),
        "state": run_state(run),
        "attempt": run.attempt,
        "idempotency_key": (!run.idempotency_key.is_empty()).then_some(&run.idempotency_key),
        "input": payload(run.input.as_ref()),
        "input_content_type": content_type(&run.input),
        "output": payload(run.output.as_ref()),
        "output_content_type": content_type(&run.output),
        "failure": failure(run.failure.as_ref()),
        "progress": run.progress.as_ref().map(|p| json!({"done": p.done, "total": p.total, "note": p.note})),
        "cancel_requested": run.cancel_requested,
        "created_at": instant(run.created_at),
        "available_at": instant(run.available_at),
        "started_at": instant(run.started_at),
        "finished_at": instant(run.finished_at),
        "start_by": instant(run.start_by),
        "end_by": instant(run.end_by),
        "reopened_at": instant(run.reopened_at),
        "labels": labels(&run.labels),
        "attempts": run.attempts.iter().map(|attempt| json!({
            "number": attempt.number,
            "host": attempt.host,
            "started_at": instant(attempt.started_at),
            "finished_at": instant(attempt.finished_at),
            "failure": failure(attempt.failure.as_ref()),
            "wall": seconds(attempt.wall),
            "peak_memory_bytes": attempt.peak_memory_bytes,
            "cpu_seconds": seconds(attempt.cpu),
        })).collect::<Vec<_>>(),
    });
    if let (None, Value::Object(fields)) = (&run.input, &mut value) {
        // Of a list, which doesn't have them: absent is not the same as empty.
        for absent in ["input", "input_content_type", "output", "output_content_type", "attempts"] {
            fields.shift_remove(absent);
        }
    }
    value
}

fn failure(failure: Option<&Failure>) -> Value {
    failure.map_or(Value::Null, |f| json!({"kind": f.kind, "code": f.code, "message": f.message}))
}

/// The word for a run's state.
pub fn run_state(run: &Run) -> &'static str {
    match run.state() {
        run::State::Queued => "queued",
        run::State::Running => "running",
        run::State::Waiting => "waiting",
        run::State::Succeeded => "succeeded",
        run::State::Failed => "failed",
        run::State::Cancelled => "cancelled",
        run::State::Unspecified => "unknown",
    }
}

pub fn line(line: &LogLine) -> Value {
    json!({
        "attempt": line.attempt,
        "sequence": line.sequence,
        "at": instant(line.at),
        "level": level(line),
        "text": line.text,
    })
}

/// The word for a line's level.
pub fn level(line: &LogLine) -> &'static str {
    match line.level() {
        proto::log_line::Level::Trace => "trace",
        proto::log_line::Level::Debug => "debug",
        proto::log_line::Level::Warn => "warn",
        proto::log_line::Level::Error => "error",
        proto::log_line::Level::Info | proto::log_line::Level::Unspecified => "info",
    }
}

pub fn payload(payload: Option<&Payload>) -> Value {
    let Some(Payload { content_type, bytes }) = payload else { return Value::Null };
    if content_type.starts_with("application/json")
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok("") => Value::Null,
        Ok(text) => Value::String(text.into()),
        Err(_) => json!({"base64": base64(bytes)}),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_as_what_they_are() {
        let of = |content_type: &str, bytes: &[u8]| {
            payload(Some(&Payload { content_type: content_type.into(), bytes: bytes.into() }))
        };
        assert_eq!(of("application/json", b"{\"a\":1}"), json!({"a": 1}));
        assert_eq!(of("application/json", b"{"), json!("{"));
        assert_eq!(of("text/plain", b"hi"), json!("hi"));
        assert_eq!(of("", b"\xff\xfe"), json!({"base64": "//4="}));
        assert_eq!(payload(None), Value::Null);
    }
}
