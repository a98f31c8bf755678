//! The ends of attempts in SQLite. Every write here is fenced: it takes place only while the run's row
//! still names the host and the attempt.

use super::cancel::count_down;
use super::gate::read_passage;
use super::row::{At, Id, Json, micros, signed, unsigned};
use super::{gate, log, output, quota, usage};
use crate::billing::{BillKey, of_end};
use crate::ending::{AfterLease, Ended, LeaseEnd, Leased};
use crate::{AttemptNews, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::bill::Used;
use innkeeper_domain::ids::{BackfillId, TaskId, TenantId};
use innkeeper_domain::run::{Lease, RunState};
use rusqlite::{Connection, OptionalExtension, params};

/// A leased run's row, and when it was available.
fn leased(c: &Connection, lease: Lease) -> Result<(Leased, Timestamp), StoreError> {
    let mut get = c.prepare_cached(
        "SELECT r.started_at, r.cancel_requested, r.losses, r.nominal_at, r.tenant_id, r.task_id,
             octet_length(r.input), n.deleted_at IS NOT NULL, r.backfill_id,
             r.gates, r.passed, r.hold, r.available_at
         FROM run r JOIN tenant n ON n.id = r.tenant_id
         WHERE r.id = ?1 AND r.host_id = ?2 AND r.attempt = ?3 AND r.state = 'running'",
    )?;
    let row = get.query_row(params![Id(lease.run.0), Id(lease.host.0), lease.attempt], |row| {
        let leased = Leased {
            started_at: row.get::<_, At>(0)?.0,
            cancel_requested: row.get(1)?,
            losses: row.get(2)?,
            nominal_at: row.get::<_, At>(3)?.0,
            tenant: TenantId(row.get::<_, Id>(4)?.0),
            task: TaskId(row.get::<_, Id>(5)?.0),
            input_bytes: unsigned(row.get(6)?),
            tenant_deleted: row.get(7)?,
            backfill: row.get::<_, Option<Id>>(8)?.map(|id| BackfillId(id.0)),
            passage: read_passage(row, 9)?,
        };
        Ok((leased, row.get::<_, At>(12)?.0))
    });
    row.optional()?.ok_or(StoreError::LeaseLost)
}

/// Ends a lease, and says what became of its run. `LeaseLost`: nothing was written. The further pieces of an output
/// are there already.
pub(super) fn end(
    c: &Connection,
    lease: Lease,
    end: LeaseEnd,
    now: Timestamp,
) -> Result<AfterLease, StoreError> {
    let (run, available_at) = leased(c, lease)?;
    let ended = run.end(end, now)?;
    record_attempt(c, lease, run.started_at, &ended, now)?;
    let mut stored = ended.output.map_or(0, |output| output.bytes.len() as u64);
    if let LeaseEnd::Outcome(finish) = end {
        stored += log::add(c, lease.run, &finish.lines)?;
    }
    quota::store(c, run.tenant, signed(stored))?;
    let mut used = of_end(&run, &ended);
    if ended.billed().is_some() {
        used.log_bytes = log::bytes(c, lease.run, lease.attempt)?;
    }
    if used != Used::default() {
        usage::bill(c, BillKey::of(run.tenant, run.task, now), &used)?;
    }
    if ended.output.is_none() {
        output::delete_further(c, lease.run)?;
    }
    let failure = ended.failure.as_deref();
    c.prepare_cached(
        "UPDATE run SET state = ?2, available_at = coalesce(?3, available_at), finished_at = ?4,
             output_type = ?5, output = ?6, failure_kind = CASE WHEN ?7 THEN ?8 ELSE failure_kind END,
             failure_code = CASE WHEN ?7 THEN ?9 ELSE failure_code END,
             failure_message = CASE WHEN ?7 THEN ?10 ELSE failure_message END,
             host_id = CASE WHEN ?11 THEN NULL ELSE host_id END, interruptions = interruptions + ?11,
             losses = losses + ?12
         WHERE id = ?1",
    )?
    .execute(params![
        Id(lease.run.0),
        ended.state.as_str(),
        ended.available_at.map(At),
        ended.finished_at.map(At),
        ended.output.map(|output| &output.content_type),
        ended.output.map(|output| output::first(&output.bytes)),
        ended.attempt.is_some(),
        failure.map(|f| f.kind.as_str()),
        failure.map(|f| &f.code),
        failure.map(|f| &f.message),
        ended.interrupted,
        ended.lost,
    ])?;
    if ended.state == RunState::Succeeded {
        c.prepare_cached(
            "UPDATE trigger SET last_success_nominal = max(coalesce(last_success_nominal, ?2), ?2)
             WHERE id = (SELECT trigger_id FROM run WHERE id = ?1)",
        )?
        .execute(params![Id(lease.run.0), At(run.nominal_at)])?;
    }
    let passages = (run.passage, run.passage_after(ended.state));
    gate::go(c, lease.run, passages, ended.available_at.unwrap_or(available_at))?;
    let tells = ended.state.is_final() && count_down(c, lease.run, ended.state, now)?;
    Ok(AfterLease { tells, ..run.after(ended.state) })
}

/// Keeps what a running attempt has said.
pub(super) fn news(c: &Connection, news: &AttemptNews) -> Result<(), StoreError> {
    let (run, _) = match leased(c, news.lease) {
        Err(StoreError::LeaseLost) => return Ok(()),
        run => run?,
    };
    if run.tenant_deleted {
        return Ok(());
    }
    let stored = log::add(c, news.lease.run, &news.lines)?;
    quota::store(c, run.tenant, signed(stored))?;
    if let Some(progress) = &news.progress {
        c.prepare_cached("UPDATE run SET progress = ?2 WHERE id = ?1")?
            .execute(params![Id(news.lease.run.0), Json((progress.done, progress.total, &progress.note))])?;
    }
    Ok(())
}

fn record_attempt(
    c: &Connection,
    lease: Lease,
    started_at: Timestamp,
    ended: &Ended,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(usage) = ended.attempt else { return Ok(()) };
    let failure = ended.failure.as_deref();
    c.prepare_cached(
        "INSERT INTO attempt (run_id, number, host_id, started_at, finished_at, failure_kind, failure_code,
             failure_message, wall, peak_memory, cpu)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        Id(lease.run.0),
        lease.attempt,
        Id(lease.host.0),
        At(started_at),
        At(now),
        failure.map(|f| f.kind.as_str()),
        failure.map(|f| &f.code),
        failure.map(|f| &f.message),
        micros(usage.wall),
        signed(usage.peak_memory),
        micros(usage.cpu),
    ])?;
    Ok(())
}
