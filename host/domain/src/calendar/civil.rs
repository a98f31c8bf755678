//! From civil time to instants: what a pattern means where the clock changes.
//!
//! Between two changes of a zone's clock, civil time is UTC plus an offset, and the two grow together.
//! So the search goes stretch by stretch, and only where stretches meet is there anything to decide: a
//! gap (civil times that never were) or a fold (civil times that were twice).

use super::pattern::Pattern;
use super::{Fold, Gap};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// Changes of the clock that one look-up goes through: those near its beginning and near its end, which no zone
/// has more than a few of. What lies between is passed over at once.
const CHANGES_MAX: usize = 16;
/// More than a clock was ever changed by, in seconds: days apart in civil time are the same way round in UTC.
const FAR: i64 = 2 * 86_400;
/// A civil time that stands for none; later than all, and far from overflow.
const NEVER: i64 = i64::MAX / 4;

/// The first instant later than `after` at which the pattern is due.
pub fn next_after(
    pattern: &Pattern,
    zone: &TimeZone,
    gap: Gap,
    fold: Fold,
    after: Timestamp,
) -> Option<Timestamp> {
    let gap = if pattern.any_hour { Gap::Skip } else { gap };
    let fold = if pattern.any_hour { Fold::Twice } else { fold };
    // The first whole second later than `after`, before 1970 too.
    let from = after.as_second() + i64::from(after.subsec_nanosecond() >= 0);
    let mut stretch = Stretch::at(zone, from - 1);
    // The search begins in the middle of a stretch; times that it repeats are over if they are `once`.
    let mut civil = (from + stretch.offset).max(stretch.first_civil(fold));
    let mut found = None;
    for _ in 0..CHANGES_MAX {
        let due = match found {
            Some(due) if due >= civil => due,
            // Even the last time of all may be about to come once more.
            _ => pattern.first_from(civil).unwrap_or(NEVER),
        };
        let Some(end) = stretch.end else { return instant(due - stretch.offset) };
        if due - stretch.offset < end {
            return instant(due - stretch.offset);
        }
        found = Some(due);
        if end > from + FAR && due == NEVER {
            return None;
        }
        if end > from + FAR && due - FAR > end {
            // Until shortly before `due` no clock shows it, nor a time before `from` once more, and the pattern has
            // none in between.
            stretch = Stretch::at(zone, due - FAR);
            civil = due - FAR + stretch.offset;
            continue;
        }
        let skipped_from = end + stretch.offset;
        stretch = Stretch::from(zone, end, stretch.offset);
        let starts_at = end + stretch.offset;
        if due < starts_at && due >= skipped_from && gap == Gap::RunAfter && end >= from {
            return instant(end);
        }
        civil = stretch.first_civil(fold);
        if civil < skipped_from {
            found = None;
        }
    }
    None
}

/// A time between two changes of a zone's clock. All in seconds.
struct Stretch {
    /// Civil time less UTC.
    offset: i64,
    /// The change that it begins with, and the offset before that.
    begin: Option<(i64, i64)>,
    /// The change that it ends with.
    end: Option<i64>,
}

impl Stretch {
    /// The stretch that the second `at` is in.
    fn at(zone: &TimeZone, at: i64) -> Self {
        // `preceding` is strictly earlier, so a change at `at` itself is asked for from the next second.
        let begin = instant(at + 1)
            .and_then(|next| zone.preceding(next).next())
            .map(|change| change.timestamp().as_second())
            .map(|begin| (begin, offset_at(zone, begin - 1)));
        Self { offset: offset_at(zone, at), begin, end: change_after(zone, at) }
    }

    /// The stretch that begins with the change at `begin`.
    fn from(zone: &TimeZone, begin: i64, offset_before: i64) -> Self {
        Self {
            offset: offset_at(zone, begin),
            begin: Some((begin, offset_before)),
            end: change_after(zone, begin),
        }
    }

    /// The first civil time of the stretch that counts: with `once`, what it repeats doesn't.
    fn first_civil(&self, fold: Fold) -> i64 {
        match (self.begin, fold) {
            (Some((begin, before)), Fold::Once) => begin + self.offset.max(before),
            (Some((begin, _)), Fold::Twice) => begin + self.offset,
            (None, _) => i64::MIN,
        }
    }
}

