//! Starting runs in SQLite.

use super::quota;
use super::row::{At, Id, Json, signed, unsigned};
use crate::standing::Account;
use crate::{NewRun, StartError, Started, StoreError};
use innkeeper_domain::admit::{AdmissionState, Asker, SameKey, Verdict, admit};
use innkeeper_domain::ids::{BackfillId, RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::IDEMPOTENCY_KEY_KEPT;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::{Timestamp, time};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;

/// A run to insert.
pub(super) struct NewRow<'a> {
    pub id: RunId,
    pub tenant: TenantId,
    pub task: TaskId,
    pub revision: u32,
    /// See [`innkeeper_domain::host::Labels`].
    pub requires: &'a str,
    pub trigger: Option<(TriggerId, String)>,
    pub backfill: Option<BackfillId>,
    pub nominal_at: Timestamp,
    pub last_success_nominal: Option<Timestamp>,
    pub idempotency_key: Option<&'a str>,
    pub input: &'a Payload,
}

/// Inserts a queued run. The counts of unfinished runs are the caller's to keep.
pub(super) fn insert(c: &Connection, run: &NewRow, now: Timestamp) -> Result<(), StoreError> {
    c.prepare_cached(
        "INSERT INTO run (id, tenant_id, task_id, revision, trigger_id, occurrence, nominal_at,
             last_success_nominal, state, idempotency_key, created_at, available_at, input_type, input,
             requires, backfill_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued', ?9, ?10, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        Id(run.id.0),
        Id(run.tenant.0),
        Id(run.task.0),
        run.revision,
        run.trigger.as_ref().map(|(id, _)| Id(id.0)),
        run.trigger.as_ref().map(|(_, occurrence)| occurrence),
        At(run.nominal_at),
        run.last_success_nominal.map(At),
        run.idempotency_key,
        At(now),
        run.input.content_type,
        run.input.bytes,
        run.requires,
        run.backfill.map(|id| Id(id.0)),
    ])?;
    Ok(())
}

/// A task that runs are started of, with the count that the transaction has reached.
struct Target {
    id: TaskId,
    revision: u32,
    requires: String,
    unfinished: u64,
    started: u64,
}

/// Starts runs by hand, in the order given.
pub(super) fn start_all(
    c: &Connection,
    tenant: TenantId,
    starts: &[NewRun],
    now: Timestamp,
) -> Result<Vec<Result<Started, StartError>>, StoreError> {
    let Some(mut account) = quota::account(c, tenant, now)? else {
        return Ok(starts.iter().map(|start| Err(StartError::NoTask(start.task.clone()))).collect());
    };
    let mut targets: HashMap<&Name, Option<Target>> = HashMap::new();
    let mut results = Vec::with_capacity(starts.len());
    for start in starts {
        if !targets.contains_key(&start.task) {
            targets.insert(&start.task, target(c, tenant, &start.task)?);
        }
        results.push(match targets.get_mut(&start.task).and_then(Option::as_mut) {
            None => Err(StartError::NoTask(start.task.clone())),
            Some(target) => start_one(c, &mut account, target, start, now)?,
        });
    }
    for target in targets.values().flatten().filter(|target| target.started > 0) {
        c.prepare_cached("UPDATE task SET unfinished = unfinished + ?2 WHERE id = ?1")?
            .execute(params![Id(target.id.0), signed(target.started)])?;
    }
    quota::write(c, &account)?;
    Ok(results)
}

fn target(c: &Connection, tenant: TenantId, name: &Name) -> Result<Option<Target>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT t.id, t.revision, r.spec, t.unfinished FROM task t
             JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
         WHERE t.tenant_id = ?1 AND t.name = ?2 AND t.deleted_at IS NULL",
    )?;
    let found = get.query_row(params![Id(tenant.0), name.as_str()], |row| {
        Ok(Target {
            id: TaskId(row.get::<_, Id>(0)?.0),
            revision: row.get(1)?,
            requires: row.get::<_, Json<TaskSpec>>(2)?.0.requires.to_string(),
            unfinished: unsigned(row.get(3)?),
            started: 0,
        })
    });
    Ok(found.optional()?)
}

fn start_one(
    c: &Connection,
    account: &mut Account,
    target: &mut Target,
    start: &NewRun,
    now: Timestamp,
) -> Result<Result<Started, StartError>, StoreError> {
    let same_key = match &start.idempotency_key {
        Some(key) => same_key(c, target.id, key, &start.input, now)?,
        None => None,
    };
    let state = AdmissionState {
        unfinished_of_task: target.unfinished,
        unfinished_of_trigger: 0,
        same_key,
        tenant: account.for_hand(&start.input, now),
    };
    Ok(match admit(Asker::Hand, state) {
        Verdict::Run => {
            insert(
                c,
                &NewRow {
                    id: start.id,
                    tenant: account.tenant,
                    task: target.id,
                    revision: target.revision,
                    requires: &target.requires,
                    trigger: None,
                    backfill: None,
                    nominal_at: now,
                    last_success_nominal: None,
                    idempotency_key: start.idempotency_key.as_deref(),
                    input: &start.input,
                },
                now,
            )?;
            account.started(&start.input, now);
            target.unfinished += 1;
            target.started += 1;
            Ok(Started { id: start.id, existed: false })
        }
        Verdict::Existing(id) => Ok(Started { id, existed: true }),
        Verdict::Reject(rejection) => Err(rejection.into()),
        Verdict::Skip(reason) => {
            return Err(StoreError::Corrupt(format!("a start by hand was skipped: {reason}")));
        }
    })
}

/// The run that the key names. A key that is older than keys are kept is taken from its run.
fn same_key(
    c: &Connection,
    task: TaskId,
    key: &str,
    input: &Payload,
    now: Timestamp,
) -> Result<Option<SameKey>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT id, input_type = ?3 AND input = ?4, created_at FROM run WHERE task_id = ?1 AND idempotency_key = ?2",
    )?;
    let found = get.query_row(params![Id(task.0), key, input.content_type, input.bytes], |row| {
        let same = SameKey { run: RunId(row.get::<_, Id>(0)?.0), same_input: row.get(1)? };
        Ok((same, row.get::<_, At>(2)?.0))
    });
    let Some((same, created_at)) = found.optional()? else { return Ok(None) };
    if created_at >= time::before(now, IDEMPOTENCY_KEY_KEPT) {
        return Ok(Some(same));
    }
    c.prepare_cached("UPDATE run SET idempotency_key = NULL WHERE id = ?1")?.execute([Id(same.run.0)])?;
    Ok(None)
}
