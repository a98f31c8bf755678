//! Nobody's requests take more than their share.

use super::*;
use http_body_util::Full;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

const LOOPBACK: &[&str] = &["127.0.0.0/8"];

async fn open(hooks: &mut Hooks, port: u16) -> Result<Sent, Error> {
    let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(format!("http://127.0.0.1:{port}/")).body(body).unwrap();
    Pin::from(hooks.send_request(request, None, Box::new(async { Ok(()) }))).await
}

#[tokio::test]
async fn connections_are_an_attempts_a_tenants_and_the_hosts() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let port = server_of_many(half).await;
    let bounds = Bounds { connections: 2, tenant_connections: 3, host_connections: 5, ..Bounds::default() };
    let client = client(LOOPBACK, bounds, Arc::new(resolve::system));
    let grants = ["*:*".to_string()];
    let (mut first, first_log) = attempt(&client, tenant(1), &grants, "none");
    let (mut second, second_log) = attempt(&client, tenant(1), &grants, "none");
    let (mut other, other_log) = attempt(&client, tenant(2), &grants, "none");

    let mut held = vec![open(&mut first, port).await.unwrap(), open(&mut first, port).await.unwrap()];
    let full = |sent: Result<Sent, Error>| matches!(sent, Err(Error::ConnectionLimitReached));
    assert!(full(open(&mut first, port).await));
    held.push(open(&mut second, port).await.unwrap());
    assert!(full(open(&mut second, port).await));
    held.push(open(&mut other, port).await.unwrap());
    assert!(full(open(&mut other, port).await));
    for (log, words) in [
        (first_log, "the attempt has 2 connections"),
        (second_log, "the tenant's attempts have 3 connections"),
        (other_log, "of the 5 connections"),
    ] {
        let notes = notes(&log);
        assert!(notes.len() == 1 && notes[0].contains(words), "{notes:?}");
    }
    drop(held.remove(0));
    held.push(open(&mut other, port).await.unwrap());
    assert!(full(open(&mut first, port).await), "it would have more than are left for all");
}

/// A server that answers so, and holds on to every connection.
async fn server_of_many(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio_util::task::TaskTracker::new().spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
            held.push(stream);
        }
    });
    port
}

#[tokio::test]
async fn lookups_that_hang_are_counted_until_they_are_over() {
    let port = server(OK, Duration::ZERO).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (count, at) = (Arc::clone(&asked), Arc::clone(&gate));
    let hangs: Resolver = Arc::new(move |_, port| {
        count.fetch_add(1, Ordering::SeqCst);
        let (is_open, opened) = &*at;
        // Not for ever: a test that fails is to end.
        let most = Duration::from_secs(60);
        let _open = opened.wait_timeout_while(is_open.lock().unwrap(), most, |is_open| !*is_open).unwrap();
        Ok(vec![([127, 0, 0, 1], port).into()])
    });
    let bounds = Bounds { tenant_lookups: 2, host_lookups: 3, ..Bounds::default() };
    let client = client(LOOPBACK, bounds, hangs);
    let wait = Some(Duration::from_millis(50));
    let soon =
        RequestOptions { connect_timeout: wait, first_byte_timeout: None, between_bytes_timeout: None };
    // Each request's guest is gone before the next one comes; what was begun for it is not.
    let ask = async |number| {
        let (mut hooks, log) = attempt(&client, tenant(number), &["*:*".into()], "none");
        let error = get(&mut hooks, format!("http://hangs.test:{port}/"), Some(soon)).await.unwrap_err();
        (error, notes(&log).concat())
    };
    for (number, has_room) in
        [(1, true), (1, true), (1, false), (1, false), (2, true), (2, false), (3, false)]
    {
        let (error, note) = ask(number).await;
        match error {
            Error::DnsTimeout => assert!(has_room, "tenant {number}"),
            Error::ConnectionLimitReached => {
                assert!(
                    !has_room && note.contains("at most 2 names are for one tenant and 3 for all"),
                    "{note}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let (mut hooks, _) = attempt(&client, tenant(1), &["*:*".into()], "none");
    assert_eq!(get(&mut hooks, format!("http://hangs.test:{port}/"), None).await.unwrap().0, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn requests_of_an_attempt_are_counted() {
    let port = server(OK, Duration::ZERO).await;
    let client = client(LOOPBACK, Bounds { requests: 2, ..Bounds::default() }, Arc::new(resolve::system));
    let (mut hooks, log) = attempt(&client, tenant(1), &[format!("127.0.0.1:{port}")], "none");
    assert!(get(&mut hooks, "http://denied.test/".into(), None).await.is_err());
    for is_within in [true, false, false] {
        match get(&mut hooks, format!("http://127.0.0.1:{port}/"), None).await {
            Ok(_) => assert!(is_within),
            Err(Error::InternalError(Some(words))) => {
                assert!(!is_within && words.contains("2 requests"), "{words}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    let notes = notes(&log);
    assert!(notes.len() == 2 && notes[1].contains("at most 2 requests"), "{notes:?}");
}

#[tokio::test]
async fn bytes_of_an_attempts_bodies_are_counted() {
    let port = server(OK, Duration::ZERO).await;
    let bounds = Bounds { request_bytes: 12, response_bytes: 12, ..Bounds::default() };
    let client = client(LOOPBACK, bounds, Arc::new(resolve::system));
    let grants = [format!("127.0.0.1:{port}")];

    let (mut reads, log) = attempt(&client, tenant(1), &grants, "none");
    for is_within in [true, true, false] {
        let body = get(&mut reads, format!("http://127.0.0.1:{port}/"), None).await.unwrap().1;
        match body {
            Ok(body) => assert!(is_within && body == b"hello"),
            Err(error) => {
                assert!(!is_within && matches!(error, Error::HttpResponseBodySize(Some(12))), "{error:?}")
            }
        }
    }
    assert!(notes(&log).concat().contains("at most 12 bytes of responses' bodies"));

    let (mut writes, log) = attempt(&client, tenant(1), &grants, "none");
    for is_within in [true, true, false] {
        let body = Full::from("hello").map_err(|never| match never {}).boxed_unsync();
        let request = Request::post(format!("http://127.0.0.1:{port}/")).body(body).unwrap();
        let sent = Pin::from(writes.send_request(request, None, Box::new(async { Ok(()) }))).await;
        match sent {
            Ok(_) => assert!(is_within),
            Err(error) => {
                assert!(!is_within && matches!(error, Error::HttpRequestBodySize(Some(12))), "{error:?}")
            }
        }
    }
    assert!(notes(&log).concat().contains("at most 12 bytes of requests' bodies"));
}
