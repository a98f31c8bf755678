//! A trigger's timetable: which times its schedule, its window and its jitter make together.

use crate::calendar::{Calendar, Covered, ScheduleError, Zones};
use crate::fairness::mix;
use crate::ids::TriggerId;
use crate::time;
use crate::trigger::TriggerSpec;
use jiff::Timestamp;
use std::time::Duration;

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
            calendar: spec.schedule.calendar_in(zones)?,
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
        self.not_before.map_or(after, |start| after.max(time::before(start, Duration::from_micros(1))))
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

    proptest! {
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
