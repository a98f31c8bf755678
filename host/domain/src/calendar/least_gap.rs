//! How close two firings of a cron pattern can come to each other.

use super::{Calendar, Kind};
use crate::limits::LEAST_GAP_CHANGES;
use jiff::Timestamp;
use std::time::Duration;

/// Firings that are looked at where the clock changes: those before it that are closer to the first one after it
/// than any others, that one, and the next.
const AT_A_CHANGE: usize = 4;

impl Calendar {
    /// The least time between two firings of a cron pattern after `now`; none if it fires once at most, or is none.
    ///
    /// No two firings to come are closer, however far away: between changes of the clock the pattern's sets tell,
    /// to the last year that is searched; what changes of the clock bring closer together is looked for at the next
    /// [`LEAST_GAP_CHANGES`] of them. Two firings can be that close, but for two things that are not looked into:
    /// where only a part of the last day is left, it counts as a whole one, and where a change of the clock keeps
    /// all of the closest apart, they count as they would without.
    pub fn least_gap(&self, now: Timestamp) -> Option<Duration> {
        let Kind::Cron { pattern, zone, .. } = &self.0 else { return None };
        let first = self.next_after(now)?.as_second();
        let mut least = self.next_second(first)? - first;
        let civil = first + i64::from(zone.to_offset(Timestamp::from_second(first).ok()?).seconds());
        least = least.min(pattern.least_distance(civil).unwrap_or(least));
        for change in zone.following(now).take(LEAST_GAP_CHANGES) {
            let change = change.timestamp().as_second();
            let Some(after) = self.next_second(change - 1) else { break };
            let begin = (after - least).max(now.as_second());
            let firings = std::iter::successors(self.next_second(begin), |last| self.next_second(*last));
            let mut last = None;
            for at in firings.take(AT_A_CHANGE) {
                least = last.map_or(least, |last| least.min(at - last));
                last = Some(at);
            }
        }
        Some(Duration::from_secs(least.unsigned_abs()))
    }

    fn next_second(&self, after: i64) -> Option<i64> {
        Some(self.next_after(Timestamp::from_second(after).ok()?)?.as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CronSchedule, Dialect, Schedule};
    use super::*;
    use proptest::prelude::*;

    fn calendar(expression: &str, zone: &str) -> Calendar {
        Schedule::Cron(CronSchedule::new(expression, Dialect::Crontab, zone)).calendar().unwrap()
    }

    fn least(expression: &str, zone: &str) -> Option<u64> {
        let now = "2026-01-05T00:00:00Z".parse().unwrap();
        calendar(expression, zone).least_gap(now).map(|gap| gap.as_secs())
    }

    #[test]
    fn the_closest_pair_is_found_however_far_away() {
        assert_eq!(least("0,59 23,0 1,2 1 *", "UTC"), Some(60), "over midnight, in a year");
        assert_eq!(least("59 23,0 31,1 12,1 *", "UTC"), Some(3600), "over New Year");
        assert_eq!(least("0 0 28,29 2 *", "UTC"), Some(86_400), "in a leap year");
        assert_eq!(least("0 0 0 28,29 2 * 2095-2103", "UTC"), Some(86_400), "in 2096 alone");
        assert_eq!(least("0 0 0 1 1 * 2027,2090,2093", "UTC"), Some(1096 * 86_400));
        assert_eq!(least("59,0 0 0,12 * * *", "UTC"), Some(59));
        assert_eq!(least("0 0 0 1 1 * 2030", "UTC"), None, "once");
        assert_eq!(least("0 0 0 1 1 * 2020", "UTC"), None, "never");
    }

    #[test]
    fn changes_of_the_clock_bring_firings_together() {
        // 02:05 and 02:30 are skipped and due at 03:00.
        assert_eq!(least("5,30 2,3 * 3 *", "Europe/Berlin"), Some(300));
        assert_eq!(least("0 3 * * *", "Europe/Berlin"), Some(23 * 3600));
        // After 01:59 it is 02:30.
        assert_eq!(least("30,59 * * * *", "Australia/Lord_Howe"), Some(60));
        assert_eq!(least("35,59 * * * *", "Australia/Lord_Howe"), Some(6 * 60));
        assert_eq!(least("30 2 * * 0", "Australia/Lord_Howe"), Some(7 * 86_400 - 1800));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        /// Going through many times finds none that are closer; and if it went through all, it finds the same, where
        /// no clock keeps them apart.
        #[test]
        fn no_two_firings_are_closer(
            minute in "([0-9]|[1-5][0-9]|\\*/(7|10|25))(,5[0-9])?", hour in "(\\*|[0-3]|23|1,2|0,23|\\*/5)",
            day in "(\\*|[1-9]|1,2|L|1,L|[1-9]W)", month in "(\\*|[1-3]|\\*/4)", weekday in "(\\*|\\*|[0-6]|5#2)",
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"]),
            start in 1_700_000_000i64..1_900_000_000,
        ) {
            let calendar = calendar(&format!("{minute} {hour} {day} {month} {weekday}"), zone);
            let now = Timestamp::from_second(start).unwrap();
            let times: Vec<i64> = calendar.times_after(now).take(4_000).map(Timestamp::as_second).collect();
            let closest = times.windows(2).map(|pair| pair[1] - pair[0]).min();
            let least = calendar.least_gap(now).map(|gap| gap.as_secs() as i64);
            prop_assert_eq!(least.is_some(), closest.is_some());
            prop_assert!(least <= closest, "{least:?} and {closest:?}");
            // Within thirty years everything has come that can.
            if times.last().is_some_and(|last| last - start > 30 * 366 * 86_400) {
                let apart = if zone == "UTC" { 0 } else { 3600 };
                prop_assert!(closest <= least.map(|least| least + apart), "{least:?} and {closest:?}");
            }
        }
    }
}
