//! Mistakes in expressions: each is told with its place, and none is a panic.

use crate::generate::{DIALECTS, noise, scrambled};
use crate::library::Library;
use crate::random::{Random, first_seed};
use Dialect::{Crontab, Quartz, Rust};
use innkeeper_domain::calendar::{CronSchedule, Dialect, Schedule, ScheduleError};

fn why(expression: &str, dialect: Dialect) -> Option<String> {
    match Schedule::Cron(CronSchedule::new(expression, dialect, "UTC")).calendar() {
        Ok(_) => None,
        Err(ScheduleError::Cron { why, .. }) => Some(why),
        Err(other) => panic!("`{expression}`: {other}"),
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    const MINUTES: &str = "0 to 59 are possible";
    for (expression, dialect, told) in [
        ("10,61 * * * *", Crontab, format!("the minute (field 1, character 4): `61` is out of range; {MINUTES}")),
        ("0 22-2 * * *", Crontab, "the hour (field 2, character 3): `22-2` goes backwards; write `22-23,0-2`".into()),
        ("0 0 * * FRI-MON", Crontab, "the day of the week (field 5, character 9): `FRI-MON` goes backwards; write `FRI-SAT,SUN-MON`".into()),
        ("0 0 0 ? * SAT-TUE", Quartz, "the day of the week (field 6, character 11): `SAT-TUE` goes backwards; write `SAT,SUN-TUE`".into()),
        ("0 0 * 11-2 *", Crontab, "the month (field 4, character 7): `11-2` goes backwards; write `11-12,1-2`".into()),
        ("MON, * * * *", Crontab, format!("the minute (field 1, character 1): `MON` is not a number; {MINUTES}")),
        ("0 0 * * MON,", Crontab, "the day of the week (field 5, character 13): there is a comma with nothing beside it".into()),
        ("0 0 * * ,MON", Crontab, "the day of the week (field 5, character 9): there is a comma with nothing beside it".into()),
        ("1,,2 * * * *", Crontab, "the minute (field 1, character 3): there is a comma with nothing beside it".into()),
        ("0 0 0 1 , , 2 * *", Rust, "the day of the month (field 4, character 10): there is a comma with nothing beside it".into()),
        ("*/0 * * * *", Crontab, "the minute (field 1, character 3): `0` is out of range; 1 to 60 are possible".into()),
        ("*/99 * * * *", Crontab, "the minute (field 1, character 3): `99` is out of range; 1 to 60 are possible".into()),
        ("5- * * * *", Crontab, "the minute (field 1, character 1): `5-` is a range with one end; write both".into()),
        ("-5 * * * *", Crontab, "the minute (field 1, character 1): `-5` is a range with one end; write both".into()),
        ("a * * * *", Crontab, format!("the minute (field 1, character 1): `a` is not a number; {MINUTES}")),
        ("5x * * * *", Crontab, format!("the minute (field 1, character 1): `5x` is not a number; {MINUTES}")),
        ("5/10 * * * *", Crontab, "the minute (field 1, character 1): `5/10` has a step but no range; write `5-59/10`".into()),
        ("/10 * * * *", Crontab, "the minute (field 1, character 1): `/10` has nothing before the `/`; write `*/10`".into()),
        ("*,5 * * * *", Crontab, "the minute (field 1, character 1): `*` is all there is, and can't be in a list".into()),
        ("0 0 * MOND *", Crontab, "the month (field 4, character 7): `MOND` is not known; 1 to 12, and JAN, FEB, MAR, APR, MAY, JUN, JUL, AUG, SEP, OCT, NOV, DEC are possible".into()),
        ("0 0 * JAN-FOO *", Crontab, "the month (field 4, character 11): `FOO` is not known; 1 to 12, and JAN, FEB, MAR, APR, MAY, JUN, JUL, AUG, SEP, OCT, NOV, DEC are possible".into()),
        ("0 0 * * Friday", Crontab, "the day of the week (field 5, character 9): `Friday` is not known; 0 to 7, and SUN, MON, TUE, WED, THU, FRI, SAT are possible".into()),
        ("0 0 * * FRI#6", Crontab, "the day of the week (field 5, character 13): `6` is out of range; 1 to 5 are possible".into()),
        ("0 0 32 * *", Crontab, "the day of the month (field 3, character 5): `32` is out of range; 1 to 31 are possible".into()),
        ("0 0 0 * *", Crontab, "the day of the month (field 3, character 5): `0` is out of range; 1 to 31 are possible".into()),
        ("0 0 0 ? * 0", Quartz, "the day of the week (field 6, character 11): `0` is out of range; 1 to 7 are possible".into()),
        ("0 0 * * 8", Crontab, "the day of the week (field 5, character 9): `8` is out of range; 0 to 7 are possible".into()),
        ("L * * * *", Crontab, format!("the minute (field 1, character 1): `L` has no meaning here; {MINUTES}")),
        ("0 0 * * L", Crontab, "the day of the week (field 5, character 9): `L` has no day before it; write one as in `5L`".into()),
        ("0 0 W * *", Crontab, "the day of the month (field 3, character 5): `W` has no day before it; write one as in `15W`, or `LW`".into()),
        ("0 0 L-3 * *", Crontab, "the day of the month (field 3, character 5): `L-3` is not known; `L`, `LW` and `15W`, say, are".into()),
        ("0 0 0 L * *", Rust, "the day of the month (field 4, character 7): `L` is not in the rust dialect, but in crontab and quartz".into()),
        ("0 0 ? ? * MON", Quartz, "the hour (field 3, character 5): `?` is possible only as the day of the month and the day of the week; write `*`".into()),
        ("* * * *", Crontab, "it has 4 fields; 5 are needed, and a second before and a year after them are possible".into()),
        ("* * * * *", Quartz, "it has 5 fields; 6 are needed, the second first, and a year after them is possible".into()),
        ("* * * * * * * *", Rust, "it has 8 fields; 6 are needed, the second first, and a year after them is possible".into()),
        ("@hourlyy", Crontab, "`@hourlyy` (character 1) is not known; known are: @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly".into()),
        ("@every 90s", Crontab, "`@every` is an interval and no cron expression; write `--every 90s`".into()),
        ("@reboot", Quartz, "`@reboot` is no time, and tasks outlive their host; write an interval, as `--every 90s`".into()),
        ("@daily 5", Rust, "`@daily` stands for all fields, and nothing can follow it".into()),
        ("TZ=Europe/Berlin", Crontab, "after the time zone an expression is needed, as in `TZ=Europe/Berlin 0 3 * * *`".into()),
        ("", Crontab, "it is empty; every minute, say, is `* * * * *`".into()),
        ("0 0 * * M\u{d6}N", Crontab, "character 10 is `\u{d6}`; letters, digits and signs of ASCII are possible".into()),
        ("0 0\0* * *", Crontab, "character 4 is a control character; letters, digits and signs of ASCII are possible".into()),
    ] {
        assert_eq!(why(expression, dialect).as_deref(), Some(told.as_str()), "`{expression}` ({dialect})");
    }
    let long = "0 ".repeat(200);
    assert_eq!(why(&long, Crontab).as_deref(), Some("it is longer than 256 characters"));
}

#[test]
fn what_the_libraries_read_is_still_read() {
    for (expression, dialect) in [
        ("0 9 LW JAN-MAR MON#1,FRI", Crontab),
        ("0 9 ? * ?", Crontab),
        ("0 9 ?/2 * fri-sun/2#1", Crontab),
        ("0 0 0 * * 1", Quartz),
        ("0 0 0 ? * ?", Quartz),
        ("*/60 */24 */31 */12 */7", Crontab),
        ("007 0 * * MON-5", Crontab),
        ("0\t0\n*  * *", Crontab),
        ("0 0 0 1 , 2 Jan - March Tues", Rust),
        ("0 0 0 ?/5 * mon-fri/2 1970/30", Rust),
        ("******", Rust),
        ("0 0 0 *,5 * *", Rust),
    ] {
        assert!(
            Library::read(expression, dialect).is_some(),
            "`{expression}` is read no longer by its library"
        );
        assert_eq!(why(expression, dialect), None, "`{expression}` ({dialect})");
    }
}

#[test]
fn zones_that_are_none_are_told_with_what_was_meant() {
    let zone = |expression: &str| {
        let schedule = Schedule::Cron(CronSchedule::new(expression, Crontab, "UTC"));
        schedule.calendar().unwrap_err().to_string()
    };
    let berlin = "`Europe/Berln` is not a time zone; did you mean Europe/Berlin?";
    assert_eq!(zone("CRON_TZ=Europe/Berln 0 3 * * *"), berlin);
    assert_eq!(zone("TZ=Europe/Berln 0 3 * * *"), berlin);
}

/// What we refuse and the libraries take, since nobody can mean it; each with a word of what it is.
fn stricter(why: &str) -> Option<&'static str> {
    [
        ("a comma with nothing", "an empty item, which croner skips"),
        ("is not known; ", "a name of another field, for which croner puts in its number"),
        ("is not a number; ", "a name glued to a number, or a letter that croner skips, after a W say"),
        ("are possible", "a step beyond the field, and numbers that croner makes of such names"),
        ("`L` has no day before it", "an L that croner takes for no day at all"),
        ("a number is missing", "a + with nothing after it"),
    ]
    .into_iter()
    .find(|(told, _)| why.contains(told))
    .map(|(_, rule)| rule)
}

