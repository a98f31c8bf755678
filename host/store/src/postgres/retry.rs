//! Runs that are tried again by hand, in PostgreSQL.

use super::gate;
use super::row::{At, Parameters, Small, Word, execute, row, rows, unsigned};
use super::start::count_up;
use super::{Shard, Shared, quota};
use crate::gates::{GateChanges, Gated, WaitsForOwn, begin};
use crate::reopen::{Over, Reopened, in_order, may_reopen};
use crate::{OnRevision, Retried, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{GateKind, GateSet, Passage};
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::RunState;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// A run and what it belongs to; all of it is locked.
struct Found {
    run: Over,
    task: TaskId,
    trigger: Option<Uuid>,
    backfill: Option<Uuid>,
}

/// A task that isn't deleted, with the count that the transaction has reached.
struct Target {
    revision: u32,
    unfinished: u64,
}

/// Queues runs again that are over.
pub(super) async fn retry(
    shared: &Shared,
    c: &impl GenericClient,
    tenant: TenantId,
    ids: Vec<RunId>,
    on: OnRevision,
    now: Timestamp,
) -> Result<Retried, StoreError> {
    let ids = in_order(ids);
    let mut found = lock(c, tenant, &ids).await?;
    let mut targets = lock_targets(c, &found).await?;
    let mut accounts = quota::accounts(c, &[tenant.0], now).await?;
    let Some(account) = accounts.get_mut(&tenant) else { return Ok(Retried::none_of(&ids)) };
    let (mut retried, mut writes) = (Retried::default(), Writes::default());
    for id in ids {
        let one = found.remove(&id).and_then(|one| Some((targets.get_mut(&one.task)?, one)));
        let Some((target, one)) = one else {
            retried.left_out += 1;
            continue;
        };
        let revision = one.run.revision(on, target.revision);
        let spec = match on {
            OnRevision::Pinned => None,
            OnRevision::Current => Some(shared.spec(c, one.task, revision).await?),
        };
        let spec = spec.as_deref().map(|spec| (revision, spec));
        let Some(reopened) = one.run.reopen(spec, now) else {
            retried.left_out += 1;
            continue;
        };
        if let Err(rejection) = may_reopen(account, target.unfinished, now) {
            retried.refused = Some(rejection);
            break;
        }
        target.unfinished += 1;
        writes.push(reopened, one.task, one.trigger, one.backfill);
        retried.reopened.push(id);
    }
    writes.write(c, now).await?;
    place(c, tenant, &retried.reopened, now).await?;
    quota::write(shared, c, Shard::Starts, &accounts).await?;
    Ok(retried)
}

/// The tenant's runs among these, locked.
async fn lock(
    c: &impl GenericClient,
    tenant: TenantId,
    ids: &[RunId],
) -> Result<HashMap<RunId, Found>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let lock = "SELECT id, state, revision, requires,
            greatest(nominal_at, created_at, coalesce(reopened_at, created_at)), start_by, end_by, task_id, trigger_id,
            backfill_id
        FROM run WHERE id = ANY($1) AND tenant_id = $2 ORDER BY id FOR NO KEY UPDATE";
    let mut found = HashMap::with_capacity(ids.len());
    for row in rows(c, lock, &[&ids, &tenant.0]).await? {
        let at = |column: usize| row.try_get::<_, Option<At>>(column).map(|at| at.map(|at| at.0));
        let run = Over {
            id: RunId(row.try_get(0)?),
            state: row.try_get::<_, Word<_>>(1)?.0,
            revision: row.try_get::<_, Small>(2)?.0,
            requires: row.try_get(3)?,
            due: row.try_get::<_, At>(4)?.0,
            start_by: at(5)?,
            end_by: at(6)?,
        };
        let (task, trigger, backfill) = (TaskId(row.try_get(7)?), row.try_get(8)?, row.try_get(9)?);
        found.insert(run.id, Found { run, task, trigger, backfill });
    }
    Ok(found)
}

/// Locks whatever counts these runs, in the order that all do.
async fn lock_targets(
    c: &impl GenericClient,
    found: &HashMap<RunId, Found>,
) -> Result<HashMap<TaskId, Target>, StoreError> {
    let ids = |of: fn(&Found) -> Option<Uuid>| -> Vec<Uuid> {
        found.values().filter_map(of).collect::<BTreeSet<Uuid>>().into_iter().collect()
    };
    let lock = "SELECT id, revision, unfinished FROM task WHERE id = ANY($1) AND deleted_at IS NULL
        ORDER BY id FOR NO KEY UPDATE";
    let mut targets = HashMap::new();
    for row in rows(c, lock, &[&ids(|one| Some(one.task.0))]).await? {
        let target =
            Target { revision: row.try_get::<_, Small>(1)?.0, unfinished: unsigned(row.try_get(2)?) };
        targets.insert(TaskId(row.try_get(0)?), target);
    }
    let lock = "SELECT 1 FROM trigger WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
    row(c, lock, &[&ids(|one| one.trigger.filter(|_| one.backfill.is_none()))]).await?;
    let lock = "SELECT 1 FROM backfill WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
    row(c, lock, &[&ids(|one| one.backfill)]).await?;
    Ok(targets)
}

