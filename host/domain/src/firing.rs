//! What a due trigger does: which nominal times run, which are skipped and why, and what is next.

use crate::calendar::Covered;
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
        let following = rules.following(nominal, now);
        let newest = following.is_none_or(|next| next.due > now);
        match rules.reason_to_skip(nominal, due, newest, now) {
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
    pub fn of(spec: &TriggerSpec, timetable: &'a Timetable, paused_through: Option<Timestamp>) -> Self {
        Self {
            timetable,
            catch_up: spec.catch_up,
            window: spec.catch_up_window,
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

    fn reason_to_skip(
        &self,
        nominal: Timestamp,
        due: Timestamp,
        newest: bool,
        now: Timestamp,
    ) -> Option<SkipReason> {
        let late = due < time::before(now, MISSED_AFTER);
        let too_late = due < time::before(now, self.window.max(MISSED_AFTER));
        match self.catch_up {
            _ if self.paused_through.is_some_and(|end| nominal <= end) => Some(SkipReason::Paused),
            _ if too_late => Some(SkipReason::TooLate),
            CatchUp::All => None,
            CatchUp::Latest if newest => None,
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
        Rules { timetable, catch_up, window, paused_through: None, delay: None }
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
        ) {
            let mode = [CatchUp::Latest, CatchUp::All, CatchUp::None][mode];
            let table = every(step);
            let now = at(down);
            let mut due = table.next_after(at(0)).unwrap();
            let mut accounted = 0u64;
            let mut last = at(0);
            while due <= now {
                let firing = fire(rules(&table, mode, Duration::from_secs(window)), due, now);
                for run in &firing.runs {
                    prop_assert!(*run <= now && *run > last);
                    last = *run;
                }
                for range in &firing.skips {
                    let spans = (range.to.as_second() - range.from.as_second()) as u64 / step + 1;
                    prop_assert_eq!(spans, range.count);
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
