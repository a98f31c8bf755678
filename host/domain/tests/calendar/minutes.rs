//! Looking at every minute: what a zone's clock shows then decides whether an expression is due.

use crate::generate::{DIALECTS, Seconds, expression};
use crate::library::Library;
use crate::random::{Random, first_seed};
use innkeeper_domain::calendar::Calendar;
use innkeeper_domain::calendar::{CronSchedule, Dialect, Fold, Gap, Schedule};
use jiff::{Timestamp, tz::TimeZone};
use std::collections::HashSet;

/// More than a clock was ever set back by, in seconds.
const SET_BACK_MAX: i64 = 26 * 3600;

/// One moment as a zone's clock shows it.
struct Moment {
    at: i64,
    civil: i64,
    /// The civil times that were left out just before.
    skipped: Vec<i64>,
    /// Whether the clock has shown the same before.
    again: bool,
}

/// A time in a zone, moment by moment.
pub struct Watch {
    zone: String,
    from: i64,
    to: i64,
    moments: Vec<Moment>,
}

impl Watch {
    /// Every `step` seconds of a time; all that is compared must be due at such moments.
    pub fn new(zone: &str, from: i64, to: i64, step: i64) -> Self {
        let tz = TimeZone::get(zone).unwrap();
        let offset = |at| i64::from(tz.to_offset(Timestamp::from_second(at).unwrap()).seconds());
        let mut shown: HashSet<i64> = HashSet::new();
        let mut moments = Vec::new();
        let mut before = None;
        let begin = from - SET_BACK_MAX / step * step;
        for at in (begin..to).step_by(step as usize) {
            let civil = at + offset(at);
            let again = !shown.insert(civil);
            if at >= from {
                let skipped = before.map_or(civil, |before| before + step)..civil;
                moments.push(Moment { at, civil, skipped: skipped.step_by(step as usize).collect(), again });
            }
            before = Some(civil);
        }
        Self { zone: zone.into(), from, to, moments }
    }

    /// What is due by the rules, and what the calendar says is.
    pub fn compare(&self, expression: &str, dialect: Dialect, gap: Gap, fold: Fold) -> usize {
        let library = Library::read(expression, dialect).expect(expression);
        let (run_after, once) = match any_hour(expression, dialect) {
            true => (false, false),
            false => (gap == Gap::RunAfter, fold == Fold::Once),
        };
        let due = self.moments.iter().filter(|moment| {
            let after_gap = run_after && moment.skipped.iter().any(|civil| library.matches(*civil));
            after_gap || (library.matches(moment.civil) && !(once && moment.again))
        });
        let due: Vec<i64> = due.map(|moment| moment.at).collect();
        let calendar = calendar(expression, dialect, &self.zone, gap, fold);
        let times = calendar.times_after(Timestamp::from_second(self.from - 1).unwrap());
        let found: Vec<i64> = times.map(Timestamp::as_second).take_while(|at| *at < self.to).collect();
        if found != due {
            let show = |at: Option<&i64>| at.map(|at| Timestamp::from_second(*at).unwrap().to_string());
            let first = (0..).find(|n| found.get(*n) != due.get(*n)).unwrap();
            panic!(
                "`{expression}` ({dialect}) in {} with {gap:?} and {fold:?}: {:?} instead of {:?}",
                self.zone,
                show(found.get(first)),
                show(due.get(first)),
            );
        }
        // Whoever asks just before, or in the middle, is told the same.
        for at in due.iter().rev().take(50) {
            let before = Timestamp::from_nanosecond(i128::from(*at) * 1_000_000_000 - 1).unwrap();
            let second = Timestamp::from_second(*at - 1).unwrap();
            for asked in [before, second] {
                let next = calendar.next_after(asked).map(Timestamp::as_second);
                assert_eq!(next, Some(*at), "`{expression}` ({dialect}) in {} after {asked}", self.zone);
            }
        }
        due.len()
    }
}

pub fn calendar(expression: &str, dialect: Dialect, zone: &str, gap: Gap, fold: Fold) -> Calendar {
    let cron = CronSchedule { gap, fold, ..CronSchedule::new(expression, dialect, zone) };
    Schedule::Cron(cron).calendar().unwrap()
}

