//! What a guest says of an outbound request before it is sent. The host keeps these words for it, outside of its
//! memory, so each has a bound of its own; wasmtime's have none.

use crate::guest::Guest;
use innkeeper_domain::limits::{HTTP_AUTHORITY_BYTES_MAX, HTTP_METHOD_BYTES_MAX, HTTP_PATH_BYTES_MAX};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{HostOutgoingRequest as _, Method};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest as Request;

/// The interface as wasmtime links it; other versions of 0.2 are the same to it.
pub(super) const TYPES: &str = "wasi:http/types@0.2.12";

/// What these answer: an error has nothing to it.
type Answer = wasmtime::Result<(Result<(), ()>,)>;

/// Puts these in the place of wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: StoreContextMut<'_, Guest>, (request, method): (Resource<Request>, Method)| -> Answer {
            match &method {
                Method::Other(name) if name.len() > HTTP_METHOD_BYTES_MAX => Ok((Err(()),)),
                _ => Ok((store.data_mut().http().set_method(request, method)?,)),
            }
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: StoreContextMut<'_, Guest>,
         (request, name): (Resource<Request>, Option<String>)|
         -> Answer {
            if is_over(name.as_ref(), HTTP_AUTHORITY_BYTES_MAX) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_authority(request, name)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store: StoreContextMut<'_, Guest>,
         (request, path): (Resource<Request>, Option<String>)|
         -> Answer {
            if is_over(path.as_ref(), HTTP_PATH_BYTES_MAX) {
                return Ok((Err(()),));
            }
            Ok((store.data_mut().http().set_path_with_query(request, path)?,))
        },
    )
}

fn is_over(words: Option<&String>, most: usize) -> bool {
    words.is_some_and(|words| words.len() > most)
}
