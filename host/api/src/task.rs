//! Tasks.

use crate::caller::Caller;
use crate::convert::{
    duration, from_duration, from_instant, from_labels, labels, name, note, optional_duration, page, priority,
};
use crate::proto::task_service_server::TaskService;
use crate::status::{invalid, of_store};
use crate::{Api, proto};
use innkeeper_domain::failure::FailureKind;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{TaskId, TenantId};
use innkeeper_domain::limits::{CANCEL_GRACE, MEMORY_DEFAULT, PRIORITY_DEFAULT, TIMEOUT_DEFAULT};
use innkeeper_domain::retry::{Backoff, RetryPolicy, listed_kind};
use innkeeper_domain::task::{Revision, Task, TaskSpec};
use innkeeper_store::{NewTask, OnGrowth, QueuedRuns};
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl TaskService for Api {
    async fn create_task(
        &self,
        request: Request<proto::CreateTaskRequest>,
    ) -> Result<Response<proto::Task>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let request = request.into_inner();
        let now = (self.now)();
        let name = name(&request.name, "the task")?;
        let spec = self.spec(tenant, request.spec).await?;
        let task = NewTask { id: TaskId::new(now), name, spec };
        Ok(Response::new(from_task(
            self.store.task_create(tenant, task, caller.change(now)).await.map_err(of_store)?,
        )))
    }

    async fn update_task(
        &self,
        request: Request<proto::UpdateTaskRequest>,
    ) -> Result<Response<proto::Task>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let request = request.into_inner();
        let name = name(&request.name, "the task")?;
        let spec = self.spec(tenant, request.spec).await?;
        let expected = Some(request.expected_revision).filter(|revision| *revision > 0);
        let growth = growth(request.accept_permissions);
        let change = caller.change((self.now)());
        let task = self.store.task_update(tenant, &name, spec, expected, growth, change).await;
        Ok(Response::new(from_task(task.map_err(of_store)?)))
    }

    async fn get_task(
        &self,
        request: Request<proto::GetTaskRequest>,
    ) -> Result<Response<proto::Task>, Status> {
        let caller = Caller::of(&request)?;
        let name = name(&request.into_inner().name, "the task")?;
        caller.task(&name)?;
        Ok(Response::new(from_task(self.store.task_get(caller.tenant, &name).await.map_err(of_store)?)))
    }

    async fn list_tasks(
        &self,
        request: Request<proto::ListTasksRequest>,
    ) -> Result<Response<proto::ListTasksResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let page = page(request.page_size, request.page_token)?;
        let labels = labels(&request.labels)?;
        let found = self.store.task_list(caller.tenant, caller.only(), page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListTasksResponse {
            tasks: found
                .items
                .into_iter()
                .filter(|task| task.spec.labels.offer(&labels))
                .map(from_task)
                .collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn list_revisions(
        &self,
        request: Request<proto::ListRevisionsRequest>,
    ) -> Result<Response<proto::ListRevisionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = name(&request.name, "the task")?;
        let page = page(request.page_size, request.page_token)?;
        caller.task(&name)?;
        let found = self.store.task_revisions(caller.tenant, &name, page).await.map_err(of_store)?;
        Ok(Response::new(proto::ListRevisionsResponse {
            revisions: found.items.into_iter().map(from_revision).collect(),
            next_page_token: found.next.unwrap_or_default(),
        }))
    }

    async fn rollback_task(
        &self,
        request: Request<proto::RollbackTaskRequest>,
    ) -> Result<Response<proto::Task>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let request = request.into_inner();
        let name = name(&request.name, "the task")?;
        let expected = Some(request.expected_revision).filter(|revision| *revision > 0);
        let growth = growth(request.accept_permissions);
        let change = caller.change((self.now)());
        let task = self.store.task_rollback(tenant, &name, request.revision, expected, growth, change).await;
        Ok(Response::new(from_task(task.map_err(of_store)?)))
    }

    async fn pause_task(
        &self,
        request: Request<proto::PauseTaskRequest>,
    ) -> Result<Response<proto::PauseTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = name(&request.name, "the task")?;
        caller.task(&name)?;
        let note = note(request.note)?;
        let queued = if request.cancel_queued { QueuedRuns::Cancel } else { QueuedRuns::Keep };
        let change = caller.change((self.now)());
        let paused = self.store.task_pause(caller.tenant, &name, note, queued, change).await;
        let (task, cancelled_runs) = paused.map_err(of_store)?;
        Ok(Response::new(proto::PauseTaskResponse { task: Some(from_task(task)), cancelled_runs }))
    }

    async fn resume_task(
        &self,
        request: Request<proto::ResumeTaskRequest>,
    ) -> Result<Response<proto::Task>, Status> {
        let caller = Caller::of(&request)?;
        let name = name(&request.into_inner().name, "the task")?;
        caller.task(&name)?;
        let task = self.store.task_resume(caller.tenant, &name, caller.change((self.now)())).await;
        Ok(Response::new(from_task(task.map_err(of_store)?)))
    }

    async fn delete_task(
        &self,
        request: Request<proto::DeleteTaskRequest>,
    ) -> Result<Response<proto::DeleteTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let tenant = caller.tenant;
        let name = name(&request.into_inner().name, "the task")?;
        let cancelled_runs =
            self.store.task_delete(tenant, &name, caller.change((self.now)())).await.map_err(of_store)?;
        Ok(Response::new(proto::DeleteTaskResponse { cancelled_runs }))
    }
}

