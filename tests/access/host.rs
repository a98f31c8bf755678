//! A host's services on an embedded store, two tenants `a` and `b` with the same things in them, and every kind of
//! caller.

use async_trait::async_trait;
use innkeeper_api::auth::{TENANT_HEADER, token_hash};
use innkeeper_api::listen::Listener;
use innkeeper_api::proto::{self, DESCRIPTORS};
use innkeeper_api::secret::{Rotated, Vault, VaultError};
use innkeeper_api::slots::Slots;
use innkeeper_api::turns::Turns;
use innkeeper_api::{Api, Inspector, serve};
use innkeeper_domain::Timestamp;
use innkeeper_domain::access::{Proof, Role, Token};
use innkeeper_domain::audit::Change;
use innkeeper_domain::backfill::{Again, BackfillSpec};
use innkeeper_domain::calendar::{BundledZones, Schedule};
use innkeeper_domain::component::{Component, Digest, Inspected, Refusal, Shape};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::{BackfillId, RunId, TaskId, TenantId, TokenId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quotas;
use innkeeper_domain::secret::{SealedSecret, SecretInfo, SecretText};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::trigger::TriggerSpec;
use innkeeper_engine::clock::{Clock, SystemClock};
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::{NewBackfill, NewRun, NewTask, NewTenant, NewTrigger, StartOptions, Store, StoreError};
use prost::Message;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

pub fn now() -> Timestamp {
    SystemClock.now()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Every call of the protocol, from its descriptors.
pub fn calls() -> Vec<String> {
    let described = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let services =
        described.file.iter().filter(|file| file.package() == "innkeeper.v1").flat_map(|file| &file.service);
    services
        .flat_map(|service| {
            service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}

/// A kind of caller, of tenant `a` unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Nobody,
    Wrong,
    Expired,
    Revoked,
    Is(Role),
    /// Whose token is for the task `mine` only.
    ForTasks(Role),
    /// The owner of `b`, who says that it calls for `a`.
    Neighbour,
}

impl Who {
    pub const ALL: &[Self] = &[
        Self::Nobody,
        Self::Wrong,
        Self::Expired,
        Self::Revoked,
        Self::Is(Role::Viewer),
        Self::Is(Role::Operator),
        Self::Is(Role::Owner),
        Self::Is(Role::Admin),
        Self::ForTasks(Role::Viewer),
        Self::ForTasks(Role::Operator),
        Self::Neighbour,
    ];

    /// The text of its token.
    pub fn token(self) -> Option<String> {
        match self {
            Self::Nobody => None,
            Self::Is(role) => Some(format!("inn_{role}")),
            Self::ForTasks(role) => Some(format!("inn_tasks_{role}")),
            Self::Neighbour => Some(token_of("b")),
            Self::Wrong | Self::Expired | Self::Revoked => Some(format!("inn_{self:?}")),
        }
    }
}

/// The text of the token of a tenant's owner.
pub fn token_of(tenant: &str) -> String {
    if tenant == "a" { "inn_owner".into() } else { format!("inn_owner_{tenant}") }
}

/// What a tenant has.
#[derive(Debug, Clone)]
pub struct Belongings {
    pub tenant: TenantId,
    pub component: Digest,
    /// A run of the task `mine`, and one of `other`, both queued.
    pub runs: [RunId; 2],
    pub token: TokenId,
}

pub struct Host {
    pub store: Arc<dyn Store>,
    pub address: String,
    pub a: Belongings,
    pub b: Belongings,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: TempDir,
}

/// Nothing is uploaded that is looked at.
struct NoInspector;

#[async_trait]
impl Inspector for NoInspector {
    async fn inspect(&self, _digest: Digest, _bytes: bytes::Bytes) -> Result<Inspected, Refusal> {
        Err(Refusal::Unavailable("it isn't looked at here".into()))
    }
}

/// Keeps secrets under no key.
struct PlainVault(Arc<dyn Store>);

#[async_trait]
impl Vault for PlainVault {
    async fn set(
        &self,
        tenant: TenantId,
        name: Name,
        text: SecretText,
        change: Change,
    ) -> Result<SecretInfo, VaultError> {
        let (key_id, sealed) = ("none".into(), text.expose().into());
        let secret =
            SealedSecret { tenant, name, key_id, sealed, created_at: change.now, updated_at: change.now };
        Ok(self.0.secret_put(secret, change).await?)
    }

    async fn text(&self, tenant: TenantId, name: &Name) -> Result<SecretText, VaultError> {
        let found = self.0.secrets_get(tenant, vec![name.clone()]).await?;
        let none = || VaultError::Store(StoreError::NotFound(format!("secret `{name}`")));
        let sealed = &found.first().ok_or_else(none)?.sealed;
        let text = String::from_utf8_lossy(sealed).into_owned();
        SecretText::new(text).map_err(|e| VaultError::Keys(e.to_string()))
    }

    async fn rotate(&self) -> Result<Rotated, VaultError> {
        Ok(Rotated { key_id: "none".into(), rotated: 0 })
    }
}

impl Host {
    /// A backfill of the last day.
    pub fn a_day_of(&self, trigger: String) -> proto::CreateBackfillRequest {
        let seconds = now().as_second() - 24 * 3_600;
        let from = Some(prost_types::Timestamp { seconds, nanos: 0 });
        proto::CreateBackfillRequest { trigger, from, ..Default::default() }
    }

    /// The id of a new backfill of a trigger of `a`'s.
    pub async fn backfill(&self, trigger: &str) -> String {
        let (trigger, at) = (self.store.trigger_get(self.a.tenant, &name(trigger)).await.unwrap(), now());
        let from = Timestamp::from_second(at.as_second() - 24 * 3_600).unwrap();
        let spec = BackfillSpec { from, to: at, concurrency: 1, again: Again::None };
        let times = spec.times(trigger.id, &trigger.spec, Holidays::NONE, &BundledZones, at).unwrap();
        let id = BackfillId::new(at);
        let new = NewBackfill { id, trigger: trigger.name, trigger_id: trigger.id, spec, times };
        self.store.backfill_create(self.a.tenant, new, at.into()).await.unwrap().id.to_string()
    }

    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let a = fill(&store, "a", 1).await;
        let b = fill(&store, "b", 2).await;
        tokens(&store, a.tenant).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let api = Api {
            store: Arc::clone(&store),
            inspector: Arc::new(NoInspector),
            vault: Arc::new(PlainVault(Arc::clone(&store))),
            now: Arc::new(now),
            name: name("one"),
            address: address.clone(),
            version: "0",
            stop: stop.clone(),
            identity: None,
            uploads: Slots::uploads(),
            reads: Turns::reads(tasks.clone()),
            streams: Slots::streams(),
            forecasts: Slots::forecasts(),
            webhooks: Slots::webhooks(),
        };
        tasks.spawn(async move { serve(api, Listener::plain(listener)).await.unwrap() });
        tasks.close();
        Self { store, address, a, b, stop, tasks, _folder: folder }
    }

    /// Stops in order: what is left for the audit log is written then.
    pub async fn stop(&self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.tasks.wait()).await.expect("it stops");
    }

    /// A connection from 127.0.0.`last`.
    pub async fn connect_from(&self, last: u8) -> Channel {
        let endpoint = Endpoint::from_shared(self.address.clone()).unwrap();
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        endpoint.local_address(Some(from)).connect().await.unwrap()
    }

    /// Calls with an empty message, whatever the call takes; the status of what comes first.
    pub async fn raw(&self, connection: &Channel, call: &str, who: Who) -> Status {
        // An admin must say which tenant it means; the others' tokens do.
        let tenant = matches!(who, Who::Is(Role::Admin) | Who::Neighbour).then_some("a");
        raw(connection, call, request((), who.token().as_deref(), tenant), ()).await
    }
}

/// A request with a token, for a tenant.
pub fn request<T>(message: T, token: Option<&str>, tenant: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(20));
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    if let Some(tenant) = tenant {
        request.metadata_mut().insert(TENANT_HEADER, tenant.parse().unwrap());
    }
    request
}

