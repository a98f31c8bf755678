//! Histories made up by hand: the good one passes, and every way to be bad is found.

use crate::checker::{Exactness, HandedBack, Rule, check};
use crate::history::{Answer, Asked, Call, History, Loss, Start};
use crate::limits;
use crate::state::{AttemptSeen, Billed, RunSeen, SkipSeen, State, TriggerSeen};
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::Schedule;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::RunState;
use std::time::Duration;

/// The cases, by their names.
pub const CASES: [(&str, fn()); 4] = [
    ("a_good_history_passes", a_good_history_passes),
    ("every_violation_is_found", every_violation_is_found),
    ("takeovers_wait_for_the_database", takeovers_wait_for_the_database),
    ("what_certainly_executed_at_once_is_counted", what_certainly_executed_at_once_is_counted),
];

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_000_000 + millis).expect("a small number")
}

fn id(number: u128) -> RunId {
    RunId(uuid::Uuid::from_u128(number))
}

fn exactness() -> Exactness {
    let (clocks, takeover) = (Duration::from_millis(5), Duration::from_secs(3));
    Exactness { clocks, handed_back: HandedBack::Never, takeover }
}

fn call<Q, A>(asked: Q, from: i64, to: i64, answer: Answer<A>) -> Call<Q, A> {
    Call { asked, asked_at: at(from), answered_at: at(to), answer }
}

fn start(key: &str) -> Start {
    Start { task: "quick".into(), key: key.into(), input: String::new() }
}

fn attempt(number: u32, host: &str, from: i64, to: i64, failure: Option<&str>) -> AttemptSeen {
    AttemptSeen {
        number,
        host: host.into(),
        started_at: at(from),
        finished_at: at(to),
        failure: failure.map(Into::into),
        wall: Duration::from_millis(1),
    }
}

fn run(number: u128, key: &str) -> RunSeen {
    RunSeen {
        id: id(number),
        task: "quick".into(),
        trigger: None,
        key: Some(key.into()),
        customer: None,
        nominal_at: at(10),
        created_at: at(10),
        state: RunState::Succeeded,
        attempt: 1,
        output: Some(String::new()),
        attempts: vec![attempt(1, "a", 20, 30, None)],
    }
}

fn triggered(number: u128, nominal: i64) -> RunSeen {
    let (nominal_at, created_at) = (at(nominal), at(nominal + 1));
    let attempts = vec![attempt(1, "b", nominal + 2, nominal + 4, None)];
    let trigger = Some("t".into());
    RunSeen { trigger, key: None, nominal_at, created_at, attempts, ..run(number, "") }
}

/// Run 1 was simply started; run 2 was lost once, with no answer to its start; run 3 was cancelled. The trigger
/// is due at every second: it ran at 1 and 2, skipped 3 and 4 during a pause, and ran at 5.
fn good() -> (History, State) {
    let lost = RunSeen {
        attempt: 2,
        output: Some("attempt 2 on b".into()),
        attempts: vec![attempt(1, "a", 40, 2_500, Some("host-lost")), attempt(2, "b", 2_600, 2_700, None)],
        ..run(2, "two")
    };
    let cancelled = RunSeen {
        state: RunState::Cancelled,
        attempt: 0,
        output: None,
        attempts: Vec::new(),
        ..run(3, "three")
    };
    let runs =
        vec![run(1, "one"), lost, cancelled, triggered(4, 1_000), triggered(5, 2_000), triggered(6, 5_000)];
    let skips = vec![SkipSeen { from: at(3_000), to: at(4_000), count: 2 }];
    let triggers = vec![TriggerSeen { name: "t".into(), created_at: at(500), skips }];
    let every = Schedule::Interval { every: Duration::from_secs(1), anchor: at(0) };
    let t = |asked| ("t".to_string(), asked);
    let history = History {
        starts: vec![
            call(start("one"), 5, 15, Answer::Acknowledged(id(1))),
            call(start("one"), 50, 60, Answer::Acknowledged(id(1))),
            call(start("two"), 5, 3_000, Answer::Unknown("gone".into())),
            call(start("three"), 5, 15, Answer::Acknowledged(id(3))),
            call(start("four"), 5, 15, Answer::Unknown("gone".into())),
            call(start("five"), 5, 15, Answer::Refused("full".into())),
        ],
        cancels: vec![call(id(3), 16, 17, Answer::Acknowledged(true))],
        triggers: vec![
            call(t(Asked::Create(every)), 490, 510, Answer::Acknowledged(())),
            call(t(Asked::Pause), 2_400, 2_500, Answer::Acknowledged(())),
            call(t(Asked::Resume), 4_400, 4_500, Answer::Acknowledged(())),
        ],
        losses: vec![Loss { host: "a".into(), at: at(100), by: at(3_100) }],
        outages: Vec::new(),
        settled_at: at(5_500),
    };
    let billed = Billed::of(&runs);
    (history, State { runs, triggers, billed })
}

fn found(history: &History, state: &State) -> Vec<Rule> {
    let mut found: Vec<Rule> = check(history, state, exactness()).iter().map(|found| found.rule).collect();
    found.sort();
    found.dedup();
    found
}

fn a_good_history_passes() {
    let (history, state) = good();
    assert_eq!(found(&history, &state), []);
}

type Spoil = fn(&mut History, &mut State);

