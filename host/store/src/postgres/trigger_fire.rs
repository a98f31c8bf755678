//! Runs of triggers that something other than the clock starts, in PostgreSQL.

use super::cancel::cancel_own;
use super::connection::in_transaction;
use super::row::{At, Json, Small, Word, execute, row, unsigned};
use super::start::{NewRow, NewRows, count_up};
use super::trigger_advance::record;
use super::{Shard, Shared, quota};
use crate::gates::task_gates;
use crate::starting::{Source, Standing, Starting, check};
use crate::terms::Terms;
use crate::{Fired, NewFiring, StoreError, starting};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::trigger::TriggerSpec;
use std::borrow::Cow;

/// The tenant's trigger; it and its task are locked.
pub(super) async fn lock(
    shared: &Shared,
    c: &impl GenericClient,
    tenant: TenantId,
    trigger: TriggerId,
) -> Result<Option<Source>, StoreError> {
    let lock = "SELECT id, revision, unfinished, paused_at IS NOT NULL FROM task
        WHERE id = (SELECT task_id FROM trigger WHERE id = $1) FOR NO KEY UPDATE";
    let Some(task) = row(c, lock, &[&trigger.0]).await? else { return Ok(None) };
    // A pause or a delete that was first has its way.
    let lock = "SELECT name, spec, state, last_nominal, last_success_nominal, unfinished, started
        FROM trigger WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE";
    let Some(found) = row(c, lock, &[&trigger.0, &tenant.0]).await? else { return Ok(None) };
    let (id, revision) = (TaskId(task.try_get(0)?), task.try_get::<_, Small>(1)?.0);
    let (of_task, task_paused) = (shared.spec(c, id, revision).await?, task.try_get(3)?);
    let spec = found.try_get::<_, Json<TriggerSpec>>(1)?.0;
    Ok(Some(Source {
        id: trigger,
        tenant,
        name: found.try_get::<_, Word<_>>(0)?.0,
        task: id,
        revision,
        requires: of_task.requires.to_string(),
        terms: Terms::of(&of_task),
        gates: task_gates(&of_task, task_paused)?,
        task_paused,
        priority: spec.priority.unwrap_or(of_task.priority),
        spec,
        standing: Standing::of(found.try_get(2)?),
        last_nominal: found.try_get::<_, Option<At>>(3)?.map(|at| at.0),
        last_success_nominal: found.try_get::<_, Option<At>>(4)?.map(|at| at.0),
        unfinished_of_task: unsigned(task.try_get(2)?),
        unfinished_of_trigger: unsigned(found.try_get(5)?),
        started: unsigned(found.try_get(6)?),
    }))
}

/// Starts a run of a webhook's trigger, or puts on record why not. Returns the trigger's runs that were cancelled for it,
/// or asked to end, as well.
pub(super) async fn fire(
    shared: &Shared,
    tenant: TenantId,
    trigger: TriggerId,
    firing: &NewFiring,
    now: Timestamp,
) -> Result<(Fired, Vec<RunId>), StoreError> {
    let missing = || StoreError::NotFound(format!("trigger {trigger}"));
    in_transaction!(&shared.pool, |c| {
        let source = lock(shared, c, tenant, trigger).await?.ok_or_else(missing)?;
        check(&source, &firing.occurrence)?;
        match run_of(c, trigger, &firing.occurrence).await? {
            Some(existing) => (Fired::Existing(existing), Vec::new()),
            None => {
                let mut accounts = quota::accounts(c, &[tenant.0], now).await?;
                let account = accounts.get_mut(&tenant).ok_or_else(missing)?;
                let mut starting = Starting::new(&source, account);
                let fired = starting::fire(&mut starting, firing)?;
                let cancelled = write(shared, c, &source, &starting, now).await?;
                quota::write(shared, c, Shard::Starts, &accounts).await?;
                (fired, cancelled)
            }
        }
    })
}

/// The run that an occurrence of the trigger has.
pub(super) async fn run_of(
    c: &impl GenericClient,
    trigger: TriggerId,
    occurrence: &str,
) -> Result<Option<RunId>, StoreError> {
    let get = "SELECT id FROM run WHERE trigger_id = $1 AND occurrence = $2";
    row(c, get, &[&trigger.0, &occurrence]).await?.map(|found| Ok(RunId(found.try_get(0)?))).transpose()
}

/// Writes all but the account. Returns the trigger's runs that were cancelled, or asked to end.
pub(super) async fn write(
    shared: &Shared,
    c: &impl GenericClient,
    source: &Source,
    starting: &Starting<'_>,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    let cancelled = match starting.cancels {
        true => cancel_own(shared, c, source.id, now).await?,
        false => Vec::new(),
    };
    let mut rows = NewRows::default();
    for start in &starting.starts {
        let (passage, key, pinned) = starting.placed(start, now);
        let row = NewRow {
            id: start.id,
            tenant: source.tenant,
            task: source.task,
            revision: source.revision,
            requires: Cow::Borrowed(&source.requires),
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
        };
        rows.push(row, &source.gates, now);
    }
    rows.insert(c).await?;
    for (skip, last_run) in &starting.skips {
        record(c, source.id, skip, *last_run).await?;
    }
    let (started, skipped) = starting.counts();
    if started > 0 {
        count_up(c, &[(source.task.0, started)].into()).await?;
    }
    execute(
        c,
        "UPDATE trigger SET last_nominal = $2, started = started + $3, unfinished = unfinished + $3,
             skipped = skipped + $4, state = CASE WHEN $5 THEN 'finished' ELSE state END WHERE id = $1",
        &[&source.id.0, &starting.last_nominal().map(At), &started, &skipped, &starting.is_over()],
    )
    .await?;
    Ok(cancelled)
}
