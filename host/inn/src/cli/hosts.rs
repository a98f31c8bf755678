//! `inn hosts`.

use super::client::{Client, call};
use super::output::{self, Column, number, text};
use super::{Format, Global, Verdict, json, runs_many};
use anyhow::Result;
use innkeeper_api::proto::{
    Host, ListHostsRequest, PauseFleetRequest, SetHostStateRequest, UnpauseFleetRequest, host::State,
};
use serde_json::Value;
use std::time::Duration;

/// How often a host that is drained is asked what it still executes.
const LOOK: Duration = Duration::from_millis(500);

/// See the hosts, and stop one from executing runs
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the hosts that live
    Ls,
    /// Let a host claim no more runs, and wait until it executes none
    ///
    /// Runs that it executes have the host's grace (`inn serve --drain-grace`) to end; those that haven't by
    /// then are handed back, and executed again elsewhere or when the host is active again. That counts as no
    /// try.
    #[command(after_help = "Examples:
  inn hosts drain one
  inn hosts drain one --no-wait; inn hosts ls
  inn hosts uncordon one                      and it claims runs again")]
    Drain {
        name: String,
        /// Don't wait until it executes none
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a host claim no more runs; it goes on with those that it has
    Cordon { name: String },
    /// Let a host claim runs again
    Uncordon { name: String },
    /// Pause all hosts, for every tenant: no run begins until `unpause`; what executes goes on
    ///
    /// Queued runs wait, and so do those that are started by hand. Due times of triggers are skipped, on record. Hosts
    /// that are started meanwhile are paused as well.
    #[command(after_help = "Examples:
  inn hosts pause --note 'the network is being mended'
  inn hosts pause --cancel-running
  inn hosts unpause")]
    Pause {
        /// Why, for people
        #[arg(long, default_value = "")]
        note: String,
        /// Tell what executes to end, as `inn runs cancel` does
        #[arg(long)]
        cancel_running: bool,
    },
    /// Let all hosts go on
    Unpause,
}

pub async fn run(command: Command, global: &Global) -> Result<Verdict> {
    let client = Client::connect(global).await?;
    let set = async |name: &str, state: State| {
        let request = SetHostStateRequest { name: name.into(), state: state.into() };
        Ok::<_, anyhow::Error>(client.hosts().set_host_state(call(request)).await?.into_inner().hosts)
    };
    let hosts = match command {
        Command::Ls => list(&client).await?,
        Command::Pause { note, cancel_running } => {
            client.hosts().pause_fleet(call(PauseFleetRequest { note })).await?;
            if cancel_running {
                let told = runs_many::cancel_running(global, true).await?;
                output::note(&format!("{told} that execute were told to end"));
            }
            list(&client).await?
        }
        Command::Unpause => {
            client.hosts().unpause_fleet(call(UnpauseFleetRequest {})).await?;
            list(&client).await?
        }
        Command::Cordon { name } => set(&name, State::Cordoned).await?,
        Command::Uncordon { name } => set(&name, State::Active).await?,
        Command::Drain { name, no_wait } => {
            let hosts = set(&name, State::Draining).await?;
            if !no_wait && !drained(&client, &name, running(&hosts)).await? {
                return Ok(Verdict::Failed);
            }
            if no_wait { hosts } else { named(&client, &name).await? }
        }
    };
    show(global.output, &hosts)?;
    Ok(Verdict::Succeeded)
}

/// Waits until the hosts of that name execute nothing; false if they were told to go on meanwhile.
async fn drained(client: &Client, name: &str, mut running: u64) -> Result<bool> {
    while running > 0 {
        output::note(&format!("host `{name}` still executes {running}; waiting"));
        let before = running;
        while running == before {
            tokio::time::sleep(LOOK).await;
            let hosts = named(client, name).await?;
            if hosts.iter().any(|host| host.state() == State::Active) {
                output::note(&format!("host `{name}` was made active again; it isn't drained"));
                return Ok(false);
            }
            running = self::running(&hosts);
        }
    }
    output::note(&format!("host `{name}` executes nothing"));
    Ok(true)
}

fn running(hosts: &[Host]) -> u64 {
    hosts.iter().map(|host| host.running).sum()
}

async fn list(client: &Client) -> Result<Vec<Host>> {
    let listed = client.hosts().list_hosts(call(ListHostsRequest {})).await?.into_inner();
    if let Some(pause) = listed.pause {
        let (since, note) = (output::instant(pause.at), pause.note);
        output::note(format!("all hosts are paused since {since}: `inn hosts unpause`  {note}").trim_end());
    }
    Ok(listed.hosts)
}

/// The hosts of that name; none if they have stopped.
async fn named(client: &Client, name: &str) -> Result<Vec<Host>> {
    let mut hosts = list(client).await?;
    hosts.retain(|host| host.name == name);
    Ok(hosts)
}

fn show(format: Format, hosts: &[Host]) -> Result<()> {
    const COLUMNS: &[Column] = &[
        text("name"),
        text("state"),
        text("roles"),
        text("labels"),
        number("running"),
        text("address"),
        text("version"),
        text("started"),
        number("lease"),
    ];
    let rows = hosts.iter().map(|host| {
        let lease = host.lease_left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
        vec![
            host.name.clone(),
            json::host_state(host).into(),
            host.roles.join(","),
            host.labels.join(","),
            format!("{}/{}", host.running, host.capacity),
            host.address.clone(),
            host.version.clone(),
            output::instant(host.started_at),
            if lease.is_zero() { "over".into() } else { output::duration(lease) },
        ]
    });
    output::rows(format, COLUMNS, rows.collect(), || Value::Array(hosts.iter().map(json::host).collect()))
}
