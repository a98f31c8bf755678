//! The engine with a stub for a sandbox: the real scheduler and dispatcher over the real embedded store.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "engine/triggers.rs"]
mod triggers;

use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{BundledZones, Schedule};
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::host::{Host, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::keyring::Keyring;
use innkeeper_domain::limits::RETENTION_STEP;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::retry::RetryPolicy;
use innkeeper_domain::run::{LogLevel, Progress, Run, RunState};
use innkeeper_domain::secret::SecretText;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::tenant::{Tenant, TenantState, TenantUpdate};
use innkeeper_domain::trigger::{CatchUp, TriggerSpec};
use innkeeper_engine::clock::{Clock, ManualClock, SystemClock};
use innkeeper_engine::dispatcher::{Dispatcher, DispatcherConfig};
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use innkeeper_engine::retention::{Kept, Retention};
use innkeeper_store::sqlite::SqliteStore;
use innkeeper_store::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::new(vec![[7; 32].into()]).unwrap())
}

/// Does what its input says, and sees how much it does at one time.
#[derive(Default)]
struct Stub {
    executing: AtomicUsize,
    most: AtomicUsize,
    /// Ends what ends late.
    late: CancellationToken,
}

#[async_trait]
impl Executor for Stub {
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let executing = self.executing.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(executing, Ordering::SeqCst);
        let end = self.end(invocation, port).await;
        self.executing.fetch_sub(1, Ordering::SeqCst);
        end
    }
}

impl Stub {
    async fn end(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let input = String::from_utf8(invocation.claimed.input.bytes).unwrap();
        let failure = |kind| Outcome::Failure(Failure::new(kind, "on purpose"));
        let is_newest = invocation.claimed.revision == invocation.claimed.current_revision;
        let outcome = match input.as_str() {
            "tells when it is old" if is_newest => failure(FailureKind::Guest),
            "tells" | "tells when it is old" => {
                let hosts = invocation.spec.allow_http.iter().map(ToString::to_string);
                let secrets = invocation.secrets.iter().map(|(key, text)| format!("{key}={}", text.expose()));
                Outcome::Output(Payload::json(hosts.chain(secrets).collect::<Vec<_>>().join(" ")))
            }
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
            "ends late, with much" => {
                (0..600).for_each(|line| port.log(LogLevel::Info, format!("line {line}")));
                self.late.cancelled().await;
                Outcome::Output(Payload::json("x".repeat(1 << 20)))
            }
            "is late" => {
                SystemClock.sleep_until(invocation.deadline).await;
                failure(FailureKind::Timeout)
            }
            "takes a while" => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Outcome::Output(Payload::json(input))
            }
            _ => Outcome::Output(Payload::json(input)),
        };
        AttemptEnd { outcome, usage: Usage::default() }
    }
}

struct Engine {
    stub: Arc<Stub>,
    store: Arc<dyn Store>,
    tenant: Tenant,
    _folder: Arc<TempDir>,
}

