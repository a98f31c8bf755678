//! What tenants may have, what they have used, and what is left of those that are deleted.

use super::*;
use innkeeper_domain::audit::Change;
use innkeeper_domain::bill::{Bill, Used};
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::{STORED_BYTES_PER_LINE, STORED_BYTES_PER_RUN};
use innkeeper_domain::network::NetworkSet;
use innkeeper_domain::quota::{AttemptBounds, Quota, Quotas};
use innkeeper_domain::tenant::{TenantState, TenantUpdate};
use innkeeper_domain::timetable::Reckoning;
use innkeeper_store::postgres::PostgresStore;

const DAY: i64 = 86_400;

impl Fixture {
    async fn update(&self, update: TenantUpdate) {
        self.store.tenant_update(&self.tenant.name, update, at(1).into()).await.expect("an update");
    }

    pub async fn set(&self, quota: Quota, limit: Option<u64>) {
        self.update(TenantUpdate { quotas: [(quota, limit)].into(), ..TenantUpdate::default() }).await;
    }

    pub async fn set_state(&self, state: TenantState) {
        let state = Some((state, String::new()));
        self.update(TenantUpdate { state, ..TenantUpdate::default() }).await;
    }

    /// The results of starts in one call at this second.
    async fn starts(&self, count: usize, second: i64) -> Vec<Result<Started, StartError>> {
        let starts = (0..count).map(|_| self.new_run("1", None)).collect();
        self.store.runs_start(self.tenant.id, starts, at(second).into()).await.expect("a call")
    }

    async fn claim_at(&self, limit: usize, second: i64) -> Vec<Claimed> {
        self.store.runs_claim(self.host, &Labels::default(), limit, at(second)).await.expect("a claim")
    }

    async fn bills(&self) -> Vec<Bill> {
        let mut bills = Vec::new();
        let mut after = None;
        loop {
            let days = ("1970-01-01".parse().unwrap(), "1999-12-31".parse().unwrap());
            let filter = UsageFilter { tenant: Some(self.tenant.id), task: None, days };
            let found = self.store.usage_list(filter, page(1, after)).await.expect("bills");
            bills.extend(found.items);
            after = found.next;
            if after.is_none() {
                return bills;
            }
        }
    }

    pub async fn stored(&self) -> u64 {
        let used = self.store.tenant_use(self.tenant.id, at(5)).await.expect("what is used");
        used.0[&Quota::StoredBytes]
    }

    /// What the rows say that can be read.
    pub async fn stored_by_rows(&self) -> u64 {
        let components = self.store.component_list(self.tenant.id, page(99, None)).await.unwrap().items;
        let mut sum: u64 = components.iter().map(|component| component.size).sum();
        for run in
            self.store.run_list(self.tenant.id, RunFilter::default(), page(999, None)).await.unwrap().items
        {
            let run = self.run(run.id).await;
            sum += STORED_BYTES_PER_RUN + run.input.bytes.len() as u64;
            sum += run.output.map_or(0, |output| output.bytes.len() as u64);
            let log = self.store.run_logs(self.tenant.id, run.id, (0, 0), 99_999).await.unwrap();
            sum += log.iter().map(|line| STORED_BYTES_PER_LINE + line.text.len() as u64).sum::<u64>();
        }
        sum
    }

    /// Another tenant on the same store, with a task `work`.
    async fn neighbour(&self, text: &str, weight: u32, quotas: Quotas) -> Fixture {
        let new = NewTenant { id: TenantId::new(at(1)), name: name(text), weight, quotas };
        let tenant = self.store.tenant_create(new, at(1).into()).await.expect("a tenant");
        let put = self.store.component_put(tenant.id, component(digest()), b"wasm".to_vec(), at(1).into());
        put.await.expect("a component");
        let work = NewTask { id: TaskId::new(at(1)), name: name("work"), spec: TaskSpec::new(digest()) };
        self.store.task_create(tenant.id, work, at(1).into()).await.expect("a task");
        Fixture { store: Arc::clone(&self.store), tenant, host: self.host }
    }
}

fn over(result: &Result<Started, StartError>) -> Option<Quota> {
    match result {
        Err(StartError::Rejected(Rejection::Quota(exceeded))) => Some(exceeded.quota),
        _ => None,
    }
}

