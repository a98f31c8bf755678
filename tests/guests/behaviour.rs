//! Guests that end in every way there is, each told apart, and what is compiled and kept of them.

use crate::sandbox::{CAPACITY, CONTROL, LOOP, Port, Sandbox, invocation, runtime};
use crate::wat::{bound_module, command, handler, handler_with};
use innkeeper_domain::component::{Digest, Shape};
use innkeeper_domain::failure::{Failure, FailureKind, Outcome, RetryAdvice};
use innkeeper_domain::limits::{LOG_LINES_MAX, OUTPUT_BYTES_MAX};
use innkeeper_domain::run::{LogLevel, Progress};
use innkeeper_domain::task::TaskSpec;
use innkeeper_engine::executor::{AttemptPort, Executor};
use innkeeper_runtime::Runtime;
use innkeeper_runtime::bench::ECHO;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_guests_own_failure_is_its_own() {
    let sandbox = Sandbox::new();
    let (failure, _) = sandbox.failure(sandbox.upload(handler_with("", "(call $fail)"))).await;
    let expected = Failure::with_code(FailureKind::Guest, "broken", "it is out of order", RetryAdvice::Never);
    assert_eq!(failure, expected);
}

#[tokio::test]
async fn traps_are_told_apart_and_leave_a_backtrace() {
    let sandbox = Sandbox::new();
    for (body, words) in [
        ("unreachable", "unreachable"),
        ("(i32.load (i32.const -4))", "out of bounds"),
        ("(i32.div_s (i32.const 1) (i32.const 0))", "divide by zero"),
        ("(call $recurse (i32.const 1))", "stack overflow"),
    ] {
        let (failure, log) = sandbox.failure(sandbox.upload(handler_with("", body))).await;
        assert_eq!(failure.kind, FailureKind::Trap, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
        assert!(!log.is_empty(), "{body}");
    }
}

#[tokio::test]
async fn an_endless_guest_is_ended_wherever_it_loops() {
    let sandbox = Sandbox::new();
    let in_start = r#"(module
        (memory (export "memory") 1)
        (func $begin (loop (br 0)))
        (start $begin)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) unreachable))"#;
    let sleep = command(
        "",
        // A clock subscription of an hour.
        "(i64.store (i32.const 2072) (i64.const 3600000000000)) (i32.store (i32.const 2064) (i32.const 1))
         (drop (call $poll (i32.const 2048) (i32.const 3072) (i32.const 1) (i32.const 4000)))",
    );
    for guest in [handler_with("", LOOP), handler(in_start), sleep] {
        let spec = TaskSpec { timeout: Duration::from_millis(100), ..sandbox.upload(guest) };
        // Compiled before, so that the time is the guest's.
        sandbox.compile(&spec).await;
        let begun = Instant::now();
        let (failure, _) = sandbox.failure(spec).await;
        assert_eq!(
            (failure.kind, begun.elapsed() < Duration::from_secs(5)),
            (FailureKind::Timeout, true),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn memories_and_tables_count_against_one_limit() {
    let sandbox = Sandbox::new();
    let grow = |body: &str| sandbox.upload(handler_with("", body));
    // Asking in vain is no fault; dying of it is memory's.
    let copes = "(drop (memory.grow (i32.const 100))) (call $ok)";
    let dies = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable)) (call $ok)";
    let small = |spec: TaskSpec| TaskSpec { memory: 1 << 20, ..spec };
    assert_eq!(sandbox.output(small(grow(copes)), b"").await.0.bytes, b"");
    let (failure, _) = sandbox.failure(small(grow(dies))).await;
    assert!(failure.kind == FailureKind::Memory && failure.message.contains("1048576"), "{failure:?}");
    let tables = "(table 60000 funcref) (table 60000 funcref)";
    let module = format!(
        r#"(module {tables} (memory (export "memory") 8)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) unreachable))"#
    );
    let spec = TaskSpec { memory: 1 << 20, ..sandbox.upload(handler(&module)) };
    let (failure, _) = sandbox.failure(spec).await;
    assert_eq!(failure.kind, FailureKind::Memory, "{failure:?}");
    let port = Arc::new(Port::default());
    let usage = sandbox.run(grow("(drop (memory.grow (i32.const 15))) (call $ok)"), b"", &port).await.usage;
    assert_eq!(usage.peak_memory, 1 << 20);
}

