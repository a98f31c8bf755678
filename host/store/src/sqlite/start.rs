//! Starting runs in SQLite.

use super::row::{At, Id, Json, signed, unsigned};
use super::writer::Size;
use super::{SqliteStore, gate, quota};
use crate::gates::{GateChanges, Gated, WaitsForOwn, begin, task_gates};
use crate::standing::Account;
use crate::terms::{Pinned, Terms};
use crate::{NewRun, StartError, Started, StoreError};
use innkeeper_domain::admit::{AdmissionState, Asker, Rejection, SameKey, Verdict, admit};
use innkeeper_domain::gate::{Passage, TaskGates};
use innkeeper_domain::ids::{BackfillId, RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::IDEMPOTENCY_KEY_KEPT;
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::{Timestamp, time};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::sync::Arc;

/// A run to insert.
pub(super) struct NewRow<'a> {
    pub id: RunId,
    pub tenant: TenantId,
    pub task: TaskId,
    pub revision: u32,
    /// See [`innkeeper_domain::host::Labels`].
    pub requires: &'a str,
    pub pinned: Pinned,
    pub trigger: Option<(TriggerId, String)>,
    pub backfill: Option<BackfillId>,
    pub nominal_at: Timestamp,
    /// See [`innkeeper_domain::event::Event::depth`].
    pub depth: u32,
    pub last_success_nominal: Option<Timestamp>,
    pub idempotency_key: Option<&'a str>,
    pub input: &'a Payload,
    pub priority: u8,
    pub passage: Passage,
    pub key: Option<String>,
}

impl SqliteStore {
    /// Writes what starts runs and cancels others. `of` tells whether there are new ones, and who was cancelled.
    pub(super) async fn write_starts<T: Send + 'static>(
        &self,
        bytes: usize,
        apply: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        of: fn(&T) -> (bool, &[RunId]),
    ) -> Result<T, StoreError> {
        let (ready, cancelled) = (Arc::clone(&self.hints), Arc::clone(&self.hints));
        let apply = move |c: &Connection| {
            let all = apply(c)?;
            // A claim that is asked for now comes after the commit, and needn't wait for that before it is asked for.
            if of(&all).0 {
                ready.runs_ready.notify_one();
            }
            Ok(all)
        };
        let wake = move |all: &T| {
            let runs = of(all).1;
            runs.iter().for_each(|run| cancelled.run_changed(*run));
            if !runs.is_empty() {
                cancelled.orders.notify_one();
            }
        };
        self.writer.write_sized(Size::of(bytes), apply, wake).await
    }
}

/// Inserts a queued run. The counts of unfinished runs, and the gates, are the caller's to keep.
pub(super) fn insert(c: &Connection, run: &NewRow, now: Timestamp) -> Result<(), StoreError> {
    c.prepare_cached(
        "INSERT INTO run (id, tenant_id, task_id, revision, trigger_id, occurrence, nominal_at,
             last_success_nominal, state, idempotency_key, created_at, available_at, input_type, input,
             requires, backfill_id, start_by, end_by, labels, depth, priority, gates, hold, concurrency_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued', ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19, ?20, ?21, ?22)",
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
        run.pinned.start_by.map(At),
        run.pinned.end_by.map(At),
        run.pinned.labels,
        run.depth,
        run.priority,
        run.passage.gates.bits(),
        run.passage.hold.number(),
        run.key,
    ])?;
    Ok(())
}

/// A task that runs are started of, with the count that the transaction has reached.
struct Target {
    id: TaskId,
    revision: u32,
    requires: String,
    terms: Terms,
    unfinished: u64,
    started: u64,
    priority: u8,
    paused: bool,
    gates: TaskGates,
    changes: GateChanges,
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
        gate::write(c, &target.changes)?;
    }
    quota::write(c, &account)?;
    Ok(results)
}

fn target(c: &Connection, tenant: TenantId, name: &Name) -> Result<Option<Target>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT t.id, t.revision, r.spec, t.unfinished, t.paused_at IS NOT NULL FROM task t
             JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
         WHERE t.tenant_id = ?1 AND t.name = ?2 AND t.deleted_at IS NULL",
    )?;
    let found = get.query_row(params![Id(tenant.0), name.as_str()], |row| {
        let of = (TaskId(row.get::<_, Id>(0)?.0), row.get(1)?, unsigned(row.get(3)?), row.get(4)?);
        Ok((row.get::<_, Json<TaskSpec>>(2)?.0, of))
    });
    let Some((spec, (id, revision, unfinished, paused))) = found.optional()? else { return Ok(None) };
    Ok(Some(Target {
        id,
        revision,
        requires: spec.requires.to_string(),
        terms: Terms::of(&spec),
        unfinished,
        started: 0,
        priority: spec.priority,
        paused,
        gates: task_gates(&spec, paused)?,
        changes: GateChanges::default(),
    }))
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
        task_paused: target.paused,
    };
    Ok(match admit(Asker::Hand, state) {
        Verdict::Run | Verdict::Buffer | Verdict::Replace => {
            let (passage, key) = begin(&target.gates, &start.input, WaitsForOwn::No);
            let of = Gated { tenant: account.tenant, task: target.id, trigger: None, key: key.as_deref() };
            let passages = (Passage::default(), passage);
            target.changes.add(&of, passages, now, Some(&target.gates));
            insert(
                c,
                &NewRow {
                    id: start.id,
                    tenant: account.tenant,
                    task: target.id,
                    revision: target.revision,
                    requires: &target.requires,
                    pinned: target.terms.pinned(start.options.deadlines, &start.options.labels, now, now),
                    trigger: None,
                    backfill: None,
                    depth: 0,
                    nominal_at: now,
                    last_success_nominal: None,
                    idempotency_key: start.idempotency_key.as_deref(),
                    input: &start.input,
                    priority: start.options.priority.unwrap_or(target.priority),
                    passage,
                    key,
                },
                now,
            )?;
            account.started(&start.input, now);
            target.unfinished += 1;
            target.started += 1;
            Ok(Started { id: start.id, existed: false })
        }
        Verdict::Existing(id) => Ok(Started { id, existed: true }),
        Verdict::Reject(rejection) => {
            if let Rejection::Quota(exceeded) = &rejection {
                account.refused(exceeded);
            }
            Err(rejection.into())
        }
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
