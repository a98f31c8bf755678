//! `wasi:sockets`: there are none. Guests of some languages import it whatever they do, so it is linked; none gets as
//! far as a socket of the host's.

use crate::guest::Guest;
use innkeeper_domain::run::LogLevel;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::{tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::WasiSocketsView;

/// Puts these in the place of what makes sockets.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    tcp_create_socket::add_to_linker::<_, HasSelf<_>>(linker, |guest: &mut Guest| guest)?;
    udp_create_socket::add_to_linker::<_, HasSelf<_>>(linker, |guest: &mut Guest| guest)
}

impl Guest {
    fn deny_socket<T>(&self, kind: &str) -> SocketResult<T> {
        let words =
            format!("denied: a {kind} socket; tasks have none, HTTP goes through wasi:http (--allow-http)");
        self.log.note(LogLevel::Warn, words);
        Err(ErrorCode::AccessDenied.into())
    }
}

// What the two that make sockets need beside them; guests have these from wasmtime's own.
impl network::Host for Guest {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.sockets().network_error_code(error)
    }
}

impl network::HostNetwork for Guest {
    fn drop(&mut self, network: Resource<network::Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), network)
    }
}

impl tcp_create_socket::Host for Guest {
    fn create_tcp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.deny_socket("TCP")
    }
}

impl udp_create_socket::Host for Guest {
    async fn create_udp_socket(&mut self, _family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        self.deny_socket("UDP")
    }
}
