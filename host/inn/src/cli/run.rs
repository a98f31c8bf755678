//! `inn run`: start a run by hand.

use super::client::{Client, call};
use super::{Format, Global, Verdict, json, output, parse, runs_many, task};
use anyhow::Result;
use innkeeper_api::proto::{Run, StartRunRequest, WatchRunRequest, run::State};
use std::time::Duration;
use tonic::{Code, Status};

/// Start a run of a task by hand
///
/// Prints the run's id; with --wait the run's output, once it has ended, and its verdict is the exit code:
/// 0 succeeded, 1 failed or cancelled. Interrupting the wait doesn't end the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn run hello --input '{\"name\": \"you\"}' --wait
  inn run access-log --input @/var/log/nginx/access.log --wait > report.json
  inn run report --idempotency-key 2026-11-24 --wait -o json
  inn run report --deadline 10m --label customer=acme")]
pub struct Args {
    task: String,
    /// The text itself, @FILE, or - for stdin
    #[arg(long, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    input: Option<String>,
    /// The input's media type; after its looks if not given
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The same key starts the same run only once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Fail it unless its first attempt begins within this, 0s for any time; the task's if not given
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    start_deadline: Option<Duration>,
    /// Fail it unless it is over within this, retries included, 0s for any time; the task's if not given
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    deadline: Option<Duration>,
    /// A label of the run, beside its task's; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::pair)]
    labels: Vec<(String, String)>,
    /// 0 to 9; of what is ready the highest begins first [default: the task's]
    #[arg(long, value_name = "0..9", value_parser = clap::value_parser!(u32).range(0..=9))]
    priority: Option<u32>,
    /// Wait until the run has ended
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this; the run goes on, and the exit code is 5
    #[arg(long, value_name = "DURATION", value_parser = parse::duration, requires = "wait")]
    timeout: Option<Duration>,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let request = StartRunRequest {
        task: args.task,
        input: Some(parse::input(args.input.as_deref(), args.content_type.as_deref())?),
        idempotency_key: args.idempotency_key.unwrap_or_default(),
        start_deadline: args.start_deadline.map(task::wire).transpose()?,
        deadline: args.deadline.map(task::wire).transpose()?,
        labels: runs_many::texts(&args.labels),
        priority: args.priority,
    };
    let client = Client::connect(global).await?;
    let started = client.runs().start_run(call(request)).await?.into_inner();
    let run = started.run.unwrap_or_default();
    if started.existed {
        output::note("this run was there already, under the same idempotency key");
    }
    if !args.wait {
        match global.output {
            Format::Table => output::line(&run.id)?,
            Format::Json => output::json(&json::run(&run))?,
        }
        return Ok(Verdict::Succeeded);
    }
    let id = run.id.clone();
    tokio::select! {
        run = wait(&client, &id) => finish(global.output, &run?),
        patience = patience(args.timeout) => Err(Status::unavailable(format!(
            "run {id} has not ended in {}; it goes on: `inn runs watch {id}`",
            output::duration(patience)
        ))
        .into()),
        _ = tokio::signal::ctrl_c() => {
            output::note(&format!("the run goes on; see it with `inn runs watch {id}`"));
            Ok(Verdict::Failed)
        }
    }
}

/// Ends after the time that was given, if one was.
async fn patience(timeout: Option<Duration>) -> Duration {
    match timeout {
        Some(timeout) => {
            tokio::time::sleep(timeout).await;
            timeout
        }
        None => std::future::pending().await,
    }
}

/// The run, once it has ended.
pub async fn wait(client: &Client, id: &str) -> Result<Run> {
    let mut runs = client.runs().watch_run(WatchRunRequest { id: id.into() }).await?.into_inner();
    let mut last = None;
    loop {
        match runs.message().await {
            Ok(Some(run)) => last = Some(run),
            Ok(None) => break,
            Err(status) if matches!(status.code(), Code::Unknown | Code::Internal) => {
                return Err(lost(id).into());
            }
            Err(status) => return Err(status.into()),
        }
    }
    last.filter(is_final).ok_or_else(|| lost(id).into())
}

/// The host went before the run ended: exit code 5.
pub fn lost(id: &str) -> Status {
    Status::unavailable(format!(
        "the host stopped before run {id} ended; it goes on when the host does: `inn runs watch {id}`"
    ))
}

/// Whether nothing happens to the run any more.
pub fn is_final(run: &Run) -> bool {
    matches!(run.state(), State::Succeeded | State::Failed | State::Cancelled)
}

fn finish(format: Format, run: &Run) -> Result<Verdict> {
    match format {
        Format::Json => output::json(&json::run(run))?,
        Format::Table => {
            if let Some(payload) = &run.output {
                output::given(&payload.bytes)?;
            }
        }
    }
    if run.state() == State::Succeeded {
        return Ok(Verdict::Succeeded);
    }
    if format == Format::Table {
        let why = run.failure.as_ref().map(failure).unwrap_or_default();
        output::note(&format!(
            "run {} {}{}{why}",
            run.id,
            json::run_state(run),
            if why.is_empty() { "" } else { ": " }
        ));
    }
    Ok(Verdict::Failed)
}

/// A failure for people: `timeout: over its timeout of 2s`, `guest bad-status: ..`.
pub fn failure(failure: &innkeeper_api::proto::Failure) -> String {
    let message = output::harmless(&failure.message);
    if failure.code == failure.kind || failure.code.is_empty() {
        format!("{}: {message}", failure.kind)
    } else {
        format!("{} {}: {message}", failure.kind, output::harmless(&failure.code))
    }
}
