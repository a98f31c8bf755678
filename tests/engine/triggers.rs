//! Triggers and backfills under a clock that is turned.

use super::{Engine, at, name};
use innkeeper_domain::Timestamp;
use innkeeper_domain::backfill::{Again, BackfillSpec, BackfillState};
use innkeeper_domain::calendar::{BundledZones, CronSchedule, Dialect, Schedule, TimeZone, Zones};
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::{BackfillId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::trigger::{CatchUp, SkipReason, TriggerSpec};
use innkeeper_engine::backfill::Backfiller;
use innkeeper_engine::clock::{Clock, ManualClock, SystemClock};
use innkeeper_engine::scheduler::Scheduler;
use innkeeper_store::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    engine
        .store
        .trigger_pause(engine.tenant.id, &trigger, String::new(), QueuedRuns::Keep, at(5).into())
        .await
        .unwrap();
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
            let found = engine.store.trigger_get(engine.tenant.id, &trigger).await.unwrap();
            if found.started == 1 {
                return found.next_at;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(20), started).await.expect("a run");
    assert_eq!(next, Some(at(20)));
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