fn lines(count: u32) -> Vec<LogLine> {
    let line =
        |sequence| LogLine { attempt: 1, sequence, at: at(3), level: LogLevel::Info, text: "said".into() };
    (1..=count).map(line).collect()
}

pub async fn a_suspended_tenant_begins_nothing(f: Fixture) {
    f.start("1").await;
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    f.set_state(TenantState::Suspended).await;
    assert_eq!(f.claim(9).await, []);
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(0)).await, Ok(None));
    assert_eq!(f.starts(1, 2).await, [Err(StartError::Rejected(Rejection::TenantSuspended))]);
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.skips().await, [skip(10, 10, 1, SkipReason::TenantSuspended)]);
    let upload = f.store.upload_begin(f.tenant.id, Digest([3; 32]), 9, at(2)).await;
    assert!(matches!(&upload, Err(StoreError::Conflict(words)) if words.contains("suspended")), "{upload:?}");
    let put = f.store.component_put(f.tenant.id, component(digest()), b"wasm".to_vec(), at(1).into()).await;
    assert!(matches!(&put, Err(StoreError::Conflict(words)) if words.contains("suspended")), "{put:?}");
    f.set_state(TenantState::Active).await;
    assert_eq!(f.claim(9).await.len(), 1);
    assert_eq!(f.advance(id, 20, &[20], vec![], Some(30)).await, 1);
}

pub async fn triggers_and_components_are_counted(f: Fixture) {
    f.set(Quota::Triggers, Some(1)).await;
    f.set(Quota::Components, Some(1)).await;
    f.trigger(OverlapPolicy::Skip).await;
    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let new = |id| NewTrigger {
        id,
        task: name("work"),
        name: None,
        spec: TriggerSpec::new(schedule.clone()),
        input: Payload::default(),
        first: Some(Reckoning::plain(at(10), at(2))),
    };
    let create = async || f.store.trigger_create(f.tenant.id, new(TriggerId::new(at(2))), at(2).into()).await;
    let refused = create().await.unwrap_err();
    assert!(matches!(refused, StoreError::Quota(e) if (e.limit, e.used, e.asked) == (1, 1, 1)), "{refused}");
    f.store.trigger_delete(f.tenant.id, &name("work-1"), at(3).into()).await.unwrap();
    assert!(create().await.is_ok());
    let put = async |n: u8| {
        f.store.component_put(f.tenant.id, component(Digest([n; 32])), vec![n], at(1).into()).await
    };
    assert!(matches!(put(1).await, Err(StoreError::Quota(e)) if e.quota == Quota::Components));
    let again = f.store.component_put(f.tenant.id, component(digest()), b"wasm".to_vec(), at(1).into()).await;
    assert_eq!(again, Ok(true), "what is there is no more");
}

pub async fn stored_bytes_are_those_of_the_rows(f: Fixture) {
    let check = async || assert_eq!(f.stored().await, f.stored_by_rows().await);
    check().await;
    for n in 0..4 {
        f.start(&n.to_string()).await;
    }
    check().await;
    let claimed = f.claim(3).await;
    let news = AttemptNews { lease: claimed[0].lease, lines: lines(3), progress: None };
    f.store.runs_news(vec![news.clone()]).await.unwrap();
    check().await;
    // Told once more, with one that is new.
    f.store.runs_news(vec![news.clone(), AttemptNews { lines: lines(4), ..news }]).await.unwrap();
    check().await;
    let end = async |claimed: &Claimed, count| {
        let finish = Finish { lease: claimed.lease, end: output("[1]"), again_at: None, lines: lines(count) };
        f.store.run_finish_if_leased(finish, at(4)).await.unwrap()
    };
    end(&claimed[0], 6).await;
    end(&claimed[1], 21_000).await;
    f.finish(&claimed[2], failed(FailureKind::Trap), None).await.unwrap();
    check().await;
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    f.advance(id, 10, &[10, 20], vec![], Some(30)).await;
    check().await;
    let keep = |second| Keep {
        runs_since: at(second),
        logs_since: at(9_000),
        skips_since: at(0),
        uploads_since: at(0),
        audit_since: at(0),
        usage_since: at(0),
        events_since: Timestamp::MIN,
        events_held_since: Timestamp::MIN,
    };
    // Long logs go in pieces, and runs after them.
    for second in [0, 9_000] {
        while !f.store.retention_step(keep(second), 9).await.unwrap().is_empty() {
            check().await;
        }
    }
    assert_eq!(f.stored().await, 4 + 3 * (STORED_BYTES_PER_RUN + 1) + 2);
}

