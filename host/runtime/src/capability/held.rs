//! How much of HTTP a guest may hold. The host keeps it outside of the guest's memory: requests that aren't sent, with
//! their bodies and trailers, and headers. Each has its bound of bytes; here is how many of them there may be, for which
//! wasmtime has no bound but that of all handles.

use super::request::TYPES;
use crate::guest::Guest;
use innkeeper_domain::limits::{HTTP_HEADERS_HELD_MAX, HTTP_REQUESTS_HELD_MAX};
use std::any::Any;
use wasmtime::component::{Linker, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, HeaderError, Host as _};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse,
};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtxView, WasiHttpView};

/// Headers, as guests give all of them at once.
type List = Vec<(String, Vec<u8>)>;

/// What a request's future answers, if it has an answer that wasn't taken yet.
type Answered = Option<Result<Result<Resource<HostIncomingResponse>, ErrorCode>, ()>>;

/// The guest holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("the guest holds {HTTP_REQUESTS_HELD_MAX} requests that it hasn't sent, which is the most")]
    Requests,
    #[error("the guest holds {HTTP_HEADERS_HELD_MAX} fields and responses, which is the most")]
    Headers,
}

/// Puts these in the place of wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    let mut interface = linker.instance(TYPES)?;
    interface.func_wrap("[constructor]fields", new_fields)?;
    interface.func_wrap("[static]fields.from-list", fields_of_list)?;
    interface.func_wrap("[method]fields.clone", clone_fields)?;
    interface.func_wrap("[constructor]outgoing-request", new_request)?;
    interface.func_wrap("[constructor]outgoing-response", new_response)?;
    interface.func_wrap("[method]future-incoming-response.get", take_response)
}

impl Guest {
    /// Its HTTP, if it may hold headers beside those that it has.
    fn http_for_headers(&mut self) -> Result<WasiHttpCtxView<'_>, Full> {
        let is_headers =
            |thing: &(dyn Any + Send)| thing.is::<FieldMap>() || thing.is::<HostIncomingResponse>();
        if self.held(is_headers) < HTTP_HEADERS_HELD_MAX { Ok(self.http()) } else { Err(Full::Headers) }
    }

    /// Its HTTP, if it may hold a request beside those that it has. Responses that it can make and can't send are as
    /// large.
    fn http_for_request(&mut self) -> Result<WasiHttpCtxView<'_>, Full> {
        let is_request = |thing: &(dyn Any + Send)| {
            thing.is::<HostOutgoingRequest>() || thing.is::<HostOutgoingResponse>()
        };
        if self.held(is_request) < HTTP_REQUESTS_HELD_MAX { Ok(self.http()) } else { Err(Full::Requests) }
    }

    /// How many of its things are of a kind. They are looked through, for there are few, and they go in many ways.
    fn held(&mut self, is: impl Fn(&(dyn Any + Send)) -> bool) -> usize {
        self.table.iter_mut().filter(|thing| is(&**thing)).count()
    }
}

fn new_fields(mut store: StoreContextMut<'_, Guest>, (): ()) -> Result<(Resource<FieldMap>,)> {
    let mut http = store.data_mut().http_for_headers()?;
    Ok((types::HostFields::new(&mut http)?,))
}

fn fields_of_list(
    mut store: StoreContextMut<'_, Guest>,
    (list,): (List,),
) -> Result<(Result<Resource<FieldMap>, HeaderError>,)> {
    let mut http = store.data_mut().http_for_headers()?;
    match types::HostFields::from_list(&mut http, list) {
        Ok(fields) => Ok((Ok(fields),)),
        Err(error) => Ok((Err(http.convert_header_error(error)?),)),
    }
}

fn clone_fields(
    mut store: StoreContextMut<'_, Guest>,
    (fields,): (Resource<FieldMap>,),
) -> Result<(Resource<FieldMap>,)> {
    let mut http = store.data_mut().http_for_headers()?;
    Ok((types::HostFields::clone(&mut http, fields)?,))
}

fn new_request(
    mut store: StoreContextMut<'_, Guest>,
    (headers,): (Resource<FieldMap>,),
) -> Result<(Resource<HostOutgoingRequest>,)> {
    let mut http = store.data_mut().http_for_request()?;
    Ok((types::HostOutgoingRequest::new(&mut http, headers)?,))
}

fn new_response(
    mut store: StoreContextMut<'_, Guest>,
    (headers,): (Resource<FieldMap>,),
) -> Result<(Resource<HostOutgoingResponse>,)> {
    let mut http = store.data_mut().http_for_request()?;
    Ok((types::HostOutgoingResponse::new(&mut http, headers)?,))
}

fn take_response(
    mut store: StoreContextMut<'_, Guest>,
    (future,): (Resource<HostFutureIncomingResponse>,),
) -> Result<(Answered,)> {
    let mut http = store.data_mut().http_for_headers()?;
    Ok((types::HostFutureIncomingResponse::get(&mut http, future)?,))
}
