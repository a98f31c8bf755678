//! Cron expressions of three dialects, read into one `Pattern`.
//!
//! The libraries say what an expression means, for their dialects are what they read; nothing else is asked of them.

use super::Dialect;
use super::check;
use super::field::{Unit, fields};
use super::pattern::{Days, Join, Pattern, Weekdays, Years};
use crate::limits::CRON_YEAR_MAX;
use cron::TimeUnitSpec;
use croner::{
    Cron, CronComponent,
    parser::{CronParser, Seconds, Year},
};
use std::str::FromStr;

/// Macros, and the crontab expressions that they stand for. With a `0` for the second before them, they mean
/// the same in the other dialects.
const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * SUN"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Pattern {
    /// Reads an expression; an error says why it is none, and where.
    pub fn parse(expression: &str, dialect: Dialect) -> Result<Self, String> {
        check::characters(expression)?;
        let text = expression.trim();
        if text.starts_with('@') {
            let fields = format!("0 {}", macro_fields(text)?);
            return read(&fields, dialect);
        }
        if text.starts_with("CRON_TZ=") || text.starts_with("TZ=") {
            return Err(
                "after the time zone an expression is needed, as in `TZ=Europe/Berlin 0 3 * * *`".into()
            );
        }
        check::fields(expression, dialect)?;
        read(expression, dialect)
    }
}

/// What a macro stands for.
fn macro_fields(text: &str) -> Result<&'static str, String> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let known = MACROS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    match (known, name.to_ascii_lowercase().as_str()) {
        (Some((_, fields)), _) if rest.is_empty() => Ok(fields),
        (Some(_), _) => Err(format!("`{name}` stands for all fields, and nothing can follow it")),
        (None, "@every") => {
            let interval = rest.split_whitespace().next().unwrap_or("90s");
            Err(format!("`@every` is an interval and no cron expression; write `--every {interval}`"))
        }
        (None, "@reboot") => {
            Err("`@reboot` is no time, and tasks outlive their host; write an interval, as `--every 90s`"
                .into())
        }
        (None, _) => {
            let known = MACROS.map(|(name, _)| name).join(", ");
            Err(format!("`{name}` (character 1) is not known; known are: {known}"))
        }
    }
}

fn read(expression: &str, dialect: Dialect) -> Result<Pattern, String> {
    // As the hour is written: `*` and `*/2` name none, `0-23` does.
    let hour = fields(expression, dialect)?.into_iter().find(|field| field.unit == Unit::Hour);
    let any_hour = hour.is_some_and(|hour| hour.text.starts_with('*'));
    let pattern = match dialect {
        Dialect::Crontab => from_croner(&croner(expression, Seconds::Optional, false)?, any_hour),
        Dialect::Quartz => from_croner(&croner(expression, Seconds::Required, true)?, any_hour),
        Dialect::Rust => {
            let schedule = cron::Schedule::from_str(expression).map_err(|e| e.to_string())?;
            from_cron(&schedule, any_hour)
        }
    };
    Ok(pattern.ok_or("it names no year that a task could see")?.simplify())
}

fn croner(expression: &str, seconds: Seconds, alternative_weekdays: bool) -> Result<Cron, String> {
    let parser = CronParser::builder()
        .seconds(seconds)
        .year(Year::Optional)
        .alternative_weekdays(alternative_weekdays)
        .build();
    parser.parse(expression).map_err(|e| e.to_string())
}

/// The marks that croner puts on the values of a field, which it documents but doesn't export.
mod mark {
    pub const PLAIN: u8 = 1;
    pub const NTH: [u8; 5] = [1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5];
    pub const LAST: u8 = 1 << 6;
    pub const NEAREST_WEEKDAY: u8 = 1 << 7;
}

