//! The composition root: the only file that names concrete types of every room.

use crate::data_folder::{
    ADDRESS_FILE, admin_token, forget, private_folder, warn_of_open_folder, write_private,
};
use crate::keys::keys;
use crate::oidc::{Oidc, OidcConfig};
use crate::vault::HostVault;
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use innkeeper_api::auth::TENANT_DEFAULT;
use innkeeper_api::listen::{Listener, Tls, TlsFiles};
use innkeeper_api::peer::Identity;
use innkeeper_api::slots::Slots;
use innkeeper_api::turns::Turns;
use innkeeper_api::{Api, Inspector, serve};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::component::{Digest, Inspected, Refusal};
use innkeeper_domain::host::{Labels, Role as HostRole};
use innkeeper_domain::ids::HostId;
use innkeeper_domain::limits::{DRAIN_GRACE, LEASE};
use innkeeper_domain::name::Name;
use innkeeper_domain::time::Now;
use innkeeper_engine::backfill::Backfiller;
use innkeeper_engine::clock::{Clock, ClockOf, SystemClock};
use innkeeper_engine::delivery::Deliverer;
use innkeeper_engine::dispatcher::{Dispatcher, DispatcherConfig};
use innkeeper_engine::executor::{Executor, NoExecutor};
use innkeeper_engine::retention::{Kept, Retention};
use innkeeper_engine::scheduler::Scheduler;
use innkeeper_runtime::network::Network;
use innkeeper_runtime::{CompileWith, ComponentSource, Runtime, RuntimeConfig};
use innkeeper_store::postgres::{DatabaseUrl, PostgresStore};
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::transfer::Place;
use innkeeper_store::{FolderLock, Store, StoreError};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a component's bytes are waited for while the store is away, and how often they are asked for.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long after its runs' grace a host waits for its clients, and for the store to take what is left.
const STOP_SLACK: Duration = Duration::from_secs(8);

/// How a host is to be.
#[derive(Debug, Clone)]
pub struct HostConfig {
    pub data: PathBuf,
    /// Where it listens, if it has the role `api`.
    pub listen: SocketAddr,
    pub name: Name,
    pub roles: BTreeSet<HostRole>,
    pub labels: Labels,
    /// Attempts that are executed at one time.
    pub capacity: u32,
    /// How long it may go without a sign of life before its runs are taken up by another.
    pub lease: Duration,
    /// How long its runs have to end when it stops or is drained.
    pub drain_grace: Duration,
    /// How long what is old is kept, if it has the role `scheduler`.
    pub kept: Kept,
    /// Networks that are closed to guests by default, and that are open here.
    pub open_networks: Vec<Network>,
    /// The database that it shares with the hosts of its fleet; without one, the store is in `data`.
    pub database: Option<DatabaseUrl>,
    /// The file of the keys that artifacts are authenticated and secrets encrypted with; without one, the host has
    /// its own in `data`.
    pub key_file: Option<PathBuf>,
    /// How its clients and it speak.
    pub transport: Transport,
    /// The identity provider whose tokens it takes.
    pub oidc: Option<OidcConfig>,
}

/// How a host and its clients speak.
#[derive(Debug, Clone)]
pub enum Transport {
    /// In plain text, and so only on this machine.
    Plain,
    /// In plain text, because it was asked for by name.
    PlainBeyondLoopback,
    Tls(TlsFiles),
}

impl Transport {
    /// Whether a host may listen there.
    fn check(&self, listen: SocketAddr) -> Result<()> {
        match self {
            _ if listen.ip().to_canonical().is_loopback() => {}
            Self::Tls(_) => {}
            Self::Plain => bail!(
                "{listen} is not a loopback address, and without TLS anybody in between could read tokens; give a \
                 certificate (--tls-cert, --tls-key), listen on 127.0.0.1 or [::1], or say that the network is safe \
                 (--plain-text-beyond-loopback)"
            ),
            Self::PlainBeyondLoopback => tracing::warn!(
                %listen,
                "the host listens beyond loopback in plain text: anybody in between can read tokens, and use them"
            ),
        }
        Ok(())
    }

    /// Where this machine's clients find a host that listens there.
    fn url(&self, listens: SocketAddr) -> String {
        let ip = match listens.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let scheme = if matches!(self, Self::Tls(_)) { "https" } else { "http" };
        format!("{scheme}://{}", SocketAddr::new(ip, listens.port()))
    }
}

impl HostConfig {
    /// A host with every role and everything else as usual.
    pub fn new(data: PathBuf, listen: SocketAddr) -> Self {
        Self {
            data,
            listen,
            name: machine_name(),
            roles: HostRole::ALL.into(),
            labels: Labels::default(),
            capacity: 64,
            lease: LEASE,
            drain_grace: DRAIN_GRACE,
            kept: Kept::default(),
            open_networks: Vec::new(),
            database: None,
            key_file: None,
            transport: Transport::Plain,
            oidc: None,
        }
    }
}

