//! What goes on record in the audit log, made alike for every driver: a line for each change that somebody asked
//! for, written in the change's own transaction.

use crate::{NewRun, StartError, Started};
use innkeeper_domain::access::Token;
use innkeeper_domain::audit::{AuditEntry, AuditOutcome, Change};
use innkeeper_domain::backfill::Backfill;
use innkeeper_domain::component::Component;
use innkeeper_domain::gate::Hold;
use innkeeper_domain::holiday::HolidayCalendar;
use innkeeper_domain::host::{FleetPause, HostStatus};
use innkeeper_domain::ids::{AuditId, RunId, TenantId};
use innkeeper_domain::limits::AUDIT_VALUE_BYTES_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::network::{NetworkName, NetworkSet};
use innkeeper_domain::quota::{Quota, Quotas, Unit};
use innkeeper_domain::run::Run;
use innkeeper_domain::secret::SealedSecret;
use innkeeper_domain::task::Task;
use innkeeper_domain::tenant::Tenant;
use innkeeper_domain::trigger::{Trigger, TriggerState};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Ids of runs that a line about several has.
const RUNS_SHOWN: usize = 10;

/// How many bytes a value had that is too long and was shortened.
const OMITTED: &str = "omitted_bytes";

/// Before and after of something; null where there was nothing.
pub(crate) type Difference = (Value, Value);

/// The line for a change; none if nobody asked for it.
pub(crate) fn entry(
    change: &Change,
    tenant: Option<(TenantId, Name)>,
    object: String,
    (before, after): Difference,
) -> Option<AuditEntry> {
    let actor = change.by.as_deref()?.clone();
    Some(AuditEntry {
        id: AuditId::new(change.now),
        at: change.now,
        tenant,
        actor,
        object,
        outcome: AuditOutcome::Done,
        before: bounded(before),
        after: bounded(after),
        count: 1,
    })
}

fn bounded(value: Value) -> Value {
    if value.get(OMITTED).is_some() {
        return value;
    }
    let bytes = value.to_string().len();
    if bytes > AUDIT_VALUE_BYTES_MAX { json!({ OMITTED: bytes }) } else { value }
}

pub(crate) fn tenant(tenant: &Tenant) -> Value {
    json!({
        "state": tenant.state.as_str(),
        "note": tenant.note,
        "paused": tenant.pause.as_ref().map(|pause| &pause.note),
        "weight": tenant.weight,
        "quotas": quotas(&tenant.quotas),
    })
}

/// Networks by their names; as a number if another version has set ones that this one doesn't know.
fn quotas(quotas: &Quotas) -> Value {
    let networks = |set: NetworkSet| json!(set.names().map(NetworkName::as_str).collect::<Vec<_>>());
    let shown = |quota: Quota, number: u64| match quota.unit() {
        Unit::Networks => NetworkSet::from_bits(number).map_or_else(|_| json!(number), networks),
        Unit::Count | Unit::Bytes | Unit::Time => json!(number),
    };
    quotas.0.iter().map(|(quota, number)| (quota.as_str(), shown(*quota, *number))).collect()
}

/// Without its hash.
pub(crate) fn token(token: &Token) -> Value {
    json!({
        "id": token.id,
        "role": token.role,
        "tasks": token.tasks,
        "proof": token.proof.to_string(),
        "note": token.note,
        "expires_at": token.expires_at.map(|at| at.to_string()),
        "revoked_at": token.revoked_at.map(|at| at.to_string()),
    })
}

/// Without what is in it.
pub(crate) fn secret(secret: &SealedSecret) -> Value {
    json!({"key_id": secret.key_id, "updated_at": secret.updated_at.to_string()})
}

/// Without its dates, which may be many.
pub(crate) fn holiday_calendar(calendar: &HolidayCalendar) -> Value {
    json!({"holidays": calendar.holidays.len(), "updated_at": calendar.updated_at.to_string()})
}

pub(crate) fn component(component: &Component) -> Value {
    json!({"size": component.size, "shape": component.shape.as_str(), "imports": component.imports})
}

