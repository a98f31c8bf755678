//! The hooks, asked directly: a guest would be pages of WebAssembly.

mod bounds;
mod closed;

use super::client::Bounds;
use super::resolve::Resolver;
use super::*;
use crate::log::tests::Recorded;
use crate::mask::Mask;
use http_body_util::BodyExt;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::{HostId, RunId, TaskId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::AttemptBounds;
use innkeeper_domain::run::{Claimed, Lease};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that answers every connection with the same bytes, and then keeps it open if asked to.
async fn server(answer: &'static [u8], keep_open: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio_util::task::TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
            tokio::time::sleep(keep_open).await;
        }
    });
    port
}

fn client(open: &[&str], bounds: Bounds, resolver: Resolver) -> Arc<Client> {
    let open = open.iter().map(|network| network.parse().unwrap()).collect();
    Arc::new(Client::with(open, bounds, resolver))
}

/// An attempt of a tenant to which networks are open by name.
fn attempt(client: &Arc<Client>, tenant: TenantId, grants: &[String], open: &str) -> (Hooks, Arc<Recorded>) {
    let mut spec = TaskSpec::new(Digest([0; 32]));
    spec.allow_http = grants.iter().map(|grant| grant.parse().unwrap()).collect();
    let now = Timestamp::UNIX_EPOCH;
    let claimed = Claimed {
        lease: Lease { run: RunId::new(now), host: HostId::new(now), attempt: 1 },
        try_number: 1,
        tenant_id: tenant,
        tenant: "acme".parse().unwrap(),
        bounds: AttemptBounds { open_networks: open.parse().unwrap(), ..AttemptBounds::default() },
        task_id: TaskId::new(now),
        task: "guest".parse().unwrap(),
        revision: 1,
        current_revision: 1,
        trigger: None,
        nominal_at: now,
        last_success_nominal: None,
        idempotency_key: None,
        input: Payload::default(),
        started_at: now,
        end_by: None,
    };
    let invocation = Invocation { claimed, spec: Arc::new(spec), secrets: BTreeMap::new(), deadline: now };
    let port = Arc::new(Recorded::default());
    let log = Log::new(port.clone(), Mask::new(&BTreeMap::new()), None);
    (Hooks::new(Arc::clone(client), &invocation, log), port)
}

fn tenant(number: u128) -> TenantId {
    TenantId(uuid::Uuid::from_u128(number))
}

fn hooks(grants: &[String], open: &[&str]) -> (Hooks, Arc<Recorded>) {
    attempt(&client(open, Bounds::default(), Arc::new(resolve::system)), tenant(1), grants, "none")
}

/// What was noted.
fn notes(log: &Recorded) -> Vec<String> {
    log.lines.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
}

async fn get(
    hooks: &mut Hooks,
    uri: String,
    options: Option<RequestOptions>,
) -> Result<(u16, Result<Vec<u8>, Error>), Error> {
    let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(uri).header("host", "test").body(body).unwrap();
    let (response, connection) =
        Pin::from(hooks.send_request(request, options, Box::new(async { Ok(()) }))).await?;
    let status = response.status().as_u16();
    let (body, _) = tokio::join!(response.into_body().collect(), Pin::from(connection));
    Ok((status, body.map(|body| body.to_bytes().to_vec())))
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_granted_host_in_an_open_network_answers() {
    let port = server(OK, Duration::ZERO).await;
    let (mut hooks, _) = hooks(&[format!("127.0.0.1:{port}")], &["127.0.0.0/8"]);
    let (status, body) = get(&mut hooks, format!("http://127.0.0.1:{port}/x"), None).await.unwrap();
    assert_eq!((status, body.unwrap()), (200, b"hello".to_vec()));
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_says_how_to_grant_it() {
    let (mut hooks, port) = hooks(&["example.com".into()], &["0.0.0.0/0"]);
    for uri in ["http://127.0.0.1:9/", "http://example.com:8080/", "http://example.com.evil.test/"] {
        let error = get(&mut hooks, uri.into(), None).await.unwrap_err();
        assert!(matches!(error, Error::HttpRequestDenied), "{uri}: {error:?}");
    }
    let lines = port.lines.lock().unwrap();
    assert!(lines[0].1.contains("--allow-http 127.0.0.1:9"), "{lines:?}");
    assert!(lines[2].1.contains("--allow-http example.com.evil.test)"), "{lines:?}");
}

#[tokio::test]
async fn a_grant_does_not_open_a_closed_network() {
    let port = server(OK, Duration::ZERO).await;
    let names = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"];
    let grants: Vec<String> = names.iter().map(|name| format!("{name}:{port}")).collect();
    let (mut hooks, _) = hooks(&grants, &[]);
    for name in names {
        let error = get(&mut hooks, format!("http://{name}:{port}/"), None).await.unwrap_err();
        assert!(matches!(error, Error::DestinationIpProhibited), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (mut refused, _) = hooks(&[format!("127.0.0.1:{closed}")], &["127.0.0.0/8"]);
    let error = get(&mut refused, format!("http://127.0.0.1:{closed}/"), None).await.unwrap_err();
    assert!(matches!(&error, Error::Connect(e) if e.kind() == ErrorKind::ConnectionRefused), "{error:?}");

    let (mut unknown, _) = hooks(&["no-such-host.invalid".into()], &[]);
    let error = get(&mut unknown, "http://no-such-host.invalid/".into(), None).await.unwrap_err();
    assert!(matches!(error, Error::DnsError { .. }), "{error:?}");

    let plain = server(OK, Duration::ZERO).await;
    let (mut no_tls, _) = hooks(&[format!("127.0.0.1:{plain}")], &["127.0.0.0/8"]);
    let error = get(&mut no_tls, format!("https://127.0.0.1:{plain}/"), None).await.unwrap_err();
    assert!(matches!(error, Error::Tls(_)), "{error:?}");
}

#[tokio::test]
async fn silence_ends_in_timeouts() {
    let wait = Some(Duration::from_millis(50));
    let options =
        RequestOptions { connect_timeout: None, first_byte_timeout: wait, between_bytes_timeout: wait };
    let silent = server(b"", Duration::from_secs(60)).await;
    let (mut hooks_of_silent, _) = hooks(&[format!("127.0.0.1:{silent}")], &["127.0.0.0/8"]);
    let error =
        get(&mut hooks_of_silent, format!("http://127.0.0.1:{silent}/"), Some(options)).await.unwrap_err();
    assert!(matches!(error, Error::HttpResponseTimeout), "{error:?}");

    let half = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", Duration::from_secs(60)).await;
    let (mut hooks_of_half, _) = hooks(&[format!("127.0.0.1:{half}")], &["127.0.0.0/8"]);
    let body = Request::get(format!("http://127.0.0.1:{half}/"))
        .body(http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync());
    let sent = hooks_of_half.send_request(body.unwrap(), Some(options), Box::new(async { Ok(()) }));
    let (response, connection) = Pin::from(sent).await.unwrap();
    tokio::select! {
        body = response.into_body().collect() => {
            assert!(matches!(body, Err(Error::ConnectionReadTimeout)), "{body:?}");
        }
        ended = Pin::from(connection) => panic!("the connection ended first: {ended:?}"),
    }
}