/// A host that runs.
pub struct Host {
    address: Option<SocketAddr>,
    stop: CancellationToken,
    tasks: TaskTracker,
    address_file: PathBuf,
    drain_grace: Duration,
    /// Tells those who have read files to look at them again, if there are any.
    reload: Option<Arc<Notify>>,
    _lock: Option<FolderLock>,
}

/// The argument by which this binary becomes the process that compiles.
pub const COMPILE_WORKER: &str = "compile-worker";

/// This very binary, also where another has been put in its place since it was started.
pub fn compile_with() -> Result<CompileWith> {
    let running = Path::new("/proc/self/exe");
    let program = if running.exists() { running.into() } else { std::env::current_exe()? };
    Ok(CompileWith::program(program, COMPILE_WORKER))
}

/// The instant, from the machine's clock.
pub fn now() -> Timestamp {
    SystemClock.now()
}

impl Host {
    /// Starts a host: when this returns, it answers, if it has the role `api`.
    pub async fn start(config: HostConfig) -> Result<Self> {
        let is = |role| config.roles.contains(&role);
        if is(HostRole::Api) {
            config.transport.check(config.listen)?;
        }
        let tls = match &config.transport {
            Transport::Tls(files) if is(HostRole::Api) => Some(Arc::new(Tls::load(files.clone())?)),
            _ => None,
        };
        private_folder(&config.data)?;
        warn_of_open_folder(&config.data);
        let Opened { store, now, lock } = open(&config).await?;
        let keys = keys(&config.data, config.key_file.as_deref())?;
        let keys = if config.database.is_some() { keys.in_fleet() } else { keys };
        // For executing, and for looking at what is uploaded.
        let runtime = if is(HostRole::Worker) || is(HostRole::Api) {
            Some(Arc::new(Runtime::new(RuntimeConfig {
                artifacts: config.data.join("artifacts"),
                keys: keys.ring.clone(),
                capacity: if is(HostRole::Worker) { config.capacity } else { 1 },
                open_networks: config.open_networks,
                components: Arc::new(Components(Arc::clone(&store))),
                compile_with: compile_with()?,
                now: Arc::clone(&now),
            })?))
        } else {
            None
        };
        store.tenant_ensure(&TENANT_DEFAULT.parse()?, now()).await?;

        let oidc = match config.oidc {
            Some(oidc) if is(HostRole::Api) => Some(Arc::new(Oidc::new(oidc, Arc::clone(&now)).await?)),
            _ => None,
        };

        let address_file = config.data.join(ADDRESS_FILE);
        let listener = if is(HostRole::Api) {
            admin_token(&config.data, store.as_ref()).await?;
            let listener = TcpListener::bind(config.listen).await;
            Some(listener.with_context(|| format!("can't listen on {}", config.listen))?)
        } else {
            None
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        match address {
            Some(address) => {
                write_private(&address_file, format!("{}\n", config.transport.url(address)).as_bytes())?;
            }
            None => forget(&address_file)?,
        }

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let clock: Arc<dyn Clock> = Arc::new(ClockOf(Arc::clone(&now)));
        let vault = Arc::new(HostVault::new(Arc::clone(&store), keys, tasks.clone()));
        let scheduler = Scheduler::new(Arc::clone(&store), Arc::clone(&clock), Arc::new(BundledZones));
        let backfiller = Backfiller::new(Arc::clone(&store), Arc::clone(&clock), Arc::new(BundledZones));
        let deliverer = Deliverer::new(Arc::clone(&store), Arc::clone(&clock));
        let retention = Retention::new(Arc::clone(&store), Arc::clone(&clock), config.kept);
        let host = innkeeper_domain::host::Host {
            id: HostId::new(now()),
            name: config.name,
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            capacity: if is(HostRole::Worker) { config.capacity } else { 0 },
            roles: config.roles.iter().copied().collect(),
            labels: config.labels,
        };
        let (name, own_address) = (host.name.clone(), host.address.clone());
        let executor: Arc<dyn Executor> = match &runtime {
            Some(runtime) => Arc::clone(runtime) as _,
            None => Arc::new(NoExecutor),
        };
        let dispatcher = Dispatcher::new(
            Arc::clone(&store),
            clock,
            executor,
            Arc::clone(&vault) as _,
            DispatcherConfig {
                lease: config.lease,
                drain_grace: config.drain_grace,
                ..DispatcherConfig::new(host)
            },
        );
        if is(HostRole::Scheduler) {
            let stopped = stop.clone();
            tasks.spawn(async move { scheduler.run(stopped).await });
            let stopped = stop.clone();
            tasks.spawn(async move { backfiller.run(stopped).await });
            let stopped = stop.clone();
            tasks.spawn(async move { deliverer.run(stopped).await });
            let stopped = stop.clone();
            tasks.spawn(async move { retention.run(stopped).await });
        }
        let stopped = stop.clone();
        tasks.spawn(async move { dispatcher.run(stopped).await });
        let reload = (tls.is_some() || oidc.is_some()).then(Arc::<Notify>::default);
        if let (Some(tls), Some(told)) = (&tls, &reload) {
            tasks.spawn(Arc::clone(tls).keep_fresh(Arc::clone(told), stop.clone()));
        }
        if let (Some(oidc), Some(told)) = (&oidc, &reload) {
            tasks.spawn(Arc::clone(oidc).keep_fresh(Arc::clone(told), stop.clone()));
        }
        if let (Some(listener), Some(runtime)) = (listener, runtime) {
            let listener = match tls {
                Some(tls) => Listener::tls(listener, tls),
                None => Listener::plain(listener),
            };
            let api = Api {
                store,
                inspector: Arc::new(Inspection(runtime)),
                vault,
                now,
                name,
                address: own_address,
                version: env!("CARGO_PKG_VERSION"),
                stop: stop.clone(),
                identity: oidc.map(|oidc| oidc as Arc<dyn Identity>),
                uploads: Slots::uploads(),
                reads: Turns::reads(tasks.clone()),
                streams: Slots::streams(),
                forecasts: Slots::forecasts(),
                webhooks: Slots::webhooks(),
            };
            let failed = stop.clone();
            tasks.spawn(async move {
                if let Err(error) = serve(api, listener).await {
                    tracing::error!(%error, "the host stops: it can't serve");
                    failed.cancel();
                }
            });
        }
        tasks.close();
        Ok(Self { address, stop, tasks, address_file, drain_grace: config.drain_grace, reload, _lock: lock })
    }

    /// Where it listens, if it answers calls.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Whether it has read certificates or an issuer's keys, which can be read anew.
    pub fn can_reload(&self) -> bool {
        self.reload.is_some()
    }

    /// Reads certificates and the issuer's keys anew.
    pub fn reload(&self) {
        if let Some(told) = &self.reload {
            told.notify_waiters();
        }
    }

    /// Waits until the host has come to its end by itself, which it only does when it can't go on.
    pub async fn failed(&self) {
        self.stop.cancelled().await;
    }

    /// Stops in order: nothing new begins, runs end within their grace or are handed back.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(self.drain_grace + STOP_SLACK, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "a client keeps its connection busy, or the store is slow; the host stops all the same"
            );
        }
        // If it stays, it tells an address where nobody answers, which clients say.
        let _ = forget(&self.address_file);
    }
}

