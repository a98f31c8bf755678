//! The forecast against what is known beforehand, and against brute force.

use super::*;
use crate::calendar::{BundledZones, CronSchedule, Dialect, Schedule};
use crate::holiday::Holidays;
use crate::limits::STORED_BYTES_PER_RUN;
use crate::quota::Quota;
use crate::time;
use crate::timetable::Timetable;
use proptest::prelude::*;
use std::time::Duration;

/// 2026-03-28, the day before the clocks of Berlin change.
const BEGIN: i64 = 1_774_656_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(BEGIN + second).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn every(seconds: u64) -> Schedule {
    Schedule::Interval { every: Duration::from_secs(seconds), anchor: at(0) }
}

fn plan(number: u128, task: &str, spec: TriggerSpec) -> Plan {
    let id = TriggerId(uuid::Uuid::from_u128(number));
    let timetable = Timetable::new(id, &spec, &BundledZones).unwrap();
    let next_at = timetable.next_after(at(-1));
    let name = name(&format!("trigger-{number}"));
    Plan { id, name, task: task.parse().unwrap(), spec, paused: false, next_at, started: 0, input_bytes: 0 }
}

fn scope<'a>(until: i64, holidays: &'a BTreeMap<Name, Arc<HolidayDates>>, quotas: &'a Quotas) -> Scope<'a> {
    let tenant = TenantState::Active;
    Scope { from: at(0), until: at(until), holidays, zones: &BundledZones, tenant, quotas, stored_bytes: 0 }
}

/// A forecast without holidays and quotas.
fn of(plans: Vec<Plan>, hours: i64) -> Forecast {
    forecast(plans, scope(hours * 3600, &BTreeMap::new(), &Quotas::default()))
}

fn no_names(task: &TaskForecast) -> (&str, u64, u64, i64, i64) {
    let second = |at: Timestamp| at.as_second() - BEGIN;
    (task.task.as_str(), task.runs, task.estimated, second(task.first), second(task.last))
}

#[test]
fn tasks_minutes_and_hours_are_counted() {
    let nightly = CronSchedule::new("30 2 * * *", Dialect::Crontab, "Europe/Berlin");
    let plans = vec![
        plan(1, "often", TriggerSpec::new(every(1800))),
        plan(2, "often", TriggerSpec::new(every(3600))),
        plan(3, "nightly", TriggerSpec::new(Schedule::Cron(nightly))),
    ];
    let found = of(plans, 24);
    assert_eq!((found.runs, found.incomplete_from, found.warnings.len()), (71, None, 0));
    let tasks: Vec<_> = found.tasks.iter().map(no_names).collect();
    assert_eq!(tasks, [("often", 70, 0, 1800, 84_600), ("nightly", 1, 0, 5_400, 5_400)]);
    let busy: Vec<_> =
        found.minutes.iter().map(|m| (m.at.as_second() - BEGIN, m.runs, m.at_once)).take(3).collect();
    assert_eq!(busy, [(3600, 2, 2), (5400, 2, 2), (7200, 2, 2)]);
    assert_eq!(found.minutes[1].tasks, [(name("nightly"), 1), (name("often"), 1)]);
    assert_eq!((found.hours.len(), found.hours[0], found.hours[1]), (24, (at(0), 1), (at(3600), 4)));
}

#[test]
fn what_is_left_out_or_estimated_is_said() {
    let delay = |anchor| Schedule::FixedDelay { delay: Duration::from_secs(600), anchor };
    let waiting = Plan { next_at: None, ..plan(1, "delay", TriggerSpec::new(delay(at(0)))) };
    let known = Plan { next_at: Some(at(300)), ..plan(2, "delay", TriggerSpec::new(delay(at(-300)))) };
    let paused = Plan { paused: true, ..plan(3, "paused", TriggerSpec::new(every(60))) };
    let overdue = Plan { next_at: Some(at(-3600)), ..plan(4, "overdue", TriggerSpec::new(every(1200))) };
    let zone = CronSchedule::new("* * * * *", Dialect::Crontab, "Mars/Base");
    let mut unreadable = plan(5, "unreadable", TriggerSpec::new(every(60)));
    unreadable.spec.rule = Schedule::Cron(zone).into();
    let found = of(vec![waiting, known, paused, overdue, unreadable], 1);
    let tasks: Vec<_> = found.tasks.iter().map(no_names).collect();
    assert_eq!(tasks, [("delay", 11, 11, 300, 3300), ("overdue", 2, 0, 1200, 2400)]);
    let counts =
        [&found.estimated, &found.paused, &found.overdue, &found.unreadable].map(|named| named.count);
    assert_eq!((counts, &found.paused.names), ([2, 1, 1, 1], &vec![name("trigger-3")]));
    let busiest = &found.minutes[0];
    assert_eq!((busiest.runs, busiest.at_once), (2, 1), "nobody knows when a fixed delay meets another");
}

