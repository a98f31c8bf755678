//! `inn task diff`: what changed between two revisions, exactly as the API has it. What is shown rounded
//! elsewhere (a timeout, a size) is not rounded here, or a change would go unseen.

use super::client::Client;
use super::{Format, Usage, json, output, task, task_grants};
use anyhow::Result;
use innkeeper_api::proto::TaskSpec;
use innkeeper_domain::grants::{self, Grant};
use serde_json::{Value, json};

pub async fn run(
    format: Format,
    client: &Client,
    name: &str,
    from: Option<u32>,
    to: Option<u32>,
) -> Result<()> {
    let all = task::revisions(client, name).await?;
    let newest = all.first().map_or(0, |revision| revision.number);
    let to = to.unwrap_or(newest);
    let from = from.unwrap_or_else(|| to.saturating_sub(1).max(1));
    let find = |number: u32| {
        let found = all.iter().find(|revision| revision.number == number).and_then(|r| r.spec.clone());
        found.ok_or_else(|| Usage(format!("task `{name}` has no revision {number}; the newest is {newest}")))
    };
    let (old, new) = (find(from)?, find(to)?);
    let changed = changed(&old, &new);
    let (before, after) = (task_grants::of(&old)?, task_grants::of(&new)?);
    let grants = (texts(&grants::grown(&before, &after)), texts(&grants::lost(&before, &after)));
    show(format, changed, grants, &format!("revisions {from} and {to} are the same"))?;
    let gained = imports_gained(client, old.component, new.component).await;
    if !gained.is_empty() {
        output::note(&format!("now also imports {}", gained.join(", ")));
    }
    Ok(())
}

fn show(
    format: Format,
    changed: Vec<(String, Value, Value)>,
    (gained, lost): (Vec<String>, Vec<String>),
    same: &str,
) -> Result<()> {
    let has_grants = !gained.is_empty() || !lost.is_empty();
    if format == Format::Json {
        let grants = has_grants.then(|| ("grants".to_string(), json!({"gained": gained, "lost": lost})));
        let fields = changed.into_iter().map(|(name, old, new)| (name, json!({"from": old, "to": new})));
        return output::json(&Value::Object(grants.into_iter().chain(fields).collect()));
    }
    if changed.is_empty() {
        output::note(same);
    }
    if has_grants {
        section("grants", lost, gained)?;
    }
    for (name, old, new) in changed {
        let (removed, added) = lines_changed(&old, &new);
        section(&name, removed, added)?;
    }
    Ok(())
}

fn section(name: &str, removed: Vec<String>, added: Vec<String>) -> Result<()> {
    output::line(name)?;
    for line in removed.iter().map(|line| output::harmless(line)) {
        output::line(&console::style(format!("  - {line}")).red().to_string())?;
    }
    for line in added.iter().map(|line| output::harmless(line)) {
        output::line(&console::style(format!("  + {line}")).green().to_string())?;
    }
    Ok(())
}

fn texts(grants: &[Grant]) -> Vec<String> {
    grants.iter().map(ToString::to_string).collect()
}

/// The interfaces that only the new component asks for. Both are there as long as the task is.
async fn imports_gained(client: &Client, old: String, new: String) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    let Some(before) = task_grants::imports(client, old).await else { return Vec::new() };
    let Some(after) = task_grants::imports(client, new).await else { return Vec::new() };
    task_grants::imports_gained(&before, &after)
}

/// The fields that differ: name, old value, new value.
fn changed(old: &TaskSpec, new: &TaskSpec) -> Vec<(String, Value, Value)> {
    let (Value::Object(old), Value::Object(mut new)) = (json::spec(old), json::spec(new)) else {
        return Vec::new();
    };
    let pairs = old.into_iter().map(|(name, old)| {
        let new = new.get_mut(&name).map(Value::take).unwrap_or_default();
        (name, old, new)
    });
    pairs.filter(|(_, old, new)| old != new).collect()
}

/// The lines that only the old or only the new value has; both whole where just the order changed.
fn lines_changed(old: &Value, new: &Value) -> (Vec<String>, Vec<String>) {
    let (before, after) = (lines(old), lines(new));
    let removed: Vec<_> = before.iter().filter(|line| !after.contains(line)).cloned().collect();
    let added: Vec<_> = after.iter().filter(|line| !before.contains(line)).cloned().collect();
    if removed.is_empty() && added.is_empty() {
        return (vec![old.to_string()], vec![new.to_string()]);
    }
    (removed, added)
}

fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Object(fields) => fields.iter().map(|(name, value)| format!("{name} = {value}")).collect(),
        Value::Array(items) => items.iter().map(ToString::to_string).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_api::proto::RetryPolicy;

    fn names(old: &TaskSpec, new: &TaskSpec) -> Vec<String> {
        changed(old, new).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn no_change_is_too_small() {
        let spec = TaskSpec {
            timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
            memory_bytes: 64 << 20,
            arguments: vec!["a b".into()],
            retry: Some(RetryPolicy { jitter_percent: Some(10), ..RetryPolicy::default() }),
            ..TaskSpec::default()
        };
        assert!(names(&spec, &spec).is_empty());
        let timeout = Some(prost_types::Duration { seconds: 2, nanos: 1_000_000 });
        assert_eq!(names(&spec, &TaskSpec { timeout, ..spec.clone() }), ["timeout"]);
        assert_eq!(
            names(&spec, &TaskSpec { memory_bytes: (64 << 20) + 1, ..spec.clone() }),
            ["memory_bytes"]
        );
        let arguments = vec!["a".into(), "b".into()];
        assert_eq!(names(&spec, &TaskSpec { arguments, ..spec.clone() }), ["arguments"]);
        let requires = vec!["gpu=a100".into()];
        assert_eq!(names(&spec, &TaskSpec { requires, ..spec.clone() }), ["requires"]);
        let secrets = [("TOKEN".to_string(), "api-token".to_string())].into();
        assert_eq!(names(&spec, &TaskSpec { secrets, ..spec.clone() }), ["secrets"]);
        let retry = Some(RetryPolicy { jitter_percent: Some(50), ..RetryPolicy::default() });
        assert_eq!(names(&spec, &TaskSpec { retry, ..spec.clone() }), ["retry"]);
    }

    #[test]
    fn lines_that_stayed_are_left_out_unless_the_order_changed() {
        let (removed, added) = lines_changed(&json!({"A": "1", "B": "2"}), &json!({"A": "1", "B": "3"}));
        assert_eq!((removed, added), (vec!["B = \"2\"".to_string()], vec!["B = \"3\"".to_string()]));
        let (removed, added) = lines_changed(&json!(["a", "b"]), &json!(["b", "a"]));
        assert_eq!((removed, added), (vec![r#"["a","b"]"#.to_string()], vec![r#"["b","a"]"#.to_string()]));
    }
}