/// Lets the runs wait at their gates as new ones do, by their tasks' limits of now; the tasks are locked.
async fn place(
    c: &impl GenericClient,
    tenant: TenantId,
    runs: &[RunId],
    now: Timestamp,
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
    let get = "SELECT id, task_id, trigger_id, gates FROM run WHERE id = ANY($1) ORDER BY id";
    let mut by_task = HashMap::new();
    let (mut changes, mut placed) = (GateChanges::default(), Vec::new());
    let (mut keyed, mut keys) = (Vec::new(), Vec::new());
    for row in rows(c, get, &[&ids]).await? {
        let (id, task) = (RunId(row.try_get(0)?), TaskId(row.try_get(1)?));
        let gates = match by_task.entry(task) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(gate::of_task(c, task).await?),
        };
        let had = GateSet::from_bits(u8::try_from(row.try_get::<_, i16>(3)?).unwrap_or_default());
        // One after another: all of them could be many bytes.
        let input = if gates.has_keys() { input_of(c, id).await? } else { Payload::default() };
        let waits_for_own = if had.has(GateKind::Trigger) { WaitsForOwn::Yes } else { WaitsForOwn::No };
        let (passage, key) = begin(gates, &input, waits_for_own);
        if passage.is_free() && had.is_empty() {
            continue;
        }
        let of = Gated { tenant, task, trigger: row.try_get(2)?, key: key.as_deref() };
        changes.add(&of, (Passage::default(), passage), now, Some(&*gates));
        placed.push((id, passage));
        keyed.push(id.0);
        keys.push(key);
    }
    if placed.is_empty() {
        return Ok(());
    }
    let key = "UPDATE run r SET concurrency_key = e.key FROM unnest($1::uuid[], $2::text[]) AS e (id, key)
        WHERE r.id = e.id";
    execute(c, key, &[&keyed, &keys]).await?;
    gate::place(c, &placed).await?;
    gate::write(c, &changes).await
}

async fn input_of(c: &impl GenericClient, run: RunId) -> Result<Payload, StoreError> {
    let found = row(c, "SELECT input_type, input FROM run WHERE id = $1", &[&run.0]).await?;
    let found = found.ok_or_else(|| StoreError::Corrupt(format!("run {run} is missing")))?;
    Ok(Payload { content_type: found.try_get(0)?, bytes: found.try_get(1)? })
}

/// Changes of rows, a column each.
#[derive(Default)]
struct Writes {
    ids: Vec<Uuid>,
    states: Vec<&'static str>,
    revisions: Vec<Small>,
    requires: Vec<String>,
    start_by: Vec<Option<At>>,
    end_by: Vec<Option<At>>,
    tasks: BTreeMap<Uuid, i64>,
    triggers: BTreeMap<Uuid, i64>,
    /// How many failed, and how many were cancelled.
    backfills: BTreeMap<Uuid, (i64, i64)>,
}

impl Writes {
    fn push(&mut self, run: Reopened, task: TaskId, trigger: Option<Uuid>, backfill: Option<Uuid>) {
        self.ids.push(run.id.0);
        self.states.push(run.state.as_str());
        self.revisions.push(Small(run.revision));
        self.requires.push(run.requires);
        self.start_by.push(run.start_by.map(At));
        self.end_by.push(run.end_by.map(At));
        *self.tasks.entry(task.0).or_default() += 1;
        if let Some(backfill) = backfill {
            let (failed, cancelled) = self.backfills.entry(backfill).or_default();
            *(if run.was == RunState::Failed { failed } else { cancelled }) += 1;
        } else if let Some(trigger) = trigger {
            *self.triggers.entry(trigger).or_default() += 1;
        }
    }

    /// The counts are the reverse of `cancel::CountsDown`.
    async fn write(&self, c: &impl GenericClient, now: Timestamp) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let reopen = "UPDATE run r SET state = e.state, revision = e.revision, requires = e.requires,
                 start_by = e.start_by, end_by = e.end_by, available_at = $7, reopened_at = $7, started_at = NULL,
                 finished_at = NULL, host_id = NULL, cancel_requested = FALSE, cancel_by = NULL, progress = NULL,
                 failure_kind = NULL, failure_code = NULL, failure_message = NULL, interruptions = r.attempt,
                 losses = 0
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[])
                 AS e (id, state, revision, requires, start_by, end_by)
             WHERE r.id = e.id";
        let values: Parameters<'_> = &[
            &self.ids,
            &self.states,
            &self.revisions,
            &self.requires,
            &self.start_by,
            &self.end_by,
            &At(now),
        ];
        execute(c, reopen, values).await?;
        count_up(c, &self.tasks).await?;
        let (ids, counts): (Vec<&Uuid>, Vec<&i64>) = self.triggers.iter().unzip();
        let up = "UPDATE trigger g SET unfinished = g.unfinished + e.count
             FROM unnest($1::uuid[], $2::bigint[]) AS e (id, count) WHERE g.id = e.id";
        execute(c, up, &[&ids, &counts]).await?;
        let ids: Vec<&Uuid> = self.backfills.keys().collect();
        let (failed, cancelled): (Vec<i64>, Vec<i64>) = self.backfills.values().copied().unzip();
        let up = "UPDATE backfill b SET unfinished = b.unfinished + e.failed + e.cancelled,
                 failed = b.failed - e.failed, cancelled = b.cancelled - e.cancelled
             FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS e (id, failed, cancelled) WHERE b.id = e.id";
        execute(c, up, &[&ids, &failed, &cancelled]).await?;
        Ok(())
    }
}