fn every_violation_is_found() {
    let ways: [(Rule, Spoil); 30] = [
        (Rule::Acknowledged, |_, s| drop(s.runs.remove(0))),
        (Rule::Acknowledged, |_, s| s.runs[0].key = Some("four".into())),
        (Rule::Acknowledged, |_, s| s.triggers.clear()),
        (Rule::OneRunPerKey, |_, s| s.runs.push(run(9, "one"))),
        (Rule::OneRunPerKey, |_, s| s.runs.extend([run(8, "four"), run(9, "four")])),
        (Rule::OneRunPerKey, |h, s| {
            h.starts.push(call(start("one"), 70, 80, Answer::Acknowledged(id(9))));
            s.runs.push(run(9, "one"));
        }),
        (Rule::Asked, |_, s| s.runs.push(run(9, "five"))),
        (Rule::Asked, |_, s| s.runs.push(run(9, "nine"))),
        (Rule::Ends, |_, s| s.runs[0].state = RunState::Running),
        (Rule::Attempts, |_, s| s.runs[1].attempts[1].number = 3),
        (Rule::Attempts, |_, s| s.runs[1].attempts[0].number = 2),
        (Rule::Attempts, |_, s| s.runs[1].attempts[1].started_at = at(2_000)),
        (Rule::OneOutcome, |_, s| s.runs[1].attempts[0].failure = None),
        (Rule::OneOutcome, |_, s| s.runs[0].attempts[0].failure = Some("trap".into())),
        (Rule::OneOutcome, |_, s| s.runs[0].output = None),
        (Rule::OneOutcome, |_, s| s.runs[0].state = RunState::Failed),
        (Rule::Fenced, |_, s| s.runs[1].output = Some("attempt 1 on a".into())),
        (Rule::Fenced, |_, s| s.runs[1].attempts[1].wall = Duration::from_secs(2)),
        (Rule::LostHost, |_, s| s.runs[0].attempts[0].finished_at = at(2_600)),
        (Rule::Cancelled, |_, s| s.runs[2] = RunSeen { id: id(3), ..run(3, "three") }),
        (Rule::OncePerNominalTime, |_, s| s.runs.push(triggered(9, 2_000))),
        (Rule::OncePerNominalTime, |_, s| s.triggers[0].skips[0].from = at(2_000)),
        (Rule::OncePerNominalTime, |_, s| s.triggers[0].skips[0].count = 3),
        (Rule::EveryNominalTime, |_, s| drop(s.runs.remove(4))),
        (Rule::EveryNominalTime, |h, _| h.settled_at = at(6_000)),
        (Rule::NotEarly, |_, s| s.runs[5].created_at = at(4_999)),
        (Rule::NotEarly, |_, s| s.runs[5].nominal_at = at(5_100)),
        (Rule::Billed, |_, s| s.billed.runs -= 1),
        (Rule::Billed, |_, s| s.billed.attempts += 1),
        (Rule::Billed, |_, s| s.billed.wall += Duration::from_micros(1)),
    ];
    for (number, (rule, spoil)) in ways.into_iter().enumerate() {
        let (mut history, mut state) = good();
        spoil(&mut history, &mut state);
        let found = found(&history, &state);
        assert!(found.contains(&rule), "way {number}: {rule:?} is not among {found:?}");
    }
    // A run during the pause: it takes the place of a skip.
    let (mut history, mut state) = good();
    state.triggers[0].skips[0] = SkipSeen { from: at(4_000), to: at(4_000), count: 1 };
    state.runs.push(triggered(9, 3_000));
    state.billed = Billed::of(&state.runs);
    assert_eq!(found(&history, &state), [Rule::Paused]);
    // Had the resume been asked for without an answer shortly before, it might have come later.
    let resume = call(("t".to_string(), Asked::Resume), 2_000, 2_100, Answer::Unknown("gone".into()));
    history.triggers.push(resume);
    assert_eq!(found(&history, &state), []);
}

fn takeovers_wait_for_the_database() {
    let (mut history, state) = good();
    history.losses[0].by = at(2_599);
    assert_eq!(found(&history, &state), [Rule::TakenUp]);
    history.outages.push(crate::history::Outage { from: at(50), to: at(90) });
    assert_eq!(found(&history, &state), [Rule::TakenUp]);
    history.outages.push(crate::history::Outage { from: at(500), to: at(900) });
    assert_eq!(found(&history, &state), []);
}

fn executed(task: &str, customer: &str, from: i64, to: i64, wall: u64) -> RunSeen {
    let wall = Duration::from_millis(wall);
    let attempts = vec![AttemptSeen { wall, ..attempt(1, "a", from, to, None) }];
    RunSeen { task: task.into(), customer: Some(customer.into()), attempts, ..run(1, "one") }
}

fn what_certainly_executed_at_once_is_counted() {
    let exceeds = |runs: &[RunSeen]| !limits::check(runs, Duration::from_millis(5)).is_empty();
    let keyed = |customer, from, to, wall| executed(limits::KEYED, customer, from, to, wall);
    assert!(exceeds(&[keyed("a", 0, 100, 95), keyed("a", 50, 150, 95)]));
    assert!(!exceeds(&[keyed("a", 0, 100, 95), keyed("b", 50, 150, 95)]), "another key");
    assert!(!exceeds(&[keyed("a", 0, 100, 95), keyed("a", 98, 200, 95)]), "clocks are that far apart");
    assert!(
        !exceeds(&[keyed("a", 0, 1_000, 95), keyed("a", 50, 150, 95)]),
        "it isn't known when it executed"
    );
    assert!(!exceeds(&[keyed("a", 0, 100, 0), keyed("a", 50, 150, 95)]), "one was lost");
    let shared = || executed(limits::SHARED, "a", 0, 100, 95);
    let most = limits::SHARED_MOST as usize;
    let mut runs: Vec<RunSeen> = (0..most).map(|_| shared()).collect();
    assert!(!exceeds(&runs));
    runs.push(executed(limits::SHARED, "b", 50, 150, 95));
    assert!(exceeds(&runs));
}