impl Engine {
    async fn new(now: Timestamp) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path()).unwrap());
        Self::of_tenant("default", store, folder, now).await
    }

    /// Another tenant on the same store.
    async fn neighbour(&self, tenant: &str) -> Self {
        Self::of_tenant(tenant, Arc::clone(&self.store), Arc::clone(&self._folder), SystemClock.now()).await
    }

    async fn of_tenant(tenant: &str, store: Arc<dyn Store>, folder: Arc<TempDir>, now: Timestamp) -> Self {
        let tenant = store.tenant_ensure(&name(tenant), now).await.unwrap();
        let digest = Digest([1; 32]);
        let component = Component {
            digest,
            size: 0,
            shape: Shape::Handler,
            adapted: false,
            imports: vec![],
            created_at: now,
        };
        store.component_put(tenant.id, component, vec![], at(1).into()).await.unwrap();
        let mut retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        retry.backoff.initial = Duration::from_millis(1);
        let spec = TaskSpec { retry, ..TaskSpec::new(digest) };
        store
            .task_create(tenant.id, NewTask { id: TaskId::new(now), name: name("work"), spec }, now.into())
            .await
            .unwrap();
        Self { stub: Arc::default(), store, tenant, _folder: folder }
    }

    async fn update(&self, update: TenantUpdate) {
        self.store.tenant_update(&self.tenant.name, update, SystemClock.now().into()).await.unwrap();
    }

    async fn flood(&self, count: usize, input: &str) -> Vec<RunId> {
        let input = Payload { content_type: String::new(), bytes: input.into() };
        let new = |_| NewRun {
            id: RunId::new(SystemClock.now()),
            task: name("work"),
            input: input.clone(),
            idempotency_key: None,
            options: StartOptions::default(),
        };
        let starts: Vec<NewRun> = (0..count).map(new).collect();
        let ids = starts.iter().map(|start| start.id).collect();
        self.store.runs_start(self.tenant.id, starts, SystemClock.now().into()).await.unwrap();
        ids
    }

    async fn ended(&self) -> usize {
        let page = Page { size: 2_000, after: None };
        let runs = self.store.run_list(self.tenant.id, RunFilter::default(), page).await.unwrap().items;
        runs.iter().filter(|run| run.state.is_final()).count()
    }

    async fn trigger(&self, catch_up: CatchUp, every: u64, now: i64) -> Name {
        let schedule = Schedule::Interval { every: Duration::from_secs(every), anchor: at(now) };
        let spec = TriggerSpec { catch_up, ..TriggerSpec::new(schedule) };
        let input = Payload::default();
        let id = TriggerId::new(at(now));
        let first = spec.check(id, &input, &BundledZones, at(now)).unwrap();
        let new = NewTrigger { id, task: name("work"), name: None, spec, input, first };
        self.store.trigger_create(self.tenant.id, new, at(now).into()).await.unwrap().name
    }

    async fn start(&self, input: &str) -> RunId {
        let id = RunId::new(SystemClock.now());
        let input = Payload { content_type: String::new(), bytes: input.into() };
        let new =
            NewRun { id, task: name("work"), input, idempotency_key: None, options: StartOptions::default() };
        self.store.runs_start(self.tenant.id, vec![new], SystemClock.now().into()).await.unwrap();
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
        let dispatcher = Dispatcher::new(
            Arc::clone(&self.store),
            Arc::new(SystemClock),
            Arc::clone(&self.stub) as _,
            keyring(),
            config,
        );
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let stopped = stop.clone();
        tasks.spawn(async move { dispatcher.run(stopped).await });
        tasks.close();
        (stop, tasks)
    }
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
    engine.store.run_cancel(engine.tenant.id, id, SystemClock.now().into()).await.unwrap();
    assert_eq!(engine.end(id).await.state, RunState::Cancelled);
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn an_attempt_ends_with_its_runs_deadline_and_is_not_tried_again() {
    let engine = Engine::new(SystemClock.now()).await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let deadlines = Deadlines { start: None, end: Some(Duration::from_millis(50)) };
    let new = NewRun {
        id: RunId::new(SystemClock.now()),
        task: name("work"),
        input: Payload { content_type: String::new(), bytes: "is late".into() },
        idempotency_key: None,
        options: StartOptions { deadlines, ..StartOptions::default() },
    };
    let id = new.id;
    engine.store.runs_start(engine.tenant.id, vec![new], SystemClock.now().into()).await.unwrap();
    let run = engine.end(id).await;
    assert_eq!((run.state, run.attempt), (RunState::Failed, 1));
    assert_eq!(run.failure.map(|failure| failure.kind), Some(FailureKind::Deadline));
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
async fn what_has_ended_is_committed_though_the_host_ends_its_attempts() {
    let engine = Engine::new(SystemClock.now()).await;
    let (stop, tasks) = engine.dispatch(Duration::ZERO);
    let runs = engine.flood(8, "ends late, with much").await;
    // The store has them running a little before they execute.
    while engine.stub.executing.load(Ordering::SeqCst) < runs.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.stub.late.cancel();
    stop.cancel();
    tasks.wait().await;
    for id in runs {
        let run = engine.store.run_get(engine.tenant.id, id).await.unwrap();
        assert_eq!((run.state, run.attempts.len()), (RunState::Succeeded, 1));
    }
}

#[tokio::test]
async fn a_flood_of_one_tenant_does_not_keep_another_waiting() {
    let engine = Engine::new(SystemClock.now()).await;
    let other = engine.neighbour("other").await;
    engine.flood(1_000, "takes a while").await;
    let single = other.start("works").await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    other.end(single).await;
    let ended = engine.ended().await;
    assert!(ended < 500, "{ended} of the flood came before it");
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn so_many_runs_of_a_tenant_at_one_time_and_without_a_pause_between_them() {
    let engine = Engine::new(SystemClock.now()).await;
    let quotas = [(Quota::ConcurrentRuns, Some(2))].into();
    engine.update(TenantUpdate { quotas, ..TenantUpdate::default() }).await;
    let runs = engine.flood(100, "takes a while").await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    // At the pace of polling this would take 50 seconds.
    for run in runs {
        engine.end(run).await;
    }
    assert_eq!(engine.stub.most.load(Ordering::SeqCst), 2);
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test]
async fn nothing_of_a_suspended_tenant_is_executed_until_it_is_resumed() {
    let engine = Engine::new(SystemClock.now()).await;
    let other = engine.neighbour("other").await;
    let waits = engine.start("works").await;
    let set = async |state| {
        let state = Some((state, String::new()));
        engine.update(TenantUpdate { state, ..TenantUpdate::default() }).await;
    };
    set(TenantState::Suspended).await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let later = other.start("works").await;
    other.end(later).await;
    assert_eq!(engine.ended().await, 0);
    set(TenantState::Active).await;
    assert_eq!(engine.end(waits).await.state, RunState::Succeeded);
    stop.cancel();
    tasks.wait().await;
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
        options: StartOptions::default(),
    };
    let starts = (0..=RETENTION_STEP).map(start).collect();
    engine.store.runs_start(engine.tenant.id, starts, at(0).into()).await.unwrap();
    engine.store.task_delete(engine.tenant.id, &name("work"), at(0).into()).await.unwrap();
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

#[tokio::test]
async fn an_attempt_has_the_secrets_that_its_revision_names_as_they_are_when_it_begins() {
    let engine = Engine::new(SystemClock.now()).await;
    let (tenant, now) = (engine.tenant.id, SystemClock.now());
    let set = async |text: &str| {
        let text = SecretText::new(text.into()).unwrap();
        let sealed = keyring().seal(tenant, name("password"), &text, [text.expose().len() as u8; 24], now);
        engine.store.secret_put(sealed, now.into()).await.unwrap();
    };
    set("the first").await;
    let plain = engine.store.task_get(tenant, &name("work")).await.unwrap().spec;
    let secrets = [("KEY".to_string(), name("password"))].into();
    let naming = TaskSpec { secrets, ..plain };
    engine
        .store
        .task_update(tenant, &name("work"), naming, None, OnGrowth::Accept, now.into())
        .await
        .unwrap();
    let first = engine.start("tells").await;
    set("the second one").await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let output = |run: Run| String::from_utf8(run.output.unwrap().bytes).unwrap();
    assert_eq!(output(engine.end(first).await), "KEY=the second one");
    stop.cancel();
    tasks.wait().await;

    // One that can't be opened fails the run, and though another try would be left, that would not help.
    let text = SecretText::new("the third".into()).unwrap();
    let other = Keyring::new(vec![[8; 32].into()]).unwrap();
    let sealed = other.seal(tenant, name("password"), &text, [3; 24], now);
    engine.store.secret_put(sealed, now.into()).await.unwrap();
    let orphan = engine.start("tells").await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let run = engine.end(orphan).await;
    let failure = run.failure.unwrap();
    assert_eq!((run.state, run.attempt, failure.kind), (RunState::Failed, 1, FailureKind::Secret));
    assert!(failure.message.contains(other.key_id()), "{failure:?}");
    stop.cancel();
    tasks.wait().await;
}

/// Runs are pinned to a revision, but not to what it was granted: neither those that wait, nor those that are tried again.
#[tokio::test]
async fn an_attempt_has_no_grant_that_its_task_has_no_more() {
    let engine = Engine::new(SystemClock.now()).await;
    let (tenant, work, now) = (engine.tenant.id, name("work"), SystemClock.now());
    for secret in ["kept", "old"] {
        let text = SecretText::new(format!("the {secret} one")).unwrap();
        let sealed = keyring().seal(tenant, name(secret), &text, [secret.len() as u8; 24], now);
        engine.store.secret_put(sealed, now.into()).await.unwrap();
    }
    let plain = engine.store.task_get(tenant, &work).await.unwrap().spec;
    let granted = |hosts: &[&str], secrets: &[&str]| TaskSpec {
        allow_http: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        secrets: secrets.iter().map(|secret| (secret.to_string(), name(secret))).collect(),
        ..plain.clone()
    };
    let update = async |spec| {
        engine.store.task_update(tenant, &work, spec, None, OnGrowth::Accept, now.into()).await.unwrap()
    };
    update(granted(&["kept.example", "old.example"], &["kept", "old"])).await;
    let (first, failing) = (engine.start("tells").await, engine.start("tells when it is old").await);
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let output = |run: Run| String::from_utf8(run.output.unwrap().bytes).unwrap();
    let all = "kept.example old.example kept=the kept one old=the old one";
    assert_eq!(output(engine.end(first).await), all);
    assert_eq!(engine.end(failing).await.state, RunState::Failed);
    stop.cancel();
    tasks.wait().await;

    let waiting = engine.start("tells").await;
    update(granted(&["kept.example"], &["kept"])).await;
    let retried = engine
        .store
        .runs_retry(tenant, vec![failing], OnRevision::Pinned, SystemClock.now().into())
        .await
        .unwrap();
    assert_eq!(retried.reopened, [failing]);
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    for pinned in [waiting, failing] {
        let run = engine.end(pinned).await;
        assert_eq!((run.revision, output(run).as_str()), (2, "kept.example kept=the kept one"));
    }
    stop.cancel();
    tasks.wait().await;
}
