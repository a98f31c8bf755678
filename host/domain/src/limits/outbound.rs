//! Bounds of the HTTP that guests speak with others.

use super::MIB;
use std::time::Duration;

/// Connections of one attempt at one time.
pub const HTTP_CONNECTIONS_MAX: usize = 16;
/// Connections of one tenant's attempts on one host at one time.
pub const HTTP_CONNECTIONS_PER_TENANT_MAX: usize = 64;
/// Connections of one host's attempts at one time. A tenant that has as many as are left for all gets no more, so that
/// it takes more than a dozen that want all they can have until another finds none.
pub const HTTP_CONNECTIONS_PER_HOST_MAX: usize = 512;
/// Names that are looked up at one time for one tenant's attempts on one host; others wait. A lookup can't be
/// interrupted, and counts until the system answers, whether or not somebody still wants to know.
pub const HTTP_LOOKUPS_PER_TENANT_MAX: usize = 4;
/// Names that are looked up at one time for one host's attempts; others wait. Each is on a thread of its own.
pub const HTTP_LOOKUPS_PER_HOST_MAX: usize = 32;
/// Addresses of one name that are looked at.
pub const HTTP_ADDRESSES_MAX: usize = 16;
/// Requests of one attempt, those that are denied among them.
pub const HTTP_REQUESTS_MAX: u64 = 10_000;
/// Bytes of the bodies of one attempt's requests, all together.
pub const HTTP_REQUEST_BYTES_MAX: u64 = 1024 * MIB;
/// Bytes of the bodies of the responses to them, all together.
pub const HTTP_RESPONSE_BYTES_MAX: u64 = 1024 * MIB;
/// Bytes of the headers of one response.
pub const HTTP_HEADERS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of headers that a guest puts together, for one request.
pub const HTTP_FIELDS_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a method's name, of an authority, and of a path with its query, that a guest gives to a request.
pub const HTTP_METHOD_BYTES_MAX: usize = 64;
pub const HTTP_AUTHORITY_BYTES_MAX: usize = 512;
pub const HTTP_PATH_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a request's body that the host holds for a guest until they are sent, twice: what one write may have.
pub const HTTP_BODY_WRITE_BYTES_MAX: usize = 64 * 1024;
/// Requests that a guest may hold at once that it hasn't sent, each with what the host holds of it.
pub const HTTP_REQUESTS_HELD_MAX: usize = 32;
/// Fields that it may hold at once that it has made, each with as many headers as it puts together.
pub const HTTP_FIELDS_HELD_MAX: usize = 256;
/// Bytes of headers that it may hold at once, in fields and in responses. More than as many usual responses have as
/// it has handles for.
pub const HTTP_HEADERS_HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What fields, or a response, count among them beside their headers.
pub const HTTP_HEADERS_HOLDER_COST: usize = 256;
/// What a header counts among them beside its name and its value.
pub const HTTP_HEADER_COST: usize = 128;
/// How long it may take until a name's addresses are known, and then until there is a connection.
pub const HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
