//! What an attempt has of its tenant: bounds, and secrets.

use crate::sandbox::{CONTROL, LOOP, Port, Sandbox, invocation, texts};
use crate::wat::{command, handler_with};
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, RetryAdvice};
use innkeeper_domain::quota::AttemptBounds;
use innkeeper_domain::secret::SecretText;
use innkeeper_domain::task::TaskSpec;
use innkeeper_engine::executor::{AttemptPort, Executor};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The attempt's end, and its log.
async fn end(
    sandbox: &Sandbox,
    spec: TaskSpec,
    bounds: AttemptBounds,
    secrets: &[(&str, &str)],
) -> (AttemptEnd, Vec<String>) {
    let port = Arc::new(Port::default());
    let mut invocation = invocation(spec, b"");
    invocation.claimed.bounds = bounds;
    let secrets = secrets.iter();
    let secret = |text: &str| SecretText::new(text.into()).unwrap();
    invocation.secrets = secrets.map(|(key, text)| ((*key).to_string(), secret(text))).collect();
    let end = sandbox.runtime.execute(invocation, Arc::clone(&port) as Arc<dyn AttemptPort>).await;
    (end, texts(&port))
}

fn failure(end: AttemptEnd) -> Failure {
    match end.outcome {
        Outcome::Failure(failure) => failure,
        Outcome::Output(output) => panic!("it succeeded: {output:?}"),
    }
}

fn cpu(cpu: Duration) -> AttemptBounds {
    AttemptBounds { cpu: Some(cpu), ..AttemptBounds::default() }
}

#[tokio::test]
async fn an_attempt_ends_when_its_tenants_cpu_time_is_used_up() {
    let sandbox = Sandbox::new();
    let spec = sandbox.upload(handler_with("", LOOP));
    sandbox.compile(&spec).await;
    let left = Duration::from_millis(40);
    let begun = Instant::now();
    let (end, _) = end(&sandbox, spec.clone(), cpu(left), &[]).await;
    // By the time it has worked, and by far not by its timeout.
    assert!(end.usage.cpu >= left && end.usage.cpu <= end.usage.wall, "{end:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{end:?}");
    let failure = failure(end);
    assert_eq!(failure.kind, FailureKind::Quota);
    assert!(failure.message.contains("CPU time for today is used up (quota `cpu-per-day`)"), "{failure:?}");
    // With nothing left it doesn't begin.
    let (end, _) = crate::tenant::end(&sandbox, spec, cpu(Duration::ZERO), &[]).await;
    assert_eq!(end.usage.cpu, Duration::ZERO);
    assert_eq!(crate::tenant::failure(end).kind, FailureKind::Quota);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn attempts_at_one_time_share_their_tenants_cpu_time() {
    let sandbox = Sandbox::new();
    let spec = sandbox.upload(handler_with("", LOOP));
    sandbox.compile(&spec).await;
    let left = Duration::from_millis(300);
    let mut attempts = tokio::task::JoinSet::new();
    let (runtime, first) = (Arc::new(sandbox.runtime), invocation(spec.clone(), b"").claimed.tenant_id);
    for _ in 0..3 {
        let mut invocation = invocation(spec.clone(), b"");
        (invocation.claimed.tenant_id, invocation.claimed.bounds) = (first, cpu(left));
        let runtime = Arc::clone(&runtime);
        attempts.spawn(async move { runtime.execute(invocation, Arc::new(Port::default())).await });
    }
    let ends = attempts.join_all().await;
    let sum: Duration = ends.iter().map(|end| end.usage.cpu).sum();
    assert!(sum >= left && sum < 2 * left, "{ends:?}");
    assert!(ends.into_iter().all(|end| failure(end).kind == FailureKind::Quota));
}

#[tokio::test]
async fn cpu_time_is_work_and_no_waiting() {
    let sandbox = Sandbox::new();
    // A clock subscription of half a second.
    let sleep = command(
        "",
        "(i64.store (i32.const 2072) (i64.const 500000000)) (i32.store (i32.const 2064) (i32.const 1))
         (drop (call $poll (i32.const 2048) (i32.const 3072) (i32.const 1) (i32.const 4000)))",
    );
    let (waited, _) = end(&sandbox, sandbox.upload(sleep), cpu(Duration::from_millis(250)), &[]).await;
    assert!(matches!(waited.outcome, Outcome::Output(_)), "{waited:?}");
    assert!(waited.usage.wall >= Duration::from_millis(500), "{waited:?}");
    assert!(waited.usage.cpu > Duration::ZERO && waited.usage.cpu < Duration::from_millis(250), "{waited:?}");
}

#[tokio::test]
async fn memory_is_the_lesser_of_the_tasks_and_the_tenants() {
    let sandbox = Sandbox::new();
    let dies = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable)) (call $ok)";
    let spec = sandbox.upload(handler_with("", dies));
    let memory = |bytes| AttemptBounds { memory: Some(bytes), ..AttemptBounds::default() };
    let (well, _) = end(&sandbox, spec.clone(), memory(1 << 30), &[]).await;
    assert!(matches!(well.outcome, Outcome::Output(_)), "{well:?}");
    let failure = failure(end(&sandbox, spec, memory(1 << 20), &[]).await.0);
    assert_eq!(failure.kind, FailureKind::Memory);
    assert!(failure.message.contains("its limit is 1048576, the tenant's quota `run-memory`"), "{failure:?}");
}

