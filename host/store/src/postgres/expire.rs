//! Runs whose time has passed, in PostgreSQL: those that have not begun, and those that their host should have ended.

use super::cancel::{CountsDown, Whose};
use super::connection::{in_transaction, reading};
use super::event_deliver::{self, End};
use super::finish::end_all;
use super::gate::{Moves, lock_tasks, read_passage};
use super::quota::Stored;
use super::row::{At, Small, Word, execute, rows, signed, unsigned};
use super::usage::{self, Logs};
use super::{Shard, Shared};
use crate::StoreError;
use crate::billing::{BillKey, Bills, of_runs};
use crate::ending::{LeaseEnd, Passed};
use crate::gates::Gated;
use deadpool_postgres::GenericClient;
use innkeeper_domain::gate::Passage;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId};
use innkeeper_domain::limits::OVERDUE_GRACE;
use innkeeper_domain::run::{Lease, RunEvent, RunState};
use innkeeper_domain::{Timestamp, time};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// What has not begun by its start deadline, isn't over by its deadline, or, if it executes, some time after that, or
/// should have been ended for a cancel by then.
const PASSED: &str = "
    (SELECT id FROM run WHERE start_by IS NOT NULL AND state = 'queued' AND started_at IS NULL AND start_by < $1
        ORDER BY start_by LIMIT $2)
    UNION (SELECT id FROM run WHERE end_by IS NOT NULL AND state IN ('queued', 'waiting', 'running') AND end_by <= $1
        AND (state <> 'running' OR end_by <= $3) ORDER BY end_by LIMIT $2)
    UNION (SELECT id FROM run WHERE cancel_by IS NOT NULL AND state = 'running' AND cancel_by < $1
        ORDER BY cancel_by LIMIT $2)";

/// A run's row, locked.
struct Found {
    run: RunId,
    tenant: TenantId,
    state: RunState,
    passage: Passage,
    key: Option<String>,
    /// The tenant's.
    watched: u32,
    bill: BillKey,
    input_bytes: u64,
    whose: Whose,
    started: bool,
    start_by: Option<Timestamp>,
    end_by: Option<Timestamp>,
    cancel_by: Option<Timestamp>,
    host: Option<HostId>,
    attempt: u32,
}

/// Ends up to so many of each, and says how many that were.
pub(super) async fn expire(shared: &Shared, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
    // A look costs no transaction, and there is seldom anything to do.
    let mut passed: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    reading!(&shared.pool, |c| {
        let overdue = At(time::before(now, OVERDUE_GRACE));
        for found in rows(c, &passed_sql(), &[&At(now), &signed(limit as u64), &overdue]).await? {
            passed.entry(found.try_get(0)?).or_default().push(found.try_get(1)?);
        }
    })?;
    let (mut ended, mut failed) = (Vec::new(), None);
    for runs in passed.values() {
        // One tenant's trouble is not the others'.
        match expire_some(shared, runs, now).await {
            Ok(runs) => ended.extend(runs),
            Err(error) => failed = Some(error),
        }
    }
    if let (true, Some(error)) = (ended.is_empty(), &failed) {
        return Err(error.clone());
    }
    if let Some(error) = failed {
        tracing::error!(%error, "runs whose time has passed can't be ended; it tries again");
    }
    if !ended.is_empty() {
        shared.wakes.runs_changed(ended.iter().copied());
        shared.wakes.runs_ready();
        shared.wakes.backfills_changed();
    }
    Ok(ended.len() as u64)
}

/// Ends those of these runs of a tenant whose time has passed: first those that have no attempt that executes, for what
/// ends a lease has locks in an order of its own.
async fn expire_some(shared: &Shared, runs: &[Uuid], now: Timestamp) -> Result<Vec<RunId>, StoreError> {
    let (mut ended, leases) = in_transaction!(&shared.pool, |c| {
        let found = lock(c, runs, now).await?;
        let leases: Vec<Lease> = found.iter().filter_map(|one| one.overdue(now)).collect();
        (fail(shared, c, &found, now).await?, leases)
    })?;
    let ends: Vec<_> = leases.into_iter().map(|lease| (lease, LeaseEnd::Overdue, now)).collect();
    if !ends.is_empty() {
        let answers = in_transaction!(&shared.pool, |c| end_all(shared, c, Shard::Others, &ends).await?);
        match answers {
            Ok(answers) => {
                let done = ends.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
                ended.extend(done.map(|((lease, ..), _)| lease.run));
            }
            Err(error) if ended.is_empty() => return Err(error),
            // Those that have ended are to be told of.
            Err(error) => {
                tracing::error!(%error, "attempts whose time has passed can't be ended; it tries again");
            }
        }
    }
    Ok(ended)
}

/// [`PASSED`], and the tenants of those runs.
fn passed_sql() -> String {
    format!("SELECT tenant_id, id FROM run WHERE id IN ({PASSED}) ORDER BY id")
}

