//! Limits: gates that runs pass before they are claimed, and that their numbers are those of the runs.

use super::*;
use innkeeper_domain::gate::{GateKind, Hold, WaitsFor};
use innkeeper_domain::quota::Quota;
use std::collections::BTreeMap;

impl Fixture {
    pub async fn limit(&self, change: impl FnOnce(&mut TaskSpec)) {
        let mut spec = self.store.task_get(self.tenant.id, &name("work")).await.expect("the task").spec;
        change(&mut spec);
        let updated = self
            .store
            .task_update(self.tenant.id, &name("work"), spec, None, OnGrowth::Accept, at(3).into())
            .await;
        updated.expect("an update");
    }

    async fn start_by_priority(&self, input: &str, priority: Option<u8>) -> RunId {
        let options = StartOptions { priority, ..StartOptions::default() };
        let start = NewRun { options, ..self.new_run(input, None) };
        let started = self.store.runs_start(self.tenant.id, vec![start], at(2).into()).await;
        started.expect("a start")[0].clone().expect("it is admitted").id
    }

    async fn ids(&self, second: i64) -> Vec<RunId> {
        let claimed = self.store.runs_claim(self.host, &Labels::default(), 99, at(second)).await;
        claimed.expect("a claim").iter().map(|run| run.lease.run).collect()
    }

    /// The slots and the waiting of all gates are those of the runs.
    pub async fn check_gates(&self) {
        let gates = self.store.gates_list(self.tenant.id, 9_999).await.expect("gates");
        let mut found: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for status in gates {
            let sum = found.entry((status.kind, status.task, status.key)).or_default();
            sum.0 += status.gate.taken;
            sum.1 += status.gate.held;
        }
        found.retain(|_, numbers| *numbers != (0, 0));
        let mut expected: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        let all = self.store.run_list(self.tenant.id, RunFilter::default(), page(9_999, None)).await;
        for run in all.expect("runs").items.iter().filter(|run| !run.state.is_final()) {
            for kind in GateKind::ALL.iter().copied() {
                let key = Some(&run.concurrency_key).filter(|_| kind == GateKind::Key);
                let key = key.cloned().flatten().unwrap_or_default();
                let (taken, held) = (run.passage.passed.has(kind), run.passage.hold == Hold::At(kind));
                if taken || held {
                    let sum = expected.entry((kind, run.task_id, key)).or_default();
                    sum.0 += u64::from(taken);
                    sum.1 += u64::from(held);
                }
            }
        }
        assert_eq!(found, expected);
    }

    async fn succeed(&self, claimed: &Claimed) {
        self.finish(claimed, output("1"), None).await.expect("an end");
        self.check_gates().await;
    }
}

pub async fn so_many_runs_of_a_task_execute_at_one_time(f: Fixture) {
    f.limit(|spec| spec.concurrency = Some(2)).await;
    for _ in 0..4 {
        f.start("1").await;
    }
    f.check_gates().await;
    let claimed = f.claim(9).await;
    assert_eq!(claimed.len(), 2);
    assert_eq!(f.claim(9).await, []);
    f.check_gates().await;
    let waits = f.store.run_list(f.tenant.id, RunFilter::default(), page(9, None)).await.unwrap().items;
    let waits = waits.iter().find(|run| run.state == RunState::Queued).unwrap();
    let waits = f.run(waits.id).await.waits_for.unwrap();
    assert!(matches!(waits, WaitsFor::Gate(GateKind::Task, _)), "{waits}");
    assert_eq!(waits.to_string(), "its task's concurrency, 2 of 2");
    f.succeed(&claimed[0]).await;
    let next = f.claim(9).await;
    assert_eq!(next.len(), 1);
    // One that is to be tried again waits again, and gives its slot back meanwhile.
    f.finish(&claimed[1], failed(FailureKind::Trap), Some(at(600))).await.unwrap();
    f.check_gates().await;
    assert_eq!(f.claim(9).await.len(), 1);
    f.succeed(&next[0]).await;
    assert_eq!(f.ids(599).await, []);
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(599)).await, Ok(Some(at(600))));
    assert_eq!(f.ids(600).await, [claimed[1].lease.run]);
    f.check_gates().await;
}

