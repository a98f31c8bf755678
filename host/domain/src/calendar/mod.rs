//! The calendar: from a schedule to its nominal times.

mod check;
mod civil;
mod cron;
mod field;
mod least_gap;
mod pattern;
mod search;
mod words;
mod zones;

use crate::failure::plain;
use crate::limits::{CRON_CHARS_MAX, INTERVAL_MAX, INTERVAL_MIN, REFUSAL_BYTES_MAX, ZONE_CHARS_MAX};
use crate::time;
use crate::word::words;
use jiff::Timestamp;
use jiff::civil::Date;
/// What [`Zones`] gives for a name.
pub use jiff::tz::TimeZone;
use pattern::Pattern;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
pub use zones::{BundledZones, Zones};

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
    /// `delay` after `anchor`, and then `delay` after the end of each of its runs.
    FixedDelay {
        delay: Duration,
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
    #[error("`{0}` is not a time zone; {advice}", advice = zones::advice(.0))]
    Zone(String),
    #[error("an interval of {} was asked for; it may be {} to {}", human_duration(*.0), human_duration(INTERVAL_MIN), human_duration(INTERVAL_MAX))]
    Interval(Duration),
    #[error("`{0}` is not a cron dialect; known are: crontab, quartz, rust")]
    Dialect(String),
    #[error("the trigger has no schedule, and so no times: it is by the rule `{0}`")]
    NoSchedule(String),
}

words!(Gap, "a rule for skipped times", RunAfter = "run-after", Skip = "skip");
words!(Fold, "a rule for repeated times", Once = "once", Twice = "twice");

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
            Self::FixedDelay { delay, .. } => write!(f, "{} after each run", human_duration(*delay)),
            Self::Once { at } => write!(f, "at {at}"),
        }
    }
}

/// As people write it: `90s`, `366d`.
pub(crate) fn human_duration(duration: Duration) -> String {
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

    /// The expression, read.
    fn pattern(&self) -> Result<Pattern, ScheduleError> {
        let read = match self.expression.chars().nth(CRON_CHARS_MAX) {
            None => Pattern::parse(&self.expression, self.dialect),
            Some(_) => Err(format!("it is longer than {CRON_CHARS_MAX} characters")),
        };
        read.map_err(|why| {
            // Whoever is shown the error is not to be sent control characters.
            let expression = plain(&self.expression, CRON_CHARS_MAX);
            let why = plain(&why, REFUSAL_BYTES_MAX);
            ScheduleError::Cron { expression, dialect: self.dialect, why }
        })
    }
}

impl Schedule {
    /// Reads the schedule, once, into a form that answers quickly, by the zones in the program.
    pub fn calendar(&self) -> Result<Calendar, ScheduleError> {
        self.calendar_in(&BundledZones)
    }

    /// Reads the schedule by other zones.
    pub fn calendar_in(&self, zones: &dyn Zones) -> Result<Calendar, ScheduleError> {
        match self {
            Self::Cron(cron) => {
                let zone = zones
                    .zone(&cron.zone)
                    .ok_or_else(|| ScheduleError::Zone(plain(&cron.zone, ZONE_CHARS_MAX)))?;
                let pattern = Box::new(cron.pattern()?);
                Ok(Calendar(Kind::Cron { pattern, zone, gap: cron.gap, fold: cron.fold }))
            }
            Self::Interval { every, anchor } => {
                check_interval(*every)?;
                Ok(Calendar(Kind::Interval { every: *every, anchor: *anchor }))
            }
            Self::FixedDelay { delay, anchor } => {
                check_interval(*delay)?;
                Ok(Calendar(Kind::Once { at: time::after(*anchor, *delay) }))
            }
            Self::Once { at } => Ok(Calendar(Kind::Once { at: *at })),
        }
    }
}

fn check_interval(interval: Duration) -> Result<(), ScheduleError> {
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        Ok(())
    } else {
        Err(ScheduleError::Interval(interval))
    }
}

/// The last nominal time of which is known what became of it, and what the zone's clock showed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    pub at: Timestamp,
    /// Civil time less UTC, in seconds, by the zone's data of that time.
    pub offset: i32,
}

