//! Holiday calendars, and what due triggers and forecasts are given.

use super::*;
use innkeeper_domain::firing::{Rules, fire};
use innkeeper_domain::forecast::Plan;
use innkeeper_domain::holiday::{Holiday, Holidays, read};
use innkeeper_domain::limits::HOLIDAY_CALENDARS_PER_TENANT_MAX;
use innkeeper_domain::timetable::Timetable;
use std::collections::BTreeSet;

const DAY: i64 = 86_400;

fn holidays(lines: &str) -> Vec<Holiday> {
    read(lines.as_bytes()).unwrap()
}

fn is_missing<T: std::fmt::Debug>(found: Result<T, StoreError>, what: &str) {
    assert_eq!(found.unwrap_err(), StoreError::NotFound(what.into()));
}

/// Due every ten seconds, and not on the dates of these calendars.
fn excluding(calendars: &[&str]) -> TriggerSpec {
    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let exclude = calendars.iter().map(|calendar| name(calendar)).collect();
    TriggerSpec { exclude, ..TriggerSpec::new(schedule) }
}

impl Fixture {
    async fn put(&self, calendar: &str, lines: &str, second: i64) -> HolidayCalendarOf {
        let calendar = name(calendar);
        let put = self.store.holidays_put(self.tenant.id, &calendar, holidays(lines), at(second).into());
        put.await.map(|put| (put.holidays.len(), put.created_at, put.updated_at))
    }

    async fn excluding(
        &self,
        trigger: &str,
        calendars: &[&str],
        first: i64,
    ) -> Result<TriggerId, StoreError> {
        let (id, input, first) =
            (TriggerId::new(at(2)), Payload::json("12"), Some(Reckoning::plain(at(first), at(2))));
        let (task, spec) = (name("work"), excluding(calendars));
        let new = NewTrigger { id, task, name: Some(name(trigger)), spec, input, first };
        Ok(self.store.trigger_create(self.tenant.id, new, at(2).into()).await?.id)
    }
}

/// How many holidays it has, since when there is one, and since when these.
type HolidayCalendarOf = Result<(usize, Timestamp, Timestamp), StoreError>;

pub async fn a_holiday_calendar_is_kept_while_a_trigger_excludes_it(f: Fixture) {
    let (s, tenant, calendar) = (&f.store, f.tenant.id, name("closed"));
    is_missing(f.excluding("t", &["closed"], 10).await, "holiday calendar `closed`");
    is_missing(s.trigger_get(tenant, &name("t")).await, "trigger `t`");
    assert_eq!(f.put("closed", "1970-01-02 second\n1970-05-01/yearly", 3).await, Ok((2, at(3), at(3))));
    f.excluding("t", &["closed"], 10).await.unwrap();
    // Others whose text has the name too.
    f.put("t", "1970-01-02", 3).await.unwrap();
    let used = s.holidays_delete(tenant, &calendar, at(5).into()).await.unwrap_err();
    assert!(matches!(&used, StoreError::Conflict(words) if words.contains("trigger `t` excludes")), "{used}");
    s.holidays_delete(tenant, &name("t"), at(5).into()).await.unwrap();
    assert_eq!(f.put("closed", "1970-01-03 third", 6).await, Ok((1, at(3), at(6))));
    let got = s.holidays_get(tenant, &calendar).await.unwrap();
    assert_eq!((got.holidays, got.created_at, got.updated_at), (holidays("1970-01-03 third"), at(3), at(6)));
    s.trigger_delete(tenant, &name("t"), at(7).into()).await.unwrap();
    s.holidays_delete(tenant, &calendar, at(8).into()).await.unwrap();
    is_missing(s.holidays_get(tenant, &calendar).await, "holiday calendar `closed`");
    is_missing(s.holidays_delete(tenant, &calendar, at(8).into()).await, "holiday calendar `closed`");
}

pub async fn holiday_calendars_of_tenants_are_their_own_and_so_many(f: Fixture) {
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    f.store.holidays_put(other, &name("a"), holidays("1970-02-02"), at(3).into()).await.unwrap();
    for calendar in ["c", "b"] {
        f.put(calendar, "1970-01-02", 3).await.unwrap();
    }
    is_missing(f.store.holidays_get(f.tenant.id, &name("a")).await, "holiday calendar `a`");
    is_missing(f.store.holidays_delete(f.tenant.id, &name("a"), at(4).into()).await, "holiday calendar `a`");
    is_missing(f.excluding("t", &["a"], 10).await, "holiday calendar `a`");
    let names = |page: Paged<innkeeper_domain::holiday::HolidayCalendarInfo>| {
        page.items.iter().map(|info| format!("{} {}", info.name, info.holidays)).collect::<Vec<_>>()
    };
    let first = f.store.holidays_list(f.tenant.id, page(1, None)).await.unwrap();
    let next = first.next.clone();
    assert_eq!((names(first), next.is_some()), (vec!["b 1".to_string()], true));
    assert_eq!(names(f.store.holidays_list(f.tenant.id, page(9, next)).await.unwrap()), ["c 1"]);
    let wanted: BTreeSet<Name> = ["a", "b", "none"].map(name).into();
    let dates = f.store.holidays_dates(f.tenant.id, wanted).await.unwrap();
    assert_eq!(dates.keys().map(Name::as_str).collect::<Vec<_>>(), ["b"]);
    for number in 2..HOLIDAY_CALENDARS_PER_TENANT_MAX {
        f.put(&format!("n{number}"), "1970-01-02", 3).await.unwrap();
    }
    assert!(matches!(f.put("more", "1970-01-02", 4).await, Err(StoreError::Conflict(_))));
    assert_eq!(f.put("b", "1970-01-03", 4).await, Ok((1, at(3), at(4))), "one that is there can be changed");
    let nobody = innkeeper_domain::ids::TenantId(uuid::Uuid::nil());
    let put = f.store.holidays_put(nobody, &name("a"), holidays("1970-01-02"), at(4).into()).await;
    assert!(matches!(put, Err(StoreError::NotFound(_))), "{put:?}");
}