/// Calls by path; any kind of call is a stream of messages on the wire. The status of what comes first.
pub async fn raw<T>(channel: &Channel, call: &str, request: Request<()>, message: T) -> Status
where
    T: Message + Default + Clone + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = format!("/innkeeper.v1.{call}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<T, ()>::default();
    let request = request.map(|()| futures::stream::iter([message]));
    let mut answers = match grpc.streaming(request, path, codec).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    match answers.message().await {
        Ok(_) => Status::ok(""),
        Err(status) => status,
    }
}

/// A tenant with its things. The names are the same in every tenant; bytes and ids aren't.
pub async fn fill(store: &Arc<dyn Store>, tenant: &str, number: u8) -> Belongings {
    let at = now();
    let new = NewTenant { id: TenantId::new(at), name: name(tenant), weight: 1, quotas: Quotas::default() };
    let id = store.tenant_create(new, at.into()).await.unwrap().id;
    let bytes = vec![number; 100];
    let digest = Digest(token_hash(std::str::from_utf8(&bytes).unwrap()));
    let component = Component {
        digest,
        size: 100,
        shape: Shape::Handler,
        adapted: false,
        imports: vec![],
        created_at: at,
    };
    store.component_put(id, component, bytes, at.into()).await.unwrap();
    let mut runs = Vec::new();
    for task in ["mine", "other"] {
        let new = NewTask { id: TaskId::new(at), name: name(task), spec: TaskSpec::new(digest) };
        store.task_create(id, new, at.into()).await.unwrap();
        let schedule = Schedule::Interval { every: Duration::from_secs(3_600), anchor: at };
        let spec = TriggerSpec::new(schedule);
        let trigger_id = TriggerId::new(at);
        let first = spec.check(trigger_id, &Payload::default(), &BundledZones, at).unwrap();
        let trigger = NewTrigger {
            id: trigger_id,
            task: name(task),
            name: Some(name(&format!("{task}-hourly"))),
            spec,
            input: Payload::default(),
            first,
        };
        store.trigger_create(id, trigger, at.into()).await.unwrap();
        let run = RunId::new(at);
        let start = NewRun {
            id: run,
            task: name(task),
            input: Payload::json("1"),
            idempotency_key: None,
            options: StartOptions::default(),
        };
        store.runs_start(id, vec![start], at.into()).await.unwrap()[0].as_ref().unwrap();
        runs.push(run);
    }
    let closed = innkeeper_domain::holiday::read(b"2026-12-25").unwrap();
    store.holidays_put(id, &name(&format!("closed-{tenant}")), closed, at.into()).await.unwrap();
    let token = token(Role::Owner, Some(id));
    let text = token_of(tenant);
    store.token_create(token.clone(), token_hash(&text), at.into()).await.unwrap();
    Belongings { tenant: id, component: digest, runs: runs.try_into().unwrap(), token: token.id }
}

