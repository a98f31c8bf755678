//! The forecast: from triggers' timetables alone, what will run when, where it piles up, and which quotas stand in its
//! way. It knows nothing of how long runs take.

mod source;
mod tally;
mod warning;

#[cfg(test)]
mod tests;

use crate::calendar::Zones;
use crate::holiday::HolidayDates;
use crate::ids::TriggerId;
use crate::limits::{FORECAST_NAMES_SHOWN, FORECAST_TIMES_MAX};
use crate::name::Name;
use crate::quota::Quotas;
use crate::tenant::TenantState;
use crate::trigger::TriggerSpec;
use jiff::Timestamp;
use source::{Begins, Source};
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use tally::Tally;
pub use warning::Warning;

/// A trigger that isn't finished, as far as a forecast needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub id: TriggerId,
    pub name: Name,
    pub task: Name,
    pub spec: TriggerSpec,
    pub paused: bool,
    /// The next nominal time that isn't accounted for; none while a fixed delay waits for the end of its run.
    pub next_at: Option<Timestamp>,
    /// Runs that it has started.
    pub started: u64,
    /// Bytes of its input.
    pub input_bytes: u64,
}

/// What a forecast is of.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    pub from: Timestamp,
    /// The first instant that isn't in it.
    pub until: Timestamp,
    /// The dates of every calendar that one of the triggers excludes.
    pub holidays: &'a BTreeMap<Name, Arc<HolidayDates>>,
    pub zones: &'a dyn Zones,
    pub tenant: TenantState,
    pub quotas: &'a Quotas,
    /// What the tenant has stored, if it has a quota of that.
    pub stored_bytes: u64,
}

/// What will run if nothing keeps it from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    pub from: Timestamp,
    pub until: Timestamp,
    /// Nothing from this instant on is in it: there were too many times; none: it is complete.
    pub incomplete_from: Option<Timestamp>,
    pub runs: u64,
    /// Those with the most runs, these first.
    pub tasks: Vec<TaskForecast>,
    /// Tasks with runs that are not among them.
    pub more_tasks: u64,
    /// The busiest first, the earlier of two that are as busy.
    pub minutes: Vec<BusyMinute>,
    /// Every clock hour in UTC, from that of `from` on: how many runs.
    pub hours: Vec<(Timestamp, u64)>,
    /// Left out: paused triggers.
    pub paused: Named,
    /// Fixed delays, reckoned as if their runs took no time, so that there will be fewer.
    pub estimated: Named,
    /// Triggers that were due before `from`: what comes of those times, their catch-up decides, is left out.
    pub overdue: Named,
    /// Left out: triggers whose schedules can't be read.
    pub unreadable: Named,
    pub warnings: Vec<Warning>,
}

/// The runs of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskForecast {
    pub task: Name,
    pub runs: u64,
    /// Those of them that are of fixed delays.
    pub estimated: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// A minute in which many runs are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyMinute {
    pub at: Timestamp,
    pub runs: u64,
    /// The most that are due at one instant of it, those of fixed delays aside.
    pub at_once: u64,
    /// How many of which tasks, the most frequent first.
    pub tasks: Vec<(Name, u64)>,
    /// Tasks that are not among them.
    pub more_tasks: u64,
}

/// Triggers of which the same is to be said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    pub count: u64,
    /// The first of them by name.
    pub names: Vec<Name>,
}

impl Named {
    fn add(&mut self, name: Name) {
        self.count += 1;
        if self.names.len() < FORECAST_NAMES_SHOWN {
            self.names.push(name);
        }
    }
}

/// Reckons. The triggers come in order of their names. Goes through all times in order, without keeping them.
pub fn forecast(plans: impl IntoIterator<Item = Plan>, scope: Scope<'_>) -> Forecast {
    bounded(plans, scope, FORECAST_TIMES_MAX)
}

fn bounded(plans: impl IntoIterator<Item = Plan>, scope: Scope<'_>, times_max: u64) -> Forecast {
    let [mut paused, mut estimated, mut overdue, mut unreadable] =
        [const { Named { count: 0, names: Vec::new() } }; 4];
    let mut tally = Tally::new(scope);
    let mut sources = Vec::new();
    let mut next = BinaryHeap::new();
    for plan in plans {
        // When something happens that isn't the clock's can't be foreseen.
        if plan.spec.rule.schedule().is_none() {
            continue;
        }
        if plan.paused {
            paused.add(plan.name);
            continue;
        }
        let Ok(mut source) = Source::new(&plan, tally.task(&plan.task), scope) else {
            unreadable.add(plan.name);
            continue;
        };
        let begins = source.begin(plan.next_at, scope.from);
        if source.is_estimated() {
            estimated.add(plan.name.clone());
        }
        let first = match begins {
            Begins::At(due) => Some(due),
            Begins::Overdue(due) => {
                overdue.add(plan.name);
                due
            }
            Begins::Never => None,
        };
        if let Some(due) = first.filter(|due| *due < scope.until) {
            next.push(Reverse((due, sources.len())));
            sources.push(source);
        }
    }
    let mut incomplete_from = None;
    let mut times = 0;
    while let Some(mut top) = next.peek_mut() {
        let Reverse((due, number)) = *top;
        if times == times_max {
            incomplete_from = Some(due);
            break;
        }
        times += 1;
        let source = &mut sources[number];
        tally.add(due, source);
        match source.step().filter(|due| *due < scope.until) {
            Some(following) => *top = Reverse((following, number)),
            None => {
                PeekMut::pop(top);
            }
        }
    }
    let tally = tally.end();
    Forecast {
        from: scope.from,
        until: scope.until,
        incomplete_from,
        runs: tally.runs,
        tasks: tally.tasks,
        more_tasks: tally.more_tasks,
        minutes: tally.minutes,
        hours: tally.hours,
        paused,
        estimated,
        overdue,
        unreadable,
        warnings: tally.warnings,
    }
}
