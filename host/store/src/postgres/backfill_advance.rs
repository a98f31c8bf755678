//! Steps of backfills in PostgreSQL: runs and how far the backfill is, together or not at all.

use super::backfill::latest_states;
use super::connection::in_transaction;
use super::row::{At, Json, Small, Word, execute, row, signed, unsigned};
use super::start::{NewRow, NewRows, count_up};
use super::{Shard, Shared, quota};
use crate::gates::{WaitsForOwn, begin, task_gates};
use crate::terms::Terms;
use crate::{BackfillStep, DueBackfill, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::AdmissionState;
use innkeeper_domain::backfill::{Standing, Step, Then, step};
use innkeeper_domain::deadline::Deadlines;
use innkeeper_domain::gate::TaskGates;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{BackfillId, TaskId, TenantId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::time::to_micros;
use innkeeper_domain::trigger::{SkipReason, TriggerSpec};
use std::borrow::Cow;
use std::collections::BTreeMap;
use tokio_postgres::Row;

/// Not those of deleted tenants, which the retention clears away.
pub(super) const DUE: &str = "SELECT b.id, b.trigger_id, g.spec, b.from_at, b.next_at, b.last_at, b.tenant_id
    FROM backfill b JOIN trigger g ON g.id = b.trigger_id
    WHERE b.wake_at <= $1 AND b.state = 'active' AND b.next_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM tenant WHERE id = b.tenant_id AND deleted_at IS NOT NULL)
    ORDER BY b.wake_at LIMIT $2";

pub(super) fn read_due(row: &Row) -> Result<DueBackfill, StoreError> {
    Ok(DueBackfill {
        id: BackfillId(row.try_get(0)?),
        trigger: TriggerId(row.try_get(1)?),
        trigger_spec: row.try_get::<_, Json<_>>(2)?.0,
        from: row.try_get::<_, At>(3)?.0,
        next_at: row.try_get::<_, At>(4)?.0,
        last_at: row.try_get::<_, At>(5)?.0,
        tenant: TenantId(row.try_get(6)?),
    })
}

/// A backfill as the transaction finds it, active and where the step begins; it, its trigger and its task are locked.
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

async fn lock(
    shared: &Shared,
    c: &impl GenericClient,
    of: &BackfillStep,
) -> Result<Option<Found>, StoreError> {
    let lock =
        "SELECT t.id, t.revision, t.unfinished, t.paused_at IS NOT NULL FROM task t WHERE t.id = (SELECT g.task_id FROM backfill b
        JOIN trigger g ON g.id = b.trigger_id WHERE b.id = $1) FOR NO KEY UPDATE";
    let Some(task) = row(c, lock, &[&of.id.0]).await? else { return Ok(None) };
    // A pause or a delete that was first has its way.
    let lock = "SELECT id, input_type, input, last_success_nominal, state = 'paused', spec FROM trigger
        WHERE id = (SELECT trigger_id FROM backfill WHERE id = $1) AND deleted_at IS NULL FOR NO KEY UPDATE";
    let Some(trigger) = row(c, lock, &[&of.id.0]).await? else { return Ok(None) };
    let lock = "SELECT tenant_id, again, concurrency, unfinished FROM backfill
        WHERE id = $1 AND next_at = $2 AND state = 'active' FOR NO KEY UPDATE";
    let Some(backfill) = row(c, lock, &[&of.id.0, &At(of.next_at)]).await? else { return Ok(None) };
    let (id, revision) = (TaskId(task.try_get(0)?), task.try_get::<_, Small>(1)?.0);
    let (spec, paused) = (shared.spec(c, id, revision).await?, task.try_get(3)?);
    let of_trigger = trigger.try_get::<_, Json<TriggerSpec>>(5)?.0;
    Ok(Some(Found {
        tenant: TenantId(backfill.try_get(0)?),
        trigger: TriggerId(trigger.try_get(0)?),
        task: id,
        revision,
        requires: spec.requires.to_string(),
        terms: Terms::of(&spec),
        priority: of_trigger.priority.unwrap_or(spec.priority),
        labels: of_trigger.labels,
        gates: task_gates(&spec, paused)?,
        input: Payload { content_type: trigger.try_get(1)?, bytes: trigger.try_get(2)? },
        last_success_nominal: trigger.try_get::<_, Option<At>>(3)?.map(|at| at.0),
        standing: Standing {
            again: backfill.try_get::<_, Word<_>>(1)?.0,
            concurrency: backfill.try_get::<_, Small>(2)?.0,
            unfinished: unsigned(backfill.try_get(3)?),
            paused: trigger.try_get::<_, bool>(4)? || paused,
        },
        unfinished_of_task: unsigned(task.try_get(2)?),
    }))
}

