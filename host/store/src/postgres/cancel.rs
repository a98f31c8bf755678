//! Runs that end without an attempt, and the counts that every end changes.

use super::event_deliver::{self, End};
use super::gate::{Moves, lock_tasks, read_passage};
use super::quota::Stored;
use super::row::{At, Small, Word, execute, rows, unsigned};
use super::usage::{self, Logs};
use super::{Shard, Shared};
use crate::StoreError;
use crate::billing::{BillKey, Bills, of_runs};
use crate::gates::Gated;
use deadpool_postgres::GenericClient;
use innkeeper_domain::ids::{RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::OVERDUE_GRACE;
use innkeeper_domain::run::{RunEvent, RunState};
use innkeeper_domain::{Timestamp, time};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::ToSql;
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

    /// The tasks that it changes.
    pub fn tasks(&self) -> impl Iterator<Item = Uuid> {
        self.tasks.keys().copied()
    }

    /// The last writes of a transaction: many others change the same rows. Returns the tasks that triggers may come
    /// after.
    pub async fn write(&self, c: &impl GenericClient) -> Result<BTreeSet<Uuid>, StoreError> {
        let mut followed = BTreeSet::new();
        if !self.tasks.is_empty() {
            let (ids, counts): (Vec<&Uuid>, Vec<&i64>) = self.tasks.iter().unzip();
            let over = rows(
                c,
                "WITH locked AS MATERIALIZED (
                     SELECT t.id, e.count FROM task t JOIN unnest($1::uuid[], $2::bigint[]) AS e (id, count)
                         ON t.id = e.id ORDER BY t.id FOR NO KEY UPDATE OF t)
                 UPDATE task t SET unfinished = t.unfinished - l.count FROM locked l WHERE t.id = l.id
                 RETURNING t.id, t.followed <> 0",
                &[&ids, &counts],
            )
            .await?;
            for task in &over {
                if task.try_get(1)? {
                    followed.insert(task.try_get(0)?);
                }
            }
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
        self.write_backfills(c).await?;
        Ok(followed)
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

/// Cancels those of these runs of the tenant that aren't over: those that execute are told to end, and by when they
/// must. Says which of them had not begun, and which execute.
pub(super) async fn cancel(
    shared: &Shared,
    c: &impl GenericClient,
    tenant: TenantId,
    ids: &[RunId],
    now: Timestamp,
) -> Result<(Vec<RunId>, Vec<RunId>), StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let lock = "SELECT id, state, task_id, revision FROM run
        WHERE id = ANY($1) AND tenant_id = $2 AND state IN ('queued', 'waiting', 'running')
        ORDER BY id FOR NO KEY UPDATE";
    let (mut unbegun, mut running, mut by) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows(c, lock, &[&ids, &tenant.0]).await? {
        let id: Uuid = row.try_get(0)?;
        if row.try_get::<_, Word<RunState>>(1)?.0 == RunState::Running {
            let spec = shared.spec(c, TaskId(row.try_get(2)?), row.try_get::<_, Small>(3)?.0).await?;
            running.push(id);
            by.push(At(time::after(now, spec.cancel_grace + OVERDUE_GRACE)));
        } else {
            unbegun.push(id);
        }
    }
    let ended = match unbegun.is_empty() {
        true => Vec::new(),
        false => cancel_unbegun_of(shared, c, OF_RUNS, &unbegun, now).await?,
    };
    if !running.is_empty() {
        let tell = "UPDATE run r SET cancel_requested = TRUE, cancel_by = coalesce(r.cancel_by, e.cancel_by)
            FROM unnest($1::uuid[], $2::bigint[]) AS e (id, cancel_by) WHERE r.id = e.id";
        execute(c, tell, &[&running, &by]).await?;
    }
    Ok((ended, running.into_iter().map(RunId).collect()))
}

/// Whose runs are to be cancelled, as a condition.
const OF_RUNS: &str = "id = ANY($1)";
pub(super) const OF_TASK: &str = "task_id = $1";
/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_TRIGGER: &str =
    "trigger_id = $1 AND task_id = (SELECT task_id FROM trigger WHERE id = $1)";

/// Its own, without those of its backfills.
const OWN: &str =
    "trigger_id = $1 AND backfill_id IS NULL AND task_id = (SELECT task_id FROM trigger WHERE id = $1)";
/// By its task's, so that `run_unbegun` serves it.
pub(super) const OF_BACKFILL: &str = "backfill_id = $1 AND task_id = (
    SELECT g.task_id FROM backfill b JOIN trigger g ON g.id = b.trigger_id WHERE b.id = $1)";