/// What this machine is called, as far as that makes a name.
fn machine_name() -> Name {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase();
    name.parse().or_else(|_| "host".parse()).unwrap_or_else(|_| unreachable!("`host` is a name"))
}

/// A store that is open, and what goes with it.
struct Opened {
    store: Arc<dyn Store>,
    now: Now,
    /// The embedded store has its own.
    lock: Option<FolderLock>,
}

async fn open(config: &HostConfig) -> Result<Opened> {
    match &config.database {
        None => {
            let store = Arc::new(SqliteStore::open(&config.data)?);
            Ok(Opened { store, now: Arc::new(now), lock: None })
        }
        Some(url) => {
            let lock = Some(FolderLock::take(&config.data)?);
            let store = Arc::new(PostgresStore::open(url).await?);
            Ok(Opened { now: store.now(), store, lock })
        }
    }
}

/// Opens a store that is there already, for a command on the host's own data, and tells the time by its clock. A
/// running host keeps an embedded one for itself: `Conflict`. `NotFound` if there is none.
pub async fn open_existing(place: &Place) -> Result<(Arc<dyn Store>, Timestamp), StoreError> {
    match place {
        Place::Folder(folder) if !SqliteStore::is_in(folder) => {
            Err(StoreError::NotFound(format!("store in {}", folder.display())))
        }
        Place::Folder(folder) => Ok((Arc::new(SqliteStore::open(folder)?), now())),
        Place::Database(url) => {
            let store = PostgresStore::open(url).await?;
            let now = (store.now())();
            Ok((Arc::new(store), now))
        }
    }
}

/// Components, from the store to the runtime.
struct Components(Arc<dyn Store>);

#[async_trait]
impl ComponentSource for Components {
    /// A store that is away is waited for: that is no failure of the run's.
    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, String> {
        let patience = tokio::time::Instant::now() + STORE_PATIENCE;
        loop {
            match self.0.component_bytes(digest).await {
                Err(StoreError::Unavailable(why)) if tokio::time::Instant::now() < patience => {
                    tracing::warn!(%digest, why, "a component can't be read; it tries again");
                    tokio::time::sleep(STORE_RETRY).await;
                }
                bytes => return bytes.map_err(|e| e.to_string()),
            }
        }
    }

    async fn artifact(&self, digest: Digest, variant: &str) -> Result<Option<Vec<u8>>, String> {
        self.0.artifact_get(digest, variant).await.map_err(|e| e.to_string())
    }

    async fn share_artifact(&self, digest: Digest, variant: &str, bytes: Vec<u8>) -> Result<(), String> {
        self.0.artifact_put(digest, variant, bytes).await.map_err(|e| e.to_string())
    }
}

/// Inspections, from the API to the runtime.
struct Inspection(Arc<Runtime>);

#[async_trait]
impl Inspector for Inspection {
    async fn inspect(&self, digest: Digest, bytes: Bytes) -> Result<Inspected, Refusal> {
        self.0.inspect(digest, bytes).await
    }
}
