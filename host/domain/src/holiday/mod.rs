//! Holiday calendars: named sets of civil dates on which the triggers that exclude them don't run.

mod ics;
mod lines;

use crate::failure::plain;
use crate::limits::{
    HOLIDAY_FILE_BYTES_MAX, HOLIDAY_TITLE_CHARS_MAX, HOLIDAYS_PER_CALENDAR_MAX, REFUSAL_BYTES_MAX,
};
use crate::name::Name;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, str::FromStr, sync::Arc};

/// Which dates a holiday is on. As text `2026-12-25`, `2026-12-25/yearly` or `2026-12-25/yearly/2030-12-25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Day {
    On(Date),
    /// Every year on the same date, from the first on; one on the 29th of February only in years that have it.
    Yearly {
        first: Date,
        /// No date is later; none: it has no end.
        last: Option<Date>,
    },
}

/// A holiday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holiday {
    pub day: Day,
    /// May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
}

/// A holiday calendar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolidayCalendar {
    pub name: Name,
    /// In order, none twice.
    pub holidays: Vec<Holiday>,
    pub created_at: Timestamp,
    /// When its holidays were last put.
    pub updated_at: Timestamp,
}

/// A holiday calendar as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolidayCalendarInfo {
    pub name: Name,
    pub holidays: u64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A file that is no holiday calendar, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HolidayError {
    #[error("line {line}: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        why: String,
    },
    #[error("it has {0} bytes; at most {HOLIDAY_FILE_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("it is not UTF-8 text: save it as that")]
    NotText,
    #[error("it has more than {HOLIDAYS_PER_CALENDAR_MAX} dates; leave out years that have passed")]
    TooMany,
    #[error("there is no date in it; write one a line, such as `2026-12-25 Christmas`, or give an .ics file")]
    Empty,
}

/// Reads a file: iCalendar if it begins as that, else lines. Its holidays in order.
pub fn read(file: &[u8]) -> Result<Vec<Holiday>, HolidayError> {
    if file.len() > HOLIDAY_FILE_BYTES_MAX {
        return Err(HolidayError::TooLong(file.len()));
    }
    let text = std::str::from_utf8(file).map_err(|_| HolidayError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_ics = text.trim_start().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("BEGIN:"));
    let days = if is_ics { ics::read(text)? } else { lines::read(text)? };
    if days.is_empty() {
        return Err(HolidayError::Empty);
    }
    Ok(days.into_iter().map(|(day, title)| Holiday { day, title }).collect())
}

/// What has been read so far.
type Days = BTreeMap<Day, String>;

fn mistake(line: usize, why: impl AsRef<str>) -> HolidayError {
    HolidayError::Line { line, why: plain(why.as_ref(), REFUSAL_BYTES_MAX) }
}

/// A date as `2026-12-25`, and in no other way.
fn date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !shaped {
        return None;
    }
    Date::new(text[..4].parse().ok()?, text[5..7].parse().ok()?, text[8..].parse().ok()?).ok()
}

/// A title, without what could steer a terminal.
fn title(text: &str, line: usize) -> Result<String, HolidayError> {
    let title: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match title.chars().count() {
        0..=HOLIDAY_TITLE_CHARS_MAX => Ok(title),
        chars => Err(mistake(
            line,
            format!("the title has {chars} characters, and may have {HOLIDAY_TITLE_CHARS_MAX}; shorten it"),
        )),
    }
}

/// Text that names no day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a date; write it as 2026-12-25, or as 2026-12-25/yearly for one of every year")]
pub struct DayError(String);

impl FromStr for Day {
    type Err = DayError;
    fn from_str(text: &str) -> Result<Self, DayError> {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let read = match parts.as_slice() {
            [on] => date(on).map(Self::On),
            [first, "yearly"] => date(first).map(|first| Self::Yearly { first, last: None }),
            [first, "yearly", last] => match (date(first), date(last)) {
                (Some(first), Some(last)) if first <= last => Some(Self::Yearly { first, last: Some(last) }),
                _ => None,
            },
            _ => None,
        };
        read.ok_or_else(|| DayError(plain(text, 64)))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(date) => f.pad(&date.to_string()),
            Self::Yearly { first, last: None } => f.pad(&format!("{first}/yearly")),
            Self::Yearly { first, last: Some(last) } => f.pad(&format!("{first}/yearly/{last}")),
        }
    }
}

impl TryFrom<String> for Day {
    type Error = DayError;
    fn try_from(text: String) -> Result<Self, DayError> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> String {
        day.to_string()
    }
}

/// From which date to which a yearly holiday is one.
type Years = (Date, Option<Date>);

/// The dates of a calendar, to be asked quickly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HolidayDates {
    once: BTreeSet<Date>,
    /// By month and day of the month: from when to when.
    yearly: BTreeMap<(i8, i8), Vec<Years>>,
}

impl HolidayDates {
    /// Those of these holidays.
    pub fn of(holidays: &[Holiday]) -> Self {
        let mut dates = Self::default();
        for holiday in holidays {
            match holiday.day {
                Day::On(date) => {
                    dates.once.insert(date);
                }
                Day::Yearly { first, last } => {
                    dates.yearly.entry((first.month(), first.day())).or_default().push((first, last));
                }
            }
        }
        dates
    }

