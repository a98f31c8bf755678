//! How a hostile guest is tried: beside a neighbour that must not notice.

use crate::sandbox::{Port, Sandbox};
use crate::wat::{handler_text, handler_with};
use innkeeper_domain::failure::{FailureKind, Outcome};
use innkeeper_domain::task::TaskSpec;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// One guest with one misbehaviour, and what must become of it.
pub struct Case {
    pub name: &'static str,
    pub guest: Vec<u8>,
    pub set: fn(&mut TaskSpec),
    /// Hosts that it is granted.
    pub grants: Vec<String>,
    pub cancel: bool,
    pub expect: Expect,
}

/// What must become of a guest.
#[derive(Debug)]
pub enum Expect {
    /// It is refused when it is uploaded, with these words.
    Refused(&'static str),
    /// It ends with a failure of that kind, which has these words.
    Fails(FailureKind, &'static str),
    /// It is told so, and goes on to its end with this output.
    Goes(&'static [u8]),
}

pub use Expect::{Fails, Goes, Refused};

impl Case {
    pub fn new(name: &'static str, guest: Vec<u8>, expect: Expect) -> Self {
        Self { name, guest, set: |_| {}, grants: Vec::new(), cancel: false, expect }
    }

    /// With other bounds than the usual: 300 ms and 4 MiB.
    pub fn set(self, set: fn(&mut TaskSpec)) -> Self {
        Self { set, ..self }
    }

    /// Cancelled from the beginning on.
    pub fn cancelled(self) -> Self {
        Self { cancel: true, ..self }
    }
}

/// A handler that may import from all of `wasi.wit`.
pub fn wasi_handler(imports: &str, body: &str) -> Vec<u8> {
    wasi_module(&handler_text(imports, body))
}

/// The component of a module that may do so.
pub fn wasi_module(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    let package = resolve.push_str(Path::new("wasi.wit"), include_str!("wasi.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// How often a guest's neighbour runs at the most, and how long it rests in between.
const NEIGHBOURS_MAX: usize = 200;
const REST: Duration = Duration::from_millis(2);

/// Tries each guest, a few at one time, each beside a neighbour.
pub async fn try_all(sandbox: &Sandbox, cases: &[Case]) {
    let good = sandbox.upload(handler_with("", "(call $say (i32.const 103))"));
    sandbox.compile(&good).await;
    let (mut failed, before) = (Vec::new(), resident());
    for few in cases.chunks(4) {
        let tried = few.iter().map(|case| async { (case.name, try_one(sandbox, &good, case).await) });
        let tried = futures::future::join_all(tried).await;
        failed.extend(tried.into_iter().filter_map(|(name, result)| Some((name, result.err()?))));
    }
    println!("{} guests; resident, KiB: {before} before, {} after", cases.len(), resident());
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), cases.len());
}

/// Memory of this process that is there, in KiB.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn try_one(sandbox: &Sandbox, good: &TaskSpec, case: &Case) -> Result<(), String> {
    let mut spec = sandbox.upload(case.guest.clone());
    (spec.timeout, spec.memory) = (Duration::from_millis(300), 4 << 20);
    spec.allow_http = case.grants.iter().map(|grant| grant.parse().unwrap()).collect();
    (case.set)(&mut spec);
    let inspected = sandbox.runtime.inspect(spec.component, case.guest.clone()).await;
    let refused = match (&case.expect, inspected) {
        (Refused(words), Err(refusal)) if refusal.to_string().contains(words) => return Ok(()),
        (Refused(_), inspected) => Some(format!("{inspected:?}")),
        (_, Err(refusal)) => Some(refusal.to_string()),
        (_, Ok(_)) => None,
    };
    if let Some(refused) = refused {
        return Err(format!("expected {:?}, at the upload: {refused}", case.expect));
    }
    let port = Arc::new(Port::default());
    if case.cancel {
        port.cancel.cancel();
    }
    let has_ended = AtomicBool::new(false);
    let tried = async {
        let end = sandbox.run(spec.clone(), b"hello", &port).await;
        has_ended.store(true, Ordering::Relaxed);
        end
    };
    let (end, neighbour) = tokio::join!(tried, neighbour(sandbox, good, &has_ended));
    neighbour?;
    if end.usage.peak_memory > spec.memory {
        return Err(format!("it had {} bytes of memory", end.usage.peak_memory));
    }
    match (&case.expect, end.outcome) {
        (Fails(kind, words), Outcome::Failure(failure))
            if failure.kind == *kind && failure.message.contains(words) =>
        {
            Ok(())
        }
        (Goes(bytes), Outcome::Output(output)) if output.bytes == *bytes => Ok(()),
        (expected, outcome) => Err(format!("expected {expected:?}, found {outcome:?}")),
    }
}

/// Runs a neighbour from the guest's beginning on, again and again until it has ended: each time it must succeed.
async fn neighbour(sandbox: &Sandbox, good: &TaskSpec, has_ended: &AtomicBool) -> Result<(), String> {
    for number in 0..NEIGHBOURS_MAX {
        match sandbox.run(good.clone(), b"", &Arc::new(Port::default())).await.outcome {
            Outcome::Output(output) if output.bytes == b"g" => {}
            harmed => return Err(format!("neighbour {number} was harmed: {harmed:?}")),
        }
        if has_ended.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(REST).await;
    }
    Ok(())
}
