//! What every driver of the store does alike. Time is an argument here: no case waits.

#[path = "backfills.rs"]
mod backfills;
#[path = "events.rs"]
mod events;
#[path = "firings.rs"]
mod firings;
#[path = "fleet.rs"]
mod fleet;
#[path = "gates.rs"]
mod gates;
#[path = "holidays.rs"]
mod holidays;
#[path = "limits.rs"]
mod limits;
#[path = "outputs.rs"]
mod outputs;
#[path = "records.rs"]
mod records;
#[path = "retention.rs"]
mod retention;
#[path = "runs.rs"]
mod runs;
#[path = "tenants.rs"]
mod tenants;
#[path = "triggers.rs"]
mod triggers;
#[path = "uploads.rs"]
mod uploads;

pub use backfills::*;
pub use events::*;
pub use firings::*;
pub use fleet::*;
pub use gates::*;
pub use holidays::*;
pub use limits::*;
pub use outputs::*;
pub use records::*;
pub use retention::*;
pub use runs::*;
pub use tenants::*;
pub use triggers::*;
pub use uploads::*;

use innkeeper_domain::Timestamp;
use innkeeper_domain::access::Role;
use innkeeper_domain::admit::Rejection;
use innkeeper_domain::calendar::{Covered, Schedule};
use innkeeper_domain::component::{Component, Digest, Shape};
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::firing::Firing;
use innkeeper_domain::host::{self, Host, HostState, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, LogLevel, LogLine, Progress, Run, RunState};
use innkeeper_domain::task::{Task, TaskSpec};
use innkeeper_domain::tenant::Tenant;
use innkeeper_domain::timetable::{Reckoning, Upcoming};
use innkeeper_domain::trigger::{OverlapPolicy, SkipRange, SkipReason, TriggerSpec, TriggerState};
use innkeeper_store::*;
use std::sync::Arc;
use std::time::Duration;

/// Seconds since 1970.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number")
}

/// One that asks, and is none of those that it is asked about.
fn another_host() -> HostId {
    HostId(uuid::Uuid::nil())
}

fn name(text: &str) -> Name {
    text.parse().expect("a good name")
}

fn page(size: usize, after: Option<String>) -> Page {
    Page { size, after }
}

fn component(digest: Digest) -> Component {
    let imports = vec!["wasi:cli/stderr@0.2.6".into()];
    Component { digest, size: 4, shape: Shape::Handler, adapted: false, imports, created_at: at(1) }
}

fn output(text: &str) -> AttemptEnd {
    let usage = Usage { wall: Duration::from_millis(3), cpu: Duration::from_millis(2), peak_memory: 65_536 };
    AttemptEnd { outcome: Outcome::Output(Payload::json(text)), usage }
}

fn failed(kind: FailureKind) -> AttemptEnd {
    AttemptEnd { outcome: Outcome::Failure(Failure::new(kind, "on purpose")), usage: Usage::default() }
}

/// A host of the name `one` without labels.
fn a_host(id: HostId) -> Host {
    let (address, version) = ("127.0.0.1:7070".to_string(), "0".to_string());
    let roles = vec![host::Role::Api, host::Role::Worker];
    Host { id, name: name("one"), address, version, roles, labels: Labels::default(), capacity: 8 }
}

/// A store with a tenant, a component, a task `work`, and a host.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    tenant: Tenant,
    host: HostId,
}

/// The digest of the bytes `wasm`.
fn digest() -> Digest {
    use sha2::Digest as _;
    Digest(sha2::Sha256::digest(b"wasm").into())
}

impl Fixture {
    pub async fn new(store: Arc<dyn Store>) -> Self {
        let tenant = store.tenant_ensure(&name("default"), at(1)).await.expect("a tenant");
        store
            .component_put(tenant.id, component(digest()), b"wasm".to_vec(), at(1).into())
            .await
            .expect("a component");
        let work = NewTask { id: TaskId::new(at(1)), name: name("work"), spec: TaskSpec::new(digest()) };
        match store.task_create(tenant.id, work, at(1).into()).await {
            Ok(_) | Err(StoreError::Exists(_)) => {}
            Err(error) => panic!("{error}"),
        }
        let host = HostId::new(at(1));
        store.host_start(a_host(host), at(1_000), at(1)).await.expect("a host");
        Self { store, tenant, host }
    }

