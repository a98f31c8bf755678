//! Starting runs in PostgreSQL.

use super::connection::in_transaction;
use super::row::{At, Small, execute, rows, text, unsigned};
use super::{Shard, Shared, Starts, audit, gate, quota};
use crate::gates::{GateChanges, Gated, WaitsForOwn, begin, task_gates};
use crate::record;
use crate::standing::Account;
use crate::terms::{Pinned, Terms};
use crate::{NewRun, StartError, Started, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::admit::{AdmissionState, Asker, Rejection, SameKey, Verdict, admit};
use innkeeper_domain::gate::{Passage, TaskGates};
use innkeeper_domain::ids::{BackfillId, RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::limits::IDEMPOTENCY_KEY_KEPT;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::{Timestamp, time};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Runs to insert, a column each.
#[derive(Debug, Default)]
pub(super) struct NewRows<'a> {
    ids: Vec<Uuid>,
    tenants: Vec<Uuid>,
    tasks: Vec<Uuid>,
    revisions: Vec<Small>,
    requires: Vec<Cow<'a, str>>,
    triggers: Vec<Option<Uuid>>,
    occurrences: Vec<Option<String>>,
    backfills: Vec<Option<Uuid>>,
    nominal_at: Vec<At>,
    depths: Vec<Small>,
    last_success_nominal: Vec<Option<At>>,
    idempotency_keys: Vec<Option<Cow<'a, str>>>,
    created_at: Vec<At>,
    input_types: Vec<Cow<'a, str>>,
    inputs: Vec<&'a [u8]>,
    start_by: Vec<Option<At>>,
    end_by: Vec<Option<At>>,
    labels: Vec<String>,
    priorities: Vec<i16>,
    gates: Vec<i16>,
    holds: Vec<i16>,
    keys: Vec<Option<String>>,
    changes: GateChanges,
}

/// A run to insert.
pub(super) struct NewRow<'a> {
    pub id: RunId,
    pub tenant: TenantId,
    pub task: TaskId,
    pub revision: u32,
    /// See [`innkeeper_domain::host::Labels`].
    pub requires: Cow<'a, str>,
    pub pinned: Pinned,
    pub trigger: Option<(TriggerId, String)>,
    pub backfill: Option<BackfillId>,
    pub nominal_at: Timestamp,
    /// See [`innkeeper_domain::event::Event::depth`].
    pub depth: u32,
    pub last_success_nominal: Option<Timestamp>,
    pub idempotency_key: Option<&'a str>,
    pub input: &'a Payload,
    pub priority: u8,
    pub passage: Passage,
    pub key: Option<String>,
}

impl<'a> NewRows<'a> {
    /// `gates` are those of its task.
    pub fn push(&mut self, run: NewRow<'a>, gates: &TaskGates, now: Timestamp) {
        let trigger = run.trigger.as_ref().map(|(id, _)| id.0);
        let of = Gated { tenant: run.tenant, task: run.task, trigger, key: run.key.as_deref() };
        self.changes.add(&of, (Passage::default(), run.passage), now, Some(gates));
        self.priorities.push(run.priority.into());
        self.gates.push(gate::small(run.passage.gates.bits()));
        self.holds.push(gate::small(run.passage.hold.number()));
        self.keys.push(run.key);
        self.ids.push(run.id.0);
        self.tenants.push(run.tenant.0);
        self.tasks.push(run.task.0);
        self.revisions.push(Small(run.revision));
        self.requires.push(run.requires);
        let (trigger, occurrence) = run.trigger.unzip();
        self.triggers.push(trigger.map(|id| id.0));
        self.occurrences.push(occurrence);
        self.backfills.push(run.backfill.map(|id| id.0));
        self.nominal_at.push(At(run.nominal_at));
        self.depths.push(Small(run.depth));
        self.last_success_nominal.push(run.last_success_nominal.map(At));
        self.idempotency_keys.push(run.idempotency_key.map(text));
        self.created_at.push(At(now));
        self.input_types.push(text(&run.input.content_type));
        self.inputs.push(&run.input.bytes);
        self.start_by.push(run.pinned.start_by.map(At));
        self.end_by.push(run.pinned.end_by.map(At));
        self.labels.push(run.pinned.labels);
    }

