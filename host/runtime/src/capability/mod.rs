//! All that a guest can ask of the host, one interface a file. Everything known is linked; what a task is
//! not granted answers with an error.

mod context;
mod control;
pub(crate) mod filesystem;
mod held;
pub(crate) mod http;
mod log;
mod request;
mod sockets;

use crate::bindings::innkeeper::task;
use crate::guest::Guest;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi_config::WasiConfig;

/// A linker with everything.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    sockets::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    filesystem::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    request::add_to_linker(&mut linker)?;
    held::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    wasmtime_wasi_config::add_to_linker(&mut linker, |guest: &mut Guest| WasiConfig::new(guest.config()))?;
    task::context::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest: &mut Guest| guest)?;
    task::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest: &mut Guest| guest)?;
    task::control::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest: &mut Guest| guest)?;
    Ok(linker)
}
