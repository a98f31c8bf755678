//! Runs that triggers start for something that has happened, decided for every driver alike. A driver reads the
//! [`Source`] under its locks, goes through what has happened in order, and writes what [`Starting`] says then.

use crate::StoreError;
use crate::gates::{WaitsForOwn, begin};
use crate::standing::Account;
use crate::terms::{Pinned, Terms};
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::{AdmissionState, Asker, Verdict, admit};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::gate::{Passage, TaskGates};
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::trigger::{SkipRange, SkipReason, TriggerSpec};

/// A trigger as the transaction finds it.
#[derive(Debug)]
pub(crate) struct Source {
    pub id: TriggerId,
    pub tenant: TenantId,
    pub name: Name,
    pub task: TaskId,
    pub revision: u32,
    /// See [`innkeeper_domain::host::Labels`].
    pub requires: String,
    pub terms: Terms,
    pub gates: TaskGates,
    pub task_paused: bool,
    pub priority: u8,
    pub spec: TriggerSpec,
    pub standing: Standing,
    /// The nominal time of the last run that it started.
    pub last_nominal: Option<Timestamp>,
    pub last_success_nominal: Option<Timestamp>,
    pub unfinished_of_task: u64,
    pub unfinished_of_trigger: u64,
    /// Runs that it has started.
    pub started: u64,
}

/// Whether a trigger starts runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    Paused,
    Finished,
}

impl Standing {
    pub fn of(state: &str) -> Self {
        match state {
            "active" => Self::Active,
            "paused" => Self::Paused,
            _ => Self::Finished,
        }
    }
}

/// A run to insert.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub id: RunId,
    pub occurrence: String,
    pub nominal_at: Timestamp,
    /// The time of the first, and how many, of what it is of: several events can be one occurrence.
    pub from: Timestamp,
    pub count: u64,
    /// See [`innkeeper_domain::event::Event::depth`].
    pub depth: u32,
    pub input: Payload,
}

impl Start {
    fn skipped(&self, reason: SkipReason) -> SkipRange {
        SkipRange { from: self.from, to: self.nominal_at, count: self.count, reason }
    }
}

/// What a transaction has come to.
#[derive(Debug)]
pub(crate) struct Starting<'a> {
    source: &'a Source,
    account: &'a mut Account,
    pub starts: Vec<Start>,
    /// Whether the trigger's unfinished runs are cancelled before these are inserted.
    pub cancels: bool,
    /// Each with the nominal time of the last run before it.
    pub skips: Vec<(SkipRange, Option<Timestamp>)>,
}

impl<'a> Starting<'a> {
    pub fn new(source: &'a Source, account: &'a mut Account) -> Self {
        Self { source, account, starts: Vec::new(), cancels: false, skips: Vec::new() }
    }

    /// Asks for a run; what has none is a skip.
    pub fn start(&mut self, start: Start) -> Result<(), SkipReason> {
        let so_far = self.starts.len() as u64;
        let before = if self.cancels { 0 } else { self.source.unfinished_of_trigger };
        let state = AdmissionState {
            unfinished_of_task: self.source.unfinished_of_task + so_far,
            unfinished_of_trigger: before + so_far,
            same_key: None,
            tenant: self.account.for_trigger(&start.input),
            task_paused: self.source.task_paused,
        };
        match admit(Asker::Trigger { overlap: self.source.spec.overlap }, state) {
            verdict @ (Verdict::Run | Verdict::Buffer | Verdict::Replace) => {
                if verdict == Verdict::Replace {
                    self.replace();
                }
                self.account.fired(1, &start.input);
                self.starts.push(start);
                Ok(())
            }
            Verdict::Skip(reason) => {
                if let (SkipReason::Quota, Some((_, exceeded))) = (reason, &state.tenant.over) {
                    self.account.refused(exceeded);
                }
                self.skip(start.skipped(reason));
                Err(reason)
            }
            Verdict::Existing(_) | Verdict::Reject(_) => {
                unreachable!("only hands have keys and are rejected")
            }
        }
    }

