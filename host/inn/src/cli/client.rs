//! The connection to a host.

use super::target::Target;
use super::{Global, Usage, tls};
use anyhow::Result;
use innkeeper_api::auth::TENANT_HEADER;
use innkeeper_api::proto::audit_service_client::AuditServiceClient;
use innkeeper_api::proto::backfill_service_client::BackfillServiceClient;
use innkeeper_api::proto::component_service_client::ComponentServiceClient;
use innkeeper_api::proto::event_service_client::EventServiceClient;
use innkeeper_api::proto::forecast_service_client::ForecastServiceClient;
use innkeeper_api::proto::holiday_service_client::HolidayServiceClient;
use innkeeper_api::proto::host_service_client::HostServiceClient;
use innkeeper_api::proto::quota_service_client::QuotaServiceClient;
use innkeeper_api::proto::run_service_client::RunServiceClient;
use innkeeper_api::proto::secret_service_client::SecretServiceClient;
use innkeeper_api::proto::task_service_client::TaskServiceClient;
use innkeeper_api::proto::tenant_service_client::TenantServiceClient;
use innkeeper_api::proto::token_service_client::TokenServiceClient;
use innkeeper_api::proto::trigger_service_client::TriggerServiceClient;
use innkeeper_api::proto::usage_service_client::UsageServiceClient;
use innkeeper_domain::limits::MESSAGE_BYTES_MAX;
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long the connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// While an answer is awaited, how often the host is asked whether it is there, and how long that may take:
/// a run can be watched for days, but not on a host that is gone.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a simple call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Items of a list that are asked for at once.
pub const PAGE_MAX: u32 = 1_000;

/// Nobody answers: exit code 5.
#[derive(Debug, thiserror::Error)]
#[error("no host answers at {url} ({why}); {advice}")]
pub struct Unreachable {
    url: String,
    why: String,
    advice: &'static str,
}

/// What every call shows: the token, and the tenant that it is for.
#[derive(Clone)]
pub struct Headers {
    token: Option<MetadataValue<Ascii>>,
    tenant: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert(TENANT_HEADER, tenant.clone());
        }
        Ok(request)
    }
}

impl Headers {
    fn of(target: &Target) -> Result<Self> {
        let value = |text: String, what: &str| {
            let value = text.parse::<MetadataValue<Ascii>>();
            value.map_err(|_| Usage(format!("the {what} has characters that no {what} has")))
        };
        let token = target.token.as_ref().map(|token| value(format!("Bearer {}", token.trim()), "token"));
        let tenant = target.tenant.as_ref().map(|tenant| value(tenant.clone(), "tenant"));
        Ok(Self { token: token.transpose()?, tenant: tenant.transpose()? })
    }
}

type Service = InterceptedService<Channel, Headers>;

/// A host, as its client sees it.
#[derive(Clone)]
pub struct Client {
    url: String,
    channel: Channel,
    headers: Headers,
}

impl Client {
    /// Connects to the host that the options name.
    pub async fn connect(global: &Global) -> Result<Self> {
        let target = Target::of(global)?;
        let headers = Headers::of(&target)?;
        let url = target.url;
        let endpoint = Endpoint::from_shared(url.clone());
        let mut endpoint =
            endpoint.map_err(|_| Usage(format!("`{url}` is not a URL; write https://HOST:PORT")))?;
        if let Some(trust) = target.tls {
            // Here files that can't be used come to light.
            let usable = endpoint.tls_config(trust.config());
            endpoint = usable.map_err(|e| unusable(&e))?;
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|error| {
            let why = tls::root_cause(&error);
            let usual = "start one with `inn serve`, or say where it is (--host)";
            Unreachable { url: url.clone(), advice: tls::advice(&why).unwrap_or(usual), why }
        })?;
        Ok(Self { url, channel, headers })
    }

    /// The URL of a path on the host.
    pub fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }
}

fn unusable(error: &tonic::transport::Error) -> Usage {
    let why = tls::root_cause(error);
    let advice = tls::advice(&why).unwrap_or("look at the files of --ca, --cert and --key");
    Usage(format!("TLS can't be used so ({why}); {advice}"))
}

/// Each service of the host, by its noun.
macro_rules! services {
    ($($noun:ident: $client:ident),+ $(,)?) => {
        impl Client {
            $(pub fn $noun(&self) -> $client<Service> {
                $client::with_interceptor(self.channel.clone(), self.headers.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
            })+
        }
    };
}

services!(
    audit: AuditServiceClient,
    backfills: BackfillServiceClient,
    components: ComponentServiceClient,
    events: EventServiceClient,
    forecasts: ForecastServiceClient,
    holidays: HolidayServiceClient,
    hosts: HostServiceClient,
    quotas: QuotaServiceClient,
    runs: RunServiceClient,
    secrets: SecretServiceClient,
    tasks: TaskServiceClient,
    tenants: TenantServiceClient,
    tokens: TokenServiceClient,
    triggers: TriggerServiceClient,
    usage: UsageServiceClient,
);

/// Every item of a list, at most `limit`: `page` is asked for a page of so many after a page token, and answers with
/// the items and the next page token.
pub async fn pages<T>(
    limit: usize,
    mut page: impl AsyncFnMut(u32, String) -> Result<(Vec<T>, String)>,
) -> Result<Vec<T>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    while all.len() < limit {
        let size = u32::try_from(limit - all.len()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let (items, next) = page(size, token).await?;
        all.extend(items);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    Ok(all)
}

/// A simple call: it is answered soon, or given up.
pub fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}
