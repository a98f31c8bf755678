//! Runs that wait at gates are let pass, in SQLite: a step of every claim.

use super::gate::{IS_OPEN, of_task, place, read_gate, read_kind, read_passage, write};
use super::row::{At, Id, signed};
use crate::StoreError;
use crate::gates::{GateChanges, GateKey, Gated};
use innkeeper_domain::Timestamp;
use innkeeper_domain::gate::{Gate, GateKind, Hold, Passage};
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{RunId, TaskId, TenantId};
use innkeeper_domain::limits::{GATE_ROUNDS_MAX, GATES_PER_LOOK, PRIORITY_MAX, UNCLAIMED_LOOK};
use innkeeper_domain::tenant::TenantState;
use innkeeper_domain::time;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{BTreeMap, HashSet};
use uuid::Uuid;

/// Columns of a run that waits.
const HELD: &str = "SELECT id, gates, passed, hold, trigger_id, concurrency_key, available_at FROM run";

/// What a grant has done.
#[derive(Default)]
pub(super) struct Granted {
    /// Whether there may be more that could pass.
    pub is_left: bool,
    /// Runs that have come to their turn by a rate: see [`give_back`].
    rated: Vec<(TenantId, GateKey, Held)>,
}

/// Lets runs pass, up to `room` of each tenant; what is left over has its turn with the next claim.
pub(super) fn grant(c: &Connection, room: usize, now: Timestamp) -> Result<Granted, StoreError> {
    let mut granted = Granted::default();
    for tenant in open_tenants(c)? {
        granted.is_left |= grant_tenant(c, tenant, room, now, &mut granted.rated)?;
    }
    Ok(granted)
}

/// A rate is of attempts that begin: what has come to its turn and wasn't claimed waits again. Else such runs would
/// gather while a host is full, and begin all at once. But for those that the host can't execute: they are in nobody's way.
pub(super) fn give_back(
    c: &Connection,
    granted: Granted,
    labels: &Labels,
    begun: &HashSet<RunId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (mut changes, mut gates) = (GateChanges::default(), BTreeMap::<GateKey, usize>::new());
    for (tenant, key, run) in granted.rated.into_iter().filter(|(_, _, run)| !begun.contains(&run.id)) {
        let mut get = c.prepare_cached("SELECT requires FROM run WHERE id = ?1")?;
        let requires: String = get.query_row([Id(run.id.0)], |row| row.get(0))?;
        if !requires.parse().is_ok_and(|required| labels.offer(&required)) {
            continue;
        }
        let (before, after) = (run.passage.pass(), run.passage.pass().queued());
        place(c, run.id, after)?;
        let of = Gated { tenant, task: TaskId(key.task), trigger: run.trigger, key: run.key.as_deref() };
        changes.add(&of, (before, after), run.available_at, None);
        *gates.entry(key).or_default() += 1;
    }
    write(c, &changes)?;
    for (key, runs) in gates {
        let on_time_at = read(c, &key)?.on_time_without(runs);
        let look_at = time::after(now, UNCLAIMED_LOOK);
        let keep =
            "UPDATE gate SET on_time_at = ?4, wake_at = ?5 WHERE owner = ?1 AND kind = ?2 AND key = ?3";
        let values = params![Id(key.owner), key.kind.bit(), key.key, on_time_at.map(At), At(look_at)];
        c.prepare_cached(keep)?.execute(values)?;
    }
    Ok(())
}

fn read(c: &Connection, key: &GateKey) -> Result<Gate, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT most, rate, on_time_at, taken, held FROM gate WHERE owner = ?1 AND kind = ?2 AND key = ?3",
    )?;
    Ok(get.query_row(params![Id(key.owner), key.kind.bit(), key.key], |row| read_gate(row, 0))?)
}

/// The tenants of which a gate is open.
pub(super) fn open_tenants(c: &Connection) -> Result<Vec<TenantId>, StoreError> {
    let mut next = c.prepare_cached(&format!(
        "SELECT tenant_id FROM gate WHERE {IS_OPEN} AND tenant_id > ?1 ORDER BY tenant_id LIMIT 1"
    ))?;
    let mut active = c.prepare_cached(
        "SELECT 1 FROM tenant WHERE id = ?1 AND state = ?2 AND paused_at IS NULL AND deleted_at IS NULL",
    )?;
    let mut tenants = Vec::new();
    // No tenant has this id.
    let mut last = Uuid::nil();
    while let Some(tenant) = next.query_row([Id(last)], |row| Ok(row.get::<_, Id>(0)?.0)).optional()? {
        if active.exists(params![Id(tenant), TenantState::Active.as_str()])? {
            tenants.push(TenantId(tenant));
        }
        last = tenant;
    }
    Ok(tenants)
}

fn grant_tenant(
    c: &Connection,
    tenant: TenantId,
    room: usize,
    now: Timestamp,
    rated: &mut Vec<(TenantId, GateKey, Held)>,
) -> Result<bool, StoreError> {
    let mut free = 0;
    for _ in 0..GATE_ROUNDS_MAX {
        let mut list = c.prepare_cached(&open_sql())?;
        let rows = list.query_map(params![Id(tenant.0), At(now), signed(GATES_PER_LOOK as u64)], |row| {
            Ok(GateKey {
                task: row.get::<_, Id>(0)?.0,
                kind: read_kind(row, 1)?,
                owner: row.get::<_, Id>(2)?.0,
                key: row.get(3)?,
            })
        })?;
        let open: Vec<GateKey> = rows.collect::<Result<_, _>>()?;
        if open.is_empty() {
            return Ok(false);
        }
        for gate in open {
            if free >= room {
                return Ok(true);
            }
            free += look(c, tenant, &gate, room - free, now, rated)?;
        }
    }
    Ok(true)
}

