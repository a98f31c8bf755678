//! Tokens that are for some tasks: the others are as if they weren't there.

use crate::host::{Host, Who, name, now, raw, request};
use innkeeper_api::proto::backfill_service_client::BackfillServiceClient;
use innkeeper_api::proto::forecast_service_client::ForecastServiceClient;
use innkeeper_api::proto::run_service_client::RunServiceClient;
use innkeeper_api::proto::task_service_client::TaskServiceClient;
use innkeeper_api::proto::trigger_service_client::TriggerServiceClient;
use innkeeper_api::proto::usage_service_client::UsageServiceClient;
use innkeeper_api::proto::{self, start_runs_response::result::Result as Kind};
use innkeeper_domain::access::Role;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::tenant::TenantUpdate;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Request};

fn ask<T>(message: T) -> Request<T> {
    request(message, Who::ForTasks(Role::Operator).token().as_deref(), None)
}

/// The same answer for what isn't its and what isn't; not for what is.
async fn same<T>(on: &Channel, call: &str, [mine, other, made_up]: [&str; 3], message: impl Fn(String) -> T)
where
    T: Message + Default + Clone + 'static,
{
    let told = async |named: &str| {
        let status = raw(on, call, ask(()), message(named.into())).await;
        (status.code(), status.message().replace(named, "NAMED"))
    };
    let (mine, other, made_up) = (told(mine).await, told(other).await, told(made_up).await);
    assert_eq!(mine.0, Code::Ok, "{call}: {}", mine.1);
    assert_eq!(other, made_up, "{call}");
    assert_eq!(other.0, Code::NotFound, "{call}");
}

#[tokio::test]
async fn other_tasks_are_as_if_they_were_not() {
    let host = Host::start().await;
    let on = &host.connect_from(2).await;
    let [mine, other] = host.a.runs.map(|id| id.to_string());
    let made_up = RunId::new(now()).to_string();
    let runs = [mine.as_str(), other.as_str(), made_up.as_str()];
    same(on, "RunService/GetRun", runs, |id| proto::GetRunRequest { id }).await;
    same(on, "RunService/WatchRun", runs, |id| proto::WatchRunRequest { id }).await;
    same(on, "RunService/StreamLogs", runs, |id| proto::StreamLogsRequest { id, follow: false }).await;
    let tasks = ["mine", "other", "nonesuch"];
    same(on, "ForecastService/Forecast", tasks, |task| proto::ForecastRequest { task, hours: 1 }).await;
    same(on, "TaskService/GetTask", tasks, |name| proto::GetTaskRequest { name }).await;
    let revisions = |name| proto::ListRevisionsRequest { name, ..Default::default() };
    same(on, "TaskService/ListRevisions", tasks, revisions).await;
    let pause = |name| proto::PauseTaskRequest { name, ..Default::default() };
    same(on, "TaskService/PauseTask", tasks, pause).await;
    same(on, "TaskService/ResumeTask", tasks, |name| proto::ResumeTaskRequest { name }).await;
    same(on, "RunService/StartRun", tasks, |task| proto::StartRunRequest { task, ..Default::default() })
        .await;
    same(on, "RunService/ListRuns", tasks, |task| proto::ListRunsRequest { task, ..Default::default() })
        .await;
    let of_task = |task| proto::ListTriggersRequest { task, ..Default::default() };
    same(on, "TriggerService/ListTriggers", tasks, of_task).await;
    let triggers = ["mine-hourly", "other-hourly", "nonesuch"];
    let of_trigger = |trigger| proto::ListRunsRequest { trigger, ..Default::default() };
    same(on, "RunService/ListRuns", triggers, of_trigger).await;
    same(on, "TriggerService/GetTrigger", triggers, |name| proto::GetTriggerRequest { name }).await;
    let skips = |trigger| proto::ListSkipsRequest { trigger, ..Default::default() };
    same(on, "TriggerService/ListSkips", triggers, skips).await;
    let pause = |name| proto::PauseTriggerRequest { name, ..Default::default() };
    same(on, "TriggerService/PauseTrigger", triggers, pause).await;
    same(on, "TriggerService/ResumeTrigger", triggers, |name| proto::ResumeTriggerRequest { name }).await;
    let of_trigger = |trigger| proto::ListBackfillsRequest { trigger, ..Default::default() };
    same(on, "BackfillService/ListBackfills", triggers, of_trigger).await;
    let backfill = |trigger| host.a_day_of(trigger);
    let plan = |trigger| proto::PlanBackfillRequest { backfill: Some(host.a_day_of(trigger)) };
    same(on, "BackfillService/PlanBackfill", triggers, plan).await;
    same(on, "BackfillService/CreateBackfill", triggers, backfill).await;
    let (mine, other) = (host.backfill("mine-hourly").await, host.backfill("other-hourly").await);
    let backfills = [mine.as_str(), other.as_str(), made_up.as_str()];
    same(on, "BackfillService/GetBackfill", backfills, |id| proto::GetBackfillRequest { id }).await;
    same(on, "BackfillService/CancelBackfill", backfills, |id| proto::CancelBackfillRequest { id }).await;
    let mut service = BackfillServiceClient::new(on.clone());
    let list = service.list_backfills(ask(proto::ListBackfillsRequest::default())).await;
    let listed = list.unwrap().into_inner().backfills;
    assert!(
        listed.len() == 2 && listed.iter().all(|backfill| backfill.trigger == "mine-hourly"),
        "{listed:?}"
    );
    let filter = |task| Some(proto::RunFilter { task, ..Default::default() });
    let cancel = |task| proto::CancelRunsRequest { filter: filter(task), ..Default::default() };
    same(on, "RunService/CancelRuns", tasks, cancel).await;
    let retry = |task| proto::RetryRunsRequest { filter: filter(task), ..Default::default() };
    same(on, "RunService/RetryRuns", tasks, retry).await;
    same(on, "RunService/PauseRun", runs, |id| proto::PauseRunRequest { id }).await;
    same(on, "RunService/ResumeRun", runs, |id| proto::ResumeRunRequest { id }).await;
    same(on, "RunService/CancelRun", runs, |id| proto::CancelRunRequest { id }).await;
    same(on, "RunService/RetryRun", runs, |id| proto::RetryRunRequest { id, latest: false }).await;
    let other = host.store.run_get(host.a.tenant, host.a.runs[1]).await.unwrap();
    assert!(!other.state.is_final(), "{other:?}");
    host.stop().await;
}

