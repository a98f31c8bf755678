//! The first civil time of a pattern at or after another: year by year, month by month, and in a month by bits.
//!
//! A look-up allocates nothing and asks no library. Its steps are the months that it looks at: those of the years
//! to [`CRON_YEAR_MAX`](crate::limits::CRON_YEAR_MAX) at most, so that a date that never comes is soon known as one.

use super::pattern::{Month, Pattern};

pub const DAY: i64 = 86_400;
/// The days from 0001-01-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_162;
/// Days of a year before each of its months, if it is no leap year.
const DAYS_BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// A day of a year. Days are numbered from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    pub year: u16,
    pub month: u32,
    pub day: u32,
}

impl Date {
    /// The date of a number of days; years before the first count as the first day of that.
    fn of(number: i64) -> Self {
        let days = (number + EPOCH_DAYS).max(0);
        // At most one too late, for leap days are not spread evenly.
        let mut year = days * 400 / 146_097 + 1;
        if days_before_year(year) > days {
            year -= 1;
        } else if days_before_year(year + 1) <= days {
            year += 1;
        }
        let day_of_year = days - days_before_year(year);
        let mut month = (day_of_year / 31) as u32 + 1;
        if month < 12 && days_before_month(year, month + 1) <= day_of_year {
            month += 1;
        }
        let day = day_of_year - days_before_month(year, month) + 1;
        Self { year: u16::try_from(year).unwrap_or(u16::MAX), month, day: day as u32 }
    }

    fn number(self) -> i64 {
        first_of_month(self.year, self.month) + i64::from(self.day) - 1
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_before_year(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400
}

fn days_before_month(year: i64, month: u32) -> i64 {
    DAYS_BEFORE[month as usize - 1] + i64::from(month > 2 && is_leap(year))
}

/// The number of a month's first day.
fn first_of_month(year: u16, month: u32) -> i64 {
    let year = i64::from(year);
    days_before_year(year) + days_before_month(year, month) - EPOCH_DAYS
}

fn month_of(year: u16, month: u32) -> Month {
    let days = match month {
        2 => 28 + u32::from(is_leap(i64::from(year))),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // 1970-01-01 was a Thursday.
    Month { days, begins_on: (first_of_month(year, month) + 4).rem_euclid(7) as u32 }
}

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
        let from = from.max(-EPOCH_DAYS * DAY);
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
        let from = Date::of(number);
        self.months_from(from).find_map(|(year, month, days)| {
            let earliest = if (year, month) == (from.year, from.month) { from.day } else { 1 };
            let day = lowest_from(u64::from(days), earliest)?;
            Some(Date { year, month, day }.number())
        })
    }

    /// The months that may have matching days from a date's on, with those days.
    fn months_from(&self, from: Date) -> impl Iterator<Item = (u16, u32, u32)> + '_ {
        let mut at = self.years.first_from(from.year).map(|year| {
            let month = if year == from.year { from.month } else { 1 };
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
            Some(found.map_or((year, 12, 0), |month| (year, month, self.days_in(month_of(year, month)))))
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
        let across = self.least_days(Date::of(from.div_euclid(DAY))).map(|days| days * DAY - day);
        in_day.into_iter().chain(across).min()
    }

    /// The least number of days from one matching day to another, from a date on.
    fn least_days(&self, from: Date) -> Option<i64> {
        let (mut least, mut last) = (None, None::<i64>);
        for (year, month, days) in self.months_from(from) {
            let begun = (year, month) == (from.year, from.month);
            let days = u64::from(days) & if begun { u64::MAX << from.day } else { u64::MAX };
            let Some(latest) = days.checked_ilog2() else { continue };
            let before_first = first_of_month(year, month) - 1;
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
    use jiff::Timestamp;
    use proptest::prelude::*;

    #[test]
    fn dates_and_their_numbers_agree_with_a_library() {
        let mut date = jiff::civil::date(1, 1, 1);
        for number in -EPOCH_DAYS..=(i64::from(CRON_YEAR_MAX) - 1969) * 366 {
            let ours = Date::of(number);
            let theirs = (date.year().unsigned_abs(), date.month().unsigned_abs(), date.day().unsigned_abs());
            assert_eq!((ours.year, ours.month, ours.day), (theirs.0, theirs.1.into(), theirs.2.into()));
            assert_eq!(ours.number(), number);
            let month = month_of(ours.year, ours.month);
            assert_eq!(month.days, u32::from(date.days_in_month().unsigned_abs()), "{date}");
            let weekday = date.first_of_month().weekday().to_sunday_zero_offset();
            assert_eq!(month.begins_on, u32::from(weekday.unsigned_abs()), "{date}");
            date = date.tomorrow().unwrap();
        }
        assert_eq!(Date::of(i64::MIN / 2), Date::of(-EPOCH_DAYS));
    }

    /// The months of a look-up from a year on: each once, once more if the clock is about to be set back, and those
    /// near the ends again.
    fn steps_max(from: i64) -> usize {
        2 * 12 * usize::try_from(i64::from(CRON_YEAR_MAX) - from + 1).unwrap() + 48
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
            from in 1i64..=2200, in_year in 0i64..366 * DAY,
        ) {
            prop_assume!(!day.starts_with("*,"));
            let cron = CronSchedule::new(&format!("0 30 {hour} {day} {month} {weekday} {year}"), Dialect::Crontab, zone);
            let calendar = Schedule::Cron(cron).calendar().unwrap();
            let begin = (days_before_year(from) - EPOCH_DAYS) * DAY + in_year;
            steps::take();
            calendar.next_after(Timestamp::from_second(begin).unwrap());
            prop_assert!(steps::take() <= steps_max(from));
        }
    }
}
