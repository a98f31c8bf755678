//! Holidays as iCalendar (RFC 5545): events of whole days, some of them yearly. What would need more than that is
//! refused rather than guessed at.

use super::{Day, Days, HolidayError, mistake, title};
use crate::limits::{HOLIDAY_DATES_READ_MAX, HOLIDAY_TITLE_CHARS_MAX, HOLIDAYS_PER_CALENDAR_MAX};
use jiff::civil::Date;
use std::collections::BTreeMap;

pub(super) fn read(text: &str) -> Result<Days, HolidayError> {
    let mut days = Days::new();
    // The components that have begun, each with its line.
    let mut open: Vec<(String, usize)> = Vec::new();
    let mut event = Event::default();
    let mut gone_through = 0;
    for (line, text) in unfolded(text)? {
        if text.trim().is_empty() {
            continue;
        }
        let property = Property::read(&text, line)?;
        let component = property.value.trim().to_ascii_uppercase();
        match property.name.as_str() {
            "BEGIN" => {
                if open.is_empty() != (component == "VCALENDAR") {
                    return Err(mistake(
                        line,
                        "BEGIN:VCALENDAR is where a calendar begins, and nowhere else",
                    ));
                }
                if is_event(&open, &component) {
                    event = Event { line, ..Event::default() };
                }
                open.push((component, line));
            }
            "END" => match open.pop() {
                Some((begun, _)) if begun == component => {
                    if is_event(&open, &begun) {
                        std::mem::take(&mut event).put(&mut days, &mut gone_through)?;
                    }
                }
                Some((begun, at)) => {
                    let why =
                        format!("END:{component} comes before the END:{begun} of the BEGIN in line {at}");
                    return Err(mistake(line, why));
                }
                None => return Err(mistake(line, format!("END:{component} has no BEGIN:{component}"))),
            },
            _ => match open.as_slice() {
                [] => return Err(mistake(line, "this is after the calendar's end")),
                [outer @ .., (inner, _)] if is_event(outer, inner) => event.add(property)?,
                // The calendar's own properties, alarms, to-dos, zones: they make no holidays.
                _ => {}
            },
        }
    }
    match open.pop() {
        Some((component, line)) => {
            Err(mistake(line, format!("BEGIN:{component} has no END:{component}; the file was cut off")))
        }
        None => Ok(days),
    }
}

fn is_event(outer: &[(String, usize)], inner: &str) -> bool {
    outer.len() == 1 && inner == "VEVENT"
}

/// The lines with those that go on with a space put together, each with where it begins.
fn unfolded(text: &str) -> Result<Vec<(usize, String)>, HolidayError> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix([' ', '\t']), lines.last_mut()) {
            (None, _) => lines.push((number, line.into())),
            (Some(rest), Some((_, last))) => last.push_str(rest),
            (Some(rest), None) if rest.trim().is_empty() => {}
            (Some(_), None) => return Err(mistake(number, "the first line begins with a space")),
        }
    }
    Ok(lines)
}

/// `NAME;PARAMETER=VALUE:value`.
struct Property {
    line: usize,
    /// In capitals.
    name: String,
    parameters: String,
    value: String,
}

impl Property {
    fn read(text: &str, line: usize) -> Result<Self, HolidayError> {
        let mut quoted = false;
        let colon = text.char_indices().find(|(_, c)| {
            quoted ^= *c == '"';
            *c == ':' && !quoted
        });
        let Some((colon, _)) = colon else {
            let shown: String = text.chars().take(40).collect();
            return Err(mistake(line, format!("`{shown}` has no colon; is this an .ics file, and whole?")));
        };
        let (head, value) = (&text[..colon], &text[colon + 1..]);
        let (name, parameters) = head.split_once(';').unwrap_or((head, ""));
        Ok(Self {
            line,
            name: name.trim().to_ascii_uppercase(),
            parameters: parameters.to_ascii_uppercase(),
            value: value.into(),
        })
    }

    /// `20261225`.
    fn date(&self) -> Result<Date, HolidayError> {
        let Self { line, name, .. } = self;
        let value = self.value.trim();
        let is_time = value.contains(['T', 't']) || self.parameters.contains("VALUE=DATE-TIME");
        if is_time {
            return Err(mistake(
                *line,
                format!(
                    "this {name} has a time of day; holidays are whole days, written \
                     `{name};VALUE=DATE:20261225`: change the event or delete it"
                ),
            ));
        }
        basic_date(value).ok_or_else(|| {
            mistake(*line, format!("this {name} is not a date; write `{name};VALUE=DATE:20261225`"))
        })
    }
}

fn basic_date(text: &str) -> Option<Date> {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Date::new(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?).ok()
}

/// An event, as far as it has been read.
#[derive(Default)]
struct Event {
    line: usize,
    /// Those that matter here, by name.
    properties: BTreeMap<String, Property>,
}

