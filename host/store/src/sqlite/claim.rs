//! Claims in SQLite: ready runs become a host's.

use super::gate_grant::{give_back, grant, open_tenants};
use super::host::may_claim;
use super::quota::{cpu_of_day, stored_bytes};
use super::row::{At, Id, Json, Word, signed, unsigned};
use super::{gate, quota};
use crate::sharing::{Claimant, Queue, Slice, only_queue, slices, sort};
use crate::{Hints, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::{AttemptBounds, Quota};
use innkeeper_domain::run::{Claimed, Lease, RunEvent, RunState};
use innkeeper_domain::tenant::TenantState;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::{HashMap, hash_map::Entry};
use uuid::Uuid;

const COLUMNS: &str = "SELECT r.id, r.state, r.attempt, r.interruptions, n.name, r.task_id, t.name,
        r.revision, g.id, g.name, r.nominal_at, r.last_success_nominal, r.idempotency_key, r.input_type, r.input, r.tenant_id,
        r.end_by, t.revision
    FROM run r CROSS JOIN tenant n ON n.id = r.tenant_id CROSS JOIN task t ON t.id = r.task_id
        LEFT JOIN trigger g ON g.id = r.trigger_id";

/// Runs of a tenant that require the same. Those whose time has passed are passed by until they are ended.
const READY: &str =
    "WHERE r.state IN ('queued', 'waiting') AND r.hold = 0 AND r.requires = ?1 AND r.tenant_id = ?2
    AND r.available_at <= ?3 AND r.priority = ?5 AND (r.end_by IS NULL OR r.end_by > ?3)
    AND (r.start_by IS NULL OR r.start_by >= ?3 OR r.started_at IS NOT NULL)
    ORDER BY r.available_at, r.id LIMIT ?4";

/// What runs that are ready or wait require, each once: a skip from one to the next in the index.
pub(super) const REQUIRED: &str = "SELECT requires FROM run
    WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires > ?1 ORDER BY requires LIMIT 1";

/// Whose runs require this, of which priority, and the first of them, for each pair once: the tenant's next priority, else
/// the next tenant. Compared as one pair, the index would be gone through from the tenant's first run on.
pub(super) const QUEUES: &str = "SELECT * FROM (SELECT tenant_id, priority, available_at, id FROM run
        WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires = ?1 AND tenant_id = ?2 AND priority > ?3
        ORDER BY priority, available_at, id LIMIT 1)
    UNION ALL SELECT * FROM (SELECT tenant_id, priority, available_at, id FROM run
        WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires = ?1 AND tenant_id > ?2
        ORDER BY tenant_id, priority, available_at, id LIMIT 1)
    LIMIT 1";

pub(super) const NEXT: &str = "SELECT available_at FROM run
    WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires = ?1 AND tenant_id = ?2 AND priority = ?4
        AND available_at > ?3 ORDER BY available_at LIMIT 1";

pub(super) const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM run
    WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires = ?1 AND tenant_id = ?2 AND priority = ?5
        AND available_at <= ?3 LIMIT ?4)";

pub(super) fn ready() -> String {
    format!("{COLUMNS} {READY}")
}

/// Leases ready runs to a host.
pub(super) fn claim(
    c: &Connection,
    hints: &Hints,
    host: HostId,
    labels: &Labels,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    match may_claim(c, host)? {
        None => return Err(StoreError::LeaseLost),
        Some(true) => {}
        Some(false) => return Ok(Vec::new()),
    }
    let granted = grant(c, limit, now)?;
    if granted.is_left {
        hints.runs_ready.notify_one();
    }
    let mut claimants = claimants(c, labels, now)?;
    hints.limits_seen(claimants.iter().map(|one| (one.tenant, one.is_limited())));
    sort(&mut claimants);
    let slices = match only_queue(&claimants, limit) {
        Some(all) => vec![all],
        None => {
            count(c, &mut claimants, limit, now)?;
            slices(&claimants, limit, now)
        }
    };
    let bounds: HashMap<_, _> = claimants.iter().map(|one| (one.tenant, one.bounds())).collect();
    let mut claimed = Vec::new();
    for slice in &slices {
        let bounds = bounds.get(&slice.tenant).copied().unwrap_or_default();
        take(c, slice, host, bounds, now, &mut claimed)?;
    }
    give_back(c, granted, labels, &claimed.iter().map(|run| run.lease.run).collect(), now)?;
    for one in claimants.iter().filter(|one| one.has_rate()) {
        let begun = claimed.iter().filter(|run: &&Claimed| run.tenant_id == one.tenant).count() as u64;
        if let Some(on_time_at) = one.begun(now, begun) {
            quota::write_begun(c, one.tenant, on_time_at)?;
        }
    }
    Ok(claimed)
}