#[tokio::test]
async fn output_has_a_bound_for_both_shapes() {
    let sandbox = Sandbox::new();
    let endless =
        command("x", "(loop (call $write (i32.const 1) (i32.const 1024) (i32.const 65536)) (br 0))");
    let (failure, _) = sandbox.failure(sandbox.upload(endless)).await;
    assert_eq!(failure.kind, FailureKind::OutputTooLarge, "{failure:?}");
    let pages = OUTPUT_BYTES_MAX / 65536 + 1;
    let large = format!(
        "(drop (memory.grow (i32.const {pages}))) (drop (call $ok))
         (i32.store (i32.const 32) (i32.const 0)) (i32.store (i32.const 36) (i32.const {}))
         (i32.store (i32.const 24) (i32.const 0)) (i32.store (i32.const 28) (i32.const 0)) (i32.const 16)",
        OUTPUT_BYTES_MAX + 1
    );
    let (failure, _) = sandbox.failure(sandbox.upload(handler_with("", &large))).await;
    assert_eq!(failure.kind, FailureKind::OutputTooLarge, "{failure:?}");
}

#[tokio::test]
async fn a_command_has_stdin_stdout_stderr_arguments_and_environment() {
    let sandbox = Sandbox::new();
    let cat = command(
        "to the log\\nand more",
        "(call $write (i32.const 2) (i32.const 1024) (i32.const 19))
         (i32.store (i32.const 0) (i32.const 2048)) (i32.store (i32.const 4) (i32.const 1000))
         (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
         (call $write (i32.const 1) (i32.const 2048) (i32.load (i32.const 8)))",
    );
    let (output, log) = sandbox.output(sandbox.upload(cat), b"{\"a\": 1}").await;
    assert_eq!(
        (output.bytes.as_slice(), output.content_type.as_str()),
        (&b"{\"a\": 1}"[..], "application/json")
    );
    assert_eq!(log, ["to the log", "and more"]);
    // Three arguments, its own name among them, and one variable.
    let count = command(
        "yes",
        "(drop (call $args_sizes (i32.const 0) (i32.const 4))) (drop (call $env_sizes (i32.const 8) (i32.const 4)))
         (if (i32.and (i32.eq (i32.load (i32.const 0)) (i32.const 3)) (i32.eq (i32.load (i32.const 8)) (i32.const 1)))
             (then (call $write (i32.const 1) (i32.const 1024) (i32.const 3))))",
    );
    let mut spec = sandbox.upload(count);
    spec.arguments = vec!["one".into(), "two".into()];
    spec.config = [("KEY".to_string(), "value".to_string())].into();
    assert_eq!(sandbox.output(spec, b"").await.0.bytes, b"yes");
}

#[tokio::test]
async fn exit_codes() {
    let sandbox = Sandbox::new();
    let exit = |code: i32| {
        sandbox.upload(command("it failed", &format!(
        "(call $write (i32.const 2) (i32.const 1024) (i32.const 9)) (call $write (i32.const 1) (i32.const 1024) (i32.const 2)) (call $exit (i32.const {code}))"
    )))
    };
    assert_eq!(sandbox.output(exit(0), b"").await.0.bytes, b"it");
    // WASI 0.2 tells success from failure, and no more.
    let (failure, log) = sandbox.failure(exit(3)).await;
    assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Exit, "1"));
    assert_eq!(
        (failure.message.as_str(), log.as_slice()),
        ("it ended unsuccessfully: it failed", &["it failed".to_string()][..])
    );
}