pub async fn runs_of_the_same_key_wait_for_each_other(f: Fixture) {
    f.limit(|spec| {
        spec.concurrency_key = Some("input.customer".into());
        spec.concurrency = Some(3);
    })
    .await;
    for input in ["{\"customer\": \"a\"}", "{\"customer\": \"a\"}", "{\"customer\": 1}", "no json", "{}"] {
        f.start(input).await;
    }
    f.check_gates().await;
    let (mut begun, mut rounds) = (0, 0);
    while begun < 5 {
        let claimed = f.claim(9).await;
        assert!((1..=3).contains(&claimed.len()), "the task's limit is for all");
        let of_a = claimed.iter().filter(|run| run.input.bytes.ends_with(b"\"a\"}")).count();
        assert!(of_a <= 1, "{claimed:?}");
        f.check_gates().await;
        for run in &claimed {
            f.succeed(run).await;
        }
        (begun, rounds) = (begun + claimed.len(), rounds + 1);
    }
    assert!(rounds >= 2);
    let gates = f.store.gates_list(f.tenant.id, 99).await.unwrap();
    assert_eq!(gates.len(), 1, "of keys nothing is left: {gates:?}");
}

pub async fn a_rate_lets_attempts_begin_one_after_another(f: Fixture) {
    f.limit(|spec| spec.rate = Some("2/m".parse().unwrap())).await;
    for _ in 0..5 {
        f.start("1").await;
    }
    assert_eq!(f.ids(500).await.len(), 2);
    assert_eq!(f.ids(529).await.len(), 0);
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(529)).await, Ok(Some(at(530))));
    assert_eq!(f.ids(530).await.len(), 1);
    assert_eq!(f.ids(600).await.len(), 2);
    f.check_gates().await;
}

pub async fn a_rate_is_of_attempts_that_begin(f: Fixture) {
    let other = NewTask { id: TaskId::new(at(1)), name: name("other"), spec: TaskSpec::new(digest()) };
    f.store.task_create(f.tenant.id, other, at(1).into()).await.unwrap();
    f.limit(|spec| spec.rate = Some("2/m".parse().unwrap())).await;
    for number in 0..9 {
        let task = if number < 3 { name("other") } else { name("work") };
        let start = NewRun { task, ..f.new_run("1", None) };
        let started = f.store.runs_start(f.tenant.id, vec![start], at(2 + number).into()).await.unwrap();
        assert!(started[0].is_ok());
    }
    // A host that has room for one run at a time, and others before those that a rate lets pass.
    for second in [100, 200, 300] {
        assert_eq!(f.store.runs_claim(f.host, &Labels::default(), 1, at(second)).await.unwrap().len(), 1);
        f.check_gates().await;
    }
    assert_eq!(f.ids(400).await.len(), 2, "what waited doesn't begin all at once");
    assert_eq!(f.ids(429).await.len(), 0);
    assert_eq!(f.ids(430).await.len(), 1);
    f.check_gates().await;
}

pub async fn the_highest_priority_begins_first(f: Fixture) {
    let low = f.start_by_priority("1", Some(0)).await;
    let usual = f.start_by_priority("1", None).await;
    let high = f.start_by_priority("1", Some(9)).await;
    let claimed = f.claim(2).await;
    assert_eq!(claimed.iter().map(|run| run.lease.run).collect::<Vec<_>>(), [high, usual]);
    f.finish(&claimed[0], failed(FailureKind::Trap), Some(at(600))).await.unwrap();
    assert_eq!(f.ids(500).await, [low], "one that waits for its time is in nobody's way");
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(500)).await, Ok(Some(at(600))));
    // Behind a limit as well.
    f.limit(|spec| spec.concurrency = Some(3)).await;
    let last = f.start_by_priority("1", Some(1)).await;
    let first = f.start_by_priority("1", Some(8)).await;
    assert_eq!(f.ids(500).await, [first]);
    let run = f.run(last).await;
    assert_eq!((run.priority, run.passage.hold), (1, Hold::At(GateKind::Task)));
    f.check_gates().await;
}

