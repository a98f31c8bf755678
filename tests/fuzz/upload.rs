//! Uploads: whatever they are, they are refused with words, or run to an outcome within their bounds.

use crate::engine::{Input, Seen, Target, plain_words, same};
use crate::mutate::{Grow, damage};
use crate::random::Random;
use crate::smith;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::{Digest, Refusal};
use innkeeper_domain::failure::{AttemptEnd, FailureKind, Outcome};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId};
use innkeeper_domain::keyring::Keyring;
use innkeeper_domain::limits::{
    FAILURE_MESSAGE_BYTES_MAX, LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LOG_NOTES_MAX,
    OUTPUT_BYTES_MAX,
};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::AttemptBounds;
use innkeeper_domain::run::{Claimed, Lease, LogLevel, Progress};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time;
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use innkeeper_runtime::{CompileWith, ComponentSource, Runtime, RuntimeConfig};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

pub struct Uploads {
    tokio: tokio::runtime::Runtime,
    runtime: Runtime,
    /// A guest that does no harm.
    neighbour: Digest,
    _folder: TempDir,
}

/// How long a guest may take.
const TIMEOUT: Duration = Duration::from_millis(150);
/// One that is not over by then isn't ended at all.
const HANGS: Duration = Duration::from_secs(60);
/// How long a neighbour may take: this is about what becomes of it, not when.
const NEIGHBOURS_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it runs at the most, and how long it rests in between.
const NEIGHBOURS_MAX: usize = 50;
const REST: Duration = Duration::from_millis(2);
/// What a guest may have of memory.
const MEMORY: u64 = 8 << 20;

const ECHO: &[u8] = include_bytes!("../../host/runtime/guests/echo.wasm");
const EXAMPLES: Grow = Grow {
    corpus: &[ECHO, b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"],
    tokens: &[
        "\0asm\u{1}\0\0\0",
        "\0asm\u{d}\0\u{1}\0",
        "_start",
        "memory",
        "component-type",
        "wasi_snapshot_preview1",
        "cabi_realloc",
        "innkeeper:task/handler@0.1.0",
        "wasi:cli/run@0.2.6",
        "wasi:http/types@0.2.0",
        "@9.9.9",
        "\u{0}",
        "\u{1}",
        "\u{60}",
        "\u{7f}",
        "(module)",
        "é",
        "\x1b[31m",
    ],
};

impl Uploads {
    pub fn new() -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = RuntimeConfig {
            artifacts: folder.path().into(),
            keys: Keyring::new(vec![[7; 32].into()]).unwrap(),
            capacity: 4,
            open_networks: Vec::new(),
            components: Arc::new(NoComponents),
            compile_with: CompileWith::program(env!("CARGO_BIN_EXE_inn"), "compile-worker"),
            now: Arc::new(|| Timestamp::UNIX_EPOCH),
        };
        let neighbour = Digest(Sha256::digest(ECHO).into());
        let runtime = tokio.block_on(async {
            let runtime = Runtime::new(config).unwrap();
            runtime.inspect(neighbour, ECHO.to_vec()).await.unwrap();
            runtime
        });
        Self { tokio, runtime, neighbour, _folder: folder }
    }
}

impl Target for Uploads {
    fn make(&mut self, random: &mut Random) -> Input {
        let mut bytes = match random.below(10) {
            0 => ECHO.to_vec(),
            1 => crate::mutate::bytes(random, &EXAMPLES),
            _ => smith::wasm(random),
        };
        if random.chance(20) {
            damage(random, &mut bytes, &EXAMPLES);
        }
        vec![bytes]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let bytes = input.concat();
        let digest = Digest(Sha256::digest(&bytes).into());
        self.tokio.block_on(async {
            let answer = self.runtime.inspect(digest, bytes.clone()).await;
            same("inspecting it again", &answer, &self.runtime.inspect(digest, bytes).await)?;
            match answer {
                Err(Refusal::Unavailable(why)) => Err(format!("it is refused as the host's fault: {why}")),
                Err(refusal) => plain_words(&refusal.to_string()).map(|()| Seen::Refused),
                Ok(_) => self.run(digest).await.map(|()| Seen::Taken),
            }
        })
    }
}

