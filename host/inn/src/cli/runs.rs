//! `inn runs`.

use super::client::{Client, call};
use super::output::{self, Column, domain_instant, number, text};
use super::run::{failure, is_final, lost};
use super::{Format, Global, Usage, Verdict, json, parse, runs_many};
use anyhow::Result;
use innkeeper_api::proto::{
    GetRunRequest, ListRunsRequest, LogLine, PauseRunRequest, ResumeRunRequest, Run, StreamLogsRequest,
    WatchRunRequest, run::State,
};
use innkeeper_domain::time;
use serde_json::Value;
use std::time::Duration;

/// See runs, their logs and outputs; cancel and retry them
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List runs, the newest first
    #[command(after_help = "Examples:
  inn runs ls --task hello --limit 5
  inn runs ls --state failed --state cancelled
  inn runs ls --state failed --failure-kind deadline --since 24h
  inn runs ls --label customer=acme
  inn runs ls --trigger hello-1 --state succeeded --limit 100 -o json")]
    Ls {
        /// Only those of this task
        #[arg(long)]
        task: Option<String>,
        /// Only those of this trigger
        #[arg(long)]
        trigger: Option<String>,
        /// Only those in this state: queued, running, waiting, succeeded, failed, cancelled; can be repeated
        #[arg(long, value_name = "STATE")]
        state: Vec<String>,
        /// Only those that failed by this kind: guest, exit, trap, timeout, start-deadline, deadline ...; can be repeated
        #[arg(long, value_name = "KIND")]
        failure_kind: Vec<String>,
        /// Only those that ended since then: an instant, or 24h for so long ago
        #[arg(long, value_name = "INSTANT|DURATION")]
        since: Option<String>,
        /// Only those with this label; can be repeated, for those with all of them
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::pair)]
        labels: Vec<(String, String)>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
    /// Show a run: what came in, what came out, and each attempt
    Show { id: String },
    /// Print a run's log
    Logs {
        id: String,
        /// Go on until the run has ended
        #[arg(short, long)]
        follow: bool,
    },
    /// Follow a run until it has ended
    Watch { id: String },
    /// Cancel a run, or all that match: those that run are told, and ended after their task's grace
    Cancel(runs_many::Cancel),
    /// Queue a run again that failed or was cancelled, or all that match
    ///
    /// Its attempts are counted on, while its task's tries begin anew, and so do its deadlines.
    Retry(runs_many::Retry),
    /// Hold a run until it is resumed: one that executes goes on, but isn't tried again
    Pause { id: String },
    /// Let a paused run go on
    Resume { id: String },
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let format = global.output;
    match command {
        Command::Ls { task, trigger, state, failure_kind, since, labels, limit } => {
            let states = state.iter().map(|word| parse_state(word)).collect::<Result<Vec<_>>>()?;
            let client = Client::connect(global).await?;
            let filter = ListRunsRequest {
                task: task.unwrap_or_default(),
                trigger: trigger.unwrap_or_default(),
                states: states.into_iter().map(Into::into).collect(),
                failure_kinds: failure_kind,
                ended_since: since.as_deref().map(runs_many::ended_since).transpose()?,
                labels: runs_many::texts(&labels),
                ..ListRunsRequest::default()
            };
            list(format, &fetch(&client, filter, limit).await?)?;
        }
        Command::Show { id } => {
            let client = Client::connect(global).await?;
            show(format, client.runs().get_run(call(GetRunRequest { id })).await?.get_ref())?;
        }
        Command::Logs { id, follow } => {
            let client = Client::connect(global).await?;
            let request = StreamLogsRequest { id: id.clone(), follow };
            let mut log = client.runs().stream_logs(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(lines) = log.message().await? {
                match format {
                    Format::Table => lines.lines.iter().try_for_each(|line| output::line(&log_line(line)))?,
                    // While it is followed, a line of JSON each; else one array.
                    Format::Json if follow => {
                        lines.lines.iter().try_for_each(|line| output::json_line(&json::line(line)))?;
                    }
                    Format::Json => all.extend(lines.lines.iter().map(json::line)),
                }
            }
            if format == Format::Json && !follow {
                output::json(&Value::Array(all))?;
            }
            // A host that stops ends the log as well, before the run has ended.
            if follow {
                let request = call(GetRunRequest { id: id.clone() });
                if !client.runs().get_run(request).await.is_ok_and(|run| is_final(run.get_ref())) {
                    return Err(lost(&id).into());
                }
            }
        }
        Command::Watch { id } => {
            let client = Client::connect(global).await?;
            return watch(format, &client, id).await;
        }
        Command::Cancel(args) => return runs_many::cancel(args, global).await,
        Command::Retry(args) => return runs_many::retry(args, global).await,
        Command::Pause { id } => {
            let client = Client::connect(global).await?;
            held(format, client.runs().pause_run(call(PauseRunRequest { id })).await?.get_ref())?;
        }
        Command::Resume { id } => {
            let client = Client::connect(global).await?;
            held(format, client.runs().resume_run(call(ResumeRunRequest { id })).await?.get_ref())?;
        }
    }
    Ok(Verdict::Succeeded)
}

