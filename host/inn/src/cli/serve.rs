//! `inn serve`: the host.

use super::serve_access::AccessArgs;
use super::{Global, Usage, Verdict, parse};
use crate::host::{Host, HostConfig};
use anyhow::Result;
use innkeeper_domain::host::{Labels, Role};
use innkeeper_domain::limits::{
    COMPONENTS_READY_MAX, CONNECTIONS_MAX, DRAIN_GRACE_MAX, HTTP_CONNECTIONS_PER_HOST_MAX, KEPT_MAX,
    KEPT_MIN, LEASE_MAX, LEASE_MIN, MEMORIES_PER_COMPONENT_MAX,
};
use innkeeper_domain::name::Name;
use innkeeper_engine::retention::Kept;
use innkeeper_runtime::network::Network;
use innkeeper_store::postgres::DatabaseUrl;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs the host until it is told to stop (Ctrl-C or SIGTERM).
///
/// Then it claims no more runs, lets those end that it executes (--drain-grace), and hands back the rest. Told a
/// second time it goes at once, as if it were killed.
///
/// Everything it keeps is in the data folder (`--data`): the store, uploaded and compiled components, and
/// `admin.token`, the token that clients on the same machine find by themselves. Started again on the same
/// folder, whatever happened to it, it goes on with every task, trigger and run that it has acknowledged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn serve
  inn serve --data ./data --listen 127.0.0.1:7071
  inn serve --database-url postgres://inn:secret@db.example.com/inn --key-file /etc/innkeeper/key
  inn serve --name gpu-1 --label gpu=a100 --label zone=eu
  inn serve --listen 0.0.0.0:7070 --tls-cert host.pem --tls-key host.key --tls-client-ca clients.pem
  inn serve --oidc-issuer https://id.example.com --oidc-audience innkeeper
  inn serve --open-network 10.1.0.0/16     tasks may reach this private network, if granted its hosts")]
pub struct Args {
    /// Where to listen; beyond loopback with TLS. Port 0 takes a free one, told in DIR/address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,

    /// What people call the host, in `inn hosts`; a-z 0-9 - [default: the machine's name]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,

    /// The parts it plays: api answers calls, scheduler starts runs that are due, worker executes them
    #[arg(long, value_name = "ROLE,...", value_delimiter = ',', default_value = "api,scheduler,worker")]
    roles: Vec<Role>,

    /// What it offers to tasks that require it (`inn task create --require`); can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,

    /// How long it may go without a sign of life before its runs are taken up again, 1s to 10m
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lease)]
    lease: Duration,

    /// How long runs may take to end when it stops or is drained, at most 24h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = drain_grace)]
    drain_grace: Duration,

    /// How long runs are kept after their end, with all that belongs to them. An idempotency key goes with its run
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = kept)]
    keep_runs: Duration,

    /// How long logs are kept after the end of their runs, no longer than these [default: 30d]
    #[arg(long, value_name = "DURATION", value_parser = kept)]
    keep_logs: Option<Duration>,

    /// How long it is on record that times of a trigger were skipped
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = kept)]
    keep_skips: Duration,

    /// How long events are kept; those that a trigger hasn't dealt with yet, four times as long
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = kept)]
    keep_events: Duration,

    /// Attempts to execute at one time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    capacity: u32,

    /// A network that is closed to tasks by default (loopback, private, link-local ...) and is to be open to all tenants'
    /// (to one's: `inn quota set open-networks=`); can be repeated
    #[arg(long, value_name = "NETWORK")]
    open_network: Vec<Network>,

    /// The PostgreSQL database that it shares with the hosts of its fleet, postgres://USER:PASSWORD@HOST/NAME; without
    /// one the store is in the data folder, for this host alone [env: INN_DATABASE_URL, the place for a password]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,

    /// The key that secrets are encrypted and compiled components authenticated with, 32 bytes or 64 hex digits; after
    /// it, a line each, older ones that secrets may still be under. Hosts of a fleet need the same to have secrets, and
    /// compile each component once then. Without one the host makes its own [env: INN_KEY has the digits]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    #[command(flatten)]
    access: AccessArgs,

    /// How the host logs
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Files that a host has open beside its connections and components, and more: of its store, for lookups, for uploads.
const OPEN_FILES_BESIDE: u64 = 896;

/// Files that a host has open at the most: all the connections that it takes and makes, and what each memory of a
/// component begins with. Those that execute may be others than those that are kept ready.
fn open_files_max(capacity: u32) -> u64 {
    let connections = CONNECTIONS_MAX as u64 + HTTP_CONNECTIONS_PER_HOST_MAX as u64;
    let components = COMPONENTS_READY_MAX as u64 + u64::from(capacity);
    connections + components * u64::from(MEMORIES_PER_COMPONENT_MAX) + OPEN_FILES_BESIDE
}

