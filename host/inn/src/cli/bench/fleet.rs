//! The hosts that a bench measures.

use crate::cli::{Format, Global};
use crate::data_folder::ADDRESS_FILE;
use crate::host::{Host, HostConfig};
use anyhow::{Context, Result, ensure};
use innkeeper_store::Store;
use innkeeper_store::postgres::{DatabaseUrl, PostgresStore};
use innkeeper_store::sqlite::SqliteStore;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long a host may take to start.
const START_MAX: Duration = Duration::from_secs(60);

/// Which hosts are wanted.
pub struct Fleet<'a> {
    pub folder: &'a Path,
    pub hosts: u32,
    /// Without one there is one host, in this process, on an embedded store.
    pub database: Option<DatabaseUrl>,
}

/// Hosts that run.
pub enum Hosts {
    Here(Box<Host>, Box<Global>),
    /// Killed when dropped.
    Processes(Vec<(Child, Global)>),
}

impl Fleet<'_> {
    /// The store that is measured for itself.
    pub async fn store(&self) -> Result<Arc<dyn Store>> {
        Ok(match &self.database {
            None => Arc::new(SqliteStore::open(&self.folder.join("store"))?),
            Some(url) => Arc::new(PostgresStore::open(url).await?),
        })
    }

    /// Starts them.
    pub async fn start(&self) -> Result<Hosts> {
        let Some(url) = &self.database else {
            let data = self.folder.join("host");
            let host = Host::start(HostConfig::new(data.clone(), ([127, 0, 0, 1], 0).into())).await?;
            return Ok(Hosts::Here(Box::new(host), Box::new(client_of(data))));
        };
        let mut processes = Vec::new();
        for number in 1..=self.hosts {
            let data = self.folder.join(format!("host-{number}"));
            let process = Command::new(std::env::current_exe()?)
                .args(["serve", "--listen", "127.0.0.1:0", "--name", &format!("bench-{number}"), "--data"])
                .arg(&data)
                .env("INN_DATABASE_URL", url.text())
                // So that each component is compiled once.
                .env("INN_KEY", "00".repeat(32))
                .env("RUST_LOG", "warn")
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .context("a host can't be started")?;
            processes.push((process, client_of(data)));
        }
        for (_, global) in &processes {
            let address = global.data.as_deref().unwrap_or(Path::new("")).join(ADDRESS_FILE);
            let begun = Instant::now();
            while !address.is_file() {
                ensure!(begun.elapsed() < START_MAX, "a host doesn't start");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(Hosts::Processes(processes))
    }
}

impl Hosts {
    /// How clients find each.
    pub fn globals(&self) -> Vec<Global> {
        match self {
            Self::Here(_, global) => vec![Global::clone(global)],
            Self::Processes(processes) => processes.iter().map(|(_, global)| global.clone()).collect(),
        }
    }

    /// Ends them.
    pub async fn stop(self) {
        match self {
            Self::Here(host, _) => host.stop().await,
            Self::Processes(processes) => drop(processes),
        }
    }
}

fn client_of(data: PathBuf) -> Global {
    Global { output: Format::Json, data: Some(data), ..Global::default() }
}
