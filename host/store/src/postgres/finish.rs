//! The ends of leases in PostgreSQL. Every write here is fenced: it takes place only while the run's row
//! still names the host and the attempt.

use super::cancel::{CountsDown, Whose};
use super::connection::in_transaction;
use super::event_deliver::{self, End};
use super::gate::{Moves, lock_tasks, read_passage};
use super::quota::Stored;
use super::row::{At, Json, Small, execute, micros, rows, signed, text, unsigned};
use super::usage::{self, Logs};
use super::{Shard, Shared};
use crate::billing::{BillKey, Bills, of_end};
use crate::ending::{AfterLease, Ended, LeaseEnd, Leased};
use crate::gates::Gated;
use crate::{AttemptNews, Finish, StoreError};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::bill::Used;
use innkeeper_domain::failure::Failure;
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TenantId};
use innkeeper_domain::limits::STORED_BYTES_PER_LINE;
use innkeeper_domain::run::{Lease, LogLine, RunState};
use std::borrow::Cow;
use std::collections::HashMap;
use uuid::Uuid;

/// A leased run's row.
struct LeasedRow {
    lease: Lease,
    run: Leased,
    trigger: Option<Uuid>,
    watched: u32,
    key: Option<String>,
    available_at: Timestamp,
}

/// Locks the rows of those leases that hold.
async fn lock_leased(
    c: &impl GenericClient,
    leases: impl Iterator<Item = Lease>,
) -> Result<HashMap<Lease, LeasedRow>, StoreError> {
    let runs: Vec<Uuid> = leases.map(|lease| lease.run.0).collect();
    let found = rows(
        c,
        "SELECT r.id, r.host_id, r.attempt, r.started_at, r.cancel_requested, r.losses, r.nominal_at, r.task_id,
             r.trigger_id, r.tenant_id, octet_length(r.input)::bigint, n.deleted_at IS NOT NULL,
             r.backfill_id, r.gates, r.passed, r.hold, r.concurrency_key, r.available_at, n.watched
         FROM run r JOIN tenant n ON n.id = r.tenant_id
         WHERE r.id = ANY($1) AND r.state = 'running' ORDER BY r.id FOR NO KEY UPDATE OF r",
        &[&runs],
    )
    .await?;
    let mut leased = HashMap::with_capacity(found.len());
    for row in found {
        let lease = Lease {
            run: RunId(row.try_get(0)?),
            host: HostId(row.try_get(1)?),
            attempt: row.try_get::<_, Small>(2)?.0,
        };
        let run = Leased {
            started_at: row.try_get::<_, At>(3)?.0,
            cancel_requested: row.try_get(4)?,
            losses: row.try_get::<_, Small>(5)?.0,
            nominal_at: row.try_get::<_, At>(6)?.0,
            task: TaskId(row.try_get(7)?),
            tenant: TenantId(row.try_get(9)?),
            input_bytes: unsigned(row.try_get(10)?),
            tenant_deleted: row.try_get(11)?,
            backfill: row.try_get::<_, Option<_>>(12)?.map(BackfillId),
            passage: read_passage(&row, 13)?,
        };
        let (trigger, key) = (row.try_get(8)?, row.try_get(16)?);
        let available_at = row.try_get::<_, At>(17)?.0;
        let watched = row.try_get::<_, Small>(18)?.0;
        leased.insert(lease, LeasedRow { lease, run, trigger, key, available_at, watched });
    }
    Ok(leased)
}

/// What became of the run; or why not.
type Answer = Result<AfterLease, StoreError>;

