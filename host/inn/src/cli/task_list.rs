//! `inn task ls`, and `inn task show --revisions`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::{Format, json, task, task_facts};
use anyhow::Result;
use innkeeper_api::proto::ListTasksRequest;
use serde_json::Value;

pub async fn tasks(format: Format, client: &Client, labels: Vec<String>) -> Result<()> {
    let (mut tasks, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = client
            .tasks()
            .list_tasks(call(ListTasksRequest { page_size: 0, page_token, labels: labels.clone() }))
            .await?
            .into_inner();
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    const COLUMNS: &[Column] = &[
        text("name"),
        number("revision"),
        text("component"),
        number("timeout"),
        number("memory"),
        text("state"),
        text("updated"),
    ];
    let rows = tasks.iter().map(|task| {
        let spec = task.spec.clone().unwrap_or_default();
        vec![
            task.name.clone(),
            task.revision.to_string(),
            short(&spec.component),
            task_facts::timeout(&spec),
            output::bytes(spec.memory_bytes),
            if task.paused_at.is_some() { "paused".into() } else { String::new() },
            output::instant(task.updated_at),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(tasks.iter().map(json::task).collect()))
}

pub async fn revisions(format: Format, client: &Client, name: &str) -> Result<()> {
    let revisions = task::revisions(client, name).await?;
    const COLUMNS: &[Column] = &[number("revision"), text("component"), text("repeats"), text("created")];
    let rows = revisions.iter().map(|revision| {
        vec![
            revision.number.to_string(),
            short(&revision.spec.clone().unwrap_or_default().component),
            if revision.rollback_of > 0 { revision.rollback_of.to_string() } else { String::new() },
            output::instant(revision.created_at),
        ]
    });
    let value = || Value::Array(revisions.iter().map(json::revision).collect());
    output::rows(format, COLUMNS, rows.collect(), value)
}

/// Enough of a digest to name it.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}
