//! A schedule in words. They are exact above all: two schedules that are due at different times never read alike.

use super::pattern::{Days, Join, Pattern, Weekdays, Years};
use super::{Schedule, ScheduleError, human_duration};

/// Times of a day that are listed one by one; more are told by hours and minutes.
const TIMES_LISTED_MAX: u32 = 6;
/// Values in equal steps that are told by their step; fewer are listed.
const STEPPED_MIN: usize = 5;
const ALL_MINUTES: u64 = (1 << 60) - 1;
const ALL_HOURS: u32 = (1 << 24) - 1;
const ALL_MONTHS: u16 = 0b1_1111_1111_1110;

/// Years, and rows of them, that are told one by one.
const YEARS_LISTED_MAX: usize = 24;

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 13] = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const NTH: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

impl Schedule {
    /// When it is due, in a sentence: `at 03:00 every day, Europe/Berlin`. What the rules for changes of the clock
    /// do is not in it.
    pub fn words(&self) -> Result<String, ScheduleError> {
        Ok(match self {
            Self::Cron(cron) => format!("{}, {}", cron.pattern()?.words(), cron.zone),
            Self::Interval { every, anchor } => format!("every {} from {anchor} on", human_duration(*every)),
            Self::FixedDelay { delay, anchor } => {
                let delay = human_duration(*delay);
                format!("{delay} after {anchor}, and then {delay} after the end of each run")
            }
            Self::Once { at } => format!("once, at {at}"),
        })
    }
}

impl Pattern {
    /// When it is due, without a zone.
    pub fn words(&self) -> String {
        let (time, at_times) = self.time();
        let date = self.date();
        let year = self.year();
        let never = if self.first_from(i64::MIN).is_none() { "never: " } else { "" };
        let every_day = if date.is_empty() && at_times { " every day" } else { "" };
        format!("{never}{time}{every_day}{date}{year}")
    }

    /// The times of a day, and whether they are told one by one.
    fn time(&self) -> (String, bool) {
        let (seconds, minutes) = (values(self.seconds), values(self.minutes));
        let hours = values(self.hours.into());
        let count = self.seconds.count_ones() * self.minutes.count_ones() * self.hours.count_ones();
        if count <= TIMES_LISTED_MAX {
            let minutes = hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (hour, minute)));
            let times = minutes.flat_map(|(hour, minute)| {
                seconds.iter().map(move |second| match self.seconds {
                    1 => format!("{hour:02}:{minute:02}"),
                    _ => format!("{hour:02}:{minute:02}:{second:02}"),
                })
            });
            return (format!("at {}", listed(&times.collect::<Vec<_>>(), "and")), true);
        }
        let every = |set: u64, unit: &str| match (set, step_of_sixty(set)) {
            (ALL_MINUTES, _) => Some(format!("every {unit}")),
            (_, Some(step)) => Some(format!("every {step} {unit}s")),
            _ => None,
        };
        let hour = match self.hours {
            ALL_HOURS => None,
            _ => Some(numbers("hour", self.hours.into())),
        };
        let text = match (self.seconds, self.minutes) {
            (1, _) => match (every(self.minutes, "minute"), hour) {
                (Some(every), None) => every,
                (Some(every), Some(hour)) => format!("{every} in {hour}"),
                (None, None) => format!("at {} of every hour", numbers("minute", self.minutes)),
                (None, Some(hour)) => format!("at {} of {hour}", numbers("minute", self.minutes)),
            },
            (_, ALL_MINUTES) => {
                let second = every(self.seconds, "second");
                match (second, hour) {
                    (Some(every), None) => every,
                    (Some(every), Some(hour)) => format!("{every} in {hour}"),
                    (None, None) => format!("at {} of every minute", numbers("second", self.seconds)),
                    (None, Some(hour)) => {
                        format!("at {} of every minute in {hour}", numbers("second", self.seconds))
                    }
                }
            }
            (_, _) => {
                let minute = numbers("minute", self.minutes);
                let hour = hour.unwrap_or("every hour".into());
                match every(self.seconds, "second") {
                    Some(every) => format!("{every} in {minute} of {hour}"),
                    None => format!("at {} in {minute} of {hour}", numbers("second", self.seconds)),
                }
            }
        };
        (text, false)
    }

    /// The days and months, with a space before them; nothing if they are all.
    fn date(&self) -> String {
        let any_day = self.days == Days::ALL;
        let days = if any_day { None } else { Some(self.days.words()) };
        let months = match self.months {
            ALL_MONTHS => None,
            set => Some(listed(&ranges(set.into(), |month| MONTHS[month as usize].into()), "and")),
        };
        // What some months lack isn't promised for every month.
        let rare = self.days.is_rare() || self.weekdays.nth[4] != 0;
        let of = match &months {
            Some(months) if rare => format!(" of {months} where there is one"),
            Some(months) => format!(" of {months}"),
            None if rare => " of every month that has one".into(),
            None => " of every month".into(),
        };
        let only = months.as_ref().map_or(String::new(), |months| format!(" in {months}"));
        let on = self.weekdays.words();
        let on_of = if self.weekdays.depend_on_month() { &of } else { &only };
        match (days, self.weekdays == Weekdays::ALL, self.join) {
            (None, true, _) => only,
            (Some(days), true, _) => format!(" on {days}{of}"),
            (None, false, _) => format!(" on {on}{on_of}"),
            (Some(days), false, Join::Either) => format!(" on {days}{of} or on {on}{on_of}"),
            (Some(days), false, Join::Both) => {
                format!(" on {days}{of} if it is {}", self.weekdays.condition())
            }
        }
    }

    fn year(&self) -> String {
        match &self.years {
            years if *years == Years::ANY => String::new(),
            // What the crate `cron` takes for all years.
            Years::Range(1970, 2100) => " until 2100".into(),
            Years::Range(first, last) if first == last => format!(" in {first}"),
            Years::Range(first, last) => format!(" in {first} to {last}"),
            Years::List(years) => match step_between(years) {
                Some(step) if years.len() >= STEPPED_MIN => {
                    let (first, last) = (years[0], years[years.len() - 1]);
                    format!(" in every {} year from {first} to {last}", ordinal(step.into()))
                }
                _ => {
                    let all: Vec<u32> = years.iter().copied().map(Into::into).collect();
                    let texts = rows(&all, |year| year.to_string());
                    if texts.len() > YEARS_LISTED_MAX {
                        return format!(" in {} years from {} to {}", all.len(), all[0], all[all.len() - 1]);
                    }
                    format!(" in {}", listed(&texts, "and"))
                }
            },
        }
    }
}

