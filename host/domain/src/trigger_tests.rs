//! What makes a trigger, and what is refused.

use super::*;
use crate::calendar::{BundledZones, CronSchedule, Dialect};
use crate::time;

fn check(spec: &TriggerSpec, now: Timestamp) -> Result<Timestamp, TriggerSpecError> {
    let id = TriggerId(uuid::Uuid::nil());
    spec.check(id, &Payload::default(), &BundledZones, now).map(|first| first.unwrap().next.nominal)
}

#[test]
fn words_read_back_and_unknown_ones_say_what_is_known() {
    assert_eq!("allow-all".parse(), Ok(OverlapPolicy::AllowAll));
    let err = "maybe".parse::<CatchUp>().unwrap_err().to_string();
    assert_eq!(err, "`maybe` is not a catch-up mode; known are: latest, all, none");
}

#[test]
fn a_time_in_the_past_never_fires() {
    let now = Timestamp::from_second(100).unwrap();
    let past = TriggerSpec::new(Schedule::Once { at: Timestamp::UNIX_EPOCH });
    assert_eq!(check(&past, now), Err(TriggerSpecError::NeverFires(now)));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let hour = |hours: u64| time::after(now, Duration::from_secs(3600 * hours));
    let good = TriggerSpec::new(Schedule::Interval { every: Duration::from_secs(3600), anchor: now });
    let check = |spec: TriggerSpec| check(&spec, now);
    assert_eq!(check(good.clone()), Ok(hour(1)));
    let (start, end) = (hour(5), hour(4));
    let backwards = TriggerSpec { not_before: Some(start), not_after: Some(end), ..good.clone() };
    assert_eq!(check(backwards), Err(TriggerSpecError::Window { start, end }));
    let too_short =
        TriggerSpec { not_after: Some(time::before(hour(1), Duration::from_secs(1))), ..good.clone() };
    assert!(check(too_short).unwrap_err().to_string().contains("it would never fire"));
    let one = TriggerSpec { not_before: Some(hour(1)), not_after: Some(hour(1)), ..good.clone() };
    assert_eq!(check(one), Ok(hour(1)));
    assert_eq!(check(TriggerSpec { max_runs: Some(0), ..good.clone() }), Err(TriggerSpecError::NoRuns));
    let jitter = TriggerSpec { jitter: Duration::from_secs(60), ..good };
    assert_eq!(check(jitter.clone()), Ok(hour(1)));
    let delay = Schedule::FixedDelay { delay: Duration::from_secs(60), anchor: now };
    assert_eq!(
        check(TriggerSpec { rule: delay.into(), ..jitter.clone() }),
        Err(TriggerSpecError::JitterOfDelay)
    );
    let exclude = (0..9).map(|n| format!("calendar-{n}").parse().unwrap()).collect();
    assert_eq!(check(TriggerSpec { exclude, ..jitter }), Err(TriggerSpecError::Excludes(9)));
}

#[test]
fn what_is_only_due_on_holidays_would_never_run() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let read = crate::holiday::read(b"2026-12-25").unwrap();
    let holidays = Holidays::of([std::sync::Arc::new(crate::holiday::HolidayDates::of(&read))]);
    let check = |schedule| TriggerSpec::new(schedule).check_holidays(&holidays, &BundledZones, now);
    let at = |text: &str| Schedule::Once { at: text.parse().unwrap() };
    let never = check(at("2026-12-25T12:00:00Z")).unwrap_err();
    assert!(never.to_string().contains("it would never run"), "{never}");
    assert_eq!(check(at("2026-12-26T12:00:00Z")), Ok(()));
    let anchor = "2026-12-25T00:00:00Z".parse().unwrap();
    assert_eq!(check(Schedule::FixedDelay { delay: Duration::from_secs(60), anchor }), Ok(()));
}

#[test]
fn what_was_stored_before_there_was_more_still_reads() {
    let old = r#"{"schedule":{"kind":"cron","expression":"0 3 * * *","zone":"UTC"},"overlap":"skip"}"#;
    let spec: TriggerSpec = serde_json::from_str(old).unwrap();
    assert_eq!((spec.max_runs, spec.jitter, spec.not_after), (None, Duration::ZERO, None));
    assert!(matches!(&spec.rule, Rule::Schedule(Schedule::Cron(cron)) if cron.zone == "UTC"));
    let written: TriggerSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(written, spec);
}

#[test]
fn what_has_no_schedule_has_no_times_and_nothing_that_goes_with_them() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let good = TriggerSpec::new(crate::rule::EventRule::new("orders.*".parse().unwrap()));
    let check = |spec: &TriggerSpec| {
        spec.check(TriggerId(uuid::Uuid::nil()), &Payload::default(), &BundledZones, now)
    };
    assert_eq!((check(&good), good.overlap), (Ok(None), OverlapPolicy::AllowAll));
    let text = serde_json::to_string(&good).unwrap();
    assert!(text.starts_with(r#"{"event":{"pattern":"orders.*"}"#), "{text}");
    assert_eq!(serde_json::from_str::<TriggerSpec>(&text).unwrap(), good);
    let jitter = TriggerSpec { jitter: Duration::from_secs(1), ..good.clone() };
    assert_eq!(check(&jitter), Err(TriggerSpecError::NotScheduled("jitter")));
    let over = TriggerSpec { not_after: Some(time::before(now, Duration::from_secs(1))), ..good.clone() };
    assert!(matches!(check(&over), Err(TriggerSpecError::Over { .. })));
    let none = Timetable::new(TriggerId(uuid::Uuid::nil()), &good, &BundledZones).unwrap_err();
    assert!(none.to_string().ends_with("it is by the rule `on orders.*`"), "{none}");
}

#[test]
fn the_least_gap_is_the_smallest_not_the_first() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let cron = |expression: &str, zone: &str| {
        let schedule = Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, zone));
        TriggerSpec::new(schedule).least_gap(now).unwrap().map(|gap| gap.as_secs())
    };
    assert_eq!(cron("* * * * *", "UTC"), Some(60));
    assert_eq!(cron("*/7 * * * * *", "UTC"), Some(4), "from second 56 to the next minute");
    assert_eq!(cron("0,5 12 * * *", "UTC"), Some(300));
    assert_eq!(cron("0 3 * * *", "Europe/Berlin"), Some(23 * 3600), "the day that loses an hour");
    assert_eq!(cron("0 0 1 1 *", "UTC"), Some(365 * 86_400));
    assert!(cron("0 0 29 2 *", "UTC").unwrap() >= 4 * 365 * 86_400);
    let every = Schedule::Interval { every: Duration::from_secs(9), anchor: now };
    assert_eq!(TriggerSpec::new(every).least_gap(now), Ok(Some(Duration::from_secs(9))));
    assert_eq!(TriggerSpec::new(Schedule::Once { at: now }).least_gap(now), Ok(None));
}

#[test]
fn a_skip_goes_on_from_one_that_is_before_it_with_no_run_in_between() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let skip = |second| SkipRange { from: at(second), to: at(second), count: 1, reason: SkipReason::Missed };
    assert!(skip(20).continues(at(10), SkipReason::Missed, None));
    assert!(skip(20).continues(at(10), SkipReason::Missed, Some(at(5))));
    assert!(!skip(20).continues(at(10), SkipReason::Missed, Some(at(15))), "a run is in between");
    assert!(!skip(20).continues(at(10), SkipReason::Paused, None), "for another reason");
    assert!(!skip(5).continues(at(10), SkipReason::Missed, None), "a clock was set back");
}
