//! Guests at the network: what they mustn't reach, and servers that mean them harm.

use crate::sandbox::Sandbox;
use crate::table::{Case, Fails, Goes, try_all, wasi_module};
use crate::wat::handler_text;
use innkeeper_domain::failure::FailureKind::Timeout;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

const IMPORTS: &str = r#"
    (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
        (func $set-authority (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
        (func $set-path (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
        (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method"
        (func $set-method (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $body (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $body-stream (param i32 i32)))
    (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe"
        (func $subscribe (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-response.status" (func $status (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-response.consume" (func $consume (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-body.stream" (func $stream (param i32 i32)))
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (import "wasi:sockets/instance-network@0.2.0" "instance-network" (func $network (result i32)))
    (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $tcp (param i32 i32)))
    (import "wasi:sockets/udp-create-socket@0.2.0" "create-udp-socket" (func $udp (param i32 i32)))
    (import "wasi:sockets/ip-name-lookup@0.2.0" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
    (global $response (mut i32) (i32.const 0))
    ;; A request to the authority that is in the memory from 3072 on.
    (func $make (param $length i32) (result i32)
        (local $request i32)
        (local.set $request (call $request (call $fields)))
        (drop (call $set-authority (local.get $request) (i32.const 1) (i32.const 3072) (local.get $length)))
        (drop (call $set-scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
        (i32.store8 (i32.const 3071) (i32.const 47))
        (drop (call $set-path (local.get $request) (i32.const 1) (i32.const 3071) (i32.const 1)))
        (local.get $request))
    ;; Sends it. 0 for a response, which is kept; else 100 and the number of the error's code.
    (func $send (param $request i32) (result i32)
        (local $future i32)
        (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 1024))
        (if (i32.load8_u (i32.const 1024))
            (then (return (i32.add (i32.const 100) (i32.load8_u (i32.const 1032))))))
        (local.set $future (i32.load (i32.const 1032)))
        (call $block (call $subscribe (local.get $future)))
        (call $get (local.get $future) (i32.const 1024))
        (if (i32.load8_u (i32.const 1040))
            (then (return (i32.add (i32.const 100) (i32.load8_u (i32.const 1048))))))
        (global.set $response (i32.load (i32.const 1048)))
        (i32.const 0))
    ;; A stream of the response's body.
    (func $incoming (result i32)
        (call $consume (global.get $response) (i32.const 1024))
        (call $stream (i32.load (i32.const 1028)) (i32.const 1024))
        (i32.load (i32.const 1028)))"#;

/// Error codes as `$send` tells them.
const IP_PROHIBITED: &[u8] = &[104];
const CONNECTION_LIMIT: &[u8] = &[111];
const DENIED: &[u8] = &[115];
/// Error codes of sockets as [`SAYS_RESULT`] tells them.
const ACCESS_DENIED: &[u8] = &[101];
const UNRESOLVABLE: &[u8] = &[120];

/// Says the number of the handle or of the error's code at 1024, and 100 more for an error.
const SAYS_RESULT: &str = "(call $say (i32.add
    (i32.mul (i32.load8_u (i32.const 1024)) (i32.const 100)) (i32.load8_u (i32.const 1028))))";

pub fn speaks_with(authority: &str, body: &str) -> Vec<u8> {
    let data = format!(r#"(data (i32.const 3072) "{authority}")"#);
    let make = format!("(call $make (i32.const {}))", authority.len());
    let text = handler_text(IMPORTS, &body.replace("$MADE", &make));
    wasi_module(&text.replacen("(data (i32.const 64)", &format!("{data} (data (i32.const 64)"), 1))
}

/// A server that reads some of each request, answers the beginning, and then the rest again and again.
async fn server(tasks: &TaskTracker, beginning: Vec<u8>, again: &'static [u8], wait: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tasks.spawn(async move {
        let connections = TaskTracker::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let beginning = beginning.clone();
            connections.spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let mut went = stream.write_all(&beginning).await;
                while went.is_ok() && !again.is_empty() {
                    tokio::time::sleep(wait).await;
                    went = stream.write_all(again).await;
                }
                // Until the other side closes.
                while went.is_ok() && matches!(stream.read(&mut request).await, Ok(1..)) {}
            });
        }
    });
    address
}

pub const SENDS: &str = "(call $say (call $send $MADE))";
const READS_ALL: &str = "(local $body i32) (drop (call $send $MADE)) (local.set $body (call $incoming))
    (loop
        (global.set $free (i32.const 4096))
        (call $read (local.get $body) (i64.const 1024) (i32.const 1024))
        (br_if 0 (i32.eqz (i32.load8_u (i32.const 1024)))))
    (call $say (i32.const 9))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_out() {
    let sandbox = Sandbox::new();
    let none = ["example.com", "127.0.0.1:7070", "[::1]:7070", "localhost:7070", "169.254.169.254"];
    let mut cases: Vec<_> = none
        .map(|host| Case::new("a host that it isn't granted", speaks_with(host, SENDS), Goes(DENIED)))
        .into();
    // Granted by whoever didn't know what they are.
    let closed = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "localhost",
        "169.254.169.254",
        "10.0.0.1",
        "100.64.0.1",
        "192.168.0.1",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fc00::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
    ];
    cases.extend(closed.map(|host| {
        Case::new(host, speaks_with(host, SENDS), Goes(IP_PROHIBITED))
            .set(|spec| spec.timeout = Duration::from_secs(20))
    }));
    for case in cases.iter_mut().skip(none.len()) {
        case.grants = vec![case.name.into()];
    }
    cases.extend([
        Case::new(
            "a TCP socket",
            speaks_with("", &format!("(call $tcp (i32.const 0) (i32.const 1024)) {SAYS_RESULT}")),
            Goes(ACCESS_DENIED),
        ),
        Case::new(
            "a UDP socket",
            speaks_with("", &format!("(call $udp (i32.const 1) (i32.const 1024)) {SAYS_RESULT}")),
            Goes(ACCESS_DENIED),
        ),
        Case::new(
            "looking up a name",
            speaks_with(
                "example.com",
                &format!(
                    "(call $resolve (call $network) (i32.const 3072) (i32.const 11) (i32.const 1024))
                     {SAYS_RESULT}"
                ),
            ),
            Goes(UNRESOLVABLE),
        ),
    ]);
    try_all(&sandbox, &cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_do_no_harm() {
    let tasks = TaskTracker::new();
    let sandbox = Sandbox::with(|config| config.open_networks = vec!["127.0.0.0/8".parse().unwrap()]);
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n".to_vec();
    let mut bomb = b"HTTP/1.1 200 OK\r\n".to_vec();
    bomb.extend((0..5000).flat_map(|n| format!("x-header-{n}: {}\r\n", "y".repeat(100)).into_bytes()));
    let one = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).into_bytes();
    let redirect =
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    let never = Duration::ZERO;
    let bomb = server(&tasks, bomb, b"", never).await;
    let one = server(&tasks, one, b"", never).await;
    let endless = server(&tasks, head.clone(), &[b'x'; 4096], never).await;
    let slow = server(&tasks, head, b"x", Duration::from_millis(20)).await;
    let silent = server(&tasks, Vec::new(), b"", never).await;
    let garbage = server(&tasks, b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), b"", never).await;
    let redirects = server(&tasks, redirect, b"", never).await;
    let status = "(call $say (i32.sub (call $send $MADE) (i32.const 100)))";
    let flood = "(local $n i32) (local $last i32)
        (loop
            (call $handle $MADE (i32.const 0) (i32.const 0) (i32.const 1024))
            (local.set $last (i32.load (i32.const 1032)))
            (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 17))))
        (call $block (call $subscribe (local.get $last)))
        (call $get (local.get $last) (i32.const 1024))
        (call $say (i32.add (i32.const 100) (i32.load8_u (i32.const 1048))))";
    let pours = "(local $request i32) (local $body i32)
        (local.set $request $MADE)
        (drop (call $set-method (local.get $request) (i32.const 2) (i32.const 0) (i32.const 0)))
        (call $body (local.get $request) (i32.const 1024))
        (call $body-stream (i32.load (i32.const 1028)) (i32.const 1024))
        (local.set $body (i32.load (i32.const 1028)))
        (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 1024))
        (loop (call $write (local.get $body) (i32.const 0) (i32.const 4096) (i32.const 1024)) (br 0))
        unreachable";
    let over = || Fails(Timeout, "over its timeout");
    let cases = [
        ("headers by the thousand", &bomb, status, Goes(&[35])),
        ("a header of a mebibyte", &one, status, Goes(&[35])),
        ("a body without an end", &endless, READS_ALL, over()),
        ("a body that comes by the byte", &slow, READS_ALL, over()),
        ("no answer", &silent, SENDS, over()),
        ("no HTTP", &garbage, status, Goes(&[35])),
        (
            "a redirect, which is the guest's to follow",
            &redirects,
            "(drop (call $send $MADE)) (call $say (i32.sub (call $status (global.get $response)) (i32.const 300)))",
            Goes(&[2]),
        ),
        ("more connections than it may have", &silent, flood, Goes(CONNECTION_LIMIT)),
        ("a request without an end", &silent, pours, over()),
    ];
    let cases = cases.map(|(name, server, body, expect)| {
        let mut case = Case::new(name, speaks_with(server, body), expect)
            .set(|spec| spec.timeout = Duration::from_secs(1));
        case.grants = vec![server.clone()];
        case
    });
    try_all(&sandbox, &cases).await;
}