    /// What came before makes room: runs that aren't inserted yet are superseded, those that are will be cancelled.
    fn replace(&mut self) {
        self.cancels |= self.source.unfinished_of_trigger > 0;
        for start in std::mem::take(&mut self.starts) {
            self.account.not_fired(&start.input);
            self.skip(start.skipped(SkipReason::Superseded));
        }
    }

    /// Where a run that is inserted stands among its gates, its key, and what its row keeps of its task.
    pub fn placed(&self, start: &Start, now: Timestamp) -> (Passage, Option<String>, Pinned) {
        let source = self.source;
        let waits_for_own = if source.spec.overlap.waits() { WaitsForOwn::Yes } else { WaitsForOwn::No };
        let (passage, key) = begin(&source.gates, &start.input, waits_for_own);
        let pinned = source.terms.pinned(Deadlines::default(), &source.spec.labels, start.nominal_at, now);
        (passage, key, pinned)
    }

    pub fn skip(&mut self, skip: SkipRange) {
        let last_run = self.last_nominal();
        match self.skips.last_mut() {
            Some((last, run)) if *run == last_run && skip.continues(last.to, last.reason, last_run) => {
                last.to = skip.to;
                last.count += skip.count;
            }
            _ => self.skips.push((skip, last_run)),
        }
    }

    /// The nominal time of the last run that the trigger has started then.
    pub fn last_nominal(&self) -> Option<Timestamp> {
        self.starts.last().map(|start| start.nominal_at).or(self.source.last_nominal)
    }

    /// Whether it has started as many runs as it may.
    pub fn is_over(&self) -> bool {
        let started = self.source.started + self.starts.len() as u64;
        self.source.spec.max_runs.is_some_and(|most| started >= most)
    }

    /// How many runs, and how many skips, as rows count them.
    pub fn counts(&self) -> (i64, i64) {
        let skipped = self.skips.iter().map(|(skip, _)| skip.count).sum::<u64>();
        (i64::try_from(self.starts.len()).unwrap_or(i64::MAX), i64::try_from(skipped).unwrap_or(i64::MAX))
    }
}

/// Decides about one firing of a webhook's trigger.
pub(crate) fn fire(
    starting: &mut Starting<'_>,
    firing: &crate::NewFiring,
) -> Result<crate::Fired, StoreError> {
    let source = starting.source;
    if source.standing == Standing::Finished {
        return Err(crate::words::has_finished(&source.name));
    }
    let reason = match source.standing {
        Standing::Paused => Some(SkipReason::Paused),
        _ if !source.spec.is_within_window(firing.nominal_at) => Some(SkipReason::OutsideWindow),
        _ => None,
    };
    let at = firing.nominal_at;
    if let Some(reason) = reason {
        starting.skip(SkipRange { from: at, to: at, count: 1, reason });
        return Ok(crate::Fired::Skipped(reason));
    }
    let (id, occurrence, input) = (firing.run_id, firing.occurrence.clone(), firing.input.clone());
    let start = Start { id, occurrence, nominal_at: at, from: at, count: 1, depth: 0, input };
    Ok(match starting.start(start) {
        Ok(()) => crate::Fired::Run(id),
        Err(reason) => crate::Fired::Skipped(reason),
    })
}

/// Refuses what no run is started of.
pub(crate) fn check(source: &Source, occurrence: &str) -> Result<(), StoreError> {
    use innkeeper_domain::limits::OCCURRENCE_BYTES_MAX;
    if !matches!(source.spec.rule, innkeeper_domain::rule::Rule::Webhook(_)) {
        return Err(StoreError::Invalid(format!("trigger `{}` is no webhook's", source.name)));
    }
    if occurrence.is_empty() || occurrence.len() > OCCURRENCE_BYTES_MAX {
        let bytes = occurrence.len();
        return Err(StoreError::Invalid(format!(
            "the delivery's name has {bytes} bytes; it may have 1 to {OCCURRENCE_BYTES_MAX}"
        )));
    }
    Ok(())
}
