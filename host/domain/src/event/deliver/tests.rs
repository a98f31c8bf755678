//! The delivery, held against what it promises.

use super::*;
use crate::rule::{AfterRule, When};
use proptest::prelude::*;
use std::time::Duration;
use uuid::Uuid;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(millis).unwrap()).unwrap()
}

fn event(sequence: u64, topic: &str, millis: u64) -> Event {
    Event {
        sequence,
        id: sequence.to_string(),
        topic: topic.parse().unwrap(),
        data: Payload::json(sequence.to_string()),
        at: at(millis),
        depth: 0,
        ended: None,
    }
}

fn rule(gather: Option<Gather>) -> EventRule {
    EventRule { gather, ..EventRule::new("a.*".parse().unwrap()) }
}

/// Delivers everything up to `until`, so many events a look, as time passes; the items, and how far it came.
fn run(spec: &TriggerSpec, all: &[Event], looks: &[(u64, usize)]) -> (Vec<Item>, u64) {
    let compiled = Compiled::default();
    let deciders = Deciders::read(&spec.rule, &compiled).unwrap();
    let (mut items, mut cursor) = (Vec::new(), 0);
    for (now, most) in looks {
        // Until nothing more comes of it at this instant.
        loop {
            let there: Vec<Event> =
                all.iter().filter(|e| e.at <= at(*now) && e.sequence > cursor).cloned().collect();
            let events = &there[..there.len().min(*most)];
            let more = there.len() > events.len();
            let waiting = Waiting {
                spec,
                after: None,
                paused_through: None,
                cursor,
                events,
                more,
                head: 0,
                expired_at: None,
            };
            let delivery = deliver(waiting, &deciders, at(*now));
            assert!(delivery.cursor >= cursor && delivery.seen >= delivery.cursor);
            assert!(delivery.cursor > cursor || delivery.items.is_empty(), "nothing is told twice");
            assert!(!more || delivery.cursor > cursor, "it goes on");
            items.extend(delivery.items);
            let moved = delivery.cursor > cursor;
            cursor = delivery.cursor;
            if !moved || cursor >= all.len() as u64 {
                break;
            }
        }
    }
    (items, cursor)
}

/// The sequences in the runs of batches, told by their inputs.
fn members(item: &Item) -> Vec<u64> {
    let Item::Run(Delivered { input: Given::Payload(payload), .. }) = item else { return vec![] };
    let value: serde_json::Value = serde_json::from_slice(&payload.bytes).unwrap();
    let of = |event: &serde_json::Value| event["data"].as_u64().unwrap();
    value["events"].as_array().map_or_else(|| vec![of(&value)], |events| events.iter().map(of).collect())
}

#[test]
fn each_wanted_event_is_a_run_and_the_others_pass() {
    let spec = TriggerSpec::new(rule(None));
    let all = [event(1, "a.x", 1), event(2, "b", 2), event(3, "a.y", 3), event(4, "b", 4)];
    let (items, cursor) = run(&spec, &all, &[(10, 9)]);
    assert_eq!((items.iter().map(members).collect::<Vec<_>>(), cursor), (vec![vec![1], vec![3]], 4));
}

#[test]
fn a_debounce_waits_for_quiet_but_not_for_ever() {
    let (quiet, most) = (Duration::from_millis(10), Duration::from_millis(25));
    let spec = TriggerSpec::new(rule(Some(Gather::Debounce { quiet, most })));
    let all: Vec<Event> =
        [1, 5, 14, 40, 48, 56, 64, 72].iter().zip(1..).map(|(ms, n)| event(n, "a.x", *ms)).collect();
    let (items, _) = run(&spec, &all, &[(100, 9)]);
    let runs: Vec<_> = items.iter().map(members).filter(|m| !m.is_empty()).collect();
    assert_eq!(runs, [vec![3], vec![7], vec![8]]);
    let (items, cursor) = run(&spec, &all[..3], &[(20, 9)]);
    assert_eq!((items, cursor), (vec![], 0), "it isn't quiet yet");
    let compiled = Compiled::default();
    let deciders = Deciders::read(&spec.rule, &compiled).unwrap();
    let events = &all[..3];
    let waiting = Waiting {
        spec: &spec,
        after: None,
        paused_through: None,
        cursor: 0,
        events,
        more: false,
        head: 3,
        expired_at: None,
    };
    let delivery = deliver(waiting, &deciders, at(20));
    assert_eq!((delivery.look_at, delivery.seen), (Some(at(24)), 3));
}