pub async fn nothing_is_begun_over_the_stored_bytes(f: Fixture) {
    let run = STORED_BYTES_PER_RUN + 1;
    f.set(Quota::StoredBytes, Some(4 + 3 * run + 1)).await;
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    let started = f.starts(2, 2).await;
    assert!(started.iter().all(Result::is_ok), "{started:?}");
    // The trigger's input has two bytes.
    assert_eq!(f.advance(id, 10, &[10, 20], vec![], Some(30)).await, 1);
    assert_eq!(f.skips().await, [skip(20, 20, 1, SkipReason::Quota)]);
    assert_eq!(f.starts(1, 2).await.iter().map(over).collect::<Vec<_>>(), [Some(Quota::StoredBytes)]);
    let begin = async |n: u8, size| f.store.upload_begin(f.tenant.id, Digest([n; 32]), size, at(2)).await;
    assert!(matches!(begin(1, 1).await, Err(StoreError::Quota(_))));
    f.set(Quota::StoredBytes, Some(f.stored().await + 9)).await;
    assert_eq!(begin(1, 9).await, Ok(0));
    assert!(matches!(begin(2, 1).await, Err(StoreError::Quota(_))), "what is declared counts");
    assert_eq!(begin(1, 9).await, Ok(0));
    let put = Component { size: 9, ..component(Digest([1; 32])) };
    let put = f.store.component_put(f.tenant.id, put, vec![0; 9], at(1).into()).await;
    assert_eq!(put, Ok(false), "its own upload is not counted twice");
}

pub async fn over_the_stored_bytes_runs_wait_for_room(f: Fixture) {
    f.starts(4, 2).await;
    let full = f.stored().await;
    f.set(Quota::StoredBytes, Some(full)).await;
    // Nothing is over yet: all that was let in may begin.
    let claimed = f.claim(1).await.remove(0);
    let finish = Finish { lease: claimed.lease, end: output("[1]"), again_at: None, lines: lines(3) };
    f.store.run_finish_if_leased(finish, at(4)).await.unwrap();
    assert!(f.stored().await > full);
    assert_eq!(f.claim(9).await, []);
    let neighbour = f.neighbour("other", 1, Quotas::default()).await;
    neighbour.starts(1, 3).await;
    assert_eq!(f.claim(9).await.len(), 1, "a neighbour's");
    assert_eq!(f.claim(9).await, []);
    // The retention makes room.
    let keep = Keep {
        runs_since: at(9_000),
        logs_since: at(9_000),
        skips_since: at(0),
        uploads_since: at(0),
        audit_since: at(0),
        usage_since: at(0),
        events_since: Timestamp::MIN,
        events_held_since: Timestamp::MIN,
    };
    while !f.store.retention_step(keep, 9).await.unwrap().is_empty() {}
    assert_eq!(f.claim(9).await.len(), 3);
}

pub async fn starts_come_at_their_rate(f: Fixture) {
    f.set(Quota::StartsPerSecond, Some(3)).await;
    let results = f.starts(5, 100).await;
    let refused: Vec<_> = results.iter().map(over).collect();
    let rate = Some(Quota::StartsPerSecond);
    assert_eq!(refused, [None, None, None, rate, rate]);
    assert_eq!(f.starts(1, 100).await.iter().map(over).collect::<Vec<_>>(), [rate]);
    // One that is there already takes nothing.
    let keyed = async |second| {
        let new = f.new_run("1", Some("a"));
        f.store.runs_start(f.tenant.id, vec![new; 4], at(second).into()).await.unwrap()
    };
    assert!(keyed(101).await.iter().all(Result::is_ok));
    assert_eq!(f.starts(3, 101).await.iter().map(over).collect::<Vec<_>>(), [None, None, rate]);
    // Triggers have no rate.
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    assert_eq!(f.advance(id, 10, &[10, 20, 30, 40, 50], vec![], Some(60)).await, 5);
}

