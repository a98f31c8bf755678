//! `wasi:http/outgoing-handler`: requests to the hosts that the task's revision is granted.
//!
//! A name is resolved once, its addresses are checked, and the connection goes to an address that was
//! checked. Redirects are the guest's business: each is a request of its own, checked like any other.

use crate::log::Log;
use crate::network::{Network, is_open};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use innkeeper_domain::limits::{
    HTTP_BODY_WRITE_BYTES_MAX, HTTP_CONNECT_TIMEOUT, HTTP_CONNECTIONS_MAX, HTTP_HEADERS_BYTES_MAX,
    TIMEOUT_MAX,
};
use innkeeper_domain::permission::HttpGrant;
use innkeeper_domain::run::LogLevel;
use innkeeper_domain::task::TaskSpec;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

/// What all guests' requests share.
pub(crate) struct Client {
    open_networks: Vec<Network>,
    tls: OnceLock<Option<TlsConnector>>,
}

impl Client {
    pub fn new(open_networks: Vec<Network>) -> Self {
        Self { open_networks, tls: OnceLock::new() }
    }

    /// Made when first needed: the root certificates take some time to read.
    fn tls(&self) -> Option<TlsConnector> {
        let make = || {
            let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config =
                rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.ok()?.with_root_certificates(roots).with_no_client_auth();
            Some(TlsConnector::from(Arc::new(config)))
        };
        self.tls.get_or_init(make).clone()
    }

    /// The addresses of a host that guests may reach.
    async fn resolve(&self, host: &str, port: u16, log: &Log) -> Result<Vec<SocketAddr>, Error> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let dns = |words: String| Error::DnsError { rcode: Some(words), info_code: None };
        let found = timeout(HTTP_CONNECT_TIMEOUT, lookup_host((bare, port))).await;
        let found = found.map_err(|_| Error::DnsTimeout)?.map_err(|e| dns(e.to_string()))?;
        let (open, closed): (Vec<_>, Vec<_>) =
            found.partition(|address| is_open(address.ip(), &self.open_networks));
        match (open.is_empty(), closed.first()) {
            (false, _) => Ok(open),
            (true, None) => Err(dns("the name has no address".into())),
            (true, Some(address)) => {
                log.note(
                    LogLevel::Warn,
                    format!("denied: {host} is at {}, in a network that is closed to tasks (the host's --open-network)", address.ip()),
                );
                Err(Error::DestinationIpProhibited)
            }
        }
    }
}

/// One guest's requests.
pub(crate) struct Hooks {
    client: Arc<Client>,
    spec: Arc<TaskSpec>,
    log: Log,
    connections: Arc<Semaphore>,
}

impl Hooks {
    pub fn new(client: Arc<Client>, spec: Arc<TaskSpec>, log: Log) -> Self {
        Self { client, spec, log, connections: Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX)) }
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
        self.log.note(
            LogLevel::Warn,
            format!("denied: HTTP to {host}:{port}; the task isn't granted it (--allow-http {grant})"),
        );
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
        let destination = self.destination(request.uri());
        let permit = Arc::clone(&self.connections).try_acquire_owned();
        let (client, log) = (Arc::clone(&self.client), self.log.clone());
        Box::new(async move {
            let (host, port, tls) = destination?;
            let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
            let times = Times::new(options);
            let addresses = client.resolve(&host, port, &log).await?;
            let stream = timeout(times.connect, connect(&client, &host, &addresses, tls)).await;
            let stream = stream.map_err(|_| Error::ConnectionTimeout)??;
            exchange(request, stream, times, permit).await
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_BODY_WRITE_BYTES_MAX
    }

    fn p2_error_from_connect(
        &mut self,
        error: &std::io::Error,
    ) -> wasmtime_wasi_http::p2::bindings::http::types::ErrorCode {
        use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
        match error.kind() {
            ErrorKind::ConnectionRefused => ErrorCode::ConnectionRefused,
            ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ErrorCode::ConnectionTerminated,
            _ => ErrorCode::DestinationUnavailable,
        }
    }
}

/// How long the parts of a request may take.
#[derive(Clone, Copy)]
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Times {
    /// The guest's wishes within the host's bounds. The attempt's own end bounds them all.
    fn new(options: Option<RequestOptions>) -> Self {
        let wish = |of: fn(&RequestOptions) -> Option<Duration>, most: Duration| {
            options.as_ref().and_then(of).map_or(most, |wish| wish.clamp(Duration::from_millis(1), most))
        };
        Self {
            connect: wish(|o| o.connect_timeout, HTTP_CONNECT_TIMEOUT),
            first_byte: wish(|o| o.first_byte_timeout, TIMEOUT_MAX),
            between_bytes: wish(|o| o.between_bytes_timeout, TIMEOUT_MAX),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(
    client: &Client,
    host: &str,
    addresses: &[SocketAddr],
    tls: bool,
) -> Result<Box<dyn Stream>, Error> {
    let stream = TcpStream::connect(addresses).await.map_err(Error::Connect)?;
    // A failure costs some latency and nothing else.
    let _ = stream.set_nodelay(true);
    if !tls {
        return Ok(Box::new(stream));
    }
    let name = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let name = ServerName::try_from(name).map_err(|_| Error::HttpRequestUriInvalid)?;
    let connector = client.tls().ok_or_else(|| Error::InternalError(Some("TLS is not available".into())))?;
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) if is_certificate_error(&error) => Err(Error::TlsCertificateError),
        Err(error) => Err(Error::Tls(error)),
    }
}

fn is_certificate_error(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// Sends the request and waits for the head of the response. The future that comes with it drives the
/// connection; dropping it closes that.
async fn exchange(
    mut request: Request<WasiBody>,
    stream: Box<dyn Stream>,
    times: Times,
    permit: OwnedSemaphorePermit,
) -> Result<Sent, Error> {
    let handshake =
        http1::Builder::new().max_buf_size(HTTP_HEADERS_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let mut connection: BoxFuture<'static, Result<(), Error>> = Box::pin(async move {
        let _permit = permit;
        Ok(connection.await?)
    });
    let response = async {
        let response = timeout(times.first_byte, sender.send_request(request)).await;
        Ok(response.map_err(|_| Error::HttpResponseTimeout)??)
    };
    tokio::pin!(response);
    let (response, rest): (Result<Response<Incoming>, Error>, BoxFuture<'static, _>) = tokio::select! {
        response = &mut response => (response, connection),
        ended = &mut connection => {
            ended?;
            (response.await, Box::pin(std::future::ready(Ok(()))))
        }
    };
    let response = response?.map(|body| Timed::new(body, times.between_bytes).boxed_unsync());
    Ok((response, Box::new(rest)))
}

/// A response's body that fails when it is silent for too long.
struct Timed {
    body: Incoming,
    silence: Duration,
    ends: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: Incoming, silence: Duration) -> Self {
        Self { body, silence, ends: Box::pin(tokio::time::sleep(silence)) }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let ends = Instant::now() + self.silence;
                self.ends.as_mut().reset(ends);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.ends.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Error::ConnectionReadTimeout))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