/// Makes the first runs of a queue the host's.
fn take(
    c: &Connection,
    slice: &Slice,
    host: HostId,
    bounds: AttemptBounds,
    now: Timestamp,
    claimed: &mut Vec<Claimed>,
) -> Result<(), StoreError> {
    let mut ready = c.prepare_cached(&ready())?;
    let parameters =
        params![slice.requires, Id(slice.tenant.0), At(now), signed(slice.most as u64), slice.priority];
    let found = ready.query_map(parameters, |row| read_ready(row, host, bounds, now))?;
    let found: Vec<(RunState, Claimed)> = found.collect::<Result<_, _>>()?;
    let mut take = c.prepare_cached(
        "UPDATE run SET state = ?2, attempt = ?3, host_id = ?4, started_at = ?5, progress = NULL WHERE id = ?1",
    )?;
    for (state, run) in found {
        let next = state.next(RunEvent::Claimed).map_err(|e| StoreError::Conflict(e.to_string()))?;
        take.execute(params![Id(run.lease.run.0), next.as_str(), run.lease.attempt, Id(host.0), At(now)])?;
        claimed.push(run);
    }
    Ok(())
}

/// The tenants that have runs that are ready for a host with these labels, and may begin them. Nothing is counted.
fn claimants(c: &Connection, labels: &Labels, now: Timestamp) -> Result<Vec<Claimant>, StoreError> {
    let mut known: HashMap<TenantId, Option<Claimant>> = HashMap::new();
    for requires in required(c, labels)? {
        for (tenant, queue) in queues(c, &requires)? {
            if queue.first.0 > now {
                continue;
            }
            let one = match known.entry(tenant) {
                Entry::Occupied(one) => one.into_mut(),
                Entry::Vacant(new) => new.insert(claimant(c, tenant, now)?),
            };
            if let Some(one) = one {
                one.queues.push(queue);
            }
        }
    }
    Ok(known.into_values().flatten().collect())
}

/// The tenant, unless nothing of it may begin.
fn claimant(c: &Connection, tenant: TenantId, now: Timestamp) -> Result<Option<Claimant>, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT weight, quotas FROM tenant
         WHERE id = ?1 AND state = ?2 AND paused_at IS NULL AND deleted_at IS NULL",
    )?;
    let found = get.query_row(params![Id(tenant.0), TenantState::Active.as_str()], |row| {
        let (weight, quotas) = (row.get(0)?, row.get::<_, Json<_>>(1)?.0);
        let queues = Vec::new();
        Ok(Claimant { tenant, weight, quotas, cpu: 0, stored: 0, running: 0, queues, on_time_at: None })
    });
    let Some(mut found) = found.optional()? else { return Ok(None) };
    if found.quotas.get(Quota::CpuPerDay).is_some() {
        found.cpu = cpu_of_day(c, tenant, now)?;
    }
    if found.quotas.get(Quota::StoredBytes).is_some() {
        found.stored = stored_bytes(c, tenant, None)?;
    }
    if found.has_rate() {
        found.on_time_at = quota::begun(c, tenant)?;
    }
    Ok(Some(found))
}

/// Whose runs execute. Grouped here, the index of all that a tenant ever had would be gone through, to spare a sort.
pub(super) const RUNNING: &str = "SELECT tenant_id FROM run WHERE state = 'running'";

/// Counts what executes of the claimants, and what is ready.
fn count(c: &Connection, claimants: &mut [Claimant], room: usize, now: Timestamp) -> Result<(), StoreError> {
    let mut running: HashMap<TenantId, u64> = HashMap::new();
    for tenant in c.prepare_cached(RUNNING)?.query_map([], |row| row.get::<_, Id>(0))? {
        *running.entry(TenantId(tenant?.0)).or_default() += 1;
    }
    let mut count = c.prepare_cached(COUNT)?;
    for one in claimants {
        one.running = running.get(&one.tenant).copied().unwrap_or_default();
        let room = one.room(now, room);
        if room == 0 {
            continue;
        }
        for queue in &mut one.queues {
            let parameters =
                params![queue.requires, Id(one.tenant.0), At(now), signed(room as u64), queue.priority];
            let ready = unsigned(count.query_row(parameters, |row| row.get(0))?);
            queue.ready = usize::try_from(ready).unwrap_or(room);
        }
    }
    Ok(())
}