    fn new_run(&self, input: &str, key: Option<&str>) -> NewRun {
        let (id, input) = (RunId::new(at(2)), Payload::json(input));
        NewRun {
            id,
            task: name("work"),
            input,
            idempotency_key: key.map(Into::into),
            options: StartOptions::default(),
        }
    }

    pub async fn start(&self, input: &str) -> RunId {
        let started =
            self.store.runs_start(self.tenant.id, vec![self.new_run(input, None)], at(2).into()).await;
        started.expect("a start")[0].clone().expect("it is admitted").id
    }

    pub async fn claim(&self, limit: usize) -> Vec<Claimed> {
        self.store.runs_claim(self.host, &Labels::default(), limit, at(500)).await.expect("a claim")
    }

    async fn finish(
        &self,
        claimed: &Claimed,
        end: AttemptEnd,
        again_at: Option<Timestamp>,
    ) -> Result<RunState, StoreError> {
        let finish = Finish { lease: claimed.lease, end, again_at, lines: Vec::new() };
        self.store.run_finish_if_leased(finish, at(4)).await
    }

    pub async fn run(&self, id: RunId) -> Run {
        self.store.run_get(self.tenant.id, id).await.expect("the run")
    }

    pub async fn trigger(&self, overlap: OverlapPolicy) -> TriggerId {
        let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
        let spec = TriggerSpec { overlap, ..TriggerSpec::new(schedule) };
        let id = TriggerId::new(at(2));
        let input = Payload::json("{}");
        let new = NewTrigger {
            id,
            task: name("work"),
            name: None,
            spec,
            input,
            first: Some(Reckoning::plain(at(10), at(2))),
        };
        self.store.trigger_create(self.tenant.id, new, at(2).into()).await.expect("a trigger").id
    }

    /// Applies a decision: runs and skips at these seconds, and what is next.
    async fn advance(
        &self,
        id: TriggerId,
        due: i64,
        runs: &[i64],
        skips: Vec<SkipRange>,
        next: Option<i64>,
    ) -> u32 {
        let runs_at: Vec<Timestamp> = runs.iter().map(|s| at(*s)).collect();
        let covered = Some(Covered { at: at(due), offset: 0 });
        let next = next.map(|next| Upcoming::punctual(at(next)));
        let firing = Firing { runs: runs_at, skips, next, covered };
        let run_ids = runs.iter().map(|_| RunId::new(at(due))).collect();
        let advance = Advance { id, due: at(due), firing, run_ids, edition: String::new() };
        self.store.triggers_advance(vec![advance], at(due)).await.expect("an advance")
    }

    pub async fn due(&self, now: i64) -> Vec<(TriggerId, i64)> {
        let due = self.store.triggers_due(at(now), 10).await.expect("due triggers");
        due.into_iter().map(|d| (d.id, d.due.as_second())).collect()
    }

    async fn skips(&self) -> Vec<SkipRange> {
        let skips = self.store.trigger_skips(self.tenant.id, &name("work-1"), page(10, None)).await;
        skips.expect("skips").items
    }
}

fn skip(from: i64, to: i64, count: u64, reason: SkipReason) -> SkipRange {
    SkipRange { from: at(from), to: at(to), count, reason }
}

pub async fn tokens_are_found_by_their_hash(f: Fixture) {
    f.store.token_ensure([1; 32], at(1)).await.unwrap();
    f.store.token_ensure([1; 32], at(2)).await.unwrap();
    let found = f.store.token_find([1; 32]).await.unwrap().unwrap();
    assert_eq!((found.token.role, found.token.created_at, found.tenant), (Role::Admin, at(1), None));
    assert_eq!(f.store.token_find([2; 32]).await, Ok(None));
}

