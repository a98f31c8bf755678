//! What tests need: components out of WebAssembly's text format.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A core module of wit-bindgen's kind: it exports `innkeeper:task/handler@0.1.0#run`, `memory` and
/// `cabi_realloc`, and imports by the names of interfaces.
pub fn bound_module(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("task")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// The component of such a module.
pub fn handler(wat: &str) -> Vec<u8> {
    let module = bound_module(wat);
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// A handler whose `run` has this body, which leaves the address of the result: at 16 there is room for it,
/// from 64 for data. `$ok` gives empty output, `$say` one byte, `$fail` a failure of its own.
pub fn handler_with(imports: &str, body: &str) -> Vec<u8> {
    handler(&handler_text(imports, body))
}

/// The module of such a handler.
pub fn handler_text(imports: &str, body: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (global $free (mut i32) (i32.const 4096))
            (data (i32.const 64) "brokenit is out of order")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                (global.set $free (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func $ok (result i32)
                (i32.store8 (i32.const 16) (i32.const 0))
                (i32.const 16))
            (func $say (param $byte i32) (result i32)
                (i32.store8 (i32.const 48) (local.get $byte))
                (i32.store (i32.const 32) (i32.const 48)) (i32.store (i32.const 36) (i32.const 1))
                (call $ok))
            (func $fail (result i32)
                (i32.store8 (i32.const 16) (i32.const 1))
                (i32.store (i32.const 24) (i32.const 64)) (i32.store (i32.const 28) (i32.const 6))
                (i32.store (i32.const 32) (i32.const 70)) (i32.store (i32.const 36) (i32.const 18))
                (i32.store8 (i32.const 40) (i32.const 1))
                (i32.const 16))
            (func $recurse (param i32) (result i32) (i32.add (call $recurse (local.get 0)) (i32.const 1)))
            (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32) {body}))"#
    )
}

/// A preview-1 command: `$write` writes bytes of the memory to a file descriptor.
pub fn command(data: &str, body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (data (i32.const 1024) "{data}")
            (func $write (param $fd i32) (param $at i32) (param $length i32)
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $length))
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            (func (export "_start") {body}))"#
    ))
    .unwrap()
}
