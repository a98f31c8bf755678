//! The stub for a sandbox: attempts take as long, and end, as their task's name and the seed say.

use crate::process::Process;
use crate::random::Random;
use crate::record::{Event, Record};
use crate::tasks;
use async_trait::async_trait;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::Lease;
use innkeeper_domain::time;
use innkeeper_engine::clock::Clock;
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use std::sync::Arc;

/// What a successful attempt gives: that of no other run or attempt.
pub fn output(lease: Lease) -> String {
    format!("\"{}/{}/{}\"", lease.run, lease.host, lease.attempt)
}

pub struct Stub {
    pub process: Arc<Process>,
    pub record: Arc<Record>,
}

/// On record from its beginning to its end, however it ends.
struct Execution {
    process: u32,
    lease: Lease,
    record: Arc<Record>,
}

impl Execution {
    fn begin(process: u32, lease: Lease, record: Arc<Record>) -> Self {
        record.add(Event::ExecutionBegan { process, lease });
        Self { process, lease, record }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.record.add(Event::ExecutionEnded { process: self.process, lease: self.lease });
    }
}

#[async_trait]
impl Executor for Stub {
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let lease = invocation.claimed.lease;
        let _execution = Execution::begin(self.process.number, lease, Arc::clone(&self.record));
        // Of the run and the attempt, whichever process has it.
        let mut random = Random::new(lease.run.0.as_u128() as u64 ^ u64::from(lease.attempt));
        let task = invocation.claimed.task.as_str();
        let takes = tasks::takes(task, &mut random);
        let ends = time::after(self.process.now(), takes);
        let (until, failure) = match ends <= invocation.deadline {
            false => (invocation.deadline, Some(FailureKind::Timeout)),
            true if tasks::fails(task, &mut random) => (ends, Some(FailureKind::Guest)),
            true => (ends, None),
        };
        let obeys = tasks::obeys(&mut random);
        let asked_to_end = async {
            port.cancelled().await;
            if !obeys {
                std::future::pending::<()>().await;
            }
        };
        let failure = tokio::select! {
            biased;
            () = self.process.sleep_until(until) => failure,
            () = asked_to_end => Some(FailureKind::Cancelled),
        };
        let outcome = match failure {
            Some(kind) => Outcome::Failure(Failure::new(kind, "on purpose")),
            None => Outcome::Output(Payload::json(output(lease))),
        };
        AttemptEnd { outcome, usage: Usage::default() }
    }
}
