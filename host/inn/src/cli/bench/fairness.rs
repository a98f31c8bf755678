//! How long a tenant with little to do waits beside one whose queue is long.

use super::fleet::Fleet;
use crate::cli::client::{Client, call};
use crate::cli::{Global, upload};
use anyhow::{Result, bail, ensure};
use innkeeper_api::proto::host::State as HostState;
use innkeeper_api::proto::run::State;
use innkeeper_api::proto::start_runs_response::result::Result as StartResult;
use innkeeper_api::proto::{
    CreateTaskRequest, CreateTenantRequest, ListHostsRequest, ListRunsRequest, Payload, Run,
    SetHostStateRequest, StartRunRequest, StartRunsRequest, TaskSpec,
};
use innkeeper_runtime::bench::ECHO;
use std::time::{Duration, Instant};

/// Runs that the one tenant has queued when it begins.
pub const FLOOD: usize = 100_000;
/// Starts in one call.
const BATCH: usize = 1_000;
/// How often the other tenant starts one.
const EVERY: Duration = Duration::from_millis(50);

/// How long one tenant's runs waited until their guest began.
#[derive(Debug, Clone)]
pub struct Waits {
    pub runs: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Fairness {
    /// With nothing else to do.
    pub before: Waits,
    /// Beside the flood, as long as it lasted.
    pub during: Waits,
}

/// Measures one tenant's waits for so long without a flood of another's, and as long with it.
pub async fn fairness(fleet: &Fleet<'_>, duration: Duration) -> Result<Fairness> {
    let hosts = fleet.start().await?;
    let global = hosts.globals().swap_remove(0);
    let flood = tenant(&global, "flood").await?;
    let quiet = tenant(&global, "quiet").await?;
    let before = waits(&quiet, begin(&quiet, duration, async || Ok(false)).await?).await?;
    set_hosts(&flood, HostState::Cordoned).await?;
    for _ in 0..FLOOD / BATCH {
        let starts = StartRunsRequest { starts: vec![start(); BATCH] };
        refuse_errors(&flood.runs().start_runs(call(starts)).await?.into_inner().results)?;
    }
    set_hosts(&flood, HostState::Active).await?;
    let started = begin(&quiet, duration, async || is_idle(&flood).await).await?;
    let during = waits(&quiet, started).await?;
    hosts.stop().await;
    Ok(Fairness { before, during })
}

/// A client of a new tenant with the task `bench`.
pub(super) async fn tenant(global: &Global, name: &str) -> Result<Client> {
    let admin = Client::connect(global).await?;
    let request = CreateTenantRequest { name: name.into(), ..CreateTenantRequest::default() };
    admin.tenants().create_tenant(call(request)).await?;
    let client = Client::connect(&Global { tenant: Some(name.into()), ..global.clone() }).await?;
    let pushed = upload::push(&client, ECHO.to_vec()).await?.component.unwrap_or_default();
    let spec = TaskSpec { component: pushed.digest, ..TaskSpec::default() };
    client.tasks().create_task(call(CreateTaskRequest { name: "bench".into(), spec: Some(spec) })).await?;
    Ok(client)
}

fn start() -> StartRunRequest {
    StartRunRequest {
        task: "bench".into(),
        input: Some(Payload { content_type: "application/json".into(), bytes: b"{}".to_vec() }),
        ..StartRunRequest::default()
    }
}

pub(super) fn refuse_errors(results: &[innkeeper_api::proto::start_runs_response::Result]) -> Result<()> {
    for result in results {
        if let Some(StartResult::Error(error)) = &result.result {
            bail!("a start was refused: {}", error.message);
        }
    }
    Ok(())
}

async fn set_hosts(client: &Client, state: HostState) -> Result<()> {
    for host in client.hosts().list_hosts(call(ListHostsRequest {})).await?.into_inner().hosts {
        let request = SetHostStateRequest { name: host.name, state: state.into() };
        client.hosts().set_host_state(call(request)).await?;
    }
    Ok(())
}

/// Starts one run after another, evenly, until the time is over or `is_over` says so; returns their ids.
pub(super) async fn begin(
    client: &Client,
    duration: Duration,
    is_over: impl AsyncFn() -> Result<bool>,
) -> Result<Vec<String>> {
    let begun = Instant::now();
    let mut ids = Vec::new();
    while begun.elapsed() < duration && !is_over().await? {
        let run = client.runs().start_run(call(start())).await?.into_inner().run.unwrap_or_default();
        ids.push(run.id);
        let next = begun + EVERY * u32::try_from(ids.len()).unwrap_or(u32::MAX);
        tokio::time::sleep_until(next.into()).await;
    }
    Ok(ids)
}

/// Whether all its runs have ended.
async fn is_idle(client: &Client) -> Result<bool> {
    let states = [State::Queued, State::Running, State::Waiting].map(i32::from).to_vec();
    let filter = ListRunsRequest { states, ..ListRunsRequest::default() };
    Ok(crate::cli::runs::fetch(client, filter, 1).await?.is_empty())
}

/// How long these runs waited.
async fn waits(client: &Client, ids: Vec<String>) -> Result<Waits> {
    times(client, ids, |run| crate::cli::runs::between(run.created_at, run.started_at)).await
}

/// How long something about these runs took.
pub(super) async fn times(
    client: &Client,
    ids: Vec<String>,
    took: fn(&Run) -> Option<Duration>,
) -> Result<Waits> {
    let mut waits = Vec::with_capacity(ids.len());
    for id in ids {
        let run: Run = crate::cli::run::wait(client, &id).await?;
        ensure!(run.state() == State::Succeeded, "a run of the bench ended as {:?}", run.state());
        waits.extend(took(&run));
    }
    ensure!(!waits.is_empty(), "the flood was over before anything could be measured");
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    Ok(Waits { runs: waits.len(), p50: at(50), p99: at(99), max: at(100) })
}
