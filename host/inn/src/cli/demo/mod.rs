//! `inn demo`: the main job, on real input, in the terminal.

mod show;
mod site;

use super::client::{Client, call};
use super::{Format, Global, Usage, Verdict, component, output, parse, upload};
use crate::host::{Host, HostConfig};
use anyhow::{Context, Result};
use innkeeper_api::proto::schedule::{Cron, Interval, Kind};
use innkeeper_api::proto::{
    CreateTaskRequest, CreateTriggerRequest, Payload, RetryPolicy, Schedule, TaskSpec,
};
use serde_json::json;
use show::Show;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// See it work: a host, two plugins, cron triggers, real runs
///
/// Starts a host on a temporary folder and a small web site on a loopback port, uploads the plugins
/// http-check and access-log over gRPC, gives them triggers, and shows the runs as they end. Leaves nothing
/// behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn demo
  inn demo --seconds 20")]
pub struct Args {
    /// End by itself after so long; otherwise on Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: Option<u64>,
    /// Where the built plugins are
    #[arg(long, value_name = "DIR", default_value = "plugins/target/guests")]
    guests: PathBuf,
    /// The web server's log that access-log reads
    #[arg(long, value_name = "FILE", default_value = "plugins/access-log/testdata/access.log")]
    access_log: PathBuf,
}

pub async fn run(args: Args) -> Result<Verdict> {
    let plugin = |name: &str| {
        let path = args.guests.join(format!("{name}.wasm"));
        let missing =
            || Usage(format!("{} isn't there; `make demo` builds the plugins first", path.display()));
        if path.is_file() { component::read(&path.to_string_lossy()) } else { Err(missing().into()) }
    };
    let (http_check, access_log) = (plugin("http-check")?, plugin("access-log")?);
    let log = format!("@{}", args.access_log.display());
    let log = parse::input(Some(&log), Some("text/plain; charset=utf-8"))?;

    let mut terminate = signal(SignalKind::terminate())?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let site = site::serve(&tasks, stop.clone()).await?;
    let host = Host::start(HostConfig {
        capacity: 16,
        // The web site that http-check looks at is on loopback, which is closed to tasks otherwise.
        open_networks: vec!["127.0.0.0/8".parse()?],
        ..HostConfig::new(folder.path().into(), SocketAddr::from(([127, 0, 0, 1], 0)))
    });
    let host = host.await?;
    let address = host.address().context("the host listens nowhere")?;
    let global = Global {
        output: Format::Table,
        host: Some(format!("http://{address}")),
        data: Some(folder.path().into()),
        ..Global::default()
    };
    output::note(&format!("a host serves on {address}, a web site on {site}"));

    let result = async {
        let client = Client::connect(&global).await?;
        set_up(&client, site, http_check, access_log, log).await?;
        let mut show = Show::new(client);
        let end = async {
            match args.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        output::note(match args.seconds {
            Some(_) => "\nruns, as they end:",
            None => "\nruns, as they end (Ctrl-C to stop):",
        });
        tokio::select! {
            shown = show.follow() => shown?,
            () = end => {}
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        show.summary().await
    };
    let verdict = result.await;
    stop.cancel();
    host.stop().await;
    tasks.close();
    tasks.wait().await;
    verdict
}

/// Uploads, creates, triggers.
async fn set_up(
    client: &Client,
    site: SocketAddr,
    http_check: Vec<u8>,
    access_log: Vec<u8>,
    log: Payload,
) -> Result<()> {
    let digest =
        |pushed: innkeeper_api::proto::PushComponentResponse| pushed.component.unwrap_or_default().digest;
    let http_check = digest(upload::push(client, http_check).await?);
    let access_log = digest(upload::push(client, access_log).await?);
    let check = TaskSpec {
        component: http_check,
        timeout: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        allow_http: vec![site.to_string()],
        retry: Some(RetryPolicy {
            max_attempts: 3,
            initial_backoff: Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }),
            ..RetryPolicy::default()
        }),
        ..TaskSpec::default()
    };
    let report = TaskSpec {
        component: access_log,
        arguments: vec!["--top".into(), "3".into()],
        ..TaskSpec::default()
    };
    for (name, spec) in [("http-check", check), ("access-log", report)] {
        client.tasks().create_task(call(CreateTaskRequest { name: name.into(), spec: Some(spec) })).await?;
    }
    let json = |value: serde_json::Value| Payload {
        content_type: "application/json".into(),
        bytes: value.to_string().into_bytes(),
    };
    let page = |path: &str| format!("http://{site}{path}");
    let cron = |expression: &str| {
        Kind::Cron(Cron {
            expression: expression.into(),
            time_zone: "Europe/Berlin".into(),
            ..Cron::default()
        })
    };
    let every = |seconds| {
        Kind::Interval(Interval { every: Some(prost_types::Duration { seconds, nanos: 0 }), anchor: None })
    };
    let triggers = [
        (
            "home",
            "http-check",
            cron("*/2 * * * * *"),
            json(json!({"url": page("/"), "body_pattern": "Welcome to the \\w+"})),
        ),
        ("slow-page", "http-check", every(4), json(json!({"url": page("/slow"), "max_latency_ms": 2000}))),
        ("flaky-page", "http-check", cron("*/3 * * * * *"), json(json!({"url": page("/flaky")}))),
        (
            "broken-page",
            "http-check",
            cron("1-59/7 * * * * *"),
            json(json!({"url": page("/broken"), "expect_status": "2xx"})),
        ),
        ("report", "access-log", cron("*/5 * * * * *"), log),
    ];
    for (name, task, kind, input) in triggers {
        let request = CreateTriggerRequest {
            task: task.into(),
            name: name.into(),
            schedule: Some(Schedule { kind: Some(kind) }),
            input: Some(input),
            ..CreateTriggerRequest::default()
        };
        let trigger = client.triggers().create_trigger(call(request)).await?.into_inner();
        let first = output::instant(trigger.next_times.first().copied());
        output::note(&format!("trigger {name:12} of {task:10}  first at {first}"));
    }
    Ok(())
}