pub async fn limits_are_the_tasks_of_now(f: Fixture) {
    for _ in 0..4 {
        f.start("{\"k\": 1}").await;
    }
    let claimed = f.claim(2).await;
    f.limit(|spec| spec.concurrency = Some(3)).await;
    f.check_gates().await;
    assert_eq!(f.claim(9).await.len(), 1, "what executed before counts");
    f.limit(|spec| spec.concurrency_key = Some("input.k".into())).await;
    f.check_gates().await;
    f.succeed(&claimed[0]).await;
    f.succeed(&claimed[1]).await;
    assert_eq!(f.claim(9).await, [], "one of that key executes");
    f.limit(|spec| *spec = TaskSpec { concurrency_key: None, concurrency: None, ..spec.clone() }).await;
    f.check_gates().await;
    assert_eq!(f.store.gates_list(f.tenant.id, 9).await, Ok(vec![]));
    assert_eq!(f.claim(9).await.len(), 1);
}

pub async fn a_lost_host_gives_its_slots_back(f: Fixture) {
    f.limit(|spec| spec.concurrency = Some(1)).await;
    let (one, other) = (f.start("1").await, f.start("1").await);
    assert_eq!(f.claim(9).await.len(), 1);
    let next = HostId::new(at(1));
    f.store.hosts_reap(another_host(), at(2_000)).await.unwrap();
    f.check_gates().await;
    f.store.host_start(a_host(next), at(9_000), at(2_000)).await.unwrap();
    let f = Fixture { host: next, ..f };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let claimed = f.store.runs_claim(f.host, &Labels::default(), 9, at(2_001)).await.unwrap();
        assert_eq!(claimed.len(), 1);
        seen.push(claimed[0].lease.run);
        f.succeed(&claimed[0]).await;
    }
    seen.sort();
    let mut both = [one, other];
    both.sort();
    assert_eq!(seen, both);
}

pub async fn what_waits_is_cancelled_and_deleted(f: Fixture) {
    f.limit(|spec| spec.concurrency = Some(1)).await;
    let runs = [f.start("1").await, f.start("1").await, f.start("1").await];
    let claimed = f.claim(9).await;
    let waiting: Vec<RunId> = runs.into_iter().filter(|run| *run != claimed[0].lease.run).collect();
    f.store.run_cancel(f.tenant.id, waiting[0], at(5).into()).await.unwrap();
    f.check_gates().await;
    assert_eq!(f.store.task_delete(f.tenant.id, &name("work"), at(6).into()).await, Ok(1));
    f.check_gates().await;
    f.succeed(&claimed[0]).await;
    let keep = Keep {
        runs_since: at(9_000),
        logs_since: at(9_000),
        skips_since: at(9_000),
        uploads_since: at(9_000),
        audit_since: at(9_000),
        usage_since: at(9_000),
        events_since: at(9_000),
        events_held_since: at(9_000),
    };
    while f.store.retention_step(keep, 100).await.unwrap() != Swept::default() {}
    assert_eq!(f.store.gates_list(f.tenant.id, 9).await, Ok(vec![]));
}

