//! `inn serve`: the host.

use super::{Global, Verdict};
use crate::host::{Host, HostConfig};
use anyhow::Result;
use innkeeper_runtime::network::Network;
use std::net::SocketAddr;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs the host until it is told to stop (Ctrl-C or SIGTERM).
///
/// Everything it keeps is in the data folder (`--data`): the store, uploaded and compiled components, and
/// `admin.token`, the token that clients on the same machine find by themselves. Started again on the same
/// folder, whatever happened to it, it goes on with every task, trigger and run that it has acknowledged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  inn serve
  inn serve --data ./data --listen 127.0.0.1:7071
  inn serve --open-network 10.1.0.0/16     tasks may reach this private network, if granted its hosts")]
pub struct Args {
    /// Where to listen; a loopback address. Port 0 takes a free one, told in DIR/address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,

    /// Attempts to execute at one time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    capacity: u32,

    /// A network that is closed to tasks by default (loopback, private, link-local ...) and is to be open;
    /// can be repeated
    #[arg(long, value_name = "NETWORK")]
    open_network: Vec<Network>,

    /// How the host logs
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub async fn run(args: Args, global: &Global) -> Result<Verdict> {
    start_log(args.log_format);
    let data = global.data_folder()?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config = HostConfig {
        capacity: args.capacity,
        open_networks: args.open_network,
        ..HostConfig::new(data.clone(), args.listen)
    };
    let host = Host::start(config).await?;
    tracing::info!(address = %host.address(), data = %data.display(), "the host serves");
    let verdict = tokio::select! {
        _ = interrupt.recv() => Verdict::Succeeded,
        _ = terminate.recv() => Verdict::Succeeded,
        () = host.failed() => Verdict::Failed,
    };
    tracing::info!("the host stops: it waits for its runs");
    host.stop().await;
    tracing::info!("the host has stopped");
    Ok(verdict)
}

/// Logs to stderr. `RUST_LOG` chooses what; `info` by default.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(console::colors_enabled_stderr()).init(),
        LogFormat::Json => log.json().init(),
    }
}