impl Event {
    fn add(&mut self, property: Property) -> Result<(), HolidayError> {
        let matters = [
            "DTSTART",
            "DTEND",
            "DURATION",
            "SUMMARY",
            "STATUS",
            "RRULE",
            "RDATE",
            "EXRULE",
            "EXDATE",
            "RECURRENCE-ID",
        ];
        if !matters.contains(&property.name.as_str()) {
            return Ok(());
        }
        let (line, name) = (property.line, property.name.clone());
        match self.properties.insert(name.clone(), property) {
            // These may come several times; the first is reason enough to refuse the event.
            Some(_) if !["RDATE", "EXDATE"].contains(&name.as_str()) => {
                Err(mistake(line, format!("the event has a second {name}; delete one of them")))
            }
            _ => Ok(()),
        }
    }

    /// Adds its days; `gone_through` counts the days of all events, known or not.
    fn put(self, days: &mut Days, gone_through: &mut usize) -> Result<(), HolidayError> {
        let get = |name: &str| self.properties.get(name);
        // A cancelled exception leaves a day out of its event, so that it can't be passed by.
        if let Some(other) = ["RDATE", "EXRULE", "EXDATE", "RECURRENCE-ID"].into_iter().find_map(get) {
            let why = format!("{} is not understood here; write the event's dates one by one", other.name);
            return Err(mistake(other.line, why));
        }
        if get("STATUS").is_some_and(|status| status.value.trim().eq_ignore_ascii_case("CANCELLED")) {
            return Ok(());
        }
        let start = get("DTSTART").ok_or_else(|| mistake(self.line, "the event has no DTSTART"))?;
        let (line, first) = (start.line, start.date()?);
        let last = self.last(first)?;
        let rule = get("RRULE").map(|rule| Yearly::read(rule, first)).transpose()?;
        let title = match get("SUMMARY") {
            Some(summary) => title(&unescaped(&summary.value), summary.line)?,
            None => String::new(),
        };
        let mut date = first;
        loop {
            let day = match &rule {
                None => Day::On(date),
                Some(rule) => rule.day(first, date).ok_or_else(|| {
                    mistake(
                        line,
                        "a yearly event of several days has the 29th of February in it, or beside it; \
                        write its days one by one",
                    )
                })?,
            };
            *gone_through += 1;
            if *gone_through > HOLIDAY_DATES_READ_MAX {
                return Err(HolidayError::TooMany);
            }
            add(days, day, &title)?;
            if date == last {
                return Ok(());
            }
            date = date.tomorrow().map_err(|_| mistake(line, "the event goes beyond the year 9999"))?;
        }
    }

    /// The event's last day.
    fn last(&self, first: Date) -> Result<Date, HolidayError> {
        let (end, duration) = (self.properties.get("DTEND"), self.properties.get("DURATION"));
        match (end, duration) {
            (None, None) => Ok(first),
            (Some(end), _) => match end.date()? {
                // Strictly it would be the day after, but some programs write it so.
                date if date == first => Ok(first),
                date if date > first => Ok(date.yesterday().unwrap_or(first)),
                _ => {
                    Err(mistake(end.line, "the event ends before it begins; DTEND is the day after its last"))
                }
            },
            (None, Some(duration)) => {
                let days = whole_days(duration.value.trim()).ok_or_else(|| {
                    mistake(
                        duration.line,
                        "a holiday's DURATION is in whole days or weeks, such as P1D or P2W",
                    )
                })?;
                let last = first.checked_add(jiff::Span::new().days(days - 1));
                last.map_err(|_| mistake(duration.line, "the event goes beyond the year 9999"))
            }
        }
    }
}

/// `P2D`, `P1W`.
fn whole_days(text: &str) -> Option<i64> {
    let count = text.strip_prefix('P')?;
    let (digits, each) = match (count.strip_suffix('D'), count.strip_suffix('W')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 7),
        (None, None) => return None,
    };
    let count: i64 = digits.parse().ok()?;
    (1..=10_000).contains(&count).then_some(count * each)
}

/// Adds a day; one that is there already has both titles.
fn add(days: &mut Days, day: Day, title: &str) -> Result<(), HolidayError> {
    if let Some(known) = days.get_mut(&day) {
        let both = known.chars().count() + title.chars().count() + 2;
        if !title.is_empty() && known.split(", ").all(|one| one != title) && both <= HOLIDAY_TITLE_CHARS_MAX {
            let comma = if known.is_empty() { "" } else { ", " };
            *known = format!("{known}{comma}{title}");
        }
        return Ok(());
    }
    if days.len() == HOLIDAYS_PER_CALENDAR_MAX {
        return Err(HolidayError::TooMany);
    }
    days.insert(day, title.into());
    Ok(())
}

