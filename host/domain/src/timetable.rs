//! A trigger's timetable: which times its schedule, its window and its jitter make together.

use crate::calendar::{Calendar, Covered, ScheduleError, Zones};
use crate::fairness::mix;
use crate::holiday::Holidays;
use crate::ids::TriggerId;
use crate::limits::HOLIDAYS_PASSED_MAX;
use crate::time;
use crate::trigger::TriggerSpec;
use jiff::Timestamp;
use jiff::civil::Date;
use std::time::Duration;

/// The least time that is told apart.
const MICROSECOND: Duration = Duration::from_micros(1);

/// A nominal time, and when the scheduler turns to it: later by the jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upcoming {
    pub nominal: Timestamp,
    pub due: Timestamp,
}

impl Upcoming {
    /// A nominal time without jitter.
    pub fn punctual(nominal: Timestamp) -> Self {
        Self { nominal, due: nominal }
    }
}

/// What a trigger's next nominal time was reckoned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reckoning {
    pub next: Upcoming,
    /// Everything up to there is accounted for, or was before the trigger.
    pub covered: Covered,
    /// The edition of the zones that it was reckoned by; empty if no zone matters.
    pub edition: String,
}

impl Reckoning {
    /// One of a trigger without jitter or zone.
    pub fn plain(next: Timestamp, covered: Timestamp) -> Self {
        let covered = Covered { at: covered, offset: 0 };
        Self { next: Upcoming::punctual(next), covered, edition: String::new() }
    }
}

/// A trigger's timetable, read once. Nothing of it depends on what has happened, so that it can be asked about any
/// time; how many runs a trigger may have at most is not its business.
#[derive(Debug, Clone)]
pub struct Timetable {
    calendar: Calendar,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    jitter: Duration,
    seed: u64,
}

impl Timetable {
    /// The timetable of a trigger, by these zones.
    pub fn new(id: TriggerId, spec: &TriggerSpec, zones: &dyn Zones) -> Result<Self, ScheduleError> {
        let (high, low) = id.0.as_u64_pair();
        Ok(Self {
            calendar: spec.schedule()?.calendar_in(zones)?,
            not_before: spec.not_before,
            not_after: spec.not_after,
            jitter: spec.jitter,
            seed: mix(high) ^ low,
        })
    }

