//! What a warm run costs: the bare engine, and the same guest through the whole runtime.

use crate::bindings::exports::innkeeper::task::handler::Payload;
use crate::compiler::Ready;
use crate::{Runtime, RuntimeError};
use innkeeper_domain::component::Digest;
use innkeeper_domain::failure::Outcome;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId};
use innkeeper_domain::payload::Payload as Input;
use innkeeper_domain::quota::AttemptBounds;
use innkeeper_domain::run::{Claimed, Lease, LogLevel, Progress};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time;
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A handler that gives its input back: one memory of one page, and the two functions that it needs.
pub const ECHO: &[u8] = include_bytes!("../guests/echo.wasm");

/// A command that takes all it can get of what the first byte of its input says; see its text.
pub const HOSTILE: &[u8] = include_bytes!("../guests/hostile.wasm");

/// How long runs took.
#[derive(Debug, Clone)]
pub struct Measured {
    pub runs_per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// The bench can't be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the guest of the bench can't be made ready: {0}")]
    NotReady(String),
    #[error("the guest of the bench failed: {0}")]
    Failed(String),
}

/// A port to nowhere.
struct Nowhere;

#[async_trait::async_trait]
impl AttemptPort for Nowhere {
    fn log(&self, _: LogLevel, _: String) {}
    fn progress(&self, _: Progress) {}
    fn is_cancelled(&self) -> bool {
        false
    }
    async fn cancelled(&self) {
        std::future::pending().await
    }
}

impl Runtime {
    /// The floor: a new store, instantiate, call, with nothing of the runtime's around it. One after
    /// another, for so long.
    pub async fn bench_bare(&self, duration: Duration) -> Result<Measured, BenchError> {
        let Ready::Handler(pre) = self.echo().await? else {
            return Err(BenchError::NotReady("it is no handler".into()));
        };
        let invocation = self.invocation();
        let input = Payload { content_type: String::new(), bytes: b"{}".to_vec() };
        let mut times = Times::begin(duration);
        while times.go_on() {
            let guest = crate::guest::Guest::bare(self, invocation.clone(), Arc::new(Nowhere));
            let mut store = wasmtime::Store::new(&self.engine, guest);
            store.set_epoch_deadline(u64::MAX / 2);
            let result = async {
                let task = pre.instantiate_async(&mut store).await?;
                task.innkeeper_task_handler().call_run(&mut store, &input).await
            };
            let result = result.await.map_err(|e| BenchError::Failed(format!("{e:#}")))?;
            result.map_err(|failure| BenchError::Failed(failure.message))?;
        }
        Ok(times.end())
    }

    /// The same guest through [`Executor::execute`].
    pub async fn bench_warm(&self, duration: Duration) -> Result<Measured, BenchError> {
        self.echo().await?;
        let port: Arc<dyn AttemptPort> = Arc::new(Nowhere);
        let invocation = self.invocation();
        let mut times = Times::begin(duration);
        while times.go_on() {
            let end = self.execute(invocation.clone(), Arc::clone(&port)).await;
            if let Outcome::Failure(failure) = end.outcome {
                return Err(BenchError::Failed(failure.message));
            }
        }
        Ok(times.end())
    }

    async fn echo(&self) -> Result<Ready, BenchError> {
        let digest = echo_digest();
        self.inspect(digest, ECHO.to_vec()).await.map_err(|e| BenchError::NotReady(e.to_string()))?;
        self.compiler.ready(digest).await.map_err(BenchError::NotReady)
    }

    #[allow(clippy::unwrap_used, reason = "the names are constants that are good names")]
    fn invocation(&self) -> Invocation {
        let now = (self.now)();
        let spec = TaskSpec::new(echo_digest());
        let claimed = Claimed {
            lease: Lease { run: RunId::new(now), host: HostId::new(now), attempt: 1 },
            try_number: 1,
            tenant_id: TenantId::new(now),
            tenant: "default".parse().unwrap(),
            bounds: AttemptBounds::default(),
            task_id: TaskId::new(now),
            task: "echo".parse().unwrap(),
            revision: 1,
            current_revision: 1,
            trigger: None,
            nominal_at: now,
            last_success_nominal: None,
            idempotency_key: None,
            input: Input::json("{}"),
            started_at: now,
            end_by: None,
        };
        Invocation {
            claimed,
            spec: Arc::new(spec),
            secrets: BTreeMap::new(),
            deadline: time::after(now, Duration::from_secs(24 * 3600)),
        }
    }
}

fn echo_digest() -> Digest {
    Digest(Sha256::digest(ECHO).into())
}

/// Durations of runs one after another.
struct Times {
    begun: Instant,
    last: Instant,
    duration: Duration,
    each: Vec<Duration>,
}

impl Times {
    fn begin(duration: Duration) -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, duration, each: Vec::new() }
    }

    /// Takes the time of the run before, and says whether there is time for another.
    fn go_on(&mut self) -> bool {
        let now = Instant::now();
        if now > self.begun {
            self.each.push(now - self.last);
        }
        self.last = now;
        now - self.begun < self.duration
    }

    fn end(mut self) -> Measured {
        let runs = self.each.len();
        self.each.sort_unstable();
        let at = |percent: usize| self.each.get(runs * percent / 100).copied().unwrap_or_default();
        let elapsed = self.last - self.begun;
        Measured { runs_per_second: runs as f64 / elapsed.as_secs_f64(), p50: at(50), p99: at(99) }
    }
}

#[cfg(test)]
mod tests {
    /// With `BLESS=1` in the environment the binaries are written anew.
    #[test]
    fn the_guests_are_what_their_texts_say() {
        let echo = crate::testing::handler(include_str!("../guests/echo.wat"));
        let hostile = wat::parse_str(include_str!("../guests/hostile.wat")).unwrap();
        for (file, built, kept) in [("echo", echo, super::ECHO), ("hostile", hostile, super::HOSTILE)] {
            if std::env::var_os("BLESS").is_some() {
                let path = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/guests/{}.wasm"), file);
                std::fs::write(path, &built).unwrap();
            }
            assert_eq!(built, kept, "{file}");
        }
    }
}
