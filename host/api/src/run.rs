//! Runs.

use crate::caller::Caller;
use crate::convert::{input, labels, name, optional_duration, page, priority};
use crate::proto::run_service_server::RunService;
use crate::proto::start_runs_response::{Error, Result as StartResult, Started, result::Result as Kind};
use crate::run_convert::{from_line, from_run};
use crate::run_steps::{Wanted, on};
use crate::slots::Slot;
use crate::status::{invalid, of_quota, of_start, of_store};
use crate::{Api, proto};
use futures::stream::{BoxStream, StreamExt, unfold};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::{IDEMPOTENCY_KEY_CHARS_MAX, STARTS_PER_CALL_MAX};
use innkeeper_domain::quota::Quota;
use innkeeper_domain::run::{Run, RunState};
use innkeeper_store::{NewRun, RunWatch, StartOptions};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The longest that a watched run isn't looked at: wake-ups are hints.
const POLL: Duration = Duration::from_secs(2);

/// Log lines that are sent together.
const LINES_PER_MESSAGE: usize = 500;

#[tonic::async_trait]
impl RunService for Api {
    async fn start_run(
        &self,
        request: Request<proto::StartRunRequest>,
    ) -> Result<Response<proto::StartRunResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let start = self.start(request.into_inner())?;
        caller.start(&start.task).map_err(|e| of_start(&e))?;
        let started = self
            .store
            .runs_start(tenant, vec![start], caller.change((self.now)()))
            .await
            .map_err(of_store)?;
        let started =
            started.into_iter().next().ok_or_else(|| Status::internal("the store gave no answer"))?;
        let started = started.map_err(|e| of_start(&e))?;
        let run = self.store.run_get(tenant, started.id).await.map_err(of_store)?;
        Ok(Response::new(proto::StartRunResponse { run: Some(from_run(run)), existed: started.existed }))
    }

    async fn start_runs(
        &self,
        request: Request<proto::StartRunsRequest>,
    ) -> Result<Response<proto::StartRunsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let starts = request.into_inner().starts;
        if starts.len() > STARTS_PER_CALL_MAX {
            let count = starts.len();
            return Err(invalid(format!(
                "{count} starts in one call; at most {STARTS_PER_CALL_MAX} are taken"
            )));
        }
        let count = u64::try_from(starts.len()).unwrap_or(u64::MAX);
        caller.of.quotas.check(Quota::FanOut, 0, count).map_err(of_quota)?;
        // Mistaken starts are answered in their places; the others go to the store together.
        let parse = |start| {
            let start = self.start(start)?;
            caller.start(&start.task).map_err(|e| of_start(&e))?;
            Ok(start)
        };
        let parsed: Vec<Result<NewRun, Status>> = starts.into_iter().map(parse).collect();
        let good: Vec<NewRun> = parsed.iter().flatten().cloned().collect();
        let started =
            self.store.runs_start(tenant, good, caller.change((self.now)())).await.map_err(of_store)?;
        let mut started = started.into_iter();
        let results = parsed.into_iter().map(|parsed| match parsed {
            Err(status) => failed(&status),
            Ok(_) => match started.next() {
                Some(Ok(run)) => Kind::Started(Started { id: run.id.to_string(), existed: run.existed }),
                Some(Err(error)) => failed(&of_start(&error)),
                None => failed(&Status::internal("the store gave no answer")),
            },
        });
        let results = results.map(|kind| StartResult { result: Some(kind) }).collect();
        Ok(Response::new(proto::StartRunsResponse { results }))
    }

    async fn get_run(&self, request: Request<proto::GetRunRequest>) -> Result<Response<proto::Run>, Status> {
        let caller = Caller::of(&request)?;
        let id = run_id(&request.into_inner().id)?;
        let run = self.store.run_get(caller.tenant, id).await.map_err(of_store)?;
        caller.run(&run.task, id)?;
        Ok(Response::new(from_run(run)))
    }

    async fn list_runs(
        &self,
        request: Request<proto::ListRunsRequest>,
    ) -> Result<Response<proto::ListRunsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let filter = self.filter(&caller, Wanted::from(&request)).await?;
        let page = page(request.page_size, request.page_token)?;
        let found = self.store.run_list(caller.tenant, filter, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListRunsResponse {
            runs: found.items.into_iter().map(|run| proto::Run { input: None, ..from_run(run) }).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    type WatchRunStream = BoxStream<'static, Result<proto::Run, Status>>;

    async fn watch_run(
        &self,
        request: Request<proto::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let caller = Caller::of(&request)?;
        let id = run_id(&request.into_inner().id)?;
        let watch = self.store.hints().watch_run(id);
        let first = self.store.run_get(caller.tenant, id).await.map_err(of_store)?;
        caller.run(&first.task, id)?;
        let following = self.following(caller, id, watch)?;
        let stop = self.stop.clone();
        let runs = unfold((following, Some(first), None), |(mut following, next, last)| async move {
            let run = match next {
                Some(run) => run,
                None => match following.next_change(last?).await {
                    Ok(run) => run,
                    Err(status) => return Some((Err(status), (following, None, None))),
                },
            };
            let last = Some(run.clone()).filter(|run| !run.state.is_final());
            Some((Ok(from_run(run)), (following, None, last)))
        });
        Ok(Response::new(runs.take_until(stop.cancelled_owned()).boxed()))
    }

    async fn cancel_run(
        &self,
        request: Request<proto::CancelRunRequest>,
    ) -> Result<Response<proto::Run>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let id = run_id(&request.into_inner().id)?;
        self.may_see_run(&caller, id).await?;
        let run = self.store.run_cancel(tenant, id, caller.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(from_run(run)))
    }

    async fn cancel_runs(
        &self,
        request: Request<proto::CancelRunsRequest>,
    ) -> Result<Response<proto::CancelRunsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.cancel_step(&caller, request.into_inner()).await?))
    }

    async fn retry_run(
        &self,
        request: Request<proto::RetryRunRequest>,
    ) -> Result<Response<proto::Run>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = run_id(&request.id)?;
        let before = self.store.run_get(caller.tenant, id).await.map_err(of_store)?;
        caller.run(&before.task, id)?;
        let change = caller.change((self.now)());
        let retried = self.store.runs_retry(caller.tenant, vec![id], on(request.latest), change).await;
        let retried = retried.map_err(of_store)?;
        if let Some(rejection) = retried.refused {
            return Err(of_start(&rejection.into()));
        }
        if retried.reopened.is_empty() {
            return Err(not_retried(&before));
        }
        Ok(Response::new(from_run(self.store.run_get(caller.tenant, id).await.map_err(of_store)?)))
    }

    async fn retry_runs(
        &self,
        request: Request<proto::RetryRunsRequest>,
    ) -> Result<Response<proto::RetryRunsResponse>, Status> {
        let caller = Caller::of(&request)?;
        Ok(Response::new(self.retry_step(&caller, request.into_inner()).await?))
    }

    async fn pause_run(
        &self,
        request: Request<proto::PauseRunRequest>,
    ) -> Result<Response<proto::Run>, Status> {
        let caller = Caller::of(&request)?;
        let id = run_id(&request.into_inner().id)?;
        self.may_see_run(&caller, id).await?;
        let run = self.store.run_pause(caller.tenant, id, caller.change((self.now)())).await;
        Ok(Response::new(from_run(run.map_err(of_store)?)))
    }

    async fn resume_run(
        &self,
        request: Request<proto::ResumeRunRequest>,
    ) -> Result<Response<proto::Run>, Status> {
        let caller = Caller::of(&request)?;
        let id = run_id(&request.into_inner().id)?;
        self.may_see_run(&caller, id).await?;
        let run = self.store.run_resume(caller.tenant, id, caller.change((self.now)())).await;
        Ok(Response::new(from_run(run.map_err(of_store)?)))
    }

    type StreamLogsStream = BoxStream<'static, Result<proto::StreamLogsResponse, Status>>;

    async fn stream_logs(
        &self,
        request: Request<proto::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = run_id(&request.id)?;
        let watch = self.store.hints().watch_run(id);
        let run = self.store.run_get(caller.tenant, id).await.map_err(of_store)?;
        caller.run(&run.task, id)?;
        let following = self.following(caller, id, watch)?;
        let (follow, stop) = (request.follow, self.stop.clone());
        let lines = unfold(Some((following, (0, 0))), move |state| async move {
            let (mut following, after) = state?;
            match following.next_lines(after, follow).await {
                Ok(None) => None,
                Ok(Some((lines, after))) => Some((Ok(lines), Some((following, after)))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(lines.take_until(stop.cancelled_owned()).boxed()))
    }
}

impl Api {
    fn following(&self, caller: Caller, id: RunId, watch: RunWatch) -> Result<Following, Status> {
        let slot = self.streams.take(caller.tenant)?;
        Ok(Following { api: self.clone(), caller, id, watch, looked: Instant::now(), _slot: slot })
    }

    fn start(&self, start: proto::StartRunRequest) -> Result<NewRun, Status> {
        let key = start.idempotency_key;
        if key.chars().count() > IDEMPOTENCY_KEY_CHARS_MAX {
            return Err(invalid(format!(
                "an idempotency key has at most {IDEMPOTENCY_KEY_CHARS_MAX} characters"
            )));
        }
        let deadlines = Deadlines {
            start: optional_duration(start.start_deadline, "the start deadline")?,
            end: optional_duration(start.deadline, "the deadline")?,
        };
        deadlines.check_start().map_err(invalid)?;
        Ok(NewRun {
            id: RunId::new((self.now)()),
            task: name(&start.task, "the task")?,
            input: input(start.input)?,
            idempotency_key: Some(key).filter(|key| !key.is_empty()),
            options: StartOptions {
                deadlines,
                labels: labels(&start.labels)?,
                priority: priority(start.priority)?,
            },
        })
    }
}

fn failed(status: &Status) -> Kind {
    Kind::Error(Error { code: status.code().into(), message: status.message().into() })
}

/// Why a run can't be tried again.
fn not_retried(run: &Run) -> Status {
    Status::failed_precondition(match run.state {
        RunState::Succeeded => "the run succeeded; start another one to do it again".to_string(),
        RunState::Failed | RunState::Cancelled => {
            format!("the run's task `{}` is deleted; start a run of another one", run.task)
        }
        state => format!("the run is {state}; only one that failed or was cancelled can be tried again"),
    })
}

fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(invalid)
}

/// Somebody who follows a run. Woken by the store; never asks it in vain.
struct Following {
    api: Api,
    caller: Caller,
    id: RunId,
    watch: RunWatch,
    /// When it was last seen that the caller still may.
    looked: Instant,
    _slot: Slot,
}

impl Following {
    async fn get(&self) -> Result<Run, Status> {
        self.api.store.run_get(self.caller.tenant, self.id).await.map_err(of_store)
    }

    /// Waits for a wake-up, and not for ever: those are only hints. An error when who follows may no longer.
    async fn changed(&mut self) -> Result<(), Status> {
        let _ = tokio::time::timeout(POLL, self.watch.changed()).await;
        self.still().await
    }

    async fn still(&mut self) -> Result<(), Status> {
        self.api.still(&self.caller).await?;
        self.looked = Instant::now();
        Ok(())
    }

    /// The run as soon as it differs from `last`. Lines of its log wake it too, and are no difference.
    async fn next_change(&mut self, last: Run) -> Result<Run, Status> {
        loop {
            self.changed().await?;
            let run = self.get().await?;
            if run != last {
                return Ok(run);
            }
        }
    }

    /// The next lines of the log and the place after them; none at the end.
    async fn next_lines(
        &mut self,
        after: (u32, u32),
        follow: bool,
    ) -> Result<Option<(proto::StreamLogsResponse, (u32, u32))>, Status> {
        // Who reads a long log slowly never waits for a change.
        if self.looked.elapsed() >= POLL {
            self.still().await?;
        }
        loop {
            // Whether it is over is asked first: lines are stored no later than the end.
            let over = !follow || self.get().await?.state.is_final();
            let lines = self.api.store.run_logs(self.caller.tenant, self.id, after, LINES_PER_MESSAGE);
            let lines = lines.await.map_err(of_store)?;
            if let Some(last) = lines.last() {
                let after = (last.attempt, last.sequence);
                let lines = lines.into_iter().map(from_line).collect();
                return Ok(Some((proto::StreamLogsResponse { lines }, after)));
            }
            if over {
                return Ok(None);
            }
            self.changed().await?;
        }
    }
}