/// Runs that a filter lets through, the newest first.
pub async fn fetch(client: &Client, mut filter: ListRunsRequest, limit: usize) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    while runs.len() < limit {
        filter.page_size = u32::try_from((limit - runs.len()).min(1_000))?;
        let page = client.runs().list_runs(call(filter.clone())).await?.into_inner();
        runs.extend(page.runs);
        if page.next_page_token.is_empty() {
            break;
        }
        filter.page_token = page.next_page_token;
    }
    Ok(runs)
}

pub fn parse_state(word: &str) -> Result<State> {
    let known =
        [State::Queued, State::Running, State::Waiting, State::Succeeded, State::Failed, State::Cancelled];
    let found = known
        .into_iter()
        .find(|state| json::run_state(&Run { state: (*state).into(), ..Run::default() }) == word);
    found.ok_or_else(|| {
        Usage(format!(
            "`{word}` is not a run's state; they are queued, running, waiting, succeeded, failed, cancelled"
        ))
        .into()
    })
}

fn list(format: Format, runs: &[Run]) -> Result<()> {
    const COLUMNS: &[Column] = &[
        text("id").whole(),
        text("task"),
        text("trigger").goes(3),
        text("state").whole(),
        number("attempt").goes(4),
        text("due").goes(5),
        number("late").goes(1),
        number("took").goes(2),
        text("failure"),
    ];
    let rows = runs.iter().map(|run| {
        vec![
            run.id.clone(),
            run.task.clone(),
            run.trigger.clone(),
            state(run),
            run.attempt.to_string(),
            output::instant(run.nominal_at),
            lateness(run),
            span(run.started_at, run.finished_at),
            run.failure
                .as_ref()
                .map(|f| if f.kind == "guest" { f.code.clone() } else { f.kind.clone() })
                .unwrap_or_default(),
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(runs.iter().map(json::run).collect()))
}

/// Its state, and whether something holds it: a limit, or somebody's pause.
fn state(run: &Run) -> String {
    let held = if run.waits_for.is_empty() || is_final(run) { "" } else { ", held" };
    format!("{}{held}", json::run_state(run))
}

/// How long after its time a run began; of a retry and of a backfill's run that says nothing.
fn lateness(run: &Run) -> String {
    if run.attempt == 1 && run.backfill.is_empty() {
        span(run.nominal_at, run.started_at)
    } else {
        String::new()
    }
}

/// How long from one instant to another; empty while one isn't known.
pub fn span(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> String {
    between(from, to).map(output::duration).unwrap_or_default()
}

/// How long from one instant to another.
pub fn between(from: Option<prost_types::Timestamp>, to: Option<prost_types::Timestamp>) -> Option<Duration> {
    Some(time::between(domain_instant(from?)?, domain_instant(to?)?))
}

fn held(format: Format, run: &Run) -> Result<()> {
    match format {
        Format::Json => output::json(&json::run(run)),
        Format::Table => {
            output::note(if run.paused { "the run is paused" } else { "the run is not paused" });
            Ok(())
        }
    }
}

fn show(format: Format, run: &Run) -> Result<()> {
    let payload = |payload: &Option<innkeeper_api::proto::Payload>| match payload {
        Some(payload) if !payload.bytes.is_empty() => match std::str::from_utf8(&payload.bytes) {
            Ok(text) => text.trim_end().to_string(),
            Err(_) => format!("{} of {}", output::bytes(payload.bytes.len() as u64), payload.content_type),
        },
        _ => String::new(),
    };
    let attempts = run.attempts.iter().map(|attempt| {
        let wall = attempt.wall.and_then(|wall| Duration::try_from(wall).ok()).unwrap_or_default();
        let end = attempt.failure.as_ref().map_or_else(|| "succeeded".to_string(), failure);
        let memory = output::bytes(attempt.peak_memory_bytes);
        format!(
            "{}  {}  {}  {memory}  {end}",
            attempt.number,
            output::instant(attempt.started_at),
            output::duration(wall)
        )
    });
    let facts = [
        ("id", run.id.clone()),
        ("task", format!("{} (revision {})", run.task, run.revision)),
        ("trigger", run.trigger.clone()),
        ("state", json::run_state(run).into()),
        ("waits for", run.waits_for.clone()),
        ("priority", run.priority.to_string()),
        ("concurrency key", run.concurrency_key.clone()),
        ("progress", run.progress.as_ref().map(progress).unwrap_or_default()),
        ("key", run.idempotency_key.clone()),
        ("backfill", run.backfill.clone()),
        ("labels", run.labels.join(" ")),
        ("due", output::instant(run.nominal_at)),
        ("created", output::instant(run.created_at)),
        ("retried", output::instant(run.reopened_at)),
        ("start by", output::instant(run.start_by)),
        ("end by", output::instant(run.end_by)),
        ("started", output::instant(run.started_at)),
        ("finished", output::instant(run.finished_at)),
        ("attempts", attempts.collect::<Vec<_>>().join("\n")),
        ("failure", run.failure.as_ref().map(failure).unwrap_or_default()),
        ("input", payload(&run.input)),
        ("output", payload(&run.output)),
    ];
    output::facts(format, &facts, || json::run(run))
}

fn progress(progress: &innkeeper_api::proto::Progress) -> String {
    let of = progress.total.map_or(String::new(), |total| format!(" of {total}"));
    format!("{}{of} {}", progress.done, output::harmless(&progress.note))
}

/// A line of a log for people.
pub fn log_line(line: &LogLine) -> String {
    let at = line
        .at
        .and_then(domain_instant)
        .map(|at| at.strftime("%H:%M:%S%.3f").to_string())
        .unwrap_or_default();
    let level = format!("{:5}", json::level(line));
    let level = match json::level(line) {
        "error" => console::style(level).red(),
        "warn" => console::style(level).yellow(),
        "debug" | "trace" => console::style(level).dim(),
        _ => console::style(level).green(),
    };
    let text = output::harmless(&line.text);
    format!("{} {level} {text}", console::style(at).dim())
}

async fn watch(format: Format, client: &Client, id: String) -> Result<Verdict> {
    let mut runs = client.runs().watch_run(WatchRunRequest { id: id.clone() }).await?.into_inner();
    let mut verdict = None;
    while let Some(run) = runs.message().await? {
        match format {
            Format::Json => output::json_line(&json::run(&run))?,
            Format::Table => {
                let mut words = format!("{} (attempt {})", json::run_state(&run), run.attempt);
                if let Some(told) = &run.progress {
                    words.push_str(&format!("  {}", progress(told)));
                }
                if let Some(failed) = &run.failure {
                    words.push_str(&format!("  {}", failure(failed)));
                }
                output::line(&words)?;
            }
        }
        verdict = is_final(&run).then_some(if run.state() == State::Succeeded {
            Verdict::Succeeded
        } else {
            Verdict::Failed
        });
    }
    verdict.ok_or_else(|| lost(&id).into())
}
