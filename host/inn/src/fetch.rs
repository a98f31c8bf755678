//! Fetches a document of an identity provider: over HTTPS, or over HTTP from this machine itself. One request, no
//! redirects, bounded in bytes and time.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use innkeeper_domain::limits::{HTTP_HEADERS_BYTES_MAX, IDENTITY_DOCUMENT_BYTES_MAX, IDENTITY_FETCH_TIMEOUT};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

/// Fetches, and believes the servers that browsers do.
pub struct Fetcher {
    tls: TlsConnector,
}

impl Fetcher {
    /// `authorities`: a PEM file of certificates that are believed as well.
    pub fn new(authorities: Option<&Path>) -> Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        if let Some(file) = authorities {
            let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
            let more = read().with_context(|| format!("can't read certificates from {}", file.display()))?;
            ensure!(!more.is_empty(), "{} has no certificate", file.display());
            for certificate in more {
                roots.add(certificate).with_context(|| format!("in {}", file.display()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// The document's bytes.
    pub async fn get(&self, url: &Uri) -> Result<Bytes> {
        let got = tokio::time::timeout(IDENTITY_FETCH_TIMEOUT, self.get_slowly(url)).await;
        let got = got.unwrap_or_else(|_| bail!("no answer in {IDENTITY_FETCH_TIMEOUT:?}"));
        got.with_context(|| format!("can't fetch {url}"))
    }

    async fn get_slowly(&self, url: &Uri) -> Result<Bytes> {
        let authority = url.authority().context("it names no server")?;
        let https = url.scheme() == Some(&Scheme::HTTPS);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let mut addresses: Vec<_> = lookup_host((host, port)).await?.collect();
        if !https {
            addresses.retain(|address| address.ip().is_loopback());
            ensure!(!addresses.is_empty(), "by http:// only this machine itself is asked; use https://");
        }
        let stream = TcpStream::connect(&addresses[..]).await?;
        if https {
            let name = ServerName::try_from(host.to_string())?;
            exchange(self.tls.connect(name, stream).await?, url, authority.as_str()).await
        } else {
            exchange(stream, url, authority.as_str()).await
        }
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, url: &Uri, host: &str) -> Result<Bytes> {
    let handshake =
        http1::Builder::new().max_buf_size(HTTP_HEADERS_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("innkeeper/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::OK, "it answers {}", response.status());
        let body = Limited::new(response.into_body(), IDENTITY_DOCUMENT_BYTES_MAX).collect().await;
        Ok(body.map_err(|e| anyhow::anyhow!("its answer can't be read: {e}"))?.to_bytes())
    };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