pub async fn components_are_found_by_the_beginning_of_their_digest(f: Fixture) {
    let whole = digest().to_string();
    for text in [&whole, &whole[..7 + 12], &digest().hex()[..20], &whole.to_uppercase()[7..]] {
        assert_eq!(f.store.component_get(f.tenant.id, text).await.unwrap(), component(digest()), "{text}");
    }
    for (text, found) in [("sha256:12", false), ("nonsense-nonsense", false), ("0123456789ab", true)] {
        let error = f.store.component_get(f.tenant.id, text).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::NotFound(_)), found, "{text}: {error}");
    }
    assert_eq!(f.store.component_bytes(digest()).await.unwrap(), b"wasm");
    assert!(
        f.store
            .component_put(f.tenant.id, component(digest()), b"wasm".to_vec(), at(1).into())
            .await
            .unwrap()
    );
}

pub async fn a_component_is_kept_as_long_as_a_task_names_it(f: Fixture) {
    let used = f.store.component_delete(f.tenant.id, digest(), at(1).into()).await.unwrap_err();
    assert!(matches!(&used, StoreError::Conflict(words) if words.contains("`work`")), "{used}");
    f.store.task_delete(f.tenant.id, &name("work"), at(2).into()).await.unwrap();
    f.store.component_delete(f.tenant.id, digest(), at(1).into()).await.unwrap();
    assert!(matches!(f.store.component_bytes(digest()).await, Err(StoreError::NotFound(_))));
    assert!(matches!(
        f.store.component_delete(f.tenant.id, digest(), at(1).into()).await,
        Err(StoreError::NotFound(_))
    ));
}

pub async fn every_change_of_a_task_is_a_revision(f: Fixture) {
    let (tenant, work) = (f.tenant.id, name("work"));
    f.start("1").await;
    let slow = TaskSpec { timeout: Duration::from_secs(9), ..TaskSpec::new(digest()) };
    let changed = f
        .store
        .task_update(tenant, &work, slow.clone(), Some(1), OnGrowth::Accept, at(5).into())
        .await
        .unwrap();
    assert_eq!((changed.revision, &changed.spec, changed.updated_at), (2, &slow, at(5)));
    let stale =
        f.store.task_update(tenant, &work, slow.clone(), Some(1), OnGrowth::Accept, at(6).into()).await;
    assert!(matches!(stale, Err(StoreError::Conflict(_))));
    let back = f.store.task_rollback(tenant, &work, 1, None, OnGrowth::Accept, at(7).into()).await.unwrap();
    assert_eq!((back.revision, &back.spec), (3, &TaskSpec::new(digest())));
    let revisions = f.store.task_revisions(tenant, &work, page(10, None)).await.unwrap().items;
    let seen: Vec<_> = revisions.iter().map(|r| (r.number, r.rollback_of)).collect();
    assert_eq!(seen, [(3, Some(1)), (2, None), (1, None)]);
    assert_eq!(*f.store.task_spec(back.id, 2).await.unwrap(), slow);
    f.start("2").await;
    let mut claimed = f.claim(2).await;
    claimed.sort_by_key(|run| run.revision);
    let seen: Vec<_> = claimed.iter().map(|run| (run.revision, run.current_revision)).collect();
    assert_eq!(seen, [(1, 3), (3, 3)], "a run stays what it was, and its host knows what is new");
    for missing in [
        f.store.task_rollback(tenant, &work, 9, None, OnGrowth::Accept, at(8).into()).await.map(|_| ()),
        f.store.task_get(tenant, &name("none")).await.map(|_| ()),
        f.store
            .task_update(tenant, &work, TaskSpec::new(Digest([9; 32])), None, OnGrowth::Accept, at(8).into())
            .await
            .map(|_| ()),
    ] {
        assert!(matches!(missing, Err(StoreError::NotFound(_))), "{missing:?}");
    }
    let twice = NewTask { id: TaskId::new(at(9)), name: work, spec: slow };
    assert!(matches!(f.store.task_create(tenant, twice, at(9).into()).await, Err(StoreError::Exists(_))));
}

