//! One compilation in a process of its own: begun, fed, waited for, and killed if it is over a bound.

use crate::CompileWith;
use crate::worker::Bounds;
use bytes::Bytes;
use innkeeper_domain::component::{Inspected, Refusal};
use innkeeper_domain::limits::{ARTIFACT_BYTES_FREE, ARTIFACT_BYTES_MAX, ARTIFACT_BYTES_PER_BYTE, KIB, MIB};
use rustix::process::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Bytes of the answer's head.
const HEAD_BYTES_MAX: u32 = 256 * 1024;
/// Bytes of what the process says when it fails that are looked at.
const COMPLAINT_BYTES_MAX: u64 = 4 * KIB;

/// What a compilation made.
pub(super) struct Compiled {
    pub inspected: Inspected,
    pub code: Vec<u8>,
}

/// What came of a process.
struct Answer {
    head: io::Result<Result<Inspected, Refusal>>,
    code: Vec<u8>,
    complaint: String,
    status: ExitStatus,
}

/// Inspects and compiles bytes. Dropping the future kills the process.
pub(super) async fn compile(with: &CompileWith, bytes: Bytes) -> Result<Compiled, Refusal> {
    let unavailable =
        |error: io::Error| Refusal::Unavailable(format!("nothing can be compiled now: {error}"));
    let child = spawn(with).map_err(unavailable)?;
    let most = made_bytes_max(bytes.len());
    let answer = match tokio::time::timeout(with.time, converse(child, &bytes, most)).await {
        Ok(answer) => answer.map_err(unavailable)?,
        Err(_) => return Err(over(format!("it took longer than {:?}", with.time))),
    };
    if answer.code.len() as u64 > most {
        let length = bytes.len();
        return Err(over(format!(
            "it makes more than {most} bytes of machine code and images of memories, which is the most of {length} bytes"
        )));
    }
    match (answer.head, answer.status.success()) {
        (Ok(Ok(inspected)), true) => Ok(Compiled { inspected, code: answer.code }),
        (Ok(Err(refusal)), true) => Err(refusal),
        _ => Err(died(with, answer.status, &answer.complaint)),
    }
}

fn spawn(with: &CompileWith) -> io::Result<Child> {
    Command::new(&with.program)
        .args(&with.arguments)
        .args(with.bounds().arguments())
        // It needs nothing of the host's, whose keys may be there.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// How many bytes may be made of so many.
fn made_bytes_max(bytes: usize) -> u64 {
    let more = (bytes as u64).saturating_mul(ARTIFACT_BYTES_PER_BYTE);
    ARTIFACT_BYTES_FREE.saturating_add(more).min(ARTIFACT_BYTES_MAX)
}

/// Gives the process its bytes, and takes what it answers: of what it made, one byte more than `most` at the most.
async fn converse(mut child: Child, bytes: &Bytes, most: u64) -> io::Result<Answer> {
    let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("the process has no streams"));
    };
    let give = async {
        // One that has died has said why, in one way or another.
        let _ = stdin.write_all(&(bytes.len() as u64).to_le_bytes()).await;
        let _ = stdin.write_all(bytes).await;
        // Open until the answer is there: its end would end the process.
        stdin
    };
    let take = async {
        let head = read_head(&mut stdout).await;
        let mut code = Vec::new();
        if matches!(head, Ok(Ok(_))) {
            (&mut stdout).take(most + 1).read_to_end(&mut code).await?;
        }
        // Or it could write no more, and would wait for ever.
        drop(stdout);
        io::Result::Ok((head, code))
    };
    let complain = async {
        let mut complaint = Vec::new();
        (&mut stderr).take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await?;
        drop(stderr);
        io::Result::Ok(String::from_utf8_lossy(&complaint).into_owned())
    };
    let (stdin, taken, complaint) = tokio::join!(give, take, complain);
    let status = child.wait().await?;
    drop(stdin);
    let ((head, code), complaint) = (taken?, complaint?);
    Ok(Answer { head, code, complaint, status })
}

async fn read_head(stdout: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Inspected, Refusal>> {
    let length = stdout.read_u32_le().await?;
    if length > HEAD_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    let mut head = Vec::new();
    stdout.take(length.into()).read_to_end(&mut head).await?;
    Ok(serde_json::from_slice(&head)?)
}

/// Why a process ended without an answer.
fn died(with: &CompileWith, status: ExitStatus, complaint: &str) -> Refusal {
    let Bounds { memory, cpu_seconds } = with.bounds();
    match status.signal().and_then(Signal::from_named_raw) {
        Some(Signal::XCPU) => over(format!("a processor worked longer than {cpu_seconds} s for it")),
        Some(Signal::ABORT) if complaint.contains("memory allocation") => {
            over(format!("it took more than {} MiB of memory", memory / MIB))
        }
        Some(Signal::ABORT) if complaint.contains("overflowed its stack") => {
            over("it is nested too deeply".into())
        }
        Some(Signal::KILL) => {
            over("the machine killed the compiler, which may mean that it has no memory left".into())
        }
        _ => {
            let said = complaint.lines().find(|line| !line.is_empty()).unwrap_or("without a word");
            Refusal::NotCompiled(format!("the compiler failed on this component ({status}): {said}"))
        }
    }
}

fn over(why: String) -> Refusal {
    Refusal::NotCompiled(format!("compiling this was given up: {why}"))
}