/// When, after this instant, the next run becomes ready that a host with these labels may execute.
pub(super) fn next_ready(
    c: &Connection,
    labels: &Labels,
    after: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let mut next = c.prepare_cached(NEXT)?;
    let mut earliest = None;
    for requires in required(c, labels)? {
        for (tenant, Queue { priority, first, .. }) in queues(c, &requires)? {
            let parameters = params![requires, Id(tenant.0), At(after), priority];
            let at = match first.0 > after {
                true => Some(first.0),
                false => next.query_row(parameters, |row| row.get::<_, At>(0)).optional()?.map(|at| at.0),
            };
            let is_earlier = at.is_some_and(|at| earliest.is_none_or(|earliest| at < earliest));
            if is_earlier && claimant(c, tenant, after)?.is_some() {
                earliest = at;
            }
        }
    }
    for tenant in open_tenants(c)? {
        let opens = gate::next_open(c, tenant, after)?;
        earliest = [earliest, opens].into_iter().flatten().min();
    }
    Ok(earliest)
}

/// What runs require that a host with these labels offers: the fewest hosts first, last nothing.
fn required(c: &Connection, labels: &Labels) -> Result<Vec<String>, StoreError> {
    let mut offered = Vec::new();
    if !labels.0.is_empty() {
        let mut next = c.prepare_cached(REQUIRED)?;
        let mut last = String::new();
        while let Some(required) = next.query_row([&last], |row| row.get::<_, String>(0)).optional()? {
            if required.parse().is_ok_and(|required| labels.offer(&required)) {
                offered.push(required.clone());
            }
            last = required;
        }
    }
    offered.push(String::new());
    Ok(offered)
}

/// The queues of runs that require this, and whose they are. The first run of one may become ready only later.
fn queues(c: &Connection, requires: &str) -> Result<Vec<(TenantId, Queue)>, StoreError> {
    let mut next = c.prepare_cached(QUEUES)?;
    let mut queues = Vec::new();
    // No tenant has this id.
    let mut last = (Uuid::nil(), 0u8);
    let read = |row: &Row| {
        let first = (row.get::<_, At>(2)?.0, RunId(row.get::<_, Id>(3)?.0));
        Ok((row.get::<_, Id>(0)?.0, row.get(1)?, first))
    };
    while let Some((tenant, priority, first)) =
        next.query_row(params![requires, Id(last.0), last.1], read).optional()?
    {
        queues.push((TenantId(tenant), Queue { requires: requires.into(), priority, first, ready: 0 }));
        last = (tenant, priority);
    }
    Ok(queues)
}

fn read_ready(
    row: &Row,
    host: HostId,
    bounds: AttemptBounds,
    now: Timestamp,
) -> rusqlite::Result<(RunState, Claimed)> {
    let attempt = row.get::<_, u32>(2)? + 1;
    let trigger = match (row.get::<_, Option<Id>>(8)?, row.get::<_, Option<Word<_>>>(9)?) {
        (Some(id), Some(name)) => Some((TriggerId(id.0), name.0)),
        _ => None,
    };
    let claimed = Claimed {
        lease: Lease { run: RunId(row.get::<_, Id>(0)?.0), host, attempt },
        try_number: attempt.saturating_sub(row.get(3)?),
        tenant_id: TenantId(row.get::<_, Id>(15)?.0),
        bounds,
        tenant: row.get::<_, Word<_>>(4)?.0,
        task_id: TaskId(row.get::<_, Id>(5)?.0),
        task: row.get::<_, Word<_>>(6)?.0,
        revision: row.get(7)?,
        current_revision: row.get(17)?,
        trigger,
        nominal_at: row.get::<_, At>(10)?.0,
        last_success_nominal: row.get::<_, Option<At>>(11)?.map(|at| at.0),
        idempotency_key: row.get(12)?,
        input: Payload { content_type: row.get(13)?, bytes: row.get(14)? },
        started_at: now,
        end_by: row.get::<_, Option<At>>(16)?.map(|at| at.0),
    };
    Ok((row.get::<_, Word<_>>(1)?.0, claimed))
}
