//! The fields of a cron expression: where each begins, what it is of, and what may stand in it.

use super::Dialect;

/// What a field is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
    Year,
}

const UNITS: [Unit; 7] =
    [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day, Unit::Month, Unit::Weekday, Unit::Year];

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// What the rust dialect knows beside these.
const MONTHS_LONG: [&str; 12] = [
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];
const WEEKDAYS_LONG: [&str; 7] =
    ["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];
const WEEKDAYS_HALF: [(&str, u32); 2] = [("TUES", 2), ("THURS", 4)];

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day of the month",
            Self::Month => "month",
            Self::Weekday => "day of the week",
            Self::Year => "year",
        }
    }

    /// The least and the greatest number that it may be.
    pub fn bounds(self, dialect: Dialect) -> (u32, u32) {
        match (self, dialect) {
            (Self::Second | Self::Minute, _) => (0, 59),
            (Self::Hour, _) => (0, 23),
            (Self::Day, _) => (1, 31),
            (Self::Month, _) => (1, 12),
            (Self::Weekday, Dialect::Crontab) => (0, 7),
            (Self::Weekday, _) => (1, 7),
            (Self::Year, Dialect::Rust) => (1970, 2100),
            (Self::Year, _) => (1, 5000),
        }
    }

    /// The largest step: one as large as the field has values says what it is; one that is larger can't.
    pub fn step_max(self, dialect: Dialect) -> u32 {
        match (self, dialect) {
            (Self::Weekday, _) => 7,
            (_, Dialect::Rust) => self.bounds(dialect).1,
            (Self::Second | Self::Minute | Self::Hour, _) => self.bounds(dialect).1 + 1,
            (_, _) => self.bounds(dialect).1,
        }
    }

    /// Names for its numbers.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => &MONTHS,
            Self::Weekday => &WEEKDAYS,
            _ => &[],
        }
    }

    /// The number that a name stands for.
    pub fn number(self, name: &str, dialect: Dialect) -> Option<u32> {
        let find = |names: &[&str]| names.iter().position(|known| name.eq_ignore_ascii_case(known));
        let long: &[&str] = match (self, dialect) {
            (Self::Month, Dialect::Rust) => &MONTHS_LONG,
            (Self::Weekday, Dialect::Rust) => &WEEKDAYS_LONG,
            _ => &[],
        };
        let half = || {
            let known = WEEKDAYS_HALF.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))?;
            (self == Self::Weekday && dialect == Dialect::Rust).then_some(known.1)
        };
        let position = find(self.names()).or_else(|| find(long)).map(|position| position as u32);
        let sunday_is_one = self == Self::Weekday && dialect != Dialect::Crontab;
        position.or_else(half).map(|at| at + u32::from(self == Self::Month || sunday_is_one))
    }

    /// Whether `?` may stand for `*`.
    pub fn may_be_any(self) -> bool {
        matches!(self, Self::Day | Self::Weekday)
    }
}

/// A field as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub unit: Unit,
    pub text: &'a str,
    /// Which field it is, from 1.
    pub number: usize,
    /// Where it begins, in characters from 0.
    pub start: usize,
}

/// The fields of an expression in ASCII; an error says that there are too many, or not enough.
pub fn fields(expression: &str, dialect: Dialect) -> Result<Vec<Field<'_>>, String> {
    let texts = match dialect {
        Dialect::Crontab | Dialect::Quartz => words(expression),
        Dialect::Rust => operands(expression),
    };
    let (units, needed) = match (dialect, texts.len()) {
        (Dialect::Crontab, 5) => (&UNITS[1..6], ""),
        (_, 6) => (&UNITS[..6], ""),
        (_, 7) => (&UNITS[..], ""),
        (Dialect::Crontab, _) => {
            (&UNITS[..0], "5 are needed, and a second before and a year after them are possible")
        }
        (_, _) => (&UNITS[..0], "6 are needed, the second first, and a year after them is possible"),
    };
    if units.is_empty() {
        let found = match texts.len() {
            1 => "1 field".to_string(),
            count => format!("{count} fields"),
        };
        return Err(format!("it has {found}; {needed}"));
    }
    let fields = texts.into_iter().zip(units).zip(1..);
    Ok(fields.map(|(((start, text), unit), number)| Field { unit: *unit, text, number, start }).collect())
}

/// Fields with white space between them.
fn words(expression: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in expression.char_indices().chain([(expression.len(), ' ')]) {
        match start {
            Some(begun) if c.is_whitespace() => {
                found.push((begun, &expression[begun..at]));
                start = None;
            }
            None if !c.is_whitespace() => start = Some(at),
            _ => {}
        }
    }
    found
}

/// Fields as the crate `cron` tells them apart: one ends where two numbers, names or stars follow each other with
/// neither `,` nor `-` nor `/` between them, whatever the white space.
fn operands(expression: &str) -> Vec<(usize, &str)> {
    #[derive(PartialEq, Clone, Copy)]
    enum Token {
        Number,
        Name,
        Star,
        Other,
    }
    let mut found = Vec::new();
    // The field that has begun, the end of its last token, that token, and whether white space came since.
    let mut begun: Option<(usize, usize, Token)> = None;
    let mut apart = true;
    for (at, c) in expression.char_indices() {
        let token = match c {
            '0'..='9' => Token::Number,
            'a'..='z' | 'A'..='Z' => Token::Name,
            '*' | '?' => Token::Star,
            _ if c.is_whitespace() => {
                apart = true;
                continue;
            }
            _ => Token::Other,
        };
        begun = Some(match begun {
            None => (at, at + 1, token),
            Some((start, end, last)) => {
                let goes_on = last == Token::Other
                    || token == Token::Other
                    || last == token && token != Token::Star && !apart;
                if goes_on {
                    (start, at + 1, token)
                } else {
                    found.push((start, &expression[start..end]));
                    (at, at + 1, token)
                }
            }
        });
        apart = false;
    }
    found.extend(begun.map(|(start, end, _)| (start, &expression[start..end])));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_begin_where_they_do() {
        let split = |text: &str, dialect| -> Vec<(usize, String)> {
            let fields = fields(text, dialect).unwrap();
            fields.into_iter().map(|field| (field.start, field.text.to_string())).collect()
        };
        let of = |parts: &[(usize, &str)]| -> Vec<(usize, String)> {
            parts.iter().map(|(start, text)| (*start, text.to_string())).collect()
        };
        assert_eq!(
            split(" 0  3 *\t* 1-5", Dialect::Crontab),
            of(&[(1, "0"), (4, "3"), (6, "*"), (8, "*"), (10, "1-5")])
        );
        let glued = of(&[(0, "0"), (2, "1 , 2"), (8, "*/ 5"), (12, "*"), (13, "*"), (15, "MON - FRI")]);
        assert_eq!(split("0 1 , 2 */ 5** MON - FRI", Dialect::Rust), glued);
    }

    #[test]
    fn names_stand_for_the_numbers_of_their_dialect() {
        assert_eq!(Unit::Weekday.number("sun", Dialect::Crontab), Some(0));
        assert_eq!(Unit::Weekday.number("SUN", Dialect::Quartz), Some(1));
        assert_eq!(Unit::Weekday.number("thurs", Dialect::Rust), Some(5));
        assert_eq!(Unit::Weekday.number("Friday", Dialect::Crontab), None);
        assert_eq!(Unit::Month.number("december", Dialect::Rust), Some(12));
        assert_eq!(Unit::Month.number("Tues", Dialect::Rust), None);
    }
}