fn from_croner(cron: &Cron, any_hour: bool) -> Option<Pattern> {
    let read = &cron.pattern;
    let set = |field: &CronComponent, mark| bits(field.get_set_values(mark).into_iter().map(u32::from));
    let week = |mark| (set(&read.days_of_week, mark) & 0x7f) as u8;
    let last = read.days.is_feature_enabled(mark::LAST);
    let nearest = read.days.is_feature_enabled(mark::NEAREST_WEEKDAY);
    let years: Vec<u16> = (1..=CRON_YEAR_MAX)
        .filter(|year| read.years.is_bit_set(*year, mark::PLAIN).unwrap_or(false))
        .collect();
    // A star is all of its field, so that both match just where the other does.
    let both = read.matches_dom_and_dow() || read.is_dom_wildcard() || read.is_dow_wildcard();
    Some(Pattern {
        seconds: set(&read.seconds, mark::PLAIN),
        minutes: set(&read.minutes, mark::PLAIN),
        hours: set(&read.hours, mark::PLAIN) as u32,
        days: Days {
            plain: set(&read.days, mark::PLAIN) as u32,
            nearest: set(&read.days, mark::NEAREST_WEEKDAY) as u32,
            // One `LW` makes every `L` beside it another.
            last: last && !nearest,
            last_weekday: last && nearest,
        },
        months: set(&read.months, mark::PLAIN) as u16,
        weekdays: Weekdays { plain: week(mark::PLAIN), nth: mark::NTH.map(week), last: week(mark::LAST) },
        join: if both { Join::Both } else { Join::Either },
        years: Years::of(&years)?,
        any_hour,
    })
}

fn from_cron(schedule: &cron::Schedule, any_hour: bool) -> Option<Pattern> {
    let years: Vec<u16> = schedule.years().iter().filter_map(|year| u16::try_from(year).ok()).collect();
    Some(Pattern {
        seconds: bits(schedule.seconds().iter()),
        minutes: bits(schedule.minutes().iter()),
        hours: bits(schedule.hours().iter()) as u32,
        days: Days { plain: bits(schedule.days_of_month().iter()) as u32, ..Days::NONE },
        months: bits(schedule.months().iter()) as u16,
        weekdays: Weekdays { plain: (bits(schedule.days_of_week().iter()) >> 1) as u8, nth: [0; 5], last: 0 },
        join: Join::Both,
        years: Years::of(&years)?,
        any_hour,
    })
}

/// The set of some values below 64.
fn bits(values: impl Iterator<Item = u32>) -> u64 {
    values.fold(0, |set, value| set | 1 << value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

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
        assert_eq!(first("0 0 13 * +5", Dialect::Crontab, from).unwrap(), "Fri 2026-02-13 00:00:00");
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
        assert_eq!(first("0 0 LW * *", Dialect::Crontab, from).unwrap(), "Fri 2026-01-30 00:00:00");
        assert_eq!(first("0 0 L,LW * *", Dialect::Crontab, from).unwrap(), "Fri 2026-01-30 00:00:00");
        assert_eq!(first("0 0 L,17W 5 *", Dialect::Crontab, from).unwrap(), "Mon 2026-05-18 00:00:00");
    }

    #[test]
    fn macros_mean_the_same_in_every_dialect() {
        for (name, fields) in MACROS {
            for dialect in [Dialect::Crontab, Dialect::Quartz, Dialect::Rust] {
                let read = Pattern::parse(name, dialect).unwrap();
                let years = if dialect == Dialect::Rust { Years::Range(1970, 2100) } else { Years::ANY };
                let crontab = Pattern::parse(fields, Dialect::Crontab).unwrap();
                assert_eq!(read, Pattern { years, ..crontab }, "{name} {dialect}");
                assert_eq!(Pattern::parse(&name.to_uppercase(), dialect), Ok(read));
            }
        }
    }

    #[test]
    fn what_never_comes_is_none() {
        assert_eq!(first("0 0 30 2 *", Dialect::Crontab, "2026-01-01T00:00:00Z"), None);
        assert_eq!(first("0 0 12 1 6 * 2020", Dialect::Crontab, "2026-01-01T00:00:00Z"), None);
        assert_eq!(first("0 0 12 1 6 * *", Dialect::Rust, "2100-06-02T00:00:00Z"), None);
        assert_eq!(first("0 0 1 1 *", Dialect::Crontab, "2200-01-02T00:00:00Z"), None);
    }

    #[test]
    fn hours_that_are_named_are_told_from_those_that_are_not() {
        for (expression, any) in [
            ("0 * * * *", true),
            ("0 */2 * * *", true),
            ("0 0 * * * *", true),
            ("@hourly", true),
            ("0 3 * * *", false),
            ("0 0-23 * * *", false),
            ("0 0 3 * * *", false),
            ("@daily", false),
        ] {
            assert_eq!(Pattern::parse(expression, Dialect::Crontab).unwrap().any_hour, any, "{expression}");
        }
        assert!(Pattern::parse("0 0, 30 * * * *", Dialect::Rust).unwrap().any_hour);
    }
}
