//! A client of a host: the generated one, with the token and the address that the host has left in its data
//! folder.

use innkeeper_api::proto::component_service_client::ComponentServiceClient;
use innkeeper_api::proto::host_service_client::HostServiceClient;
use innkeeper_api::proto::push_component_request::{Header, Part};
use innkeeper_api::proto::run_service_client::RunServiceClient;
use innkeeper_api::proto::task_service_client::TaskServiceClient;
use innkeeper_api::proto::trigger_service_client::TriggerServiceClient;
use innkeeper_api::proto::usage_service_client::UsageServiceClient;
use innkeeper_api::proto::{self, PushComponentRequest};
use innkeeper_domain::Timestamp;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(3);
const PAGE: u32 = 1_000;

#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Token>;

#[derive(Clone)]
pub struct Client {
    channel: Channel,
    token: Token,
}

/// An instant of the protocol's.
pub fn instant(at: Option<prost_types::Timestamp>) -> Timestamp {
    let at = at.expect("an instant");
    Timestamp::new(at.seconds, at.nanos).expect("an instant")
}

impl Client {
    /// Connects to the host of this data folder; none if it isn't there.
    pub async fn connect(data: &Path) -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(data.join(name)).ok();
        let address = read("address")?.trim().to_string();
        let token = format!("Bearer {}", read("admin.token")?.trim()).parse().ok()?;
        let endpoint = Endpoint::from_shared(address).ok()?.connect_timeout(TIMEOUT).timeout(TIMEOUT);
        Some(Self { channel: endpoint.tcp_nodelay(true).connect().await.ok()?, token: Token(token) })
    }

    pub fn runs(&self) -> RunServiceClient<Service> {
        RunServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub fn triggers(&self) -> TriggerServiceClient<Service> {
        TriggerServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    fn tasks(&self) -> TaskServiceClient<Service> {
        TaskServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    /// Uploads a component and makes a task of it.
    pub async fn create_task(&self, name: &str, bytes: Vec<u8>, spec: proto::TaskSpec) -> Result<(), Status> {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let header = Header { digest: digest.clone(), size: bytes.len() as u64, ..Header::default() };
        let parts = [Part::Header(header), Part::Chunk(bytes.into())];
        let parts: Vec<_> = parts.map(|part| PushComponentRequest { part: Some(part) }).into();
        ComponentServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            .push_component(futures::stream::iter(parts))
            .await?;
        let spec = proto::TaskSpec { component: digest, ..spec };
        self.tasks().create_task(proto::CreateTaskRequest { name: name.into(), spec: Some(spec) }).await?;
        Ok(())
    }

    /// The incarnation of the host of that name.
    pub async fn incarnation(&self, name: &str) -> Option<String> {
        let mut hosts = HostServiceClient::with_interceptor(self.channel.clone(), self.token.clone());
        let hosts = hosts.list_hosts(proto::ListHostsRequest {}).await.ok()?.into_inner().hosts;
        // The newest, should one of its lives before not be known to have ended.
        hosts.into_iter().filter(|host| host.name == name).map(|host| host.id).max()
    }

    pub async fn run(&self, id: String) -> Result<proto::Run, Status> {
        Ok(self.runs().get_run(proto::GetRunRequest { id }).await?.into_inner())
    }

    pub async fn all_runs(&self, states: &[proto::run::State]) -> Result<Vec<proto::Run>, Status> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListRunsRequest {
                states: states.iter().map(|state| (*state).into()).collect(),
                page_size: PAGE,
                page_token,
                ..proto::ListRunsRequest::default()
            };
            let page = self.runs().list_runs(request).await?.into_inner();
            all.extend(page.runs);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    pub async fn all_triggers(&self) -> Result<Vec<proto::Trigger>, Status> {
        let request = proto::ListTriggersRequest { page_size: PAGE, ..proto::ListTriggersRequest::default() };
        Ok(self.triggers().list_triggers(request).await?.into_inner().triggers)
    }

    pub async fn all_usage(&self) -> Result<Vec<proto::UsageLine>, Status> {
        let mut usage = UsageServiceClient::with_interceptor(self.channel.clone(), self.token.clone());
        let request = proto::ListUsageRequest { page_size: PAGE, ..proto::ListUsageRequest::default() };
        Ok(usage.list_usage(request).await?.into_inner().lines)
    }

    pub async fn all_skips(&self, trigger: &str) -> Result<Vec<proto::Skip>, Status> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListSkipsRequest { trigger: trigger.into(), page_size: PAGE, page_token };
            let page = self.triggers().list_skips(request).await?.into_inner();
            all.extend(page.skips);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }
}