    /// Whether a date is one of them.
    pub fn includes(&self, date: Date) -> bool {
        let yearly = || self.yearly.get(&(date.month(), date.day()));
        let in_time = |(first, last): &Years| *first <= date && last.is_none_or(|last| date <= last);
        self.once.contains(&date) || yearly().is_some_and(|years| years.iter().any(in_time))
    }
}

/// The dates on which a trigger doesn't run: those of all the calendars that it excludes. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holidays(Vec<Arc<HolidayDates>>);

impl Holidays {
    /// None: the trigger excludes nothing.
    pub const NONE: &'static Self = &Self(Vec::new());

    /// Those of several calendars.
    pub fn of(calendars: impl IntoIterator<Item = Arc<HolidayDates>>) -> Self {
        Self(calendars.into_iter().collect())
    }

    /// Whether a date is a holiday of any of them.
    pub fn includes(&self, date: Date) -> bool {
        self.0.iter().any(|calendar| calendar.includes(date))
    }

    /// Whether there are no calendars.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    fn dates(days: &[&str]) -> HolidayDates {
        let holiday = |text: &&str| Holiday { day: day(text), title: String::new() };
        HolidayDates::of(&days.iter().map(holiday).collect::<Vec<_>>())
    }

    #[test]
    fn days_read_back_and_mistakes_are_told() {
        for text in ["2026-12-25", "2026-12-25/yearly", "2020-02-29/yearly/2028-02-29", "0001-01-01"] {
            assert_eq!(day(text).to_string(), text);
        }
        for bad in [
            "",
            "2026-13-01",
            "2026-02-29",
            "26-12-25",
            "2026-1-1",
            "2026-12-25T00:00",
            "20261225",
            "+026-12-25",
            "2026-12-25/daily",
            "2026-12-25/yearly/2025-12-25",
            "2026-12-25/yearly/",
            "2026-12-25/yearly/x/y",
            "２０２６-12-25",
        ] {
            assert!(bad.parse::<Day>().unwrap_err().to_string().contains("write it as 2026-12-25"), "{bad}");
        }
    }

    #[test]
    fn a_yearly_day_comes_from_its_first_date_to_its_last() {
        let dates =
            dates(&["2020-12-25/yearly", "2021-05-01/yearly/2023-05-01", "2020-02-29/yearly", "2026-03-08"]);
        let includes = |text: &str| dates.includes(date(text).unwrap());
        assert!(
            ["2020-12-25", "2099-12-25", "2021-05-01", "2023-05-01", "2024-02-29", "2026-03-08"]
                .iter()
                .all(|d| includes(d))
        );
        assert!(
            !["2019-12-25", "2020-05-01", "2024-05-01", "2025-02-28", "2025-03-01", "2027-03-08"]
                .iter()
                .any(|d| includes(d))
        );
    }

    #[test]
    fn a_file_is_what_it_looks_like() {
        let days = |file: &[u8]| {
            read(file).map(|holidays| holidays.iter().map(|h| h.day.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(days(b"2026-12-25"), Ok(vec!["2026-12-25".to_string()]));
        let ics = b"\xef\xbb\xbf\r\nbegin:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20261225\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";
        assert_eq!(days(ics), Ok(vec!["2026-12-25".to_string()]));
        assert_eq!(days(b"\xff"), Err(HolidayError::NotText));
        assert_eq!(days(b"# nothing\n"), Err(HolidayError::Empty));
        assert_eq!(days("héé".as_bytes()).unwrap_err().to_string().split(':').next(), Some("line 1"));
        let long = vec![b'#'; HOLIDAY_FILE_BYTES_MAX + 1];
        assert_eq!(days(&long), Err(HolidayError::TooLong(long.len())));
    }

    proptest! {
        #[test]
        fn nothing_makes_reading_panic(text in "(BEGIN:VCALENDAR\n)?(BEGIN:VEVENT\n)?[A-Z0-9:;=/\\-\n \"#,é]{0,200}") {
            let _ = read(text.as_bytes());
        }

        /// What was read, written as lines, reads the same.
        #[test]
        fn what_is_written_reads_back(
            days in prop::collection::btree_map(
                (1i16..9999, 1i8..=12, 1i8..=28, prop::option::of(prop::option::of(0i16..50))), "[a-zA-Z][a-z ]{0,10}[a-z]", 1..50,
            ),
        ) {
            let text: String = days.iter().map(|((year, month, day, yearly), title)| {
                let at = |year: i16| Date::new(year.min(9999), *month, *day).unwrap();
                let first = at(*year);
                let day = match yearly {
                    None => Day::On(first),
                    Some(years) => Day::Yearly { first, last: years.map(|years| at(year + years)) },
                };
                format!("{day} {title}\n")
            }).collect();
            let Ok(holidays) = read(text.as_bytes()) else { return Err(TestCaseError::reject("two are the same")) };
            let again: String = holidays.iter().map(|holiday| format!("{} {}\n", holiday.day, holiday.title)).collect();
            prop_assert_eq!(read(again.as_bytes()).unwrap(), holidays.clone());
            prop_assert_eq!(holidays.len(), days.len());
            let stored = serde_json::to_string(&holidays).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<Holiday>>(&stored).unwrap(), holidays);
        }
    }
}
