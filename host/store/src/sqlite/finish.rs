//! The ends of attempts in SQLite. Every write here is fenced: it takes place only while the run's row
//! still names the host and the attempt.

use super::cancel::count_down;
use super::row::{At, Id, Json, micros, signed};
use crate::{AttemptNews, Finish, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::HOST_LOSSES_MAX;
use innkeeper_domain::run::{Lease, LogLine, RunEvent, RunState};
use rusqlite::{Connection, OptionalExtension, params};

/// A leased run's row, as far as its end needs it.
struct Leased {
    started_at: Timestamp,
    cancel_requested: bool,
    losses: u32,
    nominal_at: Timestamp,
}

fn leased(c: &Connection, lease: Lease) -> Result<Leased, StoreError> {
    let mut get = c.prepare_cached(
        "SELECT started_at, cancel_requested, losses, nominal_at FROM run
         WHERE id = ?1 AND host_id = ?2 AND attempt = ?3 AND state = 'running'",
    )?;
    let row = get.query_row(params![Id(lease.run.0), Id(lease.host.0), lease.attempt], |row| {
        Ok(Leased {
            started_at: row.get::<_, At>(0)?.0,
            cancel_requested: row.get(1)?,
            losses: row.get(2)?,
            nominal_at: row.get::<_, At>(3)?.0,
        })
    });
    row.optional()?.ok_or(StoreError::LeaseLost)
}

/// Commits the end of an attempt.
pub(super) fn finish(c: &Connection, end: &Finish, now: Timestamp) -> Result<RunState, StoreError> {
    let run = leased(c, end.lease)?;
    let event = RunEvent::of_attempt(&end.end.outcome, end.again_at.is_some(), run.cancel_requested);
    let state = next(event)?;
    record_attempt(c, end.lease, run.started_at, &end.end, now)?;
    write_lines(c, end.lease.run, &end.lines)?;
    let again_at = end.again_at.filter(|_| state == RunState::Waiting);
    let finished_at = Some(now).filter(|_| state.is_final());
    match &end.end.outcome {
        Outcome::Output(output) => c
            .prepare_cached(
                "UPDATE run SET state = ?2, finished_at = ?3, output_type = ?4, output = ?5, failure_kind = NULL,
                     failure_code = NULL, failure_message = NULL WHERE id = ?1",
            )?
            .execute(params![
                Id(end.lease.run.0),
                state.as_str(),
                finished_at.map(At),
                output.content_type,
                output.bytes
            ])?,
        Outcome::Failure(failure) => c
            .prepare_cached(
                "UPDATE run SET state = ?2, finished_at = ?3, available_at = coalesce(?4, available_at),
                     failure_kind = ?5, failure_code = ?6, failure_message = ?7 WHERE id = ?1",
            )?
            .execute(params![
                Id(end.lease.run.0),
                state.as_str(),
                finished_at.map(At),
                again_at.map(At),
                failure.kind.as_str(),
                failure.code,
                failure.message,
            ])?,
    };
    if state == RunState::Succeeded {
        c.prepare_cached(
            "UPDATE trigger SET last_success_nominal = max(coalesce(last_success_nominal, ?2), ?2)
             WHERE id = (SELECT trigger_id FROM run WHERE id = ?1)",
        )?
        .execute(params![Id(end.lease.run.0), At(run.nominal_at)])?;
    }
    if state.is_final() {
        count_down(c, end.lease.run)?;
    }
    Ok(state)
}

/// Hands a run back without an outcome.
pub(super) fn release(c: &Connection, lease: Lease, now: Timestamp) -> Result<(), StoreError> {
    leased(c, lease)?;
    let state = next(RunEvent::LeaseEnded { again: true })?;
    c.prepare_cached(
        "UPDATE run SET state = ?2, host_id = NULL, interruptions = interruptions + 1, available_at = ?3
         WHERE id = ?1",
    )?
    .execute(params![Id(lease.run.0), state.as_str(), At(now)])?;
    Ok(())
}

/// Takes a run from a host that was lost: it is ready again, or failed after too many losses.
pub(super) fn lose(c: &Connection, lease: Lease, now: Timestamp) -> Result<(), StoreError> {
    let run = leased(c, lease)?;
    let again = run.losses + 1 < HOST_LOSSES_MAX && !run.cancel_requested;
    let state = if run.cancel_requested {
        next(RunEvent::AttemptCancelled)?
    } else {
        next(RunEvent::LeaseEnded { again })?
    };
    let message = format!("the host was lost while the attempt ran (loss {} of this run)", run.losses + 1);
    let failure = Failure::new(FailureKind::HostLost, message);
    let end = AttemptEnd { outcome: Outcome::Failure(failure.clone()), usage: Usage::default() };
    record_attempt(c, lease, run.started_at, &end, now)?;
    c.prepare_cached(
        "UPDATE run SET state = ?2, host_id = NULL, interruptions = interruptions + 1, losses = losses + 1,
             available_at = ?3, finished_at = ?4, failure_kind = ?5, failure_code = ?6, failure_message = ?7
         WHERE id = ?1",
    )?
    .execute(params![
        Id(lease.run.0),
        state.as_str(),
        At(now),
        Some(now).filter(|_| state.is_final()).map(At),
        failure.kind.as_str(),
        failure.code,
        failure.message,
    ])?;
    if state.is_final() {
        count_down(c, lease.run)?;
    }
    Ok(())
}

/// Keeps what a running attempt has said.
pub(super) fn news(c: &Connection, news: &AttemptNews) -> Result<(), StoreError> {
    match leased(c, news.lease) {
        Err(StoreError::LeaseLost) => return Ok(()),
        run => run?,
    };
    write_lines(c, news.lease.run, &news.lines)?;
    if let Some(progress) = &news.progress {
        c.prepare_cached("UPDATE run SET progress = ?2 WHERE id = ?1")?
            .execute(params![Id(news.lease.run.0), Json((progress.done, progress.total, &progress.note))])?;
    }
    Ok(())
}

fn next(event: RunEvent) -> Result<RunState, StoreError> {
    RunState::Running.next(event).map_err(|e| StoreError::Conflict(e.to_string()))
}

fn record_attempt(
    c: &Connection,
    lease: Lease,
    started_at: Timestamp,
    end: &AttemptEnd,
    now: Timestamp,
) -> Result<(), StoreError> {
    let failure = match &end.outcome {
        Outcome::Output(_) => None,
        Outcome::Failure(failure) => Some(failure),
    };
    c.prepare_cached(
        "INSERT INTO attempt (run_id, number, host_id, started_at, finished_at, failure_kind, failure_code,
             failure_message, wall, peak_memory)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
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
        micros(end.usage.wall),
        signed(end.usage.peak_memory),
    ])?;
    Ok(())
}

fn write_lines(c: &Connection, run: RunId, lines: &[LogLine]) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut insert = c.prepare_cached(
        "INSERT INTO run_log (run_id, attempt, sequence, at, level, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
    )?;
    for line in lines {
        insert.execute(params![
            Id(run.0),
            line.attempt,
            line.sequence,
            At(line.at),
            line.level.number(),
            line.text
        ])?;
    }
    Ok(())
}
