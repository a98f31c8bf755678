//! The engine with a stub for a sandbox: the real scheduler and dispatcher over the real embedded store.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::backfill::{Again, BackfillSpec, BackfillState};
use innkeeper_domain::calendar::{BundledZones, CronSchedule, Dialect, Schedule, TimeZone, Zones};
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::host::{Host, Labels};
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TriggerId};
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
use innkeeper_domain::trigger::{CatchUp, SkipReason, TriggerSpec};
use innkeeper_engine::backfill::Backfiller;
use innkeeper_engine::clock::{Clock, ManualClock, SystemClock};
use innkeeper_engine::dispatcher::{Dispatcher, DispatcherConfig};
use innkeeper_engine::executor::{AttemptPort, Executor, Invocation};
use innkeeper_engine::retention::{Kept, Retention};
use innkeeper_engine::scheduler::Scheduler;
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
}

#[async_trait]
impl Executor for Stub {
    async fn execute(&self, invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let executing = self.executing.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(executing, Ordering::SeqCst);
        let end = Self::end(invocation, port).await;
        self.executing.fetch_sub(1, Ordering::SeqCst);
        end
    }
}

impl Stub {
    async fn end(invocation: Invocation, port: Arc<dyn AttemptPort>) -> AttemptEnd {
        let input = String::from_utf8(invocation.claimed.input.bytes).unwrap();
        let failure = |kind| Outcome::Failure(Failure::new(kind, "on purpose"));
        let outcome = match input.as_str() {
            "tells" => {
                let told = invocation.secrets.iter().map(|(key, text)| format!("{key}={}", text.expose()));
                Outcome::Output(Payload::json(told.collect::<Vec<_>>().join(" ")))
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
        let new = NewRun { id, task: name("work"), input, idempotency_key: None };
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

fn scheduler_of(engine: &Engine, clock: &Arc<ManualClock>) -> Scheduler {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Scheduler::new(Arc::clone(&engine.store), clock, Arc::new(BundledZones))
}

#[tokio::test]
async fn after_an_outage_each_catch_up_mode_accounts_for_every_time() {
    for (mode, runs, skipped) in [(CatchUp::Latest, 1, 359), (CatchUp::None, 1, 359), (CatchUp::All, 1, 359)]
    {
        let engine = Engine::new(at(0)).await;
        let clock = Arc::new(ManualClock::new(at(0)));
        let trigger = engine.trigger(mode, 10, 0).await;
        let scheduler = scheduler_of(&engine, &clock);
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
    let scheduler = scheduler_of(&engine, &clock);
    engine.store.trigger_pause(engine.tenant.id, &trigger, String::new(), at(5).into()).await.unwrap();
    clock.set(at(100));
    assert_eq!(scheduler.step().await, Ok(None));
    engine.store.trigger_resume(engine.tenant.id, &trigger, at(105).into()).await.unwrap();
    clock.set(at(110));
    assert_eq!(scheduler.step().await, Ok(Some(at(120))));
    let found = engine.store.trigger_get(engine.tenant.id, &trigger).await.unwrap();
    assert_eq!((found.started, found.skipped, found.last_nominal), (1, 10, Some(at(110))));
}

/// Zones of an edition in which every name means one and the same zone.
struct AllAre(&'static str);

impl Zones for AllAre {
    fn zone(&self, _name: &str) -> Option<TimeZone> {
        BundledZones.zone(self.0)
    }

    fn edition(&self) -> &str {
        self.0
    }
}

#[tokio::test]
async fn when_a_zones_data_changes_no_day_has_its_run_twice_or_goes_without() {
    let instant = |text: &str| text.parse::<Timestamp>().unwrap();
    let begin = instant("2026-01-08T12:00:00Z");
    let engine = Engine::new(begin).await;
    let clock = Arc::new(ManualClock::new(begin));
    let scheduler = |zones: Arc<dyn Zones>| {
        Scheduler::new(Arc::clone(&engine.store), Arc::clone(&clock) as Arc<dyn Clock>, zones)
    };
    let cron = CronSchedule::new("0 9 * * *", Dialect::Crontab, "Europe/Berlin");
    let (spec, input) = (TriggerSpec::new(Schedule::Cron(cron)), Payload::default());
    let id = TriggerId::new(begin);
    let first = spec.check(id, &input, &BundledZones, begin).unwrap();
    let new = NewTrigger { id, task: name("work"), name: Some(name("nine")), spec, input, first };
    engine.store.trigger_create(engine.tenant.id, new, begin.into()).await.unwrap();
    clock.set(instant("2026-01-09T08:00:00Z"));
    let next = scheduler(Arc::new(BundledZones)).step().await;
    assert_eq!(next, Ok(Some(instant("2026-01-10T08:00:00Z"))));
    // It turns out that nine o'clock is an hour later: that of the ninth, which is still to come now, has had its run.
    let later = scheduler(Arc::new(AllAre("Europe/London")));
    assert_eq!((later.retime().await, later.retime().await), (Ok(1), Ok(0)));
    clock.set(instant("2026-01-09T09:00:00Z"));
    assert_eq!(later.step().await, Ok(Some(instant("2026-01-10T09:00:00Z"))));
    // And then that it is two hours earlier: that of the tenth has passed, and is caught up with.
    clock.set(instant("2026-01-10T08:30:00Z"));
    let earlier = scheduler(Arc::new(AllAre("Europe/Helsinki")));
    assert_eq!(earlier.retime().await, Ok(1));
    assert_eq!(earlier.step().await, Ok(Some(instant("2026-01-11T07:00:00Z"))));
    let found = engine.store.trigger_get(engine.tenant.id, &name("nine")).await.unwrap();
    assert_eq!((found.skipped, found.last_nominal), (1, Some(instant("2026-01-09T08:00:00Z"))));
    let page = Page { size: 9, after: None };
    let skips = engine.store.trigger_skips(engine.tenant.id, &name("nine"), page).await.unwrap().items;
    assert_eq!((skips[0].from, skips[0].reason), (instant("2026-01-10T07:00:00Z"), SkipReason::Overlap));
}

#[tokio::test]
async fn a_backfill_goes_on_as_its_runs_end_and_through_what_ran_at_once() {
    let engine = Engine::new(at(0)).await;
    let trigger = engine.trigger(CatchUp::Latest, 10, 0).await;
    let clock = Arc::new(ManualClock::new(at(100_000)));
    scheduler_of(&engine, &clock).step().await.unwrap();
    let found = engine.store.trigger_get(engine.tenant.id, &trigger).await.unwrap();
    let spec = BackfillSpec { from: at(0), to: at(100_000), concurrency: 3, again: Again::None };
    // Most of them ran: more than one step goes through.
    let early = BackfillSpec { to: at(5_000), ..spec };
    for (spec, times) in [(early, 501), (spec, 10_001)] {
        let times_of = spec.times(found.id, &found.spec, Holidays::NONE, &BundledZones, at(100_000)).unwrap();
        assert_eq!(times_of.len(), times);
    }
    let backfill = async |spec: BackfillSpec| {
        let times = spec.times(found.id, &found.spec, Holidays::NONE, &BundledZones, at(100_000)).unwrap();
        let id = BackfillId::new(SystemClock.now());
        let new = NewBackfill { id, trigger: trigger.clone(), trigger_id: found.id, spec, times };
        engine.store.backfill_create(engine.tenant.id, new, SystemClock.now().into()).await.unwrap().id
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    for _ in 0..2 {
        // Two hosts that go about it at once.
        let worker =
            Backfiller::new(Arc::clone(&engine.store), Arc::new(SystemClock), Arc::new(BundledZones));
        let stopped = stop.clone();
        tasks.spawn(async move { worker.run(stopped).await });
    }
    tasks.close();
    let (stop_dispatch, dispatching) = engine.dispatch(Duration::from_secs(1));
    let finished = async |id: BackfillId| {
        loop {
            let found = engine.store.backfill_get(engine.tenant.id, id).await.unwrap();
            if found.state == BackfillState::Finished {
                return found;
            }
            assert!(found.counts.unfinished <= 3, "{found:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let first = tokio::time::timeout(Duration::from_secs(60), finished(backfill(early).await)).await.unwrap();
    assert_eq!((first.counts.created, first.counts.succeeded, first.counts.left_out), (501, 501, 0));
    assert!(engine.stub.most.load(Ordering::SeqCst) <= 4, "three, and the trigger's own one");
    let rest = BackfillSpec { to: at(5_100), ..spec };
    let second = tokio::time::timeout(Duration::from_secs(60), finished(backfill(rest).await)).await.unwrap();
    assert_eq!((second.counts.created, second.counts.left_out), (10, 501));
    stop.cancel();
    stop_dispatch.cancel();
    tasks.wait().await;
    dispatching.wait().await;
}

#[tokio::test]
async fn hosts_with_different_data_of_a_zone_don_t_run_a_day_twice() {
    let instant = |text: &str| text.parse::<Timestamp>().unwrap();
    let begin = instant("2026-01-08T12:00:00Z");
    let engine = Engine::new(begin).await;
    let clock = Arc::new(ManualClock::new(begin));
    let scheduler = |zone| {
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Scheduler::new(Arc::clone(&engine.store), clock, Arc::new(AllAre(zone)))
    };
    let (older, newer) = (scheduler("Europe/Berlin"), scheduler("Europe/Helsinki"));
    let cron = CronSchedule::new("0 9 * * *", Dialect::Crontab, "Europe/Berlin");
    let (spec, input) = (TriggerSpec::new(Schedule::Cron(cron)), Payload::default());
    let id = TriggerId::new(begin);
    let first = spec.check(id, &input, &AllAre("Europe/Helsinki"), begin).unwrap();
    let new = NewTrigger { id, task: name("work"), name: Some(name("nine")), spec, input, first };
    engine.store.trigger_create(engine.tenant.id, new, begin.into()).await.unwrap();
    // Nine by the newer data, which only the older host looks at: by its own it is eight.
    clock.set(instant("2026-01-09T07:00:00Z"));
    assert_eq!(older.step().await, Ok(Some(instant("2026-01-09T08:00:00Z"))));
    clock.set(instant("2026-01-09T08:00:00Z"));
    assert_eq!(older.step().await, Ok(Some(instant("2026-01-10T08:00:00Z"))));
    assert_eq!(newer.retime().await, Ok(1));
    clock.set(instant("2026-01-10T07:30:00Z"));
    assert_eq!(newer.step().await, Ok(Some(instant("2026-01-11T07:00:00Z"))));
    clock.set(instant("2026-01-10T08:00:00Z"));
    assert_eq!(older.step().await, Ok(Some(instant("2026-01-11T07:00:00Z"))));
    let found = engine.store.trigger_get(engine.tenant.id, &name("nine")).await.unwrap();
    assert_eq!(found.started + found.skipped, 2);
}

#[tokio::test]
async fn the_scheduler_wakes_when_a_trigger_is_due() {
    let engine = Engine::new(at(0)).await;
    let clock = Arc::new(ManualClock::new(at(0)));
    let scheduler = scheduler_of(&engine, &clock);
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
    engine.store.run_cancel(engine.tenant.id, id, SystemClock.now().into()).await.unwrap();
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
    let naming = TaskSpec { secrets, ..plain.clone() };
    engine.store.task_update(tenant, &name("work"), naming, None, now.into()).await.unwrap();
    let first = engine.start("tells").await;
    set("the second one").await;
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let output = |run: Run| String::from_utf8(run.output.unwrap().bytes).unwrap();
    assert_eq!(output(engine.end(first).await), "KEY=the second one");
    stop.cancel();
    tasks.wait().await;

    // One that is gone fails the run, and though another try would be left, that would not help.
    let orphan = engine.start("tells").await;
    engine.store.task_update(tenant, &name("work"), plain, None, now.into()).await.unwrap();
    engine.store.secret_delete(tenant, &name("password"), now.into()).await.unwrap();
    let (stop, tasks) = engine.dispatch(Duration::from_secs(5));
    let run = engine.end(orphan).await;
    let failure = run.failure.unwrap();
    assert_eq!((run.state, run.attempt, failure.kind), (RunState::Failed, 1, FailureKind::Secret));
    assert!(failure.message.contains("`password`"), "{failure:?}");
    stop.cancel();
    tasks.wait().await;
}
