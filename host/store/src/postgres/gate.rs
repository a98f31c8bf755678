//! Gates in PostgreSQL: their numbers, and what becomes of them when their task's limits change. Who changes a gate has
//! its task's row locked.

use super::claim::instant;
use super::row::{At, Json, Small, Word, execute, row, rows, signed, text, unsigned};
use crate::gates::{GateChanges, Gated, only_trigger, regate, task_gates};
use crate::{GateStatus, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{Gate, GateKind, GateTerms, Hold, Passage, TaskGates, WaitsFor};
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::RunState;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::tenant::TenantState;
use innkeeper_domain::time::to_micros;
use tokio_postgres::Row;
use uuid::Uuid;

/// What executes, of every task.
const EXECUTING: &str = "SELECT id, task_id FROM run WHERE state = 'running' OFFSET 0";
/// Runs of a task whose limits change that are gone through together.
const REGATED_TOGETHER: usize = 1_000;
/// And bytes of their input, but for one run.
const REGATED_BYTES: u64 = 4 << 20;

/// The condition of `gate_open`: somebody waits, and there is room as far as slots go.
pub(super) const IS_OPEN: &str = "held > 0 AND (most IS NULL OR taken < most)";

/// Where a run stands, in three columns.
pub(super) fn read_passage(row: &Row, first: usize) -> Result<Passage, StoreError> {
    let bits = |column| Ok::<_, StoreError>(u8::try_from(row.try_get::<_, i16>(column)?).unwrap_or(u8::MAX));
    Ok(Passage::from_stored(bits(first)?, bits(first + 1)?, bits(first + 2)?))
}

pub(super) fn small(bits: u8) -> i16 {
    bits.into()
}

/// Writes the changes of a transaction that has the tasks locked.
pub(super) async fn write(c: &impl GenericClient, changes: &GateChanges) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let (mut owners, mut kinds, mut keys, mut tasks, mut tenants) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut most, mut rates, mut taken, mut held, mut wake_at) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut emptied, mut emptied_kinds, mut emptied_keys) = (vec![], vec![], vec![]);
    for (gate, change) in &changes.0 {
        let key = text(&gate.key);
        if change.may_empty(gate.kind) {
            emptied.push(gate.owner);
            emptied_kinds.push(small(gate.kind.bit()));
            emptied_keys.push(key.clone());
        }
        owners.push(gate.owner);
        kinds.push(small(gate.kind.bit()));
        keys.push(key);
        tasks.push(gate.task);
        tenants.push(change.tenant);
        most.push(change.terms.most.map(Small));
        rates.push(change.terms.rate.map(|rate| rate.to_string()));
        taken.push(change.taken);
        held.push(change.held);
        wake_at.push(to_micros(change.ready_at.unwrap_or(Timestamp::MAX)));
    }
    execute(
        c,
        "INSERT INTO gate AS g (owner, kind, key, task_id, tenant_id, most, rate, taken, held, wake_at)
         SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::uuid[], $5::uuid[], $6::bigint[], $7::text[],
             $8::bigint[], $9::bigint[], $10::bigint[])
         ON CONFLICT (owner, kind, key) DO UPDATE SET taken = g.taken + EXCLUDED.taken, held = g.held + EXCLUDED.held,
             wake_at = least(g.wake_at, EXCLUDED.wake_at)",
        &[&owners, &kinds, &keys, &tasks, &tenants, &most, &rates, &taken, &held, &wake_at],
    )
    .await?;
    if !emptied.is_empty() {
        execute(
            c,
            "DELETE FROM gate g USING unnest($1::uuid[], $2::smallint[], $3::text[]) AS e (owner, kind, key)
             WHERE g.owner = e.owner AND g.kind = e.kind AND g.key = e.key AND g.taken <= 0 AND g.held <= 0",
            &[&emptied, &emptied_kinds, &emptied_keys],
        )
        .await?;
    }
    Ok(())
}

/// Puts runs where they stand now.
pub(super) async fn place(c: &impl GenericClient, runs: &[(RunId, Passage)]) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = runs.iter().map(|(run, _)| run.0).collect();
    let gates: Vec<i16> = runs.iter().map(|(_, passage)| small(passage.gates.bits())).collect();
    let passed: Vec<i16> = runs.iter().map(|(_, passage)| small(passage.passed.bits())).collect();
    let hold: Vec<i16> = runs.iter().map(|(_, passage)| small(passage.hold.number())).collect();
    execute(
        c,
        "UPDATE run r SET gates = e.gates, passed = e.passed, hold = e.hold
         FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::smallint[]) AS e (id, gates, passed, hold)
         WHERE r.id = e.id",
        &[&ids, &gates, &passed, &hold],
    )
    .await?;
    Ok(())
}

/// Locks tasks whose gates change.
pub(super) async fn lock_tasks(
    c: &impl GenericClient,
    tasks: impl IntoIterator<Item = Uuid>,
) -> Result<(), StoreError> {
    let tasks: Vec<Uuid> = tasks.into_iter().collect();
    let lock = "SELECT 1 FROM task WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
    rows(c, lock, &[&tasks]).await?;
    Ok(())
}

