//! Claims in PostgreSQL: ready runs become a host's. Hosts that claim at the same time pass each other by.

use super::Shared;
use super::connection::reading;
use super::host::state;
use super::row::{At, Small, Word, row, rows, signed};
use crate::StoreError;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Claimed, Lease, RunEvent, RunState};
use tokio_postgres::Row;

/// One statement, so that it needs no transaction: the host is active, and stays so until this is done.
const CLAIM: &str = "
    WITH h AS MATERIALIZED (SELECT state FROM host WHERE id = $1 FOR SHARE),
    ready AS MATERIALIZED (
        SELECT id FROM run WHERE state IN ('queued', 'waiting') AND {requirement} AND available_at <= $2
            AND EXISTS (SELECT 1 FROM h WHERE state = 'active')
        ORDER BY available_at, id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED),
    taken AS (
        UPDATE run SET state = $4, attempt = attempt + 1, host_id = $1, started_at = $2, progress = NULL
        WHERE id = ANY (ARRAY (SELECT id FROM ready))
        RETURNING id, attempt, interruptions, tenant_id, task_id, revision, trigger_id, nominal_at,
            last_success_nominal, idempotency_key, input_type, input, available_at)
    SELECT r.id, r.attempt, r.interruptions, n.name, r.task_id, t.name, r.revision, g.id, g.name, r.nominal_at,
        r.last_success_nominal, r.idempotency_key, r.input_type, r.input
    FROM taken r JOIN tenant n ON n.id = r.tenant_id JOIN task t ON t.id = r.task_id
        LEFT JOIN trigger g ON g.id = r.trigger_id
    ORDER BY r.available_at, r.id";

/// What runs that are ready or wait require, each once: a skip from one to the next in the index.
const REQUIRED: &str = "SELECT requires FROM run
    WHERE state IN ('queued', 'waiting') AND requires <> '' AND requires > $1 ORDER BY requires LIMIT 1";

/// Leases ready runs to a host.
pub(super) async fn claim(
    shared: &Shared,
    host: HostId,
    labels: &Labels,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    // The same for both: neither has an attempt that executes.
    let running =
        RunState::Queued.next(RunEvent::Claimed).map_err(|e| StoreError::Conflict(e.to_string()))?;
    let claimed = reading!(&shared.pool, |c| {
        let mut claimed = Vec::new();
        for required in required(c, labels).await? {
            let claim = CLAIM.replace("{requirement}", "requires <> '' AND requires = $5");
            let room = signed((limit - claimed.len()) as u64);
            let parameters: super::row::Parameters =
                &[&host.0, &At(now), &room, &running.as_str(), &required];
            for row in rows(c, &claim, parameters).await? {
                claimed.push(read_claimed(&row, host, now)?);
            }
        }
        let claim = CLAIM.replace("{requirement}", "requires = ''");
        let room = signed((limit - claimed.len()) as u64);
        for row in rows(c, &claim, &[&host.0, &At(now), &room, &running.as_str()]).await? {
            claimed.push(read_claimed(&row, host, now)?);
        }
        if claimed.is_empty() && state(c, host).await?.is_none() {
            return Err(StoreError::LeaseLost);
        }
        claimed
    })?;
    shared.wakes.runs_changed(claimed.iter().map(|run: &Claimed| run.lease.run));
    Ok(claimed)
}

/// When the next run becomes ready that a host with these labels can execute.
pub(super) async fn next_ready(shared: &Shared, labels: &Labels) -> Result<Option<Timestamp>, StoreError> {
    reading!(&shared.pool, |c| {
        let next = "SELECT available_at FROM run
            WHERE state IN ('queued', 'waiting') AND requires = '' ORDER BY available_at, id LIMIT 1";
        let mut earliest = instant(row(c, next, &[]).await?)?;
        for required in required(c, labels).await? {
            let next = "SELECT available_at FROM run WHERE state IN ('queued', 'waiting') AND requires <> ''
                AND requires = $1 ORDER BY available_at, id LIMIT 1";
            let at = instant(row(c, next, &[&required]).await?)?;
            earliest = earliest.into_iter().chain(at).min();
        }
        earliest
    })
}

/// The instant in a row's first column.
pub(super) fn instant(row: Option<Row>) -> Result<Option<Timestamp>, StoreError> {
    match row {
        Some(row) => Ok(row.try_get::<_, Option<At>>(0)?.map(|at| at.0)),
        None => Ok(None),
    }
}

/// What runs require that a host with these labels offers.
async fn required(c: &impl GenericClient, labels: &Labels) -> Result<Vec<String>, StoreError> {
    let mut offered = Vec::new();
    if labels.0.is_empty() {
        return Ok(offered);
    }
    let mut last = String::new();
    while let Some(found) = row(c, REQUIRED, &[&last]).await? {
        last = found.try_get(0)?;
        if last.parse().is_ok_and(|required| labels.offer(&required)) {
            offered.push(last.clone());
        }
    }
    Ok(offered)
}

fn read_claimed(row: &Row, host: HostId, now: Timestamp) -> Result<Claimed, StoreError> {
    let attempt = row.try_get::<_, Small>(1)?.0;
    let trigger = match (row.try_get::<_, Option<_>>(7)?, row.try_get::<_, Option<Word<_>>>(8)?) {
        (Some(id), Some(name)) => Some((TriggerId(id), name.0)),
        _ => None,
    };
    Ok(Claimed {
        lease: Lease { run: RunId(row.try_get(0)?), host, attempt },
        try_number: attempt.saturating_sub(row.try_get::<_, Small>(2)?.0),
        tenant: row.try_get::<_, Word<_>>(3)?.0,
        task_id: TaskId(row.try_get(4)?),
        task: row.try_get::<_, Word<_>>(5)?.0,
        revision: row.try_get::<_, Small>(6)?.0,
        trigger,
        nominal_at: row.try_get::<_, At>(9)?.0,
        last_success_nominal: row.try_get::<_, Option<At>>(10)?.map(|at| at.0),
        idempotency_key: row.try_get(11)?,
        input: Payload { content_type: row.try_get(12)?, bytes: row.try_get(13)? },
        started_at: now,
    })
}