pub async fn grants_that_grow_are_accepted_or_refused(f: Fixture) {
    let (s, tenant, work) = (&f.store, f.tenant.id, name("work"));
    for secret in ["one", "two"] {
        s.secret_put(tenants::sealed(tenant, secret, "k1", b"text", 3), at(3).into()).await.unwrap();
    }
    let granted = |hosts: &[&str], secrets: &[(&str, &str)]| TaskSpec {
        allow_http: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        secrets: secrets.iter().map(|(key, secret)| (key.to_string(), name(secret))).collect(),
        ..TaskSpec::new(digest())
    };
    let update = async |spec, expected, growth| {
        s.task_update(tenant, &work, spec, expected, growth, at(5).into()).await
    };
    let refused = |result: Result<Task, StoreError>, words: &[&str]| {
        let Err(StoreError::Conflict(said)) = result else { panic!("{result:?}") };
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        said
    };
    let more = granted(&["a.example"], &[("TOKEN", "one")]);
    let new =
        ["(--accept-permissions). It", "now also: outbound HTTP to a.example, the secret `one` as TOKEN"];
    let said = refused(update(more.clone(), None, OnGrowth::Refuse).await, &new);
    assert!(said.find(new[0]) < said.find(new[1]), "what to do isn't cut: {said}");
    assert_eq!(s.task_get(tenant, &work).await.unwrap().revision, 1, "nothing was made of it");
    // Who is behind is told that first.
    let behind = refused(update(more.clone(), Some(7), OnGrowth::Refuse).await, &["not 7"]);
    assert!(!behind.contains("a.example"), "{behind}");
    refused(update(more.clone(), Some(7), OnGrowth::Accept).await, &["not 7"]);
    assert_eq!(update(more.clone(), Some(1), OnGrowth::Accept).await.unwrap().revision, 2);

    // As much, less, and the same under another key.
    let moved = granted(&["a.example:443"], &[("KEY", "one")]);
    assert_eq!(update(moved, None, OnGrowth::Refuse).await.unwrap().revision, 3);
    let said = refused(update(more, None, OnGrowth::Refuse).await, &["HTTP to a.example"]);
    assert!(said.ends_with("HTTP to a.example"), "{said}");
    let other = refused(
        update(granted(&["a.example:443"], &[("KEY", "two")]), None, OnGrowth::Refuse).await,
        &["`two` as KEY"],
    );
    assert!(!other.contains("a.example"), "{other}");

    let rollback = async |revision, expected, growth| {
        s.task_rollback(tenant, &work, revision, expected, growth, at(6).into()).await
    };
    assert_eq!(rollback(1, Some(3), OnGrowth::Refuse).await.unwrap().revision, 4);
    // What was granted once is not granted for ever.
    refused(rollback(2, None, OnGrowth::Refuse).await, &new);
    refused(rollback(2, Some(3), OnGrowth::Accept).await, &["at revision 4, not 3"]);
    let back = rollback(2, Some(4), OnGrowth::Accept).await.unwrap();
    assert_eq!((back.revision, back.spec.allow_http.len(), back.spec.secrets.len()), (5, 1, 1));
}

/// Of changes at one time, each is held against the one that it really replaces.
pub async fn grants_of_changes_at_one_time_grow_one_by_one(f: Fixture) {
    let (s, tenant, work) = (&f.store, f.tenant.id, name("work"));
    let granted =
        |host: &str| TaskSpec { allow_http: [host.parse().unwrap()].into(), ..TaskSpec::new(digest()) };
    s.task_update(tenant, &work, granted("a.example"), None, OnGrowth::Accept, at(2).into()).await.unwrap();
    let none = TaskSpec::new(digest());
    for _ in 0..10 {
        let (lost, kept) = tokio::join!(
            s.task_update(tenant, &work, none.clone(), None, OnGrowth::Refuse, at(3).into()),
            s.task_update(tenant, &work, granted("a.example"), None, OnGrowth::Refuse, at(3).into()),
        );
        let lost = lost.unwrap().revision;
        // It came first, or it was growth.
        match kept {
            Ok(kept) => assert!(kept.revision < lost),
            Err(refused) => assert!(matches!(refused, StoreError::Conflict(_)), "{refused}"),
        }
        let now = s.task_get(tenant, &work).await.unwrap();
        assert_eq!((now.revision, &now.spec), (lost, &none));
        s.task_update(tenant, &work, granted("a.example"), None, OnGrowth::Accept, at(4).into())
            .await
            .unwrap();
    }
}

