//! Guests that lie about their memory and their handles, trap and exit at odd moments.

use crate::sandbox::{CONTROL, Sandbox};
use crate::table::{Case, Fails, Goes, try_all, wasi_handler};
use crate::wat::{command, handler, handler_with};
use innkeeper_domain::failure::FailureKind::{Exit, Guest, Trap};

const HANDLES: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $in (param i64) (result i32)))
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))
    (import "wasi:cli/stdin@0.2.0" "get-stdin" (func $stdin (result i32)))
    (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]input-stream.subscribe" (func $subscribe (param i32) (result i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]input-stream" (func $drop-in (param i32)))"#;

/// A handler with its own `realloc`, and what comes after its return.
fn with_realloc(realloc: &str, post_return: &str) -> Vec<u8> {
    handler(&format!(
        r#"(module
            (import "innkeeper:task/log@0.1.0" "write" (func $log (param i32 i32 i32)))
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                (i32.const 2048))
            (func (export "cabi_post_innkeeper:task/handler@0.1.0#run") (param i32) {post_return}))"#
    ))
}

/// A handler that exits by itself at a moment of its own.
fn exits(in_start: &str, in_realloc: &str) -> Vec<u8> {
    let text = crate::wat::handler_text(HANDLES, "(call $exit (i32.const 0)) unreachable");
    let text = text.replacen("(local $at i32)", &format!("(local $at i32) {in_realloc}"), 1);
    let begin = format!("(func $begin {in_start}) (start $begin) (func $ok (result i32)");
    crate::table::wasi_module(&text.replacen("(func $ok (result i32)", &begin, 1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_end_in_traps_with_words() {
    let returns = |fields: &str| handler_with("", &format!("(drop (call $ok)) {fields} (i32.const 16)"));
    let log = |pointer: i64, length: i64| {
        let text = format!("(call $log (i32.const 2) (i32.const {pointer}) (i32.const {length})) (call $ok)");
        handler_with(CONTROL, &text)
    };
    let invalid = "(i32.store8 (i32.const 64) (i32.const 255))";
    let cases = [
        Case::new("a result beyond its memory", handler_with("", "(i32.const -8)"), Fails(Trap, "out of bounds")),
        Case::new("a result that isn't aligned", handler_with("", "(i32.const 17)"), Fails(Trap, "align")),
        Case::new(
            "a result of a kind that there isn't",
            returns("(i32.store8 (i32.const 16) (i32.const 7))"),
            Fails(Trap, "discriminant"),
        ),
        Case::new(
            "an output that ends beyond its memory",
            returns("(i32.store (i32.const 32) (i32.const 65535)) (i32.store (i32.const 36) (i32.const 100))"),
            Fails(Trap, "out of bounds"),
        ),
        Case::new(
            "an output with a pointer near 4 GiB",
            returns("(i32.store (i32.const 32) (i32.const -1)) (i32.store (i32.const 36) (i32.const 2))"),
            Fails(Trap, "out of bounds"),
        ),
        Case::new(
            "a content type of 4 GiB",
            returns("(i32.store (i32.const 24) (i32.const 0)) (i32.store (i32.const 28) (i32.const -1))"),
            Fails(Trap, "out of bounds"),
        ),
        Case::new("a message beyond its memory", log(65530, 100), Fails(Trap, "out of bounds")),
        Case::new("a message of 4 GiB", log(0, -1), Fails(Trap, "out of bounds")),
        Case::new(
            "a level that there isn't",
            handler_with(CONTROL, "(call $log (i32.const 77) (i32.const 64) (i32.const 6)) (call $ok)"),
            Fails(Trap, "discriminant"),
        ),
        Case::new(
            "a message that is no UTF-8",
            handler_with(CONTROL, &format!("{invalid} (call $log (i32.const 2) (i32.const 64) (i32.const 6)) (call $ok)")),
            Fails(Trap, "utf-8"),
        ),
        Case::new(
            "a failure that is no UTF-8",
            handler_with("", &format!("{invalid} (call $fail)")),
            Fails(Trap, "utf-8"),
        ),
        Case::new(
            "a note that is no UTF-8",
            handler_with(
                CONTROL,
                &format!(
                    "{invalid} (call $progress (i64.const 1) (i32.const 1) (i64.const 2) (i32.const 64) (i32.const 6))
                     (call $ok)"
                ),
            ),
            Fails(Trap, "utf-8"),
        ),
        Case::new(
            "a log that is no UTF-8, by stderr",
            command("\\ff\\fe\\n", "(call $write (i32.const 2) (i32.const 1024) (i32.const 3)) (call $write (i32.const 1) (i32.const 1024) (i32.const 3))"),
            Goes(b"\xff\xfe\n"),
        ),
        Case::new("realloc gives what is beyond its memory", with_realloc("(i32.const -64)", ""), Fails(Trap, "beyond end of memory")),
        Case::new("realloc traps", with_realloc("unreachable", ""), Fails(Trap, "unreachable")),
        Case::new(
            "realloc calls the host",
            with_realloc("(call $log (i32.const 2) (i32.const 0) (i32.const 1)) (i32.const 1024)", ""),
            Fails(Trap, "cannot leave component instance"),
        ),
        Case::new("it traps after the return", with_realloc("(i32.const 1024)", "unreachable"), Fails(Trap, "unreachable")),
        Case::new(
            "it calls the host after the return",
            with_realloc("(i32.const 1024)", "(call $log (i32.const 2) (i32.const 0) (i32.const 1))"),
            Fails(Trap, "cannot leave component instance"),
        ),
        Case::new(
            "it traps in its start function",
            handler(
                r#"(module (memory (export "memory") 1) (func $begin unreachable) (start $begin)
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) (i32.const 2048)))"#,
            ),
            Fails(Trap, "unreachable"),
        ),
        Case::new(
            "data beyond its memory",
            handler(
                r#"(module (memory (export "memory") 1) (data (i32.const 65535) "too long")
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) (i32.const 2048)))"#,
            ),
            Fails(Trap, "out of bounds"),
        ),
        Case::new("a handle that was never its own", wasi_handler(HANDLES, "(call $block (i32.const 77)) (call $ok)"), Fails(Trap, "handle index 77")),
        Case::new(
            "a handle dropped twice",
            wasi_handler(HANDLES, "(local $h i32) (local.set $h (call $in (i64.const 1))) (call $drop (local.get $h)) (call $drop (local.get $h)) (call $ok)"),
            Fails(Trap, "handle index"),
        ),
        Case::new(
            "a handle used after it was dropped",
            wasi_handler(HANDLES, "(local $h i32) (local.set $h (call $in (i64.const 1))) (call $drop (local.get $h)) (call $block (local.get $h)) (call $ok)"),
            Fails(Trap, "handle index"),
        ),
        Case::new(
            "a handle of another kind",
            wasi_handler(HANDLES, "(call $block (call $stdin)) (call $ok)"),
            Fails(Trap, "handle index"),
        ),
        Case::new(
            "a parent dropped before its child",
            wasi_handler(HANDLES, "(local $h i32) (local.set $h (call $stdin)) (drop (call $subscribe (local.get $h))) (call $drop-in (local.get $h)) (call $ok)"),
            Fails(Trap, "child"),
        ),
        Case::new("a handler that exits well", exits("", ""), Fails(Exit, "instead of returning")),
        Case::new("an exit in the start function", exits("(call $exit (i32.const 1))", ""), Fails(Exit, "unsuccessfully")),
        Case::new("an exit in realloc", exits("", "(call $exit (i32.const 1))"), Fails(Trap, "cannot leave component instance")),
        Case::new(
            "an exit with output half written",
            command("half", "(call $write (i32.const 1) (i32.const 1024) (i32.const 4)) (call $exit (i32.const 255))"),
            Fails(Exit, "unsuccessfully"),
        ),
        Case::new(
            "a trap with output half written",
            command("half", "(call $write (i32.const 1) (i32.const 1024) (i32.const 4)) unreachable"),
            Fails(Trap, "unreachable"),
        ),
        Case::new(
            "a path of the host's",
            wat::parse_str(
                r#"(module
                    (import "wasi_snapshot_preview1" "path_open"
                        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
                    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
                    (memory (export "memory") 1) (data (i32.const 100) "/etc/passwd")
                    (func (export "_start")
                        (i32.store8 (i32.const 200) (call $open (i32.const 3) (i32.const 0) (i32.const 100)
                            (i32.const 11) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 300)))
                        (i32.store (i32.const 0) (i32.const 200)) (i32.store (i32.const 4) (i32.const 1))
                        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
            )
            .unwrap(),
            // EBADF: there is no such directory.
            Goes(&[8]),
        ),
        Case::new("a failure of its own", handler_with("", "(call $fail)"), Fails(Guest, "it is out of order")),
    ];
    try_all(&Sandbox::new(), &cases).await;
}
