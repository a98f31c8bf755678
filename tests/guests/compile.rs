//! Uploads that are made to harm whoever reads or compiles them.

use crate::sandbox::Sandbox;
use crate::table::{Case, Expect, Goes, Refused, try_all};
use crate::wat::{bound_module, handler_with};
use innkeeper_domain::component::Digest;
use innkeeper_domain::limits::{MIB, REFUSAL_BYTES_MAX};
use innkeeper_runtime::CompileWith;
use std::fmt::Write as _;
use std::time::Duration;

/// A handler's module, with these definitions and functions beside what it needs.
fn with(definitions: &str) -> Vec<u8> {
    bound_module(&text_with(definitions))
}

fn text_with(definitions: &str) -> String {
    format!(
        r#"(module {definitions}
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "innkeeper:task/handler@0.1.0#run") (param i32 i32 i32 i32) (result i32)
                (i32.const 2048)))"#
    )
}

/// A module as bytes, of sections that are given as they are.
fn raw(sections: &[&[u8]]) -> Vec<u8> {
    [&b"\0asm\x01\0\0\0"[..], &sections.concat()].concat()
}

/// So many components, each in another.
fn within_each_other(depth: usize) -> Vec<u8> {
    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
    (0..depth).fold(HEAD.to_vec(), |inner, _| {
        let length =
            [0, 7, 14].map(|shift| (inner.len() >> shift) as u8 & 0x7f | if shift < 14 { 0x80 } else { 0 });
        [HEAD, &[4], &length, &inner].concat()
    })
}

fn repeated(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).fold(String::new(), |mut all, number| {
        // Writing to a string can't fail.
        let _ = all.write_str(&piece(number));
        all
    })
}

/// A component that only exists to be read.
fn component(text: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {text})")).unwrap()
}

/// What is known of it before it is compiled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_in_words() {
    let memory = [0x05, 3, 1, 0, 1];
    let start = [&[0x07, 19, 2, 6][..], b"memory", &[2, 0, 6], b"_start", &[0, 0]].concat();
    let types = [0x01, 4, 1, 0x60, 0, 0];
    let function = [0x03, 2, 1, 0];
    let code = [0x0a, 4, 1, 2, 0, 0x0b];
    let whole = raw(&[&types, &function, &memory, &start, &code]);
    let deep = within_each_other(1001);
    let locals = with("(func (local i32) (local i64) (drop (local.get 0)))");
    let cases = [
        Case::new("a whole one, to compare", whole.clone(), Goes(b"")),
        Case::new("cut off", whole[..whole.len() - 2].to_vec(), Refused("cut off or damaged")),
        Case::new(
            "a section longer than the file",
            raw(&[&types, &function, &memory, &start, &[0x0a, 0x7f, 1]]),
            Refused("damaged"),
        ),
        Case::new(
            "a length of five bytes that says 2^35",
            raw(&[&[0x01, 0xff, 0xff, 0xff, 0xff, 0x7f]]),
            Refused("damaged"),
        ),
        Case::new(
            "a length that never ends",
            raw(&[&[0x01, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]]),
            Refused("damaged"),
        ),
        Case::new(
            "a section that says it has 2^32 - 1 types",
            raw(&[&[0x01, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x60], &start]),
            Refused(""),
        ),
        Case::new(
            "a section twice",
            raw(&[&types, &types, &function, &memory, &start, &code]),
            Refused("damaged"),
        ),
        Case::new(
            "sections in another order",
            raw(&[&function, &types, &memory, &start, &code]),
            Refused("damaged"),
        ),
        Case::new(
            "a section that there isn't",
            raw(&[&types, &function, &memory, &start, &[0x7e, 1, 0], &code]),
            Refused(""),
        ),
        Case::new(
            "an export's name that is no UTF-8",
            raw(&[&types, &function, &[0x07, 5, 1, 1, 0xff, 0, 0], &code]),
            Refused("UTF-8"),
        ),
        Case::new("fewer functions than bodies", raw(&[&types, &memory, &start, &code]), Refused("damaged")),
        Case::new(
            "an export of a function that there isn't",
            raw(&[&types, &[0x07, 10, 1, 6, b'_', b's', b't', b'a', b'r', b't', 0, 9]]),
            Refused("not valid"),
        ),
        Case::new(
            "a code that there isn't",
            raw(&[&types, &function, &memory, &start, &[0x0a, 5, 1, 3, 0, 0xff, 0x0b]]),
            Refused("not valid"),
        ),
        Case::new(
            "fifty thousand locals and one",
            raw(&[&types, &function, &memory, &start, &[0x0a, 8, 1, 6, 1, 0xd1, 0x86, 0x03, 0x7f, 0x0b]]),
            Refused("too many locals"),
        ),
        Case::new("components within each other", deep, Refused("")),
        Case::new(
            "ten thousand exports of one thing",
            component(&repeated(10_000, |n| {
                format!("(instance $i{n}) (export \"a:b/c{n}\" (instance $i{n}))")
            })),
            Refused("no task"),
        ),
        Case::new(
            "a thousand imports",
            component(&repeated(1_000, |n| format!("(import \"a:b/c{n}\" (instance))"))),
            Refused("more than 256 imports"),
        ),
        Case::new(
            "imports with names of 50 KB",
            component(&repeated(20, |n| {
                format!(
                    "(import \"a:b/c{}{n}\" (instance)) (instance $i{n}) (export \"wasi:cli/run@0.2.{n}\" (instance $i{n}))",
                    "x".repeat(50_000)
                )
            })),
            Refused("what the host doesn't have: a:b/c"),
        ),
        Case::new(
            "a type that doubles thirty times",
            component(&format!(
                "(type $t0 (tuple u8 u8)) {}",
                repeated(30, |n| format!("(type $t{} (tuple $t{n} $t{n}))", n + 1))
            )),
            Refused(""),
        ),
        Case::new("a memory of 64 bits", with_other_memory("i64 1"), Refused("")),
        Case::new("a memory that threads share", with_other_memory("1 1 shared"), Refused("")),
        Case::new("locals of many kinds", locals, Goes(b"")),
    ];
    try_all(&Sandbox::new(), &cases).await;
}