pub async fn a_paused_task_begins_nothing(f: Fixture) {
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    f.start("1").await;
    let executing = f.claim(9).await;
    let queued = f.start("1").await;
    let work = name("work");
    let pause = |queued| f.store.task_pause(f.tenant.id, &work, "why".into(), queued, at(5).into());
    let (task, cancelled) = pause(QueuedRuns::Keep).await.unwrap();
    assert_eq!((task.paused.map(|pause| pause.note), cancelled), (Some("why".into()), 0));
    f.check_gates().await;
    let by_hand = f.start("1").await;
    assert_eq!(f.claim(9).await, []);
    assert_eq!(f.run(queued).await.waits_for.unwrap().to_string(), "its task to be resumed: it is paused");
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.skips().await, [skip(10, 10, 1, SkipReason::Paused)]);
    f.limit(|spec| spec.concurrency = Some(5)).await;
    assert_eq!(f.claim(9).await, [], "an update keeps the pause");
    f.finish(&executing[0], failed(FailureKind::Trap), Some(at(5))).await.unwrap();
    f.check_gates().await;
    assert_eq!(f.claim(9).await, [], "nor is there another attempt");
    assert_eq!(pause(QueuedRuns::Cancel).await.unwrap().1, 3);
    f.check_gates().await;
    assert_eq!(f.run(by_hand).await.state, RunState::Cancelled);
    let later = f.start("1").await;
    let resumed = f.store.task_resume(f.tenant.id, &name("work"), at(7).into()).await.unwrap();
    assert_eq!(resumed.paused, None);
    f.check_gates().await;
    assert_eq!(f.ids(500).await, [later]);
}

pub async fn a_paused_run_is_held_until_it_is_resumed(f: Fixture) {
    f.limit(|spec| spec.concurrency = Some(1)).await;
    let (one, other) = (f.start_by_priority("1", Some(9)).await, f.start("1").await);
    let pause = async |id| f.store.run_pause(f.tenant.id, id, at(3).into()).await;
    let resume = async |id| f.store.run_resume(f.tenant.id, id, at(3).into()).await;
    let paused = pause(one).await.unwrap();
    assert_eq!((paused.passage.hold, paused.waits_for), (Hold::ByHand, Some(WaitsFor::Hand)));
    f.check_gates().await;
    let claimed = f.claim(9).await;
    assert_eq!(claimed[0].lease.run, other);
    pause(other).await.unwrap();
    f.finish(&claimed[0], failed(FailureKind::Trap), Some(at(5))).await.unwrap();
    f.check_gates().await;
    assert_eq!(f.claim(9).await, []);
    resume(one).await.unwrap();
    f.check_gates().await;
    let claimed = f.claim(9).await;
    assert_eq!(claimed[0].lease.run, one);
    f.succeed(&claimed[0]).await;
    assert!(matches!(pause(one).await, Err(StoreError::Conflict(_))));
    resume(other).await.unwrap();
    assert_eq!(f.ids(500).await, [other]);
    f.check_gates().await;
}

pub async fn buffered_runs_wait_for_those_before_them(f: Fixture) {
    let id = f.trigger(OverlapPolicy::BufferOne).await;
    assert_eq!(f.advance(id, 10, &[10, 20, 30], vec![], Some(40)).await, 2);
    assert_eq!(f.skips().await, [skip(30, 30, 1, SkipReason::Overlap)]);
    f.check_gates().await;
    let first = f.claim(9).await;
    assert_eq!((first.len(), first[0].nominal_at), (1, at(10)));
    // It is unfinished until it is over: what waits doesn't begin between two attempts.
    f.finish(&first[0], failed(FailureKind::Trap), Some(at(400))).await.unwrap();
    f.check_gates().await;
    let again = f.claim(9).await;
    assert_eq!((again.len(), again[0].nominal_at), (1, at(10)));
    f.succeed(&again[0]).await;
    let next = f.claim(9).await;
    assert_eq!(next[0].nominal_at, at(20));
    f.succeed(&next[0]).await;
    assert_eq!(f.store.gates_list(f.tenant.id, 9).await, Ok(vec![]));
}

pub async fn a_buffer_for_all_is_in_order(f: Fixture) {
    let id = f.trigger(OverlapPolicy::BufferAll).await;
    assert_eq!(f.advance(id, 10, &[10, 20, 30, 40], vec![], Some(50)).await, 4);
    f.limit(|spec| spec.concurrency = Some(1)).await;
    for second in [10, 20, 30, 40] {
        f.check_gates().await;
        let claimed = f.claim(9).await;
        assert_eq!((claimed.len(), claimed[0].nominal_at), (1, at(second)));
        f.succeed(&claimed[0]).await;
    }
}