#[tokio::test]
async fn a_log_has_the_tenants_bound() {
    let sandbox = Sandbox::new();
    let says = command("one\\ntwo\\nthree\\n", "(call $write (i32.const 2) (i32.const 1024) (i32.const 14))");
    let bounds = AttemptBounds { log_bytes: Some(7), ..AttemptBounds::default() };
    let (_, log) = end(&sandbox, sandbox.upload(says), bounds, &[]).await;
    assert_eq!(log[..2], ["one", "two"]);
    assert!(log[2].starts_with("1 more lines were dropped") && log[2].contains("`run-log-bytes`"), "{log:?}");
}

/// A command that writes its environment to its log and its output, and ends as the body says.
fn tells_its_environment(end: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
            (memory (export "memory") 2)
            (func $tell (param $fd i32)
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 32))))
            (func (export "_start")
                (drop (call $sizes (i32.const 16) (i32.const 20)))
                (drop (call $get (i32.const 1024) (i32.const 8192)))
                (i32.store (i32.const 0) (i32.const 8192))
                (i32.store (i32.const 4) (i32.load (i32.const 20)))
                (call $tell (i32.const 1)) (call $tell (i32.const 2)) {end}))"#
    ))
    .unwrap()
}

const SECRETS: &[(&str, &str)] = &[("TOKEN", "hunter2 is it"), ("PEM", "BEGIN\nMIIEowIB\nEND\n")];

#[tokio::test]
async fn a_command_has_its_secrets_and_its_log_has_not() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.upload(tells_its_environment(""));
    spec.config = [("PLAIN".to_string(), "seen".to_string())].into();
    let (end, log) = end(&sandbox, spec, AttemptBounds::default(), SECRETS).await;
    let Outcome::Output(output) = end.outcome else { panic!("{end:?}") };
    // What it gives is its own.
    let output = String::from_utf8(output.bytes).unwrap();
    for shown in ["PLAIN=seen\0", "TOKEN=hunter2 is it\0", "PEM=BEGIN\nMIIEowIB\nEND\n\0"] {
        assert!(output.contains(shown), "{output:?}");
    }
    let log = log.join("\n");
    assert!(log.contains("PLAIN=seen") && log.contains("TOKEN=***") && log.contains("PEM=***"), "{log:?}");
    assert!(!log.contains("hunter2") && !log.contains("MIIE"), "{log:?}");
}

#[tokio::test]
async fn failures_have_no_secrets() {
    let sandbox = Sandbox::new();
    let told = tells_its_environment("(call $exit (i32.const 1))");
    let (end, _) = end(&sandbox, sandbox.upload(told), AttemptBounds::default(), SECRETS).await;
    let message = failure(end).message;
    assert!(
        message.contains("TOKEN=***") && !message.contains("hunter2") && !message.contains("MIIE"),
        "{message}"
    );

    // What a handler says of itself: code, message, log, progress; and a function's name in a backtrace.
    let secrets = &[("A", "broken"), ("B", "out of order"), ("C", "recurse")];
    let says = "(call $log (i32.const 3) (i32.const 64) (i32.const 6))
        (call $progress (i64.const 1) (i32.const 1) (i64.const 2) (i32.const 64) (i32.const 6))
        (call $fail)";
    let spec = sandbox.upload(handler_with(CONTROL, says));
    let port = Arc::new(Port::default());
    let mut invocation = invocation(spec, b"");
    let secret = |text: &str| SecretText::new(text.into()).unwrap();
    invocation.secrets = secrets.iter().map(|(key, text)| ((*key).to_string(), secret(text))).collect();
    let end = sandbox.runtime.execute(invocation, Arc::clone(&port) as Arc<dyn AttemptPort>).await;
    let expected = Failure::with_code(FailureKind::Guest, "***", "it is ***", RetryAdvice::Never);
    assert_eq!((failure(end), texts(&port)), (expected, vec!["***".to_string()]));
    assert_eq!(port.progress.lock().unwrap().as_ref().map(|p| p.note.as_str()), Some("***"));
    let spec = sandbox.upload(handler_with("", "(call $recurse (i32.const 1))"));
    let (_, log) = crate::tenant::end(&sandbox, spec.clone(), AttemptBounds::default(), &[]).await;
    assert!(log.iter().any(|line| line.contains("recurse")), "{log:?}");
    let (end, log) = crate::tenant::end(&sandbox, spec, AttemptBounds::default(), secrets).await;
    assert!(
        log.iter().all(|line| !line.contains("recurse")) && log.iter().any(|l| l.contains("***")),
        "{log:?}"
    );
    assert_eq!(failure(end).kind, FailureKind::Trap);
}
