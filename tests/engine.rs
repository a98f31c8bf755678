//! The engine with a stub for a sandbox: the real scheduler and dispatcher over the real embedded store.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::Schedule;
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::host::{Host, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::limits::RETENTION_STEP;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::retry::RetryPolicy;
use innkeeper_domain::run::{LogLevel, Progress, Run, RunState};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::trigger::{CatchUp, SkipReason, TriggerSpec};
use innkeeper_engine::clock::{Clock, ManualClock, SystemClock};
use innkeeper_engine::dispatcher::{Dispatcher, DispatcherConfig};
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use innkeeper_engine::retention::{Kept, Retention};
use innkeeper_engine::scheduler::Scheduler;
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::*;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Does what its input says.
struct Stub;

#[async_trait]
impl Executor for Stub {
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let input = String::from_utf8(invocation.claimed.input.bytes).unwrap();
        let failure = |kind| Outcome::Failure(Failure::new(kind, "on purpose"));
        let outcome = match input.as_str() {
            "fails" => failure(FailureKind::Trap),
            "fails once" if invocation.claimed.try_number == 1 => failure(FailureKind::Guest),
            "panics" => panic!("on purpose"),
            "waits" => {
                port.log(LogLevel::Info, "waiting".into());
                port.progress(Progress { done: 1, total: Some(2), note: "waiting".into() });
                port.cancelled().await;
                failure(FailureKind::Cancelled)
            }
            "hangs" => std::future::pending().await,
            _ => Outcome::Output(Payload::json(input)),
        };
        AttemptEnd { outcome, usage: Usage::default() }
    }
}

struct Engine {
    store: Arc<dyn Store>,
    tenant: Tenant,
    _folder: TempDir,
}

impl Engine {
    async fn new(now: Timestamp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let tenant = store.tenant_ensure(&name("default"), now).await.unwrap();
        let digest = Digest([1; 32]);
        let component = Component {
            digest,
            size: 0,
            shape: Shape::Handler,
            adapted: false,
            imports: vec![],
            created_at: now,
        };
        store.component_put(tenant.id, component, vec![]).await.unwrap();
        let mut retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        retry.backoff.initial = Duration::from_millis(1);
        let spec = TaskSpec { retry, ..TaskSpec::new(digest) };
        store
            .task_create(tenant.id, NewTask { id: TaskId::new(now), name: name("work"), spec }, now)
            .await
            .unwrap();
        Self { store, tenant, _folder: folder }
    }

    async fn trigger(&self, catch_up: CatchUp, every: u64, now: i64) -> Name {
        let schedule = Schedule::Interval { every: Duration::from_secs(every), anchor: at(now) };
        let spec = TriggerSpec { catch_up, ..TriggerSpec::new(schedule) };
        let input = Payload::default();
        let next_at = spec.check(&input, at(now)).unwrap();
        let id = TriggerId::new(at(now));
        let new = NewTrigger { id, task: name("work"), name: None, spec, input, next_at };
        self.store.trigger_create(self.tenant.id, new, at(now)).await.unwrap().name
    }

    async fn start(&self, input: &str) -> RunId {
        let id = RunId::new(SystemClock.now());
        let input = Payload { content_type: String::new(), bytes: input.into() };
        let new = NewRun { id, task: name("work"), input, idempotency_key: None };
        self.store.runs_start(self.tenant.id, vec![new], SystemClock.now()).await.unwrap();
        id
    }

    /// The run as soon as `wanted` is so.
    async fn until(&self, id: RunId, wanted: impl Fn(&Run) -> bool) -> Run {
        let mut watch = self.store.hints().watch_run(id);
        loop {
            let run = self.store.run_get(self.tenant.id, id).await.unwrap();
            if wanted(&run) {
                return run;
            }
            tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("a change");
        }
    }

    async fn end(&self, id: RunId) -> Run {
        self.until(id, |run| run.state.is_final()).await
    }

    /// Works on the store until the token is cancelled.
    fn dispatch(&self, drain_grace: Duration) -> (CancellationToken, TaskTracker) {
        let host = Host {
            id: HostId::new(SystemClock.now()),
            name: name("one"),
            address: String::new(),
            version: String::new(),
            roles: vec![],
            labels: Labels::default(),
            capacity: 8,
        };
        let config = DispatcherConfig { drain_grace, ..DispatcherConfig::new(host) };
        let dispatcher =
            Dispatcher::new(Arc::clone(&self.store), Arc::new(SystemClock), Arc::new(Stub), config);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        tasks.spawn(async move { dispatcher.run(stopped).await });
        tasks.close();
        (stop, tasks)
    }
}

