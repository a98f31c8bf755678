//! Files of a run: what works, what doesn't, and what it costs whom.

use crate::files::{component_command, file_command};
use crate::sandbox::{Port, Sandbox, texts};
use innkeeper_domain::failure::{FailureKind, Outcome};
use innkeeper_domain::limits::*;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::TaskSpec;
use std::sync::Arc;

/// A guest that is done says so.
const DONE: &str = "(call $say (i32.const 8192) (i32.const 4))";

fn with_scratch(spec: TaskSpec, bytes: u64) -> TaskSpec {
    TaskSpec { scratch: Some(bytes), memory: bytes + MEMORY_DEFAULT, ..spec }
}

/// Runs a guest that has this scratch, and says `done` when it is; its log.
async fn done(bytes: u64, paths: &[&str], body: &str) -> Vec<String> {
    let sandbox = Sandbox::new();
    let paths: Vec<_> = ["done"].into_iter().chain(paths.iter().copied()).collect();
    let spec = with_scratch(sandbox.upload(file_command(&paths, &format!("{body} {DONE}"))), bytes);
    let port = Arc::new(Port::default());
    let outcome = sandbox.run(spec, b"", &port).await.outcome;
    let log = texts(&port);
    assert!(matches!(&outcome, Outcome::Output(output) if output.bytes == b"done"), "{outcome:?}, {log:?}");
    log
}

/// Opens the second path as a file, which isn't there yet, and writes it.
const WRITTEN: &str = "(call $is (i32.const 1) (call $open PATH1 (i32.const 5)) (i32.const 0))
    (call $is (i32.const 2) (call $write (i32.load (i32.const 16)) (i32.const 8192) (i32.const 4)) (i32.const 0))";

#[tokio::test]
async fn what_is_written_can_be_read_back_and_is_gone_in_the_next_attempt() {
    let sandbox = Sandbox::new();
    let body = format!(
        "{WRITTEN}
         (call $is (i32.const 3) (call $fd_seek (i32.load (i32.const 16)) (i64.const 1) (i32.const 0) (i32.const 24))
            (i32.const 0))
         (i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 100))
         (call $is (i32.const 4)
            (call $fd_read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)) (i32.const 0))
         (call $say (i32.const 65536) (i32.load (i32.const 8)))"
    );
    let spec = with_scratch(sandbox.upload(file_command(&["done", "dir/../f"], &body)), MIB);
    // The path leads through a directory that isn't there.
    let (failure, log) = sandbox.failure(spec).await;
    assert_eq!(failure.kind, FailureKind::Trap);
    assert!(log.iter().any(|line| line.trim() == "1   44"), "ENOENT at the first step: {log:?}");
    let spec = with_scratch(sandbox.upload(file_command(&["done", "./f"], &body)), MIB);
    for _ in 0..2 {
        assert_eq!(sandbox.output(spec.clone(), b"").await.0.bytes, b"one");
    }
}

#[tokio::test]
async fn paths_lead_nowhere_else() {
    let paths = ["..", "../etc/passwd", "/etc/passwd", "d/../../x", "/", "d"];
    let mut body = "(call $is (i32.const 20) (call $mkdir (i32.const 3) PATH6) (i32.const 0))".to_string();
    for path in 1..=5 {
        // EPERM, whatever is asked for.
        body += &format!(
            "(call $is (i32.const {path}) (call $open PATH{path} (i32.const 1)) (i32.const 63))
             (call $is (i32.const 1{path}) (call $unlink (i32.const 3) PATH{path}) (i32.const 63))"
        );
    }
    assert!(done(MIB, &paths, &body).await.is_empty());
}

