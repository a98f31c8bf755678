//! Events, and the runs that they start.

use super::*;
use innkeeper_domain::event::{Deciders, Event, deliver};
use innkeeper_domain::expression::Compiled;
use innkeeper_domain::limits::OUTPUT_PIECE_BYTES;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::rule::{AfterRule, EventRule, Gather, When};

fn event(id: &str, topic: &str, data: &str) -> NewEvent {
    NewEvent { id: id.into(), topic: topic.parse().unwrap(), data: Payload::json(data) }
}

fn on(pattern: &str) -> TriggerSpec {
    TriggerSpec::new(EventRule::new(pattern.parse().unwrap()))
}

fn after(task: &str, when: When) -> TriggerSpec {
    TriggerSpec::new(AfterRule { task: name(task), when })
}

impl Fixture {
    async fn publish(&self, second: i64, events: Vec<NewEvent>) -> Vec<Result<Published, PublishError>> {
        self.store.events_publish(self.tenant.id, events, at(second).into()).await.unwrap()
    }

    /// A trigger of a task, of which the name is the trigger's.
    async fn follow(&self, task: &str, spec: TriggerSpec) -> Result<TriggerId, StoreError> {
        let id = TriggerId::new(at(2));
        let (trigger, input) = (Some(name(&format!("of-{task}"))), Payload::default());
        let new = NewTrigger { id, task: name(task), name: trigger, spec, input, first: None };
        self.store.trigger_create(self.tenant.id, new, at(2).into()).await.map(|trigger| trigger.id)
    }

    async fn task(&self, task: &str) {
        let new = NewTask { id: TaskId::new(at(1)), name: name(task), spec: TaskSpec::new(digest()) };
        self.store.task_create(self.tenant.id, new, at(1).into()).await.unwrap();
    }

    /// What the delivery does of the engine, once; how many runs came of it.
    async fn deliver(&self, second: i64) -> u32 {
        let compiled = Compiled::default();
        let mut created = 0;
        for pending in self.store.events_pending(at(second), 10).await.unwrap() {
            created += self.apply(&pending, &compiled, second).await;
        }
        created
    }

    async fn apply(&self, pending: &Pending, compiled: &Compiled, second: i64) -> u32 {
        let deciders = Deciders::read(&pending.spec.rule, compiled).unwrap();
        let delivery = deliver(pending.waiting(), &deciders, at(second));
        let mut run_ids: Vec<RunId> = delivery.items.iter().map(|_| RunId::new(at(second))).collect();
        run_ids.sort();
        let (id, tenant, cursor) = (pending.id, pending.tenant, pending.cursor);
        self.store
            .events_deliver(Deliver { id, tenant, cursor, delivery, run_ids }, at(second))
            .await
            .unwrap()
    }

    async fn seen_events(&self) -> Vec<Event> {
        self.store.events_after(self.tenant.id, 0, 100).await.unwrap()
    }

    /// The inputs of the runs of a task, the newest last.
    async fn inputs(&self, task: &str) -> Vec<String> {
        let filter = RunFilter { task: Some(name(task)), ..RunFilter::default() };
        let runs = self.store.run_list(self.tenant.id, filter, page(50, None)).await.unwrap().items;
        let mut inputs = Vec::new();
        for run in runs.iter().rev() {
            inputs.push(String::from_utf8(self.run(run.id).await.input.bytes).unwrap());
        }
        inputs
    }
}

pub async fn events_are_kept_in_order_and_once(f: Fixture) {
    let first = f.publish(5, vec![event("a", "orders.new", "1"), event("b", "orders.old", "2")]).await;
    let expected = [Published { sequence: 1, existed: false }, Published { sequence: 2, existed: false }];
    assert_eq!(first, expected.map(Ok));
    // Time that goes backwards doesn't do so in events.
    let again = vec![event("b", "orders.old", "2"), event("a", "orders.new", "3"), event("c", "x", "4")];
    let again = f.publish(4, again).await;
    assert_eq!(again[0], Ok(Published { sequence: 2, existed: true }));
    assert_eq!(again[1], Err(PublishError::IdTaken("a".into())));
    assert_eq!(again[2], Ok(Published { sequence: 3, existed: false }));
    let both = f.publish(6, vec![event("d", "x", "5"), event("d", "x", "5")]).await;
    assert_eq!(both[1], Ok(Published { sequence: 4, existed: true }));
    let seen = f.seen_events().await;
    let seen: Vec<_> = seen.iter().map(|e| (e.sequence, e.id.as_str(), e.at)).collect();
    assert_eq!(seen, [(1, "a", at(5)), (2, "b", at(5)), (3, "c", at(5)), (4, "d", at(6))]);
    assert_eq!(f.store.events_after(f.tenant.id, 2, 1).await.unwrap()[0].sequence, 3);
    assert_eq!(f.store.events_head(f.tenant.id).await, Ok(4));
    let stranger = f.store.tenant_ensure(&name("stranger"), at(1)).await.unwrap();
    assert_eq!(f.store.events_head(stranger.id).await, Ok(0));
    assert_eq!(f.store.events_after(stranger.id, 0, 9).await, Ok(vec![]));
}

