//! Backfills: which times get a run and when, and what keeps one from going on.

use super::*;
use innkeeper_domain::backfill::*;
use innkeeper_domain::calendar::BundledZones;
use innkeeper_domain::holiday::Holidays;
use innkeeper_domain::ids::BackfillId;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::tenant::TenantState;
use innkeeper_store::postgres::PostgresStore;

impl Fixture {
    /// A trigger every 10 s that has come to 1,000, with runs at these seconds.
    async fn passed(&self, runs: &[i64]) -> TriggerId {
        let id = self.trigger(OverlapPolicy::AllowAll).await;
        let mut due = 10;
        for second in runs {
            self.advance(id, due, &[*second], vec![], Some(second + 5)).await;
            due = second + 5;
        }
        self.advance(id, due, &[], vec![], Some(1_000)).await;
        id
    }

    async fn new_backfill(&self, (from, to): (i64, i64), concurrency: u32, again: Again) -> NewBackfill {
        let spec = BackfillSpec { from: at(from), to: at(to), concurrency, again };
        let trigger = self.store.trigger_get(self.tenant.id, &name("work-1")).await.unwrap();
        let times =
            spec.times(trigger.id, &trigger.spec, Holidays::NONE, &BundledZones, at(100_000)).unwrap();
        NewBackfill {
            id: BackfillId::new(at(400)),
            trigger: trigger.name,
            trigger_id: trigger.id,
            spec,
            times,
        }
    }

    async fn backfill(&self, range: (i64, i64), concurrency: u32, again: Again) -> BackfillId {
        let new = self.new_backfill(range, concurrency, again).await;
        self.store.backfill_create(self.tenant.id, new, at(400).into()).await.unwrap().id
    }

    /// Has a backfill that can go on.
    pub async fn backfilled(&self) {
        self.backfill((20, 20), 1, Again::None).await;
    }

    /// What hosts would do next, three times in a stretch.
    async fn steps(&self, now: i64) -> Vec<BackfillStep> {
        let due = self.store.backfills_due(at(now), 9).await.unwrap();
        let step = |due: DueBackfill| {
            let timetable = timetable(due.trigger, &due.trigger_spec, due.from, &BundledZones).unwrap();
            let stretch = stretch(&timetable, Holidays::NONE, due.next_at, due.last_at, 3);
            let mut run_ids: Vec<RunId> = stretch.times.iter().map(|_| RunId::new(at(now))).collect();
            run_ids.sort();
            BackfillStep { id: due.id, next_at: due.next_at, stretch, run_ids }
        };
        due.into_iter().map(step).collect()
    }

    /// Goes on until none can; says how many runs were created.
    async fn go_on(&self, now: i64) -> u32 {
        let mut created = 0;
        loop {
            let steps = self.steps(now).await;
            if steps.is_empty() {
                return created;
            }
            for step in steps {
                created += self.store.backfill_advance(step, at(now)).await.unwrap();
            }
        }
    }

    async fn found(&self, id: BackfillId) -> Backfill {
        self.store.backfill_get(self.tenant.id, id).await.unwrap()
    }

    /// Created, left out, unfinished, succeeded, failed, cancelled.
    async fn counts(&self, id: BackfillId) -> [u64; 6] {
        let c = self.found(id).await.counts;
        [c.created, c.left_out, c.unfinished, c.succeeded, c.failed, c.cancelled]
    }

    /// Ends one run that is ready so, and says which time it was for.
    async fn end_one(&self, end: AttemptEnd) -> i64 {
        let claimed = self.claim(1).await.remove(0);
        self.finish(&claimed, end, None).await.unwrap();
        claimed.nominal_at.as_second()
    }
}

