//! What all attempts' requests share: what is open, how much there may be, and how connections come about.

use super::resolve::{Resolver, system};
use super::share::Shares;
use crate::network::Network;
use innkeeper_domain::limits::{
    HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_HOST_MAX, HTTP_CONNECTIONS_PER_TENANT_MAX,
    HTTP_LOOKUPS_PER_HOST_MAX, HTTP_LOOKUPS_PER_TENANT_MAX, HTTP_REQUEST_BYTES_MAX, HTTP_REQUESTS_MAX,
    HTTP_RESPONSE_BYTES_MAX,
};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

pub(crate) struct Client {
    pub(super) open_networks: Vec<Network>,
    pub(super) bounds: Bounds,
    pub(super) shares: Shares,
    pub(super) resolver: Resolver,
    tls: OnceLock<Option<TlsConnector>>,
}

/// How much there may be. Usually what `limits` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// At one time, of one attempt, one tenant, the host.
    pub connections: usize,
    pub tenant_connections: usize,
    pub host_connections: usize,
    pub tenant_lookups: usize,
    pub host_lookups: usize,
    /// Of one attempt, all in all.
    pub requests: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: HTTP_CONNECTIONS_MAX,
            tenant_connections: HTTP_CONNECTIONS_PER_TENANT_MAX,
            host_connections: HTTP_CONNECTIONS_PER_HOST_MAX,
            tenant_lookups: HTTP_LOOKUPS_PER_TENANT_MAX,
            host_lookups: HTTP_LOOKUPS_PER_HOST_MAX,
            requests: HTTP_REQUESTS_MAX,
            request_bytes: HTTP_REQUEST_BYTES_MAX,
            response_bytes: HTTP_RESPONSE_BYTES_MAX,
        }
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    pub fn new(open_networks: Vec<Network>) -> Self {
        Self::with(open_networks, Bounds::default(), Arc::new(system))
    }

    pub(super) fn with(open_networks: Vec<Network>, bounds: Bounds, resolver: Resolver) -> Self {
        Self { open_networks, bounds, shares: Shares::new(bounds), resolver, tls: OnceLock::new() }
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

    /// A connection to the first of the addresses that takes it.
    pub(super) async fn connect(
        &self,
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
        let name = ServerName::try_from(bare(host).to_string()).map_err(|_| Error::HttpRequestUriInvalid)?;
        let connector =
            self.tls().ok_or_else(|| Error::InternalError(Some("TLS is not available".into())))?;
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if is_certificate_error(&error) => Err(Error::TlsCertificateError),
            Err(error) => Err(Error::Tls(error)),
        }
    }
}

/// A host without the brackets around an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

fn is_certificate_error(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}
