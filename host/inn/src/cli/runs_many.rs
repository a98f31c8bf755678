//! `inn runs cancel` and `inn runs retry`: of one run, or of all that match.

use super::client::{Client, call, pages};
use super::{Format, Global, Usage, Verdict, json, output, parse, runs, task};
use crate::host::now;
use anyhow::Result;
use innkeeper_api::proto::{
    CancelRunRequest, CancelRunsRequest, ListRunsRequest, ListTenantsRequest, RetryRunRequest,
    RetryRunsRequest, Run, RunFilter, run::State,
};
use serde_json::json;

/// Which runs, if not one.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Which {
    /// Those of this task
    #[arg(long)]
    pub task: Option<String>,
    /// Those of this trigger
    #[arg(long)]
    pub trigger: Option<String>,
    /// Those with this label; can be repeated, for those with all of them
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::pair)]
    pub labels: Vec<(String, String)>,
    /// All of them, with what else is said
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn runs cancel 0199e4c2-...
  inn runs cancel --task report --state queued
  inn runs cancel --trigger report-1 --dry-run
  inn runs cancel --label customer=acme --yes
  inn runs cancel --all --all-tenants --yes         for the host's admins")]
pub struct Cancel {
    /// The run
    #[arg(conflicts_with_all = ["task", "trigger", "labels", "all", "state", "all_tenants", "dry_run"])]
    id: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Those in this state: queued, running, waiting; can be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Of every tenant
    #[arg(long)]
    all_tenants: bool,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
    /// Don't ask; without a terminal this is needed for more than one
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn runs retry 0199e4c2-...
  inn runs retry 0199e4c2-... --latest               by the task's current revision
  inn runs retry --task report --failure-kind timeout --since 24h
  inn runs retry --all --dry-run")]
pub struct Retry {
    /// The run
    #[arg(conflicts_with_all = ["task", "trigger", "labels", "all", "state", "failure_kind", "since", "dry_run"])]
    id: Option<String>,
    /// By the task's current revision, instead of the one that the run was created with
    #[arg(long)]
    latest: bool,
    #[command(flatten)]
    which: Which,
    /// Those in this state: failed, cancelled; can be repeated [default: failed]
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Those that failed by this kind (`inn runs show`); can be repeated
    #[arg(long, value_name = "KIND")]
    failure_kind: Vec<String>,
    /// Those that ended since then: an instant, or 24h for so long ago
    #[arg(long, value_name = "INSTANT|DURATION")]
    since: Option<String>,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
    /// Don't ask; without a terminal this is needed for more than one
    #[arg(short, long)]
    yes: bool,
}

impl Which {
    fn is_empty(&self) -> bool {
        self.task.is_none() && self.trigger.is_none() && self.labels.is_empty() && !self.all
    }

