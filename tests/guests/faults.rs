//! Faults of the host's own while it runs a guest, calls that nobody waits for, and what all that leaves behind.

use crate::network::{SENDS, speaks_with};
use crate::sandbox::{CAPACITY, CONTROL, LOOP, Port, Sandbox, invocation};
use crate::table::resident;
use crate::wat::{command, handler_with};
use innkeeper_domain::failure::{FailureKind, Outcome};
use innkeeper_domain::run::{LogLevel, Progress};
use innkeeper_domain::task::TaskSpec;
use innkeeper_engine::executor::{AttemptPort, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// A host in which something is broken.
struct Broken {
    log: bool,
    progress: bool,
}

#[async_trait::async_trait]
impl AttemptPort for Broken {
    fn log(&self, _: LogLevel, _: String) {
        assert!(!self.log, "on purpose");
    }
    fn progress(&self, _: Progress) {
        assert!(!self.progress, "on purpose");
    }
    fn is_cancelled(&self) -> bool {
        panic!("on purpose")
    }
    async fn cancelled(&self) {
        std::future::pending().await
    }
}

const SPIN: &str = "(local $n i32) (loop (br_if 0 (i32.lt_u
    (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 30000000))))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_host_ends_one_run() {
    let sandbox = Sandbox::new();
    let good = sandbox.upload(handler_with("", "(call $say (i32.const 1))"));
    sandbox.compile(&good).await;
    let log = "(call $log (i32.const 2) (i32.const 64) (i32.const 6)) (call $ok)";
    let progress =
        "(call $progress (i64.const 1) (i32.const 1) (i64.const 2) (i32.const 64) (i32.const 6)) (call $ok)";
    let asks = "(drop (call $cancelled)) (call $ok)";
    let guests = [
        (handler_with(CONTROL, log), Broken { log: true, progress: false }),
        (handler_with(CONTROL, progress), Broken { log: false, progress: true }),
        (handler_with(CONTROL, asks), Broken { log: false, progress: false }),
        // After it has taken long, when it is among others like it.
        (handler_with(CONTROL, &format!("{SPIN} {log}")), Broken { log: true, progress: false }),
        // When the guest is over already: a line that it didn't end is.
        (
            command("half a line", "(call $write (i32.const 2) (i32.const 1024) (i32.const 11))"),
            Broken { log: true, progress: false },
        ),
    ];
    for (guest, port) in guests {
        let bad = sandbox.upload(guest);
        sandbox.compile(&bad).await;
        let neighbour = sandbox.output(good.clone(), b"");
        let (end, neighbour) =
            tokio::join!(sandbox.runtime.execute(invocation(bad, b""), Arc::new(port)), neighbour);
        assert_eq!(neighbour.0.bytes, [1]);
        let Outcome::Failure(failure) = end.outcome else { panic!("{end:?}") };
        assert!(failure.kind == FailureKind::Internal && failure.message.contains("panicked"), "{failure:?}");
    }
    let waits = sandbox.upload(sleeps(Duration::from_millis(20)));
    sandbox.compile(&waits).await;
    let outcomes = fill(&sandbox, &waits).await;
    assert!(all_had_room(&outcomes), "{outcomes:?}");
}

/// A guest that does nothing for so long.
fn sleeps(time: Duration) -> Vec<u8> {
    let body = format!(
        "(i64.store (i32.const 2072) (i64.const {})) (i32.store (i32.const 2064) (i32.const 1))
         (drop (call $poll (i32.const 2048) (i32.const 3072) (i32.const 1) (i32.const 4000)))",
        time.as_nanos()
    );
    command("", &body)
}

/// As many of a guest that waits as there is room for, at one time.
async fn fill(sandbox: &Sandbox, waits: &TaskSpec) -> Vec<Outcome> {
    let port = Arc::new(Port::default());
    let ends = (0..CAPACITY).map(|_| sandbox.run(waits.clone(), b"", &port));
    futures::future::join_all(ends).await.into_iter().map(|end| end.outcome).collect()
}

fn all_had_room(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Output(_)))
}

/// A server that never answers, and counts the connections that it has.
async fn silent(connections: &Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::clone(connections);
    TaskTracker::new().spawn(async move {
        let each = TaskTracker::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let connections = Arc::clone(&connections);
            connections.fetch_add(1, Ordering::SeqCst);
            each.spawn(async move {
                while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {}
                connections.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    address
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_dropped_attempt_leaves_nothing_behind() {
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", "faults::alone", "--ignored", "--nocapture"]).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it looks at the memory of its process: the test before runs it in one of its own"]
async fn alone() {
    let sandbox = Sandbox::with(|config| config.open_networks = vec!["127.0.0.0/8".parse().unwrap()]);
    let connections = Arc::new(AtomicUsize::new(0));
    let silent = silent(&connections).await;
    let waits = sandbox.upload(sleeps(Duration::from_millis(20)));
    let asks = TaskSpec {
        allow_http: [silent.parse().unwrap()].into(),
        ..sandbox.upload(speaks_with(&silent, SENDS))
    };
    let grows =
        "(drop (memory.grow (i32.const 100))) (memory.fill (i32.const 0) (i32.const 1) (i32.const 6000000))";
    let endless = [
        sandbox.upload(handler_with("", LOOP)),
        sandbox.upload(sleeps(Duration::from_secs(3600))),
        sandbox.upload(handler_with("", &format!("{grows} {LOOP}"))),
        asks,
    ];
    for spec in endless.iter().chain([&waits]) {
        sandbox.compile(spec).await;
    }
    let round = async |times: usize| {
        for number in 0..times {
            let spec = endless[number % endless.len()].clone();
            let port = Arc::new(Port::default());
            let attempt = sandbox.run(spec, b"", &port);
            let ended = tokio::time::timeout(Duration::from_millis(1 + number as u64 % 12), attempt).await;
            assert!(ended.is_err(), "{ended:?}");
        }
    };
    round(60).await;
    let (before, files) = (resident(), open_files());
    round(500).await;
    let after = resident();
    println!("resident, KiB: before {before}, after {after}");
    assert!(after < before + 32 * 1024, "resident, KiB: before {before}, after {after}");
    // Both ends of a connection are here, and the last ones may not be over.
    assert!(open_files() <= files + 8);
    // What was just being polled when it was dropped is gone a moment later.
    let freed = async {
        while connections.load(Ordering::SeqCst) > 0 || !all_had_room(&fill(&sandbox, &waits).await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(20), freed).await;
    freed.expect("dropped attempts leave all rooms free");
}