/// Ends leases in the order given; an answer for each. One that doesn't hold is `LeaseLost`, and nothing is
/// written of it.
pub(super) async fn end_all(
    shared: &Shared,
    c: &impl GenericClient,
    shard: Shard,
    ends: &[(Lease, LeaseEnd<'_>, Timestamp)],
) -> Result<Vec<Answer>, StoreError> {
    let mut leased = lock_leased(c, ends.iter().map(|(lease, ..)| *lease)).await?;
    let (mut updates, mut attempts) = (Updates::default(), Attempts::default());
    let (mut lines, mut counts) = (Lines::default(), CountsDown::default());
    let mut moves = Moves::default();
    let (mut bills, mut logs, mut stored) = (Bills::default(), Logs::default(), Stored::default());
    let mut answers = Vec::with_capacity(ends.len());
    let mut over = Vec::new();
    for (lease, end, now) in ends {
        // Taken out, so that a second end of the same lease finds it lost.
        let Some(row) = leased.remove(lease) else {
            answers.push(Err(StoreError::LeaseLost));
            continue;
        };
        let ended = match row.run.end(*end, *now) {
            Err(StoreError::LeaseLost) => {
                answers.push(Err(StoreError::LeaseLost));
                continue;
            }
            ended => ended?,
        };
        if let LeaseEnd::Outcome(finish) = end {
            lines.push(row.run.tenant, lease.run, &finish.lines);
        }
        if ended.state.is_final() {
            let backfill = row.run.backfill.map(|id| id.0);
            let whose = Whose { task: row.run.task.0, trigger: row.trigger, backfill };
            counts.add(whose, ended.state, *now);
            let (run, task, state) = (lease.run, row.run.task.0, ended.state);
            over.push(End { run, task, state, watched: row.watched });
        }
        let (tenant, task, trigger) = (row.run.tenant, row.run.task, row.trigger);
        let of = Gated { tenant, task, trigger, key: row.key.as_deref() };
        let passages = (row.run.passage, row.run.passage_after(ended.state));
        moves.add(lease.run, &of, passages, ended.available_at.unwrap_or(row.available_at), None);
        if let (RunState::Succeeded, Some(trigger)) = (ended.state, row.trigger) {
            counts.succeeded(trigger, row.run.nominal_at);
        }
        let (bill, used) = (BillKey::of(row.run.tenant, row.run.task, *now), of_end(&row.run, &ended));
        if used != Used::default() {
            bills.add(bill, used);
        }
        if ended.billed().is_some() {
            logs.add(bill, *lease);
        }
        stored.add(row.run.tenant, signed(ended.output.map_or(0, |output| output.bytes.len() as u64)));
        answers.push(Ok(row.run.after(ended.state)));
        attempts.push(&row, &ended, *now);
        updates.push(row.lease.run, ended);
    }
    updates.write(c).await?;
    attempts.write(c).await?;
    lines.write(c, &mut stored).await?;
    if !moves.changes.is_empty() {
        lock_tasks(c, moves.tasks().chain(counts.tasks())).await?;
    }
    let followed = counts.write(c).await?;
    moves.write(c).await?;
    let now = ends.iter().map(|(.., now)| *now).max().unwrap_or_default();
    if event_deliver::runs_ended(c, &over, &followed, &mut stored, now).await? {
        answers.iter_mut().flatten().for_each(|after: &mut AfterLease| after.tells = true);
    }
    usage::write(shared, c, shard, &bills, &logs).await?;
    stored.write(shared, c, shard).await?;
    Ok(answers)
}

/// Commits the ends of attempts: all in one transaction.
pub(super) async fn finish_all(
    shared: &Shared,
    finishes: &[(Finish, Timestamp)],
) -> Result<Vec<Result<RunState, StoreError>>, StoreError> {
    let ends: Vec<_> = finishes.iter().map(|(f, now)| (f.lease, LeaseEnd::Outcome(f), *now)).collect();
    let answers = in_transaction!(&shared.pool, |c| end_all(shared, c, Shard::Ends, &ends).await?)?;
    shared.wakes.runs_changed(finishes.iter().map(|(finish, _)| finish.lease.run));
    let lets_begin =
        |after: &AfterLease| !after.state.is_final() || after.opens || shared.hints.makes_room(after.tenant);
    if answers.iter().flatten().any(lets_begin) {
        shared.wakes.runs_ready();
    }
    if answers.iter().flatten().any(|after| after.backfill.is_some()) {
        shared.wakes.backfills_changed();
    }
    if answers.iter().flatten().any(|after| after.tells) {
        shared.wakes.events_changed();
    }
    Ok(answers.into_iter().map(|answer| answer.map(|after| after.state)).collect())
}

/// Keeps what running attempts have said.
pub(super) async fn news(shared: &Shared, all: &[AttemptNews]) -> Result<(), StoreError> {
    in_transaction!(&shared.pool, |c| {
        let leased = lock_leased(c, all.iter().map(|news| news.lease)).await?;
        let (mut lines, mut stored) = (Lines::default(), Stored::default());
        for news in all {
            let Some(row) = leased.get(&news.lease).filter(|row| !row.run.tenant_deleted) else { continue };
            lines.push(row.run.tenant, news.lease.run, &news.lines);
            if let Some(progress) = &news.progress {
                let note = text(&progress.note);
                let progress = Json((progress.done, progress.total, note));
                execute(c, "UPDATE run SET progress = $2 WHERE id = $1", &[&news.lease.run.0, &progress])
                    .await?;
            }
        }
        lines.write(c, &mut stored).await?;
        stored.write(shared, c, Shard::Others).await?;
    })?;
    shared.wakes.runs_changed(all.iter().map(|news| news.lease.run));
    Ok(())
}

/// Changes of runs' rows, a column each.
#[derive(Default)]
struct Updates<'a> {
    ids: Vec<Uuid>,
    states: Vec<&'static str>,
    available_at: Vec<Option<At>>,
    finished_at: Vec<Option<At>>,
    output_types: Vec<Option<Cow<'a, str>>>,
    outputs: Vec<Option<&'a [u8]>>,
    on_record: Vec<bool>,
    failures: Failures,
    interrupted: Vec<bool>,
    lost: Vec<bool>,
}

impl<'a> Updates<'a> {
    fn push(&mut self, run: RunId, ended: Ended<'a>) {
        self.ids.push(run.0);
        self.states.push(ended.state.as_str());
        self.available_at.push(ended.available_at.map(At));
        self.finished_at.push(ended.finished_at.map(At));
        self.output_types.push(ended.output.map(|output| text(&output.content_type)));
        self.outputs.push(ended.output.map(|output| &output.bytes[..]));
        self.on_record.push(ended.attempt.is_some());
        self.failures.push(ended.failure.as_deref());
        self.interrupted.push(ended.interrupted);
        self.lost.push(ended.lost);
    }

    async fn write(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        if self.ids.is_empty() {
            return Ok(());
        }
        execute(
            c,
            "UPDATE run r SET state = e.state, available_at = coalesce(e.available_at, r.available_at),
                 finished_at = e.finished_at, output_type = e.output_type, output = e.output,
                 failure_kind = CASE WHEN e.on_record THEN e.failure_kind ELSE r.failure_kind END,
                 failure_code = CASE WHEN e.on_record THEN e.failure_code ELSE r.failure_code END,
                 failure_message = CASE WHEN e.on_record THEN e.failure_message ELSE r.failure_message END,
                 host_id = CASE WHEN e.interrupted THEN NULL ELSE r.host_id END,
                 interruptions = r.interruptions + e.interrupted::int, losses = r.losses + e.lost::int
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[], $7::bool[],
                 $8::text[], $9::text[], $10::text[], $11::bool[], $12::bool[])
                 AS e (id, state, available_at, finished_at, output_type, output, on_record, failure_kind,
                     failure_code, failure_message, interrupted, lost)
             WHERE r.id = e.id",
            &[
                &self.ids,
                &self.states,
                &self.available_at,
                &self.finished_at,
                &self.output_types,
                &self.outputs,
                &self.on_record,
                &self.failures.kinds,
                &self.failures.codes,
                &self.failures.messages,
                &self.interrupted,
                &self.lost,
            ],
        )
        .await?;
        Ok(())
    }
}