pub async fn an_event_starts_one_run_of_each_trigger(f: Fixture) {
    f.publish(3, vec![event("before", "orders.new", "0")]).await;
    let id = f.follow("work", on("orders.*")).await.unwrap();
    f.publish(5, vec![event("a", "orders.new", "1"), event("b", "other", "2"), event("c", "orders.x", "3")])
        .await;
    assert_eq!(f.store.trigger_get(f.tenant.id, &name("of-work")).await.unwrap().behind, Some(3));
    let pending = f.store.events_pending(at(6), 10).await.unwrap();
    let compiled = Compiled::default();
    assert_eq!(f.apply(&pending[0], &compiled, 6).await, 2);
    assert_eq!(f.apply(&pending[0], &compiled, 6).await, 0, "a decision is applied once");
    assert_eq!(f.deliver(7).await, 0);
    let one = |id, topic, second: i64, n| {
        format!(r#"{{"id":"{id}","topic":"{topic}","time":"{}","data":{n}}}"#, at(second))
    };
    assert_eq!(f.inputs("work").await, [one("a", "orders.new", 5, 1), one("c", "orders.x", 5, 3)]);
    let (_, trigger) = f.store.trigger_by_id(id).await.unwrap();
    assert_eq!((trigger.started, trigger.behind, trigger.next_at), (2, Some(0), None));
}

pub async fn events_of_a_pause_are_on_record(f: Fixture) {
    f.follow("work", on("a")).await.unwrap();
    let trigger = name("of-work");
    f.store
        .trigger_pause(f.tenant.id, &trigger, String::new(), QueuedRuns::Keep, at(4).into())
        .await
        .unwrap();
    f.publish(5, vec![event("1", "a", "1"), event("2", "b", "1"), event("3", "a", "1")]).await;
    assert_eq!(f.store.events_pending(at(6), 10).await, Ok(vec![]));
    f.store.trigger_resume(f.tenant.id, &trigger, at(6).into()).await.unwrap();
    f.publish(7, vec![event("4", "a", "1")]).await;
    assert_eq!(f.deliver(8).await, 1);
    let skips = f.store.trigger_skips(f.tenant.id, &trigger, page(9, None)).await.unwrap().items;
    assert_eq!(skips, [skip(5, 5, 2, SkipReason::Paused)]);
    // What was decided before a pause is void after it.
    f.publish(9, vec![event("5", "a", "1")]).await;
    let pending = f.store.events_pending(at(9), 10).await.unwrap();
    f.store
        .trigger_pause(f.tenant.id, &trigger, String::new(), QueuedRuns::Keep, at(9).into())
        .await
        .unwrap();
    assert_eq!(f.apply(&pending[0], &Compiled::default(), 9).await, 0);
}

pub async fn what_is_gathered_waits_for_its_time(f: Fixture) {
    let gather = Some(Gather::Batch { size: 3, wait: Duration::from_secs(10) });
    let rule = EventRule { gather, ..EventRule::new("a".parse().unwrap()) };
    f.follow("work", TriggerSpec::new(rule)).await.unwrap();
    f.publish(5, vec![event("1", "a", "1"), event("2", "a", "2")]).await;
    assert_eq!((f.deliver(6).await, f.store.events_pending(at(14), 9).await), (0, Ok(vec![])));
    assert_eq!(f.deliver(15).await, 1);
    assert_eq!(f.store.events_pending(at(99), 9).await, Ok(vec![]));
    f.publish(20, vec![event("3", "a", "3"), event("4", "a", "4")]).await;
    assert_eq!(f.deliver(20).await, 0);
    f.publish(21, vec![event("5", "a", "5"), event("6", "a", "6")]).await;
    assert_eq!(f.deliver(21).await, 1, "it is full");
    assert_eq!(f.deliver(31).await, 1);
    assert_eq!(f.store.trigger_get(f.tenant.id, &name("of-work")).await.unwrap().behind, Some(0));
}

pub async fn every_event_of_a_batch_without_a_run_is_on_record(f: Fixture) {
    let gather = Some(Gather::Batch { size: 2, wait: Duration::from_secs(10) });
    let rule = EventRule { gather, ..EventRule::new("a".parse().unwrap()) };
    f.follow("work", TriggerSpec { overlap: OverlapPolicy::Skip, ..TriggerSpec::new(rule) }).await.unwrap();
    f.publish(5, vec![event("1", "a", "1"), event("2", "a", "2"), event("3", "a", "3")]).await;
    f.publish(6, vec![event("4", "a", "4")]).await;
    assert_eq!(f.deliver(7).await, 1);
    let skips = f.store.trigger_skips(f.tenant.id, &name("of-work"), page(9, None)).await.unwrap().items;
    assert_eq!(skips, [skip(5, 6, 2, SkipReason::Overlap)]);
}

pub async fn a_task_comes_after_another_with_its_output(f: Fixture) {
    for task in ["then", "else", "always"] {
        f.task(task).await;
    }
    f.follow("then", after("work", When::Success)).await.unwrap();
    f.follow("else", after("work", When::Failure)).await.unwrap();
    f.follow("always", after("work", When::Any)).await.unwrap();
    f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, output("[1]"), None).await.unwrap();
    f.start("2").await;
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, failed(FailureKind::Trap), Some(at(9))).await.unwrap();
    assert_eq!(f.seen_events().await.len(), 1, "it is tried again");
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, failed(FailureKind::Trap), None).await.unwrap();
    let cancelled = f.start("3").await;
    f.store.run_cancel(f.tenant.id, cancelled, at(10).into()).await.unwrap();
    assert_eq!((f.deliver(11).await, f.deliver(11).await), (5, 0));
    let failure = r#"{"kind":"trap","code":"trap","message":"on purpose"}"#;
    let nothing = r#"{"kind":"cancelled","code":"","message":"it was cancelled"}"#;
    assert_eq!(f.inputs("then").await, ["[1]"]);
    assert_eq!(f.inputs("else").await, [failure]);
    assert_eq!(f.inputs("always").await, ["[1]", failure, nothing]);
    let runs = f.store.run_list(f.tenant.id, RunFilter::default(), page(50, None)).await.unwrap().items;
    assert_eq!(runs.iter().filter(|run| run.trigger.is_some()).count(), 5);
}