/// Those of these that nobody else is changing.
async fn lock(c: &impl GenericClient, runs: &[Uuid], now: Timestamp) -> Result<Vec<Found>, StoreError> {
    let lock = "SELECT id, state, tenant_id, task_id, octet_length(input)::bigint, trigger_id, backfill_id,
            started_at IS NOT NULL, start_by, end_by, cancel_by, host_id, attempt, gates, passed, hold, concurrency_key,
            (SELECT watched FROM tenant WHERE id = tenant_id)
        FROM run WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
    let read = |row: &Row| {
        let at = |column: usize| row.try_get::<_, Option<At>>(column).map(|at| at.map(|at| at.0));
        let (tenant, task) = (TenantId(row.try_get(2)?), TaskId(row.try_get(3)?));
        Ok(Found {
            run: RunId(row.try_get(0)?),
            tenant,
            state: row.try_get::<_, Word<_>>(1)?.0,
            passage: read_passage(row, 13)?,
            key: row.try_get(16)?,
            watched: row.try_get::<_, Small>(17)?.0,
            bill: BillKey::of(tenant, task, now),
            input_bytes: unsigned(row.try_get(4)?),
            whose: Whose { task: task.0, trigger: row.try_get(5)?, backfill: row.try_get(6)? },
            started: row.try_get(7)?,
            start_by: at(8)?,
            end_by: at(9)?,
            cancel_by: at(10)?,
            host: row.try_get::<_, Option<_>>(11)?.map(HostId),
            attempt: row.try_get::<_, Small>(12)?.0,
        })
    };
    rows(c, lock, &[&runs]).await?.iter().map(read).collect()
}

impl Found {
    /// Which deadline it has passed without an attempt that executes; as things are now that it is locked.
    fn passed(&self, now: Timestamp) -> Option<Passed> {
        let start = self.start_by.filter(|by| self.state == RunState::Queued && !self.started && *by < now);
        let is_waiting = matches!(self.state, RunState::Queued | RunState::Waiting);
        let end = self.end_by.filter(|by| is_waiting && *by <= now);
        start.map(Passed::Start).or(end.map(Passed::End))
    }

    /// Its lease, if its host should have ended it.
    fn overdue(&self, now: Timestamp) -> Option<Lease> {
        let ended_by = self.end_by.is_some_and(|by| by <= time::before(now, OVERDUE_GRACE));
        let overdue = ended_by || self.cancel_by.is_some_and(|by| by < now);
        let lease = self.host.map(|host| Lease { run: self.run, host, attempt: self.attempt });
        lease.filter(|_| overdue && self.state == RunState::Running)
    }
}

/// Ends those that have no attempt that executes.
async fn fail(
    shared: &Shared,
    c: &impl GenericClient,
    found: &[Found],
    now: Timestamp,
) -> Result<Vec<RunId>, StoreError> {
    // The same for both: neither has an attempt that executes.
    let failed = RunState::Queued.next(RunEvent::Expired).map_err(|e| StoreError::Conflict(e.to_string()))?;
    let (mut counts, mut bills) = (CountsDown::default(), Bills::default());
    let (mut moves, mut ends) = (Moves::default(), Vec::new());
    let mut runs = Vec::new();
    let (mut kinds, mut codes, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    for one in found {
        let Some(passed) = one.passed(now) else { continue };
        let failure = passed.failure();
        runs.push(one.run.0);
        kinds.push(failure.kind.as_str());
        codes.push(failure.code);
        messages.push(failure.message);
        counts.add(one.whose, failed, now);
        let task = TaskId(one.whose.task);
        let of = Gated { tenant: one.tenant, task, trigger: one.whose.trigger, key: one.key.as_deref() };
        moves.add(one.run, &of, (one.passage, one.passage.over()), now, None);
        ends.push(End { run: one.run, task: task.0, state: failed, watched: one.watched });
        bills.add(one.bill, of_runs(1, one.input_bytes));
    }
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    execute(
        c,
        "UPDATE run r SET state = $5, finished_at = $6, failure_kind = e.kind, failure_code = e.code,
             failure_message = e.message
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS e (id, kind, code, message)
         WHERE r.id = e.id",
        &[&runs, &kinds, &codes, &messages, &failed.as_str(), &At(now)],
    )
    .await?;
    if !moves.changes.is_empty() {
        lock_tasks(c, counts.tasks()).await?;
    }
    let followed = counts.write(c).await?;
    moves.write(c).await?;
    let mut stored = Stored::default();
    event_deliver::runs_ended(c, &ends, &followed, &mut stored, now).await?;
    usage::write(shared, c, Shard::Others, &bills, &Logs::default()).await?;
    stored.write(shared, c, Shard::Others).await?;
    Ok(runs.into_iter().map(RunId).collect())
}