pub async fn a_backfill_goes_through_its_times_in_order(f: Fixture) {
    f.passed(&[]).await;
    let id = f.backfill((20, 90), 2, Again::None).await;
    let found = f.found(id).await;
    assert_eq!((found.times, found.remaining(), found.state), (8, 8, BackfillState::Active));
    assert_eq!(f.go_on(400).await, 2);
    assert_eq!((f.go_on(450).await, f.counts(id).await), (0, [2, 0, 2, 0, 0, 0]));
    let mut times = vec![f.end_one(output("1")).await];
    assert_eq!(f.go_on(451).await, 1, "one has made room for one");
    for n in 0..7 {
        times.push(f.end_one(if n % 2 == 0 { failed(FailureKind::Trap) } else { output("1") }).await);
        f.go_on(460 + n).await;
    }
    assert_eq!(times, [20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!(f.counts(id).await, [8, 0, 0, 4, 4, 0]);
    let found = f.found(id).await;
    assert_eq!((found.state, found.remaining()), (BackfillState::Finished, 0));
    assert_eq!(found.finished_at, Some(at(4)), "when its last run ended");
    let runs = f.store.run_list(f.tenant.id, RunFilter::default(), page(9, None)).await.unwrap().items;
    assert!(runs.iter().all(|run| run.backfill == Some(id) && run.trigger == Some(name("work-1"))));
    // It doesn't count among what the trigger started.
    let trigger = f.store.trigger_get(f.tenant.id, &name("work-1")).await.unwrap();
    assert_eq!((trigger.started, trigger.last_nominal), (0, None));
}

pub async fn a_step_of_a_backfill_takes_place_once(f: Fixture) {
    f.passed(&[]).await;
    let id = f.backfill((20, 90), 5, Again::None).await;
    let (one, other) = (f.steps(400).await.remove(0), f.steps(400).await.remove(0));
    assert_eq!(f.store.backfill_advance(one.clone(), at(400)).await, Ok(3));
    // The same decision of the same host, and that of another one.
    assert_eq!(f.store.backfill_advance(one, at(400)).await, Ok(0));
    assert_eq!(f.store.backfill_advance(other, at(400)).await, Ok(0));
    assert_eq!((f.go_on(400).await, f.counts(id).await), (2, [5, 0, 5, 0, 0, 0]));
}

pub async fn a_backfill_leaves_out_what_ran(f: Fixture) {
    f.passed(&[20, 30, 40, 50]).await;
    assert_eq!(f.end_one(output("1")).await, 20);
    assert_eq!(f.end_one(failed(FailureKind::Trap)).await, 30);
    let cancelled = f.store.run_list(f.tenant.id, RunFilter::default(), page(9, None)).await.unwrap().items;
    let cancelled = cancelled.iter().find(|run| run.nominal_at == at(40)).unwrap().id;
    f.store.run_cancel(f.tenant.id, cancelled, at(300).into()).await.unwrap();
    // Of 10 to 60: none, succeeded, failed, cancelled, queued, none.
    for (again, expected) in [(Again::None, 2), (Again::Failed, 4), (Again::All, 5)] {
        let new = f.new_backfill((10, 60), 9, again).await;
        let plan = f.store.backfill_plan(f.tenant.id, new).await.unwrap();
        assert_eq!((plan.times, plan.runs), (6, expected), "{again}");
        assert_eq!(plan.ran, [("succeeded", 1), ("failed", 1), ("cancelled", 1), ("queued", 1)].into());
    }
    let first = f.backfill((10, 60), 9, Again::None).await;
    assert_eq!((f.go_on(400).await, f.counts(first).await), (2, [2, 4, 2, 0, 0, 0]));
    // The first one's are unfinished, or have run by now.
    let failed_ones = f.backfill((10, 60), 9, Again::Failed).await;
    assert_eq!((f.go_on(400).await, f.counts(failed_ones).await), (2, [2, 4, 2, 0, 0, 0]));
    for claimed in f.claim(9).await {
        f.finish(&claimed, output("1"), None).await.unwrap();
    }
    let plan =
        f.store.backfill_plan(f.tenant.id, f.new_backfill((10, 60), 9, Again::None).await).await.unwrap();
    assert_eq!((plan.runs, plan.ran), (0, [("succeeded", 6)].into()), "the latest run counts");
    let none = f.backfill((10, 60), 9, Again::Failed).await;
    assert_eq!((f.go_on(400).await, f.found(none).await.state), (0, BackfillState::Finished));
    let all = f.backfill((10, 60), 9, Again::All).await;
    assert_eq!((f.go_on(400).await, f.counts(all).await), (6, [6, 0, 6, 0, 0, 0]));
}

pub async fn a_backfill_waits_for_what_passes(f: Fixture) {
    f.passed(&[]).await;
    let (tenant, trigger) = (f.tenant.id, name("work-1"));
    let id = f.backfill((20, 90), 2, Again::None).await;
    f.store.trigger_pause(tenant, &trigger, String::new(), QueuedRuns::Keep, at(400).into()).await.unwrap();
    assert_eq!((f.go_on(400).await, f.found(id).await.waits_for), (0, Some(SkipReason::Paused)));
    assert_eq!(f.steps(401).await, [], "it doesn't try again at once");
    f.store.trigger_resume(tenant, &trigger, at(402).into()).await.unwrap();
    f.set_state(TenantState::Suspended).await;
    assert_eq!((f.go_on(410).await, f.found(id).await.waits_for), (0, Some(SkipReason::TenantSuspended)));
    f.set_state(TenantState::Active).await;
    f.set(Quota::StoredBytes, Some(1_100)).await;
    assert_eq!((f.go_on(420).await, f.found(id).await.waits_for), (1, Some(SkipReason::Quota)));
    f.set(Quota::StoredBytes, None).await;
    assert_eq!((f.go_on(430).await, f.found(id).await.waits_for), (1, None));
    assert_eq!(f.counts(id).await, [2, 0, 2, 0, 0, 0]);
    let runs = f.store.run_list(tenant, RunFilter::default(), page(9, None)).await.unwrap().items;
    assert_eq!(runs.iter().map(|run| run.nominal_at).collect::<Vec<_>>(), [at(30), at(20)], "none was lost");
    assert!(f.store.trigger_skip_counts(tenant, &trigger).await.unwrap().is_empty());
}

pub async fn a_cancelled_backfill_creates_no_run(f: Fixture) {
    f.passed(&[]).await;
    let id = f.backfill((20, 90), 3, Again::None).await;
    let late = f.steps(400).await.remove(0);
    assert_eq!(f.go_on(400).await, 3);
    let running = f.claim(1).await.remove(0);
    let cancelled = f.store.backfill_cancel(f.tenant.id, id, at(401).into()).await.unwrap();
    assert_eq!((cancelled.state, cancelled.finished_at), (BackfillState::Cancelled, Some(at(401))));
    assert_eq!((cancelled.remaining(), f.counts(id).await), (0, [3, 0, 1, 0, 0, 2]));
    assert_eq!(f.store.backfill_advance(late, at(402)).await, Ok(0));
    f.finish(&running, output("1"), None).await.unwrap();
    assert_eq!((f.counts(id).await, f.go_on(500).await), ([3, 0, 0, 1, 0, 2], 0));
    // Again it changes nothing.
    let again = f.store.backfill_cancel(f.tenant.id, id, at(600).into()).await.unwrap();
    assert_eq!(again.finished_at, Some(at(401)));
    let missing = f.store.backfill_cancel(f.tenant.id, BackfillId::new(at(1)), at(600).into()).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
}

pub async fn a_deleted_trigger_has_no_backfills(f: Fixture) {
    for of_task in [false, true] {
        f.passed(&[]).await;
        let id = f.backfill((20, 90), 3, Again::None).await;
        f.go_on(400).await;
        let late = f.backfill((20, 90), 3, Again::None).await;
        let step = f.steps(401).await.remove(0);
        assert_eq!(step.id, late);
        let cancelled = if of_task {
            f.store.task_delete(f.tenant.id, &name("work"), at(402).into()).await
        } else {
            f.store.trigger_delete(f.tenant.id, &name("work-1"), at(402).into()).await
        };
        assert_eq!(cancelled, Ok(3));
        assert_eq!((f.store.backfill_advance(step, at(403)).await, f.go_on(500).await), (Ok(0), 0));
        let found = f.store.backfill_get(f.tenant.id, id).await;
        assert!(matches!(found, Err(StoreError::NotFound(_))), "{found:?}");
        assert_eq!(f.store.backfill_list(f.tenant.id, None, None, page(9, None)).await.unwrap().items, []);
    }
}

pub async fn a_backfill_and_its_trigger_do_not_stand_in_each_others_way(f: Fixture) {
    let trigger = f.trigger(OverlapPolicy::Skip).await;
    f.advance(trigger, 10, &[10], vec![], Some(500)).await;
    let id = f.backfill((20, 40), 2, Again::None).await;
    assert_eq!(f.go_on(400).await, 2, "the trigger's run is unfinished");
    let own = f.claim(1).await.remove(0);
    assert_eq!(own.nominal_at, at(10));
    f.finish(&own, output("1"), None).await.unwrap();
    assert_eq!(f.advance(trigger, 500, &[500], vec![], Some(510)).await, 1, "the backfill's are unfinished");
    for claimed in f.claim(9).await {
        f.finish(&claimed, output("1"), None).await.unwrap();
    }
    assert_eq!(f.advance(trigger, 510, &[510], vec![], Some(520)).await, 1);
    assert_eq!((f.go_on(600).await, f.counts(id).await), (1, [3, 0, 1, 2, 0, 0]));
    // What it tells its guests was before.
    let claimed = f.store.runs_claim(f.host, &Labels::default(), 9, at(600)).await.unwrap();
    let last: Vec<_> = claimed.iter().map(|run| (run.nominal_at, run.last_success_nominal)).collect();
    assert!(last.contains(&(at(40), None)) && last.contains(&(at(510), Some(at(500)))), "{last:?}");
}

pub async fn what_the_trigger_comes_to_is_not_backfilled(f: Fixture) {
    let trigger = f.trigger(OverlapPolicy::AllowAll).await;
    f.advance(trigger, 10, &[], vec![], Some(50)).await;
    let plan =
        f.store.backfill_plan(f.tenant.id, f.new_backfill((10, 70), 9, Again::None).await).await.unwrap();
    assert_eq!((plan.times, plan.runs, plan.left_to_trigger), (4, 4, 3));
    let id = f.backfill((10, 70), 9, Again::None).await;
    assert_eq!((f.go_on(400).await, f.found(id).await.left_to_trigger), (4, 3));
    let new = f.new_backfill((50, 70), 1, Again::None).await;
    let refused = f.store.backfill_create(f.tenant.id, new.clone(), at(400).into()).await;
    assert!(
        matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("trigger itself")),
        "{refused:?}"
    );
    // One that is paused comes to none of them: it skips them when it is resumed.
    f.store
        .trigger_pause(f.tenant.id, &name("work-1"), String::new(), QueuedRuns::Keep, at(400).into())
        .await
        .unwrap();
    f.store.backfill_create(f.tenant.id, new.clone(), at(400).into()).await.unwrap();
    // Another trigger of that name.
    f.store.trigger_delete(f.tenant.id, &name("work-1"), at(401).into()).await.unwrap();
    f.passed(&[]).await;
    let refused = f.store.backfill_create(f.tenant.id, new, at(402).into()).await;
    assert!(matches!(refused, Err(StoreError::NotFound(_))), "{refused:?}");
}

pub async fn a_trigger_has_so_many_backfills(f: Fixture) {
    f.passed(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(f.backfill((20, 90), 1, Again::None).await);
    }
    let more =
        f.store.backfill_create(f.tenant.id, f.new_backfill((20, 90), 1, Again::None).await, at(400).into());
    let more = more.await;
    assert!(matches!(&more, Err(StoreError::Conflict(why)) if why.contains("10 active")), "{more:?}");
    f.store.backfill_cancel(f.tenant.id, ids[3], at(401).into()).await.unwrap();
    ids.push(f.backfill((20, 90), 1, Again::None).await);
    ids.sort();
    ids.reverse();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let found =
            f.store.backfill_list(f.tenant.id, Some(&name("work-1")), None, page(4, after)).await.unwrap();
        listed.extend(found.items.iter().map(|backfill| backfill.id));
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ids);
    let only = |task: &str| Some([name(task)].into());
    let of = async |task| f.store.backfill_list(f.tenant.id, None, only(task), page(99, None)).await.unwrap();
    assert_eq!((of("work").await.items.len(), of("other").await.items.len()), (11, 0));
    let hidden =
        f.store.backfill_list(f.tenant.id, Some(&name("work-1")), only("other"), page(9, None)).await;
    assert!(matches!(hidden, Err(StoreError::NotFound(_))), "{hidden:?}");
    // Another tenant's is as one that isn't.
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap();
    let found = f.store.backfill_get(other.id, ids[0]).await;
    assert!(matches!(found, Err(StoreError::NotFound(_))), "{found:?}");
    let found = f.store.backfill_cancel(other.id, ids[0], at(500).into()).await;
    assert!(matches!(found, Err(StoreError::NotFound(_))), "{found:?}");
}