/// Once a year, on the date that an event begins on.
struct Yearly {
    /// No beginning is later.
    until: Option<Date>,
}

impl Yearly {
    fn read(rule: &Property, first: Date) -> Result<Self, HolidayError> {
        let refused = || {
            let shown: String =
                rule.value.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
            let why = format!(
                "`RRULE:{shown}` is not understood here: only once a year on the date of DTSTART is \
                 (`RRULE:FREQ=YEARLY`); write the dates one by one"
            );
            mistake(rule.line, why)
        };
        let mut yearly = false;
        let mut until = None;
        for part in rule.value.trim().split(';').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(refused)?;
            let number = value.parse::<i16>();
            match name.to_ascii_uppercase().as_str() {
                "FREQ" if value.eq_ignore_ascii_case("YEARLY") => yearly = true,
                "INTERVAL" if number == Ok(1) => {}
                "BYMONTH" if number == Ok(first.month().into()) => {}
                "BYMONTHDAY" if number == Ok(first.day().into()) => {}
                "WKST" => {}
                "UNTIL" if until.is_none() => {
                    // A time of day after it is of the same date.
                    until = Some(value.get(..8).and_then(basic_date).ok_or_else(refused)?);
                }
                // Of a date that most years don't have, years are not what is counted.
                "COUNT" if until.is_none() && (first.month(), first.day()) != (2, 29) => {
                    let years = number.ok().filter(|count| *count > 0).ok_or_else(refused)? - 1;
                    let year = first.year().checked_add(years).ok_or_else(refused)?;
                    until = Some(Date::new(year, first.month(), first.day()).map_err(|_| refused())?);
                }
                _ => return Err(refused()),
            }
        }
        if !yearly || until.is_some_and(|until| until < first) {
            return Err(refused());
        }
        Ok(Self { until })
    }

    /// The yearly day that is as long after the beginning as `date` is after the first one; none if it isn't the same
    /// date in every year.
    fn day(&self, first: Date, date: Date) -> Option<Day> {
        if date != first && [(2, 29), (3, 1)].contains(&(date.month(), date.day())) {
            return None;
        }
        let last = self.until.and_then(|until| until.checked_add(date - first).ok());
        Some(Day::Yearly { first: date, last })
    }
}