/// As many open files as the system lets it have: the usual bound is for programs that don't serve.
fn raise_open_files(capacity: u32) {
    let needed = open_files_max(capacity);
    let bound = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: bound.maximum, maximum: bound.maximum });
    let open_files = if raised.is_ok() { bound.maximum } else { bound.current };
    if let Some(open_files) = open_files.filter(|files| *files < needed) {
        tracing::warn!(open_files, "the host may have few files open (ulimit -n): it could need {needed}");
    }
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    start_log(args.log_format);
    raise_open_files(args.capacity);
    let data = global.data_folder()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (kept, oidc) = (args.kept()?, args.access.oidc()?);
    let usual = HostConfig::new(data.clone(), args.listen);
    let config = HostConfig {
        name: args.name.unwrap_or_else(|| usual.name.clone()),
        roles: args.roles.into_iter().collect(),
        labels: Labels::parse(args.labels.iter().map(String::as_str)).map_err(|e| Usage(e.to_string()))?,
        capacity: args.capacity,
        lease: args.lease,
        drain_grace: args.drain_grace,
        kept,
        open_networks: args.open_network,
        database: database(args.database_url)?,
        key_file: args.key_file,
        transport: args.access.transport(),
        oidc,
        ..usual
    };
    let name = config.name.clone();
    let host = Host::start(config).await?;
    match host.address() {
        Some(address) => tracing::info!(%name, %address, data = %data.display(), "the host serves"),
        None => tracing::info!(%name, data = %data.display(), "the host works; it answers no calls"),
    }
    let mut hangup = host.can_reload().then(|| signal(SignalKind::hangup())).transpose()?;
    let reload = async {
        while let Some(hangup) = &mut hangup
            && hangup.recv().await.is_some()
        {
            host.reload();
        }
        std::future::pending::<()>().await
    };
    let verdict = tokio::select! {
        () = reload => Verdict::Failed,
        _ = interrupt.recv() => Verdict::Succeeded,
        _ = terminate.recv() => Verdict::Succeeded,
        () = host.failed() => Verdict::Failed,
    };
    tracing::info!("the host stops: it waits for its runs");
    tokio::select! {
        () = host.stop() => tracing::info!("the host has stopped"),
        _ = interrupt.recv() => tracing::warn!("told again, the host goes at once; its runs are lost"),
        _ = terminate.recv() => tracing::warn!("told again, the host goes at once; its runs are lost"),
    }
    Ok(verdict)
}

/// The flag's word, else the environment's.
fn database(flag: Option<String>) -> Result<Option<DatabaseUrl>> {
    let variable = || std::env::var("INN_DATABASE_URL").ok().filter(|url| !url.is_empty());
    flag.or_else(variable).as_deref().map(parse::database_url).transpose()
}

impl Args {
    fn kept(&self) -> Result<Kept> {
        let usual = Kept::default();
        if self.keep_logs.is_some_and(|logs| logs > self.keep_runs) {
            let problem = "logs can't be kept longer than their runs; keep those as long (--keep-runs)";
            return Err(Usage(problem.into()).into());
        }
        let logs = self.keep_logs.unwrap_or(usual.logs);
        Ok(Kept { runs: self.keep_runs, logs, skips: self.keep_skips, events: self.keep_events, ..usual })
    }
}

fn kept(text: &str) -> Result<Duration, String> {
    within(text, KEPT_MIN, KEPT_MAX)
}

fn lease(text: &str) -> Result<Duration, String> {
    within(text, LEASE_MIN, LEASE_MAX)
}

fn drain_grace(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO, DRAIN_GRACE_MAX)
}

fn within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = parse::duration(text)?;
    if !(min..=max).contains(&duration) {
        return Err(format!("it can be {min:?} to {max:?}"));
    }
    Ok(duration)
}

/// What the host logs if nobody says.
const LOGGED: &str = "info";

/// Those that warn of what guests do wrong at the network, as often as they do. Of these only errors are logged, unless
/// they are asked for by name.
const FLOODED: [&str; 2] = ["wasmtime_wasi", "wasmtime_wasi_http"];

/// What is logged if this is asked for.
fn filter(asked: &str) -> String {
    let asked = if asked.trim().is_empty() { LOGGED } else { asked };
    let target =
        |directive: &str| directive.split(['=', '[', ':']).next().unwrap_or_default().trim().to_string();
    let targets: Vec<String> = asked.split(',').map(target).collect();
    let mut filter = asked.to_string();
    for quiet in FLOODED.iter().filter(|flooded| !targets.iter().any(|t| t == *flooded || t == "off")) {
        filter += &format!(",{quiet}=error");
    }
    filter
}

/// Logs to stderr. `RUST_LOG` chooses what; see [`filter`] for what is always quiet.
fn start_log(format: LogFormat) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::try_new(filter(&asked)).unwrap_or_else(|_| EnvFilter::new(filter("")));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(console::colors_enabled_stderr()).init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_memory_of_a_component_may_keep_a_file_open() {
        assert_eq!(open_files_max(64), 640 + 512 + 4 * (1_000 + 64) + 896);
        assert_eq!(open_files_max(1_000) - open_files_max(64), 4 * 936);
    }

    #[test]
    fn guests_do_not_flood_the_log_unless_somebody_asks_for_it() {
        const QUIET: &str = "wasmtime_wasi=error,wasmtime_wasi_http=error";
        for (asked, most) in
            [("", "info"), (" ", "info"), ("warn", "warn"), ("info,wasmtime=debug", "info,wasmtime=debug")]
        {
            assert_eq!(filter(asked), format!("{most},{QUIET}"));
        }
        assert_eq!(filter("info,wasmtime_wasi=warn"), "info,wasmtime_wasi=warn,wasmtime_wasi_http=error");
        for named in ["wasmtime_wasi, wasmtime_wasi_http::body=debug", "off"] {
            assert_eq!(filter(named), named);
        }
        assert!(EnvFilter::try_new(filter("warn")).is_ok());
    }
}
