//! Cron expressions in every dialect, in time zones.

use crate::engine::{Input, Seen, Target, plain_words, same, text};
use crate::mutate::{Grow, damage};
use crate::random::Random;
use innkeeper_domain::Timestamp;
use innkeeper_domain::calendar::{Calendar, CronSchedule, Dialect, Fold, Gap, Schedule};

pub struct Patterns;

/// Times that are asked for, one after the other.
const TIMES: usize = 12;
/// Bytes of a sentence that says when a schedule is due.
const SENTENCE_MAX: usize = 8 * 1024;

const EXAMPLES: Grow = Grow {
    corpus: &[
        b"0 3 * * *",
        b"*/15 8-18/2 1,15 JAN-MAR MON-FRI",
        b"0 0 12 ? * MON#1 2027-2099",
        b"0 0 0 LW * ?",
        b"30 2 29 2 *",
        b"0 15 10 L * ? 2030",
        b"@daily",
        b"CRON_TZ=Europe/Berlin 0 9 * * 1-5",
        b"59 59 23 31 12 * 2200",
        b"0 0 0 1W * 5L",
    ],
    tokens: &[
        "*",
        "?",
        "/",
        "-",
        ",",
        "#",
        "L",
        "W",
        "LW",
        "+",
        " ",
        "\t",
        "\n",
        "0",
        "7",
        "59",
        "60",
        "24",
        "31",
        "32",
        "12",
        "13",
        "1970",
        "2200",
        "2201",
        "SUN",
        "SAT-SUN",
        "fri#5",
        "JAN",
        "DEC-JAN",
        "*/1",
        "*/0",
        "*/59",
        "0-0",
        "5-1",
        "@yearly",
        "@every 1s",
        "@reboot",
        "TZ=UTC ",
        "CRON_TZ=",
        "%",
        "H",
        "~",
        "é",
        "\0",
        "18446744073709551616",
    ],
};

const ZONES: [&str; 18] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Nuuk",
    "Asia/Tehran",
    "Pacific/Kiritimati",
    "Etc/GMT+12",
    "Africa/Monrovia",
    "europe/berlin",
    "Mars/Olympus",
    "",
    "CET",
    "../../etc/passwd",
    "EST5EDT,M3.2.0,M11.1.0",
];

impl Target for Patterns {
    fn make(&mut self, random: &mut Random) -> Input {
        let dialect = random.pick(&["crontab", "quartz", "rust"]).unwrap_or("crontab");
        let mut expression = if random.chance(75) {
            expression(random, dialect)
        } else {
            crate::mutate::text(random, &EXAMPLES)
        };
        if random.chance(25) {
            let mut bytes = expression.into_bytes();
            damage(random, &mut bytes, &EXAMPLES);
            expression = String::from_utf8_lossy(&bytes).into_owned();
        }
        let zone = random.pick(&ZONES).unwrap_or("UTC");
        let rules = [random.pick(&["run-after", "skip"]), random.pick(&["once", "twice"])];
        let seconds = match random.below(10) {
            0 => random
                .pick(&[-377_705_023_201, -62_135_596_801, -1, 7_258_118_399, 253_402_207_200])
                .unwrap_or(0),
            _ => random.below(7_000_000_000) as i64,
        };
        let terms =
            [dialect, zone, rules[0].unwrap_or("skip"), rules[1].unwrap_or("once"), &seconds.to_string()];
        vec![expression.into(), terms.join(";").into()]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let terms = input.get(1).map_or_else(String::new, |terms| text(terms));
        let terms: Vec<&str> = terms.split(';').collect();
        let term = |place: usize| terms.get(place).copied().unwrap_or_default();
        let dialect: Dialect = term(0).parse().unwrap_or_default();
        let expression = text(input.first().map_or(&[], Vec::as_slice));
        let cron = CronSchedule::new(&expression, dialect, term(1));
        let (gap, fold): (Gap, Fold) =
            (term(2).parse().unwrap_or_default(), term(3).parse().unwrap_or_default());
        let schedule = Schedule::Cron(CronSchedule { gap, fold, ..cron });
        let kept = serde_json::to_string(&schedule).and_then(|json| serde_json::from_str(&json));
        same("what is stored of it", &schedule, &kept.map_err(|error| error.to_string())?)?;
        let after =
            term(4).parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_default();
        match schedule.calendar() {
            Ok(calendar) => {
                times(&calendar, after)?;
                let sentence = schedule.words().map_err(|error| format!("it has no sentence: {error}"))?;
                plain_words(&sentence)?;
                if sentence.len() > SENTENCE_MAX {
                    return Err(format!("its sentence has {} bytes", sentence.len()));
                }
                Ok(Seen::Taken)
            }
            Err(error) => plain_words(&error.to_string()).map(|()| Seen::Refused),
        }
    }
}