pub async fn the_cpu_time_of_a_day_runs_out_and_begins_anew(f: Fixture) {
    f.set(Quota::CpuPerDay, Some(3_000)).await;
    f.set(Quota::RunMemory, Some(99)).await;
    let open_networks: NetworkSet = "loopback,private".parse().unwrap();
    f.set(Quota::OpenNetworks, Some(open_networks.bits())).await;
    f.starts(4, 2).await;
    // Each uses 2 ms.
    for left in [3, 1] {
        let claimed = f.claim(1).await.remove(0);
        let cpu = Some(Duration::from_millis(left));
        assert_eq!(claimed.bounds, AttemptBounds { memory: Some(99), log_bytes: None, cpu, open_networks });
        f.finish(&claimed, output("1"), None).await.unwrap();
    }
    assert_eq!(f.claim(9).await, []);
    assert_eq!(f.starts(1, 5).await.iter().map(over).collect::<Vec<_>>(), [Some(Quota::CpuPerDay)]);
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.skips().await, [skip(10, 10, 1, SkipReason::Quota)]);
    assert_eq!(f.claim_at(9, DAY).await.len(), 2);
    assert_eq!(f.starts(1, DAY).await.iter().map(over).collect::<Vec<_>>(), [None]);
}

pub async fn so_many_runs_at_one_time_and_not_more(f: Fixture) {
    f.set(Quota::ConcurrentRuns, Some(2)).await;
    f.starts(5, 2).await;
    let claimed = f.claim(9).await;
    assert_eq!(claimed.len(), 2);
    assert_eq!(f.claim(9).await, []);
    // Whoever claims is told when there is room.
    let _ = tokio::time::timeout(Duration::ZERO, f.store.hints().runs_ready.notified()).await;
    f.finish(&claimed[0], output("1"), None).await.unwrap();
    let woken = f.store.hints().runs_ready.notified();
    tokio::time::timeout(Duration::from_secs(5), woken).await.expect("a wake-up");
    assert_eq!(f.claim(9).await.len(), 1);
    f.set(Quota::ConcurrentRuns, None).await;
    assert_eq!(f.claim(9).await.len(), 2);
}

pub async fn claims_are_shared_between_tenants(f: Fixture) {
    let other = f.neighbour("other", 1, Quotas::default()).await;
    let heavy = f.neighbour("heavy", 3, Quotas::default()).await;
    let counts = |claimed: &[Claimed]| {
        let of = |f: &Fixture| claimed.iter().filter(|run| run.tenant_id == f.tenant.id).count();
        [of(&f), of(&other), of(&heavy)]
    };
    f.starts(100, 2).await;
    other.starts(1, 3).await;
    assert_eq!(counts(&f.claim(8).await), [7, 1, 0]);
    heavy.starts(100, 4).await;
    other.starts(100, 4).await;
    // 7 and 1 execute: of 30 in all 6, 6 and 18, each rounded up or down.
    let [one, two, three] = counts(&f.claim(22).await);
    assert_eq!(one + two + three, 22);
    assert!(one <= 1 && (4..=6).contains(&two) && (16..=18).contains(&three), "{one} {two} {three}");
    // The longest ready of each is first.
    let earlier = f.store.run_list(f.tenant.id, RunFilter::default(), page(999, None)).await.unwrap().items;
    let waits = earlier.iter().filter(|run| run.state == RunState::Queued).map(|run| run.id).min();
    let runs = earlier.iter().filter(|run| run.state == RunState::Running).map(|run| run.id).max();
    assert!(runs < waits);
}

