//! `inn bench`: what this machine can do, beside what the bare parts can.

use super::client::{Client, call};
use super::output::{self, number, text};
use super::{Format, Global, Verdict, component};
use crate::host::{self, HostConfig, now};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use futures::future::try_join_all;
use innkeeper_api::auth::TENANT_DEFAULT;
use innkeeper_api::proto::start_runs_response::result::Result as StartResult;
use innkeeper_api::proto::{
    CreateTaskRequest, ListRunsRequest, Payload, StartRunRequest, StartRunsRequest, TaskSpec,
};
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::failure::{AttemptEnd, Outcome, Usage};
use innkeeper_domain::host::{Host, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId};
use innkeeper_domain::limits::CANCEL_GRACE;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload as DomainPayload;
use innkeeper_domain::task::TaskSpec as DomainSpec;
use innkeeper_domain::time;
use innkeeper_runtime::bench::{ECHO, Measured};
use innkeeper_runtime::{ComponentSource, Runtime, RuntimeConfig};
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::{ComponentStore, Finish, HostStore, NewRun, NewTask, RunStore, TaskStore, TenantStore};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Starts in one call, and runs in one round of the bare store.
const BATCH: usize = 500;
/// Connections that start runs at one time.
const STARTERS: usize = 4;

/// Measure this machine: runs a second, latencies, and the floor of the bare parts
///
/// Works on a temporary folder, with every acknowledgement on disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn bench warm --seconds 5
  inn bench starts --seconds 10 -o json")]
pub struct Args {
    #[arg(value_enum)]
    scenario: Scenario,
    /// How long each part takes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Scenario {
    /// A trivial guest through the runtime, one after another; the floor is bare wasmtime
    Warm,
    /// Durable runs of a trivial guest, started over gRPC in batches; the floors are the bare runtime and the
    /// bare store
    Starts,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let duration = Duration::from_secs(args.seconds);
    let runtime = Runtime::new(RuntimeConfig {
        artifacts: folder.path().join("bench-artifacts"),
        artifact_key: [0; 32],
        capacity: 16,
        cancel_grace: CANCEL_GRACE,
        open_networks: Vec::new(),
        components: Arc::new(NoComponents),
        now: Arc::new(now),
    })?;
    let (measured, floor) = match args.scenario {
        Scenario::Warm => {
            let bare = runtime.bench_bare(duration).await?;
            (runtime.bench_warm(duration).await?, vec![("bare wasmtime", bare)])
        }
        Scenario::Starts => {
            let bare_runtime = runtime.bench_warm(duration).await?;
            let bare_store = bare_store(&folder.path().join("store"), duration).await?;
            let measured = starts(&folder.path().join("host"), duration).await?;
            (measured, vec![("bare runtime, one thread", bare_runtime), ("bare store", bare_store)])
        }
    };
    print(global.output, args, &measured, &floor)?;
    Ok(Verdict::Succeeded)
}

fn print(format: Format, args: Args, measured: &Measured, floor: &[(&str, Measured)]) -> Result<()> {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let value = |measured: &Measured| {
        json!({
            "runs_per_second": measured.runs_per_second,
            "p50": micros(measured.p50),
            "p99": micros(measured.p99),
        })
    };
    let scenario = match args.scenario {
        Scenario::Warm => "warm",
        Scenario::Starts => "starts",
    };
    let all = [(scenario, measured.clone())].into_iter().chain(floor.iter().cloned());
    let rows = all.map(|(name, measured)| {
        let times = [measured.p50, measured.p99].map(|time| format!("{:.1}", micros(time)));
        [vec![name.to_string(), format!("{:.0}", measured.runs_per_second)], times.to_vec()].concat()
    });
    let columns = [text("what"), number("runs/s"), number("p50 µs"), number("p99 µs")];
    output::rows(format, &columns, rows.collect(), || {
        let mut all = value(measured);
        all["scenario"] = scenario.into();
        all["seconds"] = args.seconds.into();
        all["isolation"] = "a fresh instance for every attempt, in the host's process".into();
        all["recording"] = "never".into();
        all["floor"] =
            floor.iter().map(|(name, measured)| ((*name).to_string(), value(measured))).collect::<Value>();
        all
    })
}

struct NoComponents;

#[async_trait]
impl ComponentSource for NoComponents {
    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, String> {
        Err(format!("the bench has no component {digest}"))
    }

    async fn artifact(&self, _digest: Digest, _variant: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    async fn share_artifact(&self, _digest: Digest, _variant: &str, _bytes: Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}

/// A store with a task in it: the store, its tenant, the task.
async fn bare_store(folder: &Path, duration: Duration) -> Result<Measured> {
    let store = Arc::new(SqliteStore::open(folder)?);
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
    store.component_put(tenant, component, Vec::new()).await?;
    let task: Name = "bench".parse()?;
    let new = NewTask { id: TaskId::new(now()), name: task.clone(), spec: DomainSpec::new(digest) };
    store.task_create(tenant, new, now()).await?;
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
        };
        store.runs_start(tenant, (0..BATCH).map(start).collect(), now()).await?;
        let claimed = store.runs_claim(id, &labels, BATCH, now()).await?;
        runs += claimed.len();
        let ends = claimed.into_iter().map(|claimed| {
            let end =
                AttemptEnd { outcome: Outcome::Output(DomainPayload::json("{}")), usage: Usage::default() };
            let finish = Finish { lease: claimed.lease, end, again_at: None, lines: Vec::new() };
            store.run_finish_if_leased(finish, now())
        });
        try_join_all(ends).await?;
        rounds.push(round.elapsed());
    }
    Ok(summarize(runs, begun.elapsed(), rounds))
}

/// Starts runs over gRPC in batches, each connection the next when the batch before has ended.
async fn starts(folder: &Path, duration: Duration) -> Result<Measured> {
    let host = host::Host::start(HostConfig::new(folder.into(), ([127, 0, 0, 1], 0).into()));
    let host = host.await?;
    let address = host.address().context("the host listens nowhere")?;
    let global = Global {
        output: Format::Json,
        host: Some(format!("http://{address}")),
        token: None,
        token_file: None,
        data: Some(folder.into()),
    };
    let client = Client::connect(&global).await?;
    let pushed = component::push(&client, ECHO.to_vec()).await?.component.unwrap_or_default();
    let spec = TaskSpec { component: pushed.digest, ..TaskSpec::default() };
    client.tasks().create_task(call(CreateTaskRequest { name: "bench".into(), spec: Some(spec) })).await?;
    let begun = Instant::now();
    let starters = (0..STARTERS).map(|_| starter(&global, begun, duration));
    let runs: usize = try_join_all(starters).await?.into_iter().sum();
    let elapsed = begun.elapsed();
    let last = ListRunsRequest::default();
    let sample = super::runs::fetch(&client, last, 10_000).await?;
    let times =
        sample.iter().filter_map(|run| super::runs::between(run.created_at, run.finished_at)).collect();
    let failed = sample.iter().filter(|run| run.failure.is_some()).count();
    host.stop().await;
    ensure!(failed == 0, "{failed} runs of the bench failed");
    Ok(summarize(runs, elapsed, times))
}

async fn starter(global: &Global, begun: Instant, duration: Duration) -> Result<usize> {
    let client = Client::connect(global).await?;
    let start = StartRunRequest {
        task: "bench".into(),
        input: Some(Payload { content_type: "application/json".into(), bytes: b"{}".to_vec() }),
        idempotency_key: String::new(),
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
                super::run::wait(&client, &started.id).await?;
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
