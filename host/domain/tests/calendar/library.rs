//! The libraries that define the dialects: what they take, what matches, and what comes next in UTC.

use crate::generate::{DIALECTS, Seconds, expression};
use crate::random::{Random, first_seed};
use chrono::{DateTime, Datelike, Utc};
use croner::parser::{CronParser, Seconds as CronerSeconds, Year};
use innkeeper_domain::calendar::{CronSchedule, Dialect, Schedule};
use innkeeper_domain::limits::CRON_YEAR_MAX;
use jiff::Timestamp;

/// An expression as its library reads it.
pub enum Library {
    Croner(Box<croner::Cron>),
    Cron(Box<cron::Schedule>),
}

impl Library {
    pub fn read(expression: &str, dialect: Dialect) -> Option<Self> {
        let croner = |seconds, alternative_weekdays| {
            CronParser::builder()
                .seconds(seconds)
                .year(Year::Optional)
                .alternative_weekdays(alternative_weekdays)
                .build()
                .parse(expression)
                .ok()
                .map(|cron| Self::Croner(Box::new(cron)))
        };
        match dialect {
            Dialect::Crontab => croner(CronerSeconds::Optional, false),
            Dialect::Quartz => croner(CronerSeconds::Required, true),
            Dialect::Rust => expression.parse().ok().map(|schedule| Self::Cron(Box::new(schedule))),
        }
    }

    /// Whether a civil time, in seconds, matches.
    pub fn matches(&self, civil: i64) -> bool {
        let civil = DateTime::<Utc>::from_timestamp(civil, 0).unwrap();
        match self {
            Self::Croner(cron) => cron.is_time_matching(&civil).unwrap(),
            Self::Cron(schedule) => schedule.includes(civil),
        }
    }

    /// The next time that it gives itself, in UTC.
    fn next(&self, after: i64) -> Option<i64> {
        let after = DateTime::<Utc>::from_timestamp(after, 0).unwrap();
        let next = match self {
            Self::Croner(cron) => cron.find_next_occurrence(&after, false).ok()?,
            Self::Cron(schedule) => schedule.after(&after).next()?,
        };
        (next.year() <= i32::from(CRON_YEAR_MAX)).then(|| next.timestamp())
    }
}

#[test]
fn the_next_time_in_utc_is_the_librarys_own() {
    let seed = first_seed();
    println!("INN_SEED={seed}");
    let mut random = Random::new(seed);
    let mut never = 0;
    for case in 0..6_000 {
        let dialect = DIALECTS[case % 3];
        let expression = expression(&mut random, dialect, Seconds::Any);
        let library = Library::read(&expression, dialect).expect(&expression);
        let calendar = Schedule::Cron(CronSchedule::new(&expression, dialect, "UTC")).calendar().unwrap();
        let mut at = 1_500_000_000 + random.below(1_500_000_000) as i64;
        for _ in 0..3 {
            let next = calendar.next_after(Timestamp::from_second(at).unwrap()).map(Timestamp::as_second);
            if next.is_none() {
                never += 1;
                // The library takes long to find that nothing comes; these are few.
                if never > 20 {
                    break;
                }
            }
            assert_eq!(next, library.next(at), "`{expression}` ({dialect}) after {at}");
            let Some(next) = next else { break };
            at = next;
        }
    }
}
