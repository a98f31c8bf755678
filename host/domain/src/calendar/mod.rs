//! The calendar: from a schedule to its nominal times.

mod civil;
mod cron;

use crate::limits::{CRON_CHARS_MAX, INTERVAL_MAX, INTERVAL_MIN};
use crate::time;
use cron::Pattern;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// When a trigger is due, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Schedule {
    Cron(CronSchedule),
    /// `anchor + n * every`, for n from 1.
    Interval {
        every: Duration,
        anchor: Timestamp,
    },
    Once {
        at: Timestamp,
    },
}

/// A cron expression and the rules that it is read by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronSchedule {
    pub expression: String,
    #[serde(default)]
    pub dialect: Dialect,
    /// An IANA name such as `Europe/Berlin`, or `UTC`.
    pub zone: String,
    #[serde(default)]
    pub gap: Gap,
    #[serde(default)]
    pub fold: Fold,
}

/// How a cron expression is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// 5 fields, seconds before and a year after them if wanted; Sunday is 0 and 7; a day matches if
    /// either the day of the month or the day of the week does.
    #[default]
    Crontab,
    /// 6 or 7 fields, seconds first; Sunday is 1; `?`.
    Quartz,
    /// As the Rust crate `cron` reads it: 6 or 7 fields, seconds first; Sunday is 1; day of the month
    /// and day of the week must both match.
    Rust,
}

/// What becomes of a time that a change of the clock skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// It is due once at the end of the gap; in patterns that name no hour it is skipped.
    #[default]
    RunAfter,
    Skip,
}

/// What becomes of a time that a change of the clock repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fold {
    /// It is due the first time; in patterns that name no hour, both times.
    #[default]
    Once,
    Twice,
}

/// A schedule that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("`{expression}` is not a cron expression in the {dialect} dialect: {why}")]
    Cron { expression: String, dialect: Dialect, why: String },
    #[error("`{0}` is not a time zone; use an IANA name such as Europe/Berlin, or UTC")]
    Zone(String),
    #[error("an interval of {0:?} was asked for; it may be {INTERVAL_MIN:?} to {INTERVAL_MAX:?}")]
    Interval(Duration),
    #[error("`{0}` is not a cron dialect; known are: crontab, quartz, rust")]
    Dialect(String),
}

impl FromStr for Dialect {
    type Err = ScheduleError;
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        match text {
            "crontab" => Ok(Self::Crontab),
            "quartz" => Ok(Self::Quartz),
            "rust" => Ok(Self::Rust),
            _ => Err(ScheduleError::Dialect(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Crontab => "crontab",
            Self::Quartz => "quartz",
            Self::Rust => "rust",
        })
    }
}

impl fmt::Display for Schedule {
    /// As people write it: `cron 0 3 * * * Europe/Berlin`, `every 90s`, `at 2030-01-01T00:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => {
                write!(f, "cron {} {}", cron.expression, cron.zone)?;
                if cron.dialect == Dialect::Crontab { Ok(()) } else { write!(f, " ({})", cron.dialect) }
            }
            Self::Interval { every, .. } => write!(f, "every {}", human_duration(*every)),
            Self::Once { at } => write!(f, "at {at}"),
        }
    }
}

fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_millis()) {
        (s, 0) if s > 0 && s % 86_400 == 0 => format!("{}d", s / 86_400),
        (s, 0) if s > 0 && s % 3600 == 0 => format!("{}h", s / 3600),
        (s, 0) if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        (s, 0) => format!("{s}s"),
        (_, _) => format!("{}ms", duration.as_millis()),
    }
}

impl CronSchedule {
    /// An expression in a dialect and zone, under the default rules for changes of the clock. A zone
    /// in the expression itself (`CRON_TZ=Europe/Berlin 0 3 * * *`, also `TZ=`) goes before `zone`.
    pub fn new(expression: &str, dialect: Dialect, zone: &str) -> Self {
        let text = expression.trim();
        let inline = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
        let (zone, text) = match inline.and_then(|rest| rest.split_once(char::is_whitespace)) {
            Some((zone, rest)) => (zone, rest.trim()),
            None => (zone, text),
        };
        Self {
            expression: text.into(),
            dialect,
            zone: zone.into(),
            gap: Gap::default(),
            fold: Fold::default(),
        }
    }
}