pub fn token(role: Role, tenant: Option<TenantId>) -> Token {
    Token {
        id: TokenId::new(now()),
        tenant,
        role,
        tasks: None,
        proof: Proof::Token,
        note: String::new(),
        created_at: now(),
        expires_at: None,
        revoked_at: None,
    }
}

/// Everybody else's tokens.
pub async fn tokens(store: &Arc<dyn Store>, tenant: TenantId) {
    let make = async |who: Who, token: Token| {
        let hash = token_hash(&who.token().unwrap());
        store.token_create(token, hash, now().into()).await.unwrap().id
    };
    make(Who::Is(Role::Admin), token(Role::Admin, None)).await;
    for role in [Role::Viewer, Role::Operator] {
        make(Who::Is(role), token(role, Some(tenant))).await;
        let tasks = Some([name("mine")].into());
        make(Who::ForTasks(role), Token { tasks, ..token(role, Some(tenant)) }).await;
    }
    let expired = Token { expires_at: Some(Timestamp::UNIX_EPOCH), ..token(Role::Owner, Some(tenant)) };
    make(Who::Expired, expired).await;
    let revoked = make(Who::Revoked, token(Role::Owner, Some(tenant))).await;
    store.token_revoke(None, revoked, now().into()).await.unwrap();
}

/// A spec of a task with this component.
pub fn task_spec(component: &str) -> proto::TaskSpec {
    let retry = proto::RetryPolicy { max_attempts: 1, ..Default::default() };
    proto::TaskSpec { component: component.into(), retry: Some(retry), ..Default::default() }
}
