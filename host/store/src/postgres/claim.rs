//! Claims in PostgreSQL: ready runs become a host's. Hosts that claim at the same time pass each other by.

use super::connection::{in_transaction, reading};
use super::gate::next_open;
use super::gate_grant::{give_back, grant};
use super::host::state;
use super::quota::{Counted, cpu_of_day, stored_bytes, try_exclude};
use super::row::{At, Json, Small, Word, row, rows, signed, unsigned};
use super::{Shared, quota};
use crate::StoreError;
use crate::sharing::{Claimant, Queue, Slice, only_queue, slices, sort};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::host::{HostState, Labels};
use innkeeper_domain::ids::{HostId, RunId, TaskId, TenantId, TriggerId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::{AttemptBounds, Quota};
use innkeeper_domain::run::{Claimed, Lease, RunEvent, RunState};
use innkeeper_domain::tenant::TenantState;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Row;
use uuid::Uuid;

/// One statement, so that it needs no transaction: the host is active, and stays so until this is done, and so are
/// the tenants. One that somebody is changing is passed by, for who waits with a host's row in hand keeps its lease
/// from being renewed; whoever changes a tenant wakes the claims. `$6` to `$9` are what is taken: whose, which, how
/// many, of which priority. Runs whose time has passed are passed by until they are ended.
const CLAIM: &str = "
    WITH h AS MATERIALIZED (SELECT state, paused FROM host WHERE id = $1 FOR SHARE),
    active AS MATERIALIZED (
        SELECT id FROM tenant WHERE id = ANY($6) AND state = $4 AND paused_at IS NULL AND deleted_at IS NULL
            AND EXISTS (SELECT 1 FROM h WHERE state = $5 AND NOT paused)
        ORDER BY id FOR SHARE SKIP LOCKED),
    ready AS MATERIALIZED (
        SELECT r.id, s.place
        FROM unnest($6::uuid[], $7::text[], $8::bigint[], $9::smallint[])
                WITH ORDINALITY AS s (tenant_id, requires, most, priority, place)
            JOIN active a ON a.id = s.tenant_id,
            LATERAL (SELECT id FROM run WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires = s.requires
                AND tenant_id = s.tenant_id AND priority = s.priority AND available_at <= $2
                AND (end_by IS NULL OR end_by > $2)
                AND (start_by IS NULL OR start_by >= $2 OR started_at IS NOT NULL)
                ORDER BY available_at, id LIMIT s.most FOR NO KEY UPDATE SKIP LOCKED) r),
    taken AS (
        UPDATE run SET state = $3, attempt = attempt + 1, host_id = $1, started_at = $2, progress = NULL
        WHERE id = ANY (ARRAY (SELECT id FROM ready))
        RETURNING id, attempt, interruptions, tenant_id, task_id, revision, trigger_id, nominal_at,
            last_success_nominal, idempotency_key, input_type, input, available_at, end_by)
    SELECT r.id, r.attempt, r.interruptions, n.name, r.task_id, t.name, r.revision, g.id, g.name, r.nominal_at,
        r.last_success_nominal, r.idempotency_key, r.input_type, r.input, r.tenant_id, r.end_by,
        t.revision
    FROM taken r JOIN ready y ON y.id = r.id JOIN tenant n ON n.id = r.tenant_id JOIN task t ON t.id = r.task_id
        LEFT JOIN trigger g ON g.id = r.trigger_id
    ORDER BY y.place, r.available_at, r.id";

/// When a tenant that was passed by has its turn again.
const PASSED_BY: Duration = Duration::from_millis(20);

/// What runs that are ready or wait require, each once: a skip from one to the next in the index.
const REQUIRED: &str = "SELECT requires FROM run
    WHERE state IN ('queued', 'waiting') AND hold = 0 AND requires > $1 ORDER BY requires LIMIT 1";

/// The queues that there are, a row each: by skips in the index from one tenant and priority to the next.
const QUEUES: &str = "
    WITH RECURSIVE queue (place, requires, tenant_id, priority) AS (
        SELECT e.place, e.requires, f.tenant_id, f.priority
        FROM unnest($1::text[]) WITH ORDINALITY AS e (requires, place),
            LATERAL (SELECT tenant_id, priority FROM run WHERE state IN ('queued', 'waiting') AND hold = 0
                AND requires = e.requires ORDER BY tenant_id, priority LIMIT 1) f
    UNION ALL
        SELECT q.place, q.requires, f.tenant_id, f.priority
        FROM queue q,
            LATERAL (SELECT tenant_id, priority FROM run WHERE state IN ('queued', 'waiting') AND hold = 0
                AND requires = q.requires AND (tenant_id, priority) > (q.tenant_id, q.priority)
                ORDER BY tenant_id, priority LIMIT 1) f)";

/// Leases ready runs to a host.
pub(super) async fn claim(
    shared: &Arc<Shared>,
    host: HostId,
    labels: &Labels,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Claimed>, StoreError> {
    let asked = Asked { host, limit, now };
    let granted = grant(shared, host, limit, now).await?;
    let (claimed, limited) = reading!(&shared.pool, |c| {
        let mut claimants = claimants(c, labels, now).await?;
        shared.hints.limits_seen(claimants.iter().map(|one| (one.tenant, one.is_limited())));
        sort(&mut claimants);
        let limited = claimants.iter().filter(|one| one.is_limited());
        let limited: Vec<Uuid> = limited.map(|one| one.tenant.0).collect();
        let claimed = if limited.is_empty() { asked.share(c, &mut claimants).await? } else { Vec::new() };
        if claimed.is_empty() && state(c, host).await?.is_none() {
            return Err(StoreError::LeaseLost);
        }
        (claimed, limited)
    })?;
    let claimed =
        if limited.is_empty() { claimed } else { claim_limited(shared, labels, &limited, asked).await? };
    let begun = claimed.iter().map(|run: &Claimed| run.lease.run).collect();
    let waits_again = give_back(shared, labels, &begun, now).await.unwrap_or_else(|error| {
        // What was claimed is claimed.
        tracing::debug!(%error, "runs that a rate has let pass could not be made to wait again; it tries again");
        0
    });
    shared.wakes.runs_changed(claimed.iter().map(|run: &Claimed| run.lease.run));
    // What this host doesn't take, others may, or it in a moment.
    if granted.is_left || granted.free > claimed.len() + waits_again {
        shared.wakes.runs_ready();
    }
    Ok(claimed)
}

/// A claim when tenants may have only so many runs at one time. Others claim nothing of them while those are counted
/// and claimed; a tenant of which another host is claiming is passed by, and its turn comes soon.
async fn claim_limited(
    shared: &Shared,
    labels: &Labels,
    limited: &[Uuid],
    asked: Asked,
) -> Result<Vec<Claimed>, StoreError> {
    let (claimed, passed_by) = in_transaction!(&shared.pool, |c| {
        let lock = "SELECT state = $2 AND NOT paused FROM host WHERE id = $1 FOR SHARE";
        let host = row(c, lock, &[&asked.host.0, &HostState::Active.as_str()]).await?;
        let host = host.ok_or(StoreError::LeaseLost)?;
        let (mut claimed, mut passed_by) = (Vec::new(), false);
        if host.try_get(0)? {
            let held = try_exclude(c, limited, Counted::Claims).await?;
            passed_by = held.len() < limited.len();
            // Again, as it is now; one that is limited since then has its turn next time.
            let mut claimants = claimants(c, labels, asked.now).await?;
            claimants.retain(|one| !one.is_limited() || held.contains(&one.tenant.0));
            sort(&mut claimants);
            claimed = asked.share(c, &mut claimants).await?;
            for one in claimants.iter().filter(|one| one.has_rate()) {
                let begun = claimed.iter().filter(|run| run.tenant_id == one.tenant).count() as u64;
                if let Some(on_time_at) = one.begun(asked.now, begun) {
                    quota::write_begun(c, one.tenant, on_time_at).await?;
                }
            }
        }
        (claimed, passed_by)
    })?;
    if passed_by {
        let hints = Arc::clone(&shared.hints);
        shared.tasks.spawn(async move {
            tokio::time::sleep(PASSED_BY).await;
            hints.runs_ready.notify_one();
        });
    }
    Ok(claimed)
}

/// Who asks for how many runs, and when.
#[derive(Debug, Clone, Copy)]
struct Asked {
    host: HostId,
    limit: usize,
    now: Timestamp,
}

impl Asked {
    /// Claims for each claimant what it is to have.
    async fn share(
        self,
        c: &impl GenericClient,
        claimants: &mut [Claimant],
    ) -> Result<Vec<Claimed>, StoreError> {
        let slices = match only_queue(claimants, self.limit) {
            Some(all) => vec![all],
            None => {
                count(c, claimants, self.limit, self.now).await?;
                slices(claimants, self.limit, self.now)
            }
        };
        if slices.is_empty() {
            return Ok(Vec::new());
        }
        let bounds: HashMap<_, _> = claimants.iter().map(|one| (one.tenant, one.bounds())).collect();
        let found = self.take(c, &slices).await?;
        found.iter().map(|row| self.read_claimed(row, &bounds)).collect()
    }

    async fn take(self, c: &impl GenericClient, slices: &[Slice]) -> Result<Vec<Row>, StoreError> {
        // The same for both: neither has an attempt that executes.
        let running =
            RunState::Queued.next(RunEvent::Claimed).map_err(|e| StoreError::Conflict(e.to_string()))?;
        let tenants: Vec<Uuid> = slices.iter().map(|slice| slice.tenant.0).collect();
        let requires: Vec<&str> = slices.iter().map(|slice| slice.requires.as_str()).collect();
        let most: Vec<i64> = slices.iter().map(|slice| signed(slice.most as u64)).collect();
        let priorities: Vec<i16> = slices.iter().map(|slice| slice.priority.into()).collect();
        rows(
            c,
            CLAIM,
            &[
                &self.host.0,
                &At(self.now),
                &running.as_str(),
                &TenantState::Active.as_str(),
                &HostState::Active.as_str(),
                &tenants,
                &requires,
                &most,
                &priorities,
            ],
        )
        .await
    }

    fn read_claimed(
        self,
        row: &Row,
        bounds: &HashMap<TenantId, AttemptBounds>,
    ) -> Result<Claimed, StoreError> {
        let attempt = row.try_get::<_, Small>(1)?.0;
        let trigger = match (row.try_get::<_, Option<_>>(7)?, row.try_get::<_, Option<Word<_>>>(8)?) {
            (Some(id), Some(name)) => Some((TriggerId(id), name.0)),
            _ => None,
        };
        let tenant_id = TenantId(row.try_get(14)?);
        Ok(Claimed {
            lease: Lease { run: RunId(row.try_get(0)?), host: self.host, attempt },
            try_number: attempt.saturating_sub(row.try_get::<_, Small>(2)?.0),
            tenant_id,
            bounds: bounds.get(&tenant_id).copied().unwrap_or_default(),
            tenant: row.try_get::<_, Word<_>>(3)?.0,
            task_id: TaskId(row.try_get(4)?),
            task: row.try_get::<_, Word<_>>(5)?.0,
            revision: row.try_get::<_, Small>(6)?.0,
            current_revision: row.try_get::<_, Small>(16)?.0,
            trigger,
            nominal_at: row.try_get::<_, At>(9)?.0,
            last_success_nominal: row.try_get::<_, Option<At>>(10)?.map(|at| at.0),
            idempotency_key: row.try_get(11)?,
            input: Payload { content_type: row.try_get(12)?, bytes: row.try_get(13)? },
            started_at: self.now,
            end_by: row.try_get::<_, Option<At>>(15)?.map(|at| at.0),
        })
    }
}

/// The tenants that have runs that are ready for a host with these labels, and may begin them. Nothing is counted.
async fn claimants(
    c: &impl GenericClient,
    labels: &Labels,
    now: Timestamp,
) -> Result<Vec<Claimant>, StoreError> {
    let find = format!(
        "{QUEUES}
         SELECT q.tenant_id, q.requires, n.weight, n.quotas, f.available_at, f.id, q.priority
         FROM queue q JOIN tenant n ON n.id = q.tenant_id AND n.state = $3 AND n.paused_at IS NULL
             AND n.deleted_at IS NULL,
             LATERAL (SELECT available_at, id FROM run WHERE state IN ('queued', 'waiting') AND hold = 0
                 AND requires = q.requires AND tenant_id = q.tenant_id AND priority = q.priority AND available_at <= $2
                 ORDER BY available_at, id LIMIT 1) f
         ORDER BY q.tenant_id, q.place, q.priority"
    );
    let required = required(c, labels).await?;
    let mut claimants: Vec<Claimant> = Vec::new();
    for row in rows(c, &find, &[&required, &At(now), &TenantState::Active.as_str()]).await? {
        let tenant = TenantId(row.try_get(0)?);
        if claimants.last().is_none_or(|last| last.tenant != tenant) {
            let (weight, quotas) = (row.try_get::<_, Small>(2)?.0, row.try_get::<_, Json<_>>(3)?.0);
            let queues = Vec::new();
            let (running, on_time_at) = (0, None);
            claimants.push(Claimant {
                tenant,
                weight,
                quotas,
                cpu: 0,
                stored: 0,
                running,
                queues,
                on_time_at,
            });
        }
        let first = (row.try_get::<_, At>(4)?.0, RunId(row.try_get(5)?));
        if let Some(one) = claimants.last_mut() {
            let priority = u8::try_from(row.try_get::<_, i16>(6)?).unwrap_or_default();
            one.queues.push(Queue { requires: row.try_get(1)?, priority, first, ready: 0 });
        }
    }
    let has_cpu = |one: &&mut Claimant| one.quotas.get(Quota::CpuPerDay).is_some();
    let of_cpu: Vec<Uuid> = claimants.iter_mut().filter(has_cpu).map(|one| one.tenant.0).collect();
    let cpu = cpu_of_day(c, &of_cpu, now).await?;
    claimants.iter_mut().for_each(|one| one.cpu = cpu.get(&one.tenant).copied().unwrap_or_default());
    for one in claimants.iter_mut().filter(|one| one.quotas.get(Quota::StoredBytes).is_some()) {
        one.stored = stored_bytes(c, one.tenant, None).await?;
    }
    for one in claimants.iter_mut().filter(|one| one.has_rate()) {
        one.on_time_at = quota::begun(c, one.tenant).await?;
    }
    Ok(claimants)
}

/// Counts what executes of the claimants, and what is ready.
async fn count(
    c: &impl GenericClient,
    claimants: &mut [Claimant],
    room: usize,
    now: Timestamp,
) -> Result<(), StoreError> {
    let tenants: Vec<Uuid> = claimants.iter().map(|one| one.tenant.0).collect();
    let running = "SELECT tenant_id, count(*) FROM run WHERE state = 'running' AND tenant_id = ANY($1)
        GROUP BY tenant_id";
    let mut counts = HashMap::with_capacity(tenants.len());
    for row in rows(c, running, &[&tenants]).await? {
        counts.insert(TenantId(row.try_get(0)?), unsigned(row.try_get(1)?));
    }
    for one in claimants.iter_mut() {
        one.running = counts.get(&one.tenant).copied().unwrap_or_default();
    }
    let queues =
        claimants.iter().flat_map(|one| one.queues.iter().map(|queue| (one.tenant.0, &*queue.requires)));
    let (tenants, requires): (Vec<Uuid>, Vec<&str>) = queues.unzip();
    let rooms = claimants.iter().flat_map(|one| {
        let room = signed(one.room(now, room) as u64);
        one.queues.iter().map(move |_| room)
    });
    let rooms: Vec<i64> = rooms.collect();
    let priorities = claimants.iter().flat_map(|one| &one.queues).map(|queue| queue.priority.into());
    let priorities: Vec<i16> = priorities.collect();
    let ready = rows(
        c,
        "SELECT (SELECT count(*) FROM (SELECT 1 FROM run WHERE state IN ('queued', 'waiting') AND hold = 0
             AND requires = e.requires AND tenant_id = e.tenant_id AND priority = e.priority
             AND available_at <= $3 LIMIT e.room) r)
         FROM unnest($1::uuid[], $2::text[], $4::bigint[], $5::smallint[])
             WITH ORDINALITY AS e (tenant_id, requires, room, priority, place) ORDER BY e.place",
        &[&tenants, &requires, &At(now), &rooms, &priorities],
    )
    .await?;
    let mut ready = ready.iter();
    for one in claimants {
        for (queue, row) in one.queues.iter_mut().zip(ready.by_ref()) {
            queue.ready = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
        }
    }
    Ok(())
}

