//! From wasmtime's errors to outcomes.

use crate::bindings::exports::innkeeper::task::handler::{Failure as GuestFailure, Retry};
use crate::guest::Guest;
use crate::log::Log;
use crate::mask::Mask;
use crate::output::OutputTooLarge;
use innkeeper_domain::failure::{Failure, FailureKind, RetryAdvice};
use innkeeper_domain::limits::{COMPONENT_HANDLES_MAX, HOST_CALL_BYTES_MAX, OUTPUT_BYTES_MAX};
use innkeeper_domain::quota::Quota;
use innkeeper_domain::run::LogLevel;
use std::time::Duration;
use wasmtime::component::ResourceTableError;
use wasmtime::{Error, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// Functions of a trap's backtrace that go to the log.
const FRAMES_LOGGED: usize = 16;

/// The guest ran when its time was over.
#[derive(Debug, thiserror::Error)]
#[error("the guest's time is over")]
pub(crate) struct TimedOut;

/// The failure that the host makes of the guest's own.
pub(crate) fn of_guest(failure: GuestFailure, mask: &Mask) -> Failure {
    let retry = match failure.retry {
        Retry::ByPolicy => RetryAdvice::ByPolicy,
        Retry::Never => RetryAdvice::Never,
        Retry::After(millis) => RetryAdvice::After(Duration::from_millis(millis)),
    };
    let code = if failure.code.is_empty() { "failed" } else { &failure.code };
    mask.failure(FailureKind::Guest, code, &failure.message, retry)
}

/// The failure of a guest whose time was over.
pub(crate) fn timed_out(guest: &Guest) -> Failure {
    Failure::new(FailureKind::Timeout, format!("over its timeout of {:?}", guest.invocation.spec.timeout))
}

/// The failure of a guest whose tenant has no CPU time left for the day.
pub(crate) fn cpu_used_up(guest: &Guest) -> Failure {
    let left = guest.invocation.claimed.bounds.cpu.unwrap_or_default();
    Failure::new(
        FailureKind::Quota,
        format!(
            "the tenant's CPU time for today is used up (quota `{}`): {left:?} were left when the attempt was claimed, for \
             all of the tenant's that execute on this host",
            Quota::CpuPerDay
        ),
    )
}

/// The failure of too much output.
pub(crate) fn output_too_large() -> Failure {
    Failure::new(FailureKind::OutputTooLarge, format!("the output has more than {OUTPUT_BYTES_MAX} bytes"))
}

/// The failure of a command that ended with this code. WASI 0.2 knows success and failure only, which is
/// code 1; another code comes from a guest that could tell it.
pub(crate) fn exited(code: i32, guest: &Guest) -> Failure {
    guest.end_lines();
    let end = if code == 1 { "it ended unsuccessfully".into() } else { format!("exit code {code}") };
    let said = guest.log.tail();
    let message = if said.is_empty() { end } else { format!("{end}: {said}") };
    // Lines that are masked one by one may make a secret together.
    guest.log.mask().failure(FailureKind::Exit, &code.to_string(), &message, RetryAdvice::ByPolicy)
}

/// What an error of the guest's execution means. None: it ended itself in good order (exit code 0).
pub(crate) fn of_error(error: &Error, guest: &Guest) -> Option<Failure> {
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return (*code != 0).then(|| exited(*code, guest));
    }
    if error.is::<TimedOut>() {
        return Some(timed_out(guest));
    }
    if error.is::<OutputTooLarge>() || error.chain().any(|cause| cause.is::<OutputTooLarge>()) {
        return Some(output_too_large());
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Some(Failure::new(
            FailureKind::Internal,
            format!("the host has no room for the guest: {error}"),
        ));
    }
    // wasmtime's error for it has no type of its own. Outside of any function it is about what was returned.
    let is_too_much = error.root_cause().to_string().starts_with("too much data is being copied");
    if is_too_much && !error.is::<WasmBacktrace>() {
        return Some(output_too_large());
    }
    log_backtrace(error, &guest.log);
    let words = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "stack overflow: the guest's calls went too deep".to_string(),
        Some(trap) => trap.to_string(),
        None if error.chain().any(|cause| cause.is::<ResourceTableError>()) => {
            format!("the guest holds too many handles, or one that it doesn't have: {}", error.root_cause())
        }
        None if error.root_cause().to_string().ends_with("handle limit exceeded") => {
            format!("the guest holds more than {COMPONENT_HANDLES_MAX} handles")
        }
        None if is_too_much => {
            format!("the guest handed over more than {HOST_CALL_BYTES_MAX} bytes to the host in one call")
        }
        None => error.root_cause().to_string(),
    };
    let kind = FailureKind::Trap;
    Some(guest.log.mask().failure(kind, kind.as_str(), &words, RetryAdvice::ByPolicy))
}

/// A failure that came after memory was refused is memory's: guests that can't allocate abort in many
/// ways, and none of them says so.
pub(crate) fn blame_memory(failure: Failure, guest: &Guest) -> Failure {
    let abort = matches!(failure.kind, FailureKind::Trap | FailureKind::Exit | FailureKind::Guest);
    match guest.limiter.refusal().filter(|_| abort) {
        Some(refusal) => {
            let bounds = &guest.invocation.claimed.bounds;
            let quota = match bounds.memory.filter(|quota| *quota < guest.invocation.spec.memory) {
                Some(_) => format!(", the tenant's quota `{}`", Quota::RunMemory),
                None => String::new(),
            };
            let message = format!("out of memory: {refusal}{quota} (it ended with: {})", failure.message);
            Failure::with_code(FailureKind::Memory, FailureKind::Memory.as_str(), message, failure.retry)
        }
        None => failure,
    }
}

fn log_backtrace(error: &Error, log: &Log) {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return };
    for (at, frame) in backtrace.frames().iter().take(FRAMES_LOGGED).enumerate() {
        let name =
            frame.func_name().map_or_else(|| format!("function {}", frame.func_index()), str::to_string);
        log.note(LogLevel::Error, format!("  {at}: {name}"));
    }
}