    fn filter(self, states: Vec<State>) -> RunFilter {
        RunFilter {
            task: self.task.unwrap_or_default(),
            trigger: self.trigger.unwrap_or_default(),
            states: states.into_iter().map(Into::into).collect(),
            labels: texts(&self.labels),
            ..RunFilter::default()
        }
    }
}

/// Labels as the protocol has them.
pub fn texts(labels: &[(String, String)]) -> Vec<String> {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn states(words: &[String], else_all: &[State]) -> Result<Vec<State>> {
    if words.is_empty() {
        return Ok(else_all.to_vec());
    }
    words.iter().map(|word| runs::parse_state(word)).collect()
}

fn which_is_missing() -> anyhow::Error {
    Usage("say which runs: a run's id, --task, --trigger, --label, or --all for all of the tenant's".into())
        .into()
}

pub async fn cancel(args: Cancel, global: &Global) -> Result<Verdict> {
    if let Some(id) = args.id {
        return cancel_one(id, global).await;
    }
    if args.which.is_empty() {
        return Err(which_is_missing());
    }
    let filter = args.which.filter(states(&args.state, &[State::Queued, State::Running, State::Waiting])?);
    let targets = match args.all_tenants {
        true => tenants(global).await?,
        false => vec![global.clone()],
    };
    let mut clients = Vec::with_capacity(targets.len());
    for target in &targets {
        clients.push(Client::connect(target).await?);
    }
    // They are looked at one by one for that: not for who doesn't ask.
    if args.dry_run || !args.yes {
        let mut found = 0;
        for client in &clients {
            found += count(client, &filter).await?;
        }
        if args.dry_run {
            return would(global.output, "cancelled", found);
        }
        if !agreed("cancel", found)? {
            return Ok(Verdict::Failed);
        }
    }
    let (mut ended, mut told) = (0, 0);
    for client in clients {
        let done = cancel_all(&client, &filter).await?;
        (ended, told) = (ended + done.0, told + done.1);
    }
    match global.output {
        Format::Json => output::json(&json!({"cancelled": ended, "told": told}))?,
        Format::Table => {
            output::note(&format!("{ended} were cancelled, and {told} that execute were told to end"))
        }
    }
    Ok(Verdict::Succeeded)
}

/// Cancels what a filter finds: how many had not begun, and how many execute.
async fn cancel_all(client: &Client, filter: &RunFilter) -> Result<(u64, u64)> {
    let (mut ended, mut told, mut page_token) = (0, 0, String::new());
    loop {
        let request = CancelRunsRequest { filter: Some(filter.clone()), page_token };
        let done = client.runs().cancel_runs(call(request)).await?.into_inner();
        (ended, told, page_token) = (ended + done.ended, told + done.told, done.next_page_token);
        if page_token.is_empty() {
            return Ok((ended, told));
        }
    }
}

/// Tells every run of a tenant that executes to end, or of all tenants, and says how many that were.
pub async fn cancel_running(global: &Global, all_tenants: bool) -> Result<u64> {
    let filter = Which::default().filter(vec![State::Running]);
    let targets = if all_tenants { tenants(global).await? } else { vec![global.clone()] };
    let mut told = 0;
    for target in targets {
        told += cancel_all(&Client::connect(&target).await?, &filter).await?.1;
    }
    Ok(told)
}

/// The options, once for each tenant.
async fn tenants(global: &Global) -> Result<Vec<Global>> {
    let client = Client::connect(global).await?;
    let tenants = pages(usize::MAX, async |page_size, page_token| {
        let request = ListTenantsRequest { page_size, page_token };
        let page = client.tenants().list_tenants(call(request)).await?.into_inner();
        Ok((page.tenants, page.next_page_token))
    });
    let tenants = tenants.await?.into_iter();
    Ok(tenants.map(|tenant| Global { tenant: Some(tenant.name), ..global.clone() }).collect())
}

async fn cancel_one(id: String, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    let run = client.runs().cancel_run(call(CancelRunRequest { id })).await?.into_inner();
    match global.output {
        Format::Json => output::json(&json::run(&run))?,
        Format::Table if run.state() == State::Running => output::note("the run was told to end"),
        Format::Table if run.state() == State::Cancelled => output::note("the run is cancelled"),
        Format::Table => output::note(&format!("the run was over already: it {}", json::run_state(&run))),
    }
    Ok(Verdict::Succeeded)
}

pub async fn retry(args: Retry, global: &Global) -> Result<Verdict> {
    let latest = args.latest;
    if let Some(id) = args.id {
        let client = Client::connect(global).await?;
        let run = client.runs().retry_run(call(RetryRunRequest { id, latest })).await?.into_inner();
        match global.output {
            Format::Json => output::json(&json::run(&run))?,
            Format::Table => output::note(&format!("the run is {} again", json::run_state(&run))),
        }
        return Ok(Verdict::Succeeded);
    }
    if args.which.is_empty() {
        return Err(which_is_missing());
    }
    let mut filter = args.which.filter(states(&args.state, &[State::Failed])?);
    filter.failure_kinds = args.failure_kind;
    filter.ended_since = args.since.as_deref().map(ended_since).transpose()?;
    let client = Client::connect(global).await?;
    if args.dry_run || !args.yes {
        let found = count(&client, &filter).await?;
        if args.dry_run {
            return would(global.output, "retried", found);
        }
        if !agreed("retry", found)? {
            return Ok(Verdict::Failed);
        }
    }
    let (mut retried, mut left_out, mut page_token) = (0, 0, String::new());
    let refused = loop {
        let request = RetryRunsRequest { filter: Some(filter.clone()), latest, page_token };
        let done = client.runs().retry_runs(call(request)).await?.into_inner();
        (retried, left_out) = (retried + done.retried, left_out + done.left_out);
        page_token = done.next_page_token;
        if page_token.is_empty() {
            break done.refused;
        }
    };
    match global.output {
        Format::Json => output::json(&json!({
            "retried": retried,
            "left_out": left_out,
            "refused": (!refused.is_empty()).then_some(&refused),
        }))?,
        Format::Table => {
            output::note(&format!("{retried} are queued again"));
            if left_out > 0 {
                output::note(&format!(
                    "{left_out} were left out: their tasks are deleted, or they have changed"
                ));
            }
            if !refused.is_empty() {
                output::note(&format!("it stopped there: {refused}"));
            }
        }
    }
    Ok(if refused.is_empty() { Verdict::Succeeded } else { Verdict::Failed })
}

/// An instant that has passed, as the protocol has it.
pub fn ended_since(text: &str) -> Result<prost_types::Timestamp> {
    let micros = parse::since(text, now())?.as_microsecond();
    Ok(prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000)?,
    })
}

async fn count(client: &Client, filter: &RunFilter) -> Result<usize> {
    let RunFilter { task, trigger, states, failure_kinds, ended_since, labels } = filter.clone();
    let filter = ListRunsRequest {
        task,
        trigger,
        states,
        failure_kinds,
        ended_since,
        labels,
        ..ListRunsRequest::default()
    };
    let found: Vec<Run> = runs::fetch(client, filter, usize::MAX).await?;
    Ok(found.len())
}

fn would(format: Format, what: &str, runs: usize) -> Result<Verdict> {
    match format {
        Format::Json => output::json(&json!({"dry_run": true, "runs": runs}))?,
        Format::Table => output::line(&format!("{runs} would be {what}"))?,
    }
    Ok(Verdict::Succeeded)
}

/// Whether it may go on with so many: for more than one somebody must say so.
fn agreed(verb: &str, runs: usize) -> Result<bool> {
    if runs <= 1 {
        return Ok(true);
    }
    if !task::on_terminal() {
        return Err(Usage(format!("this would {verb} {runs} runs; say --yes if that is meant")).into());
    }
    let agreed = task::agreed(&format!("{verb} {runs} runs?"))?;
    if !agreed {
        output::note("nothing was changed");
    }
    Ok(agreed)
}