/// When, after this instant, the next run becomes ready that a host with these labels may execute.
pub(super) async fn next_ready(
    shared: &Shared,
    labels: &Labels,
    after: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    reading!(&shared.pool, |c| {
        let next = format!(
            "{QUEUES}
             SELECT min(f.available_at)
             FROM queue q JOIN tenant n ON n.id = q.tenant_id AND n.state = $3 AND n.paused_at IS NULL
                 AND n.deleted_at IS NULL,
                 LATERAL (SELECT available_at FROM run WHERE state IN ('queued', 'waiting') AND hold = 0
                     AND requires = q.requires AND tenant_id = q.tenant_id AND priority = q.priority AND available_at > $2
                     ORDER BY available_at LIMIT 1) f"
        );
        let required = required(c, labels).await?;
        let ready = instant(row(c, &next, &[&required, &At(after), &TenantState::Active.as_str()]).await?)?;
        [ready, next_open(c, after).await?].into_iter().flatten().min()
    })
}

/// The instant in a row's first column.
pub(super) fn instant(row: Option<Row>) -> Result<Option<Timestamp>, StoreError> {
    match row {
        Some(row) => Ok(row.try_get::<_, Option<At>>(0)?.map(|at| at.0)),
        None => Ok(None),
    }
}

/// What runs require that a host with these labels offers: the fewest hosts first, last nothing.
async fn required(c: &impl GenericClient, labels: &Labels) -> Result<Vec<String>, StoreError> {
    let mut offered = Vec::new();
    if !labels.0.is_empty() {
        let mut last = String::new();
        while let Some(found) = row(c, REQUIRED, &[&last]).await? {
            last = found.try_get(0)?;
            if last.parse().is_ok_and(|required| labels.offer(&required)) {
                offered.push(last.clone());
            }
        }
    }
    offered.push(String::new());
    Ok(offered)
}
