//! Cancels and retries of many runs, a bounded step a call: the runs that a filter finds after a place in the list, which
//! goes from the newest back, so that nothing that is new since the first step is touched.

use crate::caller::Caller;
use crate::convert::{instant, labels, optional_name};
use crate::proto::run::State;
use crate::run_convert::state;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::RUNS_PER_STEP_MAX;
use innkeeper_domain::run::RunState;
use innkeeper_store::{OnRevision, Page, RunFilter};
use tonic::Status;

/// Which runs a request is about.
pub(crate) struct Wanted {
    pub task: String,
    pub trigger: String,
    pub states: Vec<State>,
    pub failure_kinds: Vec<String>,
    pub ended_since: Option<prost_types::Timestamp>,
    pub labels: Vec<String>,
}

impl From<&proto::ListRunsRequest> for Wanted {
    fn from(request: &proto::ListRunsRequest) -> Self {
        Self {
            task: request.task.clone(),
            trigger: request.trigger.clone(),
            states: request.states().collect(),
            failure_kinds: request.failure_kinds.clone(),
            ended_since: request.ended_since,
            labels: request.labels.clone(),
        }
    }
}

impl From<Option<proto::RunFilter>> for Wanted {
    fn from(filter: Option<proto::RunFilter>) -> Self {
        let filter = filter.unwrap_or_default();
        let states = filter.states().collect();
        let proto::RunFilter { task, trigger, failure_kinds, ended_since, labels, .. } = filter;
        Self { task, trigger, states, failure_kinds, ended_since, labels }
    }
}

/// Some of the runs that a filter finds, and the next place in the list.
struct Found {
    ids: Vec<RunId>,
    next: Option<String>,
}

impl Api {
    /// What the caller may see of what is wanted.
    pub(crate) async fn filter(&self, caller: &Caller, wanted: Wanted) -> Result<RunFilter, Status> {
        let filter = RunFilter {
            task: optional_name(&wanted.task, "the task")?,
            trigger: optional_name(&wanted.trigger, "the trigger")?,
            only: caller.only(),
            states: wanted.states.into_iter().map(state).collect::<Result<_, _>>()?,
            failure_kinds: wanted
                .failure_kinds
                .iter()
                .map(|kind| kind.parse())
                .collect::<Result<_, _>>()
                .map_err(invalid)?,
            ended_since: wanted.ended_since.as_ref().map(|at| instant(at, "the end")).transpose()?,
            labels: labels(&wanted.labels)?,
        };
        if let Some(task) = &filter.task {
            caller.task(task)?;
        }
        if let Some(trigger) = &filter.trigger {
            self.may_see_trigger(caller, trigger).await?;
        }
        Ok(filter)
    }

    pub(crate) async fn cancel_step(
        &self,
        caller: &Caller,
        request: proto::CancelRunsRequest,
    ) -> Result<proto::CancelRunsResponse, Status> {
        let mut filter = self.filter(caller, request.filter.into()).await?;
        of_states(&mut filter, |state| !state.is_final(), "cancelled: they are queued, running or waiting")?;
        let found = self.found(caller, filter, request.page_token).await?;
        let change = caller.change((self.now)());
        let cancelled = self.store.runs_cancel(caller.tenant, found.ids, change).await.map_err(of_store)?;
        Ok(proto::CancelRunsResponse {
            ended: cancelled.ended,
            told: cancelled.told,
            next_page_token: found.next.unwrap_or_default(),
        })
    }

    pub(crate) async fn retry_step(
        &self,
        caller: &Caller,
        request: proto::RetryRunsRequest,
    ) -> Result<proto::RetryRunsResponse, Status> {
        let mut filter = self.filter(caller, request.filter.into()).await?;
        let unsuccessful = |state: RunState| matches!(state, RunState::Failed | RunState::Cancelled);
        of_states(&mut filter, unsuccessful, "retried: they are failed or cancelled")?;
        let found = self.found(caller, filter, request.page_token).await?;
        let change = caller.change((self.now)());
        let retried = self.store.runs_retry(caller.tenant, found.ids, on(request.latest), change).await;
        let retried = retried.map_err(of_store)?;
        let refused = retried.refused.map(|rejection| rejection.to_string()).unwrap_or_default();
        Ok(proto::RetryRunsResponse {
            retried: retried.reopened.len() as u64,
            left_out: retried.left_out,
            next_page_token: found.next.filter(|_| refused.is_empty()).unwrap_or_default(),
            refused,
        })
    }

    async fn found(&self, caller: &Caller, filter: RunFilter, after: String) -> Result<Found, Status> {
        let page = Page { size: RUNS_PER_STEP_MAX, after: Some(after).filter(|after| !after.is_empty()) };
        let found = self.store.run_list(caller.tenant, filter, page).await.map_err(of_store)?;
        Ok(Found { ids: found.items.into_iter().map(|run| run.id).collect(), next: found.next })
    }
}

/// By which revision a run is tried again.
pub(crate) fn on(latest: bool) -> OnRevision {
    if latest { OnRevision::Current } else { OnRevision::Pinned }
}

/// Keeps a filter to the states that a call can do something about: all of them if it names none.
fn of_states(filter: &mut RunFilter, can_be: fn(RunState) -> bool, what: &str) -> Result<(), Status> {
    if let Some(state) = filter.states.iter().find(|state| !can_be(**state)) {
        return Err(invalid(format!("runs that are {state} can't be {what}")));
    }
    if filter.states.is_empty() {
        filter.states = RunState::ALL.into_iter().filter(|state| can_be(*state)).collect();
    }
    Ok(())
}
