//! Deadlines, cancels, retries by hand, labels and pauses, in every driver.

use super::*;
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::limits::OVERDUE_GRACE;
use innkeeper_domain::tenant::{TenantPause, TenantState, TenantUpdate};

const MINUTE: Duration = Duration::from_secs(60);

impl Fixture {
    /// A start of `work` at 2 s with these deadlines, in seconds.
    async fn start_with(&self, start: Option<u64>, end: Option<u64>) -> RunId {
        let deadlines =
            Deadlines { start: start.map(Duration::from_secs), end: end.map(Duration::from_secs) };
        let options = StartOptions { deadlines, ..StartOptions::default() };
        let new = NewRun { options, ..self.new_run("1", None) };
        let started = self.store.runs_start(self.tenant.id, vec![new], at(2).into()).await.unwrap();
        started[0].clone().unwrap().id
    }

    async fn claim_by(&self, second: i64) -> Vec<Claimed> {
        self.store.runs_claim(self.host, &Labels::default(), 10, at(second)).await.unwrap()
    }

    async fn expire(&self, second: i64) -> u64 {
        self.store.runs_expire(at(second), 100).await.unwrap()
    }

    async fn state_of(&self, id: RunId) -> (RunState, Option<FailureKind>) {
        let run = self.run(id).await;
        (run.state, run.failure.map(|failure| failure.kind))
    }

    pub async fn retry(&self, ids: &[RunId], on: OnRevision, second: i64) -> Retried {
        self.store.runs_retry(self.tenant.id, ids.to_vec(), on, at(second).into()).await.unwrap()
    }

    /// A run that has failed at its first attempt.
    async fn failed_run(&self) -> RunId {
        let id = self.start("1").await;
        let claimed = self.claim_by(3).await;
        self.finish(&claimed[0], failed(FailureKind::Trap), None).await.unwrap();
        id
    }

    async fn pause_tenant(&self, pause: Option<TenantPause>) {
        let update = TenantUpdate { pause: Some(pause), ..TenantUpdate::default() };
        self.store.tenant_update(&self.tenant.name, update, at(5).into()).await.unwrap();
    }
}

pub async fn a_run_that_has_not_begun_by_its_start_deadline_fails(f: Fixture) {
    let (late, in_time) = (f.start_with(Some(10), None).await, f.start_with(Some(30), None).await);
    assert_eq!(
        (f.expire(12).await, f.run(late).await.start_by),
        (0, Some(at(12))),
        "it can begin at its last"
    );
    // Even if nobody has come by to end it.
    let claimed = f.claim_by(13).await;
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.run).collect::<Vec<_>>(), [in_time]);
    assert_eq!((f.expire(13).await, f.expire(13).await), (1, 0));
    assert_eq!(f.state_of(late).await, (RunState::Failed, Some(FailureKind::StartDeadline)));
    let ended = f.run(late).await;
    assert_eq!((ended.finished_at, ended.attempt, ended.attempts.len()), (Some(at(13)), 0, 0));
    // One that has begun is not late when it is taken up again.
    f.store.host_release(f.host, Vec::new(), at(40)).await.unwrap();
    assert_eq!((f.expire(100).await, f.claim_by(100).await.len()), (0, 1));
    // The ends count: the task has room, and is deleted with one run that hasn't begun.
    f.start("1").await;
    assert_eq!(f.store.task_delete(f.tenant.id, &name("work"), at(101).into()).await, Ok(1));
}

