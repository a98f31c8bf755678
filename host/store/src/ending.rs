//! How a lease ends, decided for every driver alike. A driver reads [`Leased`] under the fence, and writes
//! what [`Ended`] says.

use crate::{Finish, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::failure::{Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::gate::Passage;
use innkeeper_domain::ids::{BackfillId, TaskId, TenantId};
use innkeeper_domain::limits::HOST_LOSSES_MAX;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{RunEvent, RunState};
use std::borrow::Cow;

/// A leased run's row, as far as its end needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leased {
    pub started_at: Timestamp,
    pub cancel_requested: bool,
    pub losses: u32,
    pub nominal_at: Timestamp,
    pub tenant: TenantId,
    pub task: TaskId,
    pub backfill: Option<BackfillId>,
    pub input_bytes: u64,
    /// Then no outcome is committed any more.
    pub tenant_deleted: bool,
    pub passage: Passage,
}

/// What became of a run by the end of a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AfterLease {
    pub tenant: TenantId,
    pub state: RunState,
    pub backfill: Option<BackfillId>,
    /// Whether its end is an event.
    pub tells: bool,
    /// Whether it has given a slot of a gate back.
    pub opens: bool,
}

/// What ends a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LeaseEnd<'a> {
    /// Its attempt ended.
    Outcome(&'a Finish),
    /// Its host gives it back, with no outcome.
    HandedBack,
    /// Its host gave no sign of life.
    HostLost,
    /// Its host lives, but has not ended it by its deadline or after a cancel.
    Overdue,
}

/// What becomes of the run's row.
#[derive(Debug, Clone)]
pub(crate) struct Ended<'a> {
    pub state: RunState,
    /// None: as it was.
    pub available_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub output: Option<&'a Payload>,
    pub failure: Option<Cow<'a, Failure>>,
    /// What the attempt used, to be put on record with `failure`; none if it is as if it had never been. Then
    /// an earlier failure stays.
    pub attempt: Option<Usage>,
    /// Whether it ended without an outcome of the guest's: no host has the run any more, and it was no try.
    pub interrupted: bool,
    /// Whether that counts as a loss of a host.
    pub lost: bool,
}

impl Ended<'_> {
    /// What goes on the bill: an attempt that had an outcome.
    pub fn billed(&self) -> Option<Usage> {
        self.attempt.filter(|_| !self.interrupted)
    }
}

impl Leased {
    pub fn after(&self, state: RunState) -> AfterLease {
        AfterLease {
            tenant: self.tenant,
            state,
            backfill: self.backfill,
            tells: false,
            opens: !self.passage.passed.is_empty(),
        }
    }

    /// Where it stands among its gates then.
    pub fn passage_after(&self, state: RunState) -> Passage {
        if state.is_final() { self.passage.over() } else { self.passage.queued() }
    }

    /// Decides. `LeaseLost`: the tenant is deleted.
    pub fn end<'a>(&self, end: LeaseEnd<'a>, now: Timestamp) -> Result<Ended<'a>, StoreError> {
        let next = |event| RunState::Running.next(event).map_err(|e| StoreError::Conflict(e.to_string()));
        let finished = |state: RunState| Some(now).filter(|_| state.is_final());
        match end {
            LeaseEnd::Outcome(_) if self.tenant_deleted => Err(StoreError::LeaseLost),
            LeaseEnd::Outcome(finish) => {
                let outcome = &finish.end.outcome;
                let again = finish.again_at.is_some();
                let state = next(RunEvent::of_attempt(outcome, again, self.cancel_requested))?;
                let (output, failure) = match outcome {
                    Outcome::Output(output) => (Some(output), None),
                    Outcome::Failure(failure) => (None, Some(Cow::Borrowed(failure))),
                };
                Ok(Ended {
                    state,
                    available_at: finish.again_at.filter(|_| state == RunState::Waiting),
                    finished_at: finished(state),
                    output,
                    failure,
                    attempt: Some(finish.end.usage),
                    interrupted: false,
                    lost: false,
                })
            }
            LeaseEnd::HandedBack => {
                let state = next(if self.cancel_requested {
                    RunEvent::AttemptCancelled
                } else {
                    RunEvent::LeaseEnded { again: true }
                })?;
                Ok(Ended {
                    state,
                    available_at: Some(now),
                    finished_at: finished(state),
                    output: None,
                    failure: None,
                    attempt: None,
                    interrupted: true,
                    lost: false,
                })
            }
            LeaseEnd::Overdue => {
                let (event, kind, what) = if self.cancel_requested {
                    (RunEvent::AttemptCancelled, FailureKind::Cancelled, "it was cancelled")
                } else {
                    let event = RunEvent::LeaseEnded { again: false };
                    (event, FailureKind::Deadline, "it was not over by its deadline")
                };
                let state = next(event)?;
                let message = format!("{what}, and its host did not end it");
                Ok(Ended {
                    state,
                    available_at: None,
                    finished_at: finished(state),
                    output: None,
                    failure: Some(Cow::Owned(Failure::new(kind, message))),
                    attempt: Some(Usage::default()),
                    interrupted: true,
                    lost: false,
                })
            }
            LeaseEnd::HostLost => {
                let losses = self.losses + 1;
                let event = if self.cancel_requested {
                    RunEvent::AttemptCancelled
                } else {
                    RunEvent::LeaseEnded { again: losses < HOST_LOSSES_MAX }
                };
                let state = next(event)?;
                let message = format!("the host was lost while the attempt ran (loss {losses} of this run)");
                Ok(Ended {
                    state,
                    available_at: Some(now),
                    finished_at: finished(state),
                    output: None,
                    failure: Some(Cow::Owned(Failure::new(FailureKind::HostLost, message))),
                    attempt: Some(Usage::default()),
                    interrupted: true,
                    lost: true,
                })
            }
        }
    }
}

/// A deadline that passed while no attempt was executing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// That of the first attempt's beginning.
    Start(Timestamp),
    /// That of the whole run.
    End(Timestamp),
}

impl Passed {
    /// What the run fails with.
    pub fn failure(self) -> Failure {
        match self {
            Self::Start(by) => {
                let message = format!("no attempt had begun by {by}, its start deadline");
                Failure::new(FailureKind::StartDeadline, message)
            }
            Self::End(by) => {
                Failure::new(FailureKind::Deadline, format!("it was not over by {by}, its deadline"))
            }
        }
    }
}
