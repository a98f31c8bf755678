//! The connection to a host.

use super::{Global, Usage};
use crate::data_folder::{ADDRESS_FILE, ADMIN_TOKEN_FILE};
use anyhow::{Context, Result};
use innkeeper_api::proto::component_service_client::ComponentServiceClient;
use innkeeper_api::proto::host_service_client::HostServiceClient;
use innkeeper_api::proto::run_service_client::RunServiceClient;
use innkeeper_api::proto::task_service_client::TaskServiceClient;
use innkeeper_api::proto::trigger_service_client::TriggerServiceClient;
use innkeeper_domain::limits::MESSAGE_BYTES_MAX;
use std::fs;
use std::io::ErrorKind;
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
/// Where a host listens that was told nothing.
const HOST_DEFAULT: &str = "http://127.0.0.1:7070";

/// Nobody answers: exit code 5.
#[derive(Debug, thiserror::Error)]
#[error("no host answers at {url} ({why}); start one with `inn serve`, or say where it is (--host)")]
pub struct Unreachable {
    url: String,
    why: String,
}

/// Shows the token on every call.
#[derive(Clone)]
pub struct ShowToken(MetadataValue<Ascii>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Service = InterceptedService<Channel, ShowToken>;

/// A host, as its client sees it.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    token: ShowToken,
}

impl Client {
    /// Connects to the host that the options name.
    pub async fn connect(global: &Global) -> Result<Self> {
        let url = url(global)?;
        let endpoint = Endpoint::from_shared(url.clone());
        let endpoint =
            endpoint.map_err(|_| Usage(format!("`{url}` is not a URL; write http://HOST:PORT")))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| Unreachable { url, why: root_cause(&error) })?;
        Ok(Self { channel, token: ShowToken(token(global)?) })
    }

    pub fn components(&self) -> ComponentServiceClient<Service> {
        ComponentServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn hosts(&self) -> HostServiceClient<Service> {
        HostServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn tasks(&self) -> TaskServiceClient<Service> {
        TaskServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn triggers(&self) -> TriggerServiceClient<Service> {
        TriggerServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn runs(&self) -> RunServiceClient<Service> {
        RunServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// A simple call: it is answered soon, or given up.
pub fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn url(global: &Global) -> Result<String> {
    let url = match &global.host {
        Some(url) => url.clone(),
        None => {
            let told =
                global.data_folder().ok().and_then(|data| fs::read_to_string(data.join(ADDRESS_FILE)).ok());
            told.map_or_else(|| HOST_DEFAULT.into(), |url| url.trim().to_string())
        }
    };
    if url.starts_with("https://") {
        return Err(Usage("TLS isn't available yet; use http:// to a loopback address".into()).into());
    }
    Ok(if url.contains("://") { url } else { format!("http://{url}") })
}

fn token(global: &Global) -> Result<MetadataValue<Ascii>> {
    let token = match (&global.token, &global.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => fs::read_to_string(file)
            .with_context(|| format!("can't read the token from {}", file.display()))?,
        (None, None) => {
            let file = global.data_folder()?.join(ADMIN_TOKEN_FILE);
            match fs::read_to_string(&file) {
                Ok(token) => token,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Err(Status::unauthenticated(format!(
                        "there is no token: give one (--token, --token-file, INN_TOKEN), or the host's data folder \
                         (--data); {} isn't there",
                        file.display()
                    ))
                    .into());
                }
                Err(e) => {
                    return Err(e).with_context(|| format!("can't read the token from {}", file.display()));
                }
            }
        }
    };
    let value = format!("Bearer {}", token.trim()).parse();
    value.map_err(|_| Usage("the token has characters that no token has".into()).into())
}