pub async fn a_run_that_is_not_over_by_its_deadline_fails(f: Fixture) {
    let running = f.start_with(None, Some(100)).await;
    let claimed = f.claim_by(3).await;
    assert_eq!(claimed[0].end_by, Some(at(102)));
    let waiting = f.start_with(None, Some(50)).await;
    let first = f.claim_by(4).await;
    f.finish(&first[0], failed(FailureKind::Trap), Some(at(200))).await.unwrap();
    let queued = f.start_with(None, Some(50)).await;
    assert_eq!(f.expire(51).await, 0);
    assert!(f.claim_by(52).await.is_empty(), "it would begin with no time left");
    assert_eq!(f.expire(52).await, 2);
    for run in [waiting, queued] {
        assert_eq!(f.state_of(run).await, (RunState::Failed, Some(FailureKind::Deadline)));
    }
    // What executes is its host's to end, for a while.
    let over = 102 + OVERDUE_GRACE.as_secs() as i64;
    assert_eq!((f.expire(over - 1).await, f.state_of(running).await.0), (0, RunState::Running));
    assert_eq!(f.expire(over).await, 1);
    assert_eq!(f.state_of(running).await, (RunState::Failed, Some(FailureKind::Deadline)));
    assert_eq!(f.run(running).await.attempts.len(), 1);
    let late = f.finish(&claimed[0], output("1"), None).await;
    assert_eq!(late, Err(StoreError::LeaseLost));
}

pub async fn a_host_that_does_not_heed_a_cancel_loses_the_run(f: Fixture) {
    let spec = TaskSpec { cancel_grace: MINUTE, ..TaskSpec::new(digest()) };
    f.store
        .task_update(f.tenant.id, &name("work"), spec, None, OnGrowth::Accept, at(2).into())
        .await
        .unwrap();
    let run = f.start("1").await;
    let claimed = f.claim_by(3).await;
    f.store.run_cancel(f.tenant.id, run, at(10).into()).await.unwrap();
    // Asking again gives it no more time.
    f.store.run_cancel(f.tenant.id, run, at(50).into()).await.unwrap();
    let over = 10 + (MINUTE + OVERDUE_GRACE).as_secs() as i64;
    assert_eq!((f.expire(over).await, f.expire(over + 1).await), (0, 1));
    assert_eq!(f.state_of(run).await, (RunState::Cancelled, Some(FailureKind::Cancelled)));
    assert_eq!(f.finish(&claimed[0], output("1"), None).await, Err(StoreError::LeaseLost));
    // One that is handed back meanwhile is not begun again.
    let run = f.start("1").await;
    f.claim_by(100).await;
    f.store.run_cancel(f.tenant.id, run, at(101).into()).await.unwrap();
    f.store.host_release(f.host, Vec::new(), at(102)).await.unwrap();
    assert_eq!(f.run(run).await.state, RunState::Cancelled);
}

pub async fn many_runs_are_cancelled_in_one_commit(f: Fixture) {
    let running = f.start("1").await;
    f.claim_by(3).await;
    let (queued, strange) = (f.start("1").await, RunId::new(at(9)));
    let ids = vec![queued, strange, running, queued];
    let cancel = |second| f.store.runs_cancel(f.tenant.id, ids.clone(), at(second).into());
    assert_eq!(cancel(5).await, Ok(Cancelled { ended: 1, told: 1 }));
    assert_eq!(cancel(6).await, Ok(Cancelled { ended: 0, told: 1 }));
    assert_eq!(f.store.host_orders(f.host).await.unwrap().cancelled.len(), 1);
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    assert_eq!(f.store.runs_cancel(other, ids.clone(), at(7).into()).await, Ok(Cancelled::default()));
    assert_eq!(f.run(queued).await.state, RunState::Cancelled);
}