/// The limits of a task as they are now.
pub(super) async fn of_task(c: &impl GenericClient, task: TaskId) -> Result<TaskGates, StoreError> {
    let get = "SELECT r.spec, t.paused_at IS NOT NULL FROM task t
        JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision WHERE t.id = $1";
    let found = row(c, get, &[&task.0]).await?;
    let found = found.ok_or_else(|| StoreError::Corrupt(format!("task {task} is missing")))?;
    task_gates(&found.try_get::<_, Json<TaskSpec>>(0)?.0, found.try_get(1)?)
}

/// What a run waits for.
pub(super) async fn waits_for(
    c: &impl GenericClient,
    run: RunId,
    hold: Hold,
) -> Result<Option<WaitsFor>, StoreError> {
    let kind = match hold {
        Hold::Free => return Ok(None),
        Hold::ByHand => return Ok(Some(WaitsFor::Hand)),
        Hold::At(kind) => kind,
    };
    let get = "SELECT g.most, g.rate, g.on_time_at, g.taken, g.held FROM run r JOIN gate g ON g.kind = r.hold
            AND g.owner = CASE r.hold WHEN 1 THEN r.trigger_id ELSE r.task_id END
            AND g.key = CASE r.hold WHEN 2 THEN r.concurrency_key ELSE '' END WHERE r.id = $1";
    match row(c, get, &[&run.0]).await? {
        Some(found) => Ok(Some(WaitsFor::Gate(kind, read_gate(&found, 0)?))),
        None => Ok(None),
    }
}

/// Limits, instants and numbers from five columns in a row.
pub(super) fn read_gate(row: &Row, first: usize) -> Result<Gate, StoreError> {
    Ok(Gate {
        terms: GateTerms {
            most: row.try_get::<_, Option<Small>>(first)?.map(|most| most.0),
            rate: row.try_get::<_, Option<Word<_>>>(first + 1)?.map(|rate| rate.0),
        },
        on_time_at: row.try_get::<_, Option<At>>(first + 2)?.map(|at| at.0),
        taken: unsigned(row.try_get(first + 3)?),
        held: unsigned(row.try_get(first + 4)?),
    })
}

pub(super) fn read_kind(row: &Row, column: usize) -> Result<GateKind, StoreError> {
    let number = row.try_get::<_, i16>(column)?;
    let kind = GateKind::ALL.iter().copied().find(|kind| small(kind.bit()) == number);
    kind.ok_or_else(|| StoreError::Corrupt(format!("{number} is no kind of gate")))
}

/// The tenant's gates.
pub(super) async fn list(
    c: &impl GenericClient,
    tenant: TenantId,
    limit: usize,
) -> Result<Vec<GateStatus>, StoreError> {
    let list =
        "SELECT most, rate, on_time_at, taken, held, kind, task_id, owner, key FROM gate WHERE tenant_id = $1
        ORDER BY owner, kind, key COLLATE \"C\" LIMIT $2";
    let found = rows(c, list, &[&tenant.0, &signed(limit as u64)]).await?;
    let read = |row: &Row| {
        Ok(GateStatus {
            kind: read_kind(row, 5)?,
            task: TaskId(row.try_get(6)?),
            owner: row.try_get(7)?,
            key: row.try_get(8)?,
            gate: read_gate(row, 0)?,
        })
    };
    found.iter().map(read).collect()
}

