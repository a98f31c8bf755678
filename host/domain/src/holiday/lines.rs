//! Holidays as lines: a date, and after it a title if wanted; `#` begins a comment.

use super::{Day, Days, HolidayError, mistake, title};
use crate::limits::HOLIDAYS_PER_CALENDAR_MAX;
use std::collections::BTreeMap;

pub(super) fn read(text: &str) -> Result<Days, HolidayError> {
    let mut days = Days::new();
    let mut lines_of: BTreeMap<Day, usize> = BTreeMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        let content = without_comment(text).trim();
        if content.is_empty() {
            continue;
        }
        let (first, rest) = content.split_once(char::is_whitespace).unwrap_or((content, ""));
        let day: Day = first.parse().map_err(|error: super::DayError| mistake(line, error.to_string()))?;
        let title = title(rest, line)?;
        if let Some(before) = lines_of.insert(day, line) {
            return Err(mistake(line, format!("{day} is in line {before} already; delete one of them")));
        }
        if days.len() == HOLIDAYS_PER_CALENDAR_MAX {
            return Err(HolidayError::TooMany);
        }
        days.insert(day, title);
    }
    Ok(days)
}

/// What is before a `#` that begins a word.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let days = read(text).map_err(|error| error.to_string())?;
        Ok(days.into_iter().map(|(day, title)| format!("{day} {title}").trim().to_string()).collect())
    }

    #[test]
    fn a_date_a_line_with_a_title_and_comments() {
        let text = "# closed\n\n2026-12-26\tBoxing Day  # in England\r\n  2026-12-25 Christmas\n2026-05-01/yearly Labour Day\n2026-08-03 C#\n";
        assert_eq!(
            shown(text).unwrap(),
            [
                "2026-08-03 C#",
                "2026-12-25 Christmas",
                "2026-12-26 Boxing Day",
                "2026-05-01/yearly Labour Day"
            ]
        );
        assert_eq!(shown(""), Ok(vec![]));
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, why) in [
            (
                "2026-12-25\n25.12.2026 Christmas",
                "line 2: `25.12.2026` is not a date; write it as 2026-12-25",
            ),
            ("2026-02-30", "line 1: `2026-02-30` is not a date"),
            ("2026-12-25\n\n2026-12-25 again", "line 3: 2026-12-25 is in line 1 already"),
            (&format!("2026-12-25 {}", "x".repeat(300)), "line 1: the title has 300 characters"),
        ] {
            let error = shown(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let first = jiff::civil::Date::new(2026, 1, 1).unwrap();
        let series = first.series(jiff::Span::new().days(1));
        let text = |dates| series.clone().take(dates).map(|date| format!("{date}\n")).collect::<String>();
        assert_eq!(shown(&text(HOLIDAYS_PER_CALENDAR_MAX)).unwrap().len(), HOLIDAYS_PER_CALENDAR_MAX);
        assert_eq!(read(&text(HOLIDAYS_PER_CALENDAR_MAX + 1)), Err(HolidayError::TooMany));
    }
}