impl Days {
    /// `day 13`, `days 1 and 15`, `the last day`.
    fn words(&self) -> String {
        let mut all = Vec::new();
        if self.plain != 0 {
            all.push(numbers("day", self.plain.into()));
        }
        for day in values(self.nearest.into()) {
            all.push(format!("the Monday to Friday nearest to the {}", ordinal(day)));
        }
        if self.last {
            all.push("the last day".into());
        }
        if self.last_weekday {
            all.push("the last Monday to Friday".into());
        }
        listed(&all, "and")
    }

    /// Whether there are months without all of them.
    fn is_rare(&self) -> bool {
        *self != Self::ALL && (self.plain | self.nearest) >> 29 != 0
    }
}

impl Weekdays {
    fn depend_on_month(&self) -> bool {
        self.last != 0 || self.nth != [0; 5]
    }

    /// `Fridays`, `Monday to Friday`, `the second Friday`.
    fn words(&self) -> String {
        let name = |day: u32| WEEKDAYS[day as usize].to_string();
        let mut all = ranges(self.plain.into(), name);
        for text in all.iter_mut().filter(|text| WEEKDAYS.contains(&text.as_str())) {
            text.push('s');
        }
        all.extend(self.placed());
        listed(&all, "and")
    }

    /// `a Friday`, `a Monday or a Friday`, `the second Friday`.
    fn condition(&self) -> String {
        let plain = values(self.plain.into()).into_iter().map(|day| format!("a {}", WEEKDAYS[day as usize]));
        listed(&plain.chain(self.placed()).collect::<Vec<_>>(), "or")
    }

    /// Those that have a place in their month.
    fn placed(&self) -> Vec<String> {
        let sets = self.nth.into_iter().zip(NTH).chain([(self.last, "last")]);
        let days = sets.flat_map(|(set, place)| {
            values(set.into()).into_iter().map(move |day| format!("the {place} {}", WEEKDAYS[day as usize]))
        });
        days.collect()
    }
}

fn values(set: u64) -> Vec<u32> {
    (0..64).filter(|value| set >> value & 1 == 1).collect()
}