/// Whether its times follow each other, and are the same from wherever they are asked for.
fn times(calendar: &Calendar, after: Timestamp) -> Result<(), String> {
    let times: Vec<Timestamp> = calendar.times_after(after).take(TIMES).collect();
    let mut last = after;
    for at in &times {
        if *at <= last {
            return Err(format!("{at} is not after {last}"));
        }
        for from in [between(last, *at, 1), between(last, *at, 2), between(last, *at, 1_000_000)] {
            same(&format!("the time after {from}"), &calendar.next_after(from), &Some(*at))?;
        }
        last = *at;
    }
    // Of the changes of the clock the next ones count, LEAST_GAP_CHANGES of them: for so long at least.
    if last.as_second() - after.as_second() > 20 * 366 * 24 * 3600 {
        return Ok(());
    }
    let gap = times.windows(2).map(|pair| pair[1].as_microsecond() - pair[0].as_microsecond()).min();
    if let (Some(gap), Some(least)) = (gap, calendar.least_gap(after))
        && i128::from(gap) < least.as_micros() as i128
    {
        return Err(format!("its times are {gap} microseconds apart, and at least {least:?} they should be"));
    }
    Ok(())
}

/// An instant from `first` on, and before `end`: nearer to that the greater the number.
fn between(first: Timestamp, end: Timestamp, number: i64) -> Timestamp {
    let (first, end) = (first.as_microsecond(), end.as_microsecond());
    Timestamp::from_microsecond((end - 1 - (end - 1 - first) / number).max(first)).unwrap_or_default()
}

fn expression(random: &mut Random, dialect: &str) -> String {
    let bounds = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7), (1970, 2200)];
    let fields = match (dialect, random.below(3)) {
        ("crontab", 0 | 1) => 1..6,
        (_, 2) => 0..7,
        _ => 0..6,
    };
    let weekday_from = u64::from(dialect != "crontab");
    let joint = if random.chance(95) { " " } else { "  \t" };
    let texts = fields.map(|place| match place {
        5 => field(random, weekday_from, 6 + weekday_from, place),
        _ => field(random, bounds[place].0, bounds[place].1, place),
    });
    texts.collect::<Vec<_>>().join(joint)
}

fn field(random: &mut Random, low: u64, high: u64, place: usize) -> String {
    if random.chance(35) {
        return if random.chance(85) { "*".into() } else { "?".into() };
    }
    let count = 1 + if random.chance(30) { random.below(4) } else { 0 };
    let items: Vec<String> = (0..count).map(|_| item(random, low, high, place)).collect();
    items.join(",")
}

fn item(random: &mut Random, low: u64, high: u64, place: usize) -> String {
    let beyond = u64::from(random.chance(2));
    let number = |random: &mut Random| low + random.below(high - low + 1 + beyond);
    let one = match (place, random.below(5)) {
        (4, 0) => random.pick(&["JAN", "feb", "Jun", "DEC"]).unwrap_or("JAN").to_string(),
        (5, 0) => random.pick(&["SUN", "mon", "Fri", "SAT"]).unwrap_or("SUN").to_string(),
        _ => number(random).to_string(),
    };
    match (place, random.below(12)) {
        (3, 0) => random.pick(&["L", "LW", "15W", "1W", "31W", "L-3"]).unwrap_or("L").into(),
        (5, 0) => format!("{one}#{}", 1 + random.below(5)),
        (5, 1) => format!("{one}L"),
        (_, 2 | 3) => {
            let (a, b) = (number(random), number(random));
            format!("{}-{}", a.min(b), a.max(b))
        }
        (_, 4) => format!("*/{}", 1 + random.below(high - low + 1)),
        (_, 5) => {
            let (a, b) = (number(random), number(random));
            format!("{}-{}/{}", a.min(b), a.max(b), 1 + random.below(20))
        }
        (_, 6) => format!("{one}/{}", 1 + random.below(20)),
        _ => one,
    }
}