    /// The first nominal time later than `after`, in the window; none if there is none.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.within(self.calendar.next_after(self.opened(after)))
    }

    /// The nominal times later than `after`, in order.
    pub fn times_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }

    /// The civil date of an instant, in the schedule's zone; in UTC where it has none.
    pub fn date(&self, at: Timestamp) -> Date {
        self.calendar.date(at)
    }

    /// Whether an instant is on a holiday.
    pub fn is_holiday(&self, at: Timestamp, holidays: &Holidays) -> bool {
        !holidays.is_empty() && holidays.includes(self.date(at))
    }

    /// The first nominal time later than `after` that isn't on a holiday; none if there is none, or only after more
    /// than [`HOLIDAYS_PASSED_MAX`] holidays.
    pub fn next_working_after(&self, after: Timestamp, holidays: &Holidays) -> Option<Timestamp> {
        self.next_working_until(after, Timestamp::MAX, holidays)
    }

    /// The same; none, if a holiday later than `until` is come to before it.
    pub fn next_working_until(
        &self,
        after: Timestamp,
        until: Timestamp,
        holidays: &Holidays,
    ) -> Option<Timestamp> {
        let mut next = self.next_after(after)?;
        if holidays.is_empty() {
            return Some(next);
        }
        for _ in 0..HOLIDAYS_PASSED_MAX {
            let date = self.date(next);
            if !holidays.includes(date) {
                return Some(next);
            }
            if next > until {
                return None;
            }
            let tomorrow = date.tomorrow().ok().and_then(|date| self.calendar.start_of(date));
            // Where the clock is turned back over midnight, a date goes on after the next has begun.
            let passed = tomorrow.filter(|start| *start > next).map(|start| time::before(start, MICROSECOND));
            next = self.next_after(passed.map_or(next, |passed| passed.max(next)))?;
        }
        None
    }

    /// The nominal times later than `after` that aren't on holidays, in order.
    pub fn working_times_after<'a>(
        &'a self,
        after: Timestamp,
        holidays: &'a Holidays,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        std::iter::successors(self.next_working_after(after, holidays), |last| {
            self.next_working_after(*last, holidays)
        })
    }

    /// When the first date after that of `at` begins that isn't a holiday; or a holiday after
    /// [`HOLIDAYS_PASSED_MAX`] others.
    pub fn next_working_date(&self, at: Timestamp, holidays: &Holidays) -> Timestamp {
        let mut date = self.date(at);
        for _ in 0..HOLIDAYS_PASSED_MAX {
            match date.tomorrow() {
                Ok(tomorrow) => date = tomorrow,
                Err(_) => return Timestamp::MAX,
            }
            if !holidays.includes(date) {
                break;
            }
        }
        self.calendar.start_of(date).unwrap_or(Timestamp::MAX)
    }

    /// As [`Calendar::resume_after`], in the window.
    pub fn resume_after(&self, covered: Covered) -> Option<Timestamp> {
        match self.not_before {
            Some(start) if covered.at < start => self.next_after(covered.at),
            _ => self.within(self.calendar.resume_after(covered)),
        }
    }

    /// When the scheduler turns to a nominal time: later by what the jitter draws for it, which is the same
    /// whenever it is asked, and never as late as the next nominal time.
    pub fn due_at(&self, nominal: Timestamp) -> Timestamp {
        if self.jitter.is_zero() {
            return nominal;
        }
        let until_next = self.next_after(nominal).map_or(Duration::MAX, |next| time::between(nominal, next));
        let most = u64::try_from(self.jitter.min(until_next).as_micros()).unwrap_or(u64::MAX).max(1);
        let draw = mix(self.seed ^ mix(time::to_micros(nominal).cast_unsigned()));
        time::after(nominal, Duration::from_micros(draw % most))
    }

    /// A nominal time with its jitter.
    pub fn upcoming(&self, nominal: Timestamp) -> Upcoming {
        Upcoming { nominal, due: self.due_at(nominal) }
    }

    /// `nominal`, which a fixed delay has come to, if it is in the window.
    pub fn delayed(&self, nominal: Timestamp) -> Option<Upcoming> {
        self.within(Some(nominal)).map(Upcoming::punctual)
    }

    /// That everything up to `at` is accounted for, by this timetable's zones.
    pub fn covered(&self, at: Timestamp) -> Covered {
        Covered { at, offset: self.calendar.offset(at) }
    }

    /// No earlier than just before the window.
    fn opened(&self, after: Timestamp) -> Timestamp {
        self.not_before.map_or(after, |start| after.max(time::before(start, MICROSECOND)))
    }

    fn within(&self, nominal: Option<Timestamp>) -> Option<Timestamp> {
        nominal.filter(|nominal| self.not_after.is_none_or(|end| *nominal <= end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{BundledZones, CronSchedule, Dialect, Schedule};
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn every(seconds: u64) -> TriggerSpec {
        let anchor = at("2026-01-01T00:00:00Z");
        TriggerSpec::new(Schedule::Interval { every: Duration::from_secs(seconds), anchor })
    }

    fn timetable(spec: &TriggerSpec) -> Timetable {
        Timetable::new(TriggerId(uuid::Uuid::from_u128(7)), spec, &BundledZones).unwrap()
    }

    #[test]
    fn a_window_has_both_its_ends() {
        let spec = TriggerSpec {
            not_before: Some(at("2026-01-01T02:00:00Z")),
            not_after: Some(at("2026-01-01T04:00:00Z")),
            ..every(3600)
        };
        let times: Vec<_> = timetable(&spec).times_after(at("2025-01-01T00:00:00Z")).collect();
        assert_eq!(times, ["2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z", "2026-01-01T04:00:00Z"].map(at));
    }

    #[test]
    fn jitter_differs_from_time_to_time_and_from_trigger_to_trigger() {
        let spec = TriggerSpec { jitter: Duration::from_secs(600), ..every(3600) };
        let delays = |id| {
            let table = Timetable::new(TriggerId(uuid::Uuid::from_u128(id)), &spec, &BundledZones).unwrap();
            let times: Vec<_> = table.times_after(at("2026-01-01T00:00:00Z")).take(50).collect();
            times.iter().map(|time| time::between(*time, table.due_at(*time))).collect::<Vec<_>>()
        };
        let (one, other) = (delays(1), delays(2));
        assert_ne!(one, other);
        assert_eq!(one, delays(1));
        let mean = one.iter().sum::<Duration>() / 50;
        assert!((Duration::from_secs(200)..Duration::from_secs(400)).contains(&mean), "{mean:?}");
    }

    fn holidays(lines: &str) -> Holidays {
        let read = crate::holiday::read(lines.as_bytes()).unwrap();
        Holidays::of([std::sync::Arc::new(crate::holiday::HolidayDates::of(&read))])
    }

    #[test]
    fn a_holiday_is_a_date_of_the_triggers_zone() {
        let christmas = holidays("2026-12-25");
        let cron = CronSchedule::new("0 0,12 * * *", Dialect::Crontab, "Asia/Tokyo");
        let table = timetable(&TriggerSpec::new(Schedule::Cron(cron)));
        let times: Vec<_> =
            table.working_times_after(at("2026-12-24T00:00:00Z"), &christmas).take(3).collect();
        // Midnight and noon of the 25th in Tokyo are 15:00 of the 24th and 03:00 of the 25th.
        assert_eq!(times, ["2026-12-24T03:00:00Z", "2026-12-25T15:00:00Z", "2026-12-26T03:00:00Z"].map(at));
        assert_eq!(
            table.next_working_date(at("2026-12-24T15:00:00Z"), &christmas),
            at("2026-12-25T15:00:00Z")
        );
        let hourly = timetable(&every(3600));
        assert_eq!(
            hourly.next_working_after(at("2026-12-24T23:30:00Z"), &christmas),
            Some(at("2026-12-26T00:00:00Z"))
        );
        let until = |until| hourly.next_working_until(at("2026-12-24T23:30:00Z"), at(until), &christmas);
        assert_eq!(until("2026-12-24T23:30:00Z"), None);
        assert_eq!(until("2026-12-25T23:00:00Z"), Some(at("2026-12-26T00:00:00Z")));
        let none_in_the_way =
            hourly.next_working_until(at("2026-12-24T22:30:00Z"), Timestamp::MIN, &christmas);
        assert_eq!(none_in_the_way, Some(at("2026-12-24T23:00:00Z")));
    }

    #[test]
    fn where_everything_is_a_holiday_the_search_ends() {
        let year = Date::new(2024, 1, 1).unwrap().series(jiff::Span::new().days(1)).take(366);
        let all = holidays(&year.map(|date| format!("{date}/yearly\n")).collect::<String>());
        let secondly = timetable(&every(1));
        let soon = secondly.next_working_until(at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"), &all);
        assert_eq!(soon, None);
        assert_eq!(secondly.next_working_after(at("2026-01-01T00:00:00Z"), &all), None);
        let far = secondly.next_working_date(at("2026-01-01T00:00:00Z"), &all);
        assert!(far > at("2036-01-01T00:00:00Z"), "{far}");
        assert_eq!(secondly.next_working_date(Timestamp::MAX, &all), Timestamp::MAX);
    }

    proptest! {
        /// Over changes of clocks too, as if every time had been looked at.
        #[test]
        fn passing_over_holidays_leaves_out_nothing_else(
            zone in prop::sample::select(vec!["UTC", "America/New_York", "America/St_Johns", "America/Santiago", "Pacific/Kiritimati", "America/Havana"]),
            hours in prop::sample::select(vec!["*", "0", "23,0", "*/5"]),
            start in 0i64..20_000, dates in prop::collection::btree_set(0i64..12, 1..10),
        ) {
            let from = Timestamp::from_second(start * 86_400 - 3_600).unwrap();
            let cron = CronSchedule::new(&format!("*/20 {hours} * * *"), Dialect::Crontab, zone);
            let table = timetable(&TriggerSpec::new(Schedule::Cron(cron)));
            let day = |n: &i64| format!("{}\n", table.date(time::after(from, Duration::from_secs(86_400 * (*n as u64)))));
            let mut lines: Vec<String> = dates.iter().map(day).collect();
            lines.dedup();
            let holidays = holidays(&lines.concat());
            let to = time::after(from, Duration::from_secs(13 * 86_400));
            let expected: Vec<_> = table.times_after(from).take_while(|t| *t < to)
                .filter(|t| !holidays.includes(table.date(*t))).collect();
            let found: Vec<_> = table.working_times_after(from, &holidays).take_while(|t| *t < to).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn jitter_keeps_the_order(
            step in 1u64..10_000, jitter in 0u64..20_000, id: u128, from in 0i64..100_000_000,
        ) {
            let spec = TriggerSpec { jitter: Duration::from_secs(jitter), ..every(step) };
            let table = Timetable::new(TriggerId(uuid::Uuid::from_u128(id)), &spec, &BundledZones).unwrap();
            let from = Timestamp::from_second(1_767_225_600 + from).unwrap();
            let mut last = Timestamp::MIN;
            for nominal in table.times_after(from).take(20) {
                let due = table.due_at(nominal);
                prop_assert!(due >= nominal && due > last);
                prop_assert!(table.next_after(nominal).is_none_or(|next| due < next));
                prop_assert!(time::between(nominal, due) < Duration::from_secs(jitter.max(1)));
                last = due;
            }
        }

        #[test]
        fn nothing_leaves_the_window(start in 0i64..400_000, long in 0i64..400_000, from in -400_000i64..800_000) {
            let second = |s| Timestamp::from_second(1_774_000_000 + s).unwrap();
            let cron = CronSchedule::new("*/20 1-3 * * *", Dialect::Crontab, "Europe/Berlin");
            let spec = TriggerSpec {
                not_before: Some(second(start)),
                not_after: Some(second(start + long)),
                ..TriggerSpec::new(Schedule::Cron(cron))
            };
            let unbounded = TriggerSpec { not_before: None, not_after: None, ..spec.clone() };
            let expected: Vec<_> = timetable(&unbounded)
                .times_after(second(from))
                .take_while(|t| *t <= second(start + long))
                .filter(|t| *t >= second(start))
                .collect();
            let found: Vec<_> = timetable(&spec).times_after(second(from)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