pub async fn a_run_that_failed_is_tried_again_by_hand(f: Fixture) {
    let spec = TaskSpec { deadline: Some(MINUTE), ..TaskSpec::new(digest()) };
    f.store
        .task_update(f.tenant.id, &name("work"), spec, None, OnGrowth::Accept, at(2).into())
        .await
        .unwrap();
    let id = f.failed_run().await;
    let before = f.run(id).await;
    assert_eq!(before.end_by, Some(at(62)));
    let retried = f.retry(&[id], OnRevision::Pinned, 300).await;
    assert_eq!(retried, Retried { reopened: vec![id], left_out: 0, refused: None });
    let run = f.run(id).await;
    assert_eq!((run.state, run.attempt, run.revision), (RunState::Queued, 1, 2));
    assert_eq!((&run.failure, run.finished_at, run.started_at), (&None, None, None));
    assert_eq!((run.end_by, run.reopened_at, run.created_at), (Some(at(360)), Some(at(300)), at(2)));
    assert_eq!(run.attempts, before.attempts, "what was stays on record");
    // A second one that isn't over changes nothing.
    assert_eq!(f.retry(&[id], OnRevision::Pinned, 301).await.left_out, 1);
    let claimed = f.claim_by(302).await;
    assert_eq!((claimed[0].lease.attempt, claimed[0].try_number), (2, 1), "tries begin anew, attempts don't");
    f.finish(&claimed[0], failed(FailureKind::Trap), None).await.unwrap();
    // By the current revision, with what that says.
    let spec = TaskSpec { start_deadline: Some(MINUTE), ..TaskSpec::new(digest()) };
    f.store
        .task_update(f.tenant.id, &name("work"), spec, None, OnGrowth::Accept, at(310).into())
        .await
        .unwrap();
    assert_eq!(f.retry(&[id], OnRevision::Current, 400).await.reopened, [id]);
    let run = f.run(id).await;
    assert_eq!((run.revision, run.start_by, run.end_by), (3, Some(at(460)), None));
    assert_eq!(f.expire(461).await, 1, "the start deadline is of the first attempt since");
    assert_eq!(f.state_of(id).await, (RunState::Failed, Some(FailureKind::StartDeadline)));
    f.retry(&[id], OnRevision::Pinned, 462).await;
    let claimed = f.claim_by(463).await;
    f.finish(&claimed[0], output("1"), None).await.unwrap();
    assert_eq!(f.retry(&[id], OnRevision::Pinned, 470).await.left_out, 1, "what succeeded stays so");
    assert_eq!(f.run(id).await.attempts.iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2, 3]);
}

pub async fn a_retry_passes_what_a_start_passes(f: Fixture) {
    let (first, second) = (f.failed_run().await, f.failed_run().await);
    let quotas = [(innkeeper_domain::quota::Quota::StartsPerSecond, Some(1))].into();
    let update = TenantUpdate { quotas, ..TenantUpdate::default() };
    f.store.tenant_update(&f.tenant.name, update, at(5).into()).await.unwrap();
    let (first, second) = (first.min(second), first.max(second));
    let retried = f.retry(&[second, first], OnRevision::Pinned, 300).await;
    assert_eq!(retried.reopened, [first]);
    assert!(matches!(retried.refused, Some(Rejection::Quota(_))), "{retried:?}");
    let update =
        TenantUpdate { state: Some((TenantState::Suspended, String::new())), ..TenantUpdate::default() };
    f.store.tenant_update(&f.tenant.name, update, at(310).into()).await.unwrap();
    let refused = f.retry(&[second], OnRevision::Pinned, 320).await.refused;
    assert_eq!(refused, Some(Rejection::TenantSuspended));
    let update =
        TenantUpdate { state: Some((TenantState::Active, String::new())), ..TenantUpdate::default() };
    f.store.tenant_update(&f.tenant.name, update, at(330).into()).await.unwrap();
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    let ids = vec![second];
    let stranger = f.store.runs_retry(other, ids, OnRevision::Pinned, at(340).into()).await.unwrap();
    assert_eq!((stranger.left_out, f.run(second).await.state), (1, RunState::Failed));
    f.store.task_delete(f.tenant.id, &name("work"), at(350).into()).await.unwrap();
    assert_eq!(f.retry(&[second], OnRevision::Pinned, 360).await.left_out, 1);
}

