//! What ends, what is limited, and what is on record.

use crate::host::{Host, Who, name, now, request, token_of};
use futures::future::join_all;
use futures::stream::{self, FuturesUnordered, StreamExt};
use innkeeper_api::auth::token_hash;
use innkeeper_api::proto::audit_line::Outcome;
use innkeeper_api::proto::audit_service_client::AuditServiceClient;
use innkeeper_api::proto::component_service_client::ComponentServiceClient;
use innkeeper_api::proto::quota_service_client::QuotaServiceClient;
use innkeeper_api::proto::run_service_client::RunServiceClient;
use innkeeper_api::proto::tenant_service_client::TenantServiceClient;
use innkeeper_api::proto::token_service_client::TokenServiceClient;
use innkeeper_api::proto::trigger_service_client::TriggerServiceClient;
use innkeeper_api::proto::{self, schedule::Kind, tenant::State};
use innkeeper_domain::access::Role;
use innkeeper_domain::audit::AuditOutcome;
use innkeeper_domain::component::Digest;
use innkeeper_domain::limits::{
    FIELDS_PER_MESSAGE_MAX, LOGIN_FAILURES_MAX, STREAMS_PER_TENANT_MAX, UPLOADS_PER_TENANT_MAX,
};
use innkeeper_store::{AuditFilter, Page};
use std::time::Duration;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const SOON: Duration = Duration::from_secs(10);
const ALL: Page = Page { size: 1_000, after: None };

fn admin<T>(message: T) -> Request<T> {
    request(message, Who::Is(Role::Admin).token().as_deref(), Some("a"))
}

fn owner<T>(message: T) -> Request<T> {
    request(message, Some(&token_of("a")), None)
}

#[tokio::test]
async fn failed_logins_are_limited_by_address() {
    let host = Host::start().await;
    let here = host.connect_from(2).await;
    // It has logged in lately, and passes whatever others at its address do.
    let good = Who::Is(Role::Viewer);
    assert_eq!(host.raw(&here, "TokenService/WhoAmI", good).await.code(), Code::Ok);
    for _ in 0..LOGIN_FAILURES_MAX {
        assert_eq!(host.raw(&here, "TokenService/WhoAmI", Who::Wrong).await.code(), Code::Unauthenticated);
    }
    // One in a second is looked at in spite of that, and the others aren't.
    let mut limited = host.raw(&here, "TokenService/WhoAmI", Who::Wrong).await;
    for _ in 0..20 {
        if limited.message().contains("too many") {
            break;
        }
        limited = host.raw(&here, "TokenService/WhoAmI", Who::Wrong).await;
    }
    assert_eq!(limited.code(), Code::Unauthenticated);
    assert!(
        limited.message().contains("127.0.0.2") && limited.message().contains("try again in 1 s"),
        "{limited:?}"
    );
    assert_eq!(host.raw(&here, "TokenService/WhoAmI", good).await.code(), Code::Ok);
    // One that was only just made needs not wait; one that is new here does, and then passes.
    let made = proto::CreateTokenRequest { role: "viewer".into(), ..Default::default() };
    let there = host.connect_from(4).await;
    let made = TokenServiceClient::new(there).create_token(owner(made)).await.unwrap().into_inner();
    let who = request(proto::WhoAmIRequest {}, Some(&made.text), None);
    assert!(TokenServiceClient::new(here.clone()).who_am_i(who).await.is_ok());
    let fresh = async {
        while host.raw(&here, "TokenService/WhoAmI", Who::Is(Role::Operator)).await.code() != Code::Ok {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, fresh).await.expect("it passes within some seconds");
    let there = host.connect_from(3).await;
    assert_eq!(host.raw(&there, "TokenService/WhoAmI", Who::Wrong).await.code(), Code::Unauthenticated);
    assert_eq!(host.raw(&there, "TokenService/WhoAmI", Who::Is(Role::Operator)).await.code(), Code::Ok);
    host.stop().await;
}

#[tokio::test]
async fn revoking_a_token_ends_its_streams_and_its_calls() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let mut tokens = TokenServiceClient::new(on.clone());
    let made = proto::CreateTokenRequest { role: "viewer".into(), ..Default::default() };
    let made = tokens.create_token(owner(made)).await.unwrap().into_inner();
    assert!(made.text.len() == 68 && made.text.starts_with("inn_"), "{} characters", made.text.len());
    let id = host.a.runs[0].to_string();
    let mut runs = RunServiceClient::new(on.clone());
    let watch = request(proto::WatchRunRequest { id: id.clone() }, Some(&made.text), None);
    let mut watched = runs.watch_run(watch).await.unwrap().into_inner();
    watched.message().await.unwrap().unwrap();
    let follow = request(proto::StreamLogsRequest { id, follow: true }, Some(&made.text), None);
    let mut logs = runs.stream_logs(follow).await.unwrap().into_inner();
    let revoke = proto::RevokeTokenRequest { id: made.token.unwrap().id };
    let revoked = tokens.revoke_token(owner(revoke)).await.unwrap().into_inner();
    assert!(revoked.revoked_at.is_some() && revoked.tenant == "a", "{revoked:?}");
    for status in [
        timeout(SOON, watched.message()).await.unwrap().unwrap_err(),
        timeout(SOON, logs.message()).await.unwrap().unwrap_err(),
        tokens.who_am_i(request(proto::WhoAmIRequest {}, Some(&made.text), None)).await.unwrap_err(),
    ] {
        assert!(status.code() == Code::Unauthenticated && status.message().contains("revoked"), "{status:?}");
    }
    host.stop().await;
}

