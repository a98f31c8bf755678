//! Runs that end without an attempt, and the counts that every end changes.

use super::row::{At, Id, Word, unsigned};
use super::usage;
use crate::StoreError;
use crate::billing::{BillKey, Bills, of_runs};
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::run::{RunEvent, RunState};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

/// Cancels a run that has no attempt executing.
fn end_unbegun(c: &Connection, id: RunId, state: RunState, now: Timestamp) -> Result<(), StoreError> {
    let next = state.next(RunEvent::Cancelled).map_err(|e| StoreError::Conflict(e.to_string()))?;
    c.prepare_cached(
        "UPDATE run SET state = ?2, cancel_requested = 1, finished_at = ?3 WHERE id = ?1 AND state = ?4",
    )?
    .execute(params![Id(id.0), next.as_str(), At(now), state.as_str()])?;
    count_down(c, id, next, now)
}

/// Takes a run that is over off the counts of unfinished runs, and lets a fixed delay that waited for it go on.
pub(super) fn count_down(
    c: &Connection,
    id: RunId,
    state: RunState,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut get = c.prepare_cached("SELECT task_id, trigger_id, backfill_id FROM run WHERE id = ?1")?;
    let whose = get.query_row([Id(id.0)], |row| {
        Ok((row.get::<_, Id>(0)?, row.get::<_, Option<Id>>(1)?, row.get::<_, Option<Id>>(2)?))
    });
    let (task, trigger, backfill) = whose?;
    c.prepare_cached("UPDATE task SET unfinished = unfinished - 1 WHERE id = ?1")?.execute([task])?;
    match (trigger, backfill) {
        (_, Some(backfill)) => count_down_backfill(c, &backfill, state, now),
        (Some(trigger), None) => count_down_trigger(c, &trigger, now),
        (None, None) => Ok(()),
    }
}

/// Lets a backfill go on, and finishes one that has come to its end when this was its last run.
fn count_down_backfill(c: &Connection, id: &Id, state: RunState, now: Timestamp) -> Result<(), StoreError> {
    c.prepare_cached(
        "UPDATE backfill SET unfinished = unfinished - 1, succeeded = succeeded + ?2, failed = failed + ?3,
             cancelled = cancelled + ?4, wake_at = CASE WHEN state = 'active' AND next_at IS NOT NULL THEN ?5 END,
             finished_at = iif(state = 'active' AND next_at IS NULL AND unfinished = 1, ?5, finished_at),
             state = iif(state = 'active' AND next_at IS NULL AND unfinished = 1, 'finished', state)
         WHERE id = ?1",
    )?
    .execute(params![
        id,
        state == RunState::Succeeded,
        state == RunState::Failed,
        state == RunState::Cancelled,
        At(now)
    ])?;
    Ok(())
}

fn count_down_trigger(c: &Connection, id: &Id, now: Timestamp) -> Result<(), StoreError> {
    let mut count = c.prepare_cached(
        "UPDATE trigger SET unfinished = unfinished - 1 WHERE id = ?1
         RETURNING delay IS NOT NULL AND next_at IS NULL AND unfinished = 0 AND state <> 'finished', id",
    )?;
    let waited = |row: &Row| Ok(row.get::<_, bool>(0)?.then_some(row.get::<_, Id>(1)?));
    if let Some(trigger) = count.query_row([id], waited).optional()?.flatten() {
        c.prepare_cached(
            "UPDATE trigger SET next_at = iif(not_after < ?2 + delay, NULL, ?2 + delay),
                 due_at = iif(not_after < ?2 + delay, NULL, ?2 + delay),
                 state = iif(not_after < ?2 + delay, 'finished', state) WHERE id = ?1",
        )?
        .execute(params![trigger, At(now)])?;
    }
    Ok(())
}

/// Whose runs are to be cancelled, as a condition.
pub(super) const OF_RUN: &str = "id = ?1";
pub(super) const OF_TASK: &str = "task_id = ?1";
/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_TRIGGER: &str =
    "+trigger_id = ?1 AND task_id = (SELECT task_id FROM trigger WHERE id = ?1)";

/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_BACKFILL: &str = "+backfill_id = ?1 AND task_id = (
    SELECT g.task_id FROM backfill b JOIN trigger g ON g.id = b.trigger_id WHERE b.id = ?1)";

/// Cancels the runs that have not begun of what has this id; `whose` is one of the conditions above.
pub(super) fn cancel_unbegun(
    c: &Connection,
    whose: &'static str,
    id: Uuid,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    let mut list = c.prepare_cached(&unbegun(whose))?;
    let rows = list.query_map([Id(id)], |row| read_unbegun(row, now))?;
    let unbegun: Vec<(RunId, RunState, BillKey, u64)> = rows.collect::<Result<_, _>>()?;
    let mut bills = Bills::default();
    for (run, state, bill, input_bytes) in &unbegun {
        end_unbegun(c, *run, *state, now)?;
        bills.add(*bill, of_runs(1, *input_bytes));
    }
    for (key, used) in &bills.0 {
        usage::bill(c, *key, used)?;
    }
    Ok(unbegun.into_iter().map(|(run, ..)| run).collect())
}

fn read_unbegun(row: &Row, now: Timestamp) -> rusqlite::Result<(RunId, RunState, BillKey, u64)> {
    let (tenant, task) = (TenantId(row.get::<_, Id>(2)?.0), TaskId(row.get::<_, Id>(3)?.0));
    let bill = BillKey::of(tenant, task, now);
    Ok((RunId(row.get::<_, Id>(0)?.0), row.get::<_, Word<_>>(1)?.0, bill, unsigned(row.get(4)?)))
}

pub(super) fn unbegun(whose: &str) -> String {
    format!(
        "SELECT id, state, tenant_id, task_id, octet_length(input) FROM run WHERE {whose} AND state IN ('queued', 'waiting')"
    )
}