pub async fn a_retried_run_counts_for_its_trigger(f: Fixture) {
    let id = f.trigger(OverlapPolicy::Skip).await;
    f.advance(id, 10, &[10], vec![], Some(20)).await;
    let claimed = f.claim_by(11).await;
    let run = claimed[0].lease.run;
    f.finish(&claimed[0], failed(FailureKind::Trap), None).await.unwrap();
    f.retry(&[run], OnRevision::Pinned, 15).await;
    assert_eq!(f.advance(id, 20, &[20], vec![], Some(30)).await, 0, "it is unfinished again");
    assert_eq!(f.skips().await, [skip(20, 20, 1, SkipReason::Overlap)]);
    let claimed = f.claim_by(21).await;
    f.finish(&claimed[0], output("1"), None).await.unwrap();
    assert_eq!(f.advance(id, 30, &[30], vec![], Some(40)).await, 1);
    // Without its trigger too.
    let claimed = f.claim_by(31).await;
    let run = claimed[0].lease.run;
    f.finish(&claimed[0], failed(FailureKind::Trap), None).await.unwrap();
    f.store.trigger_delete(f.tenant.id, &name("work-1"), at(32).into()).await.unwrap();
    assert_eq!(f.retry(&[run], OnRevision::Pinned, 33).await.reopened, [run]);
    let claimed = f.claim_by(34).await;
    assert_eq!(f.finish(&claimed[0], output("1"), None).await, Ok(RunState::Succeeded));
}

pub async fn a_run_has_labels_of_its_task_its_trigger_and_its_start(f: Fixture) {
    let labels = |text: &str| text.parse::<Labels>().unwrap();
    let spec = TaskSpec { labels: labels("team=a,kind=task"), ..TaskSpec::new(digest()) };
    f.store
        .task_update(f.tenant.id, &name("work"), spec, None, OnGrowth::Accept, at(2).into())
        .await
        .unwrap();
    let options = StartOptions { labels: labels("kind=hand,x=1"), ..StartOptions::default() };
    let new = NewRun { options, ..f.new_run("1", None) };
    let by_hand = f.store.runs_start(f.tenant.id, vec![new], at(2).into()).await.unwrap();
    let by_hand = by_hand[0].clone().unwrap().id;
    let plain = f.start("1").await;
    assert_eq!(f.run(by_hand).await.labels.to_string(), "kind=hand,team=a,x=1");
    assert_eq!(f.run(plain).await.labels.to_string(), "kind=task,team=a");
    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let spec = TriggerSpec { labels: labels("kind=trigger"), ..TriggerSpec::new(schedule) };
    let id = TriggerId::new(at(2));
    let first = Reckoning::plain(at(10), at(2));
    let new = NewTrigger {
        id,
        task: name("work"),
        name: None,
        spec,
        input: Payload::json("1"),
        first: Some(first),
    };
    f.store.trigger_create(f.tenant.id, new, at(2).into()).await.unwrap();
    f.advance(id, 10, &[10], vec![], Some(20)).await;
    for (wanted, found) in [
        ("team=a", 3),
        ("kind=trigger", 1),
        ("kind=hand,team=a", 1),
        ("kind=hand,team=b", 0),
        ("kind=han", 0),
        ("ind=hand", 0),
    ] {
        let filter = RunFilter { labels: labels(wanted), ..RunFilter::default() };
        let listed = f.store.run_list(f.tenant.id, filter, page(10, None)).await.unwrap();
        assert_eq!(listed.items.len(), found, "{wanted}");
    }
}

pub async fn runs_are_found_by_how_and_when_they_failed(f: Fixture) {
    let trapped = f.failed_run().await;
    f.start_with(Some(1), None).await;
    f.expire(100).await;
    let found = async |failure_kinds: &[FailureKind], ended_since: Option<i64>| {
        let filter = RunFilter {
            failure_kinds: failure_kinds.to_vec(),
            ended_since: ended_since.map(at),
            states: vec![RunState::Failed],
            ..RunFilter::default()
        };
        f.store.run_list(f.tenant.id, filter, page(10, None)).await.unwrap().items
    };
    assert_eq!(found(&[FailureKind::Trap], None).await[0].id, trapped);
    assert_eq!(found(&[FailureKind::StartDeadline, FailureKind::Exit], None).await.len(), 1);
    assert_eq!((found(&[], None).await.len(), found(&[], Some(5)).await.len()), (2, 1));
    assert_eq!((found(&[], Some(100)).await.len(), found(&[], Some(101)).await.len()), (1, 0));
}