    /// Inserts them as queued, with their gates. The counts of unfinished runs are the caller's to keep.
    pub async fn insert(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        execute(
            c,
            "INSERT INTO run (id, tenant_id, task_id, revision, requires, trigger_id, occurrence, nominal_at,
                 last_success_nominal, idempotency_key, created_at, available_at, input_type, input, backfill_id, state,
                 start_by, end_by, labels, depth, priority, gates, hold, concurrency_key)
             SELECT id, tenant_id, task_id, revision, requires, trigger_id, occurrence, nominal_at,
                 last_success_nominal, idempotency_key, created_at, created_at, input_type, input, backfill_id,
                 'queued', start_by, end_by, labels, depth, priority, gates, hold, concurrency_key
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::uuid[], $7::text[],
                 $8::bigint[], $9::bigint[], $10::text[], $11::bigint[], $12::text[], $13::bytea[],
                 $14::uuid[], $15::bigint[], $16::bigint[], $17::text[], $18::bigint[], $19::smallint[],
                 $20::smallint[], $21::smallint[], $22::text[])
                 AS e (id, tenant_id, task_id, revision, requires, trigger_id, occurrence, nominal_at,
                     last_success_nominal, idempotency_key, created_at, input_type, input, backfill_id, start_by, end_by,
                     labels, depth, priority, gates, hold, concurrency_key)",
            &[
                &self.ids,
                &self.tenants,
                &self.tasks,
                &self.revisions,
                &self.requires,
                &self.triggers,
                &self.occurrences,
                &self.nominal_at,
                &self.last_success_nominal,
                &self.idempotency_keys,
                &self.created_at,
                &self.input_types,
                &self.inputs,
                &self.backfills,
                &self.start_by,
                &self.end_by,
                &self.labels,
                &self.depths,
                &self.priorities,
                &self.gates,
                &self.holds,
                &self.keys,
            ],
        )
        .await?;
        gate::write(c, &self.changes).await
    }
}

/// Adds to the counts of unfinished runs of tasks that the transaction has locked.
pub(super) async fn count_up(c: &impl GenericClient, tasks: &BTreeMap<Uuid, i64>) -> Result<(), StoreError> {
    if tasks.is_empty() {
        return Ok(());
    }
    let (ids, counts): (Vec<&Uuid>, Vec<&i64>) = tasks.iter().unzip();
    execute(
        c,
        "UPDATE task t SET unfinished = t.unfinished + e.count
         FROM unnest($1::uuid[], $2::bigint[]) AS e (id, count) WHERE t.id = e.id",
        &[&ids, &counts],
    )
    .await?;
    Ok(())
}

/// A task that runs are started of, with the count that the transaction has reached.
struct Target {
    id: TaskId,
    revision: u32,
    requires: String,
    terms: Terms,
    unfinished: u64,
    priority: u8,
    paused: bool,
    gates: TaskGates,
}

/// A key that names a run.
struct Key<'a> {
    run: RunId,
    input: Cow<'a, Payload>,
    created_at: Timestamp,
}

type Targets<'a> = HashMap<(TenantId, &'a str), Target>;
type Keys<'a> = HashMap<(TaskId, Cow<'a, str>), Key<'a>>;

