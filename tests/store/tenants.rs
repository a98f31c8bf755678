//! Tenants, their tokens and secrets, and the audit log.

use super::*;
use innkeeper_domain::access::{Proof, Role, Token, Void};
use innkeeper_domain::audit::{Actor, AuditEntry, Change};
use innkeeper_domain::ids::{TenantId, TokenId};
use innkeeper_domain::limits::TOKENS_PER_TENANT_MAX;
use innkeeper_domain::quota::{Quota, Quotas};
use innkeeper_domain::secret::{SealedSecret, SecretInfo};
use innkeeper_domain::tenant::{TenantState, TenantUpdate};
use std::collections::BTreeSet;
use std::future::Future;

pub(super) fn actor() -> Actor {
    Actor {
        name: "token 1".into(),
        role: Some(Role::Owner),
        address: "192.0.2.7:9".into(),
        action: "Test/Call".into(),
    }
}

/// A change that somebody asked for.
pub(super) fn by(second: i64) -> Change {
    Change { now: at(second), by: Some(Arc::new(actor())) }
}

pub(super) fn new_tenant(of: &str, second: i64) -> NewTenant {
    let quotas = Quotas([(Quota::Triggers, 3)].into());
    NewTenant { id: TenantId::new(at(second)), name: name(of), weight: 5, quotas }
}

pub(super) fn token(tenant: Option<TenantId>, second: i64) -> Token {
    Token {
        id: TokenId::new(at(second)),
        tenant,
        role: if tenant.is_some() { Role::Viewer } else { Role::Admin },
        tasks: tenant.map(|_| ["work".parse().unwrap(), "play".parse().unwrap()].into()),
        proof: Proof::Certificate("ci.example.com".into()),
        note: "it's for \"CI\"".into(),
        created_at: at(second),
        expires_at: Some(at(second + 100)),
        revoked_at: None,
    }
}

pub(super) fn sealed(tenant: TenantId, of: &str, key: &str, text: &[u8], second: i64) -> SealedSecret {
    SealedSecret {
        tenant,
        name: name(of),
        key_id: key.into(),
        sealed: text.into(),
        created_at: at(second),
        updated_at: at(second),
    }
}

fn is_missing<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    assert!(matches!(&result, Err(StoreError::NotFound(words)) if words == what), "{result:?}");
}

/// Every page of a list.
pub(super) async fn all<T, F>(size: usize, list: impl Fn(Page) -> F) -> Vec<T>
where
    F: Future<Output = Result<Paged<T>, StoreError>>,
{
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let found = list(page(size, after)).await.unwrap();
        assert!(found.items.len() <= size);
        items.extend(found.items);
        after = found.next;
        if after.is_none() {
            return items;
        }
    }
}

pub(super) async fn audit(f: &Fixture, filter: AuditFilter) -> Vec<AuditEntry> {
    all(2, |page| f.store.audit_list(filter.clone(), page)).await
}

pub async fn a_tenant_is_made_changed_and_deleted(f: Fixture) {
    let new = new_tenant("acme", 5);
    let made = f.store.tenant_create(new.clone(), at(5).into()).await.unwrap();
    assert_eq!((made.id, made.weight, &made.quotas), (new.id, 5, &new.quotas));
    assert_eq!((made.state, made.note.as_str(), made.created_at), (TenantState::Active, "", at(5)));
    let again = f.store.tenant_create(new_tenant("acme", 6), at(6).into()).await;
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");
    assert_eq!(f.store.tenant_ensure(&name("acme"), at(6)).await, Ok(made.clone()));
    let names = all(1, |page| f.store.tenant_list(page)).await;
    assert_eq!(names.iter().map(|tenant| tenant.name.as_str()).collect::<Vec<_>>(), ["acme", "default"]);

    let update = TenantUpdate {
        pause: None,
        state: Some((TenantState::Suspended, "unpaid".into())),
        weight: None,
        quotas: [(Quota::Triggers, None), (Quota::FanOut, Some(9))].into(),
    };
    let changed = f.store.tenant_update(&name("acme"), update.clone(), at(7).into()).await.unwrap();
    assert_eq!(changed, update.clone().apply(made.clone()));
    assert_eq!(f.store.tenant_get(&name("acme")).await, Ok(changed));
    is_missing(f.store.tenant_update(&name("none"), update, at(7).into()).await, "tenant `none`");
    is_missing(f.store.tenant_delete(&name("none"), at(7).into()).await, "tenant `none`");

    f.store.tenant_delete(&name("acme"), at(8).into()).await.unwrap();
    is_missing(f.store.tenant_get(&name("acme")).await, "tenant `acme`");
    is_missing(f.store.tenant_delete(&name("acme"), at(8).into()).await, "tenant `acme`");
    assert_eq!(f.store.tenant_list(page(9, None)).await.unwrap().items.len(), 1);
    let other = f.store.tenant_create(new_tenant("acme", 9), at(9).into()).await.unwrap();
    assert_ne!(other.id, made.id);
}