pub async fn what_comes_after_a_task_is_given_all_of_a_large_output(f: Fixture) {
    f.task("then").await;
    f.follow("then", after("work", When::Success)).await.unwrap();
    f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    let end = large_output(3 * OUTPUT_PIECE_BYTES - 1);
    f.finish(&claimed, end.clone(), None).await.unwrap();
    assert_eq!(f.deliver(11).await, 1);
    let next = f.claim(1).await.remove(0);
    assert!(Outcome::Output(next.input) == end.outcome);
}

pub async fn an_end_that_nobody_waits_for_is_no_event(f: Fixture) {
    f.task("then").await;
    f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, output("1"), None).await.unwrap();
    assert_eq!(f.seen_events().await, []);
    f.follow("then", on("innkeeper.run.failed")).await.unwrap();
    for (end, expected) in [(output("2"), 0), (failed(FailureKind::Trap), 1)] {
        f.start("2").await;
        let claimed = f.claim(1).await.remove(0);
        f.finish(&claimed, end, None).await.unwrap();
        assert_eq!(f.seen_events().await.len(), expected);
    }
    let told = f.seen_events().await.remove(0);
    let data: serde_json::Value = serde_json::from_slice(&told.data.bytes).unwrap();
    assert_eq!(
        (told.topic.as_str(), &data["task"], &data["failure"]["kind"]),
        ("innkeeper.run.failed", &"work".into(), &"trap".into())
    );
    f.store.trigger_delete(f.tenant.id, &name("of-then"), at(5).into()).await.unwrap();
    f.start("3").await;
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, failed(FailureKind::Trap), None).await.unwrap();
    assert_eq!(f.seen_events().await.len(), 1);
}

