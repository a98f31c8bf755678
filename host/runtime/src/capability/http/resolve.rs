//! From names to addresses that guests may reach.

use super::Asker;
use super::client::{Client, bare};
use super::share::Share;
use crate::network::{Closed, Open};
use innkeeper_domain::limits::HTTP_ADDRESSES_MAX;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::Error;

/// Looks up a name's addresses. May block, for as long as the system likes.
pub(super) type Resolver = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// As the system does it.
pub(super) fn system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

impl Client {
    /// The addresses of a host that guests may reach. Whoever connects to these, and asks for none again, is
    /// where the check was. Takes at most so long; a lookup that takes longer keeps its room until it is over.
    pub(super) async fn resolve(
        &self,
        of: &Asker,
        share: &Arc<Share>,
        host: &str,
        port: u16,
        wait: Duration,
    ) -> Result<Vec<SocketAddr>, Error> {
        let found = match bare(host).parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.look_up(of, share, bare(host), port, wait).await?,
        };
        let open = Open { networks: &self.open_networks, names: of.open };
        let (mut reachable, mut closed) = (Vec::new(), None);
        for address in found.into_iter().take(HTTP_ADDRESSES_MAX) {
            match open.check(address.ip()) {
                Ok(()) => reachable.push(address),
                Err(why) => closed = closed.or(Some((address.ip(), why))),
            }
        }
        match closed {
            _ if !reachable.is_empty() => Ok(reachable),
            None => Err(dns("the name has no address".into())),
            Some((address, closed)) => {
                of.note(denied(of, host, address, closed));
                Err(Error::DestinationIpProhibited)
            }
        }
    }

    async fn look_up(
        &self,
        of: &Asker,
        share: &Arc<Share>,
        name: &str,
        port: u16,
        wait: Duration,
    ) -> Result<Vec<SocketAddr>, Error> {
        let ends = Instant::now() + wait;
        let room = match timeout_at(ends, share.lookup()).await {
            Ok(room) => room.map_err(|e| dns(e.to_string()))?,
            Err(_) => {
                let (tenant, host) = (self.bounds.tenant_lookups, self.bounds.host_lookups);
                of.note(format!(
                    "denied: {name} could not be looked up in {wait:?}; at one time at most {tenant} names are for one \
                     tenant and {host} for all, and those before it take long"
                ));
                return Err(Error::ConnectionLimitReached);
            }
        };
        let (resolver, name) = (Arc::clone(&self.resolver), name.to_string());
        // The room goes along: nothing ends the thread, least of all that its guest is gone.
        let lookup = tokio::task::spawn_blocking(move || {
            let found = resolver(&name, port);
            drop(room);
            found
        });
        let found = timeout_at(ends, lookup).await.map_err(|_| Error::DnsTimeout)?;
        found.map_err(|e| dns(e.to_string()))?.map_err(|e| dns(e.to_string()))
    }
}

fn dns(words: String) -> Error {
    Error::DnsError { rcode: Some(words), info_code: None }
}

/// What is wrong with an address, and both ways to set it right.
fn denied(of: &Asker, host: &str, at: IpAddr, closed: Closed) -> String {
    let Closed { address, name } = closed;
    let (form, all) = match bare(host).parse::<IpAddr>() {
        Ok(_) if address == at => ("".into(), address.to_string()),
        Ok(_) => (format!(", which stands for {address},"), address.to_string()),
        // The address of a name isn't said: the system may know names that are none of the tenant's business.
        Err(_) => ("".into(), "ADDRESS".into()),
    };
    format!(
        "denied: {host}{form} is in the network `{name}`, which is closed to tasks; the host's admin can open it to the tenant \
         (`inn quota set --tenant {} open-networks={}`), or the address to all (`inn serve --open-network {all}`)",
        of.tenant,
        of.open.with(name),
    )
}
