//! The first civil time of a pattern at or after another: year by year, month by month, and in a month by bits.
//!
//! A look-up allocates nothing. Its steps are the months that it looks at: those of the years
//! to [`CRON_YEAR_MAX`](crate::limits::CRON_YEAR_MAX) at most, so that a date that never comes is soon known as one.

use super::pattern::{Month, Pattern};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

pub const DAY: i64 = 86_400;
/// The number of the day 0001-01-01; days are numbered from 1970-01-01.
const FIRST_DAY: i64 = -719_162;

/// The date of a number of days; none after the year 9999.
fn date_of(number: i64) -> Option<Date> {
    let midnight = Timestamp::from_second(number.checked_mul(DAY)?).ok()?;
    Some(TimeZone::UTC.to_datetime(midnight).date())
}

fn number_of(date: Date) -> Option<i64> {
    let midnight = TimeZone::UTC.to_timestamp(date.to_datetime(Time::midnight())).ok()?;
    Some(midnight.as_second().div_euclid(DAY))
}

fn first_of(year: u16, month: u32) -> Option<Date> {
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, 1).ok()
}

fn unsigned(small: i8) -> u32 {
    u32::from(small.unsigned_abs())
}

impl Month {
    fn of(first: Date) -> Self {
        let begins_on = unsigned(first.weekday().to_sunday_zero_offset());
        Self { days: unsigned(first.days_in_month()), begins_on }
    }
}

/// Months, by their first days, and those of their days that are due.
type DueDays = (Date, u32);

/// The lowest value of a set at or above one.
fn lowest_from(set: u64, value: u32) -> Option<u32> {
    let rest = set.checked_shr(value)?;
    (rest != 0).then(|| value + rest.trailing_zeros())
}

fn clock(hour: u32, minute: u32, second: u32) -> i64 {
    i64::from(hour * 3600 + minute * 60 + second)
}

impl Pattern {
    /// The first matching civil time at or after `from`, both in seconds since 1970 as a clock in UTC
    /// would show them; none when no year of the pattern has one.
    pub fn first_from(&self, from: i64) -> Option<i64> {
        let from = from.max(FIRST_DAY * DAY);
        let (today, second) = (from.div_euclid(DAY), from.rem_euclid(DAY) as u32);
        let first = self.first_day_from(today)?;
        if first > today {
            return Some(first * DAY + self.first_of_day()?);
        }
        match self.first_of_day_from(second) {
            Some(time) => Some(today * DAY + time),
            None => Some(self.first_day_from(today + 1)? * DAY + self.first_of_day()?),
        }
    }

    /// The number of the first matching day at or after one.
    fn first_day_from(&self, number: i64) -> Option<i64> {
        let from = date_of(number)?;
        self.months_from(from).find_map(|(first, days)| {
            let earliest = if first == from.first_of_month() { unsigned(from.day()) } else { 1 };
            let day = lowest_from(u64::from(days), earliest)?;
            Some(number_of(first)? + i64::from(day) - 1)
        })
    }

    /// The months that may have matching days from a date's on, with those days.
    fn months_from(&self, from: Date) -> impl Iterator<Item = DueDays> + '_ {
        let begin = u16::try_from(from.year()).unwrap_or(0);
        let mut at = self.years.first_from(begin).map(|year| {
            let month = if year == begin { unsigned(from.month()) } else { 1 };
            (year, month)
        });
        std::iter::from_fn(move || {
            let (year, month) = at?;
            #[cfg(test)]
            steps::count();
            let found = lowest_from(u64::from(self.months), month);
            at = match found {
                Some(month) if month < 12 => Some((year, month + 1)),
                _ => self.years.first_from(year + 1).map(|year| (year, 1)),
            };
            let first = first_of(year, found.unwrap_or(12))?;
            Some((first, found.map_or(0, |_| self.days_in(Month::of(first)))))
        })
    }

    /// The first time of a matching day, in seconds.
    fn first_of_day(&self) -> Option<i64> {
        self.first_of_day_from(0)
    }

    /// The first time of a matching day at or after one of its seconds.
    fn first_of_day_from(&self, from: u32) -> Option<i64> {
        let (hour, minute, second) = (from / 3600, from / 60 % 60, from % 60);
        let (hours, first_minute) = (u64::from(self.hours), self.minutes.trailing_zeros());
        let first_second = self.seconds.trailing_zeros();
        if hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = lowest_from(self.seconds, second)
            {
                return Some(clock(hour, minute, second));
            }
            if let Some(minute) = lowest_from(self.minutes, minute + 1) {
                return Some(clock(hour, minute, first_second));
            }
        }
        Some(clock(lowest_from(hours, hour + 1)?, first_minute, first_second))
    }

    /// The least time between two matching civil times from a civil time's day on, in seconds: that of two times of a
    /// day, and that of the last of one day and the first of the next. As if every day to come were there whole.
    pub fn least_distance(&self, from: i64) -> Option<i64> {
        let spread = |set: u64| i64::from(set.checked_ilog2().unwrap_or(0)) - i64::from(set.trailing_zeros());
        let seconds = spread(self.seconds);
        let minutes = spread(self.minutes) * 60 + seconds;
        let day = spread(u64::from(self.hours)) * 3600 + minutes;
        let in_day = [
            least_step(self.seconds),
            least_step(self.minutes).map(|step| step * 60 - seconds),
            least_step(u64::from(self.hours)).map(|step| step * 3600 - minutes),
        ];
        let in_day = in_day.into_iter().flatten().min();
        // Days that follow each other at once are the least that the calendar can add: no need to look for them.
        if in_day.is_some_and(|least| least <= DAY - day) {
            return in_day;
        }
        let across = date_of(from.div_euclid(DAY)).and_then(|from| self.least_days(from));
        let across = across.map(|days| days * DAY - day);
        in_day.into_iter().chain(across).min()
    }

    /// The least number of days from one matching day to another, from a date on.
    fn least_days(&self, from: Date) -> Option<i64> {
        let (mut least, mut last) = (None, None::<i64>);
        for (first, days) in self.months_from(from) {
            let begun = first == from.first_of_month();
            let days = u64::from(days) & if begun { u64::MAX << unsigned(from.day()) } else { u64::MAX };
            let Some(latest) = days.checked_ilog2() else { continue };
            let before_first = number_of(first)? - 1;
            let across = last.map(|last| before_first + i64::from(days.trailing_zeros()) - last);
            least = [least, across, least_step(days)].into_iter().flatten().min();
            if least == Some(1) {
                break;
            }
            last = Some(before_first + i64::from(latest));
        }
        least
    }
}