pub async fn a_deleted_tenant_has_nothing_and_its_runs_are_ended(f: Fixture) {
    let id = f.tenant.id;
    let trigger = f.trigger(OverlapPolicy::Skip).await;
    let running = f.start("1").await;
    let lease = f.claim(1).await.remove(0).lease;
    assert_eq!(lease.run, running);
    f.store.token_create(token(Some(id), 3), [1; 32], at(3).into()).await.unwrap();
    f.store.secret_put(sealed(id, "key", "k1", b"x", 3), at(3).into()).await.unwrap();
    assert_eq!(f.store.host_orders(f.host).await.unwrap().cancelled, []);

    f.store.tenant_delete(&name("default"), at(4).into()).await.unwrap();
    assert_eq!(f.store.token_find([1; 32]).await, Ok(None));
    assert_eq!(f.store.secrets_get(id, vec![name("key")]).await, Ok(vec![]));
    assert_eq!(f.due(1_000).await, []);
    assert_eq!(f.advance(trigger, 10, &[10], vec![], Some(20)).await, 0);
    is_missing(f.store.task_get(id, &name("work")).await, "task `work`");
    assert_eq!(f.store.host_orders(f.host).await.unwrap().cancelled, [lease]);
    // Nor can anything be made in it by whoever knew it before.
    let gone = format!("tenant {id}");
    is_missing(f.store.token_create(token(Some(id), 5), [2; 32], at(5).into()).await, &gone);
    is_missing(f.store.secret_put(sealed(id, "key", "k1", b"x", 5), at(5).into()).await, &gone);
    let task = NewTask { id: TaskId::new(at(5)), name: name("new"), spec: TaskSpec::new(digest()) };
    is_missing(f.store.task_create(id, task, at(5).into()).await, &gone);
    is_missing(f.store.upload_begin(id, Digest([3; 32]), 9, at(5)).await, &gone);
    is_missing(f.store.component_put(id, component(digest()), b"wasm".to_vec(), at(5).into()).await, &gone);
    let work = NewRun {
        id: RunId::new(at(5)),
        task: name("work"),
        input: Payload::default(),
        idempotency_key: None,
        options: StartOptions::default(),
    };
    let started = f.store.runs_start(id, vec![work], at(5).into()).await.unwrap();
    assert_eq!(started, [Err(StartError::NoTask(name("work")))]);
    assert_eq!(f.store.triggers_next().await, Ok(None));
    // Another of its name has nothing of it.
    let other = f.store.tenant_ensure(&name("default"), at(6)).await.unwrap();
    assert_ne!(other.id, id);
    assert!(f.store.task_list(other.id, None, page(9, None)).await.unwrap().items.is_empty());
}

pub async fn a_tenant_is_told_what_it_uses(f: Fixture) {
    let id = f.tenant.id;
    let number = async |quota| f.store.tenant_use(id, at(500)).await.unwrap().0.get(&quota).copied();
    assert_eq!(number(Quota::StoredBytes).await, Some(4));
    f.trigger(OverlapPolicy::Skip).await;
    f.store.upload_begin(id, Digest([7; 32]), 100, at(2)).await.unwrap();
    assert_eq!(number(Quota::StoredBytes).await, Some(104));
    f.start("1").await;
    assert_eq!(f.claim(1).await.len(), 1);
    for (quota, used) in [
        (Quota::ConcurrentRuns, Some(1)),
        (Quota::Triggers, Some(1)),
        (Quota::Components, Some(1)),
        (Quota::CpuPerDay, Some(0)),
        (Quota::StartsPerSecond, None),
        (Quota::RunMemory, None),
        (Quota::FanOut, None),
    ] {
        assert_eq!(number(quota).await, used, "{quota}");
    }
    let other = f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id;
    assert!(f.store.tenant_use(other, at(500)).await.unwrap().0.values().all(|used| *used == 0));
}

