//! One attempt from its beginning to its end.

use crate::Runtime;
use crate::bindings::exports::innkeeper::task::handler::Payload as GuestPayload;
use crate::capability::http::Hooks;
use crate::compiler::Ready;
use crate::crowd::Panicked;
use crate::failure::{
    TimedOut, blame_memory, cpu_used_up, exited, of_error, of_guest, output_too_large, timed_out,
};
use crate::guest::Guest;
use crate::log::Log;
use crate::mask::Mask;
use crate::meter::{Meter, UsedUp};
use async_trait::async_trait;
use futures::FutureExt;
use innkeeper_domain::component::Shape;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::limits::{
    COMPONENT_HANDLES_MAX, CONTENT_TYPE_CHARS_MAX, HOST_CALL_BYTES_MAX, OUTPUT_BYTES_MAX,
};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::time;
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use wasmtime::{Store, UpdateDeadline};

#[async_trait]
impl Executor for Runtime {
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let begun = Instant::now();
        let left = time::between((self.now)(), invocation.deadline);
        let ready = match self.compiler.ready(invocation.spec.component).await {
            Ok(ready) => ready,
            Err(words) => {
                let words = format!("component {} can't be made ready: {words}", invocation.spec.component);
                let outcome = Outcome::Failure(Failure::new(FailureKind::Internal, words));
                return AttemptEnd { outcome, usage: Usage::default() };
            }
        };
        let tenant = invocation.claimed.tenant_id;
        let meter = self.meters.begin(tenant, invocation.claimed.bounds.cpu);
        let is_long = meter.long();
        let store = self.store(invocation, port, &ready, begun + left);
        let mut attempt = attempt(store, ready, meter, begun).boxed();
        let first = poll_fn(|context| {
            // Before each poll, for it may have become so in the one before.
            if is_long.load(Ordering::Relaxed) {
                return Poll::Ready(None);
            }
            match attempt.poll_unpin(context) {
                Poll::Pending if is_long.load(Ordering::Relaxed) => Poll::Ready(None),
                polled => polled.map(Some),
            }
        });
        let first = AssertUnwindSafe(first).catch_unwind().await.map_err(|_panic| Panicked);
        let end = match first {
            Ok(None) => self.crowd.go_on(tenant, attempt).await,
            Ok(Some(end)) => Ok(end),
            Err(panicked) => Err(panicked),
        };
        end.unwrap_or_else(|Panicked| panicked())
    }
}

/// The end of an attempt in which the host panicked where it shouldn't.
fn panicked() -> AttemptEnd {
    tracing::error!("the host panicked after it had run a guest");
    let words = "the host panicked after it had run the guest; its log has more";
    let outcome = Outcome::Failure(Failure::new(FailureKind::Internal, words));
    AttemptEnd { outcome, usage: Usage::default() }
}

/// Runs a guest, and clears up after it.
async fn attempt(mut store: Store<Guest>, ready: Ready, mut meter: Meter, begun: Instant) -> AttemptEnd {
    let cancel_grace = store.data().invocation.spec.cancel_grace;
    let outcome = run(&mut store, ready, cancel_grace, &mut meter).await;
    let guest = store.data();
    guest.finish_log();
    let usage = Usage { wall: begun.elapsed(), cpu: meter.used(), peak_memory: guest.limiter.peak() };
    AttemptEnd { outcome, usage }
}

impl Runtime {
    fn store(
        &self,
        invocation: Invocation,
        port: Arc<dyn AttemptPort>,
        ready: &Ready,
        ends_at: Instant,
    ) -> Store<Guest> {
        let shape = match ready {
            Ready::Handler(_) => Shape::Handler,
            Ready::Command(_) => Shape::Command,
        };
        let bounds = &invocation.claimed.bounds;
        let log = Log::new(Arc::clone(&port), Mask::new(&invocation.secrets), bounds.log_bytes);
        let hooks = Hooks::new(Arc::clone(&self.http), &invocation, log.clone());
        let mut store =
            Store::new(&self.engine, Guest::new(self, invocation, port, shape, hooks, log, ends_at));
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        store.set_max_component_handles(COMPONENT_HANDLES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            if Instant::now() >= context.data().ends_at {
                Err(TimedOut.into())
            } else {
                Ok(UpdateDeadline::Yield(1))
            }
        });
        store
    }
}

