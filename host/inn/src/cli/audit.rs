//! `inn audit`.

use super::client::{Client, PAGE_MAX, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Verdict, json, parse};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::{AuditLine, ListAuditRequest, audit_line::Outcome};
use serde_json::{Value, json};

/// See who changed what, and who was refused
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List lines of the audit log, the newest first
    #[command(after_help = "Examples:
  inn audit ls --tenant acme --since 24h
  inn audit ls --all --denied --limit 100
  inn audit ls --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z -o json")]
    Ls {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Print every line of the audit log, a line of JSON each, the newest first
    #[command(after_help = "Examples:
  inn audit export --tenant acme > acme.jsonl
  inn audit export --all --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z | zstd > november.jsonl.zst")]
    Export {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
pub struct Which {
    /// Those of every tenant and of none, for admins; else the tenant's (--tenant)
    #[arg(long)]
    all: bool,
    /// Only what was refused
    #[arg(long, conflicts_with = "done")]
    denied: bool,
    /// Only what was done
    #[arg(long)]
    done: bool,
    /// Not before this instant, or so long ago
    #[arg(long, value_name = "INSTANT|DURATION")]
    since: Option<String>,
    /// Before this instant, or so long ago
    #[arg(long, value_name = "INSTANT|DURATION")]
    until: Option<String>,
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    match command {
        Command::Ls { which, limit } => {
            let (all, filter) = (which.all, which.filter()?);
            let client = Client::connect(global).await?;
            let lines = pages(limit, async |page_size, page_token| {
                page(&client, ListAuditRequest { page_size, page_token, ..filter.clone() }).await
            });
            list(global.output, all, &lines.await?)?;
        }
        Command::Export { which } => {
            let filter = which.filter()?;
            let client = Client::connect(global).await?;
            let mut page_token = String::new();
            loop {
                let request = ListAuditRequest { page_size: PAGE_MAX, page_token, ..filter.clone() };
                let (lines, next) = page(&client, request).await?;
                lines.iter().try_for_each(|line| output::json_line(&json(line)))?;
                page_token = next;
                if page_token.is_empty() {
                    break;
                }
            }
        }
    }
    Ok(Verdict::Succeeded)
}

async fn page(client: &Client, request: ListAuditRequest) -> Result<(Vec<AuditLine>, String)> {
    let page = client.audit().list_audit(call(request)).await?.into_inner();
    Ok((page.lines, page.next_page_token))
}

impl Which {
    fn filter(self) -> Result<ListAuditRequest> {
        let outcome = match (self.denied, self.done) {
            (true, _) => Outcome::Denied,
            (_, true) => Outcome::Done,
            _ => Outcome::Unspecified,
        };
        let instant = |text: Option<String>| {
            let instant = text.map(|text| parse::since(&text, now())).transpose()?;
            Ok::<_, anyhow::Error>(instant.map(output::wire_instant))
        };
        Ok(ListAuditRequest {
            all: self.all,
            outcome: outcome.into(),
            since: instant(self.since)?,
            until: instant(self.until)?,
            ..ListAuditRequest::default()
        })
    }
}

fn list(format: Format, all: bool, lines: &[AuditLine]) -> Result<()> {
    const COLUMNS: &[Column] = &[
        text("at"),
        text("tenant"),
        text("actor"),
        text("role"),
        text("from"),
        text("action"),
        text("object"),
        text("outcome"),
        number("count"),
    ];
    // One tenant's lines need no column that says so.
    let shown = |at: usize| all || at != 1;
    let columns: Vec<Column> =
        COLUMNS.iter().enumerate().filter(|(at, _)| shown(*at)).map(|(_, column)| *column).collect();
    let rows = lines.iter().map(|line| {
        let row = [
            output::instant(line.at),
            line.tenant.clone(),
            line.actor.clone(),
            line.role.clone(),
            line.address.clone(),
            line.action.clone(),
            line.object.clone(),
            outcome(line).into(),
            line.count.to_string(),
        ];
        row.into_iter().enumerate().filter(|(at, _)| shown(*at)).map(|(_, cell)| cell).collect()
    });
    output::rows(format, &columns, rows.collect(), || Value::Array(lines.iter().map(json).collect()))
}

fn outcome(line: &AuditLine) -> &'static str {
    match line.outcome() {
        Outcome::Done => "done",
        Outcome::Denied => "denied",
        Outcome::Unspecified => "unknown",
    }
}

fn json(line: &AuditLine) -> Value {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    json!({
        "id": line.id,
        "at": json::instant(line.at),
        "tenant": some(&line.tenant),
        "actor": line.actor,
        "role": some(&line.role),
        "address": some(&line.address),
        "action": line.action,
        "object": line.object,
        "outcome": outcome(line),
        "before": value(&line.before),
        "after": value(&line.after),
        "count": line.count,
    })
}
