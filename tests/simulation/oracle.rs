//! When a pattern is due, found by looking at every minute of a zone's clock. Shares nothing with the calendar that it
//! is held against but the zones.

use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{Fold, Gap, TimeZone};
use std::collections::HashSet;

/// More than a clock is ever set back by, in minutes.
const SET_BACK_MAX: i64 = 26 * 60;

/// A pattern before it is written as an expression.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub minutes: Vec<i64>,
    /// None: every hour.
    pub hours: Option<Vec<i64>>,
    /// From Sunday, 0; none: every day.
    pub weekdays: Option<Vec<i64>>,
    pub zone: String,
    pub gap: Gap,
    pub fold: Fold,
}

/// A zone's clock over some time, minute by minute.
pub struct Watch(Vec<Moment>);

struct Moment {
    /// In minutes since 1970, as what follows.
    at: i64,
    civil: i64,
    /// How many civil minutes were left out just before.
    skipped: i64,
    /// Whether the clock has shown the same before.
    again: bool,
}

impl Watch {
    pub fn new(zone: &TimeZone, from: Timestamp, to: Timestamp) -> Self {
        let minute = |at: Timestamp| at.as_second() / 60;
        let mut shown = HashSet::new();
        let mut before = None;
        let moments = (minute(from) - SET_BACK_MAX..=minute(to)).map(|at| {
            let instant = Timestamp::from_second(at * 60).expect("a time of our days");
            let civil = at + i64::from(zone.to_offset(instant).seconds()) / 60;
            let expected = before.map_or(civil, |before: i64| before + 1);
            before = Some(civil);
            Moment { at, civil, skipped: (civil - expected).max(0), again: !shown.insert(civil) }
        });
        Self(moments.collect())
    }

    /// The times of a pattern that are later than `after`.
    pub fn times(&self, pattern: &Pattern, after: Timestamp) -> Vec<Timestamp> {
        let names_hours = pattern.hours.is_some();
        let due = self.0.iter().filter(|moment| {
            let mut left_out = moment.civil - moment.skipped..moment.civil;
            let at_end_of_gap =
                names_hours && pattern.gap == Gap::RunAfter && left_out.any(|civil| pattern.matches(civil));
            let not_again = !(names_hours && pattern.fold == Fold::Once && moment.again);
            at_end_of_gap || (not_again && pattern.matches(moment.civil))
        });
        let due = due.map(|moment| Timestamp::from_second(moment.at * 60).expect("a time of our days"));
        due.filter(|at| *at > after).collect()
    }
}

impl Pattern {
    /// As cron writes it.
    pub fn expression(&self) -> String {
        let list = |numbers: Option<&Vec<i64>>| {
            let words = |numbers: &Vec<i64>| numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
            numbers.map_or("*".into(), words)
        };
        format!(
            "{} {} * * {}",
            list(Some(&self.minutes)),
            list(self.hours.as_ref()),
            list(self.weekdays.as_ref())
        )
    }

    fn matches(&self, civil: i64) -> bool {
        let (minute, hour, day) =
            (civil.rem_euclid(60), civil.div_euclid(60).rem_euclid(24), civil.div_euclid(1440));
        // The first of 1970 was a Thursday.
        let weekday = (day + 4).rem_euclid(7);
        let among =
            |numbers: &Option<Vec<i64>>, number| numbers.as_ref().is_none_or(|all| all.contains(&number));
        self.minutes.contains(&minute) && among(&self.hours, hour) && among(&self.weekdays, weekday)
    }
}