/// A schedule that has been read. Of a fixed delay only the first time is known beforehand.
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

    /// Civil time less UTC then, in seconds; zero where no zone matters.
    pub fn offset(&self, at: Timestamp) -> i32 {
        match &self.0 {
            Kind::Cron { zone, .. } => zone.to_offset(at).seconds(),
            Kind::Interval { .. } | Kind::Once { .. } => 0,
        }
    }

    /// The civil date then, in the schedule's zone; in UTC where no zone matters.
    pub fn date(&self, at: Timestamp) -> Date {
        match &self.0 {
            Kind::Cron { zone, .. } => zone.to_datetime(at).date(),
            Kind::Interval { .. } | Kind::Once { .. } => TimeZone::UTC.to_datetime(at).date(),
        }
    }

    /// The first instant of a civil date, or, where the clock jumps over all of it, of what follows.
    pub fn start_of(&self, date: Date) -> Option<Timestamp> {
        let zone = match &self.0 {
            Kind::Cron { zone, .. } => zone,
            Kind::Interval { .. } | Kind::Once { .. } => &TimeZone::UTC,
        };
        zone.to_timestamp(date.into()).ok()
    }

    /// The first nominal time after `covered`, which may have been found by other data of the zone: none of the
    /// zone's days has a time twice for that, or goes without. It can be earlier than `covered` itself.
    pub fn resume_after(&self, covered: Covered) -> Option<Timestamp> {
        match &self.0 {
            // Where the data agree there is nothing to be made good, and a repeated time can still be to come.
            Kind::Cron { pattern, zone, .. }
                if !pattern.any_hour && self.offset(covered.at) != covered.offset =>
            {
                let civil = covered.at.as_second() + i64::from(covered.offset);
                self.next_after(civil::latest_instant(zone, civil)?)
            }
            _ => self.next_after(covered.at),
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
    fn mistakes_are_quoted_without_harm() {
        for (expression, zone) in [("0 3 * * *", "\x1b[2J"), ("\x1b[2J", "UTC"), ("5 8\t@5 2*2", "UTC")] {
            let schedule = Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, zone));
            let error = schedule.calendar().unwrap_err().to_string();
            assert!(error.contains("` is not a ") && !error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn once_is_once() {
        let calendar = Schedule::Once { at: at("2026-01-01T00:00:00Z") }.calendar().unwrap();
        let times: Vec<_> = calendar.times_after(at("2025-01-01T00:00:00Z")).collect();
        assert_eq!(times, [at("2026-01-01T00:00:00Z")]);
    }

    #[test]
    fn a_fixed_delay_knows_its_first_time() {
        let calendar =
            Schedule::FixedDelay { delay: Duration::from_secs(90), anchor: at("2026-01-01T00:00:00Z") };
        let times: Vec<_> =
            calendar.calendar().unwrap().times_after(at("2025-01-01T00:00:00Z")).take(3).collect();
        assert_eq!(times, [at("2026-01-01T00:01:30Z")]);
    }

    /// The data said +02:00, and says +01:00 now: nine o'clock is an hour later than it was thought to be.
    #[test]
    fn other_data_of_a_zone_neither_repeats_a_day_nor_drops_one() {
        let berlin = cron("0 9 * * *", "Europe/Berlin");
        let covered = |at: &str, offset| berlin.resume_after(Covered { at: at.parse().unwrap(), offset });
        let ran_early = covered("2026-01-10T07:00:00Z", 7200);
        assert_eq!(ran_early, Some(at("2026-01-11T08:00:00Z")), "that day's is done");
        let not_yet = covered("2026-01-09T09:00:00Z", 0);
        assert_eq!(not_yet, Some(at("2026-01-10T08:00:00Z")));
        // At half past eight UTC the old data had half past eight, the new one has nine behind it.
        let behind = covered("2026-01-10T08:30:00Z", 0);
        assert_eq!(behind, Some(at("2026-01-10T08:00:00Z")), "it is late, not lost");
        let hourly = cron("0 * * * *", "Europe/Berlin");
        let covered = Covered { at: at("2026-01-10T07:00:00Z"), offset: 7200 };
        assert_eq!(hourly.resume_after(covered), Some(at("2026-01-10T08:00:00Z")));
    }

    #[test]
    fn where_data_agree_a_repeated_time_is_still_to_come() {
        let cron = CronSchedule::new("30 2 * * *", Dialect::Crontab, "Antarctica/Troll");
        let troll = Schedule::Cron(CronSchedule { fold: Fold::Twice, ..cron }).calendar().unwrap();
        let first = at("2026-10-25T00:30:00Z");
        let covered = Covered { at: first, offset: troll.offset(first) };
        assert_eq!(troll.resume_after(covered), Some(at("2026-10-25T02:30:00Z")));
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