#[derive(Default)]
struct Failures {
    kinds: Vec<Option<&'static str>>,
    codes: Vec<Option<String>>,
    messages: Vec<Option<String>>,
}

impl Failures {
    fn push(&mut self, failure: Option<&Failure>) {
        self.kinds.push(failure.map(|f| f.kind.as_str()));
        self.codes.push(failure.map(|f| text(&f.code).into_owned()));
        self.messages.push(failure.map(|f| text(&f.message).into_owned()));
    }
}

/// Attempts to put on record, a column each.
#[derive(Default)]
struct Attempts {
    runs: Vec<Uuid>,
    numbers: Vec<Small>,
    hosts: Vec<Uuid>,
    started_at: Vec<At>,
    finished_at: Vec<At>,
    failures: Failures,
    cpus: Vec<i64>,
    walls: Vec<i64>,
    peaks: Vec<i64>,
}

impl Attempts {
    fn push(&mut self, row: &LeasedRow, ended: &Ended, now: Timestamp) {
        let Some(usage) = ended.attempt else { return };
        self.runs.push(row.lease.run.0);
        self.numbers.push(Small(row.lease.attempt));
        self.hosts.push(row.lease.host.0);
        self.started_at.push(At(row.run.started_at));
        self.finished_at.push(At(now));
        self.failures.push(ended.failure.as_deref());
        self.cpus.push(micros(usage.cpu));
        self.walls.push(micros(usage.wall));
        self.peaks.push(signed(usage.peak_memory));
    }

