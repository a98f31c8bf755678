//! Backfills in PostgreSQL: made, read, cancelled.

use super::backfill_advance::{advance, read_due};
use super::cancel::{OF_BACKFILL, cancel_unbegun};
use super::connection::{in_transaction, reading};
use super::row::{At, Small, Word, bad_token, execute, limit, paged, row, rows, signed, unsigned};
use super::{PostgresStore, audit, backfill_advance, trigger};
use crate::record;
use crate::words::{hidden, no_backfill, too_many_backfills};
use crate::{BackfillStep, BackfillStore, DueBackfill, NewBackfill, Page, Paged, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::backfill::{Backfill, BackfillCounts, BackfillPlan, BackfillSpec, BackfillState, plan};
use innkeeper_domain::ids::{BackfillId, TenantId, TriggerId};
use innkeeper_domain::limits::BACKFILLS_PER_TRIGGER_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::RunState;
use innkeeper_domain::time::to_micros;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Row;
use uuid::Uuid;

/// Times that one statement looks for the runs of.
const TIMES_PER_LOOK: usize = 5_000;

#[async_trait]
impl BackfillStore for PostgresStore {
    async fn backfill_plan(&self, tenant: TenantId, new: NewBackfill) -> Result<BackfillPlan, StoreError> {
        reading!(&self.shared.pool, |c| {
            let trigger = trigger::get(c, tenant, &new.trigger).await?;
            let (times, left_to_trigger) = new.times_of(&trigger)?;
            let latest = latest_states(c, trigger.id, times).await?;
            BackfillPlan { left_to_trigger, ..plan(new.spec.again, times, &latest) }
        })
    }

    async fn backfill_create(
        &self,
        tenant: TenantId,
        new: NewBackfill,
        change: Change,
    ) -> Result<Backfill, StoreError> {
        let now = change.now;
        let created = in_transaction!(&self.shared.pool, |c| {
            // Neither to be deleted, nor to come to its next time before there is the backfill.
            trigger::lock(c, tenant, &new.trigger).await?;
            let trigger = trigger::get(c, tenant, &new.trigger).await?;
            let (times, left_to_trigger) = new.times_of(&trigger)?;
            let count = "SELECT count(*) FROM backfill WHERE trigger_id = $1 AND state = 'active'";
            let active = row(c, count, &[&trigger.id.0]).await?.map_or(Ok(0), |row| row.try_get(0))?;
            if unsigned(active) >= BACKFILLS_PER_TRIGGER_MAX {
                return Err(too_many_backfills(&trigger.name));
            }
            execute(
                c,
                "INSERT INTO backfill (id, tenant_id, trigger_id, from_at, to_at, concurrency, again, state, next_at,
                     last_at, wake_at, times, left_to_trigger, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', $8, $9, $10, $11, $12, $10)",
                &[
                    &new.id.0,
                    &tenant.0,
                    &trigger.id.0,
                    &At(new.spec.from),
                    &At(new.spec.to),
                    &i64::from(new.spec.concurrency),
                    &new.spec.again.as_str(),
                    &times.first().map(|at| At(*at)),
                    &times.last().map(|at| At(*at)),
                    &At(now),
                    &signed(times.len() as u64),
                    &signed(left_to_trigger),
                ],
            )
            .await?;
            let created = get(c, tenant, new.id).await?;
            put_on_record(c, &change, tenant, None, &created).await?;
            created
        })?;
        self.shared.wakes.backfills_changed();
        Ok(created)
    }

    async fn backfill_get(&self, tenant: TenantId, id: BackfillId) -> Result<Backfill, StoreError> {
        reading!(&self.shared.pool, |c| get(c, tenant, id).await?)
    }

    async fn backfill_list(
        &self,
        tenant: TenantId,
        trigger: Option<&Name>,
        only: Option<BTreeSet<Name>>,
        page: Page,
    ) -> Result<Paged<Backfill>, StoreError> {
        let before = match &page.after {
            None => Uuid::max(),
            Some(token) => Uuid::parse_str(token).map_err(|_| bad_token())?,
        };
        reading!(&self.shared.pool, |c| {
            let of = match trigger {
                Some(name) => Some(trigger::get(c, tenant, name).await?),
                None => None,
            };
            if let Some(trigger) = of.as_ref().filter(|trigger| hidden(&only, &trigger.task)) {
                return Err(StoreError::NotFound(format!("trigger `{}`", trigger.name)));
            }
            let of = of.map(|trigger| trigger.id.0);
            let only: Option<Vec<&str>> = only.as_ref().map(|only| only.iter().map(Name::as_str).collect());
            let list = format!(
                "{SELECT} WHERE b.tenant_id = $1 AND b.id < $2 AND ($3::uuid IS NULL OR b.trigger_id = $3)
                 AND ($4::text[] IS NULL OR t.name = ANY($4))
                 AND g.deleted_at IS NULL ORDER BY b.id DESC LIMIT $5"
            );
            let found = rows(c, &list, &[&tenant.0, &before, &of, &only, &limit(&page)]).await?;
            let found = found.iter().map(read_backfill).collect::<Result<_, _>>()?;
            paged(found, &page, |last: &Backfill| last.id.to_string())
        })
    }

    async fn backfill_cancel(
        &self,
        tenant: TenantId,
        id: BackfillId,
        change: Change,
    ) -> Result<Backfill, StoreError> {
        let now = change.now;
        let (backfill, cancelled) = in_transaction!(&self.shared.pool, |c| {
            // In the order of everybody who changes counts: the task, then the backfill, which what inserts its runs
            // locks as well.
            let lock = "SELECT t.id FROM task t WHERE t.id = (SELECT g.task_id FROM backfill b
                JOIN trigger g ON g.id = b.trigger_id WHERE b.id = $1 AND b.tenant_id = $2) FOR NO KEY UPDATE";
            row(c, lock, &[&id.0, &tenant.0]).await?.ok_or_else(|| no_backfill(id))?;
            let lock = "SELECT id FROM backfill WHERE id = $1 AND tenant_id = $2 FOR NO KEY UPDATE";
            row(c, lock, &[&id.0, &tenant.0]).await?.ok_or_else(|| no_backfill(id))?;
            let before = get(c, tenant, id).await?;
            if before.state == BackfillState::Active {
                end(c, ITSELF, id.0, now).await?;
                let cancelled = cancel_unbegun(&self.shared, c, OF_BACKFILL, id.0, now).await?;
                let after = get(c, tenant, id).await?;
                put_on_record(c, &change, tenant, Some(&before), &after).await?;
                (after, cancelled)
            } else {
                (before, Vec::new())
            }
        })?;
        self.shared.wakes.runs_changed(cancelled);
        Ok(backfill)
    }

    async fn backfills_due(&self, now: Timestamp, most: usize) -> Result<Vec<DueBackfill>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let found = rows(c, backfill_advance::DUE, &[&At(now), &signed(most as u64)]).await?;
            let mut due = Vec::with_capacity(found.len());
            for row in &found {
                match read_due(row) {
                    Ok(backfill) => due.push(backfill),
                    Err(error) => {
                        let id = BackfillId(row.try_get(0)?);
                        tracing::error!(backfill = %id, %error, "a stored backfill can't be read; it stays as it is");
                    }
                }
            }
            due
        })
    }

    async fn backfill_advance(&self, step: BackfillStep, now: Timestamp) -> Result<u32, StoreError> {
        let created = advance(&self.shared, &step, now).await?;
        if created > 0 {
            self.shared.wakes.runs_ready();
        }
        Ok(created)
    }
}

