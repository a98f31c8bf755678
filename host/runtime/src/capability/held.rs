//! How much of HTTP a guest may hold. The host keeps it outside of the guest's memory: requests that aren't
//! sent, with their bodies and trailers, and headers. Each has its bound of bytes; here is how many the guest may
//! make, and how many bytes all headers may have, for which wasmtime has no bound but that of all handles.

use super::request::TYPES;
use crate::guest::Guest;
use http::{HeaderMap, HeaderName, HeaderValue};
use innkeeper_domain::limits::{
    HTTP_FIELDS_HELD_MAX, HTTP_HEADER_COST, HTTP_HEADERS_HELD_BYTES_MAX, HTTP_HEADERS_HOLDER_COST,
    HTTP_REQUESTS_HELD_MAX,
};
use std::any::Any;
use std::collections::HashSet;
use std::ptr;
use wasmtime::component::{Linker, Resource, ResourceTable, ResourceTableError};
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

/// What the fields that a guest makes are children of in its table, and its own place there. So they are told
/// from those that the guest is given, and no longer counted in whatever way they go: of fields themselves
/// nothing tells whether they can be changed but a change.
struct Made(u32);

/// The guest holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("the guest holds {HTTP_REQUESTS_HELD_MAX} requests that it hasn't sent, which is the most")]
    Requests,
    #[error("the guest holds {HTTP_FIELDS_HELD_MAX} fields that it has made, which is the most")]
    Fields,
    #[error("the guest holds {HTTP_HEADERS_HELD_BYTES_MAX} bytes of HTTP headers, which is the most")]
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
    /// What fields are to be children of, if it may make some beside those that it has. Headers are weighed here
    /// too: those that it has made for a request outlast that in fields that show them.
    fn room_for_fields(&mut self) -> Result<Resource<Made>> {
        let made = self.made()?;
        if self.table.iter_children(&made)?.count() >= HTTP_FIELDS_HELD_MAX {
            return Err(Full::Fields.into());
        }
        self.weigh_headers()?;
        Ok(made)
    }

    /// What the fields that it has made are children of.
    fn made(&mut self) -> Result<Resource<Made>, ResourceTableError> {
        let place = self.table.iter_mut().find_map(|thing| thing.downcast_ref::<Made>().map(|made| made.0));
        if let Some(place) = place {
            return Ok(Resource::new_own(place));
        }
        let made = self.table.push(Made(0))?;
        self.table.get_mut(&made)?.0 = made.rep();
        Ok(made)
    }

    /// Counts these among the fields that it has made, as long as they are in its table.
    fn has_made(
        &mut self,
        fields: &Resource<FieldMap>,
        made: Resource<Made>,
    ) -> Result<(), ResourceTableError> {
        self.table.add_child(Resource::<FieldMap>::new_borrow(fields.rep()), made)
    }

    /// Whether it may hold the headers that it holds.
    fn weigh_headers(&mut self) -> Result<(), Full> {
        if headers_held(&mut self.table) <= HTTP_HEADERS_HELD_BYTES_MAX { Ok(()) } else { Err(Full::Headers) }
    }

    /// Its HTTP, if it may hold a request beside those that it has. Responses that it can make and can't send
    /// are as large. Its things are looked through, for there are few, and they go in many ways.
    fn http_for_request(&mut self) -> Result<WasiHttpCtxView<'_>, Full> {
        let things = self.table.iter_mut();
        let requests =
            things.filter(|thing| thing.is::<HostOutgoingRequest>() || thing.is::<HostOutgoingResponse>());
        if requests.count() < HTTP_REQUESTS_HELD_MAX { Ok(self.http()) } else { Err(Full::Requests) }
    }
}

/// Bytes of the headers that are held in a table. Fields that show the headers of a response, or of a request,
/// share them with it: they are there once, and showing them needs no check.
fn headers_held(table: &mut ResourceTable) -> usize {
    let (mut bytes, mut seen) = (0, HashSet::new());
    for headers in table.iter_mut().filter_map(|thing| headers_of(thing)) {
        bytes += HTTP_HEADERS_HOLDER_COST;
        if seen.insert(ptr::from_ref::<HeaderMap>(headers)) {
            bytes += headers.iter().map(bytes_of).sum::<usize>();
        }
    }
    bytes
}

