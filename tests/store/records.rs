//! The audit log: every change that somebody asks for is on record, in the change's own commit.

use super::tenants::{actor, audit, by, new_tenant, sealed, token};
use super::*;
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::{Actor, AuditEntry, AuditOutcome};
use innkeeper_domain::ids::{AuditId, TenantId};
use innkeeper_domain::limits::AUDIT_VALUE_BYTES_MAX;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::secret::SealedSecret;
use innkeeper_domain::tenant::TenantUpdate;
use innkeeper_domain::timetable::Reckoning;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::future::Future;

/// The lines that a call adds.
async fn added<T>(f: &Fixture, call: impl Future<Output = T>) -> (T, Vec<AuditEntry>) {
    let before: BTreeSet<AuditId> =
        audit(f, AuditFilter::default()).await.into_iter().map(|entry| entry.id).collect();
    let answer = call.await;
    let mut lines = audit(f, AuditFilter::default()).await;
    lines.retain(|entry| !before.contains(&entry.id));
    (answer, lines)
}

/// A call that is on record with one line, about this.
async fn recorded<T>(
    f: &Fixture,
    object: &str,
    of: Option<&str>,
    call: impl Future<Output = Result<T, StoreError>>,
) -> (T, Value, Value) {
    let (answer, mut lines) = added(f, call).await;
    let answer = answer.unwrap_or_else(|error| panic!("{object}: {error}"));
    assert_eq!(lines.len(), 1, "{object}: {lines:?}");
    let line = lines.remove(0);
    assert_eq!(line.object, object);
    assert_eq!(line.tenant.map(|(_, name)| name.to_string()).as_deref(), of, "{object}");
    assert_eq!((&line.actor, line.outcome, line.count), (&actor(), AuditOutcome::Done, 1));
    (answer, line.before, line.after)
}