impl Uploads {
    async fn run(&self, digest: Digest) -> Result<(), String> {
        let port = Arc::new(Port::default());
        let has_ended = AtomicBool::new(false);
        let guest = async {
            let end = self.end(digest, TIMEOUT, &port).await;
            has_ended.store(true, Ordering::Relaxed);
            end
        };
        let (end, neighbour) = tokio::join!(guest, self.neighbours(&has_ended));
        let AttemptEnd { outcome, usage } = end?;
        neighbour?;
        match outcome {
            Outcome::Output(output) if output.bytes.len() > OUTPUT_BYTES_MAX => {
                return Err(format!("it has {} bytes of output", output.bytes.len()));
            }
            Outcome::Failure(failure) if failure.kind == FailureKind::Internal => {
                return Err(format!("it fails as the host's fault: {failure:?}"));
            }
            Outcome::Failure(failure) if failure.message.len() > FAILURE_MESSAGE_BYTES_MAX => {
                return Err(format!("its failure has {} bytes of words", failure.message.len()));
            }
            Outcome::Output(_) | Outcome::Failure(_) => {}
        }
        if usage.peak_memory > MEMORY {
            return Err(format!("it had {} bytes of memory", usage.peak_memory));
        }
        let lines = std::mem::take(&mut *port.0.lock().unwrap());
        let (bytes, longest) = (lines.iter().sum::<usize>(), lines.iter().max().copied().unwrap_or(0));
        // The host's own lines come on top.
        let notes = (LOG_NOTES_MAX, LOG_NOTES_MAX * LOG_LINE_BYTES_MAX);
        if lines.len() > LOG_LINES_MAX + notes.0
            || bytes > LOG_BYTES_MAX + notes.1
            || longest > LOG_LINE_BYTES_MAX
        {
            return Err(format!("its log has {} lines and {bytes} bytes, {longest} in one", lines.len()));
        }
        Ok(())
    }

    /// A neighbour from the guest's beginning on, again and again until it has ended: each time it must succeed.
    async fn neighbours(&self, has_ended: &AtomicBool) -> Result<(), String> {
        for _ in 0..NEIGHBOURS_MAX {
            let neighbour = self.end(self.neighbour, NEIGHBOURS_TIMEOUT, &Arc::default()).await?.outcome;
            same("what a neighbour gives back", &neighbour, &Outcome::Output(input()))?;
            if has_ended.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }

    async fn end(&self, guest: Digest, timeout: Duration, port: &Arc<Port>) -> Result<AttemptEnd, String> {
        let port = Arc::clone(port) as Arc<dyn AttemptPort>;
        let execution = self.runtime.execute(invocation(guest, timeout), port);
        tokio::time::timeout(HANGS, execution).await.map_err(|_| "it runs for ever".into())
    }
}

fn input() -> Payload {
    Payload::json("{\"a\": 1}")
}

fn invocation(digest: Digest, timeout: Duration) -> Invocation {
    let epoch = Timestamp::UNIX_EPOCH;
    let spec = TaskSpec { timeout, memory: MEMORY, ..TaskSpec::new(digest) };
    let claimed = Claimed {
        lease: Lease { run: RunId::new(epoch), host: HostId::new(epoch), attempt: 1 },
        try_number: 1,
        tenant_id: TenantId::new(epoch),
        tenant: "default".parse().unwrap(),
        bounds: AttemptBounds::default(),
        task_id: TaskId::new(epoch),
        task: "guest".parse().unwrap(),
        revision: 1,
        current_revision: 1,
        trigger: None,
        nominal_at: epoch,
        last_success_nominal: None,
        idempotency_key: None,
        input: input(),
        started_at: epoch,
        end_by: None,
    };
    Invocation {
        claimed,
        spec: Arc::new(spec),
        secrets: BTreeMap::new(),
        deadline: time::after(epoch, timeout),
    }
}

/// How long the lines of a log are.
#[derive(Default)]
struct Port(Mutex<Vec<usize>>);

#[async_trait]
impl AttemptPort for Port {
    fn log(&self, _level: LogLevel, text: String) {
        self.0.lock().unwrap().push(text.len());
    }
    fn progress(&self, _progress: Progress) {}
    fn is_cancelled(&self) -> bool {
        false
    }
    async fn cancelled(&self) {
        std::future::pending().await
    }
}

/// What was inspected is ready, and never asked for.
struct NoComponents;

#[async_trait]
impl ComponentSource for NoComponents {
    async fn component_bytes(&self, _digest: Digest) -> Result<Vec<u8>, String> {
        Err("it was inspected, and isn't ready".into())
    }
    async fn artifact(&self, _digest: Digest, _variant: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
    async fn share_artifact(&self, _digest: Digest, _variant: &str, _bytes: Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}