#[test]
fn what_is_refused_is_refused_by_the_library_or_by_a_rule_of_ours() {
    let seed = first_seed();
    println!("INN_SEED={seed}");
    let mut random = Random::new(seed);
    let (mut passed_on, mut read, mut stricter_than) = (0, 0, 0);
    for case in 0..60_000 {
        let dialect = DIALECTS[case % 3];
        let expression = if case % 10 == 0 { noise(&mut random) } else { scrambled(&mut random, dialect) };
        let expression = expression.trim();
        let library = Library::read(expression, dialect).is_some();
        match why(expression, dialect) {
            None if expression.starts_with('@') => {}
            None => {
                assert!(library, "`{expression}` ({dialect}) is read, and not by its library");
                read += 1;
            }
            Some(why) if library => {
                assert!(dialect != Rust, "`{expression}` ({dialect}): {why}");
                assert!(stricter(&why).is_some(), "`{expression}` ({dialect}): {why}");
                stricter_than += 1;
            }
            Some(why) => passed_on += usize::from(!is_ours(&why)),
        }
    }
    assert!(read > 2_000, "only {read} were expressions");
    println!("{read} read, {stricter_than} refused by rules of ours, {passed_on} passed on and refused");
    assert!(passed_on < 60, "{passed_on} mistakes were left to the libraries to tell");
}

/// Whether it isn't a library that says so.
fn is_ours(why: &str) -> bool {
    ["the ", "it has ", "it is ", "`@", "character ", "after the time zone"]
        .iter()
        .any(|begin| why.starts_with(begin))
}
