//! By when a run must have begun, and by when it must be over.

use crate::calendar::human_duration;
use crate::limits::{DEADLINE_MAX, DEADLINE_MIN};
use crate::time;
use jiff::Timestamp;
use std::time::Duration;

/// How long a run may take from when it is due; none: as long as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadlines {
    /// Until its first attempt begins.
    pub start: Option<Duration>,
    /// Until all of it is over, its retries and the waits between them included.
    pub end: Option<Duration>,
}

/// A deadline that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadlineError {
    #[error("a start deadline of {} was asked for; it may be {}", human_duration(*.0), bounds())]
    Start(Duration),
    #[error("a deadline of {} was asked for; it may be {}", human_duration(*.0), bounds())]
    End(Duration),
    #[error(
        "the start deadline, {}, is after the deadline, {}: a run would be over before it had to begin",
        human_duration(*.start),
        human_duration(*.end)
    )]
    Order { start: Duration, end: Duration },
}

fn bounds() -> String {
    format!("{} to {}", human_duration(DEADLINE_MIN), human_duration(DEADLINE_MAX))
}

impl Deadlines {
    /// Checks those of a start, where 0 is for none, whatever the task says.
    pub fn check_start(&self) -> Result<(), DeadlineError> {
        Self::default().or(*self).check()
    }

    /// Checks every bound.
    pub fn check(&self) -> Result<(), DeadlineError> {
        let bad = |deadline: &Duration| *deadline < DEADLINE_MIN || *deadline > DEADLINE_MAX;
        if let Some(start) = self.start.filter(bad) {
            return Err(DeadlineError::Start(start));
        }
        if let Some(end) = self.end.filter(bad) {
            return Err(DeadlineError::End(end));
        }
        match (self.start, self.end) {
            (Some(start), Some(end)) if start > end => Err(DeadlineError::Order { start, end }),
            _ => Ok(()),
        }
    }

    /// These, and where they say nothing the `others`; 0 is for none.
    pub fn or(self, others: Self) -> Self {
        let some = |deadline: Option<Duration>| deadline.filter(|deadline| !deadline.is_zero());
        Self { start: some(self.start.or(others.start)), end: some(self.end.or(others.end)) }
    }

    /// When the run that is due at this instant must have begun.
    pub fn start_by(&self, due: Timestamp) -> Option<Timestamp> {
        self.start.map(|start| time::after(due, start))
    }

    /// When the run that is due at this instant must be over.
    pub fn end_by(&self, due: Timestamp) -> Option<Timestamp> {
        self.end.map(|end| time::after(due, end))
    }

    /// Those of a run that was due at this instant.
    pub fn of(due: Timestamp, start_by: Option<Timestamp>, end_by: Option<Timestamp>) -> Self {
        let until = |by: Option<Timestamp>| by.map(|by| time::between(due, by));
        Self { start: until(start_by), end: until(end_by) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_a_start_says_goes_before_what_its_task_says() {
        let task = Deadlines { start: Some(HOUR), end: Some(2 * HOUR) };
        let start = Deadlines { start: None, end: Some(HOUR) };
        assert_eq!(start.or(task), Deadlines { start: Some(HOUR), end: Some(HOUR) });
        let none = Deadlines { start: Some(Duration::ZERO), end: None };
        assert_eq!(none.or(task), Deadlines { start: None, end: task.end });
        assert_eq!((none.check_start(), none.check().is_ok()), (Ok(()), false));
        let due = Timestamp::from_second(1_000).unwrap();
        assert_eq!(Deadlines::of(due, task.start_by(due), task.end_by(due)), task);
        assert_eq!(Deadlines::default().end_by(due), None);
    }

    #[test]
    fn bounds_have_words() {
        let never = Deadlines { start: Some(Duration::ZERO), end: None };
        let words = never.check().unwrap_err().to_string();
        assert_eq!(words, "a start deadline of 0s was asked for; it may be 1ms to 366d");
        let late = Deadlines { start: Some(2 * HOUR), end: Some(HOUR) };
        assert!(late.check().unwrap_err().to_string().contains("the start deadline, 2h, is after"));
        let long = Deadlines { start: None, end: Some(DEADLINE_MAX + HOUR) };
        assert_eq!(long.check(), Err(DeadlineError::End(DEADLINE_MAX + HOUR)));
        assert_eq!(Deadlines { start: Some(DEADLINE_MIN), end: Some(DEADLINE_MAX) }.check(), Ok(()));
    }
}