#[tokio::test]
async fn a_deleted_tenants_streams_end() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let watch = || proto::WatchRunRequest { id: host.a.runs[0].to_string() };
    let mut runs = RunServiceClient::new(on.clone());
    let mut admins = runs.watch_run(admin(watch())).await.unwrap().into_inner();
    let mut owners = runs.watch_run(owner(watch())).await.unwrap().into_inner();
    admins.message().await.unwrap().unwrap();
    owners.message().await.unwrap().unwrap();
    let delete = proto::DeleteTenantRequest { name: "a".into() };
    TenantServiceClient::new(on.clone()).delete_tenant(admin(delete)).await.unwrap();
    let status = timeout(SOON, admins.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    let status = timeout(SOON, owners.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    host.stop().await;
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let host = Host::start().await;
    let mut tokens = TokenServiceClient::new(host.connect_from(2).await);
    let role = |role: &str| proto::CreateTokenRequest { role: role.into(), ..Default::default() };
    for refused in [
        role("admin"),
        proto::CreateTokenRequest { certificate: "DNS:ci".into(), ..role("viewer") },
        proto::CreateTokenRequest { subject: "somebody".into(), ..role("viewer") },
    ] {
        let status = tokens.create_token(owner(refused)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("needs the role `admin`; yours is `owner`"), "{status:?}");
    }
    assert_eq!(
        tokens.create_token(owner(role("owner"))).await.unwrap().into_inner().token.unwrap().tenant,
        "a"
    );
    let made = tokens.create_token(admin(role("admin"))).await.unwrap().into_inner().token.unwrap();
    assert_eq!((made.tenant.as_str(), made.role.as_str()), ("", "admin"));
    let certificate = proto::CreateTokenRequest { certificate: "DNS:ci".into(), ..role("viewer") };
    let made = tokens.create_token(admin(certificate)).await.unwrap().into_inner();
    assert_eq!((made.text.as_str(), made.token.unwrap().certificate.as_str()), ("", "DNS:ci"));
    let past = prost_types::Timestamp { seconds: 1, nanos: 0 };
    let past = proto::CreateTokenRequest { expires_at: Some(past), ..role("viewer") };
    assert_eq!(tokens.create_token(owner(past)).await.unwrap_err().code(), Code::InvalidArgument);
    // What is not in the rules: lists of all.
    for all in [true, false] {
        let listed = tokens.list_tokens(owner(proto::ListTokensRequest { all, ..Default::default() })).await;
        assert_eq!(listed.map_err(|status| status.code()).err(), all.then_some(Code::PermissionDenied));
    }
    let all = tokens.list_tokens(admin(proto::ListTokensRequest { all: true, ..Default::default() })).await;
    let tenants: Vec<_> = all.unwrap().into_inner().tokens.into_iter().map(|token| token.tenant).collect();
    assert!(["a", "b", ""].iter().all(|tenant| tenants.iter().any(|found| found == tenant)), "{tenants:?}");
    // Another tenant's, by an admin: its answer names that tenant.
    let revoke = proto::RevokeTokenRequest { id: host.b.token.to_string() };
    assert_eq!(tokens.revoke_token(admin(revoke)).await.unwrap().into_inner().tenant, "b");
    host.stop().await;
}

#[tokio::test]
async fn a_suspended_tenant_can_look_and_change_nothing() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let mut tenants = TenantServiceClient::new(on.clone());
    suspend(&mut tenants).await;
    let cancel = || proto::CancelRunRequest { id: host.a.runs[1].to_string() };
    let mut runs = RunServiceClient::new(on);
    let status = runs.cancel_run(owner(cancel())).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("suspended: unpaid"), "{status:?}");
    let own = tenants.get_tenant(owner(proto::GetTenantRequest::default())).await.unwrap().into_inner();
    assert_eq!((own.state(), own.note.as_str()), (State::Suspended, "unpaid"));
    runs.cancel_run(admin(cancel())).await.unwrap();
    let resume = proto::UpdateTenantRequest { state: State::Active.into(), ..named("a") };
    assert_eq!(tenants.update_tenant(admin(resume)).await.unwrap().into_inner().note, "");
    host.stop().await;
}