pub async fn of_a_paused_tenant_nothing_begins(f: Fixture) {
    let (trigger, pause) =
        (f.trigger(OverlapPolicy::AllowAll).await, TenantPause { note: "why".into(), at: at(5) });
    f.pause_tenant(Some(pause.clone())).await;
    let run = f.start("1").await;
    assert!(f.claim_by(6).await.is_empty(), "what is started by hand waits");
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(0)).await, Ok(None));
    assert_eq!(f.advance(trigger, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.skips().await, [skip(10, 10, 1, SkipReason::Paused)]);
    // It is beside what the admin says.
    let suspend =
        TenantUpdate { state: Some((TenantState::Suspended, String::new())), ..TenantUpdate::default() };
    let suspended = f.store.tenant_update(&f.tenant.name, suspend, at(12).into()).await.unwrap();
    assert_eq!((suspended.pause, suspended.state), (Some(pause), TenantState::Suspended));
    f.pause_tenant(None).await;
    assert!(f.claim_by(13).await.is_empty(), "the suspension stays");
    let resume =
        TenantUpdate { state: Some((TenantState::Active, String::new())), ..TenantUpdate::default() };
    f.store.tenant_update(&f.tenant.name, resume, at(14).into()).await.unwrap();
    assert_eq!(f.claim_by(15).await[0].lease.run, run);
    assert_eq!(f.advance(trigger, 20, &[20], vec![], Some(30)).await, 1);
}

pub async fn a_paused_fleet_begins_nothing(f: Fixture) {
    let trigger = f.trigger(OverlapPolicy::AllowAll).await;
    let pause = f.store.fleet_pause("why".into(), at(5).into()).await.unwrap();
    assert_eq!((pause.note.as_str(), pause.at), ("why", at(5)));
    let again = f.store.fleet_pause("why else".into(), at(7).into()).await.unwrap();
    assert_eq!((again.note.as_str(), again.at), ("why else", at(5)), "since when stays");
    assert_eq!(f.store.fleet_paused().await, Ok(Some(again)));
    f.start("1").await;
    assert!(f.claim_by(8).await.is_empty());
    assert_eq!(f.advance(trigger, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.skips().await, [skip(10, 10, 1, SkipReason::Paused)]);
    // A host that comes later too.
    let later = HostId::new(at(11));
    f.store.host_stop(f.host, at(11)).await.unwrap();
    f.store.host_start(a_host(later), at(1_000), at(11)).await.unwrap();
    let claim =
        async |second| f.store.runs_claim(later, &Labels::default(), 10, at(second)).await.unwrap().len();
    assert_eq!(claim(12).await, 0);
    f.store.fleet_unpause(at(13).into()).await.unwrap();
    assert_eq!((f.store.fleet_paused().await, claim(14).await), (Ok(None), 1));
    f.store.fleet_unpause(at(15).into()).await.unwrap();
}

pub async fn a_pause_can_cancel_what_is_queued(f: Fixture) {
    let trigger = f.trigger(OverlapPolicy::AllowAll).await;
    f.advance(trigger, 10, &[10], vec![], Some(20)).await;
    let running = f.claim_by(11).await[0].lease.run;
    f.advance(trigger, 20, &[20], vec![], Some(30)).await;
    let by_hand = f.start("1").await;
    let pause = async |queued, second: i64| {
        let (first, note) = (name("work-1"), String::new());
        f.store.trigger_pause(f.tenant.id, &first, note, queued, at(second).into()).await.unwrap();
    };
    let count = async |state| {
        let filter = RunFilter { states: vec![state], ..RunFilter::default() };
        f.store.run_list(f.tenant.id, filter, page(10, None)).await.unwrap().items.len()
    };
    pause(QueuedRuns::Keep, 21).await;
    assert_eq!(count(RunState::Queued).await, 2);
    pause(QueuedRuns::Cancel, 22).await;
    assert_eq!((count(RunState::Queued).await, count(RunState::Cancelled).await), (1, 1));
    assert_eq!(f.run(by_hand).await.state, RunState::Queued);
    assert_eq!(f.run(running).await.state, RunState::Running);
}
