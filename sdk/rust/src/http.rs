//! Outbound HTTP, to the hosts that the task is granted (`--allow-http`).
//!
//! ```ignore
//! let response = innkeeper::http::get("https://api.example.com/prices")
//!     .header("accept", "application/json")
//!     .timeout(Duration::from_secs(2))
//!     .send()?;
//! let (body, whole) = response.body(64 * 1024)?;
//! ```

use std::fmt;
use std::time::Duration;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use wasip2::io::streams::StreamError;

/// Bytes that are read or written at once.
const CHUNK: usize = 4096;

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

/// A GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// A POST request.
pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", url).body(body)
}

/// Why there is no response, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The URL, the method or a header can't be.
    BadRequest(String),
    /// The task isn't granted that host, or its address is in a network that is closed to tasks.
    Denied(String),
    /// The name has no address.
    Dns(String),
    /// Nobody answers there, or the connection broke.
    Unreachable(String),
    /// TLS failed, or the certificate is not good.
    Tls(String),
    /// It took longer than the timeout.
    Timeout(String),
    /// What came back is no HTTP.
    Protocol(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, words) = match self {
            Self::BadRequest(words) => ("bad request", words),
            Self::Denied(words) => ("denied", words),
            Self::Dns(words) => ("no such host", words),
            Self::Unreachable(words) => ("unreachable", words),
            Self::Tls(words) => ("TLS failed", words),
            Self::Timeout(words) => ("timeout", words),
            Self::Protocol(words) => ("no HTTP", words),
        };
        write!(f, "{what}: {words}")
    }
}

impl std::error::Error for Error {}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        let words = format!("{code:?}").trim_start_matches("ErrorCode::").to_string();
        match code {
            ErrorCode::HttpRequestDenied => {
                Self::Denied("the task isn't granted this host; its log says how to grant it".into())
            }
            ErrorCode::DestinationIpProhibited => {
                Self::Denied("the host's address is in a network that is closed to tasks".into())
            }
            ErrorCode::DnsTimeout => Self::Dns("the name server took too long".into()),
            ErrorCode::DnsError(error) => Self::Dns(error.rcode.unwrap_or(words)),
            ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::ConnectionWriteTimeout
            | ErrorCode::HttpResponseTimeout => Self::Timeout(words),
            ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError | ErrorCode::TlsAlertReceived(_) => {
                Self::Tls(words)
            }
            ErrorCode::DestinationNotFound
            | ErrorCode::DestinationUnavailable
            | ErrorCode::DestinationIpUnroutable
            | ErrorCode::ConnectionRefused
            | ErrorCode::ConnectionTerminated
            | ErrorCode::ConnectionLimitReached => Self::Unreachable(words),
            ErrorCode::HttpRequestMethodInvalid
            | ErrorCode::HttpRequestUriInvalid
            | ErrorCode::HttpRequestUriTooLong => Self::BadRequest(words),
            _ => Self::Protocol(words),
        }
    }
}

impl Request {
    /// A request of any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new(), timeout: None }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// How long the connection, the response's beginning, and each silence in it may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends the request and waits for the head of the response. Redirects are not followed.
    pub fn send(self) -> Result<Response, Error> {
        let url = Url::parse(&self.url)?;
        let bad = |what: &str| Error::BadRequest(format!("{what} of the request to {}", self.url));
        let headers: Vec<(String, Vec<u8>)> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
        let headers = Fields::from_list(&headers).map_err(|_| bad("a header"))?;
        let request = OutgoingRequest::new(headers);
        request.set_method(&method(&self.method)).map_err(|()| bad("the method"))?;
        request.set_scheme(Some(&url.scheme)).map_err(|()| bad("the scheme"))?;
        request.set_authority(Some(url.authority)).map_err(|()| bad("the host"))?;
        request.set_path_with_query(Some(&url.path)).map_err(|()| bad("the path"))?;
        let body = request.body().map_err(|()| bad("the body"))?;
        let options = self.timeout.map(|timeout| {
            let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            let options = RequestOptions::new();
            // Fails only where the host doesn't support timeouts; the attempt's own bounds it then.
            let _ = options.set_connect_timeout(Some(nanos));
            let _ = options.set_first_byte_timeout(Some(nanos));
            let _ = options.set_between_bytes_timeout(Some(nanos));
            options
        });
        let pending = handle(request, options)?;
        write_body(body, &self.body)?;
        pending.subscribe().block();
        let response = pending.get().ok_or_else(|| Error::Protocol("the response vanished".into()))?;
        let response = response.map_err(|()| Error::Protocol("the response was taken twice".into()))??;
        Ok(Response { status: response.status(), inner: response })
    }
}

fn method(name: &str) -> Method {
    match name.to_ascii_uppercase().as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.into()),
    }
}

/// The parts of a URL that a request needs.
struct Url<'a> {
    scheme: Scheme,
    authority: &'a str,
    path: String,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self, Error> {
        let bad = |why: &str| Error::BadRequest(format!("`{url}` {why}"));
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err(bad("is no URL that begins with http:// or https://")),
        };
        let rest = rest.split('#').next().unwrap_or(rest);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() {
            return Err(bad("names no host"));
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { scheme, authority, path: format!("{slash}{path}") })
    }
}

fn write_body(body: OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let broke = |e: StreamError| Error::Unreachable(format!("the request's body can't be sent: {e:?}"));
    let stream = body.write().map_err(|()| Error::Protocol("the request's body was taken twice".into()))?;
    for chunk in bytes.chunks(CHUNK) {
        stream.blocking_write_and_flush(chunk).map_err(broke)?;
    }
    drop(stream);
    Ok(OutgoingBody::finish(body, None)?)
}

/// A response whose body can be read.
#[derive(Debug)]
pub struct Response {
    /// The status code, such as 200.
    pub status: u16,
    inner: IncomingResponse,
}

impl Response {
    /// The first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<String> {
        let values = self.inner.headers().get(name);
        values.into_iter().next().and_then(|value| String::from_utf8(value).ok())
    }

    /// Reads the body, at most `limit` bytes of it; and says whether that was all.
    pub fn body(self, limit: usize) -> Result<(Vec<u8>, bool), Error> {
        let body: IncomingBody = self
            .inner
            .consume()
            .map_err(|()| Error::Protocol("the response's body was taken twice".into()))?;
        let stream =
            body.stream().map_err(|()| Error::Protocol("the response's body was taken twice".into()))?;
        let mut bytes = Vec::new();
        loop {
            let room = limit.saturating_sub(bytes.len());
            // One byte over the limit tells whether there is more.
            match stream.blocking_read((room as u64 + 1).min(16 * CHUNK as u64)) {
                Ok(chunk) if chunk.len() > room => {
                    bytes.extend_from_slice(&chunk[..room]);
                    return Ok((bytes, false));
                }
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(StreamError::Closed) => return Ok((bytes, true)),
                Err(StreamError::LastOperationFailed(error)) => {
                    let code = wasip2::http::types::http_error_code(&error);
                    return Err(code.map_or_else(|| Error::Unreachable(error.to_debug_string()), Into::into));
                }
            }
        }
    }
}
