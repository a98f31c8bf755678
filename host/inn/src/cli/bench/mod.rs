//! `inn bench`: what this machine can do, beside what the bare parts can.

mod fairness;
mod fleet;
mod neighbours;
mod starts;

use super::output::{self, number, text};
use super::{Format, Global, Verdict, parse};
use crate::host::{compile_with, now};
use crate::keys::new_key;
use anyhow::{Context, Result};
use async_trait::async_trait;
use fairness::Waits;
use fleet::Fleet;
use innkeeper_domain::component::Digest;
use innkeeper_domain::keyring::Keyring;
use innkeeper_runtime::bench::Measured;
use innkeeper_runtime::{ComponentSource, Runtime, RuntimeConfig};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Measure this machine: runs a second, latencies, and the floor of the bare parts
///
/// Works on a temporary folder, with every acknowledgement on disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn bench warm --seconds 5
  inn bench starts --seconds 10 -o json
  inn bench fairness --seconds 10
  inn bench starts --database-url postgres://inn@127.0.0.1/empty --hosts 3")]
pub struct Args {
    #[arg(value_enum)]
    scenario: Scenario,
    /// How long each part takes
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// For `starts` and `fairness`: a PostgreSQL database, which must be empty and is full of runs afterwards; without one the
    /// store is a temporary folder
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// On a database: how many hosts share it, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 1, requires = "database_url",
        value_parser = clap::value_parser!(u32).range(1..=16))]
    hosts: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Scenario {
    /// A trivial guest through the runtime, one after another; the floor is bare wasmtime
    Warm,
    /// Durable runs of a trivial guest, started over gRPC in batches; the floors are the bare runtime and the
    /// bare store
    Starts,
    /// How long the runs of a tenant that starts twenty a second wait until their guests begin: alone, and beside
    /// another that has 100,000 queued
    Fairness,
    /// How long the runs of a tenant that starts twenty a second take: alone, and beside 20 others that take all the
    /// time, memory, log and output that their quotas allow
    Neighbours,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let duration = Duration::from_secs(args.seconds);
    let runtime = Runtime::new(RuntimeConfig {
        artifacts: folder.path().join("bench-artifacts"),
        keys: Keyring::new(vec![new_key()?])?,
        capacity: 16,
        open_networks: Vec::new(),
        components: Arc::new(NoComponents),
        compile_with: compile_with()?,
        now: Arc::new(now),
    })?;
    let database = args.database_url.as_deref().map(parse::database_url).transpose()?;
    let (measured, floor) = match args.scenario {
        Scenario::Warm => {
            let bare = runtime.bench_bare(duration).await?;
            (runtime.bench_warm(duration).await?, vec![("bare wasmtime", bare)])
        }
        Scenario::Fairness => {
            let fleet = Fleet { folder: folder.path(), hosts: args.hosts, database };
            let measured = fairness::fairness(&fleet, duration).await?;
            let beside = format!("beside {} queued runs", fairness::FLOOD);
            let note = json!({"queued": fairness::FLOOD});
            print_waits(
                global.output,
                &args,
                "fairness",
                [&measured.before, &measured.during],
                &beside,
                note,
            )?;
            return Ok(Verdict::Succeeded);
        }
        Scenario::Neighbours => {
            let fleet = Fleet { folder: folder.path(), hosts: args.hosts, database };
            let measured = neighbours::neighbours(&fleet, duration).await?;
            let beside = format!("beside {} attackers", neighbours::ATTACKERS);
            let quotas: Value = neighbours::QUOTAS.iter().map(|(q, n)| (q.to_string(), json!(n))).collect();
            let note = json!({"attackers": neighbours::ATTACKERS, "quotas": quotas});
            print_waits(
                global.output,
                &args,
                "neighbours",
                [&measured.alone, &measured.beside],
                &beside,
                note,
            )?;
            return Ok(Verdict::Succeeded);
        }
        Scenario::Starts => {
            let bare_runtime = runtime.bench_warm(duration).await?;
            let fleet = Fleet { folder: folder.path(), hosts: args.hosts, database };
            let bare_store = starts::bare_store(fleet.store().await?, duration).await?;
            let measured = starts::starts(&fleet, duration).await?;
            (measured, vec![("bare runtime, one thread", bare_runtime), ("bare store", bare_store)])
        }
    };
    print(global.output, args, &measured, &floor)?;
    Ok(Verdict::Succeeded)
}

/// Times in microseconds, of a tenant alone and beside others.
fn print_waits(
    format: Format,
    args: &Args,
    scenario: &'static str,
    [alone, beside]: [&Waits; 2],
    beside_what: &str,
    note: Value,
) -> Result<()> {
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let rows = [("alone", alone), (beside_what, beside)].map(|(name, waits)| {
        let times = [waits.p50, waits.p99, waits.max].map(|time| format!("{:.0}", micros(time)));
        [vec![name.to_string(), waits.runs.to_string()], times.to_vec()].concat()
    });
    let columns = [text(scenario), number("runs"), number("p50 µs"), number("p99 µs"), number("max µs")];
    output::rows(format, &columns, rows.to_vec(), || {
        let value = |waits: &Waits| {
            let Waits { runs, p50, p99, max } = waits;
            json!({"runs": runs, "p50": micros(*p50), "p99": micros(*p99), "max": micros(*max)})
        };
        let mut all = note;
        all["scenario"] = scenario.into();
        all["hosts"] = args.hosts.into();
        all["seconds"] = args.seconds.into();
        all["alone"] = value(alone);
        all["beside"] = value(beside);
        all
    })
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
        Scenario::Fairness => "fairness",
        Scenario::Neighbours => "neighbours",
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
        all["hosts"] = args.hosts.into();
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
