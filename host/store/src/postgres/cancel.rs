//! Runs that end without an attempt, and the counts that every end changes.

use super::row::{At, execute, rows, unsigned};
use super::usage::{self, Logs};
use super::{Shard, Shared};
use crate::StoreError;
use crate::billing::{BillKey, Bills, of_runs};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::run::{RunEvent, RunState};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many runs of tasks, triggers and backfills are over, to be taken off their counts of unfinished ones.
#[derive(Debug, Default)]
pub(super) struct CountsDown {
    tasks: BTreeMap<Uuid, i64>,
    triggers: BTreeMap<Uuid, OfTrigger>,
    backfills: BTreeMap<Uuid, OfBackfill>,
}

/// Whose run it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose {
    pub task: Uuid,
    pub trigger: Option<Uuid>,
    pub backfill: Option<Uuid>,
}

/// How many of its runs are over, by how they ended.
#[derive(Debug, Default)]
struct OfBackfill {
    succeeded: i64,
    failed: i64,
    cancelled: i64,
    over_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct OfTrigger {
    over: i64,
    /// When the last of them was over.
    over_at: Option<Timestamp>,
    /// The newest nominal time that has succeeded.
    succeeded: Option<Timestamp>,
}

impl CountsDown {
    pub fn add(&mut self, whose: Whose, state: RunState, now: Timestamp) {
        *self.tasks.entry(whose.task).or_default() += 1;
        if let Some(backfill) = whose.backfill {
            let of_backfill = self.backfills.entry(backfill).or_default();
            match state {
                RunState::Succeeded => of_backfill.succeeded += 1,
                RunState::Failed => of_backfill.failed += 1,
                _ => of_backfill.cancelled += 1,
            }
            of_backfill.over_at = of_backfill.over_at.max(Some(now));
        } else if let Some(trigger) = whose.trigger {
            let of_trigger = self.triggers.entry(trigger).or_default();
            of_trigger.over += 1;
            of_trigger.over_at = of_trigger.over_at.max(Some(now));
        }
    }

    pub fn succeeded(&mut self, trigger: Uuid, nominal: Timestamp) {
        let of_trigger = self.triggers.entry(trigger).or_default();
        of_trigger.succeeded = of_trigger.succeeded.max(Some(nominal));
    }

    /// The last writes of a transaction: many others change the same rows.
    pub async fn write(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        if !self.tasks.is_empty() {
            let (ids, counts): (Vec<&Uuid>, Vec<&i64>) = self.tasks.iter().unzip();
            execute(
                c,
                "WITH locked AS MATERIALIZED (
                     SELECT t.id, e.count FROM task t JOIN unnest($1::uuid[], $2::bigint[]) AS e (id, count)
                         ON t.id = e.id ORDER BY t.id FOR NO KEY UPDATE OF t)
                 UPDATE task t SET unfinished = t.unfinished - l.count FROM locked l WHERE t.id = l.id",
                &[&ids, &counts],
            )
            .await?;
        }
        if !self.triggers.is_empty() {
            let ids: Vec<&Uuid> = self.triggers.keys().collect();
            let counts: Vec<i64> = self.triggers.values().map(|of| of.over).collect();
            let over_at: Vec<Option<At>> = self.triggers.values().map(|of| of.over_at.map(At)).collect();
            let newest: Vec<Option<At>> = self.triggers.values().map(|of| of.succeeded.map(At)).collect();
            // A fixed delay that waited for the end of its run goes on, unless that is after its window.
            execute(
                c,
                "WITH locked AS MATERIALIZED (
                     SELECT g.id, e.count, e.newest, g.not_after, CASE WHEN g.delay IS NOT NULL AND g.next_at IS NULL
                         AND g.state <> 'finished' AND g.unfinished = e.count THEN e.over_at + g.delay END AS again_at
                     FROM trigger g JOIN unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[])
                         AS e (id, count, over_at, newest) ON g.id = e.id
                     ORDER BY g.id FOR NO KEY UPDATE OF g)
                 UPDATE trigger g SET unfinished = g.unfinished - l.count,
                     last_success_nominal = greatest(g.last_success_nominal, l.newest),
                     next_at = CASE WHEN l.again_at > l.not_after THEN NULL ELSE coalesce(l.again_at, g.next_at) END,
                     due_at = CASE WHEN l.again_at > l.not_after THEN NULL ELSE coalesce(l.again_at, g.due_at) END,
                     state = CASE WHEN l.again_at > l.not_after THEN 'finished' ELSE g.state END
                 FROM locked l WHERE g.id = l.id",
                &[&ids, &counts, &over_at, &newest],
            )
            .await?;
        }
        self.write_backfills(c).await
    }

    /// Lets backfills go on, and finishes those that have come to their end when these were their last runs.
    async fn write_backfills(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        if self.backfills.is_empty() {
            return Ok(());
        }
        let ids: Vec<&Uuid> = self.backfills.keys().collect();
        let of = || self.backfills.values();
        let succeeded: Vec<i64> = of().map(|of| of.succeeded).collect();
        let failed: Vec<i64> = of().map(|of| of.failed).collect();
        let cancelled: Vec<i64> = of().map(|of| of.cancelled).collect();
        let over_at: Vec<Option<At>> = of().map(|of| of.over_at.map(At)).collect();
        execute(
            c,
            "WITH locked AS MATERIALIZED (
                 SELECT b.id, e.succeeded, e.failed, e.cancelled, e.over_at,
                     b.state = 'active' AND b.next_at IS NOT NULL AS goes_on, b.state = 'active' AND b.next_at IS NULL
                         AND b.unfinished = e.succeeded + e.failed + e.cancelled AS finished
                 FROM backfill b JOIN unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                     AS e (id, succeeded, failed, cancelled, over_at) ON b.id = e.id
                 ORDER BY b.id FOR NO KEY UPDATE OF b)
             UPDATE backfill b SET unfinished = b.unfinished - l.succeeded - l.failed - l.cancelled,
                 succeeded = b.succeeded + l.succeeded, failed = b.failed + l.failed,
                 cancelled = b.cancelled + l.cancelled, wake_at = CASE WHEN l.goes_on THEN l.over_at END,
                 finished_at = CASE WHEN l.finished THEN l.over_at ELSE b.finished_at END,
                 state = CASE WHEN l.finished THEN 'finished' ELSE b.state END
             FROM locked l WHERE b.id = l.id",
            &[&ids, &succeeded, &failed, &cancelled, &over_at],
        )
        .await?;
        Ok(())
    }
}