#[test]
fn what_is_paused_deep_or_gone_is_on_record() {
    let spec = TriggerSpec::new(rule(None));
    let mut all = [event(5, "a.x", 1), event(6, "a.x", 2), event(7, "a.x", 3)];
    all[1].depth = CAUSE_DEPTH_MAX;
    all[2].depth = CAUSE_DEPTH_MAX - 1;
    let waiting = Waiting {
        spec: &spec,
        after: None,
        paused_through: Some(at(1)),
        cursor: 2,
        events: &all,
        more: false,
        head: 7,
        expired_at: Some(at(0)),
    };
    let delivery = deliver(waiting, &Deciders::default(), at(9));
    let skip = |ms, count, reason| Item::Skip(SkipRange { from: at(ms), to: at(ms), count, reason });
    assert_eq!(
        delivery.items[..3],
        [skip(0, 2, SkipReason::Expired), skip(1, 1, SkipReason::Paused), skip(2, 1, SkipReason::Loop),]
    );
    assert!(matches!(&delivery.items[3], Item::Run(run) if run.depth == CAUSE_DEPTH_MAX));
    assert_eq!(delivery.cursor, 7);
}

#[test]
fn what_comes_after_a_task_sees_its_ends_alone() {
    let task = TaskId(Uuid::from_u128(1));
    let end = |sequence: u64, of: TaskId, state: RunState| Event {
        ended: Some(crate::event::Ended { run: RunId(Uuid::from_u128(sequence.into())), task: of, state }),
        ..event(sequence, HostTopic::of_end(state).unwrap().as_str(), sequence)
    };
    let other = TaskId(Uuid::from_u128(2));
    let events = [
        end(1, task, RunState::Succeeded),
        end(2, other, RunState::Failed),
        end(3, task, RunState::Failed),
        end(4, task, RunState::Cancelled),
    ];
    for (when, expected) in [(When::Success, vec![1]), (When::Failure, vec![3]), (When::Any, vec![1, 3, 4])] {
        let spec = TriggerSpec::new(AfterRule { task: "t".parse().unwrap(), when });
        let waiting = Waiting {
            spec: &spec,
            after: Some(task),
            paused_through: None,
            cursor: 0,
            events: &events,
            more: false,
            head: 4,
            expired_at: None,
        };
        let runs = deliver(waiting, &Deciders::default(), at(9)).items.into_iter().map(|item| match item {
            Item::Run(Delivered { input, occurrence, .. }) => {
                let sequence: u64 = occurrence.strip_prefix("event/").unwrap().parse().unwrap();
                let output = Given::OutputOf(RunId(Uuid::from_u128(sequence.into())));
                assert_eq!(input == output, sequence == 1, "what failed may be retried meanwhile: {input:?}");
                sequence
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(runs.collect::<Vec<_>>(), expected);
    }
}

proptest! {
    /// Whatever is looked at together and when, every wanted event is in one run or one skip, in order, and the
    /// same runs come of it as of a look at all of them.
    #[test]
    fn every_wanted_event_is_told_once_and_in_order(
        steps in prop::collection::vec((0u64..12, prop::bool::weighted(0.7)), 1..60),
        kind in 0usize..3, size in 2usize..5, wait in 1u64..15,
        looks in prop::collection::vec((0u64..40, 20usize..70), 0..20),
    ) {
        let millis = Duration::from_millis;
        let gather = match kind {
            0 => None,
            1 => Some(Gather::Batch { size, wait: millis(wait) }),
            _ => Some(Gather::Debounce { quiet: millis(wait), most: millis(3 * wait) }),
        };
        let spec = TriggerSpec::new(rule(gather));
        let mut clock = 0;
        let all: Vec<Event> = steps.iter().zip(1..).map(|((step, wanted), n)| {
            clock += step;
            event(n, if *wanted { "a.x" } else { "b" }, clock)
        }).collect();
        let wanted: Vec<u64> = all.iter().filter(|e| e.topic.as_str() == "a.x").map(|e| e.sequence).collect();
        let mut now = 0;
        let mut looks: Vec<_> = looks.into_iter().map(|(step, most)| { now += step; (now, most) }).collect();
        looks.push((clock + 1_000, 100));
        let (items, cursor) = run(&spec, &all, &looks);
        prop_assert_eq!(cursor, all.len() as u64);
        let told: Vec<u64> = items.iter().flat_map(members).collect();
        prop_assert!(told.is_sorted_by(|a, b| a < b));
        let skipped: u64 = items.iter().map(|item| match item { Item::Skip(s) => s.count, Item::Run(_) => 0 }).sum();
        prop_assert_eq!(told.len() as u64 + skipped, wanted.len() as u64);
        if kind < 2 {
            prop_assert_eq!(told, wanted);
        }
    }
}

#[test]
fn a_decision_evaluates_only_so_much_and_the_next_goes_on() {
    let events: Vec<Event> = (1..=100)
        .map(|sequence| Event {
            data: Payload::json(format!("{{\"list\": [{}]}}", vec!["1"; 20_000].join(","))),
            ..event(sequence, "a.b", sequence)
        })
        .collect();
    for gather in [None, Some(Gather::Batch { size: 500, wait: Duration::from_secs(60) })] {
        let filter = Some("size(data.list + data.list) == 40000 && data.list.all(x, x == 1)".into());
        let spec = TriggerSpec::new(Rule::Event(EventRule { filter, ..rule(gather) }));
        let deciders = Deciders::read(&spec.rule, &Compiled::default()).unwrap();
        let (mut cursor, mut decisions, mut counted) = (0, 0, 0);
        while cursor < 100 {
            let rest = &events[cursor as usize..];
            let waiting = Waiting {
                spec: &spec,
                after: None,
                paused_through: None,
                cursor,
                events: rest,
                more: false,
                head: 100,
                expired_at: None,
            };
            let delivery = deliver(waiting, &deciders, at(100_000));
            assert!(delivery.cursor > cursor && delivery.cursor < cursor + 40, "{}", delivery.cursor);
            counted += delivery
                .items
                .iter()
                .map(|item| match item {
                    Item::Run(run) => run.count,
                    Item::Skip(skip) => skip.count,
                })
                .sum::<u64>();
            (cursor, decisions) = (delivery.cursor, decisions + 1);
        }
        assert_eq!(counted, 100);
        assert!(decisions > 2, "{decisions}");
    }
}

#[test]
fn what_a_filter_does_not_go_through_ends_no_gathering() {
    let (quiet, most) = (Duration::from_secs(1), Duration::from_secs(60));
    let filter = Some("data.items.exists(i, i.sku == data.wanted && i.of == topic)".into());
    let gather = Some(Gather::Debounce { quiet, most });
    let spec = TriggerSpec::new(Rule::Event(EventRule { filter, ..rule(gather) }));
    let items = |count: u64| {
        let items: Vec<_> = (1..=count).map(|n| serde_json::json!({"sku": n, "of": "a.x"})).collect();
        Payload::json(serde_json::json!({"wanted": count, "items": items}).to_string())
    };
    // Beside each event that is wanted are one of another topic and one that is too much to go through.
    let all: Vec<Event> = (0..20)
        .flat_map(|n| [(3 * n + 1, "a.x", 80), (3 * n + 2, "b", 2_000), (3 * n + 3, "a.x", 20_000)])
        .map(|(sequence, topic, count)| Event { data: items(count), ..event(sequence, topic, sequence) })
        .collect();
    let (items, cursor) = run(&spec, &all, &[(10_000, 500)]);
    let runs = items.iter().filter(|item| matches!(item, Item::Run(_))).count();
    assert_eq!((runs, cursor), (1, 60), "{items:?}");
}
