//! Guests that let the host keep things for them: its memory is no way round the bound of theirs.

use crate::sandbox::{CONTROL, Port, Sandbox};
use crate::table::{Case, Fails, Goes, try_all, wasi_handler};
use crate::wat::handler_with;
use innkeeper_domain::failure::FailureKind::Trap;
use innkeeper_domain::failure::Outcome;
use innkeeper_domain::limits::{LOG_LINES_MAX, MIB};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// What the process of all these guests may take more than before them, at its most.
const GROWTH_MAX: u64 = 128 * MIB;

const REQUESTS: &str = r#"
    (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.0" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[static]fields.from-list" (func $from-list (param i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]fields.clone" (func $clone (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method"
        (func $set-method (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
        (func $set-authority (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
        (func $set-path (param i32 i32 i32 i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $body (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
    (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $body-stream (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[resource-drop]outgoing-body" (func $drop-body (param i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $drop-stream (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))"#;

const RESPONSES: &str = r#"
    (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
        (func $set-scheme (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
    (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe"
        (func $subscribe (param i32) (result i32)))
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop-pollable (param i32)))
    (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[resource-drop]future-incoming-response" (func $drop-future (param i32)))
    (import "wasi:http/types@0.2.0" "[method]incoming-response.consume" (func $consume (param i32 i32)))
    (import "wasi:http/types@0.2.0" "[resource-drop]incoming-body" (func $drop-incoming (param i32)))"#;

/// Does something many times with eight million letters at 65536, and says 0; or 1 once it has answered so.
fn many(imports: &str, times: u32, answer: &str) -> Vec<u8> {
    wasi_handler(
        imports,
        &format!(
            "(local $n i32) (local $m i32) (local $request i32)
             (drop (memory.grow (i32.const 130)))
             (memory.fill (i32.const 65536) (i32.const 97) (i32.const 8000000))
             (loop
                (if {answer} (then (return (call $say (i32.const 1)))))
                (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {times}))))
             (call $say (i32.const 0))"
        ),
    )
}

/// Fetches from a server many times and keeps the responses, without their bodies, which take up connections. It
/// says 0, or 1 once there is no response.
fn fetches(server: &str, times: u32) -> Vec<u8> {
    let imports = format!(r#"{REQUESTS} {RESPONSES} (data (i32.const 3071) "/{server}")"#);
    let fetch = format!(
        "(block $end (result i32)
            (local.set $request (call $request (call $fields)))
            (drop (call $set-scheme (local.get $request)
                (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
            (drop (call $set-authority (local.get $request) (i32.const 1) (i32.const 3072) (i32.const {})))
            (drop (call $set-path (local.get $request) (i32.const 1) (i32.const 3071) (i32.const 1)))
            (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 1024))
            (if (i32.load8_u (i32.const 1024)) (then (br $end (i32.const 1))))
            (local.set $request (i32.load (i32.const 1032)))
            (local.set $m (call $subscribe (local.get $request)))
            (call $block (local.get $m)) (call $drop-pollable (local.get $m))
            (call $get (local.get $request) (i32.const 1024)) (call $drop-future (local.get $request))
            (if (i32.load8_u (i32.const 1040)) (then (br $end (i32.const 1))))
            (call $consume (i32.load (i32.const 1048)) (i32.const 1024))
            (call $drop-incoming (i32.load (i32.const 1028)))
            (i32.load8_u (i32.const 1024)))",
        server.len()
    );
    many(&imports, times, &fetch)
}

/// A server whose responses have a header of so many letters, and no body.
async fn server(tasks: &TaskTracker, letters: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: {}\r\n\r\n", "y".repeat(letters));
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    address
}

fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it looks at the memory of its process: the test below runs it in one of its own"]
async fn alone() {
    let new = "(local.set $request (call $request (call $fields)))";
    let body = format!(
        "(block (result i32) {new} (call $body (local.get $request) (i32.const 1024))
            (call $body-stream (i32.load (i32.const 1028)) (i32.const 1024))
            (local.set $request (i32.load (i32.const 1028)))
            (call $write (local.get $request) (i32.const 65536) (i32.const 1048576) (i32.const 1024))
            (call $write (local.get $request) (i32.const 65536) (i32.const 1048576) (i32.const 1024))
            (i32.load8_u (i32.const 1024)))"
    );
    let unsent = format!(
        "(block (result i32) {new} (call $body (local.get $request) (i32.const 1024))
            (local.set $m (i32.load (i32.const 1028)))
            (call $body-stream (local.get $m) (i32.const 1024))
            (local.set $request (i32.load (i32.const 1028)))
            (call $write (local.get $request) (i32.const 65536) (i32.const 65536) (i32.const 1024))
            (call $write (local.get $request) (i32.const 65536) (i32.const 65536) (i32.const 1024))
            (call $drop-stream (local.get $request)) (call $drop-body (local.get $m))
            (i32.load8_u (i32.const 1024)))"
    );
    let responses = "(block (result i32) (drop (call $response (call $fields))) (i32.const 0))";
    let set = |name: &str, kind: u32| {
        format!(
            "(block (result i32) {new}
                (call ${name} (local.get $request) (i32.const {kind}) (i32.const 65536) (i32.const 8000000)))"
        )
    };
    let headers = "(block (result i32)
        (local.set $request (call $fields))
        (loop
            (call $append (local.get $request) (i32.const 64) (i32.const 6) (i32.const 65536) (i32.const 1900)
                (i32.const 1024))
            (br_if 0 (i32.lt_u (local.tee $m (i32.add (local.get $m) (i32.const 1))) (i32.const 15))))
        (local.set $m (i32.const 0))
        (i32.load8_u (i32.const 1024)))";
    let clones = "(block (result i32)
        (if (i32.eqz (local.get $n)) (then (local.set $request (call $fields))))
        (drop (call $clone (local.get $request))) (i32.const 0))";
    let lists = "(block (result i32)
        (call $from-list (i32.const 0) (i32.const 0) (i32.const 1024)) (i32.load8_u (i32.const 1024)))";
    let too_many = || Fails(Trap, "the guest holds 256 fields");
    let tasks = TaskTracker::new();
    let (small, large) = (server(&tasks, 1).await, server(&tasks, 48_000).await);
    let keeps = |name, server: &String, times, expect| Case {
        grants: vec![server.clone()],
        ..Case::new(name, fetches(server, times), expect)
    };
    let cases = [
        Case::new("methods of eight megabytes", many(REQUESTS, 200, &set("set-method", 9)), Goes(&[1])),
        Case::new(
            "authorities of eight megabytes",
            many(REQUESTS, 200, &set("set-authority", 1)),
            Goes(&[1]),
        ),
        Case::new("paths of eight megabytes", many(REQUESTS, 200, &set("set-path", 1)), Goes(&[1])),
        Case::new(
            "bodies of a mebibyte of requests that are never sent",
            many(REQUESTS, 200, &body),
            Fails(Trap, "budget"),
        ),
        Case::new("as many requests as it may hold", many(REQUESTS, 32, &unsent), Goes(&[0])),
        Case::new(
            "bodies that it has done with, of requests that are never sent",
            many(REQUESTS, 900, &unsent),
            Fails(Trap, "the guest holds 32 requests that it hasn't sent"),
        ),
        Case::new(
            "responses to nobody",
            many(REQUESTS, 900, responses),
            Fails(Trap, "the guest holds 32 requests that it hasn't sent"),
        ),
        Case::new("as many headers as it may hold", many(REQUESTS, 256, headers), Goes(&[0])),
        Case::new("more headers than it may hold", many(REQUESTS, 257, headers), too_many()),
        Case::new("more lists of headers than it may hold", many(REQUESTS, 900, lists), too_many()),
        Case::new("more copies of headers than it may hold", many(REQUESTS, 900, clones), too_many()),
        keeps("small responses, all of which it keeps", &small, 600, Goes(&[0])),
        keeps(
            "large headers of responses, all of which it keeps",
            &large,
            900,
            Fails(Trap, "the guest holds 16777216 bytes of HTTP headers"),
        ),
    ];
    let cases =
        cases.map(|case| case.set(|spec| (spec.timeout, spec.memory) = (Duration::from_secs(60), 16 << 20)));
    let sandbox = Sandbox::with(|config| config.open_networks = vec!["127.0.0.0/8".parse().unwrap()]);
    for case in cases {
        let name = case.name;
        let before = memory("VmRSS:");
        // The most it has had counts from here on.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        try_all(&sandbox, &[case]).await;
        let peak = memory("VmHWM:");
        println!("{name}: {} MiB before, {} MiB at the most", before / MIB, peak / MIB);
        assert!(peak < before + GROWTH_MAX);
    }
}

#[test]
fn what_the_host_keeps_for_a_guest_is_bounded() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "hoard::alone", "--ignored", "--nocapture"]).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// One message of more lines than a log may have costs no more than they.
#[tokio::test]
async fn a_message_of_eight_million_lines() {
    let sandbox = Sandbox::new();
    let lines = "(drop (memory.grow (i32.const 130)))
        (memory.fill (i32.const 65536) (i32.const 10) (i32.const 8000000))
        (call $log (i32.const 2) (i32.const 65536) (i32.const 8000000)) (call $ok)";
    let spec = sandbox.upload(handler_with(CONTROL, lines));
    sandbox.compile(&spec).await;
    let port = Arc::new(Port::default());
    let end = sandbox.run(spec, b"", &port).await;
    println!("{:?}", end.usage);
    assert!(matches!(end.outcome, Outcome::Output(_)), "{end:?}");
    let dropped = 8_000_000 - LOG_LINES_MAX;
    let lines = port.lines.lock().unwrap();
    assert_eq!(lines.len(), LOG_LINES_MAX + 1);
    assert!(lines.last().unwrap().1.starts_with(&format!("{dropped} more lines were dropped")));
}