async fn suspend(tenants: &mut TenantServiceClient<Channel>) {
    let suspended =
        proto::UpdateTenantRequest { state: State::Suspended.into(), note: "unpaid".into(), ..named("a") };
    tenants.update_tenant(admin(suspended)).await.unwrap();
}

fn named(name: &str) -> proto::UpdateTenantRequest {
    proto::UpdateTenantRequest { name: name.into(), ..Default::default() }
}

#[tokio::test]
async fn quotas_are_shown_set_and_held() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let mut quotas = QuotaServiceClient::new(on.clone());
    let set = |name: &str, value| proto::QuotaValue { name: name.into(), value: Some(value) };
    let set = vec![set("least-interval", 60_000_000), set("fan-out", 2)];
    let answer =
        quotas.set_quotas(admin(proto::SetQuotasRequest { quotas: set })).await.unwrap().into_inner();
    let shown = quotas.get_quotas(owner(proto::GetQuotasRequest {})).await.unwrap().into_inner();
    assert_eq!((answer.quotas.len(), &answer), (12, &shown));
    let of = |name: &str| shown.quotas.iter().find(|quota| quota.name == name).unwrap();
    assert_eq!((of("fan-out").value, of("fan-out").used), (Some(2), None));
    assert_eq!((of("triggers").value, of("triggers").used), (None, Some(2)));
    let mut runs = RunServiceClient::new(on.clone());
    let start = proto::StartRunRequest { task: "mine".into(), ..Default::default() };
    let mut start = async |count| {
        let starts = proto::StartRunsRequest { starts: vec![start.clone(); count] };
        runs.start_runs(owner(starts)).await
    };
    assert_eq!(start(2).await.unwrap().into_inner().results.len(), 2);
    let status = start(3).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("`fan-out`: 3 were asked for, 2 are allowed"), "{status:?}");
    let mut triggers = TriggerServiceClient::new(on);
    let every = |seconds| {
        let every = Some(prost_types::Duration { seconds, nanos: 0 });
        Kind::Interval(proto::schedule::Interval { every, anchor: None })
    };
    let cron = |expression: &str| {
        Kind::Cron(proto::schedule::Cron { expression: expression.into(), ..Default::default() })
    };
    for (kind, good) in
        [(every(60), true), (every(59), false), (cron("*/5 * * * *"), true), (cron("0,30 0 12 * * *"), false)]
    {
        let schedule = Some(proto::Schedule { kind: Some(kind.clone()) });
        let create = proto::CreateTriggerRequest { task: "mine".into(), schedule, ..Default::default() };
        let created = triggers.create_trigger(owner(create)).await;
        let code = created.map_err(|status| status.code()).err();
        assert_eq!(code, (!good).then_some(Code::ResourceExhausted), "{kind:?}");
    }
    host.stop().await;
}

