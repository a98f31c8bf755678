//! The port: takes connections, in bounded number, and makes them ready for HTTP/2. Handshakes have a task each, so
//! that a slow client holds up nobody.

mod connection;
mod names;
mod places;
mod sparing;
mod tls;

pub use connection::Connection;
pub use tls::{Tls, TlsError, TlsFiles};

use crate::peer::{Peer, Standing};
use connection::Stream;
use innkeeper_domain::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
use places::{Place, Places};
use sparing::Sparing;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long it waits after connections can't be taken, as when no more files can be opened.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the host listens, and how.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Whoever is in between can read and change everything.
    pub fn plain(tcp: TcpListener) -> Self {
        Self { tcp, tls: None }
    }

    pub fn tls(tcp: TcpListener, tls: Arc<Tls>) -> Self {
        Self { tcp, tls: Some(tls) }
    }

    /// Connections as they get ready. Dropping it closes the port and ends the handshakes under way.
    pub(crate) fn incoming(self) -> impl futures::Stream<Item = Result<Connection, Infallible>> {
        let door = Door {
            listener: self,
            places: Places::default(),
            handshakes: JoinSet::new(),
            refused: Sparing::default(),
            failed: Sparing::default(),
        };
        futures::stream::unfold(door, |mut door| async move { Some((Ok(door.next().await), door)) })
    }
}

struct Door {
    listener: Listener,
    places: Places,
    handshakes: JoinSet<Result<Connection, (SocketAddr, String)>>,
    refused: Sparing,
    failed: Sparing,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            let ready = tokio::select! {
                Some(done) = self.handshakes.join_next() => self.done(done),
                accepted = self.listener.tcp.accept() => match accepted {
                    Ok((stream, address)) => self.accepted(stream, address),
                    Err(error) => {
                        self.not_accepted(&error).await;
                        None
                    }
                },
            };
            if let Some(connection) = ready {
                return connection;
            }
        }
    }

    /// A plain connection is ready at once; TLS begins its handshake.
    fn accepted(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let place = match self.places.take(address.ip()) {
            Ok(place) => place,
            Err(full) => return self.refuse(address, &full.to_string()),
        };
        // A failure costs some latency and nothing else.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.listener.tls else {
            let peer = Peer { address, certificate: Vec::new(), standing: Standing::default() };
            return Some(Connection::new(Stream::Plain(stream), peer, place));
        };
        if self.handshakes.len() >= HANDSHAKES_MAX {
            return self.refuse(address, &format!("{HANDSHAKES_MAX} handshakes are under way"));
        }
        let acceptor = tls.acceptor();
        self.handshakes.spawn(async move {
            let shaken = timeout(HANDSHAKE_TIMEOUT, handshake(acceptor, stream, address, place)).await;
            shaken.unwrap_or_else(|_| Err("it took too long".into())).map_err(|why| (address, why))
        });
        None
    }

    fn refuse(&mut self, address: SocketAddr, why: &str) -> Option<Connection> {
        if let Some(others) = self.refused.say(Instant::now()) {
            tracing::warn!(%address, why, others, "a connection was closed: there are too many");
        }
        None
    }

    fn done(
        &mut self,
        done: Result<Result<Connection, (SocketAddr, String)>, tokio::task::JoinError>,
    ) -> Option<Connection> {
        let (address, why) = match done {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err((address, why))) => (Some(address), why),
            Err(panicked) => (None, panicked.to_string()),
        };
        if let Some(others) = self.failed.say(Instant::now()) {
            tracing::info!(
                address = address.map(|a| a.to_string()),
                why,
                others,
                "a TLS handshake has failed"
            );
        }
        None
    }

    /// What concerns one connection is passed over; what concerns the host is waited out.
    async fn not_accepted(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if let Some(others) = self.refused.say(Instant::now()) {
            tracing::error!(%error, others, "no connection can be taken; it tries again");
        }
        sleep(ACCEPT_PAUSE).await;
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    place: Place,
) -> Result<Connection, String> {
    let stream = acceptor.accept(stream).await.map_err(|e| e.to_string())?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = leaf.map_or(Ok(Vec::new()), |leaf| names::names(leaf));
    let certificate = certificate.map_err(|why| format!("the client's certificate can't be read: {why}"))?;
    let peer = Peer { address, certificate, standing: Standing::default() };
    Ok(Connection::new(Stream::Tls(Box::new(stream)), peer, place))
}

#[cfg(test)]
mod tests;