/// `\,`, `\;`, `\\` and `\n`.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n' | 'N') => plain.push(' '),
                Some(escaped) => plain.push(escaped),
                None => {}
            },
            (c, false) => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_components_are_quoted_without_harm() {
        let error = read("BEGIN:VCALENDAR\nBEGIN:\x1b[2J").unwrap_err().to_string();
        assert!(error.contains("BEGIN: [2J has no END"), "{error}");
    }

    /// A calendar with these lines as events.
    fn shown(events: &[&str]) -> Result<Vec<String>, String> {
        let events: String =
            events.iter().map(|event| format!("BEGIN:VEVENT\r\n{event}\r\nEND:VEVENT\r\n")).collect();
        let text = format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\n{events}END:VCALENDAR\r\n");
        told(&text)
    }

    fn told(text: &str) -> Result<Vec<String>, String> {
        let days = read(text).map_err(|error| error.to_string())?;
        Ok(days.into_iter().map(|(day, title)| format!("{day} {title}").trim().to_string()).collect())
    }

    #[test]
    fn whole_days_and_several() {
        let christmas =
            "DTSTART;VALUE=DATE:20261225\r\nDTEND;VALUE=DATE:20261227\r\nSUMMARY:Christmas\\, and\r\n  more";
        assert_eq!(
            shown(&[christmas]).unwrap(),
            ["2026-12-25 Christmas, and more", "2026-12-26 Christmas, and more"]
        );
        assert_eq!(shown(&["DTSTART:20261231\nDURATION:P2D"]).unwrap(), ["2026-12-31", "2027-01-01"]);
        assert_eq!(shown(&["DTSTART:20261225\nDTEND:20261225"]).unwrap(), ["2026-12-25"]);
        assert_eq!(shown(&["DTSTART:20261201\nDURATION:P1W"]).unwrap().len(), 7);
        assert_eq!(shown(&[]), Ok(vec![]));
        assert_eq!(shown(&["DTSTART:20261225\nSTATUS:CANCELLED"]), Ok(vec![]));
    }

    #[test]
    fn several_events_of_a_day_are_one_holiday() {
        let event = |title: &str| format!("DTSTART;VALUE=DATE:20261225\nSUMMARY;LANGUAGE=en:{title}");
        let [a, b, again] = ["A", "B", "A"].map(event);
        assert_eq!(shown(&[&a, &b, &again, "DTSTART:20261225"]).unwrap(), ["2026-12-25 A, B"]);
    }

    #[test]
    fn once_a_year() {
        let event = |rule: &str| {
            shown(&[&format!("DTSTART;VALUE=DATE:20201231\nDTEND;VALUE=DATE:20210102\nRRULE:{rule}")])
        };
        assert_eq!(event("FREQ=YEARLY").unwrap(), ["2020-12-31/yearly", "2021-01-01/yearly"]);
        let until = ["2020-12-31/yearly/2022-12-31", "2021-01-01/yearly/2023-01-01"];
        for same in [
            "FREQ=YEARLY;COUNT=3",
            "freq=yearly;UNTIL=20221231",
            "FREQ=YEARLY;UNTIL=20221231T235959Z;BYMONTH=12;BYMONTHDAY=31;INTERVAL=1;WKST=MO",
        ] {
            assert_eq!(event(same).unwrap(), until, "{same}");
        }
        for other in [
            "FREQ=MONTHLY",
            "FREQ=YEARLY;INTERVAL=2",
            "FREQ=YEARLY;BYMONTH=11;BYDAY=4TH",
            "FREQ=YEARLY;BYMONTHDAY=30",
            "COUNT=3",
            "FREQ=YEARLY;UNTIL=20201230",
            "FREQ=YEARLY;COUNT=0",
            "nonsense",
            "FREQ=YEARLY;COUNT=9999",
        ] {
            let error = event(other).unwrap_err();
            assert!(error.starts_with("line 6: `RRULE:") && error.contains("one by one"), "{other}: {error}");
        }
        let leap = |rule: &str| shown(&[&format!("DTSTART:20240229\nRRULE:{rule}")]);
        assert_eq!(leap("FREQ=YEARLY").unwrap(), ["2024-02-29/yearly"]);
        assert!(leap("FREQ=YEARLY;COUNT=2").is_err());
        let february = shown(&["DTSTART:20240228\nDURATION:P2D\nRRULE:FREQ=YEARLY"]).unwrap_err();
        assert!(february.contains("29th of February"), "{february}");
    }

    #[test]
    fn what_is_beside_the_events_makes_no_holiday() {
        let text = "BEGIN:VCALENDAR\nX-WR-CALNAME:Name: with a colon\nBEGIN:VTIMEZONE\nBEGIN:STANDARD\nDTSTART:19961027T030000\n\
            RRULE:FREQ=YEARLY;BYDAY=-1SU;BYMONTH=10\nEND:STANDARD\nEND:VTIMEZONE\nBEGIN:VEVENT\n\
            DTSTART;X-A=\"a:b\";VALUE=DATE:20261225\nBEGIN:VALARM\nDURATION:PT5M\nEND:VALARM\nEND:VEVENT\n\
            BEGIN:VTODO\nDTSTART:20260101\nEND:VTODO\nEND:VCALENDAR\n";
        assert_eq!(told(text).unwrap(), ["2026-12-25"]);
    }

    #[test]
    fn mistakes_have_their_line() {
        for (text, why) in [
            ("DTSTART:20261225T090000Z", "line 4: this DTSTART has a time of day"),
            ("DTSTART;VALUE=DATE:2026-12-25", "line 4: this DTSTART is not a date"),
            ("SUMMARY:Christmas", "line 3: the event has no DTSTART"),
            ("DTSTART:20261225\nDTEND:20261224", "line 5: the event ends before it begins"),
            ("DTSTART:20261225\nDURATION:PT24H", "line 5: a holiday's DURATION is in whole days"),
            ("DTSTART:20261225\nDTSTART:20261226", "line 5: the event has a second DTSTART"),
            ("DTSTART:20261225\nEXDATE:20271225\nRRULE:FREQ=YEARLY", "line 5: EXDATE is not understood"),
            (
                "DTSTART:20271225\nRECURRENCE-ID:20271225\nSTATUS:CANCELLED",
                "line 5: RECURRENCE-ID is not understood",
            ),
            ("DTSTART:20261225\nnonsense", "line 5: `nonsense` has no colon"),
        ] {
            let error = shown(&[text]).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        for (text, why) in [
            ("BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20261225\n", "line 2: BEGIN:VEVENT has no END:VEVENT"),
            ("BEGIN:VEVENT\nEND:VEVENT", "line 1: BEGIN:VCALENDAR is where"),
            (
                "BEGIN:VCALENDAR\nBEGIN:VEVENT\nEND:VCALENDAR",
                "line 3: END:VCALENDAR comes before the END:VEVENT of the BEGIN in line 2",
            ),
            ("BEGIN:VCALENDAR\nEND:VCALENDAR\nEND:VCALENDAR", "line 3: END:VCALENDAR has no BEGIN"),
            ("BEGIN:VCALENDAR\nEND:VCALENDAR\nX:1", "line 3: this is after"),
        ] {
            let error = told(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let century = shown(&["DTSTART:20260101\nDTEND:21260101"]);
        assert!(century.unwrap_err().contains("more than 2000 dates"));
    }
}
