//! `wasi:http/outgoing-handler`: requests to the hosts that the task's revision is granted.
//!
//! A name is resolved once, its addresses are checked, and the connection goes to an address that was
//! checked. Redirects are the guest's business: each is a request of its own, checked like any other.

mod budget;
mod client;
mod exchange;
mod resolve;
mod share;

use crate::log::Log;
use budget::Budget;
pub(crate) use client::Client;
use exchange::{Times, exchange};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::HTTP_BODY_WRITE_BYTES_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::network::NetworkSet;
use innkeeper_domain::permission::HttpGrant;
use innkeeper_domain::run::LogLevel;
use innkeeper_domain::task::TaskSpec;
use innkeeper_engine::executor::Invocation;
use share::{Connection, Share};
use std::error::Error as _;
use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// One attempt's requests.
pub(crate) struct Hooks {
    client: Arc<Client>,
    of: Asker,
    spec: Arc<TaskSpec>,
    budget: Budget,
    connections: Arc<Semaphore>,
    /// Its tenant's, from its first request on: most attempts make none.
    share: Option<Arc<Share>>,
}

/// Who asks, and where it is told why not.
#[derive(Clone)]
struct Asker {
    tenant_id: TenantId,
    tenant: Name,
    /// Closed networks that are open to it.
    open: NetworkSet,
    log: Log,
}

impl Asker {
    fn note(&self, words: String) {
        self.log.note(LogLevel::Warn, words);
    }
}

/// A request that may go.
struct Admitted {
    host: String,
    port: u16,
    tls: bool,
    connection: Connection,
    share: Arc<Share>,
}

impl Hooks {
    pub fn new(client: Arc<Client>, invocation: &Invocation, log: Log) -> Self {
        let claimed = &invocation.claimed;
        Self {
            budget: Budget::new(client.bounds, &log),
            connections: Arc::new(Semaphore::new(client.bounds.connections)),
            of: Asker {
                tenant_id: claimed.tenant_id,
                tenant: claimed.tenant.clone(),
                open: claimed.bounds.open_networks,
                log,
            },
            spec: Arc::clone(&invocation.spec),
            share: None,
            client,
        }
    }

    fn admit(&mut self, uri: &Uri) -> Result<Admitted, Error> {
        self.budget.request()?;
        let (host, port, tls) = self.destination(uri)?;
        let shares = &self.client.shares;
        let share = Arc::clone(self.share.get_or_insert_with(|| shares.of(self.of.tenant_id)));
        let connection = share.connection(&self.connections).map_err(|full| {
            self.of.note(format!("denied: HTTP to {host}:{port}; {full}"));
            Error::ConnectionLimitReached
        })?;
        Ok(Admitted { host, port, tls, connection, share })
    }

    /// Where a request goes, if the task is granted it.
    fn destination(&self, uri: &Uri) -> Result<(String, u16, bool), Error> {
        let authority: &Authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        if self.spec.allow_http.iter().any(|grant: &HttpGrant| grant.allows(host, port)) {
            return Ok((host.into(), port, tls));
        }
        let default_port = port == 80 || port == 443;
        let grant = if default_port { host.to_string() } else { format!("{host}:{port}") };
        self.of
            .note(format!("denied: HTTP to {host}:{port}; the task isn't granted it (--allow-http {grant})"));
        Err(Error::HttpRequestDenied)
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let admitted = match self.admit(request.uri()) {
            Ok(admitted) => admitted,
            // Here the request goes, for nothing bounds how many there are of these.
            Err(error) => return Box::new(std::future::ready(Err::<Sent, _>(error))),
        };
        let (client, of) = (Arc::clone(&self.client), self.of.clone());
        let request = request.map(|body| self.budget.of_request(body));
        let response_bytes = self.budget.responses();
        Box::new(async move {
            let Admitted { host, port, tls, connection, share } = admitted;
            let times = Times::new(options);
            let addresses = client.resolve(&of, &share, &host, port, times.connect).await?;
            let stream = timeout(times.connect, client.connect(&host, &addresses, tls)).await;
            let stream = stream.map_err(|_| Error::ConnectionTimeout)??;
            exchange(request, stream, times, connection, response_bytes).await
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_BODY_WRITE_BYTES_MAX
    }

    fn p2_error_from_connect(&mut self, error: &std::io::Error) -> ErrorCode {
        match error.kind() {
            ErrorKind::ConnectionRefused => ErrorCode::ConnectionRefused,
            ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ErrorCode::ConnectionTerminated,
            _ => ErrorCode::DestinationUnavailable,
        }
    }
}

/// What hyper says; or why the body that it was to send has failed.
fn of_hyper(error: hyper::Error) -> Error {
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(Error::HttpRequestBodySize(most)) => Error::HttpRequestBodySize(*most),
        _ => Error::Hyper(error),
    }
}

#[cfg(test)]
mod tests;