#[tokio::test]
async fn a_log_flood_is_bounded() {
    let sandbox = Sandbox::new();
    let flood = command(
        "x\\n",
        &format!(
            "(local $n i32) (loop (call $write (i32.const 2) (i32.const 1024) (i32.const 2))
         (br_if 0 (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {}))))",
            LOG_LINES_MAX + 50
        ),
    );
    let (_, log) = sandbox.output(sandbox.upload(flood), b"").await;
    assert_eq!(log.len(), LOG_LINES_MAX + 1);
    assert!(log.last().unwrap().starts_with("50 more lines were dropped"), "{:?}", log.last());
}

#[tokio::test]
async fn a_guest_can_ask_and_tell() {
    let sandbox = Sandbox::new();
    let body = "(call $log (i32.const 3) (i32.const 64) (i32.const 6))
        (call $progress (i64.const 1) (i32.const 1) (i64.const 2) (i32.const 64) (i32.const 6))
        (if (i32.ne (call $attempt) (i32.const 2)) (then unreachable))
        (if (i32.ne (call $revision) (i32.const 3)) (then unreachable))
        (call $ok)";
    let port = Arc::new(Port::default());
    let end = sandbox.run(sandbox.upload(handler_with(CONTROL, body)), b"", &port).await;
    assert!(matches!(end.outcome, Outcome::Output(_)), "{end:?}");
    assert_eq!(*port.lines.lock().unwrap(), [(LogLevel::Warn, "broken".to_string())]);
    let progress = Progress { done: 1, total: Some(2), note: "broken".into() };
    assert_eq!(*port.progress.lock().unwrap(), Some(progress));
}

#[tokio::test]
async fn a_guest_that_heeds_a_cancel_ends_by_itself() {
    let sandbox = Sandbox::new();
    let begins = "(call $progress (i64.const 1) (i32.const 0) (i64.const 0) (i32.const 64) (i32.const 6))";
    let loops = "(loop (br_if 0 (i32.eqz (call $cancelled)))) (call $fail)";
    let heeds = sandbox.upload(handler_with(CONTROL, &format!("{begins} {loops}")));
    sandbox.compile(&heeds).await;
    let port = Arc::new(Port::default());
    let (end, ()) = tokio::join!(sandbox.run(heeds, b"", &port), async {
        let told = tokio::time::timeout(Duration::from_secs(20), port.told.notified()).await;
        told.expect("the guest begins");
        port.cancel.cancel();
    });
    assert!(matches!(&end.outcome, Outcome::Failure(f) if f.code == "broken"), "{end:?}");
}

#[tokio::test]
async fn a_guest_that_does_not_is_ended_after_its_grace() {
    let sandbox = Sandbox::new();
    let deaf = command(
        "",
        "(i64.store (i32.const 2072) (i64.const 3600000000000)) (i32.store (i32.const 2064) (i32.const 1))
         (loop (drop (call $poll (i32.const 2048) (i32.const 3072) (i32.const 1) (i32.const 4000))) (br 0))",
    );
    let spec = TaskSpec { timeout: Duration::from_secs(7200), ..sandbox.upload(deaf) };
    let port = Arc::new(Port::default());
    port.cancel.cancel();
    let end = sandbox.run(spec, b"", &port).await;
    assert!(matches!(&end.outcome, Outcome::Failure(f) if f.kind == FailureKind::Cancelled), "{end:?}");
}

#[tokio::test]
async fn neighbours_of_every_failure_are_unharmed() {
    let sandbox = Sandbox::new();
    let good = sandbox.upload(handler_with("", "(call $ok)"));
    sandbox.compile(&good).await;
    let bad = [
        "unreachable",
        "(drop (memory.grow (i32.const 9000))) unreachable",
        LOOP,
        "(call $recurse (i32.const 0))",
    ];
    for _ in 0..5 {
        // All of them at one time: for each there is room.
        let ports: Vec<_> = (0..CAPACITY).map(|_| Arc::new(Port::default())).collect();
        let bad = bad.map(|body| TaskSpec {
            timeout: Duration::from_millis(50),
            ..sandbox.upload(handler_with("", body))
        });
        let ends = futures::future::join_all((0..4).flat_map(|n| {
            [sandbox.run(bad[n].clone(), b"", &ports[n]), sandbox.run(good.clone(), b"", &ports[n + 4])]
        }))
        .await;
        for pair in ends.chunks(2) {
            let its_own = |failure: &Failure| failure.kind != FailureKind::Internal;
            assert!(matches!(&pair[0].outcome, Outcome::Failure(failure) if its_own(failure)), "{pair:?}");
            assert!(matches!(pair[1].outcome, Outcome::Output(_)), "{pair:?}");
        }
    }
    sandbox.output(good, b"").await;
}