impl Schedule {
    /// Reads the schedule, once, into a form that answers quickly.
    pub fn calendar(&self) -> Result<Calendar, ScheduleError> {
        match self {
            Self::Cron(cron) => {
                let fail = |why: String| {
                    let expression = cron.expression.chars().take(CRON_CHARS_MAX).collect();
                    Err(ScheduleError::Cron { expression, dialect: cron.dialect, why })
                };
                if cron.expression.len() > CRON_CHARS_MAX {
                    return fail(format!("it is longer than {CRON_CHARS_MAX} characters"));
                }
                let zone = TimeZone::get(&cron.zone)
                    .map_err(|_| ScheduleError::Zone(cron.zone.chars().take(64).collect()))?;
                match Pattern::parse(&cron.expression, cron.dialect) {
                    Ok(pattern) => {
                        let pattern = Box::new(pattern);
                        Ok(Calendar(Kind::Cron { pattern, zone, gap: cron.gap, fold: cron.fold }))
                    }
                    Err(why) => fail(why),
                }
            }
            Self::Interval { every, anchor } => {
                if *every < INTERVAL_MIN || *every > INTERVAL_MAX {
                    return Err(ScheduleError::Interval(*every));
                }
                Ok(Calendar(Kind::Interval { every: *every, anchor: *anchor }))
            }
            Self::Once { at } => Ok(Calendar(Kind::Once { at: *at })),
        }
    }
}

/// A schedule that has been read.
#[derive(Debug, Clone)]
pub struct Calendar(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Cron { pattern: Box<Pattern>, zone: TimeZone, gap: Gap, fold: Fold },
    Interval { every: Duration, anchor: Timestamp },
    Once { at: Timestamp },
}

impl Calendar {
    /// The first nominal time later than `after`; none when there is none, or none that a cron pattern
    /// gives within its search. Strictly increasing: asking again with the answer goes on.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Kind::Cron { pattern, zone, gap, fold } => {
                civil::next_after(pattern.as_ref(), zone, *gap, *fold, after)
            }
            Kind::Interval { every, anchor } => interval_next(*every, *anchor, after),
            Kind::Once { at } => Some(*at).filter(|at| *at > after),
        }
    }

    /// The nominal times later than `after`, in order.
    pub fn times_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }
}

fn interval_next(every: Duration, anchor: Timestamp, after: Timestamp) -> Option<Timestamp> {
    let every = i128::try_from(every.as_micros()).ok()?;
    let anchor = i128::from(time::to_micros(anchor));
    let passed = i128::from(time::to_micros(after)) - anchor;
    let next = anchor + every * (passed.div_euclid(every) + 1).max(1);
    Timestamp::from_microsecond(i64::try_from(next).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cron(expression: &str, zone: &str) -> Calendar {
        Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, zone)).calendar().unwrap()
    }

    #[test]
    fn intervals_keep_to_their_anchor() {
        let calendar =
            Schedule::Interval { every: Duration::from_secs(90), anchor: at("2026-01-01T00:00:07Z") };
        let calendar = calendar.calendar().unwrap();
        assert_eq!(calendar.next_after(at("2025-01-01T00:00:00Z")), Some(at("2026-01-01T00:01:37Z")));
        assert_eq!(calendar.next_after(at("2026-01-01T00:01:37Z")), Some(at("2026-01-01T00:03:07Z")));
        assert_eq!(calendar.next_after(at("2026-01-01T00:01:36.9Z")), Some(at("2026-01-01T00:01:37Z")));
        assert_eq!(calendar.next_after(Timestamp::MAX), None);
    }

    #[test]
    fn once_is_once() {
        let calendar = Schedule::Once { at: at("2026-01-01T00:00:00Z") }.calendar().unwrap();
        let times: Vec<_> = calendar.times_after(at("2025-01-01T00:00:00Z")).collect();
        assert_eq!(times, [at("2026-01-01T00:00:00Z")]);
    }

    #[test]
    fn a_zone_in_the_expression_goes_first() {
        let calendar = cron("CRON_TZ=America/New_York 0 9 * * *", "UTC");
        assert_eq!(calendar.next_after(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T14:00:00Z")));
    }

    #[test]
    fn mistakes_are_told() {
        let read = |expression: &str, zone: &str| {
            Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, zone)).calendar().map(|_| ())
        };
        assert!(matches!(read("* * * *", "UTC"), Err(ScheduleError::Cron { .. })));
        assert!(matches!(read("61 * * * *", "UTC"), Err(ScheduleError::Cron { .. })));
        assert_eq!(read("* * * * *", "Mars/Base"), Err(ScheduleError::Zone("Mars/Base".into())));
        let fast = Schedule::Interval { every: Duration::from_millis(1), anchor: Timestamp::UNIX_EPOCH };
        assert!(matches!(fast.calendar(), Err(ScheduleError::Interval(_))));
        assert!(matches!(read(&"*".repeat(300), "UTC"), Err(ScheduleError::Cron { .. })));
    }

    #[test]
    fn schedules_read_as_people_write_them() {
        let every = |millis| Schedule::Interval {
            every: Duration::from_millis(millis),
            anchor: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(every(90_000).to_string(), "every 90s");
        assert_eq!(every(7_200_000).to_string(), "every 2h");
        assert_eq!(every(1_500).to_string(), "every 1500ms");
        let cron = Schedule::Cron(CronSchedule::new("0 3 * * *", Dialect::Crontab, "UTC"));
        assert_eq!(cron.to_string(), "cron 0 3 * * * UTC");
    }
}
