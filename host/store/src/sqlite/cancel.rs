//! Runs that end without an attempt, and the counts that every end changes.

use super::row::{At, Id, Word, unsigned};
use super::{event_deliver, gate, task, usage};
use crate::StoreError;
use crate::billing::{BillKey, Bills, of_runs};
use innkeeper_domain::event::HostTopic;
use innkeeper_domain::gate::Passage;
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::OVERDUE_GRACE;
use innkeeper_domain::run::{RunEvent, RunState};
use innkeeper_domain::{Timestamp, time};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

/// Ends a run that has no attempt executing: it is cancelled, or its time has passed.
pub(super) fn end_unbegun(
    c: &Connection,
    id: RunId,
    state: RunState,
    passage: Passage,
    event: RunEvent,
    now: Timestamp,
) -> Result<(), StoreError> {
    let next = state.next(event).map_err(|e| StoreError::Conflict(e.to_string()))?;
    c.prepare_cached(
        "UPDATE run SET state = ?2, cancel_requested = cancel_requested OR ?5, finished_at = ?3
         WHERE id = ?1 AND state = ?4",
    )?
    .execute(params![Id(id.0), next.as_str(), At(now), state.as_str(), next == RunState::Cancelled])?;
    gate::go(c, id, (passage, passage.over()), now)?;
    count_down(c, id, next, now)?;
    Ok(())
}

/// Takes a run that is over off the counts of unfinished runs, lets a fixed delay that waited for it go on, and tells
/// triggers that wait for such ends; whether there are any.
pub(super) fn count_down(
    c: &Connection,
    id: RunId,
    state: RunState,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT r.task_id, r.trigger_id, r.backfill_id, n.watched FROM run r JOIN tenant n ON n.id = r.tenant_id
         WHERE r.id = ?1",
    )?;
    let whose = get.query_row([Id(id.0)], |row| {
        let whose = (row.get::<_, Id>(0)?, row.get::<_, Option<Id>>(1)?, row.get::<_, Option<Id>>(2)?);
        Ok((whose, row.get::<_, u32>(3)?))
    });
    let ((task, trigger, backfill), watched) = whose?;
    let mut count = c.prepare_cached(
        "UPDATE task SET unfinished = unfinished - 1 WHERE id = ?1 RETURNING followed <> 0",
    )?;
    let followed = count.query_row([task], |row| row.get::<_, bool>(0))?;
    match (trigger, backfill) {
        (_, Some(backfill)) => count_down_backfill(c, &backfill, state, now)?,
        (Some(trigger), None) => count_down_trigger(c, &trigger, now)?,
        (None, None) => {}
    }
    if followed || watched & HostTopic::end_bit(state) != 0 {
        return event_deliver::run_ended(c, id, state, followed, now);
    }
    Ok(false)
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

/// Cancels a run, if it isn't over: one that executes is told to end, and by when it must. Says what it was; none if
/// the tenant has none of that id.
pub(super) fn cancel(
    c: &Connection,
    tenant: TenantId,
    id: RunId,
    now: Timestamp,
) -> Result<Option<RunState>, StoreError> {
    let mut get =
        c.prepare_cached("SELECT state, task_id, revision FROM run WHERE id = ?1 AND tenant_id = ?2")?;
    let found = get.query_row(params![Id(id.0), Id(tenant.0)], |row| {
        Ok((row.get::<_, Word<RunState>>(0)?.0, TaskId(row.get::<_, Id>(1)?.0), row.get(2)?))
    });
    let Some((state, task, revision)) = found.optional()? else { return Ok(None) };
    match state {
        RunState::Queued | RunState::Waiting => {
            cancel_unbegun(c, OF_RUN, id.0, now)?;
        }
        RunState::Running => ask_to_end(c, id, (task, revision), now)?,
        RunState::Succeeded | RunState::Failed | RunState::Cancelled => {}
    }
    Ok(Some(state))
}

