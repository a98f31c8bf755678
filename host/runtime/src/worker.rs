//! The process that compiles: one upload, then its end. What is uploaded may be made to harm whoever compiles it, so
//! that is done by a process that the host can kill: it has no environment, opens no files, and bounds its own memory
//! and processor time before it reads a byte. It is the same user's, all the same: whoever takes it over could.
//!
//! It is given a length (8 bytes, little-endian) and so many bytes on stdin, and answers on stdout: a length (4 bytes,
//! little-endian) and so many bytes of JSON, a `Result<Inspected, Refusal>`; after an `Ok` the machine code, until the
//! end.

use crate::admission::{self, Admitted};
use crate::engine;
use innkeeper_domain::component::{Inspected, Refusal};
use innkeeper_domain::limits::{COMPILE_STACK_BYTES, COMPONENT_BYTES_MAX};
use rustix::process::{Resource, Rlimit, nice, setrlimit};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

/// How much the process gives way to others. Not altogether, as long guests do: on a machine that has other work too, an
/// upload would wait for the end of that.
const NICENESS: i32 = 10;

/// The bounds of a compilation, as the process is told them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Address space, in bytes.
    pub memory: u64,
    /// Seconds that a processor works for it.
    pub cpu_seconds: u64,
}

impl Bounds {
    /// As arguments of the process.
    pub fn arguments(self) -> [String; 2] {
        [self.memory.to_string(), self.cpu_seconds.to_string()]
    }

    fn read(arguments: &[OsString]) -> Option<Self> {
        let number = |at: usize| arguments.get(at)?.to_str()?.parse().ok();
        Some(Self { memory: number(0)?, cpu_seconds: number(1)? })
    }

    fn apply(self) -> io::Result<()> {
        let most = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
        // Whoever is out of time is told so by a signal, and killed a second later.
        let cpu = Rlimit { current: Some(self.cpu_seconds), maximum: Some(self.cpu_seconds + 1) };
        setrlimit(Resource::As, most(self.memory))?;
        setrlimit(Resource::Cpu, cpu)?;
        setrlimit(Resource::Core, most(0))?;
        setrlimit(Resource::Fsize, most(0))?;
        setrlimit(Resource::Nofile, most(16))?;
        // When the machine has no memory left, this is what to end. Where that can't be said, the bound must do.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        // More it would like than it needs.
        let _ = nice(NICENESS);
        Ok(())
    }
}

/// Compiles what comes on stdin. The arguments are [`Bounds`].
pub fn main(arguments: &[OsString]) -> ExitCode {
    let Some(bounds) = Bounds::read(arguments) else {
        eprintln!("this is for the host's own use: it compiles what the host has been given");
        return ExitCode::from(2);
    };
    let serve = move || {
        bounds.apply()?;
        let bytes = read_request(&mut io::stdin().lock())?;
        end_with_the_host()?;
        let answer = compile(&bytes).map_err(Refusal::shown);
        write_answer(&mut io::stdout().lock(), &answer)
    };
    // With a stack of its own, as large wherever it runs.
    let thread = thread::Builder::new().stack_size(COMPILE_STACK_BYTES).spawn(serve);
    match thread.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(error))) | Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        // It has said why.
        Ok(Err(_panic)) => ExitCode::FAILURE,
    }
}

fn read_request(stdin: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    stdin.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > COMPONENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{length} bytes are too many")));
    }
    let mut bytes = Vec::new();
    stdin.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// The host keeps stdin open until it has the answer: if that ends, nobody waits any more.
fn end_with_the_host() -> io::Result<()> {
    let watch = || {
        let _ = io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    };
    thread::Builder::new().stack_size(64 * 1024).spawn(watch).map(drop)
}

fn write_answer(stdout: &mut impl Write, answer: &Result<(Inspected, Vec<u8>), Refusal>) -> io::Result<()> {
    let (head, code) = match answer {
        Ok((inspected, code)) => (Ok(inspected), code.as_slice()),
        Err(refusal) => (Err(refusal), &[][..]),
    };
    let head = serde_json::to_vec(&head)?;
    let length = u32::try_from(head.len()).map_err(io::Error::other)?;
    stdout.write_all(&length.to_le_bytes())?;
    stdout.write_all(&head)?;
    stdout.write_all(code)?;
    stdout.flush()
}

/// Inspects and compiles.
fn compile(bytes: &[u8]) -> Result<(Inspected, Vec<u8>), Refusal> {
    let Admitted { component, inspected } = admission::admit(bytes)?;
    let engine = engine::compiling().map_err(|e| Refusal::Unavailable(format!("{e:#}")))?;
    let code = engine.precompile_component(&component);
    let code = code.map_err(|e| Refusal::NotCompiled(format!("the component is not valid: {e:#}")))?;
    Ok((inspected, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_whole_or_not_at_all() {
        let request = |length: u64, bytes: &[u8]| [&length.to_le_bytes()[..], bytes].concat();
        assert_eq!(read_request(&mut &request(3, b"abcd")[..]).unwrap(), b"abc");
        for bad in [request(3, b"ab"), request(u64::MAX, b"abc"), vec![1, 2]] {
            assert!(read_request(&mut &bad[..]).is_err());
        }
    }

    #[test]
    fn the_code_is_for_the_engine_that_runs_it() {
        let (inspected, code) = compile(crate::bench::ECHO).unwrap();
        let engine = engine::engine(1).unwrap();
        // SAFETY: they are what `precompile_component` gave.
        #[allow(unsafe_code)]
        let component = unsafe { wasmtime::component::Component::deserialize(&engine, code) };
        assert!(!component.map(|_| inspected.adapted).unwrap());
    }
}