/// Cancels a trigger's own unfinished runs: those that have not begun at once, those that execute are asked to end. Its
/// task's row is locked, so that no other of its runs changes between the two.
pub(super) async fn cancel_own(
    shared: &Shared,
    c: &impl GenericClient,
    trigger: TriggerId,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    let mut cancelled = cancel_unbegun(shared, c, OWN, trigger.0, now).await?;
    let list = "SELECT id, tenant_id FROM (SELECT id, tenant_id, trigger_id, backfill_id FROM run
            WHERE state = 'running' OFFSET 0) r WHERE r.trigger_id = $1 AND r.backfill_id IS NULL";
    let (mut executing, mut of) = (Vec::new(), None);
    for row in rows(c, list, &[&trigger.0]).await? {
        executing.push(RunId(row.try_get(0)?));
        of = Some(TenantId(row.try_get(1)?));
    }
    if let Some(tenant) = of {
        // One that was handed back meanwhile ends at once.
        let (ended, told) = cancel(shared, c, tenant, &executing, now).await?;
        cancelled.extend(ended.into_iter().chain(told));
    }
    Ok(cancelled)
}

/// Cancels the runs that have not begun of what has this id; `whose` is one of the conditions above.
pub(super) async fn cancel_unbegun(
    shared: &Shared,
    c: &impl GenericClient,
    whose: &'static str,
    id: Uuid,
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    cancel_unbegun_of(shared, c, whose, &id, now).await
}

/// [`cancel_unbegun`] of what the condition makes of a value.
async fn cancel_unbegun_of(
    shared: &Shared,
    c: &impl GenericClient,
    whose: &'static str,
    value: &(dyn ToSql + Sync),
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
             octet_length(r.input)::bigint, r.backfill_id,
             (SELECT watched FROM tenant WHERE id = r.tenant_id), r.gates, r.passed, r.hold, r.concurrency_key"
    );
    let found = rows(c, &cancel, &[value, &cancelled.as_str(), &At(now)]).await?;
    let (mut counts, mut bills) = (CountsDown::default(), Bills::default());
    let mut moves = Moves::default();
    let mut runs = Vec::with_capacity(found.len());
    let mut ends = Vec::with_capacity(found.len());
    for row in found {
        let task = TaskId(row.try_get(1)?);
        let whose = Whose { task: task.0, trigger: row.try_get(2)?, backfill: row.try_get(5)? };
        counts.add(whose, cancelled, now);
        let tenant = TenantId(row.try_get(3)?);
        let (before, key) = (read_passage(&row, 7)?, row.try_get::<_, Option<String>>(10)?);
        let of = Gated { tenant, task, trigger: whose.trigger, key: key.as_deref() };
        moves.add(RunId(row.try_get(0)?), &of, (before, before.over()), now, None);
        let bill = BillKey::of(tenant, task, now);
        bills.add(bill, of_runs(1, unsigned(row.try_get(4)?)));
        let (run, watched) = (RunId(row.try_get(0)?), row.try_get::<_, Small>(6)?.0);
        ends.push(End { run, task: task.0, state: cancelled, watched });
        runs.push(run);
    }
    if !moves.changes.is_empty() {
        lock_tasks(c, counts.tasks()).await?;
    }
    // Their events are in the order of their ids.
    ends.sort_by_key(|end: &End| end.run);
    let followed = counts.write(c).await?;
    let mut stored = Stored::default();
    event_deliver::runs_ended(c, &ends, &followed, &mut stored, now).await?;
    moves.write(c).await?;
    usage::write(shared, c, Shard::Others, &bills, &Logs::default()).await?;
    stored.write(shared, c, Shard::Others).await?;
    Ok(runs)
}