/// The headers that a thing holds, if it is fields or a response.
fn headers_of(thing: &(dyn Any + Send)) -> Option<&FieldMap> {
    let of_response = || thing.downcast_ref::<HostIncomingResponse>().map(|response| &response.headers);
    thing.downcast_ref::<FieldMap>().or_else(of_response)
}

fn bytes_of((name, value): (&HeaderName, &HeaderValue)) -> usize {
    name.as_str().len() + value.len() + HTTP_HEADER_COST
}

/// These, with no more than their own bytes. As they come, each is a part of all that was read with it, and holds
/// that: a header of one letter would hold tens of thousands that the guest isn't even shown.
fn copied(headers: &HeaderMap) -> Result<HeaderMap> {
    let mut copies = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in headers {
        copies.try_append(name, HeaderValue::from_bytes(value.as_bytes())?)?;
    }
    Ok(copies)
}

fn new_fields(mut store: StoreContextMut<'_, Guest>, (): ()) -> Result<(Resource<FieldMap>,)> {
    let guest = store.data_mut();
    let made = guest.room_for_fields()?;
    let fields = types::HostFields::new(&mut guest.http())?;
    guest.has_made(&fields, made)?;
    Ok((fields,))
}

fn fields_of_list(
    mut store: StoreContextMut<'_, Guest>,
    (list,): (List,),
) -> Result<(Result<Resource<FieldMap>, HeaderError>,)> {
    let guest = store.data_mut();
    let made = guest.room_for_fields()?;
    let fields = types::HostFields::from_list(&mut guest.http(), list);
    match fields {
        Ok(fields) => {
            guest.has_made(&fields, made)?;
            Ok((Ok(fields),))
        }
        Err(error) => Ok((Err(guest.http().convert_header_error(error)?),)),
    }
}

fn clone_fields(
    mut store: StoreContextMut<'_, Guest>,
    (fields,): (Resource<FieldMap>,),
) -> Result<(Resource<FieldMap>,)> {
    let guest = store.data_mut();
    let made = guest.room_for_fields()?;
    let fields = types::HostFields::clone(&mut guest.http(), fields)?;
    guest.has_made(&fields, made)?;
    Ok((fields,))
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
    let guest = store.data_mut();
    let answered = types::HostFutureIncomingResponse::get(&mut guest.http(), future)?;
    if let Some(Ok(Ok(response))) = &answered {
        let WasiHttpCtxView { hooks, table, .. } = guest.http();
        let response = table.get_mut(response)?;
        response.headers = FieldMap::new_immutable(hooks, copied(&response.headers)?);
        guest.weigh_headers()?;
    }
    Ok((answered,))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::header::ETAG;

    /// As a guest is given them: one header, of so many letters.
    fn given(letters: usize) -> FieldMap {
        let mut fields = FieldMap::new_mutable(usize::MAX);
        fields.append_raw(ETAG, HeaderValue::from_bytes(&vec![b'y'; letters]).unwrap()).unwrap();
        fields.set_immutable();
        fields
    }

    #[test]
    fn headers_that_are_shared_count_once() {
        let once = "etag".len() + 1000 + HTTP_HEADER_COST;
        let (mut table, shared) = (ResourceTable::new(), given(1000));
        table.push(shared.clone()).unwrap();
        table.push(HostIncomingResponse { status: 200, headers: shared, body: None }).unwrap();
        assert_eq!(headers_held(&mut table), 2 * HTTP_HEADERS_HOLDER_COST + once);
        let others = table.push(given(1000)).unwrap();
        assert_eq!(headers_held(&mut table), 3 * HTTP_HEADERS_HOLDER_COST + 2 * once);
        table.delete(others).unwrap();
        table.push(String::from("something else")).unwrap();
        assert_eq!(headers_held(&mut table), 2 * HTTP_HEADERS_HOLDER_COST + once);
    }

    #[test]
    fn copied_headers_hold_nothing_else() {
        let all = Bytes::from(vec![b'y'; 9000]);
        let mut headers = HeaderMap::new();
        for part in [all.slice(..2), all.slice(4..7)] {
            headers.append(ETAG, HeaderValue::from_maybe_shared(part).unwrap());
        }
        let copies = copied(&headers).unwrap();
        assert_eq!(copies, headers);
        drop(headers);
        assert!(all.is_unique());
    }
}
