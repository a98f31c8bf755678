//! One trigger's times, as a forecast goes through them.

use super::{Plan, Scope};
use crate::calendar::ScheduleError;
use crate::holiday::Holidays;
use crate::time;
use crate::timetable::Timetable;
use jiff::Timestamp;
use std::time::Duration;

/// A trigger's next time, and what follows it.
pub(super) struct Source {
    /// The task's place in the tally.
    pub task: usize,
    /// Bytes of the input of each run.
    pub input_bytes: u64,
    timetable: Timetable,
    holidays: Holidays,
    has_jitter: bool,
    /// Of a fixed delay, how long.
    delay: Option<Duration>,
    /// How many more runs it may start.
    left: u64,
    nominal: Timestamp,
    /// The end of the forecast.
    until: Timestamp,
}

/// The first time in a forecast, its jitter included.
pub(super) enum Begins {
    At(Timestamp),
    /// It was due before; the first time after that.
    Overdue(Option<Timestamp>),
    Never,
}

impl Source {
    pub fn new(plan: &Plan, task: usize, scope: Scope<'_>) -> Result<Self, ScheduleError> {
        let calendars = plan.spec.exclude.iter().filter_map(|name| scope.holidays.get(name).cloned());
        Ok(Self {
            task,
            input_bytes: plan.input_bytes,
            timetable: Timetable::new(plan.id, &plan.spec, scope.zones)?,
            holidays: Holidays::of(calendars),
            has_jitter: !plan.spec.jitter.is_zero(),
            delay: plan.spec.delay(),
            left: plan.spec.max_runs.map_or(u64::MAX, |most| most.saturating_sub(plan.started)),
            nominal: scope.from,
            until: scope.until,
        })
    }

    /// Whether its times are reckoned as if its runs took no time.
    pub fn is_estimated(&self) -> bool {
        self.delay.is_some()
    }

    /// The first time from `from` on, where `next_at` is the first that isn't accounted for.
    pub fn begin(&mut self, next_at: Option<Timestamp>, from: Timestamp) -> Begins {
        if self.left == 0 {
            return Begins::Never;
        }
        match (self.delay, next_at) {
            (Some(delay), next_at) => {
                // Its run is unfinished, or about to begin.
                let at = next_at.map_or_else(|| time::after(from, delay), |next_at| next_at.max(from));
                self.delayed(at).map_or(Begins::Never, Begins::At)
            }
            (None, None) => Begins::Never,
            (None, Some(next_at)) => {
                let is_holiday = self.timetable.is_holiday(next_at, &self.holidays);
                let first = if is_holiday { self.working_after(next_at) } else { Some(next_at) };
                match self.go_to(first) {
                    None => Begins::Never,
                    Some(due) if due >= from => Begins::At(due),
                    Some(_) => {
                        let later = self.working_after(from);
                        Begins::Overdue(self.go_to(later))
                    }
                }
            }
        }
    }

    /// The time after the last one, jitter included.
    pub fn step(&mut self) -> Option<Timestamp> {
        self.left -= 1;
        if self.left == 0 {
            return None;
        }
        match self.delay {
            Some(delay) => self.delayed(time::after(self.nominal, delay)),
            None => {
                let following = self.working_after(self.nominal);
                self.go_to(following)
            }
        }
    }

    fn working_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.timetable.next_working_until(after, self.until, &self.holidays)
    }

    fn go_to(&mut self, nominal: Option<Timestamp>) -> Option<Timestamp> {
        self.nominal = nominal?;
        Some(if self.has_jitter { self.timetable.due_at(self.nominal) } else { self.nominal })
    }

    /// A fixed delay's time, or when the holidays that it is in are over.
    fn delayed(&mut self, at: Timestamp) -> Option<Timestamp> {
        let is_holiday = self.timetable.is_holiday(at, &self.holidays);
        let at = if is_holiday { self.timetable.next_working_date(at, &self.holidays) } else { at };
        self.nominal = self.timetable.delayed(at)?.nominal;
        Some(self.nominal)
    }
}
