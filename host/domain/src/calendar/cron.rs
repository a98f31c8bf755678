//! Cron expressions of three dialects behind one question: the next civil time that matches.
//!
//! Both libraries are asked in UTC, standing for civil time of no zone; zones and changes of the clock
//! are `civil`'s business, the same for all.

use super::Dialect;
use chrono::{DateTime, Datelike, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use std::str::FromStr;

/// The last year that is searched. Beyond it a pattern counts as one without further times.
const YEAR_MAX: i32 = 2200;

/// An expression that has been read.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Whether it names no hour: such patterns follow the clock where it changes.
    pub any_hour: bool,
    reader: Reader,
}

#[derive(Debug, Clone)]
enum Reader {
    Croner(Box<Cron>),
    Rust(Box<cron::Schedule>),
}

impl Pattern {
    /// Reads an expression; an error says why it is none.
    pub fn parse(expression: &str, dialect: Dialect) -> Result<Self, String> {
        let reader = match dialect {
            Dialect::Crontab => Reader::Croner(Box::new(croner(expression, Seconds::Optional, false)?)),
            Dialect::Quartz => Reader::Croner(Box::new(croner(expression, Seconds::Required, true)?)),
            Dialect::Rust => {
                let schedule = cron::Schedule::from_str(expression).map_err(|e| e.to_string())?;
                Reader::Rust(Box::new(schedule))
            }
        };
        Ok(Self { any_hour: any_hour(expression), reader })
    }

    /// The first matching civil time at or after `from`, both in seconds since 1970 as a clock in UTC
    /// would show them; none when the search ends without one.
    pub fn first_from(&self, from: i64) -> Option<i64> {
        let from = DateTime::<Utc>::from_timestamp(from, 0)?;
        let found = match &self.reader {
            Reader::Croner(cron) => cron.find_next_occurrence(&from, true).ok()?,
            Reader::Rust(schedule) => {
                let before = from.checked_sub_signed(chrono::Duration::seconds(1))?;
                schedule.after(&before).next()?
            }
        };
        (found.year() <= YEAR_MAX).then(|| found.timestamp())
    }
}

fn croner(expression: &str, seconds: Seconds, alternative_weekdays: bool) -> Result<Cron, String> {
    check_fields(expression)?;
    let parser = CronParser::builder()
        .seconds(seconds)
        .year(Year::Optional)
        .alternative_weekdays(alternative_weekdays)
        .build();
    parser.parse(expression).map_err(|e| e.to_string())
}

/// Refuses what the library would take for something else: `MON,` as a minute, say.
fn check_fields(expression: &str) -> Result<(), String> {
    const NAMES: [&str; 7] =
        ["second", "minute", "hour", "day of the month", "month", "day of the week", "year"];
    let fields: Vec<&str> = expression.split_whitespace().collect();
    if expression.starts_with('@') {
        return Ok(());
    }
    let names = match fields.len() {
        5 => &NAMES[1..6],
        6 => &NAMES[..6],
        7 => &NAMES[..],
        count => {
            return Err(format!(
                "it has {count} fields; 5 are needed, and a second before and a year after are possible"
            ));
        }
    };
    for (field, name) in fields.iter().zip(names) {
        if field.split(',').any(str::is_empty) {
            return Err(format!("the {name}, `{field}`, has a comma with nothing beside it"));
        }
        let is_number = matches!(*name, "second" | "minute" | "hour" | "year");
        if is_number && field.contains(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("the {name}, `{field}`, has letters"));
        }
    }
    Ok(())
}

/// Whether the hour field begins with `*`, as in `*` and `*/2`.
fn any_hour(expression: &str) -> bool {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    match fields.as_slice() {
        [macro_name] => *macro_name == "@hourly",
        [_, hour, _, _, _] => hour.starts_with('*'),
        [_, _, hour, ..] => hour.starts_with('*'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(expression: &str, dialect: Dialect, from: &str) -> Option<String> {
        let from = from.parse::<DateTime<Utc>>().unwrap().timestamp();
        let found = Pattern::parse(expression, dialect).unwrap().first_from(from)?;
        Some(DateTime::<Utc>::from_timestamp(found, 0).unwrap().format("%a %F %T").to_string())
    }

    #[test]
    fn dialects_differ_in_sunday_and_in_how_days_combine() {
        let from = "2026-01-01T00:00:00Z"; // a Thursday
        assert_eq!(first("0 0 * * 1", Dialect::Crontab, from).unwrap(), "Mon 2026-01-05 00:00:00");
        assert_eq!(first("0 0 * * 7", Dialect::Crontab, from).unwrap(), "Sun 2026-01-04 00:00:00");
        assert_eq!(first("0 0 0 ? * 1", Dialect::Quartz, from).unwrap(), "Sun 2026-01-04 00:00:00");
        assert_eq!(first("0 0 0 * * 1", Dialect::Rust, from).unwrap(), "Sun 2026-01-04 00:00:00");
        assert_eq!(first("0 0 13 * 5", Dialect::Crontab, from).unwrap(), "Fri 2026-01-02 00:00:00");
        assert_eq!(first("0 0 0 13 * Fri", Dialect::Rust, from).unwrap(), "Fri 2026-02-13 00:00:00");
    }

    #[test]
    fn seconds_years_macros_and_specials() {
        let from = "2026-01-01T00:00:00Z";
        assert_eq!(first("*/5 * * * * *", Dialect::Crontab, from).unwrap(), "Thu 2026-01-01 00:00:00");
        assert_eq!(first("0 0 12 1 6 * 2030", Dialect::Crontab, from).unwrap(), "Sat 2030-06-01 12:00:00");
        assert_eq!(
            first("@yearly", Dialect::Crontab, "2026-01-01T00:00:01Z").unwrap(),
            "Fri 2027-01-01 00:00:00"
        );
        assert_eq!(first("0 0 L * *", Dialect::Crontab, from).unwrap(), "Sat 2026-01-31 00:00:00");
        assert_eq!(first("0 0 * * FRI#2", Dialect::Crontab, from).unwrap(), "Fri 2026-01-09 00:00:00");
    }

    #[test]
    fn what_never_comes_is_none() {
        assert_eq!(first("0 0 30 2 *", Dialect::Crontab, "2026-01-01T00:00:00Z"), None);
        assert_eq!(first("0 0 12 1 6 * 2020", Dialect::Crontab, "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn mistakes_that_would_pass_for_something_else_are_refused() {
        for (expression, words) in [
            ("MON, * * * *", "the minute, `MON,`, has a comma"),
            ("MON * * * *", "the minute, `MON`, has letters"),
            ("0 0 * * ,FRI", "the day of the week, `,FRI`"),
            ("* * * *", "it has 4 fields"),
            ("22-2 * * * *", "out of bounds"),
        ] {
            let why = Pattern::parse(expression, Dialect::Crontab).unwrap_err();
            assert!(why.contains(words), "{expression}: {why}");
        }
        assert!(Pattern::parse("0 9 LW JAN-MAR MON#1,FRI", Dialect::Crontab).is_ok());
    }

    #[test]
    fn hours_that_are_named_are_told_from_those_that_are_not() {
        for (expression, any) in [
            ("0 * * * *", true),
            ("0 */2 * * *", true),
            ("0 0 * * * *", true),
            ("@hourly", true),
            ("0 3 * * *", false),
            ("0 0 3 * * *", false),
            ("@daily", false),
        ] {
            assert_eq!(any_hour(expression), any, "{expression}");
        }
    }
}
