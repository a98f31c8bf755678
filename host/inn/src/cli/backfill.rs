//! `inn backfill`, and `inn trigger backfill`, which creates one.

use super::client::{Client, call, pages};
use super::output::{self, Column, number, text};
use super::{Format, Global, Verdict, json, parse};
use crate::host::now;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use innkeeper_api::proto::backfill::State;
use innkeeper_api::proto::{
    Backfill, BackfillPlan, CancelBackfillRequest, CreateBackfillRequest, GetBackfillRequest,
    ListBackfillsRequest, PlanBackfillRequest,
};
use serde_json::Value;
use std::time::Duration;

/// How often it is asked how far a backfill is that is waited for.
const ASK: Duration = Duration::from_millis(300);

/// Run a trigger's task for times that are past
///
/// Goes through the trigger's times from one instant to another, both included, in order. What was before the trigger,
/// or is out of its window, counts as well; jitter doesn't. Times that have a run already are left out, unless --again
/// says otherwise. It goes on by itself, also when hosts stop; see `inn backfill show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn trigger backfill report-1 --from 2026-01-01T00:00:00Z --to 2026-01-31T23:59:59Z --dry-run
  inn trigger backfill report-1 --from 2026-01-01T00:00:00Z --to 2026-01-31T23:59:59Z --concurrency 4 --wait
  inn trigger backfill report-1 --from 48h --again failed")]
pub struct Args {
    /// The trigger
    name: String,
    /// The first instant of the range, or 48h for so long ago
    #[arg(long, value_name = "INSTANT")]
    from: String,
    /// The last instant of the range, or 24h for so long ago; now if not given
    #[arg(long, value_name = "INSTANT")]
    to: Option<String>,
    /// Its runs that may be unfinished at one time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Which times that ran already run again: none, failed (whose latest run failed or was cancelled) or all
    #[arg(long, value_name = "WHICH", default_value = "none")]
    again: String,
    /// Tell what it would do, and do nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until it has finished; the exit code is 1 unless all of its runs succeeded
    #[arg(long)]
    wait: bool,
}

/// List, watch and cancel backfills
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List backfills, the newest first
    Ls {
        /// Only those of this trigger
        #[arg(long)]
        trigger: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show how far a backfill is
    Show { id: String },
    /// Wait until a backfill has finished; the exit code is 1 unless all of its runs succeeded
    Watch { id: String },
    /// Cancel a backfill, and those of its runs that have not begun
    Cancel { id: String },
}

/// `inn trigger backfill`.
pub async fn create(args: Args, global: &Global) -> Result<Verdict> {
    let wire = |text: &str| parse::since(text, now()).map(output::wire_instant);
    let request = CreateBackfillRequest {
        trigger: args.name,
        from: Some(wire(&args.from)?),
        to: args.to.as_deref().map(wire).transpose()?,
        concurrency: args.concurrency,
        again: args.again,
    };
    let client = Client::connect(global).await?;
    if args.dry_run {
        let request = PlanBackfillRequest { backfill: Some(request) };
        show_plan(global.output, client.backfills().plan_backfill(call(request)).await?.get_ref())?;
        return Ok(Verdict::Succeeded);
    }
    let created = client.backfills().create_backfill(call(request)).await?.into_inner();
    if args.wait {
        return wait(global.output, &client, created.id).await;
    }
    match global.output {
        Format::Table => output::line(&created.id)?,
        Format::Json => output::json(&json::backfill(&created))?,
    }
    Ok(Verdict::Succeeded)
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    match command {
        Command::Ls { trigger, limit } => {
            list(global.output, &client, &trigger.unwrap_or_default(), limit).await?
        }
        Command::Show { id } => {
            let found = client.backfills().get_backfill(call(GetBackfillRequest { id })).await?;
            show(global.output, found.get_ref())?;
        }
        Command::Watch { id } => return wait(global.output, &client, id).await,
        Command::Cancel { id } => {
            let cancelled = client.backfills().cancel_backfill(call(CancelBackfillRequest { id })).await?;
            show(global.output, cancelled.get_ref())?;
        }
    }
    Ok(Verdict::Succeeded)
}

