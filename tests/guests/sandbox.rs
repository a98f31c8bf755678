//! A runtime alone, with uploads in memory, and what tells its attempts' words.

use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::failure::{AttemptEnd, Failure, Outcome};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId};
use innkeeper_domain::keyring::Keyring;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::AttemptBounds;
use innkeeper_domain::run::{Claimed, Lease, LogLevel, Progress};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time;
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use innkeeper_runtime::{CompileWith, ComponentSource, Runtime, RuntimeConfig};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A guest's end that never comes.
pub const LOOP: &str = "(loop (br 0)) unreachable";

/// Imports of the host's own interfaces.
pub const CONTROL: &str = r#"
    (import "innkeeper:task/control@0.1.0" "cancelled" (func $cancelled (result i32)))
    (import "innkeeper:task/control@0.1.0" "progress" (func $progress (param i64 i32 i64 i32 i32)))
    (import "innkeeper:task/context@0.1.0" "attempt" (func $attempt (result i32)))
    (import "innkeeper:task/context@0.1.0" "revision" (func $revision (result i32)))
    (import "innkeeper:task/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#;

/// Attempts at one time: four guests, and a neighbour of each.
pub const CAPACITY: u32 = 8;

#[derive(Default)]
pub struct Port {
    pub lines: Mutex<Vec<(LogLevel, String)>>,
    pub progress: Mutex<Option<Progress>>,
    /// Whether the guest has told of its progress.
    pub told: Notify,
    pub cancel: CancellationToken,
}

#[async_trait]
impl AttemptPort for Port {
    fn log(&self, level: LogLevel, text: String) {
        self.lines.lock().unwrap().push((level, text));
    }
    fn progress(&self, progress: Progress) {
        *self.progress.lock().unwrap() = Some(progress);
        self.told.notify_one();
    }
    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
    async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}

#[derive(Default)]
pub struct Uploads {
    pub bytes: Mutex<HashMap<Digest, Vec<u8>>>,
    pub shared: Mutex<HashMap<(Digest, String), Vec<u8>>>,
}

#[async_trait]
impl ComponentSource for Uploads {
    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, String> {
        self.bytes.lock().unwrap().get(&digest).cloned().ok_or_else(|| "never uploaded".into())
    }

    async fn artifact(&self, digest: Digest, variant: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.shared.lock().unwrap().get(&(digest, variant.to_string())).cloned())
    }

    async fn share_artifact(&self, digest: Digest, variant: &str, bytes: Vec<u8>) -> Result<(), String> {
        self.shared.lock().unwrap().insert((digest, variant.to_string()), bytes);
        Ok(())
    }
}

pub struct Sandbox {
    pub runtime: Runtime,
    pub uploads: Arc<Uploads>,
    pub folder: tempfile::TempDir,
}

pub fn epoch() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

impl Sandbox {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// One with other settings than the usual.
    pub fn with(change: impl FnOnce(&mut RuntimeConfig)) -> Self {
        let (folder, uploads) = (tempfile::tempdir().unwrap(), Arc::new(Uploads::default()));
        let mut config = config(folder.path(), &uploads, &[7]);
        change(&mut config);
        Self { runtime: Runtime::new(config).unwrap(), uploads, folder }
    }

    /// So that it needn't be done in the time of an attempt.
    pub async fn compile(&self, spec: &TaskSpec) {
        let bytes = self.uploads.component_bytes(spec.component).await.unwrap();
        self.runtime.inspect(spec.component, bytes).await.unwrap();
    }

    pub fn upload(&self, bytes: Vec<u8>) -> TaskSpec {
        let digest = Digest(Sha256::digest(&bytes).into());
        self.uploads.bytes.lock().unwrap().insert(digest, bytes);
        let cancel_grace = Duration::from_millis(200);
        TaskSpec { timeout: Duration::from_secs(20), cancel_grace, ..TaskSpec::new(digest) }
    }

    pub async fn run(&self, spec: TaskSpec, input: &[u8], port: &Arc<Port>) -> AttemptEnd {
        self.runtime.execute(invocation(spec, input), Arc::clone(port) as Arc<dyn AttemptPort>).await
    }

    /// The failure of a guest, and its log.
    pub async fn failure(&self, spec: TaskSpec) -> (Failure, Vec<String>) {
        let port = Arc::new(Port::default());
        match self.run(spec, b"", &port).await.outcome {
            Outcome::Failure(failure) => (failure, texts(&port)),
            Outcome::Output(output) => panic!("it succeeded: {output:?}"),
        }
    }

    pub async fn output(&self, spec: TaskSpec, input: &[u8]) -> (Payload, Vec<String>) {
        let port = Arc::new(Port::default());
        match self.run(spec, input, &port).await.outcome {
            Outcome::Output(output) => (output, texts(&port)),
            Outcome::Failure(failure) => panic!("it failed: {failure:?}"),
        }
    }
}

/// What a runtime of these tests is made with.
pub fn config(folder: &Path, uploads: &Arc<Uploads>, keys: &[u8]) -> RuntimeConfig {
    RuntimeConfig {
        artifacts: folder.into(),
        keys: Keyring::new(keys.iter().map(|key| [*key; 32].into()).collect()).unwrap(),
        capacity: CAPACITY,
        open_networks: Vec::new(),
        components: Arc::clone(uploads) as Arc<dyn ComponentSource>,
        compile_with: CompileWith::program(env!("CARGO_BIN_EXE_inn"), "compile-worker"),
        now: Arc::new(epoch),
    }
}

pub fn runtime(folder: &Path, uploads: &Arc<Uploads>, keys: &[u8]) -> Runtime {
    Runtime::new(config(folder, uploads, keys)).unwrap()
}

pub fn invocation(spec: TaskSpec, input: &[u8]) -> Invocation {
    let deadline = time::after(epoch(), spec.timeout);
    let claimed = Claimed {
        lease: Lease { run: RunId::new(epoch()), host: HostId::new(epoch()), attempt: 2 },
        try_number: 2,
        tenant_id: TenantId::new(epoch()),
        tenant: "default".parse().unwrap(),
        bounds: AttemptBounds::default(),
        task_id: TaskId::new(epoch()),
        task: "guest".parse().unwrap(),
        revision: 3,
        current_revision: 3,
        trigger: None,
        nominal_at: epoch(),
        last_success_nominal: None,
        idempotency_key: None,
        input: Payload { content_type: "text/plain".into(), bytes: input.into() },
        started_at: epoch(),
        end_by: None,
    };
    Invocation { claimed, spec: Arc::new(spec), secrets: BTreeMap::new(), deadline }
}

pub fn texts(port: &Port) -> Vec<String> {
    port.lines.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
}
