//! What a forecast adds up, time after time.

use super::source::Source;
use super::warning::{Crowd, Warning};
use super::{BusyMinute, Scope, TaskForecast};
use crate::limits::{
    FORECAST_MINUTE_TASKS_SHOWN, FORECAST_MINUTES_SHOWN, FORECAST_TASKS_SHOWN, STORED_BYTES_PER_RUN,
};
use crate::name::Name;
use crate::quota::Quota;
use crate::tenant::TenantState;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::HashMap;

const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;

/// The sums up to the last time that was added.
pub(super) struct Tally {
    runs: u64,
    places: HashMap<Name, usize>,
    tasks: Vec<TaskForecast>,
    first_hour: i64,
    hours: Vec<u64>,
    minute: Minute,
    /// The busiest minutes so far, in no order.
    busiest: Vec<BusyMinute>,
    /// The instant that is under way, and how many are due at it.
    instant: (Timestamp, u64),
    crowds: Crowd,
    tenant: TenantState,
    /// Bytes that may be stored yet, and those that the runs so far will.
    room: Option<u64>,
    needed: u64,
    full_from: Option<Timestamp>,
}

/// The minute that is under way.
#[derive(Default)]
struct Minute {
    number: i64,
    runs: u64,
    at_once: u64,
    /// Of every task, by its place.
    by_task: Vec<u64>,
    /// The places of those that aren't zero.
    touched: Vec<usize>,
}

/// The sums.
pub(super) struct Tallied {
    pub runs: u64,
    pub tasks: Vec<TaskForecast>,
    pub more_tasks: u64,
    pub minutes: Vec<BusyMinute>,
    pub hours: Vec<(Timestamp, u64)>,
    pub warnings: Vec<Warning>,
}

impl Tally {
    pub fn new(scope: Scope<'_>) -> Self {
        let first_hour = scope.from.as_second().div_euclid(HOUR);
        // The last microsecond of it is in its last hour.
        let end = (scope.until.as_microsecond() - 1).div_euclid(HOUR * 1_000_000);
        let hours = usize::try_from(end - first_hour + 1).unwrap_or(0);
        let room = scope.quotas.get(Quota::StoredBytes).map(|limit| limit.saturating_sub(scope.stored_bytes));
        Self {
            runs: 0,
            places: HashMap::new(),
            tasks: Vec::new(),
            first_hour,
            hours: vec![0; hours],
            minute: Minute::default(),
            busiest: Vec::new(),
            instant: (scope.from, 0),
            crowds: Crowd::new(scope.quotas.get(Quota::ConcurrentRuns)),
            tenant: scope.tenant,
            room,
            needed: 0,
            full_from: None,
        }
    }

    /// A task's place here.
    pub fn task(&mut self, task: &Name) -> usize {
        if let Some(place) = self.places.get(task) {
            return *place;
        }
        let (runs, estimated, first, last) = (0, 0, Timestamp::MAX, Timestamp::MIN);
        self.tasks.push(TaskForecast { task: task.clone(), runs, estimated, first, last });
        self.places.insert(task.clone(), self.tasks.len() - 1);
        self.minute.by_task.push(0);
        self.tasks.len() - 1
    }

    /// Adds a run that is due, not before one that was added.
    pub fn add(&mut self, due: Timestamp, source: &Source) {
        self.runs += 1;
        let task = &mut self.tasks[source.task];
        task.runs += 1;
        task.estimated += u64::from(source.is_estimated());
        task.first = task.first.min(due);
        task.last = due;
        let second = due.as_second();
        let hour = usize::try_from(second.div_euclid(HOUR) - self.first_hour).unwrap_or(0);
        if let Some(runs) = self.hours.get_mut(hour) {
            *runs += 1;
        }
        if due != self.instant.0 {
            self.end_instant();
            self.instant = (due, 0);
        }
        if second.div_euclid(MINUTE) != self.minute.number {
            self.end_minute();
            self.minute.number = second.div_euclid(MINUTE);
        }
        self.minute.add(source.task);
        self.instant.1 += u64::from(!source.is_estimated());
        self.needed = self.needed.saturating_add(STORED_BYTES_PER_RUN).saturating_add(source.input_bytes);
        if self.room.is_some_and(|room| self.needed > room) {
            self.full_from = self.full_from.or(Some(due));
        }
    }

    fn end_instant(&mut self) {
        let (at, due) = self.instant;
        self.minute.at_once = self.minute.at_once.max(due);
        self.crowds.add(at, due);
    }

    fn end_minute(&mut self) {
        let minute = &mut self.minute;
        // The least busy of them, the last of several.
        let least =
            self.busiest.iter().enumerate().min_by_key(|(_, minute)| (minute.runs, Reverse(minute.at)));
        let least = least.map(|(place, least)| (place, least.runs));
        let full = self.busiest.len() == FORECAST_MINUTES_SHOWN;
        if minute.runs > 0 && (!full || least.is_some_and(|(_, runs)| runs < minute.runs)) {
            if let Some((place, _)) = least.filter(|_| full) {
                self.busiest.swap_remove(place);
            }
            self.busiest.push(minute.told(&self.tasks));
        }
        minute.clear();
    }

    /// What has come together.
    pub fn end(mut self) -> Tallied {
        self.end_instant();
        self.end_minute();
        self.busiest.sort_by_key(|minute| (Reverse(minute.runs), minute.at));
        let mut tasks: Vec<TaskForecast> = self.tasks.into_iter().filter(|task| task.runs > 0).collect();
        tasks.sort_by(|a, b| b.runs.cmp(&a.runs).then_with(|| a.task.cmp(&b.task)));
        let more_tasks = tasks.len().saturating_sub(FORECAST_TASKS_SHOWN) as u64;
        tasks.truncate(FORECAST_TASKS_SHOWN);
        let mut warnings = Vec::new();
        if self.tenant == TenantState::Suspended {
            warnings.push(Warning::Suspended);
        }
        warnings.extend(self.crowds.warning());
        if let (Some(room), Some(from)) = (self.room, self.full_from) {
            warnings.push(Warning::StoredBytes { room, needed: self.needed, from });
        }
        let hours =
            (self.first_hour..).zip(self.hours).map(|(hour, runs)| (instant(hour * HOUR), runs)).collect();
        Tallied { runs: self.runs, tasks, more_tasks, minutes: self.busiest, hours, warnings }
    }
}

fn instant(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

impl Minute {
    fn add(&mut self, task: usize) {
        self.runs += 1;
        if self.by_task[task] == 0 {
            self.touched.push(task);
        }
        self.by_task[task] += 1;
    }

    fn told(&self, tasks: &[TaskForecast]) -> BusyMinute {
        let mut counts: Vec<(u64, &Name)> =
            self.touched.iter().map(|place| (self.by_task[*place], &tasks[*place].task)).collect();
        counts.sort_by_key(|(runs, task)| (Reverse(*runs), *task));
        let more_tasks = counts.len().saturating_sub(FORECAST_MINUTE_TASKS_SHOWN) as u64;
        counts.truncate(FORECAST_MINUTE_TASKS_SHOWN);
        BusyMinute {
            at: instant(self.number * MINUTE),
            runs: self.runs,
            at_once: self.at_once,
            tasks: counts.into_iter().map(|(runs, task)| (task.clone(), runs)).collect(),
            more_tasks,
        }
    }

    fn clear(&mut self) {
        for place in self.touched.drain(..) {
            self.by_task[place] = 0;
        }
        (self.runs, self.at_once) = (0, 0);
    }
}
