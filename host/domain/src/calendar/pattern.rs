//! What a cron expression means, whatever the dialect it is written in: sets of bits, and how days combine.
//!
//! Bit n of a set stands for the value n; Sunday is 0. It knows nothing of texts and nothing of zones.

use crate::limits::CRON_YEAR_MAX;

/// An expression that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub seconds: u64,
    pub minutes: u64,
    pub hours: u32,
    pub days: Days,
    pub months: u16,
    pub weekdays: Weekdays,
    pub join: Join,
    pub years: Years,
    /// Whether it names no hour: such patterns follow the clock where it changes.
    pub any_hour: bool,
}

/// Days of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// Days by number.
    pub plain: u32,
    /// Days of which the nearest Monday to Friday of the same month is meant: `15W`.
    pub nearest: u32,
    /// The last day: `L`.
    pub last: bool,
    /// The last Monday to Friday: `LW`.
    pub last_weekday: bool,
}

/// Days of a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekdays {
    /// Those of every week.
    pub plain: u8,
    /// Those that are the first, ... the fifth of their month: `5#2`.
    pub nth: [u8; 5],
    /// Those that are the last of their month: `5L`.
    pub last: u8,
}

/// Which days are due when both the day of the month and the day of the week say something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Those that both match.
    Both,
    /// Those that either matches.
    Either,
}

/// Years, none later than [`CRON_YEAR_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Years {
    /// All from one to another, both included.
    Range(u16, u16),
    /// Sorted, and not what `Range` could say.
    List(Box<[u16]>),
}

impl Days {
    pub const NONE: Self = Self { plain: 0, nearest: 0, last: false, last_weekday: false };
    pub const ALL: Self = Self { plain: 0xffff_fffe, ..Self::NONE };

    fn in_month(&self, month: Month) -> u32 {
        let mut found = self.plain;
        if self.last {
            found |= 1 << month.days;
        }
        if self.last_weekday {
            found |= 1 << month.nearest_weekday(month.days);
        }
        let mut nearest = self.nearest & month.all();
        while nearest != 0 {
            found |= 1 << month.nearest_weekday(nearest.trailing_zeros());
            nearest &= nearest - 1;
        }
        found & month.all()
    }
}

impl Weekdays {
    pub const ALL: Self = Self { plain: 0x7f, nth: [0; 5], last: 0 };

    fn in_month(&self, month: Month) -> u32 {
        let mut found = month.every_week(self.plain);
        for (week, set) in (0..).zip(self.nth) {
            found |= month.every_week(set) & (0x7f << (7 * week) << 1);
        }
        (found | month.every_week(self.last) & (0x7f << (month.days - 6))) & month.all()
    }
}

impl Years {
    pub const ANY: Self = Self::Range(1, CRON_YEAR_MAX);

    /// The least way to say it; none for no years. They must be sorted.
    pub fn of(sorted: &[u16]) -> Option<Self> {
        let (&first, &last) = (sorted.first()?, sorted.last()?);
        let whole = usize::from(last - first) + 1 == sorted.len();
        Some(if whole { Self::Range(first, last) } else { Self::List(sorted.into()) })
    }

    /// The first year at or after one.
    pub fn first_from(&self, year: u16) -> Option<u16> {
        match self {
            Self::Range(first, last) => Some(year.max(*first)).filter(|year| year <= last),
            Self::List(years) => years.get(years.partition_point(|listed| *listed < year)).copied(),
        }
    }
}

impl Pattern {
    /// The days of a month that are due, if the month and the year are.
    pub fn days_in(&self, month: Month) -> u32 {
        let (days, weekdays) = (self.days.in_month(month), self.weekdays.in_month(month));
        match self.join {
            Join::Both => days & weekdays,
            Join::Either => days | weekdays,
        }
    }

    /// The same meaning said in the one way that it has here, as far as days go: what adds nothing is left out.
    pub fn simplify(mut self) -> Self {
        if self.days.plain == Days::ALL.plain {
            self.days = Days::ALL;
        }
        let plain = self.weekdays.plain;
        self.weekdays.nth.iter_mut().for_each(|set| *set &= !plain);
        self.weekdays.last &= !plain;
        let (any_day, any_weekday) = (self.days == Days::ALL, self.weekdays == Weekdays::ALL);
        if any_day || any_weekday {
            if self.join == Join::Either {
                (self.days, self.weekdays) = (Days::ALL, Weekdays::ALL);
            }
            self.join = Join::Both;
        }
        self
    }
}

/// What the days of a month depend on.
#[derive(Debug, Clone, Copy)]
pub struct Month {
    /// How many it has.
    pub days: u32,
    /// The day of the week of its first.
    pub begins_on: u32,
}

impl Month {
    /// All its days.
    fn all(self) -> u32 {
        !(!1 << self.days) & !1
    }

    /// The days that are any of some days of the week.
    fn every_week(self, weekdays: u8) -> u32 {
        let twice = u32::from(weekdays) | u32::from(weekdays) << 7;
        let first_week = u64::from(twice >> self.begins_on & 0x7f);
        let weeks =
            first_week << 1 | first_week << 8 | first_week << 15 | first_week << 22 | first_week << 29;
        weeks as u32
    }

    /// The Monday to Friday nearest to a day, in the same month.
    fn nearest_weekday(self, day: u32) -> u32 {
        match (self.begins_on + day - 1) % 7 {
            6 if day == 1 => 3,
            6 => day - 1,
            0 if day == self.days => day - 2,
            0 => day + 1,
            _ => day,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_where_the_month_does() {
        // January 2026 begins on a Thursday and has 31 days.
        let month = Month { days: 31, begins_on: 4 };
        assert_eq!(month.every_week(1 << 4), 1 << 1 | 1 << 8 | 1 << 15 | 1 << 22 | 1 << 29);
        assert_eq!(month.every_week(1), 1 << 4 | 1 << 11 | 1 << 18 | 1 << 25);
        let set = |nth, last| Weekdays { plain: 0, nth, last }.in_month(month);
        assert_eq!(set([0, 1 << 5, 0, 0, 0], 0), 1 << 9, "the second Friday");
        assert_eq!(set([0, 0, 0, 0, 1 << 6], 0), 1 << 31, "the fifth Saturday");
        assert_eq!(set([0, 0, 0, 0, 1], 0), 0, "there is no fifth Sunday");
        assert_eq!(set([0; 5], 1 | 1 << 4), 1 << 25 | 1 << 29, "the last Sunday and Thursday");
    }

    #[test]
    fn the_nearest_weekday_stays_in_its_month() {
        let january = Month { days: 31, begins_on: 6 };
        assert_eq!(january.nearest_weekday(1), 3, "a Saturday that is the first");
        assert_eq!(january.nearest_weekday(9), 10, "a Sunday");
        assert_eq!(january.nearest_weekday(15), 14, "a Saturday");
        assert_eq!(Month { days: 30, begins_on: 6 }.nearest_weekday(30), 28, "a Sunday that is the last");
    }
}