pub async fn every_change_is_on_record(f: Fixture) {
    let (s, id, mine, work) = (&f.store, f.tenant.id, Some("default"), name("work"));
    let (_, before, after) =
        recorded(&f, "tenant `acme`", Some("acme"), s.tenant_create(new_tenant("acme", 5), by(5))).await;
    assert_eq!(
        (before, &after["weight"], &after["quotas"]),
        (Value::Null, &json!(5), &json!({"triggers": 3}))
    );
    let heavy = TenantUpdate { weight: Some(7), ..Default::default() };
    let (_, before, after) =
        recorded(&f, "tenant `acme`", Some("acme"), s.tenant_update(&name("acme"), heavy, by(6))).await;
    assert_eq!((&before["weight"], &after["weight"]), (&json!(5), &json!(7)));
    let open = TenantUpdate { quotas: [(Quota::OpenNetworks, Some(0b11))].into(), ..Default::default() };
    let (_, _, after) =
        recorded(&f, "tenant `acme`", Some("acme"), s.tenant_update(&name("acme"), open, by(6))).await;
    assert_eq!(after["quotas"], json!({"triggers": 3, "open-networks": ["loopback", "private"]}));
    let (_, before, after) =
        recorded(&f, "tenant `acme`", Some("acme"), s.tenant_delete(&name("acme"), by(7))).await;
    assert_eq!((&before["weight"], after), (&json!(7), Value::Null));

    let made = token(Some(id), 8);
    let object = format!("token {}", made.id);
    let (_, _, after) = recorded(&f, &object, mine, s.token_create(made.clone(), [0xab; 32], by(8))).await;
    assert_eq!((&after["role"], &after["tasks"]), (&json!("viewer"), &json!(["play", "work"])));
    let (_, before, after) = recorded(&f, &object, mine, s.token_revoke(None, made.id, by(9))).await;
    assert_eq!((&before["revoked_at"], &after["revoked_at"]), (&Value::Null, &json!(at(9).to_string())));

    let secret = sealed(id, "key", "k1", b"SEALEDBYTES", 10);
    let (_, before, _) = recorded(&f, "secret `key`", mine, s.secret_put(secret.clone(), by(10))).await;
    assert_eq!(before, Value::Null);
    let again = SealedSecret { updated_at: at(11), ..secret };
    let (_, before, after) = recorded(&f, "secret `key`", mine, s.secret_put(again, by(11))).await;
    assert_ne!((&before, &after), (&Value::Null, &before));
    recorded(&f, "secret `key`", mine, s.secret_delete(id, &name("key"), by(12))).await;

    let (closed, days) = (name("closed"), |lines: &[u8]| innkeeper_domain::holiday::read(lines).unwrap());
    let object = "holiday calendar `closed`";
    let put = s.holidays_put(id, &closed, days(b"2026-12-25"), by(12));
    let (_, before, after) = recorded(&f, object, mine, put).await;
    assert_eq!((before, &after["holidays"]), (Value::Null, &json!(1)));
    let put = s.holidays_put(id, &closed, days(b"2026-12-25\n2026-12-26"), by(12));
    let (_, before, after) = recorded(&f, object, mine, put).await;
    assert_eq!((&before["holidays"], &after["holidays"]), (&json!(1), &json!(2)));
    recorded(&f, object, mine, s.holidays_delete(id, &closed, by(12))).await;

    let bytes = b"more".to_vec();
    let more = {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(&bytes).into())
    };
    let object = format!("component {more}");
    recorded(&f, &object, mine, s.component_put(id, component(more), bytes.clone(), by(13))).await;
    recorded(&f, &object, mine, s.component_delete(id, more, by(14))).await;

    let new = NewTask { id: TaskId::new(at(15)), name: name("new"), spec: TaskSpec::new(digest()) };
    let (_, before, after) = recorded(&f, "task `new`", mine, s.task_create(id, new, by(15))).await;
    assert_eq!((before, &after["revision"]), (Value::Null, &json!(1)));
    let spec = TaskSpec { timeout: Duration::from_secs(9), ..TaskSpec::new(digest()) };
    let (_, before, after) = recorded(
        &f,
        "task `new`",
        mine,
        s.task_update(id, &name("new"), spec, None, OnGrowth::Accept, by(16)),
    )
    .await;
    assert_eq!((&before["revision"], &after["revision"]), (&json!(1), &json!(2)));
    assert_ne!(before["spec"], after["spec"]);
    recorded(&f, "task `new`", mine, s.task_rollback(id, &name("new"), 1, None, OnGrowth::Accept, by(17)))
        .await;
    recorded(&f, "task `new`", mine, s.task_delete(id, &name("new"), by(18))).await;

    let schedule = Schedule::Interval { every: Duration::from_secs(10), anchor: at(0) };
    let (spec, input) = (TriggerSpec::new(schedule), Payload::json("\"secret input\""));
    let new = NewTrigger {
        id: TriggerId::new(at(19)),
        task: work.clone(),
        name: None,
        spec,
        input,
        first: Some(Reckoning::plain(at(20), at(19))),
    };
    let first = name("work-1");
    recorded(&f, "trigger `work-1`", mine, s.trigger_create(id, new, by(19))).await;
    let (_, before, after) = recorded(
        &f,
        "trigger `work-1`",
        mine,
        s.trigger_pause(id, &first, "why".into(), QueuedRuns::Keep, by(20)),
    )
    .await;
    assert_eq!(
        (&before["state"], &after["state"], &after["note"]),
        (&json!("active"), &json!("paused"), &json!("why"))
    );
    recorded(&f, "trigger `work-1`", mine, s.trigger_resume(id, &first, by(21))).await;
    recorded(&f, "trigger `work-1`", mine, s.trigger_delete(id, &first, by(22))).await;

    let starts: Vec<_> = (0..12).map(|n| f.new_run("1", Some(&format!("key {n}")))).collect();
    let (started, before, after) = recorded(&f, "task `work`", mine, s.runs_start(id, starts, by(23))).await;
    assert_eq!((before, &after["runs"]), (Value::Null, &json!(12)));
    assert_eq!(after["ids"].as_array().unwrap().len(), 10);
    let run = started[0].clone().unwrap().id;
    let (_, before, after) = recorded(&f, &format!("run {run}"), mine, s.run_cancel(id, run, by(24))).await;
    assert_eq!((&before["state"], &after["state"]), (&json!("queued"), &json!("cancelled")));

    let (_, before, after) =
        recorded(&f, "host `one`", None, s.host_set_state(&name("one"), HostState::Cordoned, by(25))).await;
    assert_eq!((&before[0]["state"], &after[0]["state"]), (&json!("active"), &json!("cordoned")));

    let all = format!("{:?}", audit(&f, AuditFilter::default()).await);
    let sealed = format!("{:?}", b"SEALEDBYTES");
    for hidden in [
        sealed.trim_matches(['[', ']']),
        "SEALEDBYTES",
        &hex::encode(b"SEALEDBYTES"),
        "abababab",
        "171, 171",
        "secret input",
    ] {
        assert!(!all.contains(hidden), "{hidden} is in the audit log");
    }
}