pub async fn tasks_that_come_after_each_other_are_no_loop(f: Fixture) {
    for task in ["b", "c"] {
        f.task(task).await;
    }
    f.follow("b", after("work", When::Success)).await.unwrap();
    f.follow("c", after("b", When::Any)).await.unwrap();
    let closed = f.follow("work", after("c", When::Failure)).await.unwrap_err();
    assert!(
        matches!(&closed, StoreError::Conflict(words) if words.contains("c -> work -> b -> c")),
        "{closed}"
    );
    let own = f.follow("work", after("work", When::Any)).await.unwrap_err();
    assert!(matches!(&own, StoreError::Conflict(words) if words.contains("work -> work")), "{own}");
    let none = f.follow("work", after("nonesuch", When::Any)).await;
    assert!(matches!(none, Err(StoreError::NotFound(_))), "{none:?}");
    f.store.trigger_delete(f.tenant.id, &name("of-c"), at(3).into()).await.unwrap();
    f.follow("work", after("c", When::Failure)).await.unwrap();
}

pub async fn runs_that_start_each_other_by_events_come_to_an_end(f: Fixture) {
    f.follow("work", on("innkeeper.run.succeeded")).await.unwrap();
    f.start("1").await;
    let mut runs = 0;
    while let Some(claimed) = f.claim(1).await.pop() {
        runs += 1;
        assert!(runs < 50, "it goes on for ever");
        f.finish(&claimed, output("1"), None).await.unwrap();
        f.deliver(10).await;
    }
    assert_eq!(runs, 1 + innkeeper_domain::limits::CAUSE_DEPTH_MAX);
    let skips = f.store.trigger_skips(f.tenant.id, &name("of-work"), page(9, None)).await.unwrap().items;
    assert_eq!(
        skips.iter().map(|skip| (skip.count, skip.reason)).collect::<Vec<_>>(),
        [(1, SkipReason::Loop)]
    );
}

pub async fn old_events_go_but_for_those_that_a_trigger_waits_for(f: Fixture) {
    f.publish(5, vec![event("1", "a", "1")]).await;
    f.follow("work", on("a")).await.unwrap();
    f.publish(6, vec![event("2", "a", "1"), event("3", "a", "1")]).await;
    f.publish(30, vec![event("4", "a", "1")]).await;
    let sweep = async |since: i64, held: i64| {
        let keep = Keep { events_since: at(since), events_held_since: at(held), ..KEEP };
        f.store.retention_step(keep, 10).await.unwrap().events
    };
    let used = async || {
        let used = f.store.tenant_use(f.tenant.id, at(31)).await.unwrap();
        used.0[&innkeeper_domain::quota::Quota::StoredBytes]
    };
    let before = used().await;
    assert_eq!((sweep(20, 3).await, sweep(20, 3).await), (1, 0));
    assert_eq!(before - used().await, innkeeper_domain::limits::STORED_BYTES_PER_EVENT + 1);
    assert_eq!(sweep(20, 20).await, 2);
    assert_eq!(f.deliver(31).await, 1);
    let skips = f.store.trigger_skips(f.tenant.id, &name("of-work"), page(9, None)).await.unwrap().items;
    assert_eq!(skips, [skip(6, 6, 2, SkipReason::Expired)]);
    // When none is left that hasn't been dealt with either.
    f.publish(32, vec![event("5", "a", "1")]).await;
    assert_eq!(sweep(40, 40).await, 2);
    assert_eq!((f.deliver(41).await, f.store.events_pending(at(42), 9).await), (0, Ok(vec![])));
}