/// The task's limits have changed, and its row is locked: what executes of it counts, and what doesn't queues anew, by
/// its limits of now.
pub(super) async fn regate_task(
    c: &impl GenericClient,
    tenant: TenantId,
    task: TaskId,
) -> Result<(), StoreError> {
    let gates = of_task(c, task).await?;
    let own = Gated { tenant, task, trigger: None, key: None };
    let rate = "SELECT on_time_at FROM gate WHERE owner = $1 AND kind = $2";
    let of_task = small(GateKind::Task.bit());
    let on_time_at = match row(c, rate, &[&task.0, &of_task]).await? {
        Some(found) => found.try_get::<_, Option<At>>(0)?,
        None => None,
    };
    execute(c, "DELETE FROM gate WHERE owner = $1", &[&task.0]).await?;
    let mut changes = GateChanges::default();
    if let Some(terms) = gates.terms(GateKind::Task) {
        changes.entry(&own, GateKind::Task, terms);
    }
    let input = if gates.has_keys() { "input" } else { "''::bytea" };
    let select = format!(
        "SELECT id, state, gates, passed, hold, concurrency_key, available_at, trigger_id, input_type, {input} FROM run
         WHERE id = ANY($1) AND state IN ('queued', 'waiting', 'running') ORDER BY id FOR NO KEY UPDATE"
    );
    for part in unfinished(c, task, gates.has_keys()).await? {
        let (mut placed, mut keyed, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for found in rows(c, &select, &[&part]).await? {
            let id = RunId(found.try_get(0)?);
            let executes = found.try_get::<_, Word<RunState>>(1)?.0 == RunState::Running;
            let before = read_passage(&found, 2)?;
            let was = found.try_get::<_, Option<String>>(5)?;
            let key = gates.key(&Payload { content_type: found.try_get(8)?, bytes: found.try_get(9)? });
            let after = regate(&gates, before, key.as_deref(), executes);
            if key != was {
                keyed.push(id.0);
                keys.push(key.clone());
            }
            if after != before {
                placed.push((id, after));
            }
            let of = Gated { tenant, task, trigger: found.try_get(7)?, key: key.as_deref() };
            changes.add(&of, (only_trigger(after), after), found.try_get::<_, At>(6)?.0, Some(&gates));
        }
        if !keyed.is_empty() {
            let set =
                "UPDATE run r SET concurrency_key = e.key FROM unnest($1::uuid[], $2::text[]) AS e (id, key)
                WHERE r.id = e.id";
            execute(c, set, &[&keyed, &keys]).await?;
        }
        place(c, &placed).await?;
    }
    write(c, &changes).await?;
    let keep = "UPDATE gate SET on_time_at = $3 WHERE owner = $1 AND kind = $2 AND rate IS NOT NULL";
    execute(c, keep, &[&task.0, &of_task, &on_time_at]).await?;
    Ok(())
}

/// The runs of a task that aren't over, in parts that are gone through together: no more than so many, and so many bytes
/// of input. While the task is locked there come no others; in one statement, for they may begin and be handed back.
async fn unfinished(
    c: &impl GenericClient,
    task: TaskId,
    with_input: bool,
) -> Result<Vec<Vec<Uuid>>, StoreError> {
    let bytes = if with_input { "octet_length(input)::bigint" } else { "0::bigint" };
    // What executes is looked for by that: a task's history may be long.
    let list = format!(
        "SELECT id, {bytes} FROM run WHERE id IN (
             SELECT id FROM run WHERE task_id = $1 AND state IN ('queued', 'waiting')
             UNION ALL SELECT id FROM ({EXECUTING}) r WHERE r.task_id = $1) ORDER BY id"
    );
    let mut parts: Vec<Vec<Uuid>> = Vec::new();
    let mut of_part = 0;
    for found in rows(c, &list, &[&task.0]).await? {
        let bytes = unsigned(found.try_get(1)?);
        match parts.last_mut() {
            Some(part) if part.len() < REGATED_TOGETHER && of_part + bytes <= REGATED_BYTES => {
                part.push(found.try_get(0)?);
            }
            _ => {
                parts.push(vec![found.try_get(0)?]);
                of_part = 0;
            }
        }
        of_part += bytes;
    }
    Ok(parts)
}

/// Locks what executes of the tenant's task, before that is locked to be given other limits: what ends has its run locked
/// first, and then its task.
pub(super) async fn lock_executing(
    c: &impl GenericClient,
    tenant: TenantId,
    task: &Name,
) -> Result<(), StoreError> {
    let lock = format!(
        "SELECT 1 FROM run WHERE state = 'running' AND id IN (SELECT r.id FROM ({EXECUTING}) r JOIN task t ON t.id = r.task_id
             WHERE t.tenant_id = $1 AND t.name = $2 AND t.deleted_at IS NULL) ORDER BY id FOR NO KEY UPDATE"
    );
    rows(c, &lock, &[&tenant.0, &task.as_str()]).await?;
    Ok(())
}

/// When, after this instant, a gate may open by itself.
pub(super) async fn next_open(
    c: &impl GenericClient,
    after: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let next = format!(
        "{} SELECT min(f.wake_at) FROM open o JOIN tenant n ON n.id = o.id AND n.state = $2 AND n.paused_at IS NULL
                 AND n.deleted_at IS NULL,
             LATERAL (SELECT wake_at FROM gate WHERE {IS_OPEN} AND tenant_id = o.id AND wake_at > $1
                 ORDER BY wake_at LIMIT 1) f",
        open_tenants()
    );
    instant(row(c, &next, &[&At(after), &TenantState::Active.as_str()]).await?)
}

/// The tenants of which a gate is open, by skips in the index from one to the next.
pub(super) fn open_tenants() -> String {
    format!(
        "WITH RECURSIVE open (id) AS (
             (SELECT tenant_id FROM gate WHERE {IS_OPEN} ORDER BY tenant_id LIMIT 1)
         UNION ALL
             SELECT (SELECT tenant_id FROM gate WHERE {IS_OPEN} AND tenant_id > o.id ORDER BY tenant_id LIMIT 1)
             FROM open o WHERE o.id IS NOT NULL)"
    )
}

/// The gates' changes when runs go on; their tasks are to be locked.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub changes: GateChanges,
    pub placed: Vec<(RunId, Passage)>,
}

impl Moves {
    pub fn add(
        &mut self,
        run: RunId,
        of: &Gated,
        (before, after): (Passage, Passage),
        available_at: Timestamp,
        gates: Option<&TaskGates>,
    ) {
        if before != after {
            self.placed.push((run, after));
            self.changes.add(of, (before, after), available_at, gates);
        }
    }

    pub fn tasks(&self) -> impl Iterator<Item = Uuid> {
        self.changes.0.keys().map(|gate| gate.task)
    }

    pub async fn write(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        place(c, &self.placed).await?;
        write(c, &self.changes).await
    }
}