/// The trigger's own run for each time, and the latest one that a backfill created, which comes after it.
const LATEST: &str = "SELECT e.at, coalesce(b.state, o.state)
    FROM unnest($2::bigint[], $3::text[]) AS e (at, occurrence)
        LEFT JOIN LATERAL (SELECT state FROM run WHERE trigger_id = $1 AND occurrence = e.occurrence) o ON TRUE
        LEFT JOIN LATERAL (SELECT state FROM run WHERE trigger_id = $1 AND nominal_at = e.at
            AND backfill_id IS NOT NULL ORDER BY id DESC LIMIT 1) b ON TRUE
    WHERE o.state IS NOT NULL OR b.state IS NOT NULL";

/// Which of these times have a run, with the state of the latest.
pub(super) async fn latest_states(
    c: &impl GenericClient,
    trigger: TriggerId,
    times: &[Timestamp],
) -> Result<BTreeMap<Timestamp, RunState>, StoreError> {
    let mut latest = BTreeMap::new();
    for times in times.chunks(TIMES_PER_LOOK) {
        let occurrences: Vec<String> = times.iter().map(|at| to_micros(*at).to_string()).collect();
        let times: Vec<At> = times.iter().map(|at| At(*at)).collect();
        for row in rows(c, LATEST, &[&trigger.0, &times, &occurrences]).await? {
            latest.insert(row.try_get::<_, At>(0)?.0, row.try_get::<_, Word<_>>(1)?.0);
        }
    }
    Ok(latest)
}