pub async fn skipped_times_and_reached_quotas_are_told(f: Fixture) {
    f.task("then").await;
    let id = f.trigger(OverlapPolicy::Skip).await;
    f.advance(id, 10, &[10, 20], vec![], Some(30)).await;
    assert_eq!(f.seen_events().await, [], "nobody waits for it");
    f.follow("then", on("innkeeper.**")).await.unwrap();
    f.advance(id, 30, &[40], vec![skip(30, 30, 1, SkipReason::Superseded)], Some(50)).await;
    let told = |data: &Payload| serde_json::from_slice::<serde_json::Value>(&data.bytes).unwrap();
    let seen = f.seen_events().await;
    let seen: Vec<_> = seen.iter().map(|event| (event.topic.as_str(), told(&event.data))).collect();
    let data = |second: i64, reason: &str| {
        let at = at(second).to_string();
        let data = serde_json::json!({
            "trigger": "work-1", "task": "work", "from": at, "to": at, "count": 1, "reason": reason,
        });
        ("innkeeper.trigger.skipped", data)
    };
    assert_eq!(seen, [data(30, "superseded"), data(40, "overlap")]);
    assert_eq!((f.deliver(45).await, f.deliver(45).await), (2, 0));
    // Of a quota, once an hour, whoever asks.
    f.set(Quota::CpuPerDay, Some(0)).await;
    for (due, next, expected) in [(50, 60, 1), (60, 3_600, 0), (3_600, 3_610, 1)] {
        let before = f.seen_events().await.len();
        let refused = f.store.runs_start(f.tenant.id, vec![f.new_run("1", None); 2], at(due).into()).await;
        assert!(refused.unwrap().iter().all(Result::is_err));
        f.advance(id, due, &[due], vec![], Some(next)).await;
        let seen = f.seen_events().await;
        let topics: Vec<_> = seen[before..].iter().map(|event| event.topic.as_str()).collect();
        let quotas = topics.iter().filter(|topic| **topic == "innkeeper.quota.reached").count();
        assert_eq!((quotas, topics.len()), (expected, expected + 1), "{topics:?}");
    }
    let quota =
        f.seen_events().await.into_iter().find(|event| event.topic.as_str() == "innkeeper.quota.reached");
    let expected = serde_json::json!({"quota": "cpu-per-day", "limit": 0, "used": 0, "asked": 1});
    assert_eq!(told(&quota.unwrap().data), expected);
}

pub async fn what_comes_after_a_failure_is_given_that_failure(f: Fixture) {
    f.task("then").await;
    f.follow("then", after("work", When::Any)).await.unwrap();
    let run = f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, failed(FailureKind::Trap), None).await.unwrap();
    // Tried again and over before anybody has looked.
    f.retry(&[run], OnRevision::Pinned, 5).await;
    let claimed = f.claim(1).await.remove(0);
    f.finish(&claimed, output("[2]"), None).await.unwrap();
    assert_eq!(f.deliver(11).await, 2);
    let failure = r#"{"kind":"trap","code":"trap","message":"on purpose"}"#;
    assert_eq!(f.inputs("then").await, [failure, "[2]"]);
}

pub async fn triggers_that_have_nothing_to_do_go_on_together(f: Fixture) {
    for task in ["a", "b"] {
        f.task(task).await;
        f.follow(task, on(task)).await.unwrap();
    }
    f.publish(5, vec![event("1", "a", "1"), event("2", "c", "2")]).await;
    let pending = f.store.events_pending(at(6), 10).await.unwrap();
    let look = |place: usize, past: u64, look_at: Option<i64>| {
        let Pending { id, cursor, .. } = pending[place];
        Look { id, cursor, past, seen: past, look_at: look_at.map(at) }
    };
    let looks = vec![look(0, 0, None), look(1, 2, Some(9))];
    assert_eq!(f.store.events_look(looks.clone(), at(6)).await, Ok(2));
    assert_eq!(f.store.events_look(looks, at(7)).await, Ok(1), "the other has gone on");
    let left = async |second| {
        let left = f.store.events_pending(at(second), 10).await.unwrap();
        left.into_iter().map(|pending| pending.id).collect::<Vec<_>>()
    };
    assert_eq!(left(8).await, [pending[0].id], "it was put off");
    assert_eq!(
        left(9).await,
        [pending[1].id, pending[0].id],
        "the one that was looked at the longest ago is first"
    );
    let (_, trigger) = f.store.trigger_by_id(pending[0].id).await.unwrap();
    f.store
        .trigger_pause(f.tenant.id, &trigger.name, String::new(), QueuedRuns::Keep, at(9).into())
        .await
        .unwrap();
    assert_eq!(f.store.events_look(vec![look(0, 2, None), look(1, 2, None)], at(10)).await, Ok(0));
}

pub async fn a_task_is_kept_while_another_comes_after_it(f: Fixture) {
    f.task("then").await;
    f.follow("then", after("work", When::Any)).await.unwrap();
    let followed = f.store.task_delete(f.tenant.id, &name("work"), at(5).into()).await.unwrap_err();
    assert!(matches!(&followed, StoreError::Conflict(words) if words.contains("`of-then`")), "{followed}");
    f.store.trigger_delete(f.tenant.id, &name("of-then"), at(6).into()).await.unwrap();
    f.store.task_delete(f.tenant.id, &name("work"), at(7).into()).await.unwrap();
}
