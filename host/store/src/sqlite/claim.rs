//! Claims in SQLite: ready runs become a host's.

use super::row::{At, Id, Word, signed};
use crate::StoreError;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, Lease, RunEvent, RunState};
use rusqlite::{Connection, Row, params};

pub(super) const READY: &str = "SELECT r.id, r.state, r.attempt, r.interruptions, n.name, r.task_id, t.name,
        r.revision, g.id, g.name, r.nominal_at, r.last_success_nominal, r.idempotency_key, r.input_type, r.input
    FROM run r JOIN tenant n ON n.id = r.tenant_id JOIN task t ON t.id = r.task_id
        LEFT JOIN trigger g ON g.id = r.trigger_id
    WHERE r.state IN ('queued', 'waiting') AND r.available_at <= ?1
    ORDER BY r.available_at, r.id LIMIT ?2";

pub(super) const NEXT_READY: &str = "SELECT available_at FROM run WHERE state IN ('queued', 'waiting')
    ORDER BY available_at, id LIMIT 1";

/// Leases ready runs to a host.
pub(super) fn claim(
    c: &Connection,
    host: HostId,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    let mut ready = c.prepare_cached(READY)?;
    let limit = signed(limit as u64);
    let rows = ready.query_map(params![At(now), limit], |row| read_ready(row, host, now))?;
    let found: Vec<(RunState, Claimed)> = rows.collect::<Result<_, _>>()?;
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