pub async fn what_ends_goes_on_its_bill(f: Fixture) {
    f.starts(4, 2).await;
    let claimed = f.claim(3).await;
    let news = AttemptNews { lease: claimed[0].lease, lines: lines(2), progress: None };
    f.store.runs_news(vec![news]).await.unwrap();
    assert_eq!(f.bills().await, [], "nothing has ended");
    let finish = Finish { lease: claimed[0].lease, end: output("[1]"), again_at: None, lines: lines(3) };
    f.store.run_finish_if_leased(finish, at(4)).await.unwrap();
    f.finish(&claimed[1], output("1"), None).await.unwrap();
    // An attempt without a run's end; on the next day the run is cancelled.
    f.finish(&claimed[2], failed(FailureKind::Trap), Some(at(DAY))).await.unwrap();
    f.store.run_cancel(f.tenant.id, claimed[2].lease.run, at(DAY).into()).await.unwrap();
    f.store.task_delete(f.tenant.id, &name("work"), at(DAY + 1).into()).await.unwrap();
    let bills: Vec<_> = f.bills().await.into_iter().map(|bill| (bill.day.to_string(), bill.used)).collect();
    let ended = Used {
        runs: 2,
        attempts: 3,
        cpu: Duration::from_millis(4),
        wall: Duration::from_millis(6),
        memory_seconds: 2 * 197,
        input_bytes: 2,
        output_bytes: 4,
        log_bytes: 12,
    };
    let cancelled = Used { runs: 2, input_bytes: 2, ..Used::default() };
    assert_eq!(bills, [("1970-01-02".into(), cancelled), ("1970-01-01".into(), ended)]);
    let keep = Keep {
        runs_since: at(0),
        logs_since: at(0),
        skips_since: at(0),
        uploads_since: at(0),
        audit_since: at(0),
        usage_since: at(DAY),
        events_since: Timestamp::MIN,
        events_held_since: Timestamp::MIN,
    };
    assert_eq!(f.store.retention_step(keep, 9).await.unwrap().bills, 1);
    assert_eq!(f.bills().await.len(), 1);
}

pub async fn a_lost_host_costs_nothing(f: Fixture) {
    f.start("1").await;
    for _ in 0..3 {
        let claimed = f.claim_at(1, 3_000).await.remove(0);
        let news = AttemptNews { lease: claimed.lease, lines: lines(2), progress: None };
        f.store.runs_news(vec![news]).await.unwrap();
        f.store.hosts_reap(another_host(), at(2_000)).await.unwrap();
        f.store.host_start(a_host(f.host), at(1_000), at(1)).await.unwrap();
    }
    let bills = f.bills().await;
    let used = Used { runs: 1, input_bytes: 1, ..Used::default() };
    assert_eq!(
        bills.iter().map(|bill| bill.used).collect::<Vec<_>>(),
        [used],
        "it failed, and is on one bill"
    );
}

pub async fn a_deleted_tenant_leaves_nothing(f: Fixture) {
    let gone = f.neighbour("gone", 1, Quotas([(Quota::StartsPerSecond, 9)].into())).await;
    gone.starts(4, 2).await;
    let claimed = gone.claim(2).await;
    let news = AttemptNews { lease: claimed[1].lease, lines: lines(30), progress: None };
    f.store.runs_news(vec![news]).await.unwrap();
    let id = gone.trigger(OverlapPolicy::AllowAll).await;
    gone.advance(id, 10, &[10], vec![skip(20, 20, 1, SkipReason::Missed)], Some(30)).await;
    gone.backfilled().await;
    gone.store.upload_begin(gone.tenant.id, Digest([3; 32]), 9, at(2)).await.unwrap();
    let closed = innkeeper_domain::holiday::read(b"1970-01-02").unwrap();
    gone.store.holidays_put(gone.tenant.id, &name("closed"), closed, at(2).into()).await.unwrap();
    gone.finish(&claimed[0], output("1"), None).await.unwrap();
    f.store.tenant_delete(&name("gone"), Change::from(at(5))).await.unwrap();
    assert_eq!(gone.finish(&claimed[1], output("1"), None).await, Err(StoreError::LeaseLost));
    assert_eq!(f.claim(9).await, []);
    let keep = Keep {
        runs_since: at(0),
        logs_since: at(0),
        skips_since: at(0),
        uploads_since: at(0),
        audit_since: at(0),
        usage_since: at(0),
        events_since: Timestamp::MIN,
        events_held_since: Timestamp::MIN,
    };
    let sweep = async || {
        let mut sum = 0;
        loop {
            let swept = f.store.retention_step(keep, 2).await.expect("a step");
            assert!(swept.of_tenants <= 2, "{swept:?}");
            if swept.is_empty() {
                return sum;
            }
            sum += swept.of_tenants;
        }
    };
    assert_eq!(
        sweep().await,
        5,
        "its trigger has finished, its runs are gone but the one that a host still executes"
    );
    // The host was told, and hands it back.
    assert_eq!(f.store.host_release(f.host, vec![], at(6)).await, Ok(1));
    let left = sweep().await;
    assert!(left >= 10, "a run, a skip, a backfill, a trigger, a task, ... and the tenant: {left}");
    assert_eq!(sweep().await, 0);
    let used = f.store.tenant_use(gone.tenant.id, at(5)).await.unwrap().0;
    assert!(used.values().all(|used| *used == 0), "{used:?}");
    // What others have is still there.
    assert_eq!(f.store.component_bytes(digest()).await.unwrap(), b"wasm");
    f.start("1").await;
    assert_eq!(f.claim(9).await.len(), 1);
}

