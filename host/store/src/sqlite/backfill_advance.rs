//! Steps of backfills in SQLite: runs and how far the backfill is, together or not at all.

use super::backfill::latest_states;
use super::row::{At, Id, Json, Word, signed, unsigned};
use super::start::{NewRow, insert};
use super::{gate, quota};
use crate::gates::{GateChanges, Gated, WaitsForOwn, begin, task_gates};
use crate::terms::Terms;
use crate::{BackfillStep, DueBackfill, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::AdmissionState;
use innkeeper_domain::backfill::{Standing, Then, step};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::gate::{Passage, TaskGates};
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{BackfillId, TaskId, TenantId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time::to_micros;
use innkeeper_domain::trigger::{SkipReason, TriggerSpec};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;

/// Not those of deleted tenants, which the retention clears away.
pub(super) const DUE: &str = "SELECT b.id, b.trigger_id, g.spec, b.from_at, b.next_at, b.last_at, b.tenant_id
    FROM backfill b JOIN trigger g ON g.id = b.trigger_id
    WHERE b.wake_at <= ?1 AND b.state = 'active' AND b.next_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = b.tenant_id AND deleted_at IS NOT NULL)
    ORDER BY b.wake_at LIMIT ?2";

pub(super) fn read_due(row: &Row) -> rusqlite::Result<DueBackfill> {
    Ok(DueBackfill {
        id: BackfillId(row.get::<_, Id>(0)?.0),
        trigger: TriggerId(row.get::<_, Id>(1)?.0),
        trigger_spec: row.get::<_, Json<_>>(2)?.0,
        from: row.get::<_, At>(3)?.0,
        next_at: row.get::<_, At>(4)?.0,
        last_at: row.get::<_, At>(5)?.0,
        tenant: TenantId(row.get::<_, Id>(6)?.0),
    })
}

/// A backfill as the transaction finds it, active and where the step begins.
struct Found {
    tenant: TenantId,
    trigger: TriggerId,
    task: TaskId,
    revision: u32,
    requires: String,
    terms: Terms,
    labels: Labels,
    priority: u8,
    gates: TaskGates,
    input: Payload,
    last_success_nominal: Option<Timestamp>,
    standing: Standing,
    unfinished_of_task: u64,
}

fn find(c: &Connection, of: &BackfillStep) -> Result<Option<Found>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT b.tenant_id, b.trigger_id, g.task_id, t.revision, r.spec, g.input_type, g.input,
             g.last_success_nominal, b.again, b.concurrency, b.unfinished,
             g.state = 'paused' OR t.paused_at IS NOT NULL, t.unfinished, g.spec, t.paused_at IS NOT NULL
         FROM backfill b JOIN trigger g ON g.id = b.trigger_id JOIN task t ON t.id = g.task_id
             JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
         WHERE b.id = ?1 AND b.next_at = ?2 AND b.state = 'active'",
    )?;
    let found = get.query_row(params![Id(of.id.0), At(of.next_at)], |row| {
        let (trigger, task) = (row.get::<_, Json<TriggerSpec>>(13)?.0, row.get::<_, Json<TaskSpec>>(4)?.0);
        let found = Found {
            tenant: TenantId(row.get::<_, Id>(0)?.0),
            trigger: TriggerId(row.get::<_, Id>(1)?.0),
            task: TaskId(row.get::<_, Id>(2)?.0),
            revision: row.get(3)?,
            requires: task.requires.to_string(),
            terms: Terms::of(&task),
            priority: trigger.priority.unwrap_or(task.priority),
            labels: trigger.labels,
            gates: TaskGates::default(),
            input: Payload { content_type: row.get(5)?, bytes: row.get(6)? },
            last_success_nominal: row.get::<_, Option<At>>(7)?.map(|at| at.0),
            standing: Standing {
                again: row.get::<_, Word<_>>(8)?.0,
                concurrency: row.get(9)?,
                unfinished: unsigned(row.get(10)?),
                paused: row.get(11)?,
            },
            unfinished_of_task: unsigned(row.get(12)?),
        };
        Ok((found, task, row.get(14)?))
    });
    let Some((found, task, paused)) = found.optional()? else { return Ok(None) };
    Ok(Some(Found { gates: task_gates(&task, paused)?, ..found }))
}

/// Applies a step, and says how many runs it created.
pub(super) fn advance(c: &Connection, of: &BackfillStep, now: Timestamp) -> Result<u32, StoreError> {
    let Some(found) = find(c, of)? else { return Ok(0) };
    let Some(mut account) = quota::account(c, found.tenant, now)? else { return Ok(0) };
    let latest = match found.standing.has_room() {
        true => latest_states(c, found.trigger, &of.stretch.times)?,
        false => BTreeMap::new(),
    };
    let admission = AdmissionState {
        unfinished_of_task: found.unfinished_of_task,
        tenant: account.for_trigger(&found.input),
        ..AdmissionState::default()
    };
    let decided = step(found.standing, admission, &of.stretch, &latest);
    // It has a limit of its own, and doesn't wait for the trigger's.
    let (passage, key) = begin(&found.gates, &found.input, WaitsForOwn::No);
    let of_run =
        Gated { tenant: found.tenant, task: found.task, trigger: Some(found.trigger.0), key: key.as_deref() };
    let mut changes = GateChanges::default();
    for (nominal, id) in decided.runs.iter().filter_map(|place| of.run(*place)) {
        let occurrence = format!("{}/{}", to_micros(nominal), of.id);
        insert(
            c,
            &NewRow {
                id,
                tenant: found.tenant,
                task: found.task,
                revision: found.revision,
                requires: &found.requires,
                pinned: found.terms.pinned(Deadlines::default(), &found.labels, nominal, now),
                trigger: Some((found.trigger, occurrence)),
                backfill: Some(of.id),
                depth: 0,
                nominal_at: nominal,
                last_success_nominal: found.last_success_nominal.filter(|last| *last < nominal),
                idempotency_key: None,
                input: &found.input,
                priority: found.priority,
                passage,
                key: key.clone(),
            },
            now,
        )?;
        changes.add(&of_run, (Passage::default(), passage), now, Some(&found.gates));
    }
    account.fired(decided.runs.len(), &found.input);
    gate::write(c, &changes)?;
    quota::write(c, &account)?;
    let created = u32::try_from(decided.runs.len()).unwrap_or(u32::MAX);
    c.prepare_cached("UPDATE task SET unfinished = unfinished + ?2 WHERE id = ?1")?
        .execute(params![Id(found.task.0), created])?;
    let finished = decided.then == Then::Finished;
    c.prepare_cached(
        "UPDATE backfill SET next_at = ?2, wake_at = ?3, waits_for = ?4, created = created + ?5,
             unfinished = unfinished + ?5, left_out = left_out + ?6, state = iif(?7, 'finished', state),
             finished_at = iif(?7, ?8, NULL)
         WHERE id = ?1",
    )?
    .execute(params![
        Id(of.id.0),
        decided.next.map(At),
        decided.then.wake_at(now).map(At),
        decided.then.waits_for().map(SkipReason::as_str),
        created,
        signed(decided.left_out),
        finished,
        At(now),
    ])?;
    Ok(created)
}
