//! Triggers: rules that start runs.

use crate::calendar::{Schedule, ScheduleError, Zones, human_duration};
use crate::holiday::Holidays;
use crate::host::{LabelError, Labels};
use crate::ids::{TaskId, TriggerId};
use crate::limits::{INPUT_BYTES_MAX, INTERVAL_MAX, JITTER_MAX, PRIORITY_MAX, TRIGGER_EXCLUDES_MAX};
use crate::name::Name;
use crate::payload::{Payload, PayloadError};
use crate::rule::{Rule, RuleError};
use crate::timetable::{Reckoning, Timetable};
use crate::word::words;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// What happens when a trigger is due while a run of its own is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlapPolicy {
    /// The new one is skipped.
    #[default]
    Skip,
    /// One waits until the one that is unfinished is over; others are skipped.
    BufferOne,
    /// They wait for each other, in order, up to a bound.
    BufferAll,
    /// The unfinished ones are cancelled, and the new one begins when they are over.
    CancelOther,
    /// Both run.
    AllowAll,
}

impl OverlapPolicy {
    /// Whether its runs wait for each other.
    pub fn waits(self) -> bool {
        matches!(self, Self::BufferOne | Self::BufferAll | Self::CancelOther)
    }
}

/// What happens to firings that were missed, while the host was down say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CatchUp {
    /// The newest runs, the others are skipped.
    #[default]
    Latest,
    /// All run.
    All,
    /// None runs.
    None,
}

/// Why a nominal time has no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// A run of the same trigger was unfinished.
    Overlap,
    /// Missed, and a newer one was due as well: catch-up mode `latest`. Of events, a newer one came within the debounce.
    Superseded,
    /// Missed, with catch-up mode `none`.
    Missed,
    /// Missed by more than the catch-up window.
    TooLate,
    /// The task had as many unfinished runs as it may have.
    QueueFull,
    /// The trigger was paused, or its tenant, or the whole fleet.
    Paused,
    /// The tenant was suspended.
    TenantSuspended,
    /// The tenant had used up a quota.
    Quota,
    /// It was on a holiday of a calendar that the trigger excludes.
    Holiday,
    /// It was outside the trigger's window.
    OutsideWindow,
    /// Too many runs in a row had each been started by an event of the one before.
    Loop,
    /// Events that were not kept long enough to come to the trigger.
    Expired,
    /// No input could be made of the event, or of the run that has ended.
    NoInput,
}

words!(
    OverlapPolicy,
    "an overlap policy",
    Skip = "skip",
    BufferOne = "buffer-one",
    BufferAll = "buffer-all",
    CancelOther = "cancel-other",
    AllowAll = "allow-all"
);
words!(CatchUp, "a catch-up mode", Latest = "latest", All = "all", None = "none");
words!(
    SkipReason,
    "a reason to skip",
    Overlap = "overlap",
    Superseded = "superseded",
    Missed = "missed",
    TooLate = "too-late",
    QueueFull = "queue-full",
    Paused = "paused",
    TenantSuspended = "tenant-suspended",
    Quota = "quota",
    Holiday = "holiday",
    OutsideWindow = "outside-window",
    Loop = "loop",
    Expired = "expired",
    NoInput = "no-input"
);

/// What a trigger says. Kept as JSON beside its input: a field added later has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerSpec {
    #[serde(flatten)]
    pub rule: Rule,
    #[serde(default)]
    pub overlap: OverlapPolicy,
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Firings missed by more than this are skipped, whatever the mode.
    #[serde(default = "catch_up_window_default")]
    pub catch_up_window: Duration,
    /// No nominal time is earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// No nominal time is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// After so many runs it has finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u64>,
    /// Each run is started later than its nominal time by less than this, how much being drawn from the trigger
    /// and the nominal time; never as late as the next nominal time.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub jitter: Duration,
    /// Holiday calendars; nominal times on their dates are skipped.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclude: BTreeSet<Name>,
    /// What its runs are labelled with, beside its task's.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Of its runs; its task's if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
}

fn catch_up_window_default() -> Duration {
    Duration::from_secs(24 * 3600)
}

