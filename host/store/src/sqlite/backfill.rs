//! Backfills in SQLite: made, read, cancelled.

use super::backfill_advance::{advance, read_due};
use super::cancel::{OF_BACKFILL, cancel_unbegun};
use super::row::{At, Id, Json, Word, bad_token, limit, paged, signed, unsigned};
use super::writer::{ROW, Size};
use super::{SqliteStore, audit, backfill_advance, trigger};
use crate::record;
use crate::words::{hidden, no_backfill, too_many_backfills};
use crate::{BackfillStep, BackfillStore, DueBackfill, NewBackfill, Page, Paged, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::backfill::{Backfill, BackfillCounts, BackfillPlan, BackfillSpec, BackfillState, plan};
use innkeeper_domain::ids::{BackfillId, TenantId, TriggerId};
use innkeeper_domain::limits::BACKFILLS_PER_TRIGGER_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::RunState;
use innkeeper_domain::time::to_micros;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

#[async_trait]
impl BackfillStore for SqliteStore {
    async fn backfill_plan(&self, tenant: TenantId, new: NewBackfill) -> Result<BackfillPlan, StoreError> {
        self.read(move |c| {
            let trigger = trigger::get(c, tenant, &new.trigger)?;
            let (times, left_to_trigger) = new.times_of(&trigger)?;
            let latest = latest_states(c, trigger.id, times)?;
            Ok(BackfillPlan { left_to_trigger, ..plan(new.spec.again, times, &latest) })
        })
        .await
    }

    async fn backfill_create(
        &self,
        tenant: TenantId,
        new: NewBackfill,
        change: Change,
    ) -> Result<Backfill, StoreError> {
        let now = change.now;
        let hints = Arc::clone(&self.hints);
        let create = move |c: &Connection| {
            let trigger = trigger::get(c, tenant, &new.trigger)?;
            let (times, left_to_trigger) = new.times_of(&trigger)?;
            let count = "SELECT count(*) FROM backfill WHERE trigger_id = ?1 AND state = 'active'";
            let active = c.query_row(count, [Id(trigger.id.0)], |row| row.get(0))?;
            if unsigned(active) >= BACKFILLS_PER_TRIGGER_MAX {
                return Err(too_many_backfills(&trigger.name));
            }
            c.execute(
                "INSERT INTO backfill (id, tenant_id, trigger_id, from_at, to_at, concurrency, again, state, next_at,
                     last_at, wake_at, times, left_to_trigger, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active', ?8, ?9, ?10, ?11, ?12, ?10)",
                params![
                    Id(new.id.0),
                    Id(tenant.0),
                    Id(trigger.id.0),
                    At(new.spec.from),
                    At(new.spec.to),
                    new.spec.concurrency,
                    new.spec.again.as_str(),
                    times.first().map(|at| At(*at)),
                    times.last().map(|at| At(*at)),
                    At(now),
                    signed(times.len() as u64),
                    signed(left_to_trigger),
                ],
            )?;
            let created = get(c, tenant, new.id)?;
            put_on_record(c, &change, tenant, None, &created)?;
            Ok(created)
        };
        self.writer.write(create, move |_| hints.backfills_changed.notify_one()).await
    }

    async fn backfill_get(&self, tenant: TenantId, id: BackfillId) -> Result<Backfill, StoreError> {
        self.read(move |c| get(c, tenant, id)).await
    }

    async fn backfill_list(
        &self,
        tenant: TenantId,
        trigger: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Backfill>, StoreError> {
        let name = trigger.cloned();
        let before = match &page.after {
            None => Uuid::max(),
            Some(token) => Uuid::parse_str(token).map_err(|_| bad_token())?,
        };
        self.read(move |c| {
            let of = name.map(|name| trigger::get(c, tenant, &name)).transpose()?;
            if let Some(trigger) = of.as_ref().filter(|trigger| hidden(&only, &trigger.task)) {
                return Err(StoreError::NotFound(format!("trigger `{}`", trigger.name)));
            }
            let mut list = c.prepare_cached(&format!(
                "{SELECT} WHERE b.tenant_id = ?1 AND b.id < ?2 AND (?3 IS NULL OR b.trigger_id = ?3)
                 AND (?4 IS NULL OR t.name IN (SELECT value FROM json_each(?4)))
                 AND g.deleted_at IS NULL ORDER BY b.id DESC LIMIT ?5"
            ))?;
            let (of, only) = (of.map(|trigger| Id(trigger.id.0)), only.as_ref().map(Json));
            let rows =
                list.query_map(params![Id(tenant.0), Id(before), of, only, limit(&page)], read_backfill)?;
            Ok(paged(rows.collect::<Result<_, _>>()?, &page, |last: &Backfill| last.id.to_string()))
        })
        .await
    }

    async fn backfill_cancel(
        &self,
        tenant: TenantId,
        id: BackfillId,
        change: Change,
    ) -> Result<Backfill, StoreError> {
        let now = change.now;
        let hints = Arc::clone(&self.hints);
        let cancel = move |c: &Connection| {
            let before = get(c, tenant, id)?;
            if before.state != BackfillState::Active {
                return Ok((before, Vec::new()));
            }
            end(c, ITSELF, id.0, now)?;
            let cancelled = cancel_unbegun(c, OF_BACKFILL, id.0, now)?;
            let after = get(c, tenant, id)?;
            put_on_record(c, &change, tenant, Some(&before), &after)?;
            Ok((after, cancelled))
        };
        let wake = move |(_, cancelled): &(Backfill, Vec<_>)| {
            cancelled.iter().for_each(|run| hints.run_changed(*run));
        };
        self.writer.write(cancel, wake).await.map(|(backfill, _)| backfill)
    }

    async fn backfills_due(&self, now: Timestamp, most: usize) -> Result<Vec<DueBackfill>, StoreError> {
        self.read(move |c| {
            let mut list = c.prepare_cached(backfill_advance::DUE)?;
            let rows = list.query_map(params![At(now), signed(most as u64)], |row| {
                Ok((BackfillId(row.get::<_, Id>(0)?.0), read_due(row)))
            })?;
            let mut due = Vec::new();
            for row in rows {
                match row? {
                    (_, Ok(backfill)) => due.push(backfill),
                    (id, Err(error)) => {
                        tracing::error!(backfill = %id, %error, "a stored backfill can't be read; it stays as it is");
                    }
                }
            }
            Ok(due)
        })
        .await
    }

    async fn backfill_advance(&self, step: BackfillStep, now: Timestamp) -> Result<u32, StoreError> {
        let hints = Arc::clone(&self.hints);
        let wake = move |created: &u32| {
            if *created > 0 {
                hints.runs_ready.notify_one();
            }
        };
        let bytes = ROW * step.run_ids.len();
        self.writer.write_sized(Size::of(bytes), move |c| advance(c, &step, now), wake).await
    }
}

/// The trigger's own run for a time.
pub(super) const OWN_RUN: &str = "SELECT id, state FROM run WHERE trigger_id = ?1 AND occurrence = ?2";
/// The latest run for a time that a backfill created.
pub(super) const BACKFILLED_RUN: &str =
    "SELECT max(id), state FROM run WHERE trigger_id = ?1 AND nominal_at = ?2 AND backfill_id IS NOT NULL";

/// Which of these times have a run, with the state of the latest.
pub(super) fn latest_states(
    c: &Connection,
    trigger: TriggerId,
    times: &[Timestamp],
) -> Result<BTreeMap<Timestamp, RunState>, StoreError> {
    let (mut own, mut backfilled) = (c.prepare_cached(OWN_RUN)?, c.prepare_cached(BACKFILLED_RUN)?);
    let state = |row: &Row| Ok(row.get::<_, Option<Word<RunState>>>(1)?.map(|state| state.0));
    let mut latest = BTreeMap::new();
    for at in times {
        // A backfill's run comes after the trigger's own, if there is that.
        let mut found = backfilled.query_row(params![Id(trigger.0), At(*at)], state).optional()?.flatten();
        if found.is_none() {
            let occurrence = to_micros(*at).to_string();
            found = own.query_row(params![Id(trigger.0), occurrence], state).optional()?.flatten();
        }
        latest.extend(found.map(|state| (*at, state)));
    }
    Ok(latest)
}

/// Which backfills end, as a condition.
const ITSELF: &str = "id = ?1";
pub(super) const OF_TRIGGER: &str = "trigger_id = ?1";
pub(super) const OF_TASK: &str = "trigger_id IN (SELECT id FROM trigger WHERE task_id = ?1)";

/// Ends active backfills; `which` is one of the conditions above. Their runs are the caller's to cancel.
pub(super) fn end(c: &Connection, which: &'static str, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
    c.execute(
        &format!(
            "UPDATE backfill SET state = 'cancelled', wake_at = NULL, waits_for = NULL, finished_at = ?2
             WHERE {which} AND state = 'active'"
        ),
        params![Id(id), At(now)],
    )?;
    Ok(())
}

fn put_on_record(
    c: &Connection,
    change: &Change,
    tenant: TenantId,
    before: Option<&Backfill>,
    after: &Backfill,
) -> Result<(), StoreError> {
    let difference = || (before.map_or(Value::Null, record::backfill), record::backfill(after));
    audit::record(c, change, Some(tenant), || format!("backfill {}", after.id), difference)
}

const SELECT: &str = "SELECT b.id, g.name, t.name, b.from_at, b.to_at, b.concurrency, b.again, b.state, b.waits_for,
    b.times, b.left_to_trigger, b.created, b.left_out, b.unfinished, b.succeeded, b.failed, b.cancelled, b.created_at,
    b.finished_at
    FROM backfill b JOIN trigger g ON g.id = b.trigger_id JOIN task t ON t.id = g.task_id";

fn read_backfill(row: &Row) -> rusqlite::Result<Backfill> {
    let count = |column| row.get(column).map(unsigned);
    Ok(Backfill {
        id: BackfillId(row.get::<_, Id>(0)?.0),
        trigger: row.get::<_, Word<_>>(1)?.0,
        task: row.get::<_, Word<_>>(2)?.0,
        spec: BackfillSpec {
            from: row.get::<_, At>(3)?.0,
            to: row.get::<_, At>(4)?.0,
            concurrency: row.get(5)?,
            again: row.get::<_, Word<_>>(6)?.0,
        },
        state: row.get::<_, Word<_>>(7)?.0,
        waits_for: row.get::<_, Option<Word<_>>>(8)?.map(|reason| reason.0),
        times: count(9)?,
        left_to_trigger: count(10)?,
        counts: BackfillCounts {
            created: count(11)?,
            left_out: count(12)?,
            unfinished: count(13)?,
            succeeded: count(14)?,
            failed: count(15)?,
            cancelled: count(16)?,
        },
        created_at: row.get::<_, At>(17)?.0,
        finished_at: row.get::<_, Option<At>>(18)?.map(|at| at.0),
    })
}

/// The tenant's backfill of that id.
fn get(c: &Connection, tenant: TenantId, id: BackfillId) -> Result<Backfill, StoreError> {
    let get = format!("{SELECT} WHERE b.id = ?1 AND b.tenant_id = ?2 AND g.deleted_at IS NULL");
    let found =
        c.prepare_cached(&get)?.query_row(params![Id(id.0), Id(tenant.0)], read_backfill).optional()?;
    found.ok_or_else(|| no_backfill(id))
}