pub async fn a_token_is_what_it_was_made_as(f: Fixture) {
    let tenant = f.tenant.id;
    let made = token(Some(tenant), 10);
    assert_eq!(f.store.token_create(made.clone(), [1; 32], at(10).into()).await, Ok(made.clone()));
    let found = f.store.token_find([1; 32]).await.unwrap().unwrap();
    assert_eq!((&found.token, &found.tenant), (&made, &Some(f.tenant.clone())));
    // The tenant is told as it stands now.
    let suspend = TenantUpdate { state: Some((TenantState::Suspended, "x".into())), ..Default::default() };
    let suspended = f.store.tenant_update(&name("default"), suspend, at(11).into()).await.unwrap();
    assert_eq!(f.store.token_find([1; 32]).await.unwrap().unwrap().tenant, Some(suspended));
    let admin = Token { tasks: None, expires_at: None, proof: Proof::Token, ..token(None, 12) };
    f.store.token_create(admin.clone(), [2; 32], at(12).into()).await.unwrap();
    let found = f.store.token_find([2; 32]).await.unwrap().unwrap();
    assert_eq!((found.token, found.tenant), (admin, None));
    let nobody = TenantId::new(at(1));
    is_missing(
        f.store.token_create(token(Some(nobody), 13), [3; 32], at(13).into()).await,
        &format!("tenant {nobody}"),
    );
}

pub async fn a_token_is_good_until_it_expires_or_is_revoked(f: Fixture) {
    let (tenant, other) = (f.tenant.id, f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id);
    let first = token(Some(tenant), 10);
    f.store.token_create(first.clone(), [1; 32], at(10).into()).await.unwrap();
    // Another of the same proof only when this one is void.
    let second = token(Some(other), 20);
    let taken = f.store.token_create(second.clone(), [1; 32], at(109).into()).await;
    assert!(matches!(taken, Err(StoreError::Exists(_))), "{taken:?}");
    f.store.token_create(second.clone(), [1; 32], at(110).into()).await.unwrap();
    assert_eq!(f.store.token_find([1; 32]).await.unwrap().unwrap().token, second);
    is_missing(f.store.token_revoke(None, first.id, at(111).into()).await, &format!("token {}", first.id));

    is_missing(
        f.store.token_revoke(Some(tenant), second.id, at(111).into()).await,
        &format!("token {}", second.id),
    );
    let revoked = f.store.token_revoke(Some(other), second.id, at(112).into()).await.unwrap();
    assert_eq!(revoked.void(at(113)), Some(Void::Revoked(at(112))));
    assert_eq!(f.store.token_revoke(None, second.id, at(120).into()).await, Ok(revoked.clone()));
    assert_eq!(f.store.token_find([1; 32]).await.unwrap().unwrap().token, revoked);
    f.store.token_create(token(Some(tenant), 121), [1; 32], at(121).into()).await.unwrap();

    // A host's own token stays revoked when the host starts again.
    f.store.token_ensure([9; 32], at(1)).await.unwrap();
    let own = f.store.token_find([9; 32]).await.unwrap().unwrap().token;
    f.store.token_revoke(None, own.id, at(2).into()).await.unwrap();
    f.store.token_ensure([9; 32], at(3)).await.unwrap();
    let own = f.store.token_find([9; 32]).await.unwrap().unwrap().token;
    assert_eq!(own.revoked_at, Some(at(2)));
}

pub async fn tokens_are_listed_the_newest_first(f: Fixture) {
    let (tenant, other) = (f.tenant.id, f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id);
    let tokens = [token(Some(tenant), 10), token(None, 11), token(Some(other), 12), token(Some(tenant), 13)];
    for (place, token) in tokens.iter().enumerate() {
        f.store.token_create(token.clone(), [place as u8; 32], at(14).into()).await.unwrap();
    }
    let ids = async |of, size| {
        let found = all(size, |page| f.store.token_list(of, page)).await;
        found.into_iter().map(|found| found.token.id).collect::<Vec<_>>()
    };
    let of = |places: &[usize]| places.iter().map(|place| tokens[*place].id).collect::<Vec<_>>();
    assert_eq!(ids(Some(tenant), 1).await, of(&[3, 0]));
    assert_eq!(ids(None, 3).await, of(&[3, 2, 1, 0]));
    let bad = f.store.token_list(None, page(1, Some("nonsense".into()))).await;
    assert!(matches!(bad, Err(StoreError::Invalid(_))), "{bad:?}");
}

pub async fn a_tenant_has_so_many_tokens_that_are_good(f: Fixture) {
    let tenant = f.tenant.id;
    let create = async |number: u64, second| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        f.store.token_create(token(Some(tenant), 10), hash, at(second).into()).await
    };
    for number in 0..TOKENS_PER_TENANT_MAX {
        create(number, 10).await.unwrap();
    }
    let over = create(TOKENS_PER_TENANT_MAX, 10).await;
    assert!(matches!(over, Err(StoreError::Conflict(_))), "{over:?}");
    // They have expired by then.
    create(TOKENS_PER_TENANT_MAX, 110).await.unwrap();
}