pub async fn a_due_trigger_is_given_the_dates_that_it_excludes(f: Fixture) {
    f.put("one", "1970-01-02", 3).await.unwrap();
    f.put("two", "1970-01-03", 3).await.unwrap();
    let both = f.excluding("both", &["one", "two"], DAY).await.unwrap();
    let none = f.excluding("none", &[], DAY).await.unwrap();
    // Told alike by all: a name that is taken, before a calendar that isn't there.
    let taken = f.excluding("both", &["missing"], DAY).await;
    assert!(matches!(taken, Err(StoreError::Exists(_))), "{taken:?}");
    let due = async || {
        let due = f.store.triggers_due(at(DAY), 9).await.unwrap();
        let is_holiday = |holidays: &Holidays| {
            ["1970-01-01", "1970-01-02", "1970-01-03"].map(|date| holidays.includes(date.parse().unwrap()))
        };
        due.into_iter().map(|due| (due.id, is_holiday(&due.holidays))).collect::<BTreeSet<_>>()
    };
    assert_eq!(due().await, [(both, [false, true, true]), (none, [false; 3])].into());
    // A change counts from the next decision on.
    f.put("two", "1970-01-01", 4).await.unwrap();
    assert_eq!(due().await, [(both, [true, true, false]), (none, [false; 3])].into());
    let due = f.store.triggers_due(at(DAY), 9).await.unwrap().into_iter().find(|due| due.id == both).unwrap();
    let table = Timetable::new(both, &due.spec, &innkeeper_domain::calendar::BundledZones).unwrap();
    let firing = fire(Rules::of(&due.spec, &table, &due.holidays, None), due.due, at(DAY + 15));
    let advance = Advance { id: both, due: due.due, firing, run_ids: vec![], edition: String::new() };
    assert_eq!(f.store.triggers_advance(vec![advance], at(DAY + 15)).await, Ok(0));
    let skips = f.store.trigger_skips(f.tenant.id, &name("both"), page(9, None)).await.unwrap().items;
    assert_eq!(skips, [skip(DAY, DAY + 10, 2, SkipReason::Holiday)]);
    let counts = f.store.trigger_skip_counts(f.tenant.id, &name("both")).await.unwrap();
    assert_eq!(counts, [(SkipReason::Holiday, 2)].into());
}

pub async fn a_forecast_is_given_what_is_not_finished(f: Fixture) {
    let (s, tenant) = (&f.store, f.tenant.id);
    f.put("closed", "1970-01-02", 3).await.unwrap();
    let id = f.excluding("b", &["closed"], 10).await.unwrap();
    for trigger in ["a", "c", "d", "e"] {
        f.excluding(trigger, &[], 10).await.unwrap();
    }
    s.trigger_pause(tenant, &name("a"), "why".into(), QueuedRuns::Keep, at(5).into()).await.unwrap();
    s.trigger_delete(tenant, &name("c"), at(5).into()).await.unwrap();
    f.advance(f.store.trigger_get(tenant, &name("d")).await.unwrap().id, 10, &[10], vec![], None).await;
    let other = NewTask { id: TaskId::new(at(1)), name: name("other"), spec: TaskSpec::new(digest()) };
    s.task_create(tenant, other, at(1).into()).await.unwrap();
    let plans = async |task: Option<&str>, only: Option<&str>, page: Page| {
        let only = only.map(|only| [name(only)].into());
        s.trigger_plans(tenant, task.map(name).as_ref(), only, page).await
    };
    let first = plans(None, None, page(2, None)).await.unwrap();
    let expected = Plan {
        id,
        name: name("b"),
        task: name("work"),
        spec: excluding(&["closed"]),
        paused: false,
        next_at: Some(at(10)),
        started: 0,
        input_bytes: 2,
    };
    assert_eq!((first.items[0].name.as_str(), first.items[0].paused), ("a", true));
    assert_eq!(first.items[1], expected);
    let rest = plans(Some("work"), Some("work"), page(2, first.next)).await.unwrap();
    assert_eq!(rest.items.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>(), ["e"]);
    assert_eq!(plans(Some("other"), None, page(9, None)).await.unwrap().items, []);
    is_missing(plans(Some("work"), Some("other"), page(9, None)).await, "task `work`");
    is_missing(plans(Some("none"), None, page(9, None)).await, "task `none`");
}