pub async fn deleting_a_task_cancels_what_has_not_begun(f: Fixture) {
    let running = f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    let queued = f.start("2").await;
    f.trigger(OverlapPolicy::Skip).await;
    assert_eq!(f.store.task_delete(f.tenant.id, &name("work"), at(5).into()).await, Ok(1));
    assert_eq!(f.run(queued).await.state, RunState::Cancelled);
    assert_eq!(f.due(100).await, []);
    assert_eq!(f.finish(&claimed, output("1"), None).await, Ok(RunState::Succeeded));
    assert_eq!(f.run(running).await.task, name("work"));
    // The name is free again, for another task.
    let again = NewTask { id: TaskId::new(at(6)), name: name("work"), spec: TaskSpec::new(digest()) };
    assert_eq!(f.store.task_create(f.tenant.id, again, at(6).into()).await.unwrap().revision, 1);
}

pub async fn an_idempotency_key_names_one_run(f: Fixture) {
    let start = async |input: &str, key: &str| {
        f.store
            .runs_start(f.tenant.id, vec![f.new_run(input, Some(key))], at(2).into())
            .await
            .unwrap()
            .remove(0)
    };
    let first = start("1", "a").await.unwrap();
    assert!(!first.existed);
    assert_eq!(start("1", "a").await, Ok(Started { id: first.id, existed: true }));
    assert_eq!(start("2", "a").await, Err(StartError::Rejected(Rejection::KeyConflict(first.id))));
    assert_ne!(start("1", "b").await.unwrap().id, first.id);
    // In one batch too.
    let both = vec![f.new_run("3", Some("c")), f.new_run("3", Some("c"))];
    let both = f.store.runs_start(f.tenant.id, both, at(2).into()).await.unwrap();
    assert_eq!(both[1], Ok(Started { id: both[0].clone().unwrap().id, existed: true }));
}

pub async fn an_idempotency_key_is_free_again_after_7_days(f: Fixture) {
    let week = 7 * 24 * 3600;
    let start = async |input: &str, now: i64| {
        let new = NewRun { id: RunId::new(at(now)), ..f.new_run(input, Some("a")) };
        f.store.runs_start(f.tenant.id, vec![new], at(now).into()).await.unwrap().remove(0)
    };
    let first = start("1", 10).await.unwrap();
    assert_eq!(start("1", 10 + week - 1).await, Ok(Started { id: first.id, existed: true }));
    // Another input is no conflict any more, and the first run is still there.
    let second = start("2", 10 + week + 1).await.unwrap();
    assert!(!second.existed && second.id != first.id);
    assert_eq!(f.run(first.id).await.input, Payload::json("1"));
    assert_eq!(start("2", 10 + week + 2).await, Ok(Started { id: second.id, existed: true }));
}

pub async fn starts_of_a_batch_succeed_or_fail_by_themselves(f: Fixture) {
    let stranger = NewRun { task: name("none"), ..f.new_run("1", None) };
    let starts = vec![f.new_run("1", None), stranger, f.new_run("2", None)];
    let results = f.store.runs_start(f.tenant.id, starts, at(2).into()).await.unwrap();
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(results[1], Err(StartError::NoTask(name("none"))));
    assert_eq!(f.claim(10).await.len(), 2);
}

