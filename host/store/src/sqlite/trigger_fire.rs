//! Runs of triggers that something other than the clock starts, in SQLite.

use super::cancel::cancel_own;
use super::row::{At, Id, Json, Word, unsigned};
use super::start::{NewRow, insert};
use super::trigger_advance::record;
use super::{gate, quota};
use crate::gates::{GateChanges, Gated, task_gates};
use crate::starting::{Source, Standing, Starting, check};
use crate::terms::Terms;
use crate::{Fired, NewFiring, StoreError, starting};
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{Passage, TaskGates};
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::trigger::TriggerSpec;
use rusqlite::{Connection, OptionalExtension, params};

/// The tenant's trigger.
pub(super) fn find(
    c: &Connection,
    tenant: TenantId,
    trigger: TriggerId,
) -> Result<Option<Source>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT g.name, g.task_id, t.revision, r.spec, g.spec, g.state, g.last_nominal, g.last_success_nominal,
              t.unfinished, g.unfinished, g.started, t.paused_at IS NOT NULL
         FROM trigger g JOIN task t ON t.id = g.task_id
             JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision
         WHERE g.id = ?1 AND g.tenant_id = ?2 AND g.deleted_at IS NULL",
    )?;
    let found = get.query_row(params![Id(trigger.0), Id(tenant.0)], |row| {
        let (task, spec) = (row.get::<_, Json<TaskSpec>>(3)?.0, row.get::<_, Json<TriggerSpec>>(4)?.0);
        let source = Source {
            id: trigger,
            tenant,
            name: row.get::<_, Word<_>>(0)?.0,
            task: TaskId(row.get::<_, Id>(1)?.0),
            revision: row.get(2)?,
            requires: task.requires.to_string(),
            terms: Terms::of(&task),
            gates: TaskGates::default(),
            task_paused: row.get(11)?,
            priority: spec.priority.unwrap_or(task.priority),
            spec,
            standing: Standing::of(row.get_ref(5)?.as_str()?),
            last_nominal: row.get::<_, Option<At>>(6)?.map(|at| at.0),
            last_success_nominal: row.get::<_, Option<At>>(7)?.map(|at| at.0),
            unfinished_of_task: unsigned(row.get(8)?),
            unfinished_of_trigger: unsigned(row.get(9)?),
            started: unsigned(row.get(10)?),
        };
        Ok((source, task))
    });
    let Some((source, task)) = found.optional()? else { return Ok(None) };
    Ok(Some(Source { gates: task_gates(&task, source.task_paused)?, ..source }))
}

/// What came of a firing, and the trigger's runs that were cancelled for it, or asked to end.
pub(super) type FiredNow = (Fired, Vec<RunId>);

/// Starts a run of a webhook's trigger, or puts on record why not.
pub(super) fn fire(
    c: &Connection,
    tenant: TenantId,
    trigger: TriggerId,
    firing: &NewFiring,
    now: Timestamp,
) -> Result<FiredNow, StoreError> {
    let missing = || StoreError::NotFound(format!("trigger {trigger}"));
    let source = find(c, tenant, trigger)?.ok_or_else(missing)?;
    check(&source, &firing.occurrence)?;
    if let Some(existing) = run_of(c, trigger, &firing.occurrence)? {
        return Ok((Fired::Existing(existing), Vec::new()));
    }
    let mut account = quota::account(c, tenant, now)?.ok_or_else(missing)?;
    let mut starting = Starting::new(&source, &mut account);
    let fired = starting::fire(&mut starting, firing)?;
    let cancelled = write(c, &source, &starting, now)?;
    quota::write(c, &account)?;
    Ok((fired, cancelled))
}

/// The run that an occurrence of the trigger has.
pub(super) fn run_of(
    c: &Connection,
    trigger: TriggerId,
    occurrence: &str,
) -> Result<Option<RunId>, StoreError> {
    let mut get = c.prepare_cached("SELECT id FROM run WHERE trigger_id = ?1 AND occurrence = ?2")?;
    let found = get.query_row(params![Id(trigger.0), occurrence], |row| Ok(RunId(row.get::<_, Id>(0)?.0)));
    Ok(found.optional()?)
}

/// Writes all but the account. Returns the trigger's runs that were cancelled, or asked to end.
pub(super) fn write(
    c: &Connection,
    source: &Source,
    starting: &Starting<'_>,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    let cancelled = if starting.cancels { cancel_own(c, source.id, now)? } else { Vec::new() };
    let mut changes = GateChanges::default();
    for start in &starting.starts {
        let (passage, key, pinned) = starting.placed(start, now);
        let of = Gated {
            tenant: source.tenant,
            task: source.task,
            trigger: Some(source.id.0),
            key: key.as_deref(),
        };
        changes.add(&of, (Passage::default(), passage), now, Some(&source.gates));
        insert(
            c,
            &NewRow {
                id: start.id,
                tenant: source.tenant,
                task: source.task,
                revision: source.revision,
                requires: &source.requires,
                pinned,
                trigger: Some((source.id, start.occurrence.clone())),
                backfill: None,
                depth: start.depth,
                nominal_at: start.nominal_at,
                last_success_nominal: source.last_success_nominal,
                idempotency_key: None,
                input: &start.input,
                priority: source.priority,
                passage,
                key,
            },
            now,
        )?;
    }
    gate::write(c, &changes)?;
    for (skip, last_run) in &starting.skips {
        record(c, source.id, skip, *last_run)?;
    }
    let (started, skipped) = starting.counts();
    if started > 0 {
        c.prepare_cached("UPDATE task SET unfinished = unfinished + ?2 WHERE id = ?1")?
            .execute(params![Id(source.task.0), started])?;
    }
    c.prepare_cached(
        "UPDATE trigger SET last_nominal = ?2, started = started + ?3, unfinished = unfinished + ?3,
             skipped = skipped + ?4, state = iif(?5, 'finished', state) WHERE id = ?1",
    )?
    .execute(params![
        Id(source.id.0),
        starting.last_nominal().map(At),
        started,
        skipped,
        starting.is_over()
    ])?;
    Ok(cancelled)
}