pub async fn an_old_backfill_goes(f: Fixture) {
    f.passed(&[]).await;
    let new = f.new_backfill((20, 90), 1, Again::Failed).await;
    let id = new.id;
    f.store.backfill_plan(f.tenant.id, new.clone()).await.unwrap();
    f.store.backfill_create(f.tenant.id, new, at(400).into()).await.unwrap();
    f.store.backfill_cancel(f.tenant.id, id, at(401).into()).await.unwrap();
    let found = f.found(id).await;
    assert_eq!((found.created_at, found.finished_at), (at(400), Some(at(401))));
    // With its runs, it goes when it is old.
    let keep = |second| Keep {
        runs_since: at(second),
        logs_since: at(0),
        skips_since: at(0),
        uploads_since: at(0),
        audit_since: Timestamp::MIN,
        usage_since: Timestamp::MIN,
        events_since: Timestamp::MIN,
        events_held_since: Timestamp::MIN,
    };
    assert_eq!(f.store.retention_step(keep(401), 9).await.unwrap().definitions, 0);
    assert_eq!(f.store.retention_step(keep(402), 9).await.unwrap().definitions, 1);
    let gone = f.store.backfill_get(f.tenant.id, id).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))), "{gone:?}");
    f.backfill((20, 90), 1, Again::None).await;
    assert_eq!(f.store.retention_step(keep(9_000), 9).await.unwrap().definitions, 0, "it is active");
}