/// Starts runs by hand: of all calls in one transaction, in the order given.
pub(super) async fn start_all(
    shared: &Shared,
    calls: &[Starts],
) -> Result<Vec<Result<Vec<Result<Started, StartError>>, StoreError>>, StoreError> {
    let results = in_transaction!(&shared.pool, |c| {
        let targets = targets(shared, c, calls).await?;
        let tenants: BTreeSet<Uuid> = calls.iter().map(|(tenant, ..)| tenant.0).collect();
        let tenants: Vec<Uuid> = tenants.into_iter().collect();
        let now = calls.iter().map(|(.., change)| change.now).max().unwrap_or_default();
        let accounts = quota::accounts(c, &tenants, now).await?;
        let keys = keys(c, calls, &targets).await?;
        let mut starting =
            Starting { accounts, targets, keys, rows: NewRows::default(), expired: Vec::new() };
        let mut results = Vec::with_capacity(calls.len());
        let mut entries = Vec::new();
        for (tenant, starts, change) in calls {
            let started = starts.iter().map(|start| starting.start(*tenant, start, change.now));
            let started = started.collect::<Result<Vec<_>, StoreError>>()?;
            if let Some((object, difference)) = record::starts(starts, &started) {
                let named = starting.accounts.get(tenant).map(|account| (*tenant, account.name.clone()));
                entries.extend(record::entry(change, named, object, difference));
            }
            results.push(started);
        }
        audit::insert_all(c, &entries).await?;
        if !starting.expired.is_empty() {
            let forget = "UPDATE run SET idempotency_key = NULL WHERE id = ANY($1)";
            execute(c, forget, &[&starting.expired]).await?;
        }
        starting.rows.insert(c).await?;
        let mut counts: BTreeMap<Uuid, i64> = BTreeMap::new();
        starting.rows.tasks.iter().for_each(|task| *counts.entry(*task).or_default() += 1);
        count_up(c, &counts).await?;
        quota::write(shared, c, Shard::Starts, &starting.accounts).await?;
        results
    })?;
    shared.wakes.runs_ready();
    Ok(results.into_iter().map(Ok).collect())
}

/// The tasks that are named, locked.
async fn targets<'a>(
    shared: &Shared,
    c: &impl GenericClient,
    calls: &'a [Starts],
) -> Result<Targets<'a>, StoreError> {
    let named =
        calls.iter().flat_map(|(tenant, starts, _)| starts.iter().map(|s| (*tenant, s.task.as_str())));
    let named: std::collections::HashSet<(TenantId, &str)> = named.collect();
    let (tenants, names): (Vec<Uuid>, Vec<&str>) =
        named.iter().map(|(tenant, name)| (tenant.0, name)).unzip();
    let found = rows(
        c,
        "SELECT tenant_id, name, id, revision, unfinished, paused_at IS NOT NULL FROM task
         WHERE (tenant_id, name) IN (SELECT * FROM unnest($1::uuid[], $2::text[])) AND deleted_at IS NULL
         ORDER BY id FOR NO KEY UPDATE",
        &[&tenants, &names],
    )
    .await?;
    let mut targets = HashMap::with_capacity(found.len());
    for row in &found {
        let (id, revision) = (TaskId(row.try_get(2)?), row.try_get::<_, Small>(3)?.0);
        let (spec, paused) = (shared.spec(c, id, revision).await?, row.try_get(5)?);
        let target = Target {
            id,
            revision,
            requires: spec.requires.to_string(),
            terms: Terms::of(&spec),
            unfinished: unsigned(row.try_get(4)?),
            priority: spec.priority,
            paused,
            gates: task_gates(&spec, paused)?,
        };
        let (tenant, name): (_, &str) = (TenantId(row.try_get(0)?), row.try_get(1)?);
        if let Some(key) = named.iter().find(|key| **key == (tenant, name)) {
            targets.insert(*key, target);
        }
    }
    Ok(targets)
}