#[tokio::test]
async fn changes_and_refusals_are_on_record() {
    let host = Host::start().await;
    let on = host.connect_from(9).await;
    for _ in 0..3 {
        host.raw(&on, "RunService/StartRun", Who::Is(Role::Viewer)).await;
    }
    host.raw(&on, "TaskService/GetTask", Who::Wrong).await;
    host.raw(&on, "TaskService/GetTask", Who::Revoked).await;
    host.raw(&on, "ComponentService/ListComponents", Who::ForTasks(Role::Viewer)).await;
    let mut audit = AuditServiceClient::new(on.clone());
    let all = proto::ListAuditRequest { all: true, ..Default::default() };
    assert_eq!(audit.list_audit(owner(all)).await.unwrap_err().code(), Code::PermissionDenied);
    let delete = proto::DeleteTaskRequest { name: "other".into() };
    let mut tasks = proto::task_service_client::TaskServiceClient::new(on.clone());
    tasks.delete_task(owner(delete)).await.unwrap();
    let done = proto::ListAuditRequest { outcome: Outcome::Done.into(), ..Default::default() };
    let lines = audit.list_audit(owner(done)).await.unwrap().into_inner().lines;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert_eq!(
        (line.action.as_str(), line.role.as_str(), line.address.as_str(), line.tenant.as_str()),
        ("TaskService/DeleteTask", "owner", "127.0.0.9", "a")
    );
    assert_eq!(line.actor, format!("token {}", host.a.token));
    host.raw(&on, "TaskService/ListTasks", Who::Neighbour).await;
    let mut tenants = TenantServiceClient::new(on.clone());
    let get = proto::GetTenantRequest { name: "b".into() };
    assert_eq!(tenants.get_tenant(owner(get)).await.unwrap_err().code(), Code::NotFound);
    let other = proto::GetTaskRequest { name: "other".into() };
    let for_mine = Who::ForTasks(Role::Operator).token();
    let refused = tasks.get_task(request(other, for_mine.as_deref(), None)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    suspend(&mut tenants).await;
    host.raw(&on, "RunService/StartRun", Who::Is(Role::Operator)).await;
    drop((audit, tasks, tenants, on));
    host.stop().await;

    let filter = AuditFilter { outcome: Some(AuditOutcome::Denied), ..AuditFilter::default() };
    let denied = host.store.audit_list(filter, ALL).await.unwrap().items;
    let said: Vec<_> = denied
        .iter()
        .map(|line| (line.actor.action.as_str(), line.actor.name == "unknown", line.actor.role, line.count))
        .collect();
    for expected in [
        ("RunService/StartRun", false, Some(Role::Viewer)),
        ("TaskService/GetTask", true, None),
        ("TaskService/GetTask", false, Some(Role::Owner)),
        ("ComponentService/ListComponents", false, Some(Role::Viewer)),
        ("AuditService/ListAudit", false, Some(Role::Owner)),
        ("TaskService/ListTasks", false, Some(Role::Owner)),
        ("TenantService/GetTenant", false, Some(Role::Owner)),
        ("TaskService/GetTask", false, Some(Role::Operator)),
        ("RunService/StartRun", false, Some(Role::Operator)),
    ] {
        let found: u64 = said
            .iter()
            .filter(|(action, unknown, role, _)| (*action, *unknown, *role) == expected)
            .map(|(.., count)| count)
            .sum();
        let refusals = if expected == ("RunService/StartRun", false, Some(Role::Viewer)) { 3 } else { 1 };
        assert_eq!(found, refusals, "{expected:?} in {said:?}");
    }
    let neighbour = denied.iter().find(|line| line.actor.action == "TaskService/ListTasks").unwrap();
    assert_eq!(neighbour.tenant, Some((host.b.tenant, name("b"))), "on its own tenant's record");
    let text = format!("{denied:?}");
    assert!(!text.contains("inn_"), "the log has a token's text");
    let hash = token_hash(&token_of("a"));
    assert!(host.store.token_find(hash).await.unwrap().unwrap().token.void(now()).is_none());
    assert!(host.store.tenant_get(&name("a")).await.is_ok());
}

fn header(digest: Digest) -> proto::PushComponentRequest {
    let header =
        proto::push_component_request::Header { digest: digest.to_string(), size: 100, ..Default::default() };
    proto::PushComponentRequest { part: Some(proto::push_component_request::Part::Header(header)) }
}

/// How an upload ends of which the header comes, and then nothing.
async fn stalled_push(on: &Channel, tenant: &str) -> Status {
    let stalled = stream::iter([header(Digest([5; 32]))]).chain(stream::pending());
    let stalled = request(stalled, Some(&token_of(tenant)), None);
    ComponentServiceClient::new(on.clone()).push_component(stalled).await.unwrap_err()
}

/// As many of a tenant's as there may be, once one more was refused.
async fn stalled_pushes(on: &Channel) -> FuturesUnordered<impl Future<Output = Status>> {
    let mut pushes: FuturesUnordered<_> =
        (0..UPLOADS_PER_TENANT_MAX + 1).map(|_| stalled_push(on, "a")).collect();
    let refused = timeout(SOON, pushes.next()).await.unwrap().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    pushes
}

#[tokio::test]
async fn a_tenant_uploads_little_at_a_time_and_not_for_ever() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let mut pushes = stalled_pushes(&on).await;
    let (neighbours, first) = futures::join!(stalled_push(&on, "b"), pushes.next());
    for ended in [neighbours, first.unwrap()] {
        assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended:?}");
        assert!(ended.message().contains("nothing of the upload came for 10 s"), "{ended:?}");
    }
    host.stop().await;
}

