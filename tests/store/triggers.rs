//! Triggers: what a decision does, and when they are due: after their runs, after their jitter, as often as they may,
//! and by the zones' data.

use super::*;
use innkeeper_domain::calendar::{CronSchedule, Dialect};

impl Fixture {
    pub async fn create(&self, spec: TriggerSpec, first: impl Into<Option<Reckoning>>) -> TriggerId {
        let (id, input) = (TriggerId::new(at(2)), Payload::default());
        let new = NewTrigger { id, task: name("work"), name: None, spec, input, first: first.into() };
        self.store.trigger_create(self.tenant.id, new, at(2).into()).await.expect("a trigger").id
    }

    /// A trigger that is due 60 s after each of its runs, first at 60.
    async fn delayed(&self, not_after: Option<i64>) -> TriggerId {
        let schedule = Schedule::FixedDelay { delay: Duration::from_secs(60), anchor: at(0) };
        let spec = TriggerSpec { not_after: not_after.map(at), ..TriggerSpec::new(schedule) };
        self.create(spec, Reckoning::plain(at(60), at(2))).await
    }

    async fn seen(&self) -> (TriggerState, Option<i64>) {
        let trigger = self.store.trigger_get(self.tenant.id, &name("work-1")).await.unwrap();
        (trigger.state, trigger.next_at.map(|at| at.as_second()))
    }

    /// Ends the one run that is ready, at a second.
    async fn end_at(&self, second: i64, again_at: Option<i64>) {
        let lease = self.claim(9).await[0].lease;
        let end = if again_at.is_some() { failed(FailureKind::Guest) } else { output("1") };
        let finish = Finish { lease, end, again_at: again_at.map(at), lines: Vec::new() };
        self.store.run_finish_if_leased(finish, at(second)).await.unwrap();
    }
}

pub async fn a_due_trigger_starts_its_run_once(f: Fixture) {
    let id = f.trigger(OverlapPolicy::Skip).await;
    assert_eq!((f.due(9).await, f.due(10).await), (vec![], vec![(id, 10)]));
    assert_eq!(f.store.triggers_next().await, Ok(Some(at(10))));
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 1);
    // The same decision again, from a scheduler that was slow: it is void.
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.due(10).await, []);
    let run = f.claim(10).await.remove(0);
    assert_eq!((run.nominal_at, run.last_success_nominal), (at(10), None));
    assert_eq!(run.trigger.as_ref().unwrap().1, name("work-1"));
    f.finish(&run, output("1"), None).await.unwrap();
    assert_eq!(f.advance(id, 20, &[20], vec![], Some(30)).await, 1);
    let next = f.store.runs_claim(f.host, &Labels::default(), 1, at(20)).await.unwrap().remove(0);
    assert_eq!(next.last_success_nominal, Some(at(10)));
    let trigger = f.store.trigger_get(f.tenant.id, &name("work-1")).await.unwrap();
    assert_eq!((trigger.started, trigger.skipped, trigger.last_nominal), (2, 0, Some(at(20))));
}

pub async fn a_trigger_does_not_overlap_itself(f: Fixture) {
    let skips = f.trigger(OverlapPolicy::Skip).await;
    f.advance(skips, 10, &[10, 20], vec![], Some(30)).await;
    assert_eq!(f.advance(skips, 30, &[30], vec![], Some(40)).await, 0);
    assert_eq!(f.skips().await, [skip(20, 30, 2, SkipReason::Overlap)]);
    let run = f.claim(10).await.remove(0);
    f.finish(&run, failed(FailureKind::Trap), None).await.unwrap();
    assert_eq!(f.advance(skips, 40, &[40], vec![], Some(50)).await, 1);
    let all = f.trigger(OverlapPolicy::AllowAll).await;
    assert_eq!(f.advance(all, 10, &[10, 20], vec![], Some(30)).await, 2);
}

pub async fn skips_in_a_row_become_one_range(f: Fixture) {
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    f.advance(id, 10, &[], vec![skip(10, 30, 3, SkipReason::Superseded)], Some(40)).await;
    f.advance(id, 40, &[], vec![skip(40, 50, 2, SkipReason::Superseded)], Some(60)).await;
    f.advance(id, 60, &[70], vec![skip(60, 60, 1, SkipReason::Superseded)], Some(80)).await;
    f.advance(id, 80, &[], vec![skip(80, 80, 1, SkipReason::Superseded)], Some(90)).await;
    f.advance(id, 90, &[], vec![skip(90, 90, 1, SkipReason::Paused)], Some(100)).await;
    let expected = [
        skip(90, 90, 1, SkipReason::Paused),
        skip(80, 80, 1, SkipReason::Superseded),
        skip(10, 60, 6, SkipReason::Superseded),
    ];
    assert_eq!(f.skips().await, expected);
    assert_eq!(f.store.trigger_get(f.tenant.id, &name("work-1")).await.unwrap().skipped, 8);
}