/// A command whose memory is of another kind.
fn with_other_memory(memory: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (memory (export "memory") {memory}) (func (export "_start")))"#))
        .unwrap()
}

/// What is only known when it has been compiled, within the usual bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hard_to_compile_is_compiled_or_given_up() {
    let targets = "0 ".repeat(100_000);
    let cases = [
        (
            "a function of a million instructions",
            with(&format!("(func {})", "(drop (i32.const 1)) ".repeat(300_000))),
            Goes(b""),
        ),
        ("fifty thousand locals", with(&format!("(func (local {}))", "i64 ".repeat(49_990))), Goes(b"")),
        (
            "ten thousand blocks within each other",
            with(&format!("(func {} {})", "block ".repeat(10_000), "end ".repeat(10_000))),
            Goes(b""),
        ),
        (
            "a branch table of a hundred thousand",
            with(&format!("(func (param i32) (block (br_table {targets} (local.get 0))))")),
            Refused("exceeds the implementation limit"),
        ),
        ("fifty thousand functions", with(&"(func)".repeat(50_000)), Goes(b"")),
        (
            "calls of everybody by everybody",
            with(&repeated(300, |_| format!("(func {})", repeated(300, |to| format!("call {to} "))))),
            Goes(b""),
        ),
        ("ten thousand globals", with(&"(global i64 (i64.const 1))".repeat(10_000)), Goes(b"")),
        (
            "a function that would take 3 GB to compile",
            branches(1000, 20_000),
            Refused("given up: it took more than 2048 MiB of memory"),
        ),
        ("a custom section of 8 MB", custom(&with("")), Goes(b"")),
    ];
    let cases = cases.map(|(name, guest, expect): (_, _, Expect)| {
        Case::new(name, guest, expect).set(|spec| spec.timeout = Duration::from_secs(20))
    });
    try_all(&Sandbox::new(), &cases).await;
}

/// A command with so many modules beside its own, each with a memory of so many pages, and a byte at each end of it.
fn sparse_memories(modules: usize, pages: usize) -> Vec<u8> {
    let last = pages * 65536 - 2;
    let module =
        format!(r#"(core module (memory {pages}) (data (i32.const 0) "a") (data (i32.const {last}) "z"))"#);
    component(&format!(
        r#"{}
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $r (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $r))"#,
        module.repeat(modules)
    ))
}

/// What is between a memory's data is kept on no disk, and in no memory of the host's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_uploads_make_no_large_artifacts() {
    let sandbox = Sandbox::new();
    let spec = sandbox.upload(sparse_memories(30, 256));
    sandbox.compile(&spec).await;
    let artifacts = std::fs::read_dir(sandbox.folder.path()).unwrap();
    let bytes: u64 = artifacts.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 4 * MIB, "{bytes} bytes");
    let cases = [
        Case::new("thirty memories of a byte at 0 and one below 16 MiB", sparse_memories(30, 256), Goes(b"")),
        Case::new(
            "a hundred memories of a byte at 0 and one below 1 MiB",
            sparse_memories(100, 16),
            Refused("given up: it makes more than"),
        ),
    ];
    try_all(&sandbox, &cases).await;
}