/// Two hosts of a fleet claim and end at the same time, and start as fast as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_hold_over_a_fleet() {
    let url = crate::cluster::database().parse().unwrap();
    let open = async || Arc::new(PostgresStore::open(&url).await.unwrap());
    let one = Fixture::new(open().await).await;
    let mut two = Fixture::new(open().await).await;
    two.host = HostId::new(at(1));
    two.store.host_start(Host { name: name("two"), ..a_host(two.host) }, at(1_000), at(1)).await.unwrap();
    one.set(Quota::ConcurrentRuns, Some(3)).await;
    one.set(Quota::StartsPerSecond, Some(60)).await;
    let begin = async |f: &Fixture| futures::future::join_all((0..60).map(|_| f.starts(1, 2))).await;
    let (left, right) = tokio::join!(begin(&one), begin(&two));
    let started = left.iter().chain(&right).flatten().filter(|result| result.is_ok()).count();
    assert_eq!(started, 60);
    let work = async |f: &Fixture| {
        let mut done = 0;
        for _ in 0..500 {
            let claimed = f.claim(2).await;
            let hosts = f.store.host_list().await.unwrap();
            let running: u64 = hosts.iter().map(|host| host.running).sum();
            assert!(running <= 3, "{hosts:?}");
            for run in &claimed {
                f.finish(run, output("1"), None).await.unwrap();
            }
            done += claimed.len();
            if f.store.runs_next_ready(&Labels::default(), at(0)).await.unwrap().is_none() {
                break;
            }
        }
        done
    };
    let (left, right) = tokio::join!(work(&one), work(&two));
    assert_eq!(left + right, 60);
    let bills = one.bills().await;
    assert_eq!((bills.len(), bills[0].used.runs), (1, 60));
    assert_eq!(one.stored().await, one.stored_by_rows().await);
}

/// Somebody who is slow with one tenant.
#[tokio::test]
async fn claims_wait_for_no_tenant() {
    let url = crate::cluster::database();
    let f = Fixture::new(Arc::new(PostgresStore::open(&url.parse().unwrap()).await.unwrap())).await;
    let other = f.neighbour("other", 1, Quotas::default()).await;
    f.starts(1, 2).await;
    other.starts(1, 2).await;
    let slow = crate::cut_off::connect(&url).await;
    let hold = "BEGIN; SELECT 1 FROM tenant WHERE name = 'default' FOR NO KEY UPDATE";
    slow.batch_execute(hold).await.unwrap();
    let claims = async {
        let claimed = f.claim(9).await;
        assert_eq!(claimed.iter().map(|run| run.tenant_id).collect::<Vec<_>>(), [other.tenant.id]);
        f.store.host_renew(f.host, at(2_000)).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(2), claims).await.expect("nobody waits");
    slow.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(f.claim(9).await.len(), 1);
    // Nor does who changes a tenant wait for hosts, or they for it.
    slow.batch_execute("BEGIN; SELECT 1 FROM host FOR UPDATE").await.unwrap();
    let suspended = f.set_state(TenantState::Suspended);
    tokio::time::timeout(Duration::from_secs(2), suspended).await.expect("nobody waits");
}
