//! Guests without an end: whatever they do meanwhile, their time is over when it is.

use crate::sandbox::{CONTROL, LOOP, Sandbox};
use crate::table::{Case, Fails, try_all, wasi_handler};
use crate::wat::{command, handler, handler_with};
use innkeeper_domain::failure::FailureKind::{Cancelled, Timeout};
use std::time::Duration;

/// A module with functions of its own for all that the host calls.
fn whole(begin: &str, realloc: &str, run: &str, post_return: &str) -> Vec<u8> {
    handler(&format!(
        r#"(module
            (memory (export "memory") 1)
            (func $begin {begin}) (start $begin)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) {run})
            (func (export "cabi_post_innkeeper:task/handler@0.1.0#run") (param i32) {post_return}))"#
    ))
}

/// A command that sleeps for an hour, again and again.
fn sleeper() -> Vec<u8> {
    command(
        "",
        "(i64.store (i32.const 2072) (i64.const 3600000000000)) (i32.store (i32.const 2064) (i32.const 1))
         (loop (drop (call $poll (i32.const 2048) (i32.const 3072) (i32.const 1) (i32.const 4000))) (br 0))",
    )
}

fn handler_looping(body: &str) -> Vec<u8> {
    handler_with(CONTROL, &format!("(loop {body} (br 0)) unreachable"))
}

const STAY: &str = "(i32.const 1024)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_guests_are_ended_in_time() {
    let over = || Fails(Timeout, "over its timeout of 300ms");
    let large = "(drop (memory.grow (i32.const 60)))";
    let cases = [
        Case::new("a plain loop", handler_with("", LOOP), over()),
        Case::new("a loop in the start function", whole("(loop (br 0))", STAY, STAY, ""), over()),
        Case::new("a loop in realloc", whole("", LOOP, STAY, ""), over()),
        Case::new(
            "a loop after the return",
            whole("", STAY, "(i32.const 2048)", "(loop (br 0))"),
            over(),
        ),
        Case::new(
            "memory.fill in a loop",
            handler_with(
                "",
                &format!(
                    "{large} (loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 3997696)) (br 0)) unreachable"
                ),
            ),
            over(),
        ),
        Case::new(
            "memory.copy in a loop",
            handler_with(
                "",
                &format!(
                    "{large} (loop (memory.copy (i32.const 0) (i32.const 1024) (i32.const 3900000)) (br 0)) unreachable"
                ),
            ),
            over(),
        ),
        Case::new(
            "table.fill in a loop",
            handler(
                r#"(module (table 100000 funcref) (memory (export "memory") 1)
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                        (loop (table.fill (i32.const 0) (ref.null func) (i32.const 100000)) (br 0)) unreachable))"#,
            ),
            over(),
        ),
        Case::new(
            "tail calls in a circle",
            handler(
                r#"(module (memory (export "memory") 1)
                    (func $a (param i32) (result i32) (return_call $b (local.get 0)))
                    (func $b (param i32) (result i32) (return_call $a (local.get 0)))
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                        (call $a (i32.const 0))))"#,
            ),
            over(),
        ),
        Case::new(
            "a branch table in a circle",
            handler_with(
                "",
                "(loop $a (loop $b (br_table $a $b $a (i32.const 1)))) unreachable",
            ),
            over(),
        ),
        Case::new(
            "calls of the log",
            handler_looping("(call $log (i32.const 2) (i32.const 64) (i32.const 6))"),
            over(),
        ),
        Case::new("questions about its attempt", handler_looping("(drop (call $attempt))"), over()),
        Case::new("questions whether it is cancelled", handler_looping("(drop (call $cancelled))"), over()),
        Case::new(
            "progress without an end",
            handler_looping(
                "(call $progress (i64.const 1) (i32.const 1) (i64.const 2) (i32.const 64) (i32.const 6))",
            ),
            over(),
        ),
        Case::new(
            "reading the clock",
            wasi_handler(
                r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#,
                "(loop (drop (call $now)) (br 0)) unreachable",
            ),
            over(),
        ),
        Case::new(
            "random bytes, a mebibyte each time",
            wasi_handler(
                r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#,
                "(drop (memory.grow (i32.const 40)))
                 (loop (global.set $free (i32.const 65536)) (call $random (i64.const 1048576) (i32.const 1024)) (br 0))
                 unreachable",
            ),
            over(),
        ),
        Case::new("sleeping for an hour", sleeper(), over()),
        Case::new(
            "waiting for the end of time",
            wasi_handler(
                r#"(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $in (param i64) (result i32)))
                   (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#,
                "(call $block (call $in (i64.const -1))) unreachable",
            ),
            over(),
        ),
        Case::new(
            "reading an input that is at its end",
            command(
                "",
                "(i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 1000))
                 (loop (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
            ),
            over(),
        ),
        Case::new(
            "log lines without an end, by stderr",
            command("x\\n", "(loop (call $write (i32.const 2) (i32.const 1024) (i32.const 2)) (br 0))"),
            over(),
        ),
        Case::new(
            "one line without an end",
            command("x", "(loop (call $write (i32.const 2) (i32.const 1024) (i32.const 65000)) (br 0))"),
            over(),
        ),
        Case::new("deaf to a cancel, in a loop", handler_with("", LOOP), Fails(Cancelled, "within its grace"))
            .set(|spec| spec.timeout = Duration::from_secs(3600))
            .cancelled(),
        Case::new("deaf to a cancel, asleep", sleeper(), Fails(Cancelled, "within its grace"))
            .set(|spec| spec.timeout = Duration::from_secs(3600))
            .cancelled(),
        Case::new(
            "sees the cancel and goes on",
            handler_looping("(drop (call $cancelled))"),
            Fails(Cancelled, "within its grace"),
        )
        .set(|spec| spec.timeout = Duration::from_secs(3600))
        .cancelled(),
    ];
    try_all(&Sandbox::new(), &cases).await;
}
