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
    let too_many = || Fails(Trap, "the guest holds 256 fields and responses");
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
    ];
    let cases =
        cases.map(|case| case.set(|spec| (spec.timeout, spec.memory) = (Duration::from_secs(60), 16 << 20)));
    let sandbox = Sandbox::new();
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
