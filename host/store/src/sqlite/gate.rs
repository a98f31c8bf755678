//! Gates in SQLite: their numbers, and what becomes of them when their task's limits change.

use super::row::{At, Id, Json, Word, signed, unsigned};
use crate::gates::{GateChanges, GateKey, Gated, only_trigger, regate, task_gates};
use crate::{GateStatus, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{Gate, GateKind, GateTerms, Hold, Passage, TaskGates, WaitsFor};
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::RunState;
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::time::from_micros;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The condition of `gate_open`: somebody waits, and there is room as far as slots go.
pub(super) const IS_OPEN: &str = "held > 0 AND (most IS NULL OR taken < most)";

/// Writes the changes of a transaction.
pub(super) fn write(c: &Connection, changes: &GateChanges) -> Result<(), StoreError> {
    for (gate, change) in &changes.0 {
        let wake_at = change.ready_at.unwrap_or(Timestamp::MAX);
        c.prepare_cached(
            "INSERT INTO gate (owner, kind, key, task_id, tenant_id, most, rate, taken, held, wake_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT DO UPDATE SET taken = taken + excluded.taken, held = held + excluded.held,
                 wake_at = min(wake_at, excluded.wake_at)",
        )?
        .execute(params![
            Id(gate.owner),
            gate.kind.bit(),
            gate.key,
            Id(gate.task),
            Id(change.tenant),
            change.terms.most,
            change.terms.rate.map(|rate| rate.to_string()),
            change.taken,
            change.held,
            At(wake_at),
        ])?;
        if change.may_empty(gate.kind) {
            c.prepare_cached(
                "DELETE FROM gate WHERE owner = ?1 AND kind = ?2 AND key = ?3 AND taken <= 0 AND held <= 0",
            )?
            .execute(params![Id(gate.owner), gate.kind.bit(), gate.key])?;
        }
    }
    Ok(())
}

/// Puts a run where it stands now.
pub(super) fn place(c: &Connection, run: RunId, passage: Passage) -> Result<(), StoreError> {
    c.prepare_cached("UPDATE run SET gates = ?2, passed = ?3, hold = ?4 WHERE id = ?1")?.execute(params![
        Id(run.0),
        passage.gates.bits(),
        passage.passed.bits(),
        passage.hold.number()
    ])?;
    Ok(())
}

/// A run goes from where it stood to where it stands, and its gates know it.
pub(super) fn go(
    c: &Connection,
    run: RunId,
    (before, after): (Passage, Passage),
    available_at: Timestamp,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    place(c, run, after)?;
    let mut whose =
        c.prepare_cached("SELECT tenant_id, task_id, trigger_id, concurrency_key FROM run WHERE id = ?1")?;
    let (tenant, task, trigger, key) = whose.query_row([Id(run.0)], |row| {
        let trigger = row.get::<_, Option<Id>>(2)?.map(|id| id.0);
        Ok((
            TenantId(row.get::<_, Id>(0)?.0),
            TaskId(row.get::<_, Id>(1)?.0),
            trigger,
            row.get::<_, Option<String>>(3)?,
        ))
    })?;
    let mut changes = GateChanges::default();
    let gates = match after.hold {
        // Its gate may have gone while it was paused.
        Hold::At(_) if before.hold == Hold::ByHand => Some(of_task(c, task)?),
        _ => None,
    };
    let of = Gated { tenant, task, trigger, key: key.as_deref() };
    changes.add(&of, (before, after), available_at, gates.as_ref());
    write(c, &changes)
}

/// Where a run stands, from three columns in a row.
pub(super) fn read_passage(row: &Row, first: usize) -> rusqlite::Result<Passage> {
    Ok(Passage::from_stored(row.get(first)?, row.get(first + 1)?, row.get(first + 2)?))
}

/// The limits of a task as they are now.
pub(super) fn of_task(c: &Connection, task: TaskId) -> Result<TaskGates, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT r.spec, t.paused_at IS NOT NULL FROM task t
             JOIN task_revision r ON r.task_id = t.id AND r.number = t.revision WHERE t.id = ?1",
    )?;
    let (spec, paused) =
        get.query_row([Id(task.0)], |row| Ok((row.get::<_, Json<TaskSpec>>(0)?.0, row.get(1)?)))?;
    task_gates(&spec, paused)
}

/// What a run waits for.
pub(super) fn waits_for(c: &Connection, run: RunId, hold: Hold) -> Result<Option<WaitsFor>, StoreError> {
    let kind = match hold {
        Hold::Free => return Ok(None),
        Hold::ByHand => return Ok(Some(WaitsFor::Hand)),
        Hold::At(kind) => kind,
    };
    let mut whose = c.prepare_cached(
        "SELECT g.most, g.rate, g.on_time_at, g.taken, g.held FROM run r JOIN gate g ON g.kind = r.hold
             AND g.owner = iif(r.hold = 1, r.trigger_id, r.task_id)
             AND g.key = iif(r.hold = 2, r.concurrency_key, '') WHERE r.id = ?1",
    )?;
    let gate = whose.query_row([Id(run.0)], |row| read_gate(row, 0)).optional()?;
    Ok(gate.map(|gate| WaitsFor::Gate(kind, gate)))
}