/// A tenant's gates that are open and worth looking at.
pub(super) fn open_sql() -> String {
    format!(
        "SELECT task_id, kind, owner, key FROM gate WHERE {IS_OPEN} AND tenant_id = ?1 AND wake_at <= ?2
         ORDER BY wake_at, owner, kind, key LIMIT ?3"
    )
}

/// Lets the first runs that wait at a gate pass, and says how many can be claimed now.
fn look(
    c: &Connection,
    tenant: TenantId,
    key: &GateKey,
    wanted: usize,
    now: Timestamp,
    rated: &mut Vec<(TenantId, GateKey, Held)>,
) -> Result<usize, StoreError> {
    let gate = read(c, key)?;
    let room = gate.room(now, wanted);
    let runs = held(c, key, room, now)?;
    let task = TaskId(key.task);
    let mut changes = GateChanges::default();
    let (mut gates, mut free) = (None, 0);
    for run in &runs {
        let after = run.passage.pass();
        place(c, run.id, after)?;
        if after.hold == Hold::Free {
            free += 1;
        } else if gates.is_none() {
            gates = Some(of_task(c, task)?);
        }
        let of = Gated { tenant, task, trigger: run.trigger, key: run.key.as_deref() };
        changes.add(&of, (run.passage, after), run.available_at, gates.as_ref());
    }
    write(c, &changes)?;
    let gate = gate.pass(now, runs.len());
    let next_ready = match runs.len() < room {
        true => next_ready(c, key, now)?.unwrap_or(Timestamp::MAX),
        false => now,
    };
    c.prepare_cached(
        "UPDATE gate SET on_time_at = ?4, wake_at = ?5 WHERE owner = ?1 AND kind = ?2 AND key = ?3",
    )?
    .execute(params![
        Id(key.owner),
        key.kind.bit(),
        key.key,
        gate.on_time_at.map(At),
        At(gate.wake_at(now, next_ready))
    ])?;
    if gate.terms.rate.is_some() {
        rated.extend(runs.into_iter().map(|run| (tenant, key.clone(), run)));
    }
    Ok(free)
}

struct Held {
    id: RunId,
    passage: Passage,
    trigger: Option<Uuid>,
    key: Option<String>,
    available_at: Timestamp,
}

fn read_held(row: &Row) -> rusqlite::Result<Held> {
    Ok(Held {
        id: RunId(row.get::<_, Id>(0)?.0),
        passage: read_passage(row, 1)?,
        trigger: row.get::<_, Option<Id>>(4)?.map(|id| id.0),
        key: row.get(5)?,
        available_at: row.get::<_, At>(6)?.0,
    })
}

/// The runs that wait at a gate, as a condition with which its index serves, with so many parameters: the owner, now, how
/// many, the priority, the key. And in which order; those of a trigger in that of their times, and all ready.
fn waiting(kind: GateKind) -> (&'static str, &'static str, usize) {
    match kind {
        GateKind::Trigger => ("hold = 1 AND trigger_id = ?1", "nominal_at, id", 3),
        GateKind::Key => {
            ("hold = 2 AND task_id = ?1 AND priority = ?4 AND concurrency_key = ?5", "available_at, id", 5)
        }
        GateKind::Task => ("hold = 4 AND task_id = ?1 AND priority = ?4", "available_at, id", 4),
    }
}

/// The first runs that wait at a gate and are ready.
pub(super) fn held_sql(kind: GateKind) -> String {
    let (which, order, _) = waiting(kind);
    format!("{HELD} WHERE {which} AND available_at <= ?2 ORDER BY {order} LIMIT ?3")
}

/// The first runs that wait at a gate and are ready, the highest priority first.
fn held(c: &Connection, gate: &GateKey, most: usize, now: Timestamp) -> Result<Vec<Held>, StoreError> {
    let mut list = c.prepare_cached(&held_sql(gate.kind))?;
    let (.., parameters) = waiting(gate.kind);
    let mut found = Vec::new();
    for priority in priorities(gate.kind) {
        let left = signed((most - found.len()) as u64);
        if left == 0 {
            break;
        }
        let all: [&dyn ToSql; 5] = [&Id(gate.owner), &At(now), &left, &priority, &gate.key];
        for run in list.query_map(&all[..parameters], read_held)? {
            found.push(run?);
        }
    }
    Ok(found)
}

/// When the next one becomes ready that waits at a gate.
fn next_ready(c: &Connection, gate: &GateKey, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let (which, _, parameters) = waiting(gate.kind);
    let mut next = c.prepare_cached(&format!(
        "SELECT available_at FROM run WHERE {which} AND available_at > ?2 ORDER BY available_at LIMIT ?3"
    ))?;
    let mut earliest: Option<Timestamp> = None;
    for priority in priorities(gate.kind) {
        let all: [&dyn ToSql; 5] = [&Id(gate.owner), &At(now), &1, &priority, &gate.key];
        let at = next.query_row(&all[..parameters], |row| row.get::<_, At>(0)).optional()?.map(|at| at.0);
        earliest = [earliest, at].into_iter().flatten().min();
    }
    Ok(earliest)
}

/// In which order priorities are gone through; a trigger's runs aren't ordered by theirs.
fn priorities(kind: GateKind) -> impl Iterator<Item = u8> {
    let least = if kind == GateKind::Trigger { PRIORITY_MAX } else { 0 };
    (least..=PRIORITY_MAX).rev()
}