pub async fn a_run_goes_from_start_to_success(f: Fixture) {
    let id = f.start("[1]").await;
    let queued = f.run(id).await;
    assert_eq!((queued.state, queued.attempt, queued.input), (RunState::Queued, 0, Payload::json("[1]")));
    let claimed = f.claim(10).await.remove(0);
    assert_eq!((claimed.lease.run, claimed.lease.attempt, claimed.try_number), (id, 1, 1));
    assert_eq!((claimed.task.as_str(), claimed.tenant.as_str(), claimed.revision), ("work", "default", 1));
    assert_eq!(f.run(id).await.state, RunState::Running);
    assert!(f.claim(10).await.is_empty());
    assert_eq!(f.finish(&claimed, output("[2]"), None).await, Ok(RunState::Succeeded));
    let run = f.run(id).await;
    assert_eq!(
        (run.state, run.output, run.finished_at),
        (RunState::Succeeded, Some(Payload::json("[2]")), Some(at(4)))
    );
    let usage = Usage { wall: Duration::from_millis(3), cpu: Duration::from_millis(2), peak_memory: 65_536 };
    assert_eq!(
        (run.attempts.len(), run.attempts[0].usage, run.attempts[0].failure.clone()),
        (1, usage, None)
    );
}

pub async fn a_failed_attempt_waits_for_its_next_time(f: Fixture) {
    let id = f.start("1").await;
    let first = f.claim(1).await.remove(0);
    assert_eq!(f.finish(&first, failed(FailureKind::Trap), Some(at(50))).await, Ok(RunState::Waiting));
    let waiting = f.run(id).await;
    assert_eq!((waiting.available_at, waiting.failure.unwrap().kind), (at(50), FailureKind::Trap));
    assert_eq!(f.store.runs_next_ready(&Labels::default(), at(0)).await, Ok(Some(at(50))));
    assert!(f.store.runs_claim(f.host, &Labels::default(), 10, at(49)).await.unwrap().is_empty());
    let second = f.store.runs_claim(f.host, &Labels::default(), 10, at(50)).await.unwrap().remove(0);
    assert_eq!((second.lease.attempt, second.try_number), (2, 2));
    assert_eq!(f.finish(&second, failed(FailureKind::Timeout), None).await, Ok(RunState::Failed));
    let run = f.run(id).await;
    let kinds: Vec<_> = run.attempts.iter().map(|a| a.failure.as_ref().unwrap().kind).collect();
    assert_eq!(kinds, [FailureKind::Trap, FailureKind::Timeout]);
}

pub async fn an_outcome_under_an_old_lease_is_void(f: Fixture) {
    let id = f.start("1").await;
    let old = f.claim(1).await.remove(0);
    assert_eq!(f.store.hosts_reap(another_host(), at(2_000)).await, Ok(1));
    assert_eq!(f.store.host_renew(f.host, at(3_000)).await, Err(StoreError::LeaseLost));
    assert_eq!(f.finish(&old, output("old"), None).await, Err(StoreError::LeaseLost));
    let other = HostId::new(at(2_001));
    f.store.host_start(a_host(other), at(9_000), at(2_001)).await.unwrap();
    let new = f.store.runs_claim(other, &Labels::default(), 1, at(2_002)).await.unwrap().remove(0);
    assert_eq!((new.lease.attempt, new.try_number), (2, 1), "losing a host is no try");
    assert_eq!(f.finish(&old, output("old"), None).await, Err(StoreError::LeaseLost));
    assert_eq!(f.finish(&new, output("new"), None).await, Ok(RunState::Succeeded));
    assert_eq!(f.finish(&new, output("again"), None).await, Err(StoreError::LeaseLost));
    assert_eq!(f.run(id).await.output, Some(Payload::json("new")));
}