    async fn write(&self, c: &impl GenericClient) -> Result<(), StoreError> {
        if self.runs.is_empty() {
            return Ok(());
        }
        execute(
            c,
            "INSERT INTO attempt (run_id, number, host_id, started_at, finished_at, failure_kind, failure_code,
                 failure_message, wall, peak_memory, cpu)
             SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[],
                 $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[])",
            &[
                &self.runs,
                &self.numbers,
                &self.hosts,
                &self.started_at,
                &self.finished_at,
                &self.failures.kinds,
                &self.failures.codes,
                &self.failures.messages,
                &self.walls,
                &self.peaks,
                &self.cpus,
            ],
        )
        .await?;
        Ok(())
    }
}

/// Lines of logs, a column each.
#[derive(Default)]
struct Lines<'a> {
    tenants: HashMap<RunId, TenantId>,
    runs: Vec<Uuid>,
    attempts: Vec<Small>,
    sequences: Vec<Small>,
    at: Vec<At>,
    levels: Vec<Small>,
    texts: Vec<Cow<'a, str>>,
}

impl<'a> Lines<'a> {
    fn push(&mut self, tenant: TenantId, run: RunId, lines: &'a [LogLine]) {
        self.tenants.insert(run, tenant);
        for line in lines {
            self.runs.push(run.0);
            self.attempts.push(Small(line.attempt));
            self.sequences.push(Small(line.sequence));
            self.at.push(At(line.at));
            self.levels.push(Small(line.level.number().into()));
            self.texts.push(text(&line.text));
        }
    }

    /// Writes those that aren't there, and adds them to what is stored.
    async fn write(&self, c: &impl GenericClient, stored: &mut Stored) -> Result<(), StoreError> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let inserted = rows(
            c,
            "WITH inserted AS (
                 INSERT INTO run_log (run_id, attempt, sequence, at, level, text)
                 SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[])
                 ON CONFLICT DO NOTHING RETURNING run_id, text)
             SELECT run_id, sum(octet_length(text) + $7::bigint)::bigint FROM inserted GROUP BY run_id",
            &[
                &self.runs,
                &self.attempts,
                &self.sequences,
                &self.at,
                &self.levels,
                &self.texts,
                &signed(STORED_BYTES_PER_LINE),
            ],
        )
        .await?;
        for row in &inserted {
            if let Some(tenant) = self.tenants.get(&RunId(row.try_get(0)?)) {
                stored.add(*tenant, row.try_get(1)?);
            }
        }
        Ok(())
    }
}