pub async fn a_secret_is_kept_while_a_task_names_it(f: Fixture) {
    let tenant = f.tenant.id;
    let key = sealed(tenant, "key", "k1", b"one", 3);
    let naming = |secret: &str| TaskSpec {
        secrets: [("API_KEY".to_string(), name(secret))].into(),
        ..TaskSpec::new(digest())
    };
    let update = async |spec| {
        f.store.task_update(tenant, &name("work"), spec, None, OnGrowth::Accept, at(5).into()).await
    };
    is_missing(update(naming("key")).await, "secret `key`");
    let info = f.store.secret_put(key.clone(), at(3).into()).await.unwrap();
    assert_eq!((info.name.as_str(), info.key_id.as_str(), info.tasks), ("key", "k1", vec![]));
    assert_eq!(update(naming("key")).await.unwrap().revision, 2);
    let new = NewTask { id: TaskId::new(at(5)), name: name("new"), spec: naming("none") };
    is_missing(f.store.task_create(tenant, new, at(5).into()).await, "secret `none`");
    is_missing(f.store.task_get(tenant, &name("new")).await, "task `new`");

    // Its text is set again; it is as old as before.
    let again =
        SealedSecret { key_id: "k2".into(), sealed: b"two".into(), ..sealed(tenant, "key", "", b"", 9) };
    let info = f.store.secret_put(again.clone(), at(9).into()).await.unwrap();
    assert_eq!((info.created_at, info.updated_at, info.tasks), (at(3), at(9), vec![]));
    let listed = f.store.secret_list(tenant, page(9, None)).await.unwrap().items;
    assert_eq!(listed, [SecretInfo { tasks: vec![name("work")], ..info }]);
    let kept = SealedSecret { created_at: at(3), ..again };
    let wanted = vec![name("none"), name("key"), name("key")];
    assert_eq!(f.store.secrets_get(tenant, wanted).await, Ok(vec![kept]));

    let used = f.store.secret_delete(tenant, &name("key"), at(6).into()).await.unwrap_err();
    assert!(matches!(&used, StoreError::Conflict(words) if words.contains("`work`")), "{used}");
    // An older revision names it still, and can't come back when it is gone.
    update(TaskSpec::new(digest())).await.unwrap();
    f.store.secret_delete(tenant, &name("key"), at(7).into()).await.unwrap();
    is_missing(f.store.secret_delete(tenant, &name("key"), at(7).into()).await, "secret `key`");
    is_missing(
        f.store.task_rollback(tenant, &name("work"), 2, None, OnGrowth::Accept, at(8).into()).await,
        "secret `key`",
    );
}

pub async fn secrets_of_tenants_are_their_own(f: Fixture) {
    let (tenant, other) = (f.tenant.id, f.store.tenant_ensure(&name("other"), at(1)).await.unwrap().id);
    for of in ["c", "a", "b"] {
        f.store.secret_put(sealed(tenant, of, "k1", of.as_bytes(), 3), at(3).into()).await.unwrap();
    }
    f.store.secret_put(sealed(other, "a", "k1", b"theirs", 3), at(3).into()).await.unwrap();
    let names = |of| {
        let store = &f.store;
        async move {
            let found = all(2, |page| store.secret_list(of, page)).await;
            found.into_iter().map(|info| info.name.to_string()).collect::<Vec<_>>()
        }
    };
    assert_eq!(
        (names(tenant).await, names(other).await),
        (vec!["a".into(), "b".into(), "c".into()], vec!["a".into()])
    );
    f.store.secret_delete(other, &name("a"), at(4).into()).await.unwrap();
    assert_eq!(f.store.secrets_get(tenant, vec![name("a")]).await.unwrap()[0].sealed, b"a");
    is_missing(f.store.secret_delete(other, &name("b"), at(4).into()).await, "secret `b`");
}