/// Whose runs are to be cancelled, as a condition.
pub(super) const OF_RUN: &str = "id = $1";
pub(super) const OF_TASK: &str = "task_id = $1";
/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_TRIGGER: &str =
    "trigger_id = $1 AND task_id = (SELECT task_id FROM trigger WHERE id = $1)";

/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_BACKFILL: &str = "backfill_id = $1 AND task_id = (
    SELECT g.task_id FROM backfill b JOIN trigger g ON g.id = b.trigger_id WHERE b.id = $1)";

/// Cancels the runs that have not begun of what has this id; `whose` is one of the conditions above.
pub(super) async fn cancel_unbegun(
    shared: &Shared,
    c: &impl GenericClient,
    whose: &'static str,
    id: Uuid,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    // The same for both: neither has an attempt that executes.
    let cancelled =
        RunState::Queued.next(RunEvent::Cancelled).map_err(|e| StoreError::Conflict(e.to_string()))?;
    let cancel = format!(
        "WITH locked AS MATERIALIZED (
             SELECT id FROM run WHERE {whose} AND state IN ('queued', 'waiting')
             ORDER BY id FOR NO KEY UPDATE)
         UPDATE run r SET state = $2, cancel_requested = TRUE, finished_at = $3 FROM locked l
         WHERE r.id = l.id RETURNING r.id, r.task_id, r.trigger_id, r.tenant_id,
             octet_length(r.input)::bigint, r.backfill_id"
    );
    let found = rows(c, &cancel, &[&id, &cancelled.as_str(), &At(now)]).await?;
    let (mut counts, mut bills) = (CountsDown::default(), Bills::default());
    let mut runs = Vec::with_capacity(found.len());
    for row in found {
        let task = TaskId(row.try_get(1)?);
        let whose = Whose { task: task.0, trigger: row.try_get(2)?, backfill: row.try_get(5)? };
        counts.add(whose, cancelled, now);
        let bill = BillKey::of(TenantId(row.try_get(3)?), task, now);
        bills.add(bill, of_runs(1, unsigned(row.try_get(4)?)));
        runs.push(RunId(row.try_get(0)?));
    }
    counts.write(c).await?;
    usage::write(shared, c, Shard::Others, &bills, &Logs::default()).await?;
    Ok(runs)
}