/// Runs the guest until it ends, or is ended.
async fn run(store: &mut Store<Guest>, ready: Ready, cancel_grace: Duration, meter: &mut Meter) -> Outcome {
    let (ends_at, port) = (store.data().ends_at, Arc::clone(&store.data().port));
    let ended = {
        let mut call = pin!(AssertUnwindSafe(call(store, ready)).catch_unwind());
        tokio::select! {
            // In this order: an outcome that is there counts.
            biased;
            result = poll_fn(|context| meter.poll(call.as_mut(), context)) => match result {
                Ok(result) => Ended::ByItself(result.map_err(|_| ())),
                Err(UsedUp) => Ended::UsedUp,
            },
            () = tokio::time::sleep_until(ends_at) => Ended::TimedOut,
            () = cancelled(port.as_ref(), cancel_grace) => Ended::Cancelled,
        }
        // Here the call is dropped, and with it the guest's stack, before anything else is done with the store.
    };
    let guest = store.data();
    let failure = match ended {
        Ended::ByItself(Ok(Ok(Ok(output)))) => return Outcome::Output(output),
        Ended::ByItself(Ok(Ok(Err(failure)))) => failure,
        Ended::ByItself(Ok(Err(error))) => match of_error(&error, guest) {
            Some(failure) => failure,
            None => return ended_well(guest),
        },
        Ended::ByItself(Err(())) => {
            tracing::error!(run = %guest.invocation.claimed.lease.run, "the host panicked while it ran a guest");
            Failure::new(FailureKind::Internal, "the host panicked while it ran the guest; its log has more")
        }
        Ended::TimedOut => timed_out(guest),
        Ended::UsedUp => cpu_used_up(guest),
        Ended::Cancelled => {
            Failure::new(FailureKind::Cancelled, "it was cancelled, and didn't end within its grace")
        }
    };
    Outcome::Failure(blame_memory(failure, guest))
}

/// How a guest ended.
enum Ended {
    /// With an output, a failure, an error of wasmtime's, or a panic of the host's.
    ByItself(Result<wasmtime::Result<Result<Payload, Failure>>, ()>),
    TimedOut,
    /// Its tenant's CPU time of the day.
    UsedUp,
    Cancelled,
}

async fn cancelled(port: &dyn AttemptPort, grace: Duration) {
    port.cancelled().await;
    tokio::time::sleep(grace).await;
}

async fn call(store: &mut Store<Guest>, ready: Ready) -> wasmtime::Result<Result<Payload, Failure>> {
    match ready {
        Ready::Handler(pre) => {
            let input = std::mem::take(&mut store.data_mut().invocation.claimed.input);
            let input = GuestPayload { content_type: input.content_type, bytes: input.bytes };
            let task = pre.instantiate_async(&mut *store).await?;
            let result = task.innkeeper_task_handler().call_run(&mut *store, &input).await?;
            let mask = store.data().log.mask();
            Ok(result.map_err(|failure| of_guest(failure, mask)).and_then(output))
        }
        Ready::Command(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            let result = command.wasi_cli_run().call_run(&mut *store).await?;
            let guest = store.data();
            Ok(result.map(|()| guest.output.take()).map_err(|()| exited(1, guest)))
        }
    }
}

/// A handler's output, within its bounds.
fn output(payload: GuestPayload) -> Result<Payload, Failure> {
    let GuestPayload { content_type, bytes } = payload;
    if bytes.len() > OUTPUT_BYTES_MAX {
        return Err(output_too_large());
    }
    let visible = |c: char| (' '..='~').contains(&c);
    let content_type = content_type.chars().filter(|c| visible(*c)).take(CONTENT_TYPE_CHARS_MAX).collect();
    Ok(Payload { content_type, bytes })
}

/// The outcome of a guest that ended itself with exit code 0.
fn ended_well(guest: &Guest) -> Outcome {
    match guest.shape() {
        Shape::Command => Outcome::Output(guest.output.take()),
        Shape::Handler => Outcome::Failure(Failure::new(
            FailureKind::Exit,
            "the handler ended the program instead of returning its output",
        )),
    }
}