pub async fn a_run_keeps_the_skips_before_and_after_it_apart(f: Fixture) {
    let id = f.trigger(OverlapPolicy::AllowAll).await;
    f.advance(id, 10, &[20], vec![skip(10, 10, 1, SkipReason::Superseded)], Some(30)).await;
    f.advance(id, 30, &[40], vec![skip(30, 30, 1, SkipReason::Superseded)], Some(50)).await;
    let expected = [skip(30, 30, 1, SkipReason::Superseded), skip(10, 10, 1, SkipReason::Superseded)];
    assert_eq!(f.skips().await, expected);
}

pub async fn after_a_pause_nothing_is_created(f: Fixture) {
    let (tenant, trigger) = (f.tenant.id, name("work-1"));
    let id = f.trigger(OverlapPolicy::Skip).await;
    let paused =
        f.store.trigger_pause(tenant, &trigger, "why".into(), QueuedRuns::Keep, at(9).into()).await.unwrap();
    assert_eq!(paused.state, TriggerState::Paused { note: "why".into(), at: at(9) });
    // A decision that was made before the pause comes after it.
    assert_eq!(f.advance(id, 10, &[10], vec![], Some(20)).await, 0);
    assert_eq!(f.due(100).await, []);
    assert_eq!(
        f.store.trigger_resume(tenant, &trigger, at(55).into()).await.unwrap().state,
        TriggerState::Active
    );
    let due = f.store.triggers_due(at(55), 10).await.unwrap().remove(0);
    assert_eq!((due.due, due.paused_through), (at(10), Some(at(55))));
    assert!(f.claim(10).await.is_empty());
}

pub async fn what_became_due_last_does_not_wait_for_what_is_due_the_longest(f: Fixture) {
    let mut all = Vec::new();
    for next in [20, 30, 40, 50, 60] {
        let id = f.trigger(OverlapPolicy::Skip).await;
        f.advance(id, 10, &[], vec![skip(10, 10, 1, SkipReason::Superseded)], Some(next)).await;
        all.push(id);
    }
    for (limit, expected) in
        [(1, &[0][..]), (2, &[0, 3]), (3, &[0, 1, 3]), (4, &[0, 1, 2, 3]), (9, &[0, 1, 2, 3])]
    {
        let due = f.store.triggers_due(at(55), limit).await.unwrap();
        let places = due.iter().map(|due| all.iter().position(|id| *id == due.id).unwrap());
        assert_eq!(places.collect::<Vec<_>>(), expected, "{limit}");
    }
}

pub async fn a_trigger_without_more_times_has_finished(f: Fixture) {
    let id = f.trigger(OverlapPolicy::Skip).await;
    f.advance(id, 10, &[10], vec![], None).await;
    let trigger = f.store.trigger_get(f.tenant.id, &name("work-1")).await.unwrap();
    assert_eq!((trigger.state, trigger.next_at), (TriggerState::Finished, None));
    let pause = f
        .store
        .trigger_pause(f.tenant.id, &name("work-1"), String::new(), QueuedRuns::Keep, at(11).into())
        .await;
    assert!(matches!(pause, Err(StoreError::Conflict(_))));
    assert_eq!(f.store.trigger_delete(f.tenant.id, &name("work-1"), at(12).into()).await, Ok(1));
}

pub async fn a_fixed_delay_goes_on_when_its_run_has_ended(f: Fixture) {
    let id = f.delayed(None).await;
    assert_eq!(f.advance(id, 60, &[60], vec![], Some(9_000)).await, 1);
    assert_eq!(f.seen().await, (TriggerState::Active, None));
    assert_eq!((f.due(100_000).await, f.store.triggers_next().await), (vec![], Ok(None)));
    // A try that is followed by another isn't the run's end.
    f.end_at(100, Some(110)).await;
    assert_eq!(f.seen().await, (TriggerState::Active, None));
    f.end_at(130, None).await;
    assert_eq!(f.seen().await, (TriggerState::Active, Some(190)));
    assert_eq!(f.due(190).await, [(id, 190)]);
    // What has no run goes on by what the decision says.
    assert_eq!(f.advance(id, 190, &[], vec![skip(190, 190, 1, SkipReason::Missed)], Some(300)).await, 0);
    assert_eq!(f.seen().await, (TriggerState::Active, Some(300)));
}

pub async fn a_fixed_delay_goes_on_when_its_run_is_cancelled_and_while_it_is_paused(f: Fixture) {
    let (id, tenant, trigger) = (f.delayed(None).await, f.tenant.id, name("work-1"));
    f.advance(id, 60, &[60], vec![], Some(9_000)).await;
    f.store.trigger_pause(tenant, &trigger, String::new(), QueuedRuns::Keep, at(70).into()).await.unwrap();
    let runs = f.store.run_list(tenant, RunFilter::default(), page(9, None)).await.unwrap().items;
    f.store.run_cancel(tenant, runs[0].id, at(80).into()).await.unwrap();
    assert_eq!(f.seen().await.1, Some(140));
    assert_eq!(f.due(1_000).await, []);
    f.store.trigger_resume(tenant, &trigger, at(200).into()).await.unwrap();
    assert_eq!(f.due(1_000).await, [(id, 140)]);
}