#[tokio::test]
async fn a_full_scratch_is_a_full_disk_and_the_run_goes_on() {
    let body = format!(
        "{WRITTEN}
         (loop $more
            (local.set $errno (call $put))
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (br_if $more (i32.eqz (local.get $errno))))
         (call $is (i32.const 3) (local.get $errno) (i32.const 51))
         ;; 256 blocks but one that the file itself takes a part of, and but one that was written before.
         (call $is (i32.const 4) (local.get $count) (i32.const 255))
         (call $is (i32.const 5) (call $open PATH2 (i32.const 1)) (i32.const 0))
         (call $is (i32.const 6) (call $open PATH3 (i32.const 1)) (i32.const 0))
         (call $is (i32.const 7) (call $resize (i32.load (i32.const 16)) (i64.const 1)) (i32.const 51))
         (call $is (i32.const 8) (call $resize (i32.load (i32.const 16)) (i64.const 0x10000000000)) (i32.const 51))
         (call $is (i32.const 9) (call $resize (i32.load (i32.const 16)) (i64.const -1)) (i32.const 51))
         (call $is (i32.const 10) (call $unlink (i32.const 3) PATH1) (i32.const 0))"
    );
    let log = done(MIB, &["f", "g", "h"], &body).await;
    assert!(
        matches!(&log[..], [note] if note.contains("1048576 bytes") && note.contains("--scratch")),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_flood_of_files_ends_at_their_bound() {
    // Names of a number each.
    let body = "(loop $more
            (call $digits (local.get $count) (i32.const 8711))
            (local.set $errno (call $open (i32.const 8704) (i32.const 8) (i32.const 5)))
            (if (i32.eqz (local.get $errno)) (then
                (drop (call $close (i32.load (i32.const 16))))
                (local.set $count (i32.add (local.get $count) (i32.const 1)))
                (br $more))))
        (call $is (i32.const 1) (local.get $errno) (i32.const 51))
        (call $is (i32.const 2) (local.get $count) (i32.const FILES))";
    let body = body.replace("FILES", &SCRATCH_FILES_MAX.to_string());
    let log = done(32 * MIB, &["00000000"], &body).await;
    assert!(matches!(&log[..], [note] if note.contains("10000 files")), "{log:?}");
}

#[tokio::test]
async fn directories_end_at_their_depth() {
    let body = "(local.set $errno (i32.const 3))
        (i32.store (i32.const 16) (i32.const 3))
        (loop $more
            (local.set $errno (call $mkdir (i32.load (i32.const 16)) PATH1))
            (if (i32.eqz (local.get $errno)) (then
                (call $is (i32.const 1)
                    (call $open_in (i32.load (i32.const 16)) PATH1 (i32.const 2) (i64.const 0)) (i32.const 0))
                (local.set $count (i32.add (local.get $count) (i32.const 1)))
                (br $more))))
        (call $is (i32.const 2) (local.get $errno) (i32.const 37))
        (call $is (i32.const 3) (local.get $count) (i32.const DEPTH))";
    done(MIB, &["d"], &body.replace("DEPTH", &SCRATCH_DEPTH_MAX.to_string())).await;
}

#[tokio::test]
async fn what_is_used_counts_as_memory() {
    let sandbox = Sandbox::new();
    let fill = format!("{WRITTEN} (loop $more (br_if $more (i32.eqz (call $put))))");
    let upload = |body: &str| {
        let spec = sandbox.upload(file_command(&["done", "f"], body));
        TaskSpec { memory: MIB, scratch: Some(MIB - 1), ..spec }
    };
    let port = Arc::new(Port::default());
    // What the guest itself has is the same, with as many calls of the kind.
    let written = |times: usize| format!("{WRITTEN} {}", "(drop (call $put))".repeat(times));
    let less = sandbox.run(upload(&written(1)), b"", &port).await.usage.peak_memory;
    let more = sandbox.run(upload(&written(4)), b"", &port).await.usage.peak_memory;
    assert_eq!(more - less, 3 * SCRATCH_BLOCK_BYTES as u64);
    let end = sandbox.run(upload(&fill), b"", &port).await;
    assert!(matches!(end.outcome, Outcome::Output(_)), "{end:?}");
    assert!(end.usage.peak_memory <= MIB && end.usage.peak_memory > MIB - SCRATCH_BLOCK_BYTES as u64);
    assert!(texts(&port).iter().any(|note| note.contains("--memory")), "{:?}", texts(&port));
    // One that doesn't cope was out of memory.
    let (failure, _) = sandbox.failure(upload(&format!("{fill} unreachable"))).await;
    assert!(
        failure.kind == FailureKind::Memory && failure.message.contains("for its scratch"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn without_a_scratch_there_is_no_directory() {
    let sandbox = Sandbox::new();
    // EBADF: nothing is open.
    let body = format!("(call $is (i32.const 1) (call $open PATH1 (i32.const 1)) (i32.const 8)) {DONE}");
    let spec = sandbox.upload(file_command(&["done", "f"], &body));
    assert_eq!(sandbox.output(spec, b"").await, (sandbox_output(b"done"), Vec::new()));
    let (failure, _) = sandbox.failure(sandbox.upload(component_command(&[], "(call $root)"))).await;
    assert_eq!(failure.kind, FailureKind::Trap);
}

fn sandbox_output(bytes: &[u8]) -> Payload {
    Payload { content_type: "text/plain; charset=utf-8".into(), bytes: bytes.into() }
}

#[tokio::test]
async fn handles_of_files_have_a_bound() {
    let sandbox = Sandbox::new();
    let body = "(local.set $root (call $root)) (loop (drop (call $open (local.get $root) PATH0)) (br 0)) unreachable";
    let spec = with_scratch(sandbox.upload(component_command(&["f"], body)), MIB);
    let (failure, _) = sandbox.failure(spec).await;
    assert!(failure.message.contains("too many handles"), "{failure:?}");
}

#[tokio::test]
async fn one_call_reads_so_much_and_there_are_no_links() {
    let sandbox = Sandbox::new();
    let body = "(local.set $root (call $root))
        (local.set $file (call $open (local.get $root) PATH0))
        (call $resize (local.get $file) (i64.const 0x300000) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then unreachable))
        (call $read (local.get $file) (i64.const -1) (i64.const 1) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 72)) (i32.const READ)) (then unreachable))
        (call $symlink (local.get $root) PATH0 PATH1 (i32.const 64))
        ;; An error, and it is `unsupported`.
        (if (i32.ne (i32.load16_u (i32.const 64)) (i32.const 0x1b01)) (then unreachable))
        (call $readlink (local.get $root) PATH0 (i32.const 64))
        ;; `invalid`, for what is there is no link; and `no-entry`.
        (if (i32.or (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 68)) (i32.const 12))) (then unreachable))
        (call $readlink (local.get $root) PATH1 (i32.const 64))
        (i32.or (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1))
            (i32.ne (i32.load8_u (i32.const 68)) (i32.const 20)))";
    let body = body.replace("READ", &SCRATCH_CALL_BYTES_MAX.to_string());
    let spec = with_scratch(sandbox.upload(component_command(&["f", "g"], &body)), 4 * MIB);
    sandbox.output(spec, b"").await;
}