/// A trigger that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerSpecError {
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("{0} was asked for; only what has a schedule can have it")]
    NotScheduled(&'static str),
    #[error("an input was given; what starts its runs is their input")]
    InputOfEvents,
    #[error("a catch-up window of {} was asked for; it may be at most {}", human_duration(*.0), human_duration(INTERVAL_MAX))]
    CatchUpWindow(Duration),
    #[error(transparent)]
    Input(#[from] PayloadError),
    #[error("the schedule has no time after {0}: it would never fire")]
    NeverFires(Timestamp),
    #[error("the schedule has no time from {0} to {1}: it would never fire")]
    NeverFiresInWindow(Timestamp, Timestamp),
    #[error("its end, {end}, is before its start, {start}")]
    Window { start: Timestamp, end: Timestamp },
    #[error("its end, {end}, is past; it is {now}")]
    Over { end: Timestamp, now: Timestamp },
    #[error("at most 0 runs were asked for; it may be 1 or more")]
    NoRuns,
    #[error("a jitter of {} was asked for; it may be at most {}", human_duration(*.0), human_duration(JITTER_MAX))]
    Jitter(Duration),
    #[error("a fixed delay can't have jitter: its times follow its runs, and so spread by themselves")]
    JitterOfDelay,
    #[error(
        "{0} holiday calendars are excluded; at most {TRIGGER_EXCLUDES_MAX} can be: put their dates into one"
    )]
    Excludes(usize),
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error("a priority of {0} was asked for; it may be 0 to {PRIORITY_MAX}, the highest")]
    Priority(u8),
    #[error("all its times that can be foreseen after {0} are holidays that it excludes: it would never run")]
    OnlyHolidays(Timestamp),
}

impl TriggerSpec {
    /// A trigger with nothing said but its rule.
    pub fn new(rule: impl Into<Rule>) -> Self {
        let rule = rule.into();
        let overlap = match rule {
            Rule::Schedule(_) => OverlapPolicy::Skip,
            // What each of them is about happens once.
            Rule::Event(_) | Rule::After(_) | Rule::Webhook(_) => OverlapPolicy::AllowAll,
        };
        Self {
            rule,
            overlap,
            catch_up: CatchUp::default(),
            catch_up_window: catch_up_window_default(),
            not_before: None,
            not_after: None,
            max_runs: None,
            jitter: Duration::ZERO,
            exclude: BTreeSet::new(),
            labels: Labels::default(),
            priority: None,
        }
    }

    /// Checks every bound, and that it fires at all after `now`; returns its first time as trigger `id`, if it has a
    /// schedule.
    pub fn check(
        &self,
        id: TriggerId,
        input: &Payload,
        zones: &dyn Zones,
        now: Timestamp,
    ) -> Result<Option<Reckoning>, TriggerSpecError> {
        if self.catch_up_window > INTERVAL_MAX {
            return Err(TriggerSpecError::CatchUpWindow(self.catch_up_window));
        }
        if self.jitter > JITTER_MAX {
            return Err(TriggerSpecError::Jitter(self.jitter));
        }
        if !self.jitter.is_zero() && self.delay().is_some() {
            return Err(TriggerSpecError::JitterOfDelay);
        }
        if let Some(priority) = self.priority.filter(|priority| *priority > PRIORITY_MAX) {
            return Err(TriggerSpecError::Priority(priority));
        }
        if self.max_runs == Some(0) {
            return Err(TriggerSpecError::NoRuns);
        }
        if self.exclude.len() > TRIGGER_EXCLUDES_MAX {
            return Err(TriggerSpecError::Excludes(self.exclude.len()));
        }
        self.labels.check()?;
        if let (Some(start), Some(end)) = (self.not_before, self.not_after)
            && end < start
        {
            return Err(TriggerSpecError::Window { start, end });
        }
        input.check("the input", INPUT_BYTES_MAX)?;
        if self.rule.schedule().is_none() {
            return self.check_unscheduled(input, now).map(|()| None);
        }
        let timetable = Timetable::new(id, self, zones)?;
        match (timetable.next_after(now), self.not_after) {
            (Some(next), _) => Ok(Some(Reckoning {
                next: timetable.upcoming(next),
                covered: timetable.covered(now),
                edition: self.edition(zones).into(),
            })),
            (None, Some(end)) => {
                Err(TriggerSpecError::NeverFiresInWindow(self.not_before.map_or(now, |s| s.max(now)), end))
            }
            (None, None) => Err(TriggerSpecError::NeverFires(now)),
        }
    }

    /// What only schedules have is refused.
    fn check_unscheduled(&self, input: &Payload, now: Timestamp) -> Result<(), TriggerSpecError> {
        self.rule.check()?;
        if !input.bytes.is_empty() && self.rule.follows_events() {
            return Err(TriggerSpecError::InputOfEvents);
        }
        let extras = [
            (!self.jitter.is_zero(), "jitter"),
            (!self.exclude.is_empty(), "a holiday calendar to exclude"),
            (self.catch_up != CatchUp::default(), "a catch-up mode"),
            (self.catch_up_window != catch_up_window_default(), "a catch-up window"),
        ];
        if let Some((_, what)) = extras.into_iter().find(|(asked, _)| *asked) {
            return Err(TriggerSpecError::NotScheduled(what));
        }
        match self.not_after {
            Some(end) if end < now => Err(TriggerSpecError::Over { end, now }),
            _ => Ok(()),
        }
    }