pub async fn a_fixed_delay_ends_with_its_window(f: Fixture) {
    let id = f.delayed(Some(190)).await;
    f.advance(id, 60, &[60], vec![], Some(120)).await;
    f.end_at(130, None).await;
    assert_eq!(f.seen().await, (TriggerState::Active, Some(190)));
    f.advance(id, 190, &[190], vec![], None).await;
    f.end_at(191, None).await;
    assert_eq!(f.seen().await, (TriggerState::Finished, None));
}

pub async fn a_trigger_starts_no_more_runs_than_it_may(f: Fixture) {
    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let overlap = OverlapPolicy::AllowAll;
    let spec = TriggerSpec { max_runs: Some(3), overlap, ..TriggerSpec::new(schedule) };
    let id = f.create(spec, Reckoning::plain(at(10), at(2))).await;
    assert_eq!(f.advance(id, 10, &[10, 20], vec![], Some(30)).await, 2);
    let late = vec![skip(50, 60, 2, SkipReason::Superseded)];
    assert_eq!(f.advance(id, 30, &[30, 40], late, Some(70)).await, 1);
    assert_eq!(f.seen().await, (TriggerState::Finished, None));
    assert_eq!((f.skips().await, f.due(1_000).await), (vec![], vec![]));
}

pub async fn a_trigger_is_due_when_its_jitter_is_over(f: Fixture) {
    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let first =
        Reckoning { next: Upcoming { nominal: at(10), due: at(17) }, ..Reckoning::plain(at(10), at(2)) };
    let id = f.create(TriggerSpec::new(schedule), first).await;
    assert_eq!((f.due(16).await, f.store.triggers_next().await), (vec![], Ok(Some(at(17)))));
    assert_eq!(f.due(17).await, [(id, 10)]);
    assert_eq!(f.seen().await.1, Some(10));
}

pub async fn times_of_another_edition_are_found_and_reckoned_anew(f: Fixture) {
    let cron = CronSchedule::new("0 9 * * *", Dialect::Crontab, "Europe/Berlin");
    let spec = TriggerSpec::new(Schedule::Cron(cron));
    let covered = Covered { at: at(2), offset: 3_600 };
    let first = Reckoning { covered, edition: "2020a".into(), ..Reckoning::plain(at(28_800), at(2)) };
    let id = f.create(spec.clone(), first).await;
    f.trigger(OverlapPolicy::Skip).await;
    let outdated = async |edition| f.store.triggers_outdated(edition, 9).await.unwrap();
    assert_eq!(outdated("2020a").await, []);
    let found = Outdated { id, spec, next_at: at(28_800), covered };
    assert_eq!(outdated("2019b").await, std::slice::from_ref(&found));
    assert_eq!(outdated("2021c").await, [found]);
    let next = Some(Upcoming::punctual(at(25_200)));
    let edition = || "2021c".to_string();
    let stale = Retiming { id, was: at(1), next, edition: edition() };
    f.store.triggers_retime(vec![stale]).await.unwrap();
    assert_eq!(f.seen().await.1, Some(28_800), "it had gone on meanwhile");
    f.store.triggers_retime(vec![Retiming { id, was: at(28_800), next, edition: edition() }]).await.unwrap();
    assert_eq!((f.seen().await.1, outdated("2021c").await), (Some(25_200), vec![]));
    assert_eq!(f.due(25_200).await.last(), Some(&(id, 25_200)));
    // What a decision accounts for is where the next reckoning begins.
    let last = Covered { at: at(25_200), offset: 7_200 };
    let next = Some(Upcoming::punctual(at(111_600)));
    let firing = Firing { runs: vec![at(25_200)], skips: vec![], next, covered: Some(last) };
    let run_ids = vec![RunId::new(at(25_200))];
    let advance = Advance { id, due: at(25_200), firing, run_ids, edition: edition() };
    f.store.triggers_advance(vec![advance], at(25_200)).await.unwrap();
    assert_eq!(outdated("2022d").await[0].covered, last);
    f.store
        .triggers_retime(vec![Retiming { id, was: at(111_600), next: None, edition: "2022d".into() }])
        .await
        .unwrap();
    assert_eq!(f.seen().await, (TriggerState::Finished, None));
}

pub async fn skips_are_counted_by_reason(f: Fixture) {
    let id = f.trigger(OverlapPolicy::Skip).await;
    let skips = vec![skip(10, 30, 3, SkipReason::TooLate), skip(40, 50, 2, SkipReason::Paused)];
    f.advance(id, 10, &[60], skips, Some(70)).await;
    f.advance(id, 70, &[], vec![skip(70, 70, 1, SkipReason::Paused)], Some(80)).await;
    let counts = f.store.trigger_skip_counts(f.tenant.id, &name("work-1")).await.unwrap();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(SkipReason::TooLate, 3), (SkipReason::Paused, 3)]);
    assert!(f.store.trigger_skip_counts(f.tenant.id, &name("nonesuch")).await.is_err());
}