pub async fn runs_of_a_lost_host_are_taken_up_again_three_times(f: Fixture) {
    let id = f.start("1").await;
    let mut now = 2_000;
    for loss in 1..=3 {
        let host = HostId::new(at(now));
        f.store.host_start(a_host(host), at(now + 10), at(now)).await.unwrap();
        assert_eq!(
            f.store.runs_claim(host, &Labels::default(), 1, at(now)).await.unwrap().len(),
            1,
            "loss {loss}"
        );
        f.store.hosts_reap(another_host(), at(now + 11)).await.unwrap();
        now += 100;
    }
    let run = f.run(id).await;
    assert_eq!(
        (run.state, run.failure.unwrap().kind, run.attempts.len()),
        (RunState::Failed, FailureKind::HostLost, 3)
    );
    assert_eq!(f.store.runs_claim(f.host, &Labels::default(), 1, at(now)).await, Err(StoreError::LeaseLost));
}

pub async fn a_host_that_stops_hands_back_what_it_has(f: Fixture) {
    f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    assert_eq!(f.store.host_stop(f.host, at(5)).await, Ok(1));
    assert_eq!(f.finish(&claimed, output("late"), None).await, Err(StoreError::LeaseLost));
    let other = HostId::new(at(6));
    assert_eq!(f.store.host_start(a_host(other), at(9_000), at(6)).await, Ok(0));
    let again = f.store.runs_claim(other, &Labels::default(), 1, at(6)).await.unwrap().remove(0);
    assert_eq!((again.lease.attempt, again.try_number), (2, 1));
}

pub async fn a_cancel_ends_what_waits_and_asks_what_runs(f: Fixture) {
    let tenant = f.tenant.id;
    let (queued, running) = (f.start("1").await, f.start("2").await);
    assert_eq!(f.store.run_cancel(tenant, queued, at(3).into()).await.unwrap().state, RunState::Cancelled);
    let claimed = f.claim(10).await;
    assert_eq!(claimed.len(), 1);
    let asked = f.store.run_cancel(tenant, running, at(3).into()).await.unwrap();
    assert_eq!((asked.state, asked.cancel_requested), (RunState::Running, true));
    let orders = Orders { state: HostState::Active, cancelled: vec![claimed[0].lease] };
    assert_eq!(f.store.host_orders(f.host).await, Ok(orders));
    // It is not tried again, whatever it ended with.
    assert_eq!(f.finish(&claimed[0], failed(FailureKind::Trap), Some(at(9))).await, Ok(RunState::Cancelled));
    assert_eq!(f.store.run_cancel(tenant, running, at(5).into()).await.unwrap().state, RunState::Cancelled);
    let succeeds = f.start("3").await;
    let claimed = f.claim(10).await;
    f.store.run_cancel(tenant, succeeds, at(3).into()).await.unwrap();
    assert_eq!(f.finish(&claimed[0], output("all the same"), None).await, Ok(RunState::Succeeded));
    let nobody = f.store.run_cancel(tenant, RunId::new(at(1)), at(3).into()).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))));
}

pub async fn logs_are_in_order_and_written_once(f: Fixture) {
    let id = f.start("1").await;
    let claimed = f.claim(1).await.remove(0);
    let line = |sequence: u32| LogLine {
        attempt: 1,
        sequence,
        at: at(4),
        level: LogLevel::Warn,
        text: format!("line {sequence}"),
    };
    let progress = Progress { done: 1, total: None, note: "so far".into() };
    let news =
        |lines: Vec<LogLine>| AttemptNews { lease: claimed.lease, lines, progress: Some(progress.clone()) };
    f.store.runs_news(vec![news(vec![line(1), line(2)])]).await.unwrap();
    assert_eq!(f.run(id).await.progress, Some(progress.clone()));
    let finish =
        Finish { lease: claimed.lease, end: output("1"), again_at: None, lines: vec![line(2), line(3)] };
    f.store.run_finish_if_leased(finish, at(5)).await.unwrap();
    f.store.runs_news(vec![news(vec![line(4)])]).await.unwrap();
    let logs = async |after, limit| f.store.run_logs(f.tenant.id, id, after, limit).await.unwrap();
    assert_eq!(logs((0, 0), 10).await, [line(1), line(2), line(3)]);
    assert_eq!(logs((1, 1), 1).await, [line(2)]);
    assert_eq!(logs((1, 3), 10).await, []);
}

