//! Guests that work with files: by preview 1, as most languages do, and by WASI 0.2 itself.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where paths are in a guest's memory, each with so much room.
const PATHS: usize = 8192;
const PATH_ROOM: usize = 512;

/// Puts the addresses and lengths of paths in the place of `PATH0`, `PATH1` ..., and the paths into the memory.
fn with_paths(paths: &[&str], body: &str) -> (String, String) {
    let (mut data, mut body) = (String::new(), body.to_string());
    for (number, path) in paths.iter().enumerate() {
        let at = PATHS + number * PATH_ROOM;
        data += &format!("(data (i32.const {at}) {path:?})");
        let words = format!("(i32.const {at}) (i32.const {})", path.len());
        body = body.replace(&format!("PATH{number}"), &words);
    }
    (data, body)
}

/// A preview-1 command. `$is` ends it with a trap, and `STEP ERRNO` in its log, unless an errno is the one that is
/// expected; `$open` opens a path in the root and leaves its descriptor at 16; `$put` writes 4096 bytes.
pub fn file_command(paths: &[&str], body: &str) -> Vec<u8> {
    let (data, body) = with_paths(paths, body);
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_seek" (func $fd_seek (param i32 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $resize (param i32 i64) (result i32)))
            (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (memory (export "memory") 2)
            {data}
            (func $write (param $fd i32) (param $at i32) (param $length i32) (result i32)
                (i32.store (i32.const 0) (local.get $at)) (i32.store (i32.const 4) (local.get $length))
                (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
            (func $put (result i32) (call $write (i32.load (i32.const 16)) (i32.const 65536) (i32.const 4096)))
            (func $digits (param $number i32) (param $at i32)
                (loop
                    (i32.store8 (local.get $at)
                        (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
                    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
                    (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
                    (br_if 0 (local.get $number))))
            (func $is (param $step i32) (param $got i32) (param $wanted i32)
                (if (i32.eq (local.get $got) (local.get $wanted)) (then return))
                (i64.store (i32.const 32) (i64.const 0x2020202020202020))
                (call $digits (local.get $step) (i32.const 33)) (call $digits (local.get $got) (i32.const 38))
                (drop (call $write (i32.const 2) (i32.const 32) (i32.const 8)))
                unreachable)
            ;; What is opened is at 3 before anything else is.
            (func $open_in (param $fd i32) (param $at i32) (param $length i32) (param $how i32) (param $rights i64)
                (result i32)
                (call $path_open (local.get $fd) (i32.const 0) (local.get $at) (local.get $length) (local.get $how)
                    (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 16)))
            (func $open (param $at i32) (param $length i32) (param $how i32) (result i32)
                (call $open_in (i32.const 3) (local.get $at) (local.get $length) (local.get $how) (i64.const 66)))
            (func $say (param $at i32) (param $length i32)
                (drop (call $write (i32.const 1) (local.get $at) (local.get $length))))
            (func (export "_start") (local $count i32) (local $errno i32) {body}))"#
    ))
    .unwrap()
}

/// What such a guest needs of WASI 0.2, its types no more than as far as they are needed.
const WIT: &str = "
    package wasi:cli@0.2.0;
    interface run { run: func() -> result; }
    world guest {
        import wasi:filesystem/preopens@0.2.0;
        export run;
    }
    package wasi:filesystem@0.2.0 {
        interface types {
            enum error-code { access, would-block, already, bad-descriptor, busy, deadlock, quota, exist, file-too-large,
                illegal-byte-sequence, in-progress, interrupted, invalid, io, is-directory, loop, too-many-links,
                message-size, name-too-long, no-device, no-entry, no-lock, insufficient-memory, insufficient-space,
                not-directory, not-empty, not-recoverable, unsupported, no-tty, no-such-device, overflow, not-permitted,
                pipe, read-only, invalid-seek, text-file-busy, cross-device }
            flags path-flags { symlink-follow }
            flags open-flags { create, directory, exclusive, truncate }
            flags descriptor-flags { read, write, file-integrity-sync, data-integrity-sync, requested-write-sync,
                mutate-directory }
            resource descriptor {
                open-at: func(path-flags: path-flags, path: string, open-flags: open-flags, %flags: descriptor-flags)
                    -> result<descriptor, error-code>;
                read: func(length: u64, offset: u64) -> result<tuple<list<u8>, bool>, error-code>;
                set-size: func(size: u64) -> result<_, error-code>;
                readlink-at: func(path: string) -> result<string, error-code>;
                symlink-at: func(old-path: string, new-path: string) -> result<_, error-code>;
            }
        }
        interface preopens {
            use types.{descriptor};
            get-directories: func() -> list<tuple<descriptor, string>>;
        }
    }";

/// A component that runs as a command. `$root` gives the root, or traps if there is none; results are at 64.
pub fn component_command(paths: &[&str], body: &str) -> Vec<u8> {
    let (data, body) = with_paths(paths, body);
    let mut module = wat::parse_str(format!(
        r#"(module
            (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
            (import "wasi:filesystem/types@0.2.0" "[method]descriptor.open-at"
                (func $open_at (param i32 i32 i32 i32 i32 i32 i32)))
            (import "wasi:filesystem/types@0.2.0" "[method]descriptor.read" (func $read (param i32 i64 i64 i32)))
            (import "wasi:filesystem/types@0.2.0" "[method]descriptor.set-size" (func $resize (param i32 i64 i32)))
            (import "wasi:filesystem/types@0.2.0" "[method]descriptor.symlink-at"
                (func $symlink (param i32 i32 i32 i32 i32 i32)))
            (import "wasi:filesystem/types@0.2.0" "[method]descriptor.readlink-at"
                (func $readlink (param i32 i32 i32 i32)))
            (memory (export "memory") 64)
            (global $free (mut i32) (i32.const 65536))
            {data}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                (global.set $free (i32.add (local.get $at) (local.get 3)))
                (local.get $at))
            (func $root (result i32)
                (call $directories (i32.const 64))
                (if (i32.ne (i32.load (i32.const 68)) (i32.const 1)) (then unreachable))
                (i32.load (i32.load (i32.const 64))))
            ;; A file that is made if it isn't there, to be read and written.
            (func $open (param $root i32) (param $at i32) (param $length i32) (result i32)
                (call $open_at (local.get $root) (i32.const 0) (local.get $at) (local.get $length) (i32.const 1)
                    (i32.const 3) (i32.const 64))
                (if (i32.load8_u (i32.const 64)) (then unreachable))
                (i32.load (i32.const 68)))
            (func (export "wasi:cli/run@0.2.0#run") (result i32) (local $root i32) (local $file i32) {body}))"#
    ))
    .unwrap();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("guest.wit", WIT).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