#[tokio::test]
async fn lists_and_batches_leave_the_others_out() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let tasks = TaskServiceClient::new(on.clone()).list_tasks(ask(proto::ListTasksRequest::default())).await;
    let names: Vec<_> = tasks.unwrap().into_inner().tasks.into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["mine"]);
    let list =
        TriggerServiceClient::new(on.clone()).list_triggers(ask(proto::ListTriggersRequest::default())).await;
    let names: Vec<_> = list.unwrap().into_inner().triggers.into_iter().map(|trigger| trigger.name).collect();
    assert_eq!(names, ["mine-hourly"]);
    let forecast =
        ForecastServiceClient::new(on.clone()).forecast(ask(proto::ForecastRequest::default())).await;
    let tasks: Vec<_> = forecast.unwrap().into_inner().tasks.into_iter().map(|task| task.task).collect();
    assert_eq!(tasks, ["mine"]);
    let none = TenantUpdate { quotas: [(Quota::ConcurrentRuns, Some(0))].into(), ..Default::default() };
    host.store.tenant_update(&name("a"), none, now().into()).await.unwrap();
    let warnings = async |who: Who| {
        let request = request(proto::ForecastRequest::default(), who.token().as_deref(), None);
        let told = ForecastServiceClient::new(on.clone()).forecast(request).await.unwrap();
        told.into_inner().warnings.into_iter().map(|warning| warning.kind).collect::<Vec<_>>()
    };
    assert_eq!(warnings(Who::Is(Role::Viewer)).await, ["concurrent-runs"]);
    assert_eq!(warnings(Who::ForTasks(Role::Viewer)).await, [""; 0]);
    let mut runs = RunServiceClient::new(on.clone());
    let list = runs.list_runs(ask(proto::ListRunsRequest::default())).await.unwrap().into_inner();
    assert_eq!(list.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>(), [host.a.runs[0].to_string()]);
    let start = |task: &str| proto::StartRunRequest { task: task.into(), ..Default::default() };
    let starts = vec![start("other"), start("mine"), start("nonesuch")];
    let results =
        runs.start_runs(ask(proto::StartRunsRequest { starts })).await.unwrap().into_inner().results;
    let kinds: Vec<_> = results.into_iter().map(|result| result.result.unwrap()).collect();
    let [Kind::Error(other), Kind::Started(_), Kind::Error(none)] = &kinds[..] else { panic!("{kinds:?}") };
    assert_eq!((other.code, other.message.replace("other", "nonesuch")), (none.code, none.message.clone()));
    let mut usage = UsageServiceClient::new(on);
    let status = usage.list_usage(ask(proto::ListUsageRequest::default())).await.unwrap_err();
    assert!(
        status.code() == Code::InvalidArgument && status.message().contains("name one of them"),
        "{status:?}"
    );
    let other = proto::ListUsageRequest { task: "other".into(), ..Default::default() };
    assert_eq!(usage.list_usage(ask(other)).await.unwrap().into_inner(), proto::ListUsageResponse::default());
    host.stop().await;
}