pub async fn what_changes_nothing_is_not_on_record(f: Fixture) {
    let (s, id, work) = (&f.store, f.tenant.id, name("work"));
    let finished = f.start("1").await;
    s.run_cancel(id, finished, at(3).into()).await.unwrap();
    let (key, none) = (f.new_run("1", Some("key")), name("none"));
    s.runs_start(id, vec![key.clone()], at(3).into()).await.unwrap();
    let admin = Token { tasks: None, ..token(None, 3) };
    s.token_create(admin.clone(), [1; 32], at(3).into()).await.unwrap();
    let big = TaskSpec::new(Digest([9; 32]));
    let (_, lines) = added(&f, async {
        // What is refused.
        assert!(s.tenant_create(new_tenant("default", 4), by(4)).await.is_err());
        assert!(s.tenant_update(&none, TenantUpdate::default(), by(4)).await.is_err());
        assert!(s.tenant_delete(&none, by(4)).await.is_err());
        assert!(s.token_create(admin.clone(), [1; 32], by(4)).await.is_err());
        assert!(s.token_revoke(Some(id), admin.id, by(4)).await.is_err());
        assert!(s.secret_delete(id, &none, by(4)).await.is_err());
        assert!(s.component_delete(id, digest(), by(4)).await.is_err());
        assert!(s.task_update(id, &work, big, None, OnGrowth::Accept, by(4)).await.is_err());
        assert!(s.task_rollback(id, &work, 7, None, OnGrowth::Accept, by(4)).await.is_err());
        assert!(s.task_delete(id, &none, by(4)).await.is_err());
        assert!(s.trigger_pause(id, &none, String::new(), QueuedRuns::Keep, by(4)).await.is_err());
        assert!(s.trigger_delete(id, &none, by(4)).await.is_err());
        assert!(s.run_cancel(id, RunId::new(at(9)), by(4)).await.is_err());
        assert!(s.host_set_state(&none, HostState::Cordoned, by(4)).await.is_err());
        // What is so already.
        assert_eq!(s.component_put(id, component(digest()), b"wasm".to_vec(), by(4)).await, Ok(true));
        s.runs_start(id, vec![NewRun { id: RunId::new(at(4)), ..key }], by(4)).await.unwrap();
        s.run_cancel(id, finished, by(4)).await.unwrap();
        // What the host does by itself.
        s.token_revoke(None, admin.id, at(5).into()).await.unwrap();
        s.token_revoke(None, admin.id, by(6)).await.unwrap();
        s.runs_start(id, vec![f.new_run("1", None)], at(5).into()).await.unwrap();
    })
    .await;
    assert_eq!(lines, []);
}

pub async fn the_audit_log_is_listed_the_newest_first(f: Fixture) {
    let tenant = (f.tenant.id, f.tenant.name.clone());
    let entry = |second: i64, tenant: Option<(TenantId, Name)>, outcome, count| AuditEntry {
        id: AuditId::new(at(second)),
        at: at(second),
        tenant,
        actor: Actor { role: None, ..actor() },
        object: format!("line {second}"),
        outcome,
        before: Value::Null,
        after: json!({"nul": "\u{0}", "list": [1, null]}),
        count,
    };
    let (done, denied) = (AuditOutcome::Done, AuditOutcome::Denied);
    let lines = [
        entry(10, None, denied, 3),
        entry(20, Some(tenant.clone()), denied, 1),
        entry(30, Some(tenant.clone()), done, 1),
        entry(40, None, done, 1),
    ];
    f.store.audit_append(lines.to_vec()).await.unwrap();
    let mut newest = lines.clone();
    newest.reverse();
    assert_eq!(audit(&f, AuditFilter::default()).await, newest);
    let of = async |filter: AuditFilter| {
        audit(&f, filter).await.iter().map(|line| line.at.as_second()).collect::<Vec<_>>()
    };
    let all = AuditFilter::default();
    assert_eq!(of(AuditFilter { tenant: Some(f.tenant.id), ..all.clone() }).await, [30, 20]);
    assert_eq!(of(AuditFilter { outcome: Some(denied), ..all.clone() }).await, [20, 10]);
    assert_eq!(of(AuditFilter { since: Some(at(20)), until: Some(at(40)), ..all.clone() }).await, [30, 20]);
    assert_eq!(of(AuditFilter { since: Some(at(41)), ..all.clone() }).await, [0; 0]);
    let both = AuditFilter { tenant: Some(f.tenant.id), outcome: Some(done), ..all };
    assert_eq!(of(both).await, [30]);
    // A tenant's lines outlive it, under the name that it had.
    f.store.tenant_delete(&name("default"), by(50)).await.unwrap();
    let left = audit(&f, AuditFilter { tenant: Some(f.tenant.id), ..AuditFilter::default() }).await;
    assert_eq!(left.iter().filter(|line| line.tenant == Some(tenant.clone())).count(), 3);
}

pub async fn a_value_that_is_too_long_is_left_out_of_the_record(f: Fixture) {
    let (s, id, work) = (&f.store, f.tenant.id, name("work"));
    s.secret_put(sealed(id, "token", "k1", b"text", 3), at(3).into()).await.unwrap();
    let mut spec = TaskSpec::new(digest());
    spec.config.insert("LONG".into(), "x".repeat(AUDIT_VALUE_BYTES_MAX));
    spec.allow_http.insert("a.example".parse().unwrap());
    spec.secrets.insert("KEY".into(), name("token"));
    let long = s.task_update(id, &work, spec, None, OnGrowth::Accept, by(5));
    let (_, before, after) = recorded(&f, "task `work`", Some("default"), long).await;
    assert_eq!((&before["revision"], before.get("omitted_bytes")), (&json!(1), None));
    assert!(after["omitted_bytes"].as_u64() > Some(AUDIT_VALUE_BYTES_MAX as u64), "{after}");
    assert!(after.to_string().len() < 400 && !after.to_string().contains("xxx"), "{after}");
    // What it executes and what it is granted is on record all the same.
    let granted = json!({
        "component": before["spec"]["component"], "allow_http": ["a.example"], "secrets": ["token"], "scratch": null,
    });
    assert_eq!((&after["revision"], &after["spec"]), (&json!(2), &granted));
}
