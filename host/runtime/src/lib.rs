//! The sandbox: wasmtime behind the engine's `Executor`.
//!
//! An invocation goes in, an outcome comes out. This is the only crate that knows wasmtime, and it knows
//! no store: components come through [`ComponentSource`], everything a guest asks of the host passes
//! `capability` and the engine's `AttemptPort`.

mod admission;
mod artifact;
pub mod bench;
mod bindings;
mod capability;
mod compiler;
mod crowd;
mod engine;
mod execute;
mod failure;
mod guest;
mod log;
mod mask;
mod memory;
mod meter;
pub mod network;
mod output;
mod scratch;
mod stream;
#[cfg(test)]
#[allow(dead_code, reason = "the tests of guests use the rest")]
#[path = "../../../tests/support/wat.rs"]
mod testing;
pub mod worker;

use async_trait::async_trait;
use bytes::Bytes;
use compiler::Compiler;
use crowd::Crowd;
use engine::Ticker;
use innkeeper_domain::component::{Digest, Inspected, Refusal};
use innkeeper_domain::keyring::Keyring;
use innkeeper_domain::limits::{COMPILE_CPU_MAX, COMPILE_MEMORY_MAX, COMPILE_TIME_MAX};
use innkeeper_domain::time::Now;
use network::Network;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::Engine;

/// Where components come from, and where compiled ones are shared with other hosts. Errors are for people.
#[async_trait]
pub trait ComponentSource: Send + Sync + 'static {
    /// The bytes that have this digest, as uploaded.
    async fn component_bytes(&self, digest: Digest) -> Result<Vec<u8>, String>;

    /// A compiled component that a host has shared; none if none has. Not to be trusted: this runtime
    /// authenticates it. Hosts whose variants are the same can use each other's.
    async fn artifact(&self, digest: Digest, variant: &str) -> Result<Option<Vec<u8>>, String>;

    /// Shares a compiled component with the other hosts, if there are any.
    async fn share_artifact(&self, digest: Digest, variant: &str, bytes: Vec<u8>) -> Result<(), String>;
}

/// What a runtime needs.
pub struct RuntimeConfig {
    /// The folder of compiled artifacts.
    pub artifacts: PathBuf,
    /// The keys that artifacts may be authenticated with; new ones are with the current. Whoever has one can make
    /// the host run any machine code.
    pub keys: Keyring,
    /// Attempts that are executed at one time.
    pub capacity: u32,
    /// Networks that are closed to guests by default, and that the operator has opened to all tenants'.
    pub open_networks: Vec<Network>,
    pub components: Arc<dyn ComponentSource>,
    pub compile_with: CompileWith,
    /// What the time is.
    pub now: Now,
}

/// The process that compiles, and its bounds.
#[derive(Debug, Clone)]
pub struct CompileWith {
    pub program: PathBuf,
    /// Its arguments, after which it calls [`worker::main`] with all that follow.
    pub arguments: Vec<OsString>,
    /// Its address space, in bytes.
    pub memory: u64,
    /// How long a processor may work for it, in whole seconds.
    pub cpu: Duration,
    /// How long it may take.
    pub time: Duration,
}

impl CompileWith {
    /// A program with the usual bounds.
    pub fn program(program: impl Into<PathBuf>, argument: &str) -> Self {
        Self {
            program: program.into(),
            arguments: vec![argument.into()],
            memory: COMPILE_MEMORY_MAX,
            cpu: COMPILE_CPU_MAX,
            time: COMPILE_TIME_MAX,
        }
    }

    fn bounds(&self) -> worker::Bounds {
        worker::Bounds { memory: self.memory, cpu_seconds: self.cpu.as_secs().max(1) }
    }
}

/// The runtime can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("wasmtime can't work on this machine: {0:#}")]
    Engine(wasmtime::Error),
    #[error("the folder of artifacts can't be used: {0}")]
    Artifacts(std::io::Error),
    #[error("no threads can be started: {0}")]
    Threads(std::io::Error),
}

/// Runs components.
pub struct Runtime {
    engine: Engine,
    compiler: Arc<Compiler>,
    http: Arc<capability::http::Client>,
    meters: meter::Meters,
    crowd: Crowd,
    now: Now,
    _ticker: Ticker,
}

impl Runtime {
    /// A runtime with nothing ready yet.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        // Those that are given up in the middle of their work are gone a little later.
        let spare = u32::try_from(crowd::threads()).unwrap_or(0);
        let engine = engine::engine(config.capacity.saturating_add(spare)).map_err(RuntimeError::Engine)?;
        let ticker = Ticker::start(&engine).map_err(RuntimeError::Threads)?;
        let linker = capability::linker(&engine).map_err(RuntimeError::Engine)?;
        let artifacts = artifact::Artifacts::open(&config.artifacts, &config.keys, &engine);
        let artifacts = artifacts.map_err(RuntimeError::Artifacts)?;
        Ok(Self {
            compiler: Arc::new(Compiler::new(linker, artifacts, config.components, config.compile_with)),
            http: Arc::new(capability::http::Client::new(config.open_networks)),
            engine,
            meters: meter::Meters::new(),
            crowd: Crowd::start().map_err(RuntimeError::Threads)?,
            now: config.now,
            _ticker: ticker,
        })
    }

    /// Says whether and how uploaded bytes can be run, and compiles them: after `Ok` the artifact is on
    /// disk, and the component ready. Dropping the future ends the compilation.
    pub async fn inspect(&self, digest: Digest, bytes: impl Into<Bytes>) -> Result<Inspected, Refusal> {
        self.compiler.inspect(digest, bytes.into()).await.map_err(Refusal::shown)
    }

    /// How many compilations this runtime has done.
    pub fn compilations(&self) -> u64 {
        self.compiler.compilations()
    }
}