/// Applies a step, and says how many runs it created.
pub(super) async fn advance(shared: &Shared, of: &BackfillStep, now: Timestamp) -> Result<u32, StoreError> {
    in_transaction!(&shared.pool, |c| {
        match lock(shared, c, of).await? {
            None => 0,
            Some(found) => apply(shared, c, of, &found, now).await?,
        }
    })
}

async fn apply(
    shared: &Shared,
    c: &impl GenericClient,
    of: &BackfillStep,
    found: &Found,
    now: Timestamp,
) -> Result<u32, StoreError> {
    let mut accounts = quota::accounts(c, &[found.tenant.0], now).await?;
    let Some(account) = accounts.get_mut(&found.tenant) else { return Ok(0) };
    let latest = match found.standing.has_room() {
        true => latest_states(c, found.trigger, &of.stretch.times).await?,
        false => BTreeMap::new(),
    };
    let admission = AdmissionState {
        unfinished_of_task: found.unfinished_of_task,
        tenant: account.for_trigger(&found.input),
        ..AdmissionState::default()
    };
    let decided = step(found.standing, admission, &of.stretch, &latest);
    let mut rows = NewRows::default();
    // It has a limit of its own, and doesn't wait for the trigger's.
    let (passage, key) = begin(&found.gates, &found.input, WaitsForOwn::No);
    for (nominal, id) in decided.runs.iter().filter_map(|place| of.run(*place)) {
        let row = NewRow {
            id,
            tenant: found.tenant,
            task: found.task,
            revision: found.revision,
            requires: Cow::Borrowed(&found.requires),
            pinned: found.terms.pinned(Deadlines::default(), &found.labels, nominal, now),
            trigger: Some((found.trigger, format!("{}/{}", to_micros(nominal), of.id))),
            backfill: Some(of.id),
            depth: 0,
            nominal_at: nominal,
            last_success_nominal: found.last_success_nominal.filter(|last| *last < nominal),
            idempotency_key: None,
            input: &found.input,
            priority: found.priority,
            passage,
            key: key.clone(),
        };
        rows.push(row, &found.gates, now);
    }
    account.fired(decided.runs.len(), &found.input);
    rows.insert(c).await?;
    count_up(c, &[(found.task.0, signed(decided.runs.len() as u64))].into()).await?;
    go_on(c, of, &decided, now).await?;
    quota::write(shared, c, Shard::Starts, &accounts).await?;
    Ok(u32::try_from(decided.runs.len()).unwrap_or(u32::MAX))
}

async fn go_on(
    c: &impl GenericClient,
    of: &BackfillStep,
    decided: &Step,
    now: Timestamp,
) -> Result<(), StoreError> {
    execute(
        c,
        "UPDATE backfill SET next_at = $2, wake_at = $3, waits_for = $4, created = created + $5,
             unfinished = unfinished + $5, left_out = left_out + $6,
             state = CASE WHEN $7 THEN 'finished' ELSE state END, finished_at = CASE WHEN $7 THEN $8::bigint END
         WHERE id = $1",
        &[
            &of.id.0,
            &decided.next.map(At),
            &decided.then.wake_at(now).map(At),
            &decided.then.waits_for().map(SkipReason::as_str),
            &signed(decided.runs.len() as u64),
            &signed(decided.left_out),
            &(decided.then == Then::Finished),
            &At(now),
        ],
    )
    .await?;
    Ok(())
}