/// Whether the hour, as the generator writes it, begins with a star.
pub fn any_hour(expression: &str, dialect: Dialect) -> bool {
    let fields: Vec<&str> = expression.split(' ').collect();
    let hour = if dialect == Dialect::Crontab && fields.len() == 5 { 1 } else { 2 };
    fields[hour].starts_with('*')
}

pub fn rules(random: &mut Random) -> (Gap, Fold) {
    let gap = if random.chance(70) { Gap::RunAfter } else { Gap::Skip };
    (gap, if random.chance(70) { Fold::Once } else { Fold::Twice })
}

/// Changes of the clock of every kind, by the day on which a year of looking begins.
const YEARS: [(&str, &str); 9] = [
    ("America/New_York", "2026-01-01"),
    ("America/Santiago", "2026-01-01"),    // a day without midnight
    ("Australia/Lord_Howe", "2026-01-01"), // half an hour
    ("Pacific/Kiritimati", "1994-07-01"),  // a day that never was: 1994-12-31
    ("Antarctica/Troll", "2026-01-01"),    // two hours
    ("Africa/Casablanca", "2026-01-01"),   // set back for Ramadan
    ("Europe/Berlin", "2026-01-01"),
    ("Asia/Kathmandu", "1985-07-01"), // a quarter of an hour, in 1986
    ("UTC", "2028-01-01"),
];

#[test]
fn a_whole_year_is_as_every_minute_says() {
    let seed = first_seed();
    println!("INN_SEED={seed}");
    let mut random = Random::new(seed);
    for (zone, day) in YEARS {
        let from = format!("{day}T00:00:00Z").parse::<Timestamp>().unwrap().as_second();
        let watch = Watch::new(zone, from, from + 366 * 86_400, 60);
        for case in 0..6 {
            let dialect = DIALECTS[case % 3];
            let expression = expression(&mut random, dialect, Seconds::Zero);
            let (gap, fold) = rules(&mut random);
            watch.compare(&expression, dialect, gap, fold);
        }
    }
}

/// Days around changes of the clock, many times over.
#[test]
fn changes_of_the_clock_are_as_every_minute_says() {
    let seed = first_seed();
    println!("INN_SEED={seed}");
    let mut random = Random::new(seed);
    for (zone, day) in YEARS.into_iter().filter(|(zone, _)| *zone != "UTC") {
        let from = format!("{day}T00:00:00Z").parse::<Timestamp>().unwrap();
        let tz = TimeZone::get(zone).unwrap();
        for change in tz.following(from).take(2) {
            let change = change.timestamp().as_second();
            let watch = Watch::new(zone, change - 2 * 86_400, change + 2 * 86_400, 60);
            for case in 0..60 {
                let dialect = DIALECTS[case % 3];
                let expression = near(&mut random, dialect, watch_hour(&tz, change));
                let (gap, fold) = rules(&mut random);
                watch.compare(&expression, dialect, gap, fold);
            }
        }
    }
}

/// The hour that the clock shows just before a change.
pub fn watch_hour(zone: &TimeZone, change: i64) -> u64 {
    let before = Timestamp::from_second(change - 1).unwrap();
    u64::from(zone.to_datetime(before).hour().unsigned_abs())
}

/// An expression that is often due near an hour.
pub fn near(random: &mut Random, dialect: Dialect, hour: u64) -> String {
    let text = expression(random, dialect, Seconds::Zero);
    let mut fields: Vec<String> = text.split(' ').map(String::from).collect();
    let at = usize::from(!(dialect == Dialect::Crontab && fields.len() == 5));
    if random.chance(75) {
        let hours = [(hour + random.below(3) + 23) % 24, (hour + random.below(3)) % 24];
        fields[at + 1] =
            if random.chance(50) { hours[0].to_string() } else { format!("{},{}", hours[0], hours[1]) };
    }
    if random.chance(50) {
        fields[at] = random.pick(&["0", "59", "30", "*/15", "0,15", "1-10", "*"]).unwrap().into();
    }
    if random.chance(70) {
        for field in &mut fields[at + 2..] {
            *field = "*".into();
        }
    }
    fields.join(" ")
}