/// The last instant at which the zone's clock shows `civil`, or jumps over it.
pub fn latest_instant(zone: &TimeZone, civil: i64) -> Option<Timestamp> {
    let date_time = TimeZone::UTC.to_datetime(Timestamp::from_second(civil).ok()?);
    let seconds = |offset: Offset| i64::from(offset.seconds());
    match zone.to_ambiguous_timestamp(date_time).offset() {
        AmbiguousOffset::Unambiguous { offset } => instant(civil - seconds(offset)),
        AmbiguousOffset::Fold { after, .. } => instant(civil - seconds(after)),
        AmbiguousOffset::Gap { after, .. } => change_after(zone, civil - seconds(after)).and_then(instant),
    }
}

fn offset_at(zone: &TimeZone, second: i64) -> i64 {
    Timestamp::from_second(second).map_or(0, |at| i64::from(zone.to_offset(at).seconds()))
}

fn change_after(zone: &TimeZone, second: i64) -> Option<i64> {
    let at = Timestamp::from_second(second).ok()?;
    zone.following(at).next().map(|change| change.timestamp().as_second())
}

fn instant(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{CronSchedule, Dialect, Schedule};
    use super::*;
    use proptest::prelude::*;

    fn times(expression: &str, zone: &str, gap: Gap, fold: Fold, from: &str, to: &str) -> Vec<String> {
        let cron = CronSchedule { gap, fold, ..CronSchedule::new(expression, Dialect::Crontab, zone) };
        times_of(cron, from, to)
    }

    fn times_of(cron: CronSchedule, from: &str, to: &str) -> Vec<String> {
        let calendar = Schedule::Cron(cron).calendar().unwrap();
        let (from, to): (Timestamp, Timestamp) = (from.parse().unwrap(), to.parse().unwrap());
        let all = calendar.times_after(from).take_while(|t| *t < to);
        all.map(|t| t.strftime("%dT%H:%MZ").to_string()).collect()
    }

    // New York: 2026-03-08 02:00 EST becomes 03:00 EDT at 07:00Z; 2026-11-01 02:00 EDT becomes 01:00 EST
    // at 06:00Z.
    const SPRING: (&str, &str) = ("2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z");
    const AUTUMN: (&str, &str) = ("2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z");

    #[test]
    fn a_skipped_time_runs_after_the_gap_or_not() {
        let in_gap = |gap| times("30 2 * * *", "America/New_York", gap, Fold::Once, SPRING.0, SPRING.1);
        assert_eq!(in_gap(Gap::RunAfter), ["08T07:00Z", "09T06:30Z"]);
        assert_eq!(in_gap(Gap::Skip), ["09T06:30Z"]);
    }

    #[test]
    fn several_times_in_one_gap_run_once() {
        let all = times(
            "*/10 2 * * *",
            "America/New_York",
            Gap::RunAfter,
            Fold::Once,
            SPRING.0,
            "2026-03-08T12:00:00Z",
        );
        assert_eq!(all, ["08T07:00Z"]);
        let both = times(
            "0 2,3 * * *",
            "America/New_York",
            Gap::RunAfter,
            Fold::Once,
            SPRING.0,
            "2026-03-08T12:00:00Z",
        );
        assert_eq!(both, ["08T07:00Z"]);
    }

    #[test]
    fn a_repeated_time_runs_once_or_twice() {
        let in_fold = |fold| times("30 1 * * *", "America/New_York", Gap::RunAfter, fold, AUTUMN.0, AUTUMN.1);
        assert_eq!(in_fold(Fold::Once), ["01T05:30Z", "02T06:30Z"]);
        assert_eq!(in_fold(Fold::Twice), ["01T05:30Z", "01T06:30Z", "02T06:30Z"]);
    }

    #[test]
    fn the_last_time_of_all_is_repeated_too() {
        let cron = |fold| {
            let last = CronSchedule::new("0 30 1 1 11 * 2026", Dialect::Crontab, "America/New_York");
            times_of(CronSchedule { fold, ..last }, AUTUMN.0, AUTUMN.1)
        };
        assert_eq!(cron(Fold::Once), ["01T05:30Z"]);
        assert_eq!(cron(Fold::Twice), ["01T05:30Z", "01T06:30Z"]);
    }

    #[test]
    fn patterns_without_an_hour_follow_the_clock() {
        let every = |from, to| times("30 * * * *", "America/New_York", Gap::RunAfter, Fold::Once, from, to);
        assert_eq!(
            every("2026-03-08T06:00:00Z", "2026-03-08T09:00:00Z"),
            ["08T06:30Z", "08T07:30Z", "08T08:30Z"]
        );
        assert_eq!(
            every("2026-11-01T05:00:00Z", "2026-11-01T08:00:00Z"),
            ["01T05:30Z", "01T06:30Z", "01T07:30Z"]
        );
    }

    #[test]
    fn midnight_and_half_hour_and_whole_day_gaps() {
        // Santiago's clock goes from 24:00 to 01:00: 2026-09-06 has no midnight.
        let midnight = times(
            "0 0 * * *",
            "America/Santiago",
            Gap::RunAfter,
            Fold::Once,
            "2026-09-05T12:00:00Z",
            "2026-09-07T12:00:00Z",
        );
        assert_eq!(midnight, ["06T04:00Z", "07T03:00Z"]);
        // Lord Howe moves by half an hour: 2026-10-04 02:00 +10:30 becomes 02:30 +11.
        let half = times(
            "15 2 * * *",
            "Australia/Lord_Howe",
            Gap::RunAfter,
            Fold::Once,
            "2026-10-03T00:00:00Z",
            "2026-10-04T20:00:00Z",
        );
        assert_eq!(half, ["03T15:30Z", "04T15:15Z"]);
        // Kiritimati had no 1994-12-31: its noon is due when that day is over.
        let day = times(
            "0 12 * * *",
            "Pacific/Kiritimati",
            Gap::RunAfter,
            Fold::Once,
            "1994-12-30T00:00:00Z",
            "1995-01-03T00:00:00Z",
        );
        assert_eq!(day, ["30T22:00Z", "31T10:00Z", "31T22:00Z", "01T22:00Z", "02T22:00Z"]);
    }

    /// The slow way: every minute of the range is looked at, and belongs if its civil time matches and
    /// the rules let it. An oracle with nothing in common with the search but the zone data.
    fn oracle(
        minute: u32,
        hour: Option<u32>,
        zone: &TimeZone,
        gap: Gap,
        fold: Fold,
        from: i64,
        to: i64,
    ) -> Vec<i64> {
        let (gap, fold) = if hour.is_none() { (Gap::Skip, Fold::Twice) } else { (gap, fold) };
        let civil = |t: i64| t + offset_at(zone, t);
        let matches = |c: i64| {
            (c.rem_euclid(3600) / 60) as u32 == minute
                && hour.is_none_or(|h| (c.rem_euclid(86_400) / 3600) as u32 == h)
        };
        let mut due = Vec::new();
        for t in (from..to).step_by(60) {
            let (now, before) = (civil(t), civil(t - 60));
            let in_gap = gap == Gap::RunAfter && (before + 60..now).step_by(60).any(matches);
            let again = (1..=240).any(|m| civil(t - 60 * m) == now);
            if in_gap || (matches(now) && !(fold == Fold::Once && again)) {
                due.push(t);
            }
        }
        due
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_search_agrees_with_looking_at_every_minute(
            zone in prop::sample::select(vec![
                "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Europe/Berlin", "Antarctica/Troll",
                "Africa/Casablanca", "Asia/Kathmandu", "UTC",
            ]),
            minute in 0u32..60, hour in prop::option::of(0u32..24), day in 0i64..1460,
            skip: bool, twice: bool,
        ) {
            let gap = if skip { Gap::Skip } else { Gap::RunAfter };
            let fold = if twice { Fold::Twice } else { Fold::Once };
            let tz = TimeZone::get(zone).unwrap();
            // Begin just before a change, so that most cases cross one.
            let near = Timestamp::from_second(1_704_067_200 + day * 86_400).unwrap();
            let change = tz.following(near).next().map_or(near.as_second(), |c| c.timestamp().as_second());
            let from = (change - 36 * 3600).div_euclid(60) * 60;
            let to = from + 72 * 3600;
            let field = hour.map_or("*".to_string(), |h| h.to_string());
            let cron = CronSchedule { gap, fold, ..CronSchedule::new(&format!("{minute} {field} * * *"), Dialect::Crontab, zone) };
            let calendar = Schedule::Cron(cron).calendar().unwrap();
            let before = Timestamp::from_second(from - 1).unwrap();
            let found: Vec<i64> =
                calendar.times_after(before).map(|t| t.as_second()).take_while(|t| *t < to).collect();
            prop_assert_eq!(found, oracle(minute, hour, &tz, gap, fold, from, to));
        }
    }
}
