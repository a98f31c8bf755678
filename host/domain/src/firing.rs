//! What a due trigger does: which nominal times run, which are skipped and why, and what is next.

use crate::calendar::Covered;
use crate::holiday::Holidays;
use crate::limits::{FIRINGS_PER_DECISION_MAX, MISSED_AFTER, RUNS_PER_DECISION_MAX};
use crate::time;
use crate::timetable::{Timetable, Upcoming};
use crate::trigger::{CatchUp, SkipRange, SkipReason, TriggerSpec};
use jiff::Timestamp;
use std::time::Duration;

/// A decision about one trigger at one instant. It accounts for every nominal time from the one that
/// was due up to `next`, each once: either in `runs` or in one of `skips`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// In order.
    pub runs: Vec<Timestamp>,
    /// In order; none empty, and none reaching across one of the runs.
    pub skips: Vec<SkipRange>,
    /// The first nominal time that is not accounted for; none when the schedule has ended. It can be
    /// due already, when there were more than one decision takes. Of a fixed delay, it is what is next if no run
    /// comes of this.
    pub next: Option<Upcoming>,
    /// The last nominal time that this accounts for; none if it accounts for none.
    pub covered: Option<Covered>,
}

/// What a decision is made by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub timetable: &'a Timetable,
    pub catch_up: CatchUp,
    pub window: Duration,
    /// Dates on which it doesn't run.
    pub holidays: &'a Holidays,
    /// Nominal times up to this instant passed while the trigger was paused.
    pub paused_through: Option<Timestamp>,
    /// Of a fixed delay, how long.
    pub delay: Option<Duration>,
}

/// Decides for a trigger whose next nominal time is `due`. Nothing happens before it, nor before its jitter is over.
pub fn fire(rules: Rules, due: Timestamp, now: Timestamp) -> Firing {
    let mut runs = Vec::new();
    let mut skips = Vec::new();
    let mut covered = None;
    let mut next = Some(rules.timetable.upcoming(due));
    for _ in 0..FIRINGS_PER_DECISION_MAX {
        let Some(Upcoming { nominal, due }) = next.filter(|next| next.due <= now) else { break };
        let holiday = rules.timetable.is_holiday(nominal, rules.holidays);
        let following = if holiday { rules.after_holiday(nominal) } else { rules.following(nominal, now) };
        let reason = match holiday {
            true => Some(SkipReason::Holiday),
            false => rules.reason_to_skip(nominal, due, following, now),
        };
        match reason {
            Some(reason) => skip(&mut skips, &runs, nominal, reason),
            None if runs.len() == RUNS_PER_DECISION_MAX => break,
            None => runs.push(nominal),
        }
        covered = Some(nominal);
        next = following;
    }
    let covered = covered.map(|last| rules.timetable.covered(last));
    Firing { runs, skips, next, covered }
}

impl<'a> Rules<'a> {
    /// Those of a trigger.
    pub fn of(
        spec: &TriggerSpec,
        timetable: &'a Timetable,
        holidays: &'a Holidays,
        paused_through: Option<Timestamp>,
    ) -> Self {
        Self {
            timetable,
            catch_up: spec.catch_up,
            window: spec.catch_up_window,
            holidays,
            paused_through,
            delay: spec.delay(),
        }
    }

    fn following(&self, nominal: Timestamp, now: Timestamp) -> Option<Upcoming> {
        match self.delay {
            None => self.timetable.next_after(nominal).map(|next| self.timetable.upcoming(next)),
            Some(delay) => self.timetable.delayed(time::after(now, delay)),
        }
    }

    /// A fixed delay goes on when the holidays are over; that enough time has passed is so already.
    fn after_holiday(&self, nominal: Timestamp) -> Option<Upcoming> {
        match self.delay {
            None => self.timetable.next_after(nominal).map(|next| self.timetable.upcoming(next)),
            Some(_) => self.timetable.delayed(self.timetable.next_working_date(nominal, self.holidays)),
        }
    }