#[tokio::test]
async fn a_restart_compiles_nothing_and_a_changed_artifact_is_not_loaded() {
    let sandbox = Sandbox::new();
    let bytes = bound_module(include_str!("../../host/runtime/guests/echo.wat"));
    let spec = sandbox.upload(bytes.clone());
    let inspected = sandbox.runtime.inspect(spec.component, bytes).await.unwrap();
    assert_eq!(
        (inspected.shape, inspected.adapted, sandbox.runtime.compilations()),
        (Shape::Handler, true, 1)
    );
    assert_eq!(sandbox.output(spec.clone(), b"hello").await.0.bytes, b"hello");

    let again = |keys: &[u8]| runtime(sandbox.folder.path(), &sandbox.uploads, keys);
    let run = async |runtime: &Runtime| {
        let port: Arc<dyn AttemptPort> = Arc::new(Port::default());
        let end = runtime.execute(invocation(spec.clone(), b"hello"), port).await;
        assert!(matches!(&end.outcome, Outcome::Output(o) if o.bytes == b"hello"), "{end:?}");
        runtime.compilations()
    };
    assert_eq!(run(&again(&[7])).await, 0);
    assert_eq!(run(&again(&[8, 7])).await, 0, "an older key of the ring");
    // Under another key it is a stranger's.
    assert_eq!(run(&again(&[8])).await, 1);
    let artifact = std::fs::read_dir(sandbox.folder.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&artifact).unwrap();
    for damage in [0, 8, 40, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[damage] ^= 1;
        std::fs::write(&artifact, damaged).unwrap();
        assert_eq!(run(&again(&[8])).await, 1, "byte {damage}");
    }
    std::fs::write(&artifact, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(run(&again(&[8])).await, 1);
    assert_eq!(run(&again(&[8])).await, 0);
}

#[tokio::test]
async fn what_passes_the_gate_but_is_not_valid_is_refused() {
    let sandbox = Sandbox::new();
    let mut bytes = ECHO.to_vec();
    let at = bytes.len() / 4;
    bytes[at..at + 8].fill(0xff);
    let refusal = sandbox.runtime.inspect(Digest([1; 32]), bytes).await.unwrap_err().to_string();
    assert!(refusal.contains("not valid") || refusal.contains("damaged"), "{refusal}");
}

#[tokio::test]
async fn hosts_with_the_same_key_share_what_one_has_compiled() {
    let sandbox = Sandbox::new();
    let bytes = bound_module(include_str!("../../host/runtime/guests/echo.wat"));
    let spec = sandbox.upload(bytes.clone());
    sandbox.runtime.inspect(spec.component, bytes).await.unwrap();
    let compilations_of_another_host = async |key: u8| {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(folder.path(), &sandbox.uploads, &[key]);
        let port: Arc<dyn AttemptPort> = Arc::new(Port::default());
        let end = runtime.execute(invocation(spec.clone(), b"hello"), port).await;
        assert!(matches!(&end.outcome, Outcome::Output(o) if o.bytes == b"hello"), "{end:?}");
        runtime.compilations()
    };
    assert_eq!(compilations_of_another_host(7).await, 0);
    assert_eq!(compilations_of_another_host(8).await, 1, "a stranger's is not loaded");
    sandbox.uploads.shared.lock().unwrap().values_mut().for_each(|artifact| artifact[40] ^= 1);
    assert_eq!(compilations_of_another_host(7).await, 1, "nor a changed one");
}
