//! One connection, plain or TLS, that knows who is at its other end.
//!
//! A client of HTTP/2 must begin in time, and somebody must call in time whom the host knows; from then on HTTP/2's own
//! pings find out whether it is there. HTTP/1 has none, so that a connection of it has an end.

use super::places::Place;
use crate::peer::{Peer, Stay};
use innkeeper_domain::limits::{HANDSHAKE_TIMEOUT, HTTP1_CONNECTION_LIFE, STRANGER_CONNECTION_LIFE};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
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
    /// How long it may last before somebody calls whom the host knows.
    stranger_life: Duration,
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
    /// HTTP/2, and nobody is known to be there.
    Stranger {
        ends: Pin<Box<Sleep>>,
    },
    /// HTTP/2, and somebody was known when it was last looked at.
    Known,
}

impl Connection {
    pub fn new(stream: Stream, peer: Peer, place: Place) -> Self {
        Self::lasting(STRANGER_CONNECTION_LIFE, stream, peer, place)
    }

    fn lasting(stranger_life: Duration, stream: Stream, peer: Peer, place: Place) -> Self {
        let phase = Phase::Beginning { seen: 0, ends: Box::pin(sleep(HANDSHAKE_TIMEOUT)) };
        Self { stream, peer, phase, stranger_life, _place: place }
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
            self.phase = Phase::Stranger { ends: Box::pin(sleep(self.stranger_life)) };
        }
    }

    fn is_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let ends = match &mut self.phase {
            Phase::Beginning { ends, .. } | Phase::Http1 { ends } | Phase::Stranger { ends } => ends,
            Phase::Known => return Ok(()),
        };
        if ends.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        let why = match self.phase {
            Phase::Beginning { .. } => "the client doesn't begin",
            Phase::Http1 { .. } => "the connection has lasted long enough",
            Phase::Stranger { .. } | Phase::Known => match self.peer.standing.stay() {
                Stay::ForEver => {
                    self.phase = Phase::Known;
                    return Ok(());
                }
                Stay::OnceMore => {
                    self.phase = Phase::Stranger { ends: Box::pin(sleep(self.stranger_life)) };
                    // So that its end wakes this task.
                    return self.is_in_time(context);
                }
                Stay::No => "nobody has called whom the host knows",
            },
        };
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::places::Places;
    use crate::peer::Standing;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};

    const LIFE: Duration = Duration::from_millis(150);
    /// Longer than two lives, and shorter than one that is never ended.
    const PROMPT: Duration = Duration::from_secs(5);

    /// A connection on which HTTP/2 has begun, and its client.
    async fn begun(standing: &Standing) -> (Connection, TcpStream) {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let mut client = TcpStream::connect(tcp.local_addr().expect("it has one")).await.expect("connected");
        let (stream, address) = tcp.accept().await.expect("a connection");
        let place = Places::default().take(address.ip()).expect("a place");
        let peer = Peer { address, certificate: Vec::new(), standing: standing.clone() };
        let mut connection = Connection::lasting(LIFE, Stream::Plain(stream), peer, place);
        client.write_all(PREFACE).await.expect("sent");
        let mut preface = vec![0; PREFACE.len()];
        connection.read_exact(&mut preface).await.expect("the preface");
        (connection, client)
    }

    /// How long it was until reading failed.
    async fn ended(connection: &mut Connection) -> Duration {
        let begun = Instant::now();
        let read = timeout(PROMPT, connection.read(&mut [0; 1])).await.expect("it ends");
        assert_eq!(read.expect_err("nothing was sent").kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_stranger_has_a_connection_for_a_while() {
        let (mut connection, _client) = begun(&Standing::default()).await;
        ended(&mut connection).await;
        assert!(connection.write(b"more").await.is_err());
    }

    #[tokio::test]
    async fn who_asks_for_health_has_it_once_more_as_long() {
        let standing = Standing::default();
        let (mut connection, _client) = begun(&standing).await;
        standing.asks_health();
        assert!(ended(&mut connection).await > LIFE + LIFE / 2);
    }

    #[tokio::test]
    async fn who_is_known_keeps_it_though_nothing_more_comes() {
        let standing = Standing::default();
        let (mut connection, mut client) = begun(&standing).await;
        standing.becomes_known();
        let silent = timeout(LIFE * 3, connection.read(&mut [0; 1])).await;
        assert!(silent.is_err(), "it was ended: {silent:?}");
        client.write_all(b"x").await.expect("sent");
        assert_eq!(connection.read(&mut [0; 1]).await.expect("it is open"), 1);
    }
}