pub async fn the_new_run_cancels_the_others(f: Fixture) {
    let id = f.trigger(OverlapPolicy::CancelOther).await;
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 1);
    let executing = f.claim(9).await;
    assert_eq!(f.advance(id, 20, &[20], vec![], Some(30)).await, 1);
    assert!(f.run(executing[0].lease.run).await.cancel_requested);
    assert_eq!(f.claim(9).await, [], "the new one begins when the others have ended");
    assert_eq!(f.advance(id, 30, &[30], vec![], Some(40)).await, 1);
    f.check_gates().await;
    f.finish(&executing[0], failed(FailureKind::Cancelled), None).await.unwrap();
    let next = f.claim(9).await;
    assert_eq!((next.len(), next[0].nominal_at), (1, at(30)), "the one in between was cancelled");
    f.succeed(&next[0]).await;
}

pub async fn a_tenant_begins_so_many_attempts_in_a_second(f: Fixture) {
    f.set(Quota::BeginsPerSecond, Some(2)).await;
    for _ in 0..5 {
        f.start("1").await;
    }
    assert_eq!(f.ids(500).await.len(), 2);
    assert_eq!(f.ids(500).await.len(), 0);
    assert_eq!(f.ids(501).await.len(), 2);
    f.set(Quota::BeginsPerSecond, Some(0)).await;
    assert_eq!(f.ids(600).await.len(), 0);
    f.set(Quota::BeginsPerSecond, None).await;
    assert_eq!(f.ids(600).await.len(), 1);
}

/// Both of the same priority: what is free is no reason to claim what isn't.
pub async fn what_waits_is_not_claimed_with_what_is_free(f: Fixture) {
    let held = f.start("1").await;
    f.store.run_pause(f.tenant.id, held, at(3).into()).await.unwrap();
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(0)).await, Ok(None));
    let free = f.start("1").await;
    assert_eq!(f.ids(500).await, [free]);
    f.set(Quota::ConcurrentRuns, Some(9)).await;
    let free = f.start("1").await;
    assert_eq!(f.ids(500).await, [free]);
}

pub async fn what_another_clock_made_ready_passes_when_it_is(f: Fixture) {
    let id = f.trigger(OverlapPolicy::BufferAll).await;
    f.advance(id, 10, &[10], vec![], Some(20)).await;
    let first = f.claim(9).await.remove(0);
    f.advance(id, 20, &[20], vec![], None).await;
    f.succeed(&first).await;
    assert_eq!(f.ids(19).await, [], "it isn't ready");
    assert_eq!(f.ids(20).await.len(), 1);
}

pub async fn limits_of_many_runs_change(f: Fixture) {
    const MANY: usize = 1_500;
    let starts = (0..MANY).map(|number| f.new_run(&format!("[{}]", number % 3), None)).collect();
    let started = f.store.runs_start(f.tenant.id, starts, at(2).into()).await.unwrap();
    assert!(started.iter().all(Result::is_ok));
    let executing = f.claim(60).await;
    f.limit(|spec| {
        spec.concurrency_key = Some("input[0]".into());
    })
    .await;
    f.check_gates().await;
    assert_eq!(f.ids(9).await, [], "each key has more than one that executes");
    for claimed in &executing {
        f.finish(claimed, output("1"), None).await.unwrap();
    }
    f.check_gates().await;
    assert_eq!(f.ids(9).await.len(), 3);
    f.limit(|spec| spec.concurrency_key = None).await;
    f.check_gates().await;
    assert_eq!(f.ids(9).await.len(), 99);
}

pub async fn what_nobody_can_execute_is_not_in_the_way_of_a_rate(f: Fixture) {
    f.limit(|spec| {
        spec.rate = Some("1/m".parse().unwrap());
        spec.requires = "gpu=yes".parse().unwrap();
    })
    .await;
    f.start("1").await;
    assert_eq!(f.ids(500).await, [], "no host offers it");
    f.limit(|spec| spec.requires = Labels::default()).await;
    let other = f.start("2").await;
    assert_eq!(f.ids(500).await, []);
    assert_eq!(f.ids(620).await, [other]);
    f.check_gates().await;
}
