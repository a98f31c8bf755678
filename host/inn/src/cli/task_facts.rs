//! What there is to tell of a task's definition.

use super::{output, task_limits};
use innkeeper_api::proto::TaskSpec;
use std::time::Duration;

/// Its timeout.
pub fn timeout(spec: &TaskSpec) -> String {
    span(spec.timeout)
}

/// Empty if it is absent.
fn span(duration: Option<prost_types::Duration>) -> String {
    duration.and_then(|d| Duration::try_from(d).ok()).map(output::duration).unwrap_or_default()
}

/// Empty if it has none.
fn scratch(spec: &TaskSpec) -> String {
    if spec.scratch_bytes == 0 { String::new() } else { output::bytes(spec.scratch_bytes) }
}

/// By name, as it is shown.
pub fn spec_facts(spec: &TaskSpec) -> Vec<(&'static str, String)> {
    let mut config: Vec<String> = spec.config.iter().map(|(key, value)| format!("{key}={value}")).collect();
    config.sort();
    let mut secrets: Vec<String> = spec.secrets.iter().map(|(key, name)| format!("{key}={name}")).collect();
    secrets.sort();
    let retry = spec.retry.clone().unwrap_or_default();
    let waits = |d: Option<prost_types::Duration>| {
        d.and_then(|d| Duration::try_from(d).ok()).map(output::duration).unwrap_or_default()
    };
    let retry = match retry.max_attempts {
        0 | 1 => "1, no retries".into(),
        attempts => format!(
            "{attempts}, waiting {} x {} up to {}, on {}",
            waits(retry.initial_backoff),
            retry.backoff_factor,
            waits(retry.max_backoff),
            retry.on.join(", ")
        ),
    };
    vec![
        ("component", spec.component.clone()),
        ("timeout", timeout(spec)),
        ("memory", output::bytes(spec.memory_bytes)),
        ("scratch", scratch(spec)),
        ("attempts", retry),
        ("arguments", spec.arguments.join(" ")),
        ("config", config.join("\n")),
        ("secrets", secrets.join("\n")),
        ("allow http", spec.allow_http.join("\n")),
        ("requires", spec.requires.join("\n")),
        ("start deadline", span(spec.start_deadline)),
        ("deadline", span(spec.deadline)),
        ("cancel grace", span(spec.cancel_grace)),
        ("labels", spec.labels.join("\n")),
        ("limits", task_limits::words(spec)),
        ("priority", spec.priority().to_string()),
    ]
}
