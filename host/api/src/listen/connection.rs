//! One connection, plain or TLS, that knows who is at its other end.
//!
//! A client of HTTP/2 must begin in time; from then on HTTP/2's own pings find out whether it is there. HTTP/1 has none,
//! so that a connection of it has an end.

use super::places::Place;
use crate::peer::Peer;
use innkeeper_domain::limits::{HANDSHAKE_TIMEOUT, HTTP1_CONNECTION_LIFE};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// What every client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes' way.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that is ready for HTTP. Reading and writing fail when its time is over.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    phase: Phase,
    _place: Place,
}

enum Phase {
    /// So many bytes of the preface have come.
    Beginning {
        seen: usize,
        ends: Pin<Box<Sleep>>,
    },
    Http1 {
        ends: Pin<Box<Sleep>>,
    },
    Http2,
}

impl Connection {
    pub fn new(stream: Stream, peer: Peer, place: Place) -> Self {
        let phase = Phase::Beginning { seen: 0, ends: Box::pin(sleep(HANDSHAKE_TIMEOUT)) };
        Self { stream, peer, phase, _place: place }
    }

    /// What the client has sent tells what it speaks.
    fn has_sent(&mut self, bytes: &[u8]) {
        let Phase::Beginning { seen, .. } = &mut self.phase else { return };
        let expected = &PREFACE[*seen..];
        let common = bytes.len().min(expected.len());
        *seen += common;
        if bytes[..common] != expected[..common] {
            self.phase = Phase::Http1 { ends: Box::pin(sleep(HTTP1_CONNECTION_LIFE)) };
        } else if *seen == PREFACE.len() {
            self.phase = Phase::Http2;
        }
    }

    fn is_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let (ends, why) = match &mut self.phase {
            Phase::Beginning { ends, .. } => (ends, "the client doesn't begin"),
            Phase::Http1 { ends } => (ends, "the connection has lasted long enough"),
            Phase::Http2 => return Ok(()),
        };
        match ends.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, why)),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Stream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.stream.poll_read(context, buffer);
        self.has_sent(&buffer.filled()[before..]);
        self.is_in_time(context)?;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_in_time(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_in_time(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
