//! The engine: one configuration, for compiling and for running alike.

use innkeeper_domain::limits::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wasmtime::{Config, Engine, PoolingAllocationConfig};

/// How often running guests look up: to let others run, and to end when their time is over.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Bytes of a linear memory that stay resident between two guests, so that small ones cost no page faults.
const MEMORY_KEPT: usize = 64 * 1024;
/// The same of a table.
const TABLE_KEPT: usize = 8 * 1024;

/// An engine that runs `capacity` guests at one time.
pub(crate) fn engine(capacity: u32) -> wasmtime::Result<Engine> {
    Engine::new(config().allocation_strategy(pool(capacity)))
}

/// An engine that only compiles, for the others: where guests are put is no part of their code.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

fn pool(capacity: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(capacity)
        .total_core_instances(capacity.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(capacity.saturating_mul(MEMORIES_PER_COMPONENT_MAX))
        .total_tables(capacity.saturating_mul(TABLES_PER_COMPONENT_MAX))
        .total_stacks(capacity)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_component(TABLES_PER_COMPONENT_MAX)
        .max_memories_per_module(MEMORIES_PER_COMPONENT_MAX)
        .max_tables_per_module(TABLES_PER_COMPONENT_MAX)
        .max_memory_size(usize::try_from(MEMORY_MAX).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(MEMORY_KEPT)
        .table_keep_resident(TABLE_KEPT);
    pool
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // WASI 0.2 guests never call concurrently; without it each call is cheaper.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(2 * GUEST_STACK_BYTES)
        .memory_init_cow(true)
        // By default an image of 16 MiB is made of two bytes that are so far apart: a few KiB of modules would make an
        // artifact of hundreds of MiB. Without an image a memory's data are copied when it is instantiated.
        .memory_guaranteed_dense_image_size(SPARSE_IMAGE_BYTES_MAX);
    config
}

/// Moves an engine's epoch on until it is dropped.
pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (engine, stopped) = (engine.clone(), Arc::clone(&stop));
        let tick = move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                engine.increment_epoch();
            }
        };
        let thread = thread::Builder::new().name("epoch".into()).spawn(tick)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no way to panic; if it did, that was reported.
            let _ = thread.join();
        }
    }
}