    /// Whether nothing that is due by now runs instead of `nominal`.
    fn is_newest(&self, nominal: Timestamp, following: Option<Upcoming>, now: Timestamp) -> bool {
        let Some(following) = following.filter(|next| next.due <= now) else { return true };
        if !self.timetable.is_holiday(following.nominal, self.holidays) {
            return false;
        }
        let working = self.timetable.next_working_after(nominal, self.holidays);
        working.is_none_or(|working| self.timetable.due_at(working) > now)
    }

    fn reason_to_skip(
        &self,
        nominal: Timestamp,
        due: Timestamp,
        following: Option<Upcoming>,
        now: Timestamp,
    ) -> Option<SkipReason> {
        let late = due < time::before(now, MISSED_AFTER);
        let too_late = due < time::before(now, self.window.max(MISSED_AFTER));
        match self.catch_up {
            _ if self.paused_through.is_some_and(|end| nominal <= end) => Some(SkipReason::Paused),
            _ if too_late => Some(SkipReason::TooLate),
            CatchUp::All => None,
            CatchUp::Latest if self.is_newest(nominal, following, now) => None,
            CatchUp::Latest => Some(SkipReason::Superseded),
            CatchUp::None if late => Some(SkipReason::Missed),
            CatchUp::None => None,
        }
    }
}

