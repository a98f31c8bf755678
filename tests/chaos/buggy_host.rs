//! A host with a bug put in on purpose, as a process of its own: the checker must find it. Composed of the
//! public crates as `inn serve` is, with a stub for a sandbox and the bug between it and the store.

use crate::limits;
use crate::sabotage::{Bug, Sabotaged};
use async_trait::async_trait;
use innkeeper_api::auth::{TENANT_DEFAULT, token_hash};
use innkeeper_api::listen::Listener;
use innkeeper_api::secret::{Rotated, Vault, VaultError};
use innkeeper_api::slots::Slots;
use innkeeper_api::turns::Turns;
use innkeeper_api::{Api, Inspector, serve};
use innkeeper_domain::audit::Change;
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::component::{Digest, Inspected, Refusal, Shape};
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::host::{Host, Labels, Role as HostRole};
use innkeeper_domain::ids::{HostId, TenantId};
use innkeeper_domain::keyring::Keyring;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::secret::{SecretInfo, SecretText};
use innkeeper_domain::time::Now;
use innkeeper_engine::clock::{Clock, ClockOf, SystemClock};
use innkeeper_engine::dispatcher::{Dispatcher, DispatcherConfig};
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use innkeeper_engine::scheduler::Scheduler;
use innkeeper_store::Store;
use innkeeper_store::postgres::PostgresStore;
use innkeeper_store::sqlite::SqliteStore;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The environment's word for the bug: with it, this program is a host.
pub const BUG: &str = "INNKEEPER_TEST_BUG";

/// The token of every host; nobody but the tests can reach them.
const TOKEN: &str = "inn_chaos";
/// How long an attempt of the task `slow` takes.
const SLOW: Duration = Duration::from_millis(1_500);
/// How long one of a task with limits takes.
const LIMITED: Duration = Duration::from_millis(700);

/// Serves until it is killed. The arguments: a name, a data folder, a lease in milliseconds, a database.
pub async fn main(bug: &str, arguments: &[String]) {
    let [name, data, lease, database @ ..] = arguments else { panic!("three arguments, or four") };
    let (data, bug) = (Path::new(data), Bug::named(bug));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (store, now): (Arc<dyn Store>, Now) = match database.first() {
        None => {
            let clock = Arc::clone(&clock);
            (Arc::new(SqliteStore::open(data).expect("the store")), Arc::new(move || clock.now()))
        }
        Some(url) => {
            let store = PostgresStore::open(&url.parse().expect("a URL")).await.expect("the store");
            let now = store.now();
            (Arc::new(store), now)
        }
    };
    let tenant = store.tenant_ensure(&TENANT_DEFAULT.parse().expect("a name"), now()).await;
    let tenant = tenant.expect("a tenant").id;
    store.token_ensure(token_hash(TOKEN), now()).await.expect("a token");
    let store: Arc<dyn Store> = Arc::new(Sabotaged::new(store, bug, tenant));

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let host = Host {
        id: HostId::new(now()),
        name: name.parse().expect("a name"),
        address: address.to_string(),
        version: "chaos".into(),
        roles: HostRole::ALL.into(),
        labels: Labels::default(),
        capacity: 64,
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let clock: Arc<dyn Clock> = Arc::new(ClockOf(Arc::clone(&now)));
    let api = Api {
        store: Arc::clone(&store),
        inspector: Arc::new(Anything),
        vault: Arc::new(NoVault),
        now,
        name: host.name.clone(),
        address: host.address.clone(),
        version: "chaos",
        stop: stop.clone(),
        identity: None,
        uploads: Slots::uploads(),
        reads: Turns::reads(tasks.clone()),
        streams: Slots::streams(),
        forecasts: Slots::forecasts(),
        webhooks: Slots::webhooks(),
    };
    let scheduler = Scheduler::new(Arc::clone(&store), Arc::clone(&clock), Arc::new(BundledZones));
    let lease = Duration::from_millis(lease.parse().expect("milliseconds"));
    let config = DispatcherConfig { lease, ..DispatcherConfig::new(host) };
    let keyring = Keyring::new(vec![[7; 32].into()]).expect("a key");
    let dispatcher = Dispatcher::new(store, clock, Arc::new(Stub), Arc::new(keyring), config);
    let stopped = stop.clone();
    tasks.spawn(async move { scheduler.run(stopped).await });
    tasks.spawn(async move { dispatcher.run(stop).await });
    std::fs::write(data.join("admin.token"), TOKEN).expect("a file");
    let unfinished = data.join("address.part");
    std::fs::write(&unfinished, format!("http://{address}")).expect("a file");
    std::fs::rename(unfinished, data.join("address")).expect("a file");
    serve(api, Listener::plain(listener)).await.expect("it serves");
}

/// Takes every upload for a command.
struct Anything;

#[async_trait]
impl Inspector for Anything {
    async fn inspect(&self, _digest: Digest, _bytes: bytes::Bytes) -> Result<Inspected, Refusal> {
        Ok(Inspected { shape: Shape::Command, adapted: false, imports: Vec::new() })
    }
}

/// Has no secrets.
struct NoVault;

#[async_trait]
impl Vault for NoVault {
    async fn set(&self, _: TenantId, _: Name, _: SecretText, _: Change) -> Result<SecretInfo, VaultError> {
        Err(VaultError::Keys("there are no secrets here".into()))
    }

    async fn text(&self, _: TenantId, _: &Name) -> Result<SecretText, VaultError> {
        Err(VaultError::Keys("there are no secrets here".into()))
    }

    async fn rotate(&self) -> Result<Rotated, VaultError> {
        Err(VaultError::Keys("there are no secrets here".into()))
    }
}

/// Does what the task's name says, and tells in its output which attempt it was.
struct Stub;

#[async_trait]
impl Executor for Stub {
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let begun = std::time::Instant::now();
        let claimed = invocation.claimed;
        let takes = if claimed.task.as_str() == "slow" { SLOW } else { LIMITED };
        let outcome = match claimed.task.as_str() {
            "failing" => Outcome::Failure(Failure::new(FailureKind::Trap, "on purpose")),
            "slow" | limits::SHARED | limits::KEYED => tokio::select! {
                () = tokio::time::sleep(takes) => done(&claimed),
                () = port.cancelled() => {
                    Outcome::Failure(Failure::new(FailureKind::Cancelled, "it was asked to end"))
                }
            },
            _ => done(&claimed),
        };
        AttemptEnd { outcome, usage: Usage { wall: begun.elapsed(), cpu: Duration::ZERO, peak_memory: 0 } }
    }
}

fn done(claimed: &innkeeper_domain::run::Claimed) -> Outcome {
    let text = format!("attempt {} on {}", claimed.lease.attempt, claimed.lease.host);
    Outcome::Output(Payload { content_type: "text/plain".into(), bytes: text.into_bytes() })
}
