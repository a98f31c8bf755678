//! What an attempt may send and be sent, all in all.

use super::client::Bounds;
use crate::log::Log;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use innkeeper_domain::run::LogLevel;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::{Error, WasiBody};

/// What is left to one attempt.
pub(super) struct Budget {
    requests: Account,
    sent: Arc<Account>,
    received: Arc<Account>,
}

/// What is left of one thing.
pub(super) struct Account {
    left: AtomicU64,
    most: u64,
    what: &'static str,
    told: AtomicBool,
    log: Log,
}

impl Budget {
    pub fn new(bounds: Bounds, log: &Log) -> Self {
        let account = |most, what| Account {
            left: AtomicU64::new(most),
            most,
            what,
            told: AtomicBool::new(false),
            log: log.clone(),
        };
        Self {
            requests: account(bounds.requests, "requests"),
            sent: Arc::new(account(bounds.request_bytes, "bytes of requests' bodies")),
            received: Arc::new(account(bounds.response_bytes, "bytes of responses' bodies")),
        }
    }

    /// Takes one request.
    pub fn request(&self) -> Result<(), Error> {
        let over = |most| {
            Error::InternalError(Some(format!("the attempt has sent {most} requests, which is the most")))
        };
        if self.requests.take(1) { Ok(()) } else { Err(over(self.requests.most)) }
    }

    /// A request's body whose bytes are taken.
    pub fn of_request(&self, body: WasiBody) -> WasiBody {
        let account = Arc::clone(&self.sent);
        Counted { body, account, over: |most| Error::HttpRequestBodySize(Some(most)) }.boxed_unsync()
    }

    /// What [`of_response`] takes from.
    pub fn responses(&self) -> Arc<Account> {
        Arc::clone(&self.received)
    }
}

/// A response's body whose bytes are taken.
pub(super) fn of_response(
    body: impl Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
    account: Arc<Account>,
) -> WasiBody {
    Counted { body, account, over: |most| Error::HttpResponseBodySize(Some(most)) }.boxed_unsync()
}

impl Account {
    /// Takes so much, or says that there isn't as much; then nothing is left.
    fn take(&self, much: u64) -> bool {
        if self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(much)).is_ok()
        {
            return true;
        }
        self.left.store(0, Ordering::Release);
        if !self.told.swap(true, Ordering::AcqRel) {
            let Self { most, what, .. } = self;
            self.log.note(LogLevel::Warn, format!("denied: an attempt has at most {most} {what} in all"));
        }
        false
    }
}

/// A body that fails when its bytes are over the account.
struct Counted<B> {
    body: B,
    account: Arc<Account>,
    over: fn(u64) -> Error,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        if self.account.take(bytes as u64) {
            Poll::Ready(frame)
        } else {
            Poll::Ready(Some(Err((self.over)(self.account.most))))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
