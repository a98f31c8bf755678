//! Modules and components that wasm-smith makes up, some of them dressed as tasks.

use crate::random::Random;
use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// What a command exports, and may import.
const COMMAND: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
const PREVIEW_1: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_seek" (func (param i32 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))))"#;

/// The same of a handler that wit-bindgen has made.
const HANDLER: &str = r#"(module (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) unreachable))"#;
const INTERFACES: &str = r#"(module
    (import "innkeeper:task/log@0.1.0" "write" (func (param i32 i32 i32)))
    (import "innkeeper:task/control@0.1.0" "cancelled" (func (result i32)))
    (import "innkeeper:task/control@0.1.0" "progress" (func (param i64 i32 i64 i32 i32)))
    (import "innkeeper:task/context@0.1.0" "run-id" (func (param i32)))
    (import "innkeeper:task/context@0.1.0" "trigger" (func (param i32)))
    (import "innkeeper:task/context@0.1.0" "attempt" (func (result i32)))
    (import "innkeeper:task/context@0.1.0" "deadline" (func (result i64))))"#;

/// What makes any component look like a task, from its ninth byte on.
const DRESSES: [&str; 2] = [
    r#"(component (instance $i) (export "wasi:cli/run@0.2.6" (instance $i)))"#,
    r#"(component (instance $i) (export "innkeeper:task/handler@0.1.0" (instance $i)))"#,
];

/// Loops and calls after which a module that is made to end does.
const FUEL: u32 = 100_000;

/// A module or component.
pub fn wasm(random: &mut Random) -> Vec<u8> {
    let made = match random.below(10) {
        0 => module(random, None, None),
        1 | 2 => component(random),
        3..=5 => module(random, Some(COMMAND), Some(PREVIEW_1)),
        _ => module(random, Some(HANDLER), Some(INTERFACES)).map(|module| handler(module, random)),
    };
    // Without enough numbers to make one of, there is the smallest.
    made.unwrap_or_else(|| wat::parse_str(COMMAND).unwrap())
}

fn numbers(random: &mut Random) -> Vec<u8> {
    let length = 64 << random.below(8);
    (0..length).flat_map(|_| random.number().to_le_bytes()).collect()
}

fn config(random: &mut Random) -> Config {
    let mut config = Config { max_memories: 2, max_tables: 2, max_instructions: 200, ..Config::default() };
    if random.chance(80) {
        // What the host runs.
        config.gc_enabled = false;
        config.reference_types_enabled = false;
        config.exceptions_enabled = false;
        config.threads_enabled = false;
        config.memory64_enabled = false;
        config.shared_everything_threads_enabled = false;
        config.max_memory32_bytes = 4 << 20;
        config.max_table_elements = 10_000;
        config.allow_start_export = random.chance(50);
    }
    config.max_funcs = 1 + random.below(40) as usize;
    config.max_type_size = 200;
    config
}

fn module(random: &mut Random, exports: Option<&str>, imports: Option<&str>) -> Option<Vec<u8>> {
    let mut config = config(random);
    config.exports = exports.map(|text| wat::parse_str(text).unwrap());
    config.available_imports = imports.map(|text| wat::parse_str(text).unwrap());
    let numbers = numbers(random);
    let mut module = Module::new(config, &mut Unstructured::new(&numbers)).ok()?;
    if random.chance(60) {
        module.ensure_termination(FUEL).ok()?;
    }
    Some(module.to_bytes())
}

fn component(random: &mut Random) -> Option<Vec<u8>> {
    let (config, numbers) = (config(random), numbers(random));
    let mut bytes = Component::new(config, &mut Unstructured::new(&numbers)).ok()?.to_bytes();
    let dress = random.pick(&DRESSES).filter(|_| random.chance(70));
    bytes.extend(dress.map(|text| wat::parse_str(text).unwrap()).iter().flat_map(|dress| &dress[8..]));
    Some(bytes)
}

/// With its component type, and half of the time made a component of.
pub fn handler(mut module: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("task")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoded = || ComponentEncoder::default().module(&module)?.encode();
    if random.chance(50) { encoded().unwrap_or(module) } else { module }
}
