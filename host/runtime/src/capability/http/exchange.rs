//! One request and its response on a connection.

use super::budget::{Account, of_response};
use super::client::Stream;
use super::share::Connection;
use super::{Sent, of_hyper};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1;
use innkeeper_domain::limits::{HTTP_CONNECT_TIMEOUT, HTTP_HEADERS_BYTES_MAX, TIMEOUT_MAX};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, timeout};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

/// How long the parts of a request may take.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Times {
    /// The guest's wishes within the host's bounds. The attempt's own end bounds them all.
    pub fn new(options: Option<RequestOptions>) -> Self {
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

/// Sends the request and waits for the head of the response. The future that comes with it drives the
/// connection; dropping it closes that.
pub(super) async fn exchange(
    mut request: Request<WasiBody>,
    stream: Box<dyn Stream>,
    times: Times,
    room: Connection,
    response_bytes: Arc<Account>,
) -> Result<Sent, Error> {
    let handshake =
        http1::Builder::new().max_buf_size(HTTP_HEADERS_BYTES_MAX).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let room = Arc::new(room);
    let of_connection = Arc::clone(&room);
    let mut connection: BoxFuture<'static, Result<(), Error>> = Box::pin(async move {
        let _room = of_connection;
        connection.await.map_err(of_hyper)
    });
    let response = async {
        let response = timeout(times.first_byte, sender.send_request(request)).await;
        response.map_err(|_| Error::HttpResponseTimeout)?.map_err(of_hyper)
    };
    tokio::pin!(response);
    let (response, rest): (Result<Response<Incoming>, Error>, BoxFuture<'static, _>) = tokio::select! {
        response = &mut response => (response, connection),
        ended = &mut connection => match (&mut response).now_or_never() {
            // The answer came before the end, which may be a reset.
            Some(response) => (response, Box::pin(std::future::ready(ended))),
            None => {
                ended?;
                (response.await, Box::pin(std::future::ready(Ok(()))))
            }
        },
    };
    let response =
        response?.map(|body| of_response(Timed::new(body, times.between_bytes, room), response_bytes));
    Ok((response, Box::new(rest)))
}

/// A response's body that fails when it is silent for too long.
struct Timed {
    body: Incoming,
    silence: Duration,
    ends: Pin<Box<Sleep>>,
    /// What is kept unread takes up room, though its connection may be over.
    _room: Arc<Connection>,
}

impl Timed {
    fn new(body: Incoming, silence: Duration, room: Arc<Connection>) -> Self {
        Self { body, silence, ends: Box::pin(tokio::time::sleep(silence)), _room: room }
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
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(of_hyper(error)))),
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
