//! Schedules in words.

use Dialect::{Crontab, Quartz, Rust};
use innkeeper_domain::calendar::{CronSchedule, Dialect, Schedule};
use jiff::Timestamp;
use std::time::Duration;

#[test]
fn expressions_read_as_sentences() {
    for (expression, dialect, words) in [
        ("0 3 * * *", Crontab, "at 03:00 every day"),
        ("@daily", Quartz, "at 00:00 every day"),
        ("* * * * *", Crontab, "every minute"),
        ("*/5 * * * *", Crontab, "every 5 minutes"),
        ("*/7 * * * *", Crontab, "at every 7th minute from 0 to 56 of every hour"),
        ("* * * * * *", Crontab, "every second"),
        ("*/10 * 9-17 * * *", Crontab, "every 10 seconds in hours 9 to 17"),
        ("15 * * * * *", Crontab, "at second 15 of every minute"),
        ("*/20 30 * * * *", Crontab, "every 20 seconds in minute 30 of every hour"),
        ("30 * * * *", Crontab, "at minute 30 of every hour"),
        ("0 */2 * * *", Crontab, "at minute 0 of every 2nd hour from 0 to 22"),
        ("*/15 9-17 * * 1-5", Crontab, "every 15 minutes in hours 9 to 17 on Monday to Friday"),
        ("0 9 * * MON-FRI", Crontab, "at 09:00 on Monday to Friday"),
        ("0 9,17 * * 1,3,5", Crontab, "at 09:00 and 17:00 on Mondays, Wednesdays and Fridays"),
        ("0 0 12 ? * SUN", Quartz, "at 12:00 on Sundays"),
        ("30 0 12 ? * *", Quartz, "at 12:00:30 every day"),
        ("0 0 L * *", Crontab, "at 00:00 on the last day of every month"),
        ("0 0 LW * *", Crontab, "at 00:00 on the last Monday to Friday of every month"),
        ("0 0 15W * *", Crontab, "at 00:00 on the Monday to Friday nearest to the 15th of every month"),
        ("0 0 13 * 5", Crontab, "at 00:00 on day 13 of every month or on Fridays"),
        ("0 0 13 * +5", Crontab, "at 00:00 on day 13 of every month if it is a Friday"),
        (
            "0 0 0 13 * Fri,Mon",
            Rust,
            "at 00:00 on day 13 of every month if it is a Monday or a Friday until 2100",
        ),
        ("0 0 * * FRI#2", Crontab, "at 00:00 on the second Friday of every month"),
        ("0 0 * * FRI#5", Crontab, "at 00:00 on the fifth Friday of every month that has one"),
        ("0 0 * 3 SUNL", Crontab, "at 00:00 on the last Sunday of March"),
        ("0 0 1,15 JAN-MAR *", Crontab, "at 00:00 on days 1 and 15 of January to March"),
        ("0 0 31 * *", Crontab, "at 00:00 on day 31 of every month that has one"),
        ("0 0 * 6,7 *", Crontab, "at 00:00 in June and July"),
        ("0 0 13 1 5", Crontab, "at 00:00 on day 13 of January or on Fridays in January"),
        ("0 0 0 1 1 * 2030", Crontab, "at 00:00 on day 1 of January in 2030"),
        ("0 0 0 1 1 * 2030-2032,2040", Crontab, "at 00:00 on day 1 of January in 2030 to 2032 and 2040"),
        ("0 0 30 2 *", Crontab, "never: at 00:00 on day 30 of February where there is one"),
    ] {
        let read = Schedule::Cron(CronSchedule::new(expression, dialect, "Europe/Berlin")).words().unwrap();
        assert_eq!(read, format!("{words}, Europe/Berlin"), "{expression}");
    }
    let anchor = Timestamp::UNIX_EPOCH;
    let every = Schedule::Interval { every: Duration::from_secs(90), anchor };
    assert_eq!(every.words().unwrap(), "every 90s from 1970-01-01T00:00:00Z on");
    assert_eq!(Schedule::Once { at: anchor }.words().unwrap(), "once, at 1970-01-01T00:00:00Z");
}