/// The keys that are named and name runs already.
async fn keys<'a>(
    c: &impl GenericClient,
    calls: &'a [Starts],
    targets: &Targets<'a>,
) -> Result<Keys<'a>, StoreError> {
    let (mut tasks, mut texts) = (Vec::new(), Vec::new());
    for (tenant, starts, _) in calls {
        for start in starts {
            let target = targets.get(&(*tenant, start.task.as_str()));
            if let (Some(target), Some(key)) = (target, &start.idempotency_key) {
                tasks.push(target.id.0);
                texts.push(text(key));
            }
        }
    }
    if tasks.is_empty() {
        return Ok(HashMap::new());
    }
    let found = rows(
        c,
        "SELECT task_id, idempotency_key, id, input_type, input, created_at FROM run
         WHERE (task_id, idempotency_key) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))",
        &[&tasks, &texts],
    )
    .await?;
    let mut keys = HashMap::with_capacity(found.len());
    for row in &found {
        let input = Payload { content_type: row.try_get(3)?, bytes: row.try_get(4)? };
        let key = Key {
            run: RunId(row.try_get(2)?),
            input: Cow::Owned(input),
            created_at: row.try_get::<_, At>(5)?.0,
        };
        keys.insert((TaskId(row.try_get(0)?), Cow::Owned(row.try_get(1)?)), key);
    }
    Ok(keys)
}

/// A transaction that starts runs.
struct Starting<'a> {
    accounts: HashMap<TenantId, Account>,
    targets: Targets<'a>,
    keys: Keys<'a>,
    rows: NewRows<'a>,
    /// Runs that lose their key, which is older than keys are kept.
    expired: Vec<Uuid>,
}

impl<'a> Starting<'a> {
    fn start(
        &mut self,
        tenant: TenantId,
        start: &'a NewRun,
        now: Timestamp,
    ) -> Result<Result<Started, StartError>, StoreError> {
        let target = self.targets.get_mut(&(tenant, start.task.as_str()));
        let (Some(target), Some(account)) = (target, self.accounts.get_mut(&tenant)) else {
            return Ok(Err(StartError::NoTask(start.task.clone())));
        };
        let key = start.idempotency_key.as_deref().map(|key| (target.id, text(key)));
        let mut same_key = None;
        if let Some(known) = key.as_ref().and_then(|key| self.keys.get(key)) {
            if known.created_at >= time::before(now, IDEMPOTENCY_KEY_KEPT) {
                same_key = Some(SameKey { run: known.run, same_input: *known.input == start.input });
            } else {
                self.expired.push(known.run.0);
            }
        }
        let state = AdmissionState {
            unfinished_of_task: target.unfinished,
            unfinished_of_trigger: 0,
            same_key,
            tenant: account.for_hand(&start.input, now),
            task_paused: target.paused,
        };
        match admit(Asker::Hand, state) {
            Verdict::Run | Verdict::Buffer | Verdict::Replace => {}
            Verdict::Existing(id) => return Ok(Ok(Started { id, existed: true })),
            Verdict::Reject(rejection) => {
                if let Rejection::Quota(exceeded) = &rejection {
                    account.refused(exceeded);
                }
                return Ok(Err(rejection.into()));
            }
            Verdict::Skip(reason) => {
                return Err(StoreError::Corrupt(format!("a start by hand was skipped: {reason}")));
            }
        }
        account.started(&start.input, now);
        target.unfinished += 1;
        let (passage, concurrency_key) = begin(&target.gates, &start.input, WaitsForOwn::No);
        let row = NewRow {
            id: start.id,
            tenant,
            task: target.id,
            revision: target.revision,
            requires: Cow::Owned(target.requires.clone()),
            pinned: target.terms.pinned(start.options.deadlines, &start.options.labels, now, now),
            trigger: None,
            backfill: None,
            depth: 0,
            nominal_at: now,
            last_success_nominal: None,
            idempotency_key: start.idempotency_key.as_deref(),
            input: &start.input,
            priority: start.options.priority.unwrap_or(target.priority),
            passage,
            key: concurrency_key,
        };
        self.rows.push(row, &target.gates, now);
        if let Some(key) = key {
            let named = Key { run: start.id, input: Cow::Borrowed(&start.input), created_at: now };
            self.keys.insert(key, named);
        }
        Ok(Ok(Started { id: start.id, existed: false }))
    }
}
