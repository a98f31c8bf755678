//! Durable runs, started over gRPC in batches, and the bare store beside them.

use super::fleet::Fleet;
use crate::cli::client::{Client, call};
use crate::cli::{Global, Usage, upload};
use crate::host::now;
use anyhow::{Result, bail, ensure};
use futures::future::try_join_all;
use innkeeper_api::auth::TENANT_DEFAULT;
use innkeeper_api::proto::run::State;
use innkeeper_api::proto::start_runs_response::result::Result as StartResult;
use innkeeper_api::proto::{
    CreateTaskRequest, ListRunsRequest, Payload, StartRunRequest, StartRunsRequest, TaskSpec,
};
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::failure::{AttemptEnd, Outcome, Usage as AttemptUsage};
use innkeeper_domain::host::{Host, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload as DomainPayload;
use innkeeper_domain::task::TaskSpec as DomainSpec;
use innkeeper_domain::time;
use innkeeper_runtime::bench::{ECHO, Measured};
use innkeeper_store::{Finish, NewRun, NewTask, Page, StartOptions, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Starts in one call, and runs in one round of the bare store.
const BATCH: usize = 500;
/// Connections that start runs at one time.
const STARTERS: usize = 4;

/// The store alone: starts, claims and finishes, round by round.
pub async fn bare_store(store: Arc<dyn Store>, duration: Duration) -> Result<Measured> {
    let tenant = store.tenant_ensure(&TENANT_DEFAULT.parse()?, now()).await?.id;
    let digest = Digest([0; 32]);
    let component = Component {
        digest,
        size: 0,
        shape: Shape::Handler,
        adapted: false,
        imports: Vec::new(),
        created_at: now(),
    };
    store.component_put(tenant, component, Vec::new(), now().into()).await?;
    let page = Page { size: 1, after: None };
    if !store.task_list(tenant, None, page).await?.items.is_empty() {
        return Err(Usage(
            "the database isn't empty, and the bench would fill it with runs; make a new one".into(),
        )
        .into());
    }
    let task: Name = "bare-store".parse()?;
    let new = NewTask { id: TaskId::new(now()), name: task.clone(), spec: DomainSpec::new(digest) };
    store.task_create(tenant, new, now().into()).await?;
    let host = Host {
        id: HostId::new(now()),
        name: "bench".parse()?,
        address: String::new(),
        version: String::new(),
        roles: Vec::new(),
        labels: Labels::default(),
        capacity: 0,
    };
    let (id, labels) = (host.id, host.labels.clone());
    store.host_start(host, time::after(now(), duration * 10), now()).await?;
    let begun = Instant::now();
    let (mut rounds, mut runs) = (Vec::new(), 0usize);
    while begun.elapsed() < duration {
        let round = Instant::now();
        let start = |_| NewRun {
            id: RunId::new(now()),
            task: task.clone(),
            input: DomainPayload::json("{}"),
            idempotency_key: None,
            options: StartOptions::default(),
        };
        store.runs_start(tenant, (0..BATCH).map(start).collect(), now().into()).await?;
        let claimed = store.runs_claim(id, &labels, BATCH, now()).await?;
        runs += claimed.len();
        let ends = claimed.into_iter().map(|claimed| {
            let end = AttemptEnd {
                outcome: Outcome::Output(DomainPayload::json("{}")),
                usage: AttemptUsage::default(),
            };
            let finish = Finish { lease: claimed.lease, end, again_at: None, lines: Vec::new() };
            store.run_finish_if_leased(finish, now())
        });
        try_join_all(ends).await?;
        rounds.push(round.elapsed());
    }
    let elapsed = begun.elapsed();
    store.host_stop(id, now()).await?;
    Ok(summarize(runs, elapsed, rounds))
}

/// Starts runs over gRPC in batches, each connection the next when the batch before has ended; the hosts take turns.
pub async fn starts(fleet: &Fleet<'_>, duration: Duration) -> Result<Measured> {
    let hosts = fleet.start().await?;
    let globals = hosts.globals();
    let client = Client::connect(&globals[0]).await?;
    let pushed = upload::push(&client, ECHO.to_vec()).await?.component.unwrap_or_default();
    let spec = TaskSpec { component: pushed.digest, ..TaskSpec::default() };
    client.tasks().create_task(call(CreateTaskRequest { name: "bench".into(), spec: Some(spec) })).await?;
    let begun = Instant::now();
    let starters = globals.iter().cycle().take(STARTERS.max(globals.len()));
    let runs: usize =
        try_join_all(starters.map(|global| starter(global, begun, duration))).await?.into_iter().sum();
    while has_unfinished(&client).await? {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let elapsed = begun.elapsed();
    let last = ListRunsRequest { task: "bench".into(), ..ListRunsRequest::default() };
    let sample = crate::cli::runs::fetch(&client, last, 10_000).await?;
    let times =
        sample.iter().filter_map(|run| crate::cli::runs::between(run.created_at, run.finished_at)).collect();
    let failed = sample.iter().filter(|run| run.failure.is_some()).count();
    hosts.stop().await;
    ensure!(failed == 0, "{failed} runs of the bench failed");
    Ok(summarize(runs, elapsed, times))
}

async fn has_unfinished(client: &Client) -> Result<bool> {
    let states = [State::Queued, State::Running, State::Waiting].map(i32::from).to_vec();
    let unfinished = ListRunsRequest { states, page_size: 1, ..ListRunsRequest::default() };
    Ok(!client.runs().list_runs(call(unfinished)).await?.into_inner().runs.is_empty())
}

async fn starter(global: &Global, begun: Instant, duration: Duration) -> Result<usize> {
    let client = Client::connect(global).await?;
    let start = StartRunRequest {
        task: "bench".into(),
        input: Some(Payload { content_type: "application/json".into(), bytes: b"{}".to_vec() }),
        ..StartRunRequest::default()
    };
    let mut runs = 0;
    while begun.elapsed() < duration {
        let request = StartRunsRequest { starts: vec![start.clone(); BATCH] };
        let results = client.runs().start_runs(call(request)).await?.into_inner().results;
        for result in &results {
            if let Some(StartResult::Error(error)) = &result.result {
                bail!("a start was refused: {}", error.message);
            }
        }
        // They are claimed in order, so the last ones are the last to end, but for those side by side.
        for result in results.iter().rev().take(64) {
            if let Some(StartResult::Started(started)) = &result.result {
                crate::cli::run::wait(&client, &started.id).await?;
            }
        }
        runs += results.len();
    }
    Ok(runs)
}

fn summarize(runs: usize, elapsed: Duration, mut times: Vec<Duration>) -> Measured {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    Measured { runs_per_second: runs as f64 / elapsed.as_secs_f64(), p50: at(50), p99: at(99) }
}