/// A module with a large section that means nothing.
fn custom(module: &[u8]) -> Vec<u8> {
    let size = 8_000_000_usize;
    let length = size + 2;
    let leb = [0, 7, 14, 21].map(|shift| (length >> shift) as u8 & 0x7f | if shift < 21 { 0x80 } else { 0 });
    [module, &[0], &leb, &[1, b'x'], &vec![0; size]].concat()
}

/// A function of so many locals and branches: what it takes to compile grows with both.
fn branches(locals: usize, branches: usize) -> Vec<u8> {
    let branch = |n: usize| {
        let [from, to, other] = [n * 3, n * 7, n * 11].map(|local| local % locals);
        format!(
            "(if (i32.wrap_i64 (local.get {})) (then (local.set {to} (i64.add (local.get {from}) (i64.const {n}))))
                (else (local.set {other} (i64.const {n}))))",
            n % locals
        )
    };
    with(&format!("(func (local {}) (loop {} (br 0)))", "i64 ".repeat(locals), repeated(branches, branch)))
}

/// Takes seconds, and 700 MB.
fn hard_to_compile() -> Vec<u8> {
    branches(300, 20_000)
}

/// Whoever is over a bound is ended and reported, and the next one is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compiler_itself_is_bounded() {
    let hard = hard_to_compile();
    let worker = |change: fn(&mut CompileWith)| Sandbox::with(|config| change(&mut config.compile_with));
    for (words, sandbox) in [
        ("more than 500 MiB of memory", worker(|with| with.memory = 500 << 20)),
        ("a processor worked longer than 1 s", worker(|with| with.cpu = Duration::from_secs(1))),
        ("it took longer than 200ms", worker(|with| with.time = Duration::from_millis(200))),
    ] {
        let refusal = sandbox.runtime.inspect(Digest([1; 32]), hard.clone()).await.unwrap_err().to_string();
        assert!(refusal.starts_with("compiling this was given up") && refusal.contains(words), "{refusal}");
        let left = std::fs::read_dir(sandbox.folder.path()).unwrap().count();
        assert_eq!(left, 0, "nothing is left of it");
        let good = sandbox.upload(handler_with("", "(call $say (i32.const 1))"));
        if !words.contains("200ms") {
            sandbox.compile(&good).await;
            assert_eq!(sandbox.output(good, b"").await.0.bytes, [1]);
        }
    }
}

/// What there is no compiler for can't be run, and says so.
#[tokio::test]
async fn a_compiler_that_is_not_there_is_no_fault_of_the_uploads() {
    for (program, argument) in [("/nonexistent", ""), ("/bin/false", ""), ("/bin/echo", "hello")] {
        let sandbox = Sandbox::with(|config| config.compile_with = CompileWith::program(program, argument));
        let refusal = sandbox.runtime.inspect(Digest([1; 32]), with("")).await.unwrap_err().to_string();
        assert!(refusal.contains("compile") && refusal.len() < REFUSAL_BYTES_MAX, "{refusal}");
    }
}

/// A call that isn't waited for any more takes its compiler with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_upload_ends_its_compiler() {
    // By which it is told from others.
    let bound = (2_000 << 20) + 4096;
    let sandbox = Sandbox::with(|config| config.compile_with.memory = bound);
    let dropped = sandbox.runtime.inspect(Digest([1; 32]), hard_to_compile());
    assert!(tokio::time::timeout(Duration::from_millis(300), dropped).await.is_err());
    let ended = async {
        while compilers(bound) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    ended.expect("the compiler of a dropped upload ends");
    let good = sandbox.upload(handler_with("", "(call $say (i32.const 1))"));
    sandbox.compile(&good).await;
}

/// Processes that were begun from here and compile with that bound.
fn compilers(bound: u64) -> usize {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let folder = entry.ok()?.path();
        let status = std::fs::read_to_string(folder.join("stat")).ok()?;
        // After the name: state, then parent.
        let parent = status.rsplit(')').next()?.split_whitespace().nth(1)?.to_string();
        let command = std::fs::read_to_string(folder.join("cmdline")).ok()?;
        (parent == own && command.contains(&bound.to_string())).then_some(())
    });
    processes.count()
}