pub async fn lists_come_in_pages(f: Fixture) {
    for n in 0..5 {
        f.start(&n.to_string()).await;
    }
    f.claim(2).await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let found = f.store.run_list(f.tenant.id, RunFilter::default(), page(2, after)).await.unwrap();
        assert!(found.items.len() <= 2);
        seen.extend(found.items.iter().map(|run| run.id));
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((seen.len(), seen), (5, sorted));
    let running = RunFilter { states: vec![RunState::Running], ..RunFilter::default() };
    assert_eq!(f.store.run_list(f.tenant.id, running, page(10, None)).await.unwrap().items.len(), 2);
    let of_none = RunFilter { task: Some(name("none")), ..RunFilter::default() };
    assert!(matches!(
        f.store.run_list(f.tenant.id, of_none, page(10, None)).await,
        Err(StoreError::NotFound(_))
    ));
    let bad = f.store.run_list(f.tenant.id, RunFilter::default(), page(10, Some("x".into()))).await;
    assert!(matches!(bad, Err(StoreError::Invalid(_))));
    let no_name = || page(10, Some("No name".into()));
    assert!(matches!(f.store.task_list(f.tenant.id, None, no_name()).await, Err(StoreError::Invalid(_))));
    assert!(matches!(
        f.store.trigger_list(f.tenant.id, None, None, no_name()).await,
        Err(StoreError::Invalid(_))
    ));
    for n in 0..3 {
        let new =
            NewTask { id: TaskId::new(at(2)), name: name(&format!("t{n}")), spec: TaskSpec::new(digest()) };
        f.store.task_create(f.tenant.id, new, at(2).into()).await.unwrap();
    }
    let first = f.store.task_list(f.tenant.id, None, page(3, None)).await.unwrap();
    let rest = f.store.task_list(f.tenant.id, None, page(3, first.next.clone())).await.unwrap();
    let names: Vec<_> = first.items.iter().chain(&rest.items).map(|task| task.name.as_str()).collect();
    assert_eq!((names, rest.next), (vec!["t0", "t1", "t2", "work"], None));
}

pub async fn tenants_do_not_see_each_other(f: Fixture) {
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    let run = f.start("1").await;
    f.trigger(OverlapPolicy::Skip).await;
    let (work, first) = (name("work"), name("work-1"));
    for seen in [
        f.store.component_get(other, &digest().hex()).await.map(|_| ()),
        f.store.component_delete(other, digest(), at(1).into()).await,
        f.store.task_get(other, &work).await.map(|_| ()),
        f.store.task_delete(other, &work, at(2).into()).await.map(|_| ()),
        f.store.trigger_get(other, &first).await.map(|_| ()),
        f.store.trigger_pause(other, &first, String::new(), QueuedRuns::Keep, at(2).into()).await.map(|_| ()),
        f.store.trigger_delete(other, &first, at(2).into()).await.map(|_| ()),
        f.store.run_get(other, run).await.map(|_| ()),
        f.store.run_cancel(other, run, at(2).into()).await.map(|_| ()),
        f.store.run_logs(other, run, (0, 0), 1).await.map(|_| ()),
    ] {
        assert!(matches!(seen, Err(StoreError::NotFound(_))), "{seen:?}");
    }
    let starts = f.store.runs_start(other, vec![f.new_run("1", None)], at(2).into()).await.unwrap();
    assert_eq!(starts[0], Err(StartError::NoTask(work.clone())));
    assert!(f.store.run_list(other, RunFilter::default(), page(9, None)).await.unwrap().items.is_empty());
    assert!(f.store.component_list(other, page(9, None)).await.unwrap().items.is_empty());
    // A digest that another tenant has uploaded can't be named.
    let new = NewTask { id: TaskId::new(at(2)), name: work, spec: TaskSpec::new(digest()) };
    assert!(matches!(f.store.task_create(other, new, at(2).into()).await, Err(StoreError::NotFound(_))));
}