pub(crate) fn task(task: &Task) -> Value {
    let mut value = json!({"id": task.id, "revision": task.revision, "spec": task.spec});
    if let Some(pause) = &task.paused {
        value["paused"] = json!(pause.note);
    }
    let bytes = value.to_string().len();
    if bytes > AUDIT_VALUE_BYTES_MAX { shortened(task, bytes) } else { value }
}

/// A task that has too many bytes, by what it executes and what it is granted: that is always on record. Each part is
/// bounded, the hosts and secrets in number; the secrets have only their names here.
fn shortened(task: &Task, bytes: usize) -> Value {
    let spec = &task.spec;
    let secrets: BTreeSet<&Name> = spec.secrets.values().collect();
    json!({
        "id": task.id,
        "revision": task.revision,
        "paused": task.paused.is_some(),
        "spec": {
            "component": spec.component,
            "allow_http": spec.allow_http,
            "secrets": secrets,
            "scratch": spec.scratch,
        },
        OMITTED: bytes,
    })
}

/// Without its input, which may be large.
pub(crate) fn trigger(trigger: &Trigger) -> Value {
    let (state, note) = match &trigger.state {
        TriggerState::Active => ("active", ""),
        TriggerState::Paused { note, .. } => ("paused", note.as_str()),
        TriggerState::Finished => ("finished", ""),
    };
    json!({
        "id": trigger.id,
        "task": trigger.task,
        "spec": trigger.spec,
        "state": state,
        "note": note,
        "input_bytes": trigger.input.bytes.len(),
    })
}

/// How far it is changes all the time.
pub(crate) fn backfill(backfill: &Backfill) -> Value {
    let spec = backfill.spec;
    json!({
        "trigger": backfill.trigger,
        "from": spec.from.to_string(),
        "to": spec.to.to_string(),
        "concurrency": spec.concurrency,
        "again": spec.again.as_str(),
        "times": backfill.times,
        "state": backfill.state.as_str(),
    })
}

pub(crate) fn run(run: &Run) -> Value {
    let mut value =
        json!({"task": run.task, "state": run.state.as_str(), "cancel_requested": run.cancel_requested});
    if run.passage.hold == Hold::ByHand {
        value["paused"] = json!(true);
    }
    value
}

/// What a call has done to several runs, in words and what of which.
pub(crate) fn runs(what: &'static str, runs: &[RunId]) -> (String, Difference) {
    let object = match runs {
        [one] => format!("run {one}"),
        several => format!("{} runs", several.len()),
    };
    let shown: Vec<&RunId> = runs.iter().take(RUNS_SHOWN).collect();
    (object, (Value::Null, json!({ what: runs.len(), "ids": shown })))
}

pub(crate) fn fleet(pause: Option<&FleetPause>) -> Value {
    pause.map_or(Value::Null, |pause| json!({"paused_at": pause.at.to_string(), "note": pause.note}))
}

pub(crate) fn hosts(hosts: &[HostStatus]) -> Value {
    hosts.iter().map(|status| json!({"id": status.host.id, "state": status.state.to_string()})).collect()
}

/// What a call that starts runs has started, in words and as it is then; none if nothing.
pub(crate) fn starts(
    starts: &[NewRun],
    results: &[Result<Started, StartError>],
) -> Option<(String, Difference)> {
    let made = starts.iter().zip(results).filter(|(_, result)| matches!(result, Ok(run) if !run.existed));
    let made: Vec<&NewRun> = made.map(|(start, _)| start).collect();
    let tasks: BTreeSet<&Name> = made.iter().map(|start| &start.task).collect();
    let object = match tasks.len() {
        0 => return None,
        1 => format!("task `{}`", made[0].task),
        several => format!("{several} tasks"),
    };
    let ids: Vec<_> = made.iter().take(RUNS_SHOWN).map(|start| start.id).collect();
    Some((object, (Value::Null, json!({"runs": made.len(), "ids": ids}))))
}