impl Api {
    /// A definition with its defaults, checked; its component is found by the digest's first digits.
    async fn spec(&self, tenant: TenantId, spec: Option<proto::TaskSpec>) -> Result<TaskSpec, Status> {
        let spec = spec.ok_or_else(|| invalid("the task's definition is missing"))?;
        let component = self.store.component_get(tenant, &spec.component).await.map_err(of_store)?;
        let allow_http = spec.allow_http.iter().map(|host| host.parse()).collect::<Result<_, _>>();
        let spec = TaskSpec {
            component: component.digest,
            config: spec.config.into_iter().collect(),
            arguments: spec.arguments,
            timeout: duration(spec.timeout, TIMEOUT_DEFAULT, "the timeout")?,
            memory: if spec.memory_bytes == 0 { MEMORY_DEFAULT } else { spec.memory_bytes },
            scratch: Some(spec.scratch_bytes).filter(|bytes| *bytes > 0),
            retry: retry(spec.retry)?,
            allow_http: allow_http.map_err(invalid)?,
            requires: Labels::parse(spec.requires.iter().map(String::as_str)).map_err(invalid)?,
            secrets: spec
                .secrets
                .into_iter()
                .map(|(key, secret)| Ok((key, name(&secret, "the secret")?)))
                .collect::<Result<_, Status>>()?,
            start_deadline: optional_duration(spec.start_deadline, "the start deadline")?,
            deadline: optional_duration(spec.deadline, "the deadline")?,
            cancel_grace: duration(spec.cancel_grace, CANCEL_GRACE, "the grace to a cancel")?,
            labels: labels(&spec.labels)?,
            concurrency: Some(spec.concurrency).filter(|runs| *runs > 0),
            concurrency_key: Some(spec.concurrency_key).filter(|key| !key.is_empty()),
            key_concurrency: spec.key_concurrency.max(1),
            rate: match spec.rate.as_str() {
                "" => None,
                rate => Some(rate.parse().map_err(invalid)?),
            },
            priority: priority(spec.priority)?.unwrap_or(PRIORITY_DEFAULT),
        };
        spec.check().map_err(invalid)?;
        Ok(spec)
    }
}

fn growth(accept: bool) -> OnGrowth {
    if accept { OnGrowth::Accept } else { OnGrowth::Refuse }
}

fn retry(retry: Option<proto::RetryPolicy>) -> Result<RetryPolicy, Status> {
    let default = RetryPolicy::default();
    let Some(retry) = retry else { return Ok(default) };
    let on: BTreeSet<FailureKind> =
        retry.on.iter().map(|kind| listed_kind(kind)).collect::<Result<_, _>>().map_err(invalid)?;
    Ok(RetryPolicy {
        max_attempts: retry.max_attempts,
        backoff: Backoff {
            initial: duration(retry.initial_backoff, default.backoff.initial, "the backoff")?,
            factor: if retry.backoff_factor == 0 { default.backoff.factor } else { retry.backoff_factor },
            max: duration(retry.max_backoff, default.backoff.max, "the longest backoff")?,
            jitter_percent: retry.jitter_percent.unwrap_or(default.backoff.jitter_percent),
        },
        on: if on.is_empty() { default.on } else { on },
    })
}

fn from_spec(spec: TaskSpec) -> proto::TaskSpec {
    let RetryPolicy { max_attempts, backoff, on } = spec.retry;
    proto::TaskSpec {
        component: spec.component.to_string(),
        config: spec.config.into_iter().collect(),
        arguments: spec.arguments,
        timeout: Some(from_duration(spec.timeout)),
        memory_bytes: spec.memory,
        scratch_bytes: spec.scratch.unwrap_or_default(),
        retry: Some(proto::RetryPolicy {
            max_attempts,
            initial_backoff: Some(from_duration(backoff.initial)),
            backoff_factor: backoff.factor,
            max_backoff: Some(from_duration(backoff.max)),
            jitter_percent: Some(backoff.jitter_percent),
            on: on.iter().map(ToString::to_string).collect(),
        }),
        allow_http: spec.allow_http.iter().map(ToString::to_string).collect(),
        requires: from_labels(&spec.requires),
        secrets: spec.secrets.into_iter().map(|(key, secret)| (key, secret.into())).collect(),
        start_deadline: spec.start_deadline.map(from_duration),
        deadline: spec.deadline.map(from_duration),
        cancel_grace: Some(from_duration(spec.cancel_grace)),
        labels: from_labels(&spec.labels),
        concurrency: spec.concurrency.unwrap_or_default(),
        concurrency_key: spec.concurrency_key.unwrap_or_default(),
        key_concurrency: spec.key_concurrency,
        rate: spec.rate.map(|rate| rate.to_string()).unwrap_or_default(),
        priority: Some(spec.priority.into()),
    }
}

fn from_task(task: Task) -> proto::Task {
    proto::Task {
        id: task.id.to_string(),
        name: task.name.to_string(),
        revision: task.revision,
        spec: Some(from_spec(task.spec)),
        created_at: Some(from_instant(task.created_at)),
        updated_at: Some(from_instant(task.updated_at)),
        paused_at: task.paused.as_ref().map(|pause| from_instant(pause.at)),
        pause_note: task.paused.map(|pause| pause.note).unwrap_or_default(),
    }
}

fn from_revision(revision: Revision) -> proto::Revision {
    proto::Revision {
        number: revision.number,
        spec: Some(from_spec(revision.spec)),
        rollback_of: revision.rollback_of.unwrap_or(0),
        created_at: Some(from_instant(revision.created_at)),
    }
}