/// `minute 30`, `minutes 0 and 30`, `hours 9 to 17`, `every 7th minute from 0 to 56`.
fn numbers(unit: &str, set: u64) -> String {
    let all = values(set);
    match step_between(&all.iter().map(|value| *value as u16).collect::<Vec<_>>()) {
        Some(step) if step > 1 && all.len() >= STEPPED_MIN => {
            format!("every {} {unit} from {} to {}", ordinal(step.into()), all[0], all[all.len() - 1])
        }
        _ => {
            let plural = if all.len() == 1 { "" } else { "s" };
            format!("{unit}{plural} {}", listed(&ranges(set, |value| value.to_string()), "and"))
        }
    }
}

/// The values of a set; three and more in a row as a range.
fn ranges(set: u64, name: impl Fn(u32) -> String) -> Vec<String> {
    rows(&values(set), name)
}

/// The same of values in order.
fn rows(all: &[u32], name: impl Fn(u32) -> String) -> Vec<String> {
    let mut texts = Vec::new();
    for run in all.chunk_by(|one, next| one + 1 == *next) {
        match run {
            [first, _, .., last] if run.len() >= 3 => {
                texts.push(format!("{} to {}", name(*first), name(*last)))
            }
            _ => texts.extend(run.iter().map(|value| name(*value))),
        }
    }
    texts
}

/// `1`, `1 and 2`, `1, 2 and 3`.
fn listed(texts: &[String], last_word: &str) -> String {
    match texts {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} {last_word} {last}", rest.join(", ")),
    }
}

/// The step of `0, 5, ... 55`: what goes on over the hour as it began.
fn step_of_sixty(set: u64) -> Option<u32> {
    let step = 60 / set.count_ones().max(1);
    ((2..60).contains(&step) && values(set) == (0..60).step_by(step as usize).collect::<Vec<_>>())
        .then_some(step)
}

/// The difference between each value and the next, if it is always the same.
fn step_between(values: &[u16]) -> Option<u16> {
    let step = values.get(1)? - values[0];
    values.windows(2).all(|pair| pair[1] - pair[0] == step).then_some(step)
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use super::super::Dialect;
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn field(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
        prop::sample::select(texts)
    }

    /// Few values, so that expressions of the same words would meet.
    fn small() -> impl Strategy<Value = String> {
        let times = ["0", "*", "5", "0,30", "*/30", "*/20", "0-59", "*/7", "1-3", "1,2,3", "0,7,14,21,28"];
        let days = ["*", "13", "31", "L", "LW", "15W", "13,L", "1-31", "*/2", "28-31", "?", "L,31"];
        let weekdays =
            ["*", "5", "+5", "FRI#2", "FRI#5", "5L", "1-5", "+1-5", "5,5#2", "0-6", "+FRI#2", "1#1,1"];
        let time = || prop::sample::select(times.to_vec());
        let hours = field(&["*", "0", "3", "0-23", "*/2", "*/12", "0,12", "9-17", "9,10"]);
        let months = field(&["*", "1", "2", "1-12", "JAN-MAR", "1,2,3", "4,6", "*/2"]);
        let years =
            field(&["*", "*", "2030", "1970-2100", "2030-2032", "2030,2031,2032", "2030,2040", "1-2200"]);
        let day = prop::sample::select(days.to_vec());
        let weekday = prop::sample::select(weekdays.to_vec());
        (time(), time(), hours, day, months, weekday, years).prop_map(|(s, m, h, d, mon, wd, y)| {
            // Where only days differ, sentences are most alike.
            let (s, m) = if d.len() + wd.len() > 5 { ("0", "0") } else { (s, m) };
            format!("{s} {m} {h} {d} {mon} {wd} {y}")
        })
    }

    #[test]
    fn many_years_have_few_words() {
        let words = |years: &str| {
            let pattern = Pattern::parse(&format!("0 0 9 * * * {years}"), Dialect::Crontab).unwrap();
            pattern.words()
        };
        assert_eq!(words("2027,2030-2199"), "at 09:00 every day in 2027 and 2030 to 2199");
        assert_eq!(words("2001-2199/2,2200"), "at 09:00 every day in 101 years from 2001 to 2200");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_reads_alike_is_the_same(expressions in prop::collection::vec(small(), 2_000)) {
            let mut read: HashMap<String, (String, Pattern)> = HashMap::new();
            for expression in expressions {
                let pattern = Pattern::parse(&expression, Dialect::Crontab).unwrap();
                let pattern = Pattern { any_hour: false, ..pattern };
                let words = pattern.words();
                if let Some((other, alike)) = read.get(&words) {
                    prop_assert_eq!(alike, &pattern, "`{}` and `{}` read `{}`", other, expression, words);
                } else {
                    read.insert(words, (expression, pattern));
                }
            }
        }
    }
}
