//! Runs that are tried again by hand, in SQLite.

use super::row::{At, Id, Word, unsigned};
use super::task;
use super::{gate, quota};
use crate::gates::{GateChanges, Gated, WaitsForOwn, begin};
use crate::reopen::{Over, Reopened, in_order, may_reopen};
use crate::{OnRevision, Retried, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{GateKind, GateSet, Passage};
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::RunState;
use rusqlite::{Connection, OptionalExtension, params};

/// A run and what it belongs to.
struct Found {
    run: Over,
    task: TaskId,
    trigger: Option<Id>,
    backfill: Option<Id>,
    unfinished_of_task: u64,
    current_revision: u32,
}

/// Queues runs again that are over.
pub(super) fn retry(
    c: &Connection,
    tenant: TenantId,
    ids: Vec<RunId>,
    on: OnRevision,
    now: Timestamp,
) -> Result<Retried, StoreError> {
    let Some(mut account) = quota::account(c, tenant, now)? else { return Ok(Retried::none_of(&ids)) };
    let mut retried = Retried::default();
    for id in in_order(ids) {
        let Some(found) = find(c, tenant, id)? else {
            retried.left_out += 1;
            continue;
        };
        let revision = found.run.revision(on, found.current_revision);
        let spec = match on {
            OnRevision::Pinned => None,
            OnRevision::Current => Some(task::pinned(c, found.task, revision)?),
        };
        let spec = spec.as_ref().map(|spec| (revision, spec));
        let Some(reopened) = found.run.reopen(spec, now) else {
            retried.left_out += 1;
            continue;
        };
        if let Err(rejection) = may_reopen(&mut account, found.unfinished_of_task, now) {
            retried.refused = Some(rejection);
            break;
        }
        write(c, &reopened, now)?;
        place(c, tenant, &reopened, found.task, now)?;
        count_up(c, found.task, &reopened, found.trigger, found.backfill)?;
        retried.reopened.push(id);
    }
    quota::write(c, &account)?;
    Ok(retried)
}

/// The tenant's run, unless its task is deleted.
fn find(c: &Connection, tenant: TenantId, id: RunId) -> Result<Option<Found>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT r.state, r.revision, r.requires, max(r.nominal_at, r.created_at, coalesce(r.reopened_at, r.created_at)),
             r.start_by, r.end_by, r.task_id, r.trigger_id, r.backfill_id, t.unfinished, t.revision
         FROM run r JOIN task t ON t.id = r.task_id
         WHERE r.id = ?1 AND r.tenant_id = ?2 AND t.deleted_at IS NULL",
    )?;
    let found = get.query_row(params![Id(id.0), Id(tenant.0)], |row| {
        let at = |column| row.get::<_, Option<At>>(column).map(|at| at.map(|at| at.0));
        let run = Over {
            id,
            state: row.get::<_, Word<_>>(0)?.0,
            revision: row.get(1)?,
            requires: row.get(2)?,
            due: row.get::<_, At>(3)?.0,
            start_by: at(4)?,
            end_by: at(5)?,
        };
        Ok(Found {
            run,
            task: TaskId(row.get::<_, Id>(6)?.0),
            trigger: row.get(7)?,
            backfill: row.get(8)?,
            unfinished_of_task: unsigned(row.get(9)?),
            current_revision: row.get(10)?,
        })
    });
    Ok(found.optional()?)
}

fn write(c: &Connection, run: &Reopened, now: Timestamp) -> Result<(), StoreError> {
    c.prepare_cached(
        "UPDATE run SET state = ?2, revision = ?3, requires = ?4, start_by = ?5, end_by = ?6, available_at = ?7,
             reopened_at = ?7, started_at = NULL, finished_at = NULL, host_id = NULL, cancel_requested = 0,
             cancel_by = NULL, progress = NULL, failure_kind = NULL, failure_code = NULL, failure_message = NULL,
             interruptions = attempt, losses = 0
         WHERE id = ?1",
    )?
    .execute(params![
        Id(run.id.0),
        run.state.as_str(),
        run.revision,
        run.requires,
        run.start_by.map(At),
        run.end_by.map(At),
        At(now),
    ])?;
    Ok(())
}

/// Lets the run wait at its gates as a new one does, by its task's limits of now.
fn place(
    c: &Connection,
    tenant: TenantId,
    run: &Reopened,
    task: TaskId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let gates = gate::of_task(c, task)?;
    let mut get =
        c.prepare_cached("SELECT gates, trigger_id, input_type, iif(?2, input, x'') FROM run WHERE id = ?1")?;
    let (had, trigger, input) = get.query_row(params![Id(run.id.0), gates.has_keys()], |row| {
        let had = GateSet::from_bits(row.get(0)?);
        let input = Payload { content_type: row.get(2)?, bytes: row.get(3)? };
        Ok((had, row.get::<_, Option<Id>>(1)?.map(|id| id.0), input))
    })?;
    let waits_for_own = if had.has(GateKind::Trigger) { WaitsForOwn::Yes } else { WaitsForOwn::No };
    let (passage, key) = begin(&gates, &input, waits_for_own);
    if passage.is_free() && had.is_empty() {
        return Ok(());
    }
    c.prepare_cached("UPDATE run SET concurrency_key = ?2 WHERE id = ?1")?
        .execute(params![Id(run.id.0), key])?;
    gate::place(c, run.id, passage)?;
    let mut changes = GateChanges::default();
    let of = Gated { tenant, task, trigger, key: key.as_deref() };
    changes.add(&of, (Passage::default(), passage), now, Some(&gates));
    gate::write(c, &changes)
}

/// The reverse of `cancel::count_down`.
fn count_up(
    c: &Connection,
    task: TaskId,
    run: &Reopened,
    trigger: Option<Id>,
    backfill: Option<Id>,
) -> Result<(), StoreError> {
    c.prepare_cached("UPDATE task SET unfinished = unfinished + 1 WHERE id = ?1")?.execute([Id(task.0)])?;
    if let Some(backfill) = backfill {
        c.prepare_cached(
            "UPDATE backfill SET unfinished = unfinished + 1, failed = failed - ?2, cancelled = cancelled - ?3
             WHERE id = ?1",
        )?
        .execute(params![backfill, run.was == RunState::Failed, run.was == RunState::Cancelled])?;
    } else if let Some(trigger) = trigger {
        c.prepare_cached("UPDATE trigger SET unfinished = unfinished + 1 WHERE id = ?1")?
            .execute([trigger])?;
    }
    Ok(())
}