/// Limits, instants and numbers from five columns in a row.
pub(super) fn read_gate(row: &Row, first: usize) -> rusqlite::Result<Gate> {
    Ok(Gate {
        terms: GateTerms {
            most: row.get(first)?,
            rate: row.get::<_, Option<Word<_>>>(first + 1)?.map(|rate| rate.0),
        },
        on_time_at: row.get::<_, Option<At>>(first + 2)?.map(|at| at.0),
        taken: unsigned(row.get(first + 3)?),
        held: unsigned(row.get(first + 4)?),
    })
}

pub(super) fn read_kind(row: &Row, column: usize) -> rusqlite::Result<GateKind> {
    let number: u8 = row.get(column)?;
    let kind = GateKind::ALL.iter().copied().find(|kind| kind.bit() == number);
    kind.ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number.into()))
}

/// The tenant's gates.
pub(super) fn list(c: &Connection, tenant: TenantId, limit: usize) -> Result<Vec<GateStatus>, StoreError> {
    let mut list = c.prepare_cached(
        "SELECT most, rate, on_time_at, taken, held, kind, task_id, owner, key FROM gate WHERE tenant_id = ?1
         ORDER BY owner, kind, key LIMIT ?2",
    )?;
    let rows = list.query_map(params![Id(tenant.0), signed(limit as u64)], |row| {
        Ok(GateStatus {
            kind: read_kind(row, 5)?,
            task: TaskId(row.get::<_, Id>(6)?.0),
            owner: row.get::<_, Id>(7)?.0,
            key: row.get(8)?,
            gate: read_gate(row, 0)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An unfinished run of a task whose limits change.
struct Unfinished {
    id: RunId,
    executes: bool,
    passage: Passage,
    key: Option<String>,
    available_at: Timestamp,
    trigger: Option<uuid::Uuid>,
    input: Payload,
}

/// The task's limits have changed: what executes of it counts, and what doesn't queues anew, by its limits of now.
pub(super) fn regate_task(c: &Connection, tenant: TenantId, task: TaskId) -> Result<(), StoreError> {
    let gates = of_task(c, task)?;
    let own = Gated { tenant, task, trigger: None, key: None };
    let GateKey { owner, .. } = own.gate(GateKind::Task);
    let mut rate = c.prepare_cached("SELECT on_time_at FROM gate WHERE owner = ?1 AND kind = ?2")?;
    let on_time_at = rate
        .query_row(params![Id(owner), GateKind::Task.bit()], |row| row.get::<_, Option<At>>(0))
        .optional()?
        .flatten();
    c.prepare_cached("DELETE FROM gate WHERE owner = ?1")?.execute([Id(owner)])?;
    let mut changes = GateChanges::default();
    if let Some(terms) = gates.terms(GateKind::Task) {
        changes.entry(&own, GateKind::Task, terms);
    }
    let input = if gates.has_keys() { "input" } else { "x''" };
    let select = format!(
        "SELECT id, state, gates, passed, hold, concurrency_key, available_at, trigger_id, input_type, {input} FROM run"
    );
    for which in [
        "WHERE task_id = ?1 AND state IN ('queued', 'waiting')",
        // By what executes: a task's history may be long.
        "WHERE +task_id = ?1 AND state = 'running'",
    ] {
        let mut list = c.prepare_cached(&format!("{select} {which}"))?;
        let mut rows = list.query([Id(task.0)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let run = Unfinished {
                id: RunId(row.get::<_, Id>(0)?.0),
                executes: row.get::<_, Word<RunState>>(1)?.0 == RunState::Running,
                passage: read_passage(row, 2)?,
                key: row.get(5)?,
                available_at: row.get::<_, At>(6)?.0,
                trigger: row.get::<_, Option<Id>>(7)?.map(|id| id.0),
                input: Payload { content_type: row.get(8)?, bytes: row.get(9)? },
            };
            // Only what it makes of the input is kept.
            let key = gates.key(&run.input);
            found.push((Unfinished { input: Payload::default(), ..run }, key));
        }
        for (run, key) in found {
            let after = regate(&gates, run.passage, key.as_deref(), run.executes);
            if key != run.key {
                c.prepare_cached("UPDATE run SET concurrency_key = ?2 WHERE id = ?1")?
                    .execute(params![Id(run.id.0), key])?;
            }
            if after != run.passage {
                place(c, run.id, after)?;
            }
            let of = Gated { tenant, task, trigger: run.trigger, key: key.as_deref() };
            // Its trigger's gate stays as it is.
            changes.add(&of, (only_trigger(after), after), run.available_at, Some(&gates));
        }
    }
    write(c, &changes)?;
    c.prepare_cached("UPDATE gate SET on_time_at = ?3 WHERE owner = ?1 AND kind = ?2 AND rate IS NOT NULL")?
        .execute(params![Id(owner), GateKind::Task.bit(), on_time_at])?;
    Ok(())
}

/// When, after this instant, a gate may open by itself.
pub(super) fn next_open(
    c: &Connection,
    tenant: TenantId,
    after: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let mut next = c.prepare_cached(&format!(
        "SELECT wake_at FROM gate WHERE {IS_OPEN} AND tenant_id = ?1 AND wake_at > ?2 ORDER BY wake_at LIMIT 1"
    ))?;
    let at = next.query_row(params![Id(tenant.0), At(after)], |row| row.get::<_, i64>(0)).optional()?;
    Ok(at.map(from_micros))
}