/// Two hosts of a fleet take a backfill further and execute its runs at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backfill_keeps_its_concurrency_over_a_fleet() {
    let url = crate::cluster::database().parse().unwrap();
    let open = async || Arc::new(PostgresStore::open(&url).await.unwrap());
    let one = Fixture::new(open().await).await;
    let mut two = Fixture::new(open().await).await;
    two.host = HostId::new(at(1));
    two.store.host_start(Host { name: name("two"), ..a_host(two.host) }, at(1_000), at(1)).await.unwrap();
    one.passed(&[]).await;
    let id = one.backfill((20, 900), 3, Again::None).await;
    let work = async |f: &Fixture| {
        for _ in 0..5_000 {
            for step in f.steps(400).await {
                f.store.backfill_advance(step, at(400)).await.unwrap();
            }
            let found = f.found(id).await;
            assert!(found.counts.unfinished <= 3, "{found:?}");
            if found.state == BackfillState::Finished {
                return;
            }
            for claimed in f.claim(2).await {
                f.finish(&claimed, output("1"), None).await.unwrap();
            }
        }
        panic!("it doesn't finish: {:?}", f.found(id).await);
    };
    tokio::join!(work(&one), work(&two));
    assert_eq!(one.counts(id).await, [89, 0, 0, 89, 0, 0]);
    let runs = one.store.run_list(one.tenant.id, RunFilter::default(), page(999, None)).await.unwrap().items;
    let times: std::collections::BTreeSet<_> = runs.iter().map(|run| run.nominal_at).collect();
    assert_eq!((runs.len(), times.len()), (89, 89));
}

pub async fn a_retried_run_counts_for_its_backfill(f: Fixture) {
    f.passed(&[]).await;
    let id = f.backfill((20, 20), 1, Again::None).await;
    f.go_on(400).await;
    let claimed = f.claim(1).await;
    let run = claimed[0].lease.run;
    f.finish(&claimed[0], failed(FailureKind::Trap), None).await.unwrap();
    assert_eq!((f.counts(id).await, f.found(id).await.state), ([1, 0, 0, 0, 1, 0], BackfillState::Finished));
    let ids = vec![run];
    f.store.runs_retry(f.tenant.id, ids, OnRevision::Pinned, at(450).into()).await.unwrap();
    assert_eq!((f.counts(id).await, f.found(id).await.state), ([1, 0, 1, 0, 0, 0], BackfillState::Finished));
    let claimed = f.claim(1).await;
    f.finish(&claimed[0], output("1"), None).await.unwrap();
    assert_eq!((f.counts(id).await, f.found(id).await.state), ([1, 0, 0, 1, 0, 0], BackfillState::Finished));
}