#[test]
fn quotas_in_the_way_are_told_and_others_not() {
    let crowd = |until| {
        (1..=5).map(move |number| {
            plan(number, "crowd", TriggerSpec { not_after: Some(at(until)), ..TriggerSpec::new(every(60)) })
        })
    };
    let plans: Vec<Plan> = crowd(120).chain(crowd(60)).collect();
    let quotas = |quotas: &[(Quota, u64)]| Quotas(quotas.iter().copied().collect());
    let warnings =
        |quotas: Quotas, plans: Vec<Plan>| forecast(plans, scope(3600, &BTreeMap::new(), &quotas)).warnings;
    let few = warnings(quotas(&[(Quota::ConcurrentRuns, 4)]), plans.clone());
    let expected = Warning::ConcurrentRuns { limit: 4, instants: 2, first: at(60), most: 10, at: at(60) };
    assert_eq!(few, [expected]);
    assert!(few[0].to_string().contains("2 times, first at 2026-03-28T00:01:00Z, at most 10"), "{}", few[0]);
    assert_eq!(
        warnings(quotas(&[(Quota::ConcurrentRuns, 10), (Quota::StartsPerSecond, 1)]), plans.clone()),
        []
    );
    let room = 12 * STORED_BYTES_PER_RUN;
    let full = warnings(quotas(&[(Quota::StoredBytes, room)]), plans.clone());
    assert_eq!(full, [Warning::StoredBytes { room, needed: 15 * STORED_BYTES_PER_RUN, from: at(120) }]);
    let (holidays, quotas) = (BTreeMap::new(), Quotas::default());
    let suspended = Scope { tenant: TenantState::Suspended, ..scope(3600, &holidays, &quotas) };
    assert_eq!(forecast(plans, suspended).warnings, [Warning::Suspended]);
}

#[test]
fn a_trigger_that_is_due_every_second_of_a_month_is_reckoned_whole() {
    let begun = std::time::Instant::now();
    let found = of(vec![plan(1, "second", TriggerSpec::new(every(1)))], 744);
    println!("{} times in {:?}", found.runs, begun.elapsed());
    assert_eq!((found.runs, found.incomplete_from, found.minutes[0].runs), (744 * 3600 - 1, None, 60));
}

#[test]
fn ten_thousand_triggers_are_reckoned_soon() {
    let hourly = |number: u128| {
        CronSchedule::new(&format!("{} * * * *", number % 60), Dialect::Crontab, "Europe/Berlin")
    };
    let plans = (0..10_000).map(|number| {
        plan(number, &format!("task-{}", number % 500), TriggerSpec::new(Schedule::Cron(hourly(number))))
    });
    let plans: Vec<Plan> = plans.collect();
    let begun = std::time::Instant::now();
    let found = of(plans, 24);
    println!("{} times of 10000 triggers in {:?}", found.runs, begun.elapsed());
    assert_eq!((found.runs, found.tasks.len(), found.minutes[0].runs), (240_000, 500, 167));
}

#[test]
fn over_the_bound_it_says_from_when_on_it_is_incomplete() {
    let plans = vec![plan(1, "a", TriggerSpec::new(every(60))), plan(2, "b", TriggerSpec::new(every(40)))];
    let found = bounded(plans.clone(), scope(3600, &BTreeMap::new(), &Quotas::default()), 4);
    // 40, 60, 80, 120 and 120.
    assert_eq!((found.runs, found.incomplete_from), (4, Some(at(120))));
    let whole = bounded(plans, scope(121, &BTreeMap::new(), &Quotas::default()), 5);
    assert_eq!((whole.runs, whole.incomplete_from), (5, None));
}

/// A trigger in any shape: how often, jitter, start and end of its window, most runs, whether holidays count.
type Shape = (u64, u64, Option<i64>, Option<i64>, Option<u64>, bool, bool);

