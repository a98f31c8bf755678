//! Guests that grow, recurse and hoard.

use crate::sandbox::{CONTROL, Sandbox};
use crate::table::{Case, Fails, Goes, Refused, try_all, wasi_handler};
use crate::wat::{bound_module, command, handler, handler_with};
use innkeeper_domain::failure::FailureKind::{Memory, OutputTooLarge, Trap};
use innkeeper_domain::limits::OUTPUT_BYTES_MAX;

/// A module that does nothing, with these definitions beside it.
fn with(definitions: &str) -> Vec<u8> {
    bound_module(&format!(
        r#"(module {definitions}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                (i32.const 2048)))"#
    ))
}

const MEMORY: &str = r#"(memory (export "memory") 1)"#;

const POLL: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $in (param i64) (result i32)))
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))
    (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
    (import "wasi:cli/stdin@0.2.0" "get-stdin" (func $stdin (result i32)))
    (import "wasi:io/streams@0.2.0" "[method]input-stream.subscribe" (func $subscribe (param i32) (result i32)))
    (import "wasi:io/streams@0.2.0" "[resource-drop]input-stream" (func $drop-in (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))"#;

const HTTP_FIELDS: &str = r#"
    (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
    (import "wasi:http/types@0.2.0" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))"#;

const RANDOM: &str = r#"
    (import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
    (import "wasi:random/insecure@0.2.0" "get-insecure-random-bytes" (func $insecure (param i64 i32)))"#;

/// A component whose run makes resources of its own until the end.
fn resource_maker() -> Vec<u8> {
    wat::parse_str(
        r#"(component
            (type $thing (resource (rep i32)))
            (core func $new (canon resource.new $thing))
            (core module $m
                (import "" "new" (func $new (param i32) (result i32)))
                (func (export "run") (result i32)
                    (loop (drop (call $new (i32.const 7))) (br 0)) unreachable))
            (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $r)))"#,
    )
    .unwrap()
}

/// A component with so many core instances.
fn many_instances(count: usize) -> Vec<u8> {
    let instances = "(core instance (instantiate $empty))\n".repeat(count);
    wat::parse_str(format!(
        r#"(component
            (core module $empty)
            {instances}
            (core module $m (func (export "run") (result i32) (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $r)))"#
    ))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_over_its_bound() {
    let grows = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))";
    let pages = OUTPUT_BYTES_MAX / 65536 + 2;
    let cases = [
        Case::new(
            "memory until there is no more, and dies of it",
            handler_with("", &format!("{grows} unreachable")),
            Fails(Memory, "its limit is 4194304"),
        ),
        Case::new(
            "memory until there is no more, and copes",
            handler_with("", &format!("{grows} (call $say (memory.size))")),
            Goes(&[64]),
        ),
        Case::new(
            "memory of a gibibyte from the beginning",
            with(r#"(memory (export "memory") 16384)"#),
            Fails(Memory, "its limit is 4194304"),
        ),
        Case::new(
            "memory of 4 GiB from the beginning",
            with(r#"(memory (export "memory") 65536)"#),
            Refused("memory"),
        ),
        Case::new(
            "five memories",
            with(&format!("{MEMORY} {}", "(memory 1)".repeat(4))),
            Refused("memories"),
        ),
        Case::new(
            "a thousand tables",
            with(&format!("{MEMORY} {}", "(table 1 funcref)".repeat(1000))),
            Refused("table"),
        ),
        Case::new(
            "nine tables",
            with(&format!("{MEMORY} {}", "(table 1 funcref)".repeat(9))),
            Refused("tables"),
        ),
        Case::new(
            "a table of ten million elements",
            with(&format!("{MEMORY} (table 10000000 funcref)")),
            Refused("table"),
        ),
        Case::new(
            "a table until there is no more, and dies of it",
            handler(
                r#"(module (table $t 1 funcref) (memory (export "memory") 1)
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                        (loop $more
                            (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))
                        unreachable))"#,
            ),
            Fails(Memory, "its limit is 4194304"),
        ),
        Case::new("a thousand instances", many_instances(1000), Refused("instances count exceeds limit")),
        Case::new("five hundred instances", many_instances(500), Refused("instances")),
        Case::new("recursion", handler_with("", "(call $recurse (i32.const 0))"), Fails(Trap, "stack overflow")),
        Case::new(
            "recursion with large frames",
            handler(&format!(
                r#"(module (memory (export "memory") 1)
                    (func $deep (param i64) (result i64) (local {})
                        (i64.add (call $deep (local.get 0)) (local.get 3)))
                    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                        (i32.wrap_i64 (call $deep (i64.const 1)))))"#,
                "i64 ".repeat(2000)
            )),
            Fails(Trap, "stack overflow"),
        ),
        Case::new(
            "recursion in realloc",
            handler(
                r#"(module (memory (export "memory") 1)
                    (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                        (i32.add (call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1)) (i32.const 1)))
                    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                        (i32.const 2048)))"#,
            ),
            Fails(Trap, "stack overflow"),
        ),
        Case::new("resources of its own without an end", resource_maker(), Fails(Trap, "handles")),
        Case::new(
            "timers until there are no more handles",
            wasi_handler(POLL, "(loop (drop (call $in (i64.const 1000000000))) (br 0)) unreachable"),
            Fails(Trap, "handles"),
        ),
        Case::new(
            "streams until there are no more handles",
            wasi_handler(POLL, "(loop (drop (call $stdout)) (br 0)) unreachable"),
            Fails(Trap, "handles"),
        ),
        Case::new(
            "subscriptions until there are no more handles",
            wasi_handler(
                POLL,
                "(local $in i32) (local.set $in (call $stdin))
                 (loop (drop (call $subscribe (local.get $in))) (br 0)) unreachable",
            ),
            Fails(Trap, "handles"),
        ),
        Case::new(
            "timers that are dropped again, a hundred thousand",
            wasi_handler(
                POLL,
                "(local $n i32)
                 (loop (call $drop (call $in (i64.const 1000000000)))
                    (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 100000))))
                 (call $say (i32.const 1))",
            ),
            Goes(&[1]),
        )
        .set(|spec| spec.timeout = std::time::Duration::from_secs(20)),
        Case::new(
            "one timer, polled eleven thousand times at once",
            wasi_handler(
                POLL,
                "(local $timer i32) (local $at i32)
                 (drop (memory.grow (i32.const 10)))
                 (local.set $timer (call $in (i64.const 1)))
                 (local.set $at (i32.const 65536))
                 (loop (i32.store (local.get $at) (local.get $timer))
                    (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (i32.const 109536))))
                 (global.set $free (i32.const 131072))
                 (call $poll (i32.const 65536) (i32.const 11000) (i32.const 1024))
                 (call $say (i32.const 2))",
            ),
            Fails(Trap, "handles"),
        ),
        Case::new(
            "a poll of nothing",
            wasi_handler(POLL, "(call $poll (i32.const 0) (i32.const 0) (i32.const 1024)) (call $say (i32.const 1))"),
            Fails(Trap, "empty poll list"),
        ),
        Case::new(
            "more random bytes than there are",
            wasi_handler(RANDOM, "(call $random (i64.const -1) (i32.const 1024)) unreachable"),
            Fails(Trap, "exceeds limit 1048576"),
        ),
        Case::new(
            "more bad random bytes than there are",
            wasi_handler(RANDOM, "(call $insecure (i64.const 1048577) (i32.const 1024)) unreachable"),
            Fails(Trap, "exceeds limit 1048576"),
        ),
        Case::new(
            "a message of 63 MiB to the log",
            handler_with(
                CONTROL,
                "(drop (memory.grow (i32.const 1022)))
                 (call $log (i32.const 2) (i32.const 65536) (i32.const 66000000)) unreachable",
            ),
            Fails(Trap, "more than 8388608 bytes to the host in one call"),
        )
        .set(|spec| spec.memory = 64 << 20),
        Case::new(
            "a write of eight million lines to the log",
            wasi_handler(
                POLL,
                "(drop (memory.grow (i32.const 130)))
                 (memory.fill (i32.const 65536) (i32.const 10) (i32.const 8000000))
                 (call $write (call $stdout) (i32.const 65536) (i32.const 8000000) (i32.const 1024)) unreachable",
            ),
            Fails(Trap, "more than the 65536 bytes that one write may have"),
        )
        .set(|spec| spec.memory = 16 << 20),
        Case::new(
            "a thousand writes of sixty-five thousand lines to the log",
            wasi_handler(
                POLL,
                "(local $n i32) (local $out i32)
                 (drop (memory.grow (i32.const 1)))
                 (memory.fill (i32.const 65536) (i32.const 10) (i32.const 65536))
                 (local.set $out (call $stdout))
                 (loop (call $write (local.get $out) (i32.const 65536) (i32.const 65536) (i32.const 1024))
                    (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))
                 (call $say (i32.const 1))",
            ),
            Goes(&[1]),
        )
        .set(|spec| spec.timeout = std::time::Duration::from_secs(20)),
        Case::new(
            "one HTTP header of a mebibyte",
            wasi_handler(
                HTTP_FIELDS,
                "(drop (memory.grow (i32.const 20)))
                 (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
                 (call $append (call $fields) (i32.const 64) (i32.const 6) (i32.const 65536) (i32.const 1048576)
                    (i32.const 1024))
                 (call $say (i32.load8_u (i32.const 1024)))",
            ),
            Fails(Trap, "total size of fields exceeds limit"),
        ),
        Case::new(
            "HTTP headers without an end",
            wasi_handler(
                HTTP_FIELDS,
                "(local $fields i32) (local.set $fields (call $fields))
                 (loop (call $append (local.get $fields) (i32.const 64) (i32.const 6) (i32.const 64) (i32.const 6)
                        (i32.const 1024))
                    (br_if 0 (i32.eqz (i32.load8_u (i32.const 1024)))))
                 (call $say (i32.const 1))",
            ),
            Fails(Trap, "total size of fields exceeds limit"),
        ),
        Case::new(
            "output without an end",
            command("x", "(loop (call $write (i32.const 1) (i32.const 1024) (i32.const 65000)) (br 0))"),
            Fails(OutputTooLarge, "more than 1048576 bytes"),
        ),
        Case::new(
            "an output over the bound",
            handler_with(
                "",
                &format!(
                    "(drop (memory.grow (i32.const {pages}))) (drop (call $ok))
                     (i32.store (i32.const 32) (i32.const 65536)) (i32.store (i32.const 36) (i32.const {}))
                     (i32.const 16)",
                    OUTPUT_BYTES_MAX + 1
                ),
            ),
            Fails(OutputTooLarge, "more than 1048576 bytes"),
        ),
        Case::new(
            "an output far over the bound",
            handler_with(
                "",
                "(drop (memory.grow (i32.const 900))) (drop (call $ok))
                 (i32.store (i32.const 32) (i32.const 65536)) (i32.store (i32.const 36) (i32.const 50000000))
                 (i32.const 16)",
            ),
            Fails(OutputTooLarge, "more than 1048576 bytes"),
        )
        .set(|spec| spec.memory = 64 << 20),
        Case::new(
            "a failure's message of a mebibyte",
            handler_with(
                "",
                "(drop (memory.grow (i32.const 20)))
                 (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
                 (drop (call $fail))
                 (i32.store (i32.const 32) (i32.const 65536)) (i32.store (i32.const 36) (i32.const 1048576))
                 (i32.const 16)",
            ),
            Fails(innkeeper_domain::failure::FailureKind::Guest, "aaaa"),
        ),
    ];
    try_all(&Sandbox::new(), &cases).await;
}