    /// Its schedule.
    pub fn schedule(&self) -> Result<&Schedule, ScheduleError> {
        self.rule.schedule().ok_or_else(|| ScheduleError::NoSchedule(self.rule.to_string()))
    }

    /// Whether an instant is in its window.
    pub fn is_within_window(&self, at: Timestamp) -> bool {
        self.not_before.is_none_or(|start| start <= at) && self.not_after.is_none_or(|end| at <= end)
    }

    /// Checks that not all its times after `now` are on these holidays, which are those that it excludes.
    pub fn check_holidays(
        &self,
        holidays: &Holidays,
        zones: &dyn Zones,
        now: Timestamp,
    ) -> Result<(), TriggerSpecError> {
        // A fixed delay goes on after the holidays by itself.
        if holidays.is_empty() || self.delay().is_some() {
            return Ok(());
        }
        // Jitter, for which the id is, moves nothing to another date.
        let timetable = Timetable::new(TriggerId(uuid::Uuid::nil()), self, zones)?;
        match timetable.next_working_after(now, holidays) {
            Some(_) => Ok(()),
            None => Err(TriggerSpecError::OnlyHolidays(now)),
        }
    }

    /// The edition of these zones, if what it says depends on it; else empty.
    pub fn edition<'a>(&self, zones: &'a dyn Zones) -> &'a str {
        match &self.rule {
            Rule::Schedule(Schedule::Cron(cron)) if cron.zone != "UTC" => zones.edition(),
            _ => "",
        }
    }

    /// How long after the end of each run the next is due, if that is how it is scheduled.
    pub fn delay(&self) -> Option<Duration> {
        match self.rule {
            Rule::Schedule(Schedule::FixedDelay { delay, .. }) => Some(delay),
            _ => None,
        }
    }

    /// The least time between two of its firings after `now`: of an interval the interval, of a cron pattern what
    /// [`Calendar::least_gap`](crate::calendar::Calendar::least_gap) guarantees; none if it fires once at most, or has no
    /// schedule.
    pub fn least_gap(&self, now: Timestamp) -> Result<Option<Duration>, ScheduleError> {
        let Some(schedule) = self.rule.schedule() else { return Ok(None) };
        let calendar = schedule.calendar()?;
        Ok(match schedule {
            Schedule::Interval { every: gap, .. } | Schedule::FixedDelay { delay: gap, .. } => Some(*gap),
            Schedule::Once { .. } => None,
            Schedule::Cron(_) => calendar.least_gap(now),
        })
    }
}

/// Where a trigger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerState {
    Active,
    /// Creates no runs; why is in the note.
    Paused {
        note: String,
        at: Timestamp,
    },
    /// Its schedule has no more times.
    Finished,
}

/// A trigger as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub id: TriggerId,
    pub task_id: TaskId,
    pub task: Name,
    pub name: Name,
    pub spec: TriggerSpec,
    pub input: Payload,
    pub state: TriggerState,
    /// The next nominal time that is not yet accounted for; none when finished, and while a fixed delay waits for
    /// the end of its run.
    pub next_at: Option<Timestamp>,
    /// The nominal time of the last run that it started.
    pub last_nominal: Option<Timestamp>,
    /// Runs that it has started.
    pub started: u64,
    /// Nominal times that have no run.
    pub skipped: u64,
    pub created_at: Timestamp,
    /// How many events of its tenant it hasn't dealt with yet, if it follows events.
    pub behind: Option<u64>,
}

/// Nominal times in a row that have no run, for one reason. `from` and `to` are both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipRange {
    pub from: Timestamp,
    pub to: Timestamp,
    pub count: u64,
    pub reason: SkipReason,
}

impl SkipRange {
    /// Whether this only goes on from the trigger's last skip, which ended at `to`: for the same reason, later (a
    /// clock that was set back makes times that are not), with no run in between; `last_run` is the last one before
    /// this. Then that one gets longer instead.
    pub fn continues(&self, to: Timestamp, reason: SkipReason, last_run: Option<Timestamp>) -> bool {
        reason == self.reason && self.from >= to && last_run.is_none_or(|run| run < to)
    }
}

#[cfg(test)]
#[path = "trigger_tests.rs"]
mod tests;