/// Asks where to begin with what the tenant has, and pushes it all the same.
async fn upload_again(host: &Host, on: &Channel) {
    let mut components = ComponentServiceClient::new(on.clone());
    let begin = proto::BeginUploadRequest { digest: host.a.component.to_string(), size: 100 };
    let begun = components.begin_upload(owner(begin)).await.unwrap().into_inner();
    assert_eq!((begun.received, begun.component.is_some()), (100, true));
    let push = owner(stream::iter([header(host.a.component)]));
    assert!(components.push_component(push).await.unwrap().into_inner().existed);
}

/// As when one component is deployed for many tasks at once.
#[tokio::test]
async fn what_is_there_already_needs_no_room_among_uploads() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let pushes = stalled_pushes(&on).await;
    let again = join_all((0..20).map(|_| upload_again(&host, &on)));
    timeout(SOON, again).await.expect("they wait for each other alone");
    // To ask where to begin needs none, either.
    let begin = proto::BeginUploadRequest { digest: Digest([6; 32]).to_string(), size: 100 };
    let begun = ComponentServiceClient::new(on.clone()).begin_upload(owner(begin)).await.unwrap();
    assert_eq!(begun.into_inner(), proto::BeginUploadResponse::default());
    drop(pushes);
    host.stop().await;
}

#[tokio::test]
async fn a_tenant_has_so_many_streams() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    let mut runs = RunServiceClient::new(on.clone());
    let id = host.a.runs[0].to_string();
    let mut open = Vec::new();
    for _ in 0..STREAMS_PER_TENANT_MAX {
        let watch = proto::WatchRunRequest { id: id.clone() };
        open.push(runs.watch_run(owner(watch)).await.unwrap().into_inner());
    }
    let follow = || proto::StreamLogsRequest { id: id.clone(), follow: true };
    let refused = runs.stream_logs(owner(follow())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("200 streams of runs and logs"), "{refused:?}");
    let theirs = proto::WatchRunRequest { id: host.b.runs[0].to_string() };
    assert!(runs.watch_run(request(theirs, Some(&token_of("b")), None)).await.is_ok());
    open.pop();
    let again = async {
        while runs.stream_logs(owner(follow())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again).await.expect("one that was closed makes room");
    host.stop().await;
}

fn empty_starts(count: usize) -> proto::StartRunsRequest {
    proto::StartRunsRequest { starts: vec![proto::StartRunRequest::default(); count] }
}

#[tokio::test]
async fn a_request_of_very_many_fields_is_refused_before_it_is_decoded() {
    let host = Host::start().await;
    let mut runs = RunServiceClient::new(host.connect_from(2).await);
    let refused = runs.start_runs(owner(empty_starts(FIELDS_PER_MESSAGE_MAX + 1))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("more than 100000 fields"), "{refused:?}");
    // Within the bound the service itself says what is too many.
    let refused = runs.start_runs(owner(empty_starts(FIELDS_PER_MESSAGE_MAX))).await.unwrap_err();
    assert!(refused.message().contains("at most 1000"), "{refused:?}");
    host.stop().await;
}

#[tokio::test]
async fn a_tenant_has_so_many_bytes_of_requests_under_way() {
    let host = Host::start().await;
    let on = host.connect_from(2).await;
    // The message, and never the request's end: it stays in memory. Each counts some 45 MB, once it is decoded.
    let begin = |token: String| {
        let mut grpc = tonic::client::Grpc::new(on.clone());
        async move {
            grpc.ready().await.unwrap();
            let path = "/innkeeper.v1.RunService/StartRuns".parse().unwrap();
            let codec = tonic_prost::ProstCodec::<proto::StartRunsRequest, ()>::default();
            let unended = stream::iter([empty_starts(FIELDS_PER_MESSAGE_MAX)]).chain(stream::pending());
            grpc.client_streaming(request(unended, Some(&token), None), path, codec).await.unwrap_err()
        }
    };
    let mut calls: FuturesUnordered<_> = (0..7).map(|_| begin(token_of("a"))).collect();
    let refused = timeout(SOON, calls.next()).await.unwrap().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("the tenant has too many bytes of requests"), "{refused:?}");
    let mut runs = RunServiceClient::new(on.clone());
    // There is room for a neighbour's, which is decoded, and refused for what it asks.
    let theirs = request(empty_starts(FIELDS_PER_MESSAGE_MAX), Some(&token_of("b")), None);
    assert!(runs.start_runs(theirs).await.unwrap_err().message().contains("at most 1000"));
    drop(calls);
    let again = async {
        while runs.start_runs(owner(empty_starts(FIELDS_PER_MESSAGE_MAX))).await.unwrap_err().code()
            != Code::InvalidArgument
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again).await.expect("what was under way is given back");
    host.stop().await;
}