fn skip(skips: &mut Vec<SkipRange>, runs: &[Timestamp], at: Timestamp, reason: SkipReason) {
    let skip = SkipRange { from: at, to: at, count: 1, reason };
    match skips.last_mut() {
        Some(last) if skip.continues(last.to, last.reason, runs.last().copied()) => {
            last.to = at;
            last.count += 1;
        }
        _ => skips.push(skip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::{BundledZones, Schedule};
    use crate::ids::TriggerId;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn timetable(spec: &TriggerSpec) -> Timetable {
        Timetable::new(TriggerId(uuid::Uuid::from_u128(5)), spec, &BundledZones).unwrap()
    }

    fn every(seconds: u64) -> Timetable {
        let schedule = Schedule::Interval { every: Duration::from_secs(seconds), anchor: at(0) };
        timetable(&TriggerSpec::new(schedule))
    }

    fn rules(timetable: &Timetable, catch_up: CatchUp, window: Duration) -> Rules<'_> {
        Rules { timetable, catch_up, window, holidays: Holidays::NONE, paused_through: None, delay: None }
    }

    fn next(second: i64) -> Option<Upcoming> {
        Some(Upcoming::punctual(at(second)))
    }

    fn seconds(times: &[Timestamp]) -> Vec<i64> {
        times.iter().map(|t| t.as_second()).collect()
    }

    #[test]
    fn on_time_it_just_runs() {
        for mode in [CatchUp::Latest, CatchUp::All, CatchUp::None] {
            let firing = fire(rules(&every(60), mode, DAY), at(60), at(61));
            assert_eq!(seconds(&firing.runs), [60]);
            assert_eq!((firing.skips.len(), firing.next), (0, next(120)));
        }
    }

    #[test]
    fn before_its_time_nothing_happens() {
        let firing = fire(rules(&every(60), CatchUp::All, DAY), at(60), at(59));
        assert_eq!(firing, Firing { runs: vec![], skips: vec![], next: next(60), covered: None });
    }

    #[test]
    fn after_an_hour_down_each_mode_does_its_own() {
        let latest = fire(rules(&every(60), CatchUp::Latest, DAY), at(60), at(3630));
        assert_eq!(seconds(&latest.runs), [3600]);
        let all_but_one = SkipRange { from: at(60), to: at(3540), count: 59, reason: SkipReason::Superseded };
        assert_eq!(latest.skips, [all_but_one]);
        let all = fire(rules(&every(60), CatchUp::All, DAY), at(60), at(3630));
        assert_eq!((all.runs.len(), all.skips.len()), (60, 0));
        let none = fire(rules(&every(60), CatchUp::None, DAY), at(60), at(3630));
        assert_eq!((none.runs.len(), none.skips[0].count), (0, 60));
    }

    #[test]
    fn what_is_out_of_the_window_is_too_late() {
        let firing = fire(rules(&every(60), CatchUp::All, Duration::from_secs(600)), at(60), at(3600));
        assert_eq!(firing.runs.first(), Some(&at(3000)));
        let old = SkipRange { from: at(60), to: at(2940), count: 49, reason: SkipReason::TooLate };
        assert_eq!(firing.skips, [old]);
    }

    #[test]
    fn what_passed_during_a_pause_is_skipped_as_paused() {
        let minutes = every(60);
        let paused = Rules { paused_through: Some(at(3000)), ..rules(&minutes, CatchUp::All, DAY) };
        let firing = fire(paused, at(60), at(3100));
        let pause = SkipRange { from: at(60), to: at(3000), count: 50, reason: SkipReason::Paused };
        assert_eq!((seconds(&firing.runs), firing.skips), (vec![3060], vec![pause]));
    }

    #[test]
    fn a_fixed_delay_has_one_time_and_goes_on_from_now_if_it_is_skipped() {
        let delay = Duration::from_secs(60);
        let table = timetable(&TriggerSpec::new(Schedule::FixedDelay { delay, anchor: at(0) }));
        let rules = Rules { delay: Some(delay), ..rules(&table, CatchUp::Latest, DAY) };
        let late = fire(rules, at(60), at(3600));
        assert_eq!((seconds(&late.runs), late.skips.len(), late.next), (vec![60], 0, next(3660)));
        let none = fire(Rules { catch_up: CatchUp::None, ..rules }, at(60), at(3600));
        assert_eq!((none.runs.len(), none.skips[0].count, none.next), (0, 1, next(3660)));
    }

    /// 1970-01-02 and 1970-01-03.
    fn second_and_third() -> Holidays {
        let read = crate::holiday::read(b"1970-01-02\n1970-01-03").unwrap();
        Holidays::of([std::sync::Arc::new(crate::holiday::HolidayDates::of(&read))])
    }

    #[test]
    fn a_holiday_is_skipped_on_record_whatever_else_is_so() {
        let (hourly, holidays) = (every(3600), second_and_third());
        let on_time = Rules { holidays: &holidays, ..rules(&hourly, CatchUp::Latest, DAY) };
        let holiday =
            |from, to, count| SkipRange { from: at(from), to: at(to), count, reason: SkipReason::Holiday };
        let firing = fire(on_time, at(86_400), at(86_401));
        assert_eq!(
            (firing.runs, firing.skips, firing.next),
            (vec![], vec![holiday(86_400, 86_400, 1)], next(90_000))
        );
        let paused = Rules { paused_through: Some(at(86_400)), ..on_time };
        assert_eq!(fire(paused, at(86_400), at(86_401)).skips, [holiday(86_400, 86_400, 1)]);
    }

    #[test]
    fn the_latest_that_is_no_holiday_runs() {
        let (hourly, holidays) = (every(3600), second_and_third());
        let latest = |now| {
            fire(
                Rules { holidays: &holidays, ..rules(&hourly, CatchUp::Latest, 9 * DAY) },
                at(79_200),
                at(now),
            )
        };
        let holiday =
            |to, count| SkipRange { from: at(86_400), to: at(to), count, reason: SkipReason::Holiday };
        let superseded =
            |to, count| SkipRange { from: at(79_200), to: at(to), count, reason: SkipReason::Superseded };
        // In the middle of the holidays: 23:00 of the day before.
        let firing = latest(200_000);
        assert_eq!(
            (seconds(&firing.runs), firing.skips),
            (vec![82_800], vec![superseded(79_200, 1), holiday(198_000, 32)])
        );
        // After them.
        let firing = latest(3 * 86_400);
        assert_eq!(
            (seconds(&firing.runs), firing.skips),
            (vec![3 * 86_400], vec![superseded(82_800, 2), holiday(255_600, 48)])
        );
        let none = fire(
            Rules { holidays: &holidays, ..rules(&hourly, CatchUp::None, DAY) },
            at(79_200),
            at(200_000),
        );
        assert_eq!((none.runs.len(), none.skips.len()), (0, 2));
    }

    #[test]
    fn a_fixed_delay_goes_on_after_the_holidays() {
        let delay = Duration::from_secs(60);
        let table = timetable(&TriggerSpec::new(Schedule::FixedDelay { delay, anchor: at(0) }));
        let holidays = second_and_third();
        let rules = Rules { delay: Some(delay), holidays: &holidays, ..rules(&table, CatchUp::Latest, DAY) };
        let firing = fire(rules, at(90_000), at(90_001));
        assert_eq!(
            (firing.runs.len(), firing.skips[0].reason, firing.next),
            (0, SkipReason::Holiday, next(3 * 86_400))
        );
        // When the host was down meanwhile, the time after the holidays is due already.
        let late = fire(rules, at(90_000), at(3 * 86_400 + 500));
        assert_eq!(
            (seconds(&late.runs), late.skips.len(), late.next),
            (vec![3 * 86_400], 1, next(3 * 86_400 + 560))
        );
        let window = TriggerSpec {
            not_after: Some(at(100_000)),
            ..TriggerSpec::new(Schedule::FixedDelay { delay, anchor: at(0) })
        };
        let table = timetable(&window);
        assert_eq!(fire(Rules { timetable: &table, ..rules }, at(90_000), at(90_001)).next, None);
    }

    #[test]
    fn nothing_begins_before_its_jitter_is_over() {
        let jitter = Duration::from_secs(1000);
        let schedule = Schedule::Interval { every: Duration::from_secs(3600), anchor: at(0) };
        let table = timetable(&TriggerSpec { jitter, ..TriggerSpec::new(schedule) });
        let due = table.due_at(at(3600));
        assert!(due > at(3600));
        let rules = rules(&table, CatchUp::None, DAY);
        let before = fire(rules, at(3600), time::before(due, Duration::from_micros(1)));
        assert_eq!((before.runs.len(), before.covered), (0, None));
        let then = fire(rules, at(3600), due);
        assert_eq!(seconds(&then.runs), [3600], "not late: its jitter is part of its time");
        assert_eq!(then.next, Some(table.upcoming(at(7200))));
    }

    proptest! {
        /// Over any outage, in any mode, through any number of decisions: every nominal time is accounted
        /// for once, and nothing before its time.
        #[test]
        fn every_nominal_time_is_accounted_for_once(
            step in 1u64..100_000, down in 0i64..3_000_000, window in 0u64..2_000_000, mode in 0usize..3,
            holiday: bool,
        ) {
            let dates = if holiday { second_and_third() } else { Holidays::default() };
            let is_holiday = |second: i64| holiday && [1, 2].contains(&second.div_euclid(86_400));
            let mode = [CatchUp::Latest, CatchUp::All, CatchUp::None][mode];
            let table = every(step);
            let now = at(down);
            let mut due = table.next_after(at(0)).unwrap();
            let mut accounted = 0u64;
            let mut last = at(0);
            while due <= now {
                let rules = Rules { holidays: &dates, ..rules(&table, mode, Duration::from_secs(window)) };
                let firing = fire(rules, due, now);
                for run in &firing.runs {
                    prop_assert!(!is_holiday(run.as_second()));
                    prop_assert!(*run <= now && *run > last);
                    last = *run;
                }
                for range in &firing.skips {
                    let spans = (range.to.as_second() - range.from.as_second()) as u64 / step + 1;
                    prop_assert_eq!(spans, range.count);
                    prop_assert_eq!(range.reason == SkipReason::Holiday, is_holiday(range.from.as_second()));
                    prop_assert_eq!(range.reason == SkipReason::Holiday, is_holiday(range.to.as_second()));
                }
                accounted += firing.runs.len() as u64 + firing.skips.iter().map(|s| s.count).sum::<u64>();
                let next = firing.next.unwrap().nominal;
                prop_assert!(next > due);
                prop_assert_eq!(table.next_after(firing.covered.unwrap().at), Some(next));
                due = next;
            }
            prop_assert_eq!(accounted, down as u64 / step);
        }
    }
}