/// Asks a run that executes to end.
fn ask_to_end(
    c: &Connection,
    id: RunId,
    (task, revision): (TaskId, u32),
    now: Timestamp,
) -> Result<(), StoreError> {
    let grace = task::pinned(c, task, revision)?.cancel_grace + OVERDUE_GRACE;
    c.prepare_cached(
        "UPDATE run SET cancel_requested = 1, cancel_by = coalesce(cancel_by, ?2) WHERE id = ?1",
    )?
    .execute(params![Id(id.0), At(time::after(now, grace))])?;
    Ok(())
}

/// Whose runs are to be cancelled, as a condition.
pub(super) const OF_RUN: &str = "id = ?1";
pub(super) const OF_TASK: &str = "task_id = ?1";
/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_TRIGGER: &str =
    "+trigger_id = ?1 AND task_id = (SELECT task_id FROM trigger WHERE id = ?1)";

/// Its own, without those of its backfills.
const OWN: &str =
    "+trigger_id = ?1 AND backfill_id IS NULL AND task_id = (SELECT task_id FROM trigger WHERE id = ?1)";
/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_BACKFILL: &str = "+backfill_id = ?1 AND task_id = (
    SELECT g.task_id FROM backfill b JOIN trigger g ON g.id = b.trigger_id WHERE b.id = ?1)";

/// Cancels a trigger's own unfinished runs: those that have not begun at once, those that execute are asked to end.
pub(super) fn cancel_own(
    c: &Connection,
    trigger: TriggerId,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    let mut cancelled = cancel_unbegun(c, OWN, trigger.0, now)?;
    let mut list = c.prepare_cached(
        "SELECT id, task_id, revision FROM run WHERE state = 'running' AND +trigger_id = ?1 AND backfill_id IS NULL",
    )?;
    let executing = list.query_map([Id(trigger.0)], |row| {
        let task = TaskId(row.get::<_, Id>(1)?.0);
        Ok((RunId(row.get::<_, Id>(0)?.0), (task, row.get(2)?)))
    })?;
    let executing: Vec<(RunId, (TaskId, u32))> = executing.collect::<Result<_, _>>()?;
    for (run, of) in executing {
        ask_to_end(c, run, of, now)?;
        cancelled.push(run);
    }
    Ok(cancelled)
}

/// Cancels the runs that have not begun of what has this id; `whose` is one of the conditions above.
pub(super) fn cancel_unbegun(
    c: &Connection,
    whose: &'static str,
    id: Uuid,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    let mut list = c.prepare_cached(&unbegun(whose))?;
    let rows = list.query_map([Id(id)], |row| read_unbegun(row, now))?;
    let unbegun: Vec<Unbegun> = rows.collect::<Result<_, _>>()?;
    let mut bills = Bills::default();
    for one in &unbegun {
        end_unbegun(c, one.run, one.state, one.passage, RunEvent::Cancelled, now)?;
        bills.add(one.bill, of_runs(1, one.input_bytes));
    }
    for (key, used) in &bills.0 {
        usage::bill(c, *key, used)?;
    }
    Ok(unbegun.into_iter().map(|one| one.run).collect())
}

/// A run to end that has no attempt executing.
pub(super) struct Unbegun {
    pub run: RunId,
    pub state: RunState,
    pub bill: BillKey,
    pub input_bytes: u64,
    pub passage: Passage,
}

/// Of its first eight columns.
pub(super) fn read_unbegun(row: &Row, now: Timestamp) -> rusqlite::Result<Unbegun> {
    let (tenant, task) = (TenantId(row.get::<_, Id>(2)?.0), TaskId(row.get::<_, Id>(3)?.0));
    let bill = BillKey::of(tenant, task, now);
    Ok(Unbegun {
        run: RunId(row.get::<_, Id>(0)?.0),
        state: row.get::<_, Word<_>>(1)?.0,
        bill,
        input_bytes: unsigned(row.get(4)?),
        passage: gate::read_passage(row, 5)?,
    })
}

pub(super) fn unbegun(whose: &str) -> String {
    format!(
        "SELECT id, state, tenant_id, task_id, octet_length(input), gates, passed, hold FROM run
         WHERE {whose} AND state IN ('queued', 'waiting') ORDER BY id"
    )
}
