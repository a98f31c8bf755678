//! Two tenants with the same names side by side: what one knows of the other's is to the letter what it would know of
//! what doesn't exist.

use crate::host::{Host, name, now, raw, request, task_spec, token_of};
use innkeeper_api::proto;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::{RunId, TokenId};
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// An answer without what was named, so that two can be compared. Dates in headers aside, that is all of it.
fn told(status: &Status, named: &str) -> (Code, String, Vec<u8>) {
    // Where words can have it by accident, it is quoted.
    let named = if named.len() == 1 { format!("`{named}`") } else { named.into() };
    (status.code(), status.message().replace(&named, "NAMED"), status.details().to_vec())
}

/// Calls as `b`'s owner with `a`'s and with a made-up name; both answers must be the same, and a refusal.
async fn same<T>(connection: &Channel, call: &str, theirs: &str, made_up: &str, message: impl Fn(String) -> T)
where
    T: Message + Default + Clone + 'static,
{
    let ask = async |named: &str| {
        let request = request((), Some(&token_of("b")), None);
        told(&raw(connection, call, request, message(named.into())).await, named)
    };
    let (theirs, made_up) = (ask(theirs).await, ask(made_up).await);
    assert_eq!(theirs, made_up, "{call}");
    assert_ne!(theirs.0, Code::Ok, "{call}");
}

