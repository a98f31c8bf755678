//! Runs whose time has passed, in SQLite: those that have not begun, and those that their host should have ended.

use super::cancel::{Unbegun, end_unbegun, read_unbegun};
use super::finish::end;
use super::row::{At, Id, signed};
use super::usage;
use crate::StoreError;
use crate::billing::{Bills, of_runs};
use crate::ending::{LeaseEnd, Passed};
use innkeeper_domain::ids::{BackfillId, HostId, RunId};
use innkeeper_domain::limits::OVERDUE_GRACE;
use innkeeper_domain::run::{Lease, RunEvent, RunState};
use innkeeper_domain::{Timestamp, time};
use rusqlite::{Connection, Row, ToSql, params};

/// What has not begun by its start deadline.
pub(super) const START: &str =
    "SELECT id, state, tenant_id, task_id, octet_length(input), gates, passed, hold, backfill_id, start_by FROM run
    WHERE start_by IS NOT NULL AND state = 'queued' AND started_at IS NULL AND start_by < ?1 ORDER BY start_by LIMIT ?2";

/// What isn't over by its deadline, or, if it executes, some time after that.
pub(super) const END: &str =
    "SELECT id, state, tenant_id, task_id, octet_length(input), gates, passed, hold, backfill_id, end_by, host_id, attempt
    FROM run
    WHERE end_by IS NOT NULL AND state IN ('queued', 'waiting', 'running') AND end_by <= ?1
        AND (state <> 'running' OR end_by <= ?3) ORDER BY end_by LIMIT ?2";

/// What executes though it was to be ended for a cancel by then.
pub(super) const CANCEL: &str = "SELECT id, host_id, attempt, backfill_id FROM run
    WHERE cancel_by IS NOT NULL AND state = 'running' AND cancel_by < ?1 ORDER BY cancel_by LIMIT ?2";

/// Whether there is any such run.
pub(super) fn any(c: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let parameters = params![At(now), 1, At(time::before(now, OVERDUE_GRACE))];
    Ok(c.prepare_cached(START)?.exists(&parameters[..2])?
        || c.prepare_cached(END)?.exists(parameters)?
        || c.prepare_cached(CANCEL)?.exists(&parameters[..2])?)
}

/// A run that has ended, and its backfill.
pub(super) type Expired = (RunId, Option<BackfillId>);

/// Ends up to so many of each.
pub(super) fn expire(c: &Connection, now: Timestamp, limit: usize) -> Result<Vec<Expired>, StoreError> {
    let parameters = params![At(now), signed(limit as u64), At(time::before(now, OVERDUE_GRACE))];
    let mut ended = Vec::new();
    let found = all(c, START, &parameters[..2], |row| {
        Ok((read_unbegun(row, now)?, backfill(row, 8)?, Passed::Start(row.get::<_, At>(9)?.0)))
    })?;
    let mut unbegun: Vec<(Unbegun, Option<BackfillId>, Passed)> = found;
    let mut overdue = all(c, CANCEL, &parameters[..2], |row| Ok((read_lease(row, 1)?, backfill(row, 3)?)))?;
    let found = all(c, END, parameters, |row| {
        let one = read_unbegun(row, now)?;
        let (backfill, by) = (backfill(row, 8)?, row.get::<_, At>(9)?.0);
        let lease = (one.state == RunState::Running).then(|| read_lease(row, 10)).transpose()?;
        Ok((one, backfill, Passed::End(by), lease))
    })?;
    for (one, backfill, passed, lease) in found {
        match lease {
            Some(lease) if overdue.iter().all(|(known, _)| *known != lease) => {
                overdue.push((lease, backfill))
            }
            Some(_) => {}
            None if unbegun.iter().all(|(known, ..)| known.run != one.run) => {
                unbegun.push((one, backfill, passed))
            }
            None => {}
        }
    }
    // Their events are in the order of their ids.
    unbegun.sort_by_key(|(one, ..)| one.run);
    overdue.sort_by_key(|(lease, _)| lease.run);
    let mut bills = Bills::default();
    for (one, backfill, passed) in &unbegun {
        fail(c, one, *passed, now)?;
        bills.add(one.bill, of_runs(1, one.input_bytes));
        ended.push((one.run, *backfill));
    }
    for (key, used) in &bills.0 {
        usage::bill(c, *key, used)?;
    }
    for (lease, backfill) in overdue {
        end(c, lease, LeaseEnd::Overdue, now)?;
        ended.push((lease.run, backfill));
    }
    Ok(ended)
}

fn fail(c: &Connection, one: &Unbegun, passed: Passed, now: Timestamp) -> Result<(), StoreError> {
    let failure = passed.failure();
    c.prepare_cached(
        "UPDATE run SET failure_kind = ?2, failure_code = ?3, failure_message = ?4 WHERE id = ?1",
    )?
    .execute(params![Id(one.run.0), failure.kind.as_str(), failure.code, failure.message])?;
    end_unbegun(c, one.run, one.state, one.passage, RunEvent::Expired, now)
}

fn all<T>(
    c: &Connection,
    sql: &str,
    parameters: &[&dyn ToSql],
    read: impl FnMut(&Row) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut list = c.prepare_cached(sql)?;
    let rows = list.query_map(parameters, read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn backfill(row: &Row, column: usize) -> rusqlite::Result<Option<BackfillId>> {
    Ok(row.get::<_, Option<Id>>(column)?.map(|id| BackfillId(id.0)))
}

/// The lease of the run in the first column, from host and attempt in two columns in a row.
fn read_lease(row: &Row, first: usize) -> rusqlite::Result<Lease> {
    let (run, host) = (RunId(row.get::<_, Id>(0)?.0), HostId(row.get::<_, Id>(first)?.0));
    Ok(Lease { run, host, attempt: row.get(first + 1)? })
}
