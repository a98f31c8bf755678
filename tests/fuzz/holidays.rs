//! Files of holidays: iCalendar, and lines.

use crate::engine::{Input, Seen, Target, plain_words, same};
use crate::mutate::{Grow, bytes};
use crate::random::Random;
use innkeeper_domain::holiday::{Day, Holiday, HolidayDates, HolidayError, read};
use innkeeper_domain::limits::{HOLIDAY_TITLE_CHARS_MAX, HOLIDAYS_PER_CALENDAR_MAX};

pub struct Files;

const EXAMPLES: Grow = Grow {
    corpus: &[
        b"# closed\n2026-12-25 Christmas\n2026-05-01/yearly Labour Day\n2020-02-29/yearly/2028-02-29\n",
        b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20261225\r\nDTEND;VALUE=DATE:20261227\r\n\
          SUMMARY:Christmas\\, both days\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n",
        b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20200229\r\nRRULE:FREQ=YEARLY;UNTIL=20400101\r\n\
          EXDATE;VALUE=DATE:20240229\r\nSUMMARY;LANGUAGE=de:Ein sehr langer Tag\r\n  der weitergeht\r\nEND:VEVENT\r\n\
          END:VCALENDAR\r\n",
        b"BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:20260308T090000Z\nDURATION:P2D\nSUMMARY:x\nEND:VEVENT\nBEGIN:VEVENT\n\
          DTSTART;TZID=Europe/Berlin:20260309T090000\nRRULE:FREQ=YEARLY;COUNT=5\nSTATUS:CANCELLED\nEND:VEVENT\n\
          END:VCALENDAR\n",
    ],
    tokens: &[
        "BEGIN:VEVENT\n", "END:VEVENT\n", "BEGIN:VALARM\n", "END:VCALENDAR\n", "DTSTART:", "DTEND:", "DURATION:P", "P1D",
        "PT24H", "-P1W", "P99999999999D", "RRULE:FREQ=YEARLY", ";INTERVAL=", ";COUNT=", ";UNTIL=", ";BYMONTH=12",
        ";BYDAY=1MO", "FREQ=DAILY", "RDATE:", "EXDATE:", "VALUE=DATE", "TZID=", "\"", ";", ":", ",", "\\n", "\\", "\r\n ",
        "\r", "\n", "/yearly", "/", "-", "#", "20261225", "99991231", "00010101", "20260229", "T235960Z", "2026-12-25",
        "0000-01-01", "\u{feff}", "é", "\u{85}", "\0", "\x1b[31m",
    ],
};

impl Target for Files {
    fn make(&mut self, random: &mut Random) -> Input {
        vec![bytes(random, &EXAMPLES)]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let file = input.first().map_or(&[][..], Vec::as_slice);
        let holidays = match read(file) {
            Ok(holidays) => holidays,
            Err(error) => {
                same("reading it again", &Err(&error), &read(file).as_ref())?;
                let lines = String::from_utf8_lossy(file).lines().count();
                if matches!(error, HolidayError::Line { line, .. } if line == 0 || line > lines) {
                    return Err(format!("there are {lines} lines, and {error}"));
                }
                return plain_words(&error.to_string()).map(|()| Seen::Refused);
            }
        };
        same("reading it again", &Ok(&holidays), &read(file).as_ref())?;
        let stored = serde_json::to_string(&holidays).and_then(|json| serde_json::from_str(&json));
        same("what is stored of it", &holidays, &stored.map_err(|error| error.to_string())?)?;
        if holidays.is_empty() || holidays.len() > HOLIDAYS_PER_CALENDAR_MAX {
            return Err(format!("it has {} holidays", holidays.len()));
        }
        if let Some(pair) = holidays.windows(2).find(|pair| pair[0].day >= pair[1].day) {
            return Err(format!("out of order: {pair:?}"));
        }
        let dates = HolidayDates::of(&holidays);
        holidays.iter().try_for_each(|holiday| one(holiday, &dates)).map(|()| Seen::Taken)
    }
}

fn one(holiday: &Holiday, dates: &HolidayDates) -> Result<(), String> {
    let title = &holiday.title;
    if title.chars().count() > HOLIDAY_TITLE_CHARS_MAX || title.chars().any(char::is_control) {
        return Err(format!("a title is {title:?}"));
    }
    let (Day::On(first) | Day::Yearly { first, .. }) = holiday.day;
    if !dates.includes(first) {
        return Err(format!("{first} is no holiday by {}", holiday.day));
    }
    same("its day as text", &Ok(holiday.day), &holiday.day.to_string().parse())
}