#[tokio::test]
async fn what_is_the_neighbours_is_as_if_it_were_not() {
    let host = Host::start().await;
    let on = &host.connect_from(2).await;
    let (run, no_run) = (host.a.runs[0].to_string(), RunId::new(now()).to_string());
    same(on, "RunService/GetRun", &run, &no_run, |id| proto::GetRunRequest { id }).await;
    same(on, "RunService/WatchRun", &run, &no_run, |id| proto::WatchRunRequest { id }).await;
    same(on, "RunService/PauseRun", &run, &no_run, |id| proto::PauseRunRequest { id }).await;
    same(on, "RunService/ResumeRun", &run, &no_run, |id| proto::ResumeRunRequest { id }).await;
    same(on, "RunService/CancelRun", &run, &no_run, |id| proto::CancelRunRequest { id }).await;
    same(on, "RunService/RetryRun", &run, &no_run, |id| proto::RetryRunRequest { id, latest: false }).await;
    for follow in [false, true] {
        let message = |id| proto::StreamLogsRequest { id, follow };
        same(on, "RunService/StreamLogs", &run, &no_run, message).await;
    }

    // Of its first digits as of all.
    let digest = host.a.component;
    for (theirs, made_up) in [
        (digest.to_string(), Digest([9; 32]).to_string()),
        (digest.hex()[..12].to_string(), "090909090909".to_string()),
    ] {
        let component = |digest| proto::GetComponentRequest { digest };
        same(on, "ComponentService/GetComponent", &theirs, &made_up, component).await;
        let component = |digest| proto::DeleteComponentRequest { digest };
        same(on, "ComponentService/DeleteComponent", &theirs, &made_up, component).await;
        let task =
            |digest: String| proto::CreateTaskRequest { name: "new".into(), spec: Some(task_spec(&digest)) };
        same(on, "TaskService/CreateTask", &theirs, &made_up, task).await;
        let task = |digest: String| proto::UpdateTaskRequest {
            name: "mine".into(),
            spec: Some(task_spec(&digest)),
            ..Default::default()
        };
        same(on, "TaskService/UpdateTask", &theirs, &made_up, task).await;
    }
    // That the bytes are there already is no reason not to send them.
    let header = |digest| proto::PushComponentRequest {
        part: Some(proto::push_component_request::Part::Header(proto::push_component_request::Header {
            digest,
            size: 100,
            offset: 0,
        })),
    };
    same(on, "ComponentService/PushComponent", &digest.to_string(), &Digest([9; 32]).to_string(), header)
        .await;

    let (theirs, made_up) = ("closed-a", "closed-z");
    let get = |name| proto::GetHolidayCalendarRequest { name };
    same(on, "HolidayService/GetHolidayCalendar", theirs, made_up, get).await;
    let delete = |name| proto::DeleteHolidayCalendarRequest { name };
    same(on, "HolidayService/DeleteHolidayCalendar", theirs, made_up, delete).await;
    let once = proto::schedule::Kind::Once(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
    let schedule = proto::Schedule { kind: Some(once) };
    let exclude = |calendar| proto::CreateTriggerRequest {
        task: "mine".into(),
        schedule: Some(schedule.clone()),
        exclude: vec![calendar],
        ..Default::default()
    };
    same(on, "TriggerService/CreateTrigger", theirs, made_up, exclude).await;
    let (backfill, no_backfill) = (host.backfill("mine-hourly").await, RunId::new(now()).to_string());
    let message = |id| proto::GetBackfillRequest { id };
    same(on, "BackfillService/GetBackfill", &backfill, &no_backfill, message).await;
    let message = |id| proto::CancelBackfillRequest { id };
    same(on, "BackfillService/CancelBackfill", &backfill, &no_backfill, message).await;

    let (token, no_token) = (host.a.token.to_string(), TokenId::new(now()).to_string());
    same(on, "TokenService/RevokeToken", &token, &no_token, |id| proto::RevokeTokenRequest { id }).await;
    same(on, "TenantService/GetTenant", "a", "z", |name| proto::GetTenantRequest { name }).await;
    let found =
        host.store.token_find(innkeeper_api::auth::token_hash(&token_of("a"))).await.unwrap().unwrap();
    assert_eq!(found.token.revoked_at, None);
    assert!(!host.store.run_get(host.a.tenant, host.a.runs[0]).await.unwrap().state.is_final());
    host.stop().await;
}

/// Names that only `a` has, so that nothing of `b`'s own answers.
#[tokio::test]
async fn the_neighbours_names_are_as_if_they_were_not() {
    let host = Host::start().await;
    let on = &host.connect_from(2).await;
    let store = &host.store;
    for task in ["mine", "other"] {
        store.task_delete(host.b.tenant, &name(task), now().into()).await.unwrap();
    }
    let ask = async |call: &str, theirs: &str| {
        let made_up = "nonesuch";
        match call {
            "StartRun" => {
                let message = |task| proto::StartRunRequest { task, ..Default::default() };
                same(on, "RunService/StartRun", theirs, made_up, message).await;
            }
            "CreateTrigger" => {
                let at = proto::schedule::Interval {
                    every: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                    anchor: None,
                };
                let schedule = Some(proto::Schedule { kind: Some(proto::schedule::Kind::Interval(at)) });
                let message = |task| proto::CreateTriggerRequest {
                    task,
                    schedule: schedule.clone(),
                    ..Default::default()
                };
                same(on, "TriggerService/CreateTrigger", theirs, made_up, message).await;
            }
            other => unreachable!("{other}"),
        }
    };
    ask("StartRun", "mine").await;
    ask("CreateTrigger", "mine").await;
    same(on, "TaskService/GetTask", "mine", "nonesuch", |name| proto::GetTaskRequest { name }).await;
    let pause = |name| proto::PauseTaskRequest { name, ..Default::default() };
    same(on, "TaskService/PauseTask", "mine", "nonesuch", pause).await;
    same(on, "TaskService/ResumeTask", "mine", "nonesuch", |name| proto::ResumeTaskRequest { name }).await;
    same(on, "TaskService/DeleteTask", "mine", "nonesuch", |name| proto::DeleteTaskRequest { name }).await;
    let revisions = |name| proto::ListRevisionsRequest { name, ..Default::default() };
    same(on, "TaskService/ListRevisions", "mine", "nonesuch", revisions).await;
    let rollback =
        |name| proto::RollbackTaskRequest { name, revision: 1, ..proto::RollbackTaskRequest::default() };
    same(on, "TaskService/RollbackTask", "mine", "nonesuch", rollback).await;
    let spec = task_spec(&host.b.component.to_string());
    let update = |name| proto::UpdateTaskRequest { name, spec: Some(spec.clone()), ..Default::default() };
    same(on, "TaskService/UpdateTask", "mine", "nonesuch", update).await;
    let runs = |task| proto::ListRunsRequest { task, ..Default::default() };
    same(on, "RunService/ListRuns", "mine", "nonesuch", runs).await;
    let runs = |trigger| proto::ListRunsRequest { trigger, ..Default::default() };
    same(on, "RunService/ListRuns", "mine-hourly", "nonesuch", runs).await;
    let filter = |task| Some(proto::RunFilter { task, ..Default::default() });
    let cancel = |task| proto::CancelRunsRequest { filter: filter(task), ..Default::default() };
    same(on, "RunService/CancelRuns", "mine", "nonesuch", cancel).await;
    let retry = |task| proto::RetryRunsRequest { filter: filter(task), ..Default::default() };
    same(on, "RunService/RetryRuns", "mine", "nonesuch", retry).await;
    let forecast = |task| proto::ForecastRequest { task, hours: 1 };
    same(on, "ForecastService/Forecast", "mine", "nonesuch", forecast).await;
    let triggers = |task| proto::ListTriggersRequest { task, ..Default::default() };
    same(on, "TriggerService/ListTriggers", "mine", "nonesuch", triggers).await;
    let theirs = "mine-hourly";
    same(on, "TriggerService/GetTrigger", theirs, "nonesuch", |name| proto::GetTriggerRequest { name }).await;
    let pause = |name| proto::PauseTriggerRequest { name, ..Default::default() };
    same(on, "TriggerService/PauseTrigger", theirs, "nonesuch", pause).await;
    same(on, "TriggerService/ResumeTrigger", theirs, "nonesuch", |name| proto::ResumeTriggerRequest { name })
        .await;
    same(on, "TriggerService/DeleteTrigger", theirs, "nonesuch", |name| proto::DeleteTriggerRequest { name })
        .await;
    let skips = |trigger| proto::ListSkipsRequest { trigger, ..Default::default() };
    same(on, "TriggerService/ListSkips", theirs, "nonesuch", skips).await;
    let backfills = |trigger| proto::ListBackfillsRequest { trigger, ..Default::default() };
    same(on, "BackfillService/ListBackfills", theirs, "nonesuch", backfills).await;
    let backfill = |trigger| host.a_day_of(trigger);
    same(on, "BackfillService/CreateBackfill", theirs, "nonesuch", backfill).await;
    let plan = |trigger| proto::PlanBackfillRequest { backfill: Some(host.a_day_of(trigger)) };
    same(on, "BackfillService/PlanBackfill", theirs, "nonesuch", plan).await;
    host.stop().await;
}

/// Deleting, pausing and running by a name that both have changes only one's own.
#[tokio::test]
async fn the_same_names_are_each_ones_own() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let as_b = |message| request(message, Some("inn_owner_b"), None);
    let mut triggers = proto::trigger_service_client::TriggerServiceClient::new(on.clone());
    let pause =
        proto::PauseTriggerRequest { name: "mine-hourly".into(), note: "b's".into(), ..Default::default() };
    triggers.pause_trigger(as_b(pause)).await.unwrap();
    let as_b = |message| request(message, Some("inn_owner_b"), None);
    let mut tasks = proto::task_service_client::TaskServiceClient::new(on.clone());
    tasks.delete_task(as_b(proto::DeleteTaskRequest { name: "other".into() })).await.unwrap();
    let trigger = host.store.trigger_get(host.a.tenant, &name("mine-hourly")).await.unwrap();
    assert_eq!(trigger.state, innkeeper_domain::trigger::TriggerState::Active);
    assert!(host.store.task_get(host.a.tenant, &name("other")).await.is_ok());
    assert!(!host.store.run_get(host.a.tenant, host.a.runs[1]).await.unwrap().state.is_final());
    // An answer that isn't a refusal tells nothing, either: of an upload, of a list.
    let mut components = proto::component_service_client::ComponentServiceClient::new(on.clone());
    let begin = proto::BeginUploadRequest { digest: host.a.component.to_string(), size: 100 };
    let begun =
        components.begin_upload(request(begin, Some("inn_owner_b"), None)).await.unwrap().into_inner();
    assert_eq!(begun, proto::BeginUploadResponse::default());
    let mut tokens = proto::token_service_client::TokenServiceClient::new(on);
    let listed =
        tokens.list_tokens(request(proto::ListTokensRequest::default(), Some("inn_owner_b"), None)).await;
    let listed: Vec<_> = listed.unwrap().into_inner().tokens.into_iter().map(|token| token.id).collect();
    assert_eq!(listed, [host.b.token.to_string()]);
    host.stop().await;
}
