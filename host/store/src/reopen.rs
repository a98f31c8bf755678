//! What becomes of a run that somebody wants tried again though it is over, decided for every driver alike.

use crate::standing::Account;
use crate::{OnRevision, Retried};
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::{AdmissionState, Asker, Rejection, Verdict, admit};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::{RunEvent, RunState};
use innkeeper_domain::task::TaskSpec;

/// A run's row, as far as the decision needs it.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    pub id: RunId,
    pub state: RunState,
    pub revision: u32,
    pub requires: String,
    /// When it was due, or reopened before.
    pub due: Timestamp,
    pub start_by: Option<Timestamp>,
    pub end_by: Option<Timestamp>,
}

/// What is written into the row of a run that is queued again. Its attempts are counted on; tries and losses begin anew.
#[derive(Debug, Clone)]
pub(crate) struct Reopened {
    pub id: RunId,
    pub state: RunState,
    /// Before.
    pub was: RunState,
    pub revision: u32,
    pub requires: String,
    pub start_by: Option<Timestamp>,
    pub end_by: Option<Timestamp>,
}

impl Over {
    /// Its pinned revision, or the task's current one.
    pub fn revision(&self, on: OnRevision, current: u32) -> u32 {
        match on {
            OnRevision::Pinned => self.revision,
            OnRevision::Current => current,
        }
    }

    /// None if it isn't over, or succeeded. With a `spec`, which is of the task's current revision, that takes the
    /// place of what it had.
    pub fn reopen(self, spec: Option<(u32, &TaskSpec)>, now: Timestamp) -> Option<Reopened> {
        let state = self.state.next(RunEvent::Reopened).ok()?;
        let own = Deadlines::of(self.due, self.start_by, self.end_by);
        let (revision, requires, deadlines) = match spec {
            Some((revision, spec)) => (revision, spec.requires.to_string(), spec.deadlines()),
            None => (self.revision, self.requires, own),
        };
        let (start_by, end_by) = (deadlines.start_by(now), deadlines.end_by(now));
        Some(Reopened { id: self.id, state, was: self.state, revision, requires, start_by, end_by })
    }
}

/// Whether one more unfinished run of a task can be; the account is charged for it.
pub(crate) fn may_reopen(
    account: &mut Account,
    unfinished_of_task: u64,
    now: Timestamp,
) -> Result<(), Rejection> {
    let tenant = account.for_retry(now);
    let state = AdmissionState { unfinished_of_task, tenant, ..AdmissionState::default() };
    match admit(Asker::Hand, state) {
        Verdict::Reject(rejection) => {
            if let Rejection::Quota(exceeded) = &rejection {
                account.refused(exceeded);
            }
            Err(rejection)
        }
        Verdict::Run | Verdict::Buffer | Verdict::Replace | Verdict::Existing(_) | Verdict::Skip(_) => {
            account.retried(now);
            Ok(())
        }
    }
}

impl Retried {
    /// Nothing of these.
    pub(crate) fn none_of(ids: &[RunId]) -> Self {
        Self { left_out: ids.len() as u64, ..Self::default() }
    }
}

/// Runs' ids in the order in which they are dealt with, each once.
pub(crate) fn in_order(mut ids: Vec<RunId>) -> Vec<RunId> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