/// Which backfills end, as a condition.
const ITSELF: &str = "id = $1";
pub(super) const OF_TRIGGER: &str = "trigger_id = $1";
pub(super) const OF_TASK: &str = "trigger_id IN (SELECT id FROM trigger WHERE task_id = $1)";

/// Ends active backfills; `which` is one of the conditions above. Their runs are the caller's to cancel.
pub(super) async fn end(
    c: &impl GenericClient,
    which: &'static str,
    id: Uuid,
    now: Timestamp,
) -> Result<(), StoreError> {
    let end = format!(
        "WITH locked AS MATERIALIZED (
             SELECT id FROM backfill WHERE {which} AND state = 'active' ORDER BY id FOR NO KEY UPDATE)
         UPDATE backfill b SET state = 'cancelled', wake_at = NULL, waits_for = NULL, finished_at = $2
         FROM locked l WHERE b.id = l.id"
    );
    execute(c, &end, &[&id, &At(now)]).await?;
    Ok(())
}

async fn put_on_record(
    c: &impl GenericClient,
    change: &Change,
    tenant: TenantId,
    before: Option<&Backfill>,
    after: &Backfill,
) -> Result<(), StoreError> {
    let difference = (before.map_or(Value::Null, record::backfill), record::backfill(after));
    audit::record(c, change, Some(tenant), format!("backfill {}", after.id), difference).await
}

const SELECT: &str = "SELECT b.id, g.name, t.name, b.from_at, b.to_at, b.concurrency, b.again, b.state, b.waits_for,
    b.times, b.left_to_trigger, b.created, b.left_out, b.unfinished, b.succeeded, b.failed, b.cancelled, b.created_at,
    b.finished_at
    FROM backfill b JOIN trigger g ON g.id = b.trigger_id JOIN task t ON t.id = g.task_id";

fn read_backfill(row: &Row) -> Result<Backfill, StoreError> {
    let count = |column: usize| row.try_get(column).map(unsigned);
    Ok(Backfill {
        id: BackfillId(row.try_get(0)?),
        trigger: row.try_get::<_, Word<_>>(1)?.0,
        task: row.try_get::<_, Word<_>>(2)?.0,
        spec: BackfillSpec {
            from: row.try_get::<_, At>(3)?.0,
            to: row.try_get::<_, At>(4)?.0,
            concurrency: row.try_get::<_, Small>(5)?.0,
            again: row.try_get::<_, Word<_>>(6)?.0,
        },
        state: row.try_get::<_, Word<_>>(7)?.0,
        waits_for: row.try_get::<_, Option<Word<_>>>(8)?.map(|reason| reason.0),
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
        created_at: row.try_get::<_, At>(17)?.0,
        finished_at: row.try_get::<_, Option<At>>(18)?.map(|at| at.0),
    })
}

/// The tenant's backfill of that id.
async fn get(c: &impl GenericClient, tenant: TenantId, id: BackfillId) -> Result<Backfill, StoreError> {
    let get = format!("{SELECT} WHERE b.id = $1 AND b.tenant_id = $2 AND g.deleted_at IS NULL");
    let found = row(c, &get, &[&id.0, &tenant.0]).await?;
    found.as_ref().map(read_backfill).transpose()?.ok_or_else(|| no_backfill(id))
}