#[tokio::test]
async fn after_an_outage_each_catch_up_mode_accounts_for_every_time() {
    for (mode, runs, skipped) in [(CatchUp::Latest, 1, 359), (CatchUp::None, 1, 359), (CatchUp::All, 1, 359)]
    {
        let engine = Engine::new(at(0)).await;
        let clock = Arc::new(ManualClock::new(at(0)));
        let trigger = engine.trigger(mode, 10, 0).await;
        let scheduler = Scheduler::new(Arc::clone(&engine.store), Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(scheduler.step().await, Ok(Some(at(10))));
        // An hour passes while nobody looks.
        clock.set(at(3_600));
        assert_eq!(scheduler.step().await, Ok(Some(at(3_610))));
        let found = engine.store.trigger_get(engine.tenant.id, &trigger).await.unwrap();
        assert_eq!((found.started, found.skipped), (runs, skipped), "{mode}");
        let skips = engine
            .store
            .trigger_skips(engine.tenant.id, &trigger, Page { size: 9, after: None })
            .await
            .unwrap();
        let reason = match mode {
            CatchUp::Latest => SkipReason::Superseded,
            CatchUp::None => SkipReason::Missed,
            // They were all due to run, but not beside each other: the overlap policy is `skip`.
            CatchUp::All => SkipReason::Overlap,
        };
        assert_eq!(skips.items.last().map(|oldest| oldest.reason), Some(reason), "{mode}: {skips:?}");
        assert_eq!(skips.items.iter().map(|skip| skip.count).sum::<u64>(), skipped, "{mode}: {skips:?}");
    }
}

#[tokio::test]
async fn what_passed_during_a_pause_is_skipped_and_then_it_goes_on() {
    let engine = Engine::new(at(0)).await;
    let clock = Arc::new(ManualClock::new(at(0)));
    let trigger = engine.trigger(CatchUp::All, 10, 0).await;
    let scheduler = Scheduler::new(Arc::clone(&engine.store), Arc::clone(&clock) as Arc<dyn Clock>);
    engine.store.trigger_pause(engine.tenant.id, &trigger, String::new(), at(5)).await.unwrap();
    clock.set(at(100));
    assert_eq!(scheduler.step().await, Ok(None));
    engine.store.trigger_resume(engine.tenant.id, &trigger, at(105)).await.unwrap();
    clock.set(at(110));
    assert_eq!(scheduler.step().await, Ok(Some(at(120))));
    let found = engine.store.trigger_get(engine.tenant.id, &trigger).await.unwrap();
    assert_eq!((found.started, found.skipped, found.last_nominal), (1, 10, Some(at(110))));
}

#[tokio::test]
async fn the_scheduler_wakes_when_a_trigger_is_due() {
    let engine = Engine::new(at(0)).await;
    let clock = Arc::new(ManualClock::new(at(0)));
    let scheduler = Scheduler::new(Arc::clone(&engine.store), Arc::clone(&clock) as Arc<dyn Clock>);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let stopped = stop.clone();
    tasks.spawn(async move { scheduler.run(stopped).await });
    // Made while it sleeps: a hint tells it.
    let trigger = engine.trigger(CatchUp::Latest, 10, 0).await;
    clock.set(at(10));
    let started = async {
        loop {
            engine.store.hints().runs_ready.notified().await;
            let found = engine.store.trigger_get(engine.tenant.id, &trigger).await.unwrap();
            if found.started == 1 {
                return found.next_at;
            }
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(20), started).await.expect("a run");
    assert_eq!(next, Some(at(20)));
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn runs_are_executed_retried_and_ended() {
    let engine = Engine::new(SystemClock.now()).await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let ids = [
        engine.start("works").await,
        engine.start("fails").await,
        engine.start("fails once").await,
        engine.start("panics").await,
    ];
    let mut ends = Vec::new();
    for id in ids {
        let run = engine.end(id).await;
        ends.push((run.state, run.attempt, run.attempts.last().unwrap().failure.as_ref().map(|f| f.kind)));
    }
    let expected = [
        (RunState::Succeeded, 1, None),
        (RunState::Failed, 2, Some(FailureKind::Trap)),
        (RunState::Succeeded, 2, None),
        (RunState::Failed, 2, Some(FailureKind::Internal)),
    ];
    assert_eq!(ends, expected);
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn a_running_attempt_is_heard_and_can_be_cancelled() {
    let engine = Engine::new(SystemClock.now()).await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let id = engine.start("waits").await;
    engine.until(id, |run| run.progress.is_some()).await;
    let lines = engine.store.run_logs(engine.tenant.id, id, (0, 0), 10).await.unwrap();
    assert_eq!(lines[0].text, "waiting");
    engine.store.run_cancel(engine.tenant.id, id, SystemClock.now()).await.unwrap();
    assert_eq!(engine.end(id).await.state, RunState::Cancelled);
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn a_host_that_stops_hands_back_what_does_not_end() {
    let engine = Engine::new(SystemClock.now()).await;
    let (stop, tasks) = engine.dispatch(Duration::from_millis(20));
    let id = engine.start("hangs").await;
    engine.until(id, |run| run.state == RunState::Running).await;
    stop.cancel();
    tasks.wait().await;
    let run = engine.store.run_get(engine.tenant.id, id).await.unwrap();
    assert_eq!((run.state, run.attempts.len()), (RunState::Queued, 0));
}

#[tokio::test]
async fn what_is_old_is_cleared_away_in_steps() {
    const DAY: i64 = 24 * 3600;
    let engine = Engine::new(at(0)).await;
    let start = |_| NewRun {
        id: RunId::new(at(0)),
        task: name("work"),
        input: Payload::default(),
        idempotency_key: None,
    };
    let starts = (0..=RETENTION_STEP).map(start).collect();
    engine.store.runs_start(engine.tenant.id, starts, at(0)).await.unwrap();
    engine.store.task_delete(engine.tenant.id, &name("work"), at(0)).await.unwrap();
    let left = async || {
        let page = Page { size: 1_000, after: None };
        engine.store.run_list(engine.tenant.id, RunFilter::default(), page).await.unwrap().items.len()
    };
    let clock = Arc::new(ManualClock::new(at(30 * DAY)));
    let retention = Retention::new(Arc::clone(&engine.store), Arc::clone(&clock) as _, Kept::default());
    assert_eq!(retention.step().await, Ok(Swept::default()), "not yet older than 30 days");

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let stopped = stop.clone();
    tasks.spawn(async move { retention.run(stopped).await });
    tasks.close();
    // It looks every minute, and after a step only makes a pause.
    let until = async |wanted: usize, turn: i64| {
        let turned = async {
            while left().await != wanted {
                clock.set(at(clock.now().as_second() + turn));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), turned).await.expect("a step");
    };
    clock.set(at(30 * DAY + 60));
    until(1, 0).await;
    until(0, 1).await;
    stop.cancel();
    tasks.wait().await;
}
