//! Claims in SQLite: ready runs become a host's.

use super::host::state;
use super::row::{At, Id, Word, signed};
use crate::StoreError;
use innkeeper_domain::Timestamp;
use innkeeper_domain::host::{HostState, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, Lease, RunEvent, RunState};
use rusqlite::{Connection, OptionalExtension, Row, params};

const COLUMNS: &str = "SELECT r.id, r.state, r.attempt, r.interruptions, n.name, r.task_id, t.name,
        r.revision, g.id, g.name, r.nominal_at, r.last_success_nominal, r.idempotency_key, r.input_type, r.input
    FROM run r JOIN tenant n ON n.id = r.tenant_id JOIN task t ON t.id = r.task_id
        LEFT JOIN trigger g ON g.id = r.trigger_id";

/// Runs that any host can execute.
const ANYWHERE: &str = "WHERE r.state IN ('queued', 'waiting') AND r.requires = '' AND r.available_at <= ?1
    ORDER BY r.available_at, r.id LIMIT ?2";

/// Runs that require these labels.
const REQUIRING: &str = "WHERE r.state IN ('queued', 'waiting') AND r.requires <> '' AND r.requires = ?3
    AND r.available_at <= ?1 ORDER BY r.available_at, r.id LIMIT ?2";

/// What runs that are ready or wait require, each once: a skip from one to the next in the index.
const REQUIRED: &str = "SELECT requires FROM run
    WHERE state IN ('queued', 'waiting') AND requires <> '' AND requires > ?1 ORDER BY requires LIMIT 1";

pub(super) fn ready_anywhere() -> String {
    format!("{COLUMNS} {ANYWHERE}")
}

pub(super) fn ready_requiring() -> String {
    format!("{COLUMNS} {REQUIRING}")
}

pub(super) const NEXT_READY: &str = "SELECT available_at FROM run
    WHERE state IN ('queued', 'waiting') AND requires = '' ORDER BY available_at, id LIMIT 1";

pub(super) const NEXT_READY_REQUIRING: &str = "SELECT available_at FROM run
    WHERE state IN ('queued', 'waiting') AND requires <> '' AND requires = ?1 ORDER BY available_at, id LIMIT 1";

/// Leases ready runs to a host.
pub(super) fn claim(
    c: &Connection,
    host: HostId,
    labels: &Labels,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    match state(c, host)? {
        None => return Err(StoreError::LeaseLost),
        Some(HostState::Active) => {}
        Some(HostState::Cordoned | HostState::Draining) => return Ok(Vec::new()),
    }
    let mut found: Vec<(RunState, Claimed)> = Vec::new();
    for required in required(c, labels)? {
        let mut ready = c.prepare_cached(&ready_requiring())?;
        let room = signed((limit - found.len()) as u64);
        let rows = ready.query_map(params![At(now), room, required], |row| read_ready(row, host, now))?;
        for row in rows {
            found.push(row?);
        }
    }
    let mut ready = c.prepare_cached(&ready_anywhere())?;
    let room = signed((limit - found.len()) as u64);
    for row in ready.query_map(params![At(now), room], |row| read_ready(row, host, now))? {
        found.push(row?);
    }
    let mut take = c.prepare_cached(
        "UPDATE run SET state = ?2, attempt = ?3, host_id = ?4, started_at = ?5, progress = NULL WHERE id = ?1",
    )?;
    let mut claimed = Vec::with_capacity(found.len());
    for (state, run) in found {
        let next = state.next(RunEvent::Claimed).map_err(|e| StoreError::Conflict(e.to_string()))?;
        take.execute(params![Id(run.lease.run.0), next.as_str(), run.lease.attempt, Id(host.0), At(now)])?;
        claimed.push(run);
    }
    Ok(claimed)
}

/// When the next run becomes ready that a host with these labels can execute.
pub(super) fn next_ready(c: &Connection, labels: &Labels) -> Result<Option<Timestamp>, StoreError> {
    let mut next = c.prepare_cached(NEXT_READY)?;
    let mut earliest = next.query_row([], |row| row.get::<_, At>(0)).optional()?.map(|at| at.0);
    for required in required(c, labels)? {
        let mut next = c.prepare_cached(NEXT_READY_REQUIRING)?;
        let at = next.query_row([required], |row| row.get::<_, At>(0)).optional()?.map(|at| at.0);
        earliest = earliest.into_iter().chain(at).min();
    }
    Ok(earliest)
}

/// What runs require that a host with these labels offers.
fn required(c: &Connection, labels: &Labels) -> Result<Vec<String>, StoreError> {
    let mut offered = Vec::new();
    if labels.0.is_empty() {
        return Ok(offered);
    }
    let mut next = c.prepare_cached(REQUIRED)?;
    let mut last = String::new();
    while let Some(required) = next.query_row([&last], |row| row.get::<_, String>(0)).optional()? {
        if required.parse().is_ok_and(|required| labels.offer(&required)) {
            offered.push(required.clone());
        }
        last = required;
    }
    Ok(offered)
}

fn read_ready(row: &Row, host: HostId, now: Timestamp) -> rusqlite::Result<(RunState, Claimed)> {
    let attempt = row.get::<_, u32>(2)? + 1;
    let trigger = match (row.get::<_, Option<Id>>(8)?, row.get::<_, Option<Word<_>>>(9)?) {
        (Some(id), Some(name)) => Some((TriggerId(id.0), name.0)),
        _ => None,
    };
    let claimed = Claimed {
        lease: Lease { run: RunId(row.get::<_, Id>(0)?.0), host, attempt },
        try_number: attempt.saturating_sub(row.get(3)?),
        tenant: row.get::<_, Word<_>>(4)?.0,
        task_id: TaskId(row.get::<_, Id>(5)?.0),
        task: row.get::<_, Word<_>>(6)?.0,
        revision: row.get(7)?,
        trigger,
        nominal_at: row.get::<_, At>(10)?.0,
        last_success_nominal: row.get::<_, Option<At>>(11)?.map(|at| at.0),
        idempotency_key: row.get(12)?,
        input: Payload { content_type: row.get(13)?, bytes: row.get(14)? },
        started_at: now,
    };
    Ok((row.get::<_, Word<_>>(1)?.0, claimed))
}