async fn list(format: Format, client: &Client, trigger: &str, limit: usize) -> Result<()> {
    let found = pages(limit, async |page_size, page_token| {
        let request = ListBackfillsRequest { trigger: trigger.into(), page_size, page_token };
        let page = client.backfills().list_backfills(call(request)).await?.into_inner();
        Ok((page.backfills, page.next_page_token))
    });
    let found = found.await?;
    const COLUMNS: &[Column] = &[
        text("id"),
        text("trigger"),
        text("from"),
        text("to"),
        text("state"),
        number("times"),
        number("created"),
        number("failed"),
        number("left out"),
        number("remaining"),
    ];
    let rows = found.iter().map(|backfill| {
        vec![
            backfill.id.clone(),
            backfill.trigger.clone(),
            output::instant(backfill.from),
            output::instant(backfill.to),
            state(backfill),
            backfill.times.to_string(),
            backfill.created.to_string(),
            backfill.failed.to_string(),
            backfill.left_out.to_string(),
            backfill.remaining.to_string(),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(found.iter().map(json::backfill).collect()))
}

/// The state, and why it doesn't go on if it doesn't.
fn state(backfill: &Backfill) -> String {
    let word = json::backfill_state(backfill);
    match backfill.waits_for.as_str() {
        "" => word.into(),
        "paused" => format!("{word}, waits: the trigger is paused"),
        reason => format!("{word}, waits: {reason}"),
    }
}

fn show(format: Format, backfill: &Backfill) -> Result<()> {
    let runs = format!(
        "{} created: {} succeeded, {} failed, {} cancelled, {} unfinished",
        backfill.created, backfill.succeeded, backfill.failed, backfill.cancelled, backfill.unfinished
    );
    let facts = [
        ("id", backfill.id.clone()),
        ("trigger", backfill.trigger.clone()),
        ("task", backfill.task.clone()),
        ("from", output::instant(backfill.from)),
        ("to", output::instant(backfill.to)),
        ("concurrency", backfill.concurrency.to_string()),
        ("again", backfill.again.clone()),
        ("state", state(backfill)),
        ("times", times(backfill.times, backfill.left_to_trigger)),
        ("runs", runs),
        ("left out", some(backfill.left_out, "ran already")),
        ("remaining", backfill.remaining.to_string()),
        ("created", output::instant(backfill.created_at)),
        ("finished", output::instant(backfill.finished_at)),
    ];
    output::facts(format, &facts, || json::backfill(backfill))
}

fn show_plan(format: Format, plan: &BackfillPlan) -> Result<()> {
    let lines = |times: &[prost_types::Timestamp]| -> Vec<String> {
        times.iter().map(|at| output::instant(Some(*at))).collect()
    };
    let mut shown = lines(&plan.first);
    let between = plan.runs.saturating_sub((plan.first.len() + plan.last.len()) as u64);
    if between > 0 {
        shown.push(format!("... {between} more ..."));
    }
    shown.extend(lines(&plan.last));
    let ran: Vec<String> = plan.ran.iter().map(|ran| format!("{} {}", ran.count, ran.state)).collect();
    let facts = [
        ("times", times(plan.times, plan.left_to_trigger)),
        ("ran already", ran.join(", ")),
        ("would run", plan.runs.to_string()),
        ("which", shown.join("\n")),
    ];
    output::facts(format, &facts, || json::backfill_plan(plan))
}

fn times(times: u64, left_to_trigger: u64) -> String {
    match left_to_trigger {
        0 => times.to_string(),
        left => format!("{times}, and {left} that the trigger itself comes to"),
    }
}

fn some(count: u64, why: &str) -> String {
    if count == 0 { String::new() } else { format!("{count} that {why}") }
}

async fn wait(format: Format, client: &Client, id: String) -> Result<Verdict> {
    let progress = ProgressBar::new(0);
    let asking = async {
        loop {
            let request = GetBackfillRequest { id: id.clone() };
            let found = client.backfills().get_backfill(call(request)).await?.into_inner();
            if found.state() != State::Active {
                return Ok::<_, anyhow::Error>(found);
            }
            show_progress(&progress, &found);
            tokio::time::sleep(ASK).await;
        }
    };
    let ended = tokio::select! {
        ended = asking => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    progress.finish_and_clear();
    let Some(ended) = ended else {
        output::note(&format!("the backfill goes on; see it with `inn backfill watch {id}`"));
        return Ok(Verdict::Failed);
    };
    let ended = ended?;
    show(format, &ended)?;
    let succeeded = ended.state() == State::Finished && ended.succeeded == ended.created;
    Ok(if succeeded { Verdict::Succeeded } else { Verdict::Failed })
}

fn show_progress(progress: &ProgressBar, backfill: &Backfill) {
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}") {
        progress.set_style(style);
    }
    progress.set_length(backfill.times);
    progress.set_position(backfill.left_out + backfill.created - backfill.unfinished.min(backfill.created));
    let failed = if backfill.failed == 0 { String::new() } else { format!(", {} failed", backfill.failed) };
    progress.set_message(format!("{}{failed}", state(backfill)));
}