fn shaped(number: usize, shape: Shape) -> Plan {
    let (step, jitter, start, end, max_runs, exclude, cron) = shape;
    let schedule = if cron {
        let minutes = step % 55 + 1;
        Schedule::Cron(CronSchedule::new(
            &format!("*/{minutes} */2 * * *"),
            Dialect::Crontab,
            "Europe/Berlin",
        ))
    } else {
        every(step)
    };
    let spec = TriggerSpec {
        jitter: Duration::from_secs(jitter),
        not_before: start.map(at),
        not_after: end.map(at),
        max_runs,
        exclude: exclude.then(|| name("closed")).into_iter().collect(),
        ..TriggerSpec::new(schedule)
    };
    plan(number as u128, ["a", "b", "c"][number % 3], spec)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// As if every time of every trigger had been written down.
    #[test]
    fn it_is_what_brute_force_finds(
        shapes in prop::collection::vec((
            30u64..20_000, prop::sample::select(vec![0u64, 10, 5_000]), prop::option::of(0i64..200_000),
            prop::option::of(200_000i64..300_000), prop::option::of(1u64..50), any::<bool>(), any::<bool>(),
        ), 1..12),
        hours in 1i64..72, limit in 1u64..4,
    ) {
        let read = crate::holiday::read(b"2026-03-29\n2026-03-30").unwrap();
        let dates = Arc::new(HolidayDates::of(&read));
        let holidays = BTreeMap::from([(name("closed"), Arc::clone(&dates))]);
        let quotas = Quotas([(Quota::ConcurrentRuns, limit)].into());
        let plans: Vec<Plan> = shapes.into_iter().enumerate().map(|(number, shape)| shaped(number, shape))
            .filter(|plan| plan.next_at.is_some()).collect();
        let until = at(hours * 3600);
        let mut all: Vec<(Timestamp, &str)> = Vec::new();
        for plan in &plans {
            let table = Timetable::new(plan.id, &plan.spec, &BundledZones).unwrap();
            let excluded = if plan.spec.exclude.is_empty() { Holidays::default() } else { Holidays::of([Arc::clone(&dates)]) };
            let times = table.times_after(at(-1)).take_while(|t| *t < until)
                .filter(|t| !excluded.includes(table.date(*t)))
                .take(usize::try_from(plan.spec.max_runs.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
            all.extend(times.map(|t| (table.due_at(t), plan.task.as_str())).filter(|(due, _)| *due < until));
        }
        all.sort();
        let found = forecast(plans.clone(), scope(hours * 3600, &holidays, &quotas));
        prop_assert_eq!(found.runs, all.len() as u64);
        for task in ["a", "b", "c"] {
            let of_task: Vec<Timestamp> = all.iter().filter(|(_, of)| *of == task).map(|(due, _)| *due).collect();
            let told = found.tasks.iter().find(|told| told.task.as_str() == task);
            let expected = of_task.first().map(|first| (of_task.len() as u64, *first, *of_task.last().unwrap()));
            prop_assert_eq!(told.map(|told| (told.runs, told.first, told.last)), expected);
        }
        let mut minutes: BTreeMap<i64, u64> = BTreeMap::new();
        let mut instants: BTreeMap<Timestamp, u64> = BTreeMap::new();
        for (due, _) in &all {
            *minutes.entry(due.as_second().div_euclid(60)).or_default() += 1;
            *instants.entry(*due).or_default() += 1;
        }
        let mut busiest: Vec<(u64, i64)> = minutes.into_iter().map(|(minute, runs)| (runs, minute)).collect();
        busiest.sort_by_key(|(runs, minute)| (Reverse(*runs), *minute));
        busiest.truncate(crate::limits::FORECAST_MINUTES_SHOWN);
        let told: Vec<(u64, i64)> = found.minutes.iter().map(|m| (m.runs, m.at.as_second() / 60)).collect();
        prop_assert_eq!(told, busiest);
        for minute in &found.minutes {
            let within = instants.range(minute.at..time::after(minute.at, Duration::from_secs(60)));
            prop_assert_eq!(minute.at_once, within.map(|(_, runs)| *runs).max().unwrap());
            prop_assert_eq!(minute.tasks.iter().map(|(_, runs)| runs).sum::<u64>(), minute.runs);
        }
        prop_assert_eq!(found.hours.iter().map(|(_, runs)| runs).sum::<u64>(), found.runs);
        prop_assert_eq!(found.hours.len(), hours as usize);
        let crowds: Vec<(Timestamp, u64)> = instants.into_iter().filter(|(_, runs)| *runs > limit).collect();
        let told = found.warnings.first().map(|warning| match warning {
            Warning::ConcurrentRuns { instants, first, most, .. } => (*instants, *first, *most),
            other => panic!("{other:?}"),
        });
        let expected = crowds.first().map(|(first, _)| (crowds.len() as u64, *first, crowds.iter().map(|(_, runs)| *runs).max().unwrap()));
        prop_assert_eq!(told, expected);
    }
}