/// The least difference between two values of a set.
fn least_step(set: u64) -> Option<i64> {
    (1..64).find(|step| set & set >> step != 0)
}

/// Counts the months that look-ups look at.
#[cfg(test)]
pub mod steps {
    use std::cell::Cell;

    thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });

    pub fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    /// Those of this thread since the last call.
    pub fn take() -> usize {
        COUNT.replace(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CronSchedule, Dialect, Schedule};
    use super::*;
    use crate::limits::CRON_YEAR_MAX;
    use proptest::prelude::*;

    /// The months of a look-up from a year on: each once, once more if the clock is about to be set back, and those
    /// near the ends again.
    fn steps_max(from: i16) -> usize {
        2 * 12 * usize::try_from(i64::from(CRON_YEAR_MAX) - i64::from(from) + 1).unwrap() + 48
    }

    fn steps_of(expression: &str, zone: &str, from: &str) -> (Option<Timestamp>, usize) {
        let cron = CronSchedule::new(expression, Dialect::Crontab, zone);
        let calendar = Schedule::Cron(cron).calendar().unwrap();
        steps::take();
        (calendar.next_after(from.parse().unwrap()), steps::take())
    }

    #[test]
    fn what_never_comes_costs_few_steps() {
        for (expression, most) in [
            ("0 0 30 2 *", 2 * 175),
            ("0 0 31 4,6 *", 3 * 175),
            ("0 0 0 1 1 * 2020", 0),
            ("0 0 0 29 2 * 2027", 2),
            ("0 0 31 2,4,6,9,11 *", 6 * 175),
        ] {
            let (found, steps) = steps_of(expression, "Europe/Berlin", "2026-01-01T12:00:00Z");
            assert_eq!(found, None, "{expression}");
            assert!(steps <= most, "{expression}: {steps} steps");
        }
        assert!(steps_of("*/5 * * * *", "UTC", "2026-01-01T00:00:00Z").1 <= 1);
        assert!(steps_of("0 0 29 2 *", "Europe/Berlin", "2026-01-01T00:00:00Z").1 <= 6);
    }

    proptest! {
        #[test]
        fn no_look_up_takes_more_steps_than_there_are_months(
            day in "([1-9]|[12][0-9]|3[01]|\\*|L|LW|[1-9]W|31W)(,([1-9]|3[01]))?",
            month in "([1-9]|1[0-2]|\\*/[1-9]|[1-6]-(7|8|9))", weekday in "(\\*|\\+?[0-6](#[1-5])?|\\+[0-6]L)",
            year in "(\\*|20[0-9][0-9]|1[0-9][0-9][0-9]-2[0-9][0-9][0-9])", hour in "([1-3]|\\*)",
            zone in prop::sample::select(vec!["UTC", "America/New_York", "Africa/Casablanca", "Pacific/Kiritimati"]),
            from in 1i16..=2200, in_year in 0i64..366 * DAY,
        ) {
            prop_assume!(!day.starts_with("*,"));
            let cron = CronSchedule::new(&format!("0 30 {hour} {day} {month} {weekday} {year}"), Dialect::Crontab, zone);
            let calendar = Schedule::Cron(cron).calendar().unwrap();
            let begin = number_of(jiff::civil::date(from, 1, 1)).unwrap() * DAY + in_year;
            steps::take();
            calendar.next_after(Timestamp::from_second(begin).unwrap());
            prop_assert!(steps::take() <= steps_max(from));
        }
    }
}