pub async fn a_secret_is_sealed_anew_unless_it_has_changed(f: Fixture) {
    let tenant = f.tenant.id;
    let old = sealed(tenant, "key", "old", b"one", 3);
    f.store.secret_put(old.clone(), at(3).into()).await.unwrap();
    f.store.secret_put(sealed(tenant, "new", "new", b"three", 3), at(3).into()).await.unwrap();
    assert_eq!(f.store.secrets_under_other_keys("new", 9).await, Ok(vec![old.clone()]));
    let resealed = SealedSecret { key_id: "new".into(), sealed: b"eno".into(), ..old.clone() };
    // Somebody sets it just then.
    let set = sealed(tenant, "key", "old", b"two", 4);
    f.store.secret_put(set.clone(), at(4).into()).await.unwrap();
    assert_eq!(f.store.secret_reseal(old.clone(), resealed.clone()).await, Ok(false));
    let resealed = SealedSecret { sealed: b"owt".into(), ..resealed };
    assert_eq!(f.store.secret_reseal(set, resealed.clone()).await, Ok(true));
    assert_eq!(f.store.secret_reseal(old, resealed.clone()).await, Ok(false));
    // When its text was set stays as it was.
    let kept = SealedSecret { updated_at: at(4), ..resealed };
    assert_eq!(f.store.secrets_get(tenant, vec![name("key")]).await, Ok(vec![kept]));
    assert_eq!(f.store.secrets_under_other_keys("new", 9).await, Ok(vec![]));
    assert_eq!(f.store.secrets_under_other_keys("newer", 1).await.unwrap().len(), 1);
}

pub async fn a_task_has_no_more_memory_than_its_tenant_may_have(f: Fixture) {
    let quotas = [(Quota::RunMemory, Some(TaskSpec::new(digest()).memory - 1))].into();
    let lower = TenantUpdate { quotas, ..TenantUpdate::default() };
    f.store.tenant_update(&name("default"), lower, at(3).into()).await.unwrap();
    let new = |memory| {
        let spec = TaskSpec { memory, ..TaskSpec::new(digest()) };
        NewTask { id: TaskId::new(at(4)), name: name("new"), spec }
    };
    let whole = TaskSpec::new(digest()).memory;
    let over = f.store.task_create(f.tenant.id, new(whole), at(4).into()).await.unwrap_err();
    assert!(
        matches!(&over, StoreError::Quota(over) if over.quota == Quota::RunMemory && over.asked == whole),
        "{over}"
    );
    f.store.task_create(f.tenant.id, new(whole - 1), at(4).into()).await.unwrap();
    // What was there before can't come back.
    let rolled =
        f.store.task_rollback(f.tenant.id, &name("work"), 1, None, OnGrowth::Accept, at(5).into()).await;
    assert!(matches!(rolled, Err(StoreError::Quota(_))), "{rolled:?}");
}

pub async fn lists_show_only_what_is_of_some_tasks(f: Fixture) {
    let (s, id) = (&f.store, f.tenant.id);
    for task in ["play", "rest"] {
        let new = NewTask { id: TaskId::new(at(3)), name: name(task), spec: TaskSpec::new(digest()) };
        s.task_create(id, new, at(3).into()).await.unwrap();
        let start = NewRun { task: name(task), ..f.new_run("1", None) };
        s.runs_start(id, vec![start], at(3).into()).await.unwrap();
    }
    f.start("1").await;
    f.trigger(OverlapPolicy::Skip).await;
    let some: BTreeSet<Name> = [name("play"), name("rest"), name("none")].into();
    let tasks = all(1, |page| s.task_list(id, Some(some.clone()), page)).await;
    assert_eq!(tasks.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["play", "rest"]);
    let runs = |only: Option<BTreeSet<Name>>, task: Option<Name>, trigger: Option<Name>| {
        let filter = RunFilter { only, task, trigger, ..RunFilter::default() };
        async move {
            let runs = s.run_list(id, filter, page(9, None)).await?.items;
            Ok::<_, StoreError>(runs.into_iter().map(|run| run.task.to_string()).collect::<BTreeSet<_>>())
        }
    };
    assert_eq!(runs(Some(some.clone()), None, None).await, Ok(["play".into(), "rest".into()].into()));
    assert_eq!(runs(Some(some.clone()), Some(name("play")), None).await, Ok(["play".into()].into()));
    assert_eq!(runs(Some(BTreeSet::new()), None, None).await, Ok(BTreeSet::new()));
    // What isn't among them is as if it weren't there.
    is_missing(runs(Some(some.clone()), Some(name("work")), None).await, "task `work`");
    is_missing(runs(Some(some.clone()), None, Some(name("work-1"))).await, "trigger `work-1`");
    let triggers = async |task: Option<&Name>, only| s.trigger_list(id, task, only, page(9, None)).await;
    assert_eq!(triggers(None, Some(some.clone())).await.unwrap().items, []);
    assert_eq!(triggers(None, Some([name("work")].into())).await.unwrap().items.len(), 1);
    is_missing(triggers(Some(&name("work")), Some(some)).await, "task `work`");
}
