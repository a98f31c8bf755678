//! Runs in SQLite: started, read, cancelled. Claims and ends are in `claim` and `finish`.

use super::cancel::cancel;
use super::claim::{claim, next_ready};
use super::expire::{self, Expired};
use super::finish::{end, news};
use super::retry::retry;
use super::row::{At, Id, Json, Word, bad_token, in_states, labels, limit, of_kinds, paged, unsigned};
use super::writer::{ROW, Size};
use super::{SqliteStore, audit, gate, log, output, start, task, trigger};
use crate::ending::{AfterLease, LeaseEnd};
use crate::record;
use crate::reopen::in_order;
use crate::words::{hidden, is_over};
use crate::{
    AttemptNews, Cancelled, Finish, GateStatus, NewRun, OnRevision, Page, Paged, Retried, RunFilter,
    RunStore, StartError, Started, StoreError,
};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::failure::{Failure, Outcome, RetryAdvice, Usage};
use innkeeper_domain::gate::Passage;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TenantId};
use innkeeper_domain::limits::OUTPUT_PIECE_BYTES;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Attempt, Claimed, LogLine, Progress, Run, RunState};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::ToSql};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

#[async_trait]
impl RunStore for SqliteStore {
    async fn runs_start(
        &self,
        tenant: TenantId,
        starts: Vec<NewRun>,
        change: Change,
    ) -> Result<Vec<Result<Started, StartError>>, StoreError> {
        let now = change.now;
        let bytes = starts.iter().map(|one| ROW + one.input.bytes.len()).sum();
        let start = move |c: &Connection| {
            let results = start::start_all(c, tenant, &starts, now)?;
            if let Some((object, difference)) = record::starts(&starts, &results) {
                audit::record(c, &change, Some(tenant), || object, || difference)?;
            }
            Ok(results)
        };
        self.write_starts(bytes, start, |_| (true, &[])).await
    }

    async fn run_get(&self, tenant: TenantId, id: RunId) -> Result<Run, StoreError> {
        self.read(move |c| get(c, tenant, id)).await
    }

    async fn run_list(
        &self,
        tenant: TenantId,
        filter: RunFilter,
        page: Page,
    ) -> Result<Paged<Run>, StoreError> {
        self.read(move |c| list(c, tenant, &filter, &page)).await
    }

    async fn run_cancel(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError> {
        let now = change.now;
        let hints = Arc::clone(&self.hints);
        let cancel_it = move |c: &Connection| {
            let run = get(c, tenant, id)?;
            cancel(c, tenant, id, now)?;
            let after = get(c, tenant, id)?;
            if after != run {
                let difference = || (record::run(&run), record::run(&after));
                audit::record(c, &change, Some(tenant), || format!("run {id}"), difference)?;
            }
            Ok(after)
        };
        let wake = move |run: &Run| {
            hints.run_changed(run.id);
            hints.orders.notify_one();
        };
        self.writer.write(cancel_it, wake).await
    }

    async fn runs_cancel(
        &self,
        tenant: TenantId,
        ids: Vec<RunId>,
        change: Change,
    ) -> Result<Cancelled, StoreError> {
        let hints = Arc::clone(&self.hints);
        let cancel_all = move |c: &Connection| {
            let (mut cancelled, mut changed) = (Cancelled::default(), Vec::new());
            for id in in_order(ids) {
                match cancel(c, tenant, id, change.now)? {
                    Some(RunState::Queued | RunState::Waiting) => cancelled.ended += 1,
                    Some(RunState::Running) => cancelled.told += 1,
                    Some(RunState::Succeeded | RunState::Failed | RunState::Cancelled) | None => continue,
                }
                changed.push(id);
            }
            put_on_record(c, &change, tenant, "cancelled", &changed)?;
            Ok((cancelled, changed))
        };
        let wake = move |(_, changed): &(Cancelled, Vec<RunId>)| {
            changed.iter().for_each(|run| hints.run_changed(*run));
            hints.orders.notify_one();
            hints.backfills_changed.notify_one();
        };
        Ok(self.writer.write(cancel_all, wake).await?.0)
    }

    async fn runs_retry(
        &self,
        tenant: TenantId,
        ids: Vec<RunId>,
        on: OnRevision,
        change: Change,
    ) -> Result<Retried, StoreError> {
        let hints = Arc::clone(&self.hints);
        let retry = move |c: &Connection| {
            let retried = retry(c, tenant, ids, on, change.now)?;
            put_on_record(c, &change, tenant, "retried", &retried.reopened)?;
            Ok(retried)
        };
        let wake = move |retried: &Retried| {
            retried.reopened.iter().for_each(|run| hints.run_changed(*run));
            hints.runs_ready.notify_one();
        };
        self.writer.write(retry, wake).await
    }

    async fn runs_expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        // A look costs no commit, and there is seldom anything to do.
        if !self.read(move |c| expire::any(c, now)).await? {
            return Ok(0);
        }
        let hints = Arc::clone(&self.hints);
        let wake = move |expired: &Vec<Expired>| {
            expired.iter().for_each(|(run, _)| hints.run_changed(*run));
            hints.runs_ready.notify_one();
            if expired.iter().any(|(_, backfill)| backfill.is_some()) {
                hints.backfills_changed.notify_one();
            }
        };
        let expired = self.writer.write(move |c| expire::expire(c, now, limit), wake).await?;
        Ok(expired.len() as u64)
    }

    async fn run_pause(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError> {
        self.hold(tenant, id, change, Passage::pause).await
    }

    async fn run_resume(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError> {
        self.hold(tenant, id, change, Passage::resume).await
    }

    async fn gates_list(&self, tenant: TenantId, limit: usize) -> Result<Vec<GateStatus>, StoreError> {
        self.read(move |c| gate::list(c, tenant, limit)).await
    }

    async fn run_logs(
        &self,
        tenant: TenantId,
        id: RunId,
        after: (u32, u32),
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError> {
        self.read(move |c| {
            exists(c, tenant, id)?;
            log::read(c, id, after, limit)
        })
        .await
    }

    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        let labels = labels.clone();
        let hints = Arc::clone(&self.hints);
        let wake =
            move |claimed: &Vec<Claimed>| claimed.iter().for_each(|run| hints.run_changed(run.lease.run));
        let limits = Arc::clone(&self.hints);
        self.writer.write(move |c| claim(c, &limits, host, &labels, limit, now), wake).await
    }

    async fn runs_next_ready(
        &self,
        labels: &Labels,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let labels = labels.clone();
        self.read(move |c| next_ready(c, &labels, after)).await
    }

    async fn runs_news(&self, all: Vec<AttemptNews>) -> Result<(), StoreError> {
        let hints = Arc::clone(&self.hints);
        let runs: Vec<RunId> = all.iter().map(|news| news.lease.run).collect();
        let wake = move |(): &()| runs.iter().for_each(|run| hints.run_changed(*run));
        let bytes = all.iter().map(AttemptNews::cost).sum();
        self.writer
            .write_sized(Size::of_part(bytes), move |c| all.iter().try_for_each(|one| news(c, one)), wake)
            .await
    }

    async fn run_finish_if_leased(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError> {
        let hints = Arc::clone(&self.hints);
        let run = finish.lease.run;
        let wake = move |after: &AfterLease| {
            hints.run_changed(run);
            if !after.state.is_final() || after.opens || hints.makes_room(after.tenant) {
                hints.runs_ready.notify_one();
            }
            if after.backfill.is_some() {
                hints.backfills_changed.notify_one();
            }
            if after.tells {
                hints.events_changed();
            }
        };
        let finish = Arc::new(finish);
        let mut bytes = finish.lines.iter().map(LogLine::cost).sum::<usize>();
        if let Outcome::Output(output) = &finish.end.outcome {
            bytes += output::first(&output.bytes).len();
            for piece in output::further(output.bytes.len()) {
                let finish = Arc::clone(&finish);
                let store = move |c: &Connection| output::store(c, &finish, piece);
                self.writer.write_sized(Size::of_part(OUTPUT_PIECE_BYTES), store, |()| ()).await?;
            }
        }
        let end = move |c: &Connection| end(c, finish.lease, LeaseEnd::Outcome(&finish), now);
        self.writer.write_sized(Size::of(bytes), end, wake).await.map(|after| after.state)
    }
}

impl SqliteStore {
    /// Changes where an unfinished run stands, by whether it executes.
    async fn hold(
        &self,
        tenant: TenantId,
        id: RunId,
        change: Change,
        next: fn(Passage, bool) -> Passage,
    ) -> Result<Run, StoreError> {
        let hints = Arc::clone(&self.hints);
        let hold = move |c: &Connection| {
            let run = get(c, tenant, id)?;
            if run.state.is_final() {
                return Err(is_over(id, run.state));
            }
            let passage = next(run.passage, run.state == RunState::Running);
            gate::go(c, id, (run.passage, passage), run.available_at)?;
            let after = get(c, tenant, id)?;
            if after != run {
                let difference = || (record::run(&run), record::run(&after));
                audit::record(c, &change, Some(tenant), || format!("run {id}"), difference)?;
            }
            Ok(after)
        };
        let wake = move |run: &Run| {
            hints.run_changed(run.id);
            hints.runs_ready.notify_one();
        };
        self.writer.write(hold, wake).await
    }
}

/// Columns of a run's row that [`read_run`] reads; payloads are added where they are wanted.
const COLUMNS: &str = "r.id, r.task_id, t.name, r.revision, g.name, r.nominal_at, r.state, r.attempt,
    r.idempotency_key, r.failure_kind, r.failure_code, r.failure_message, r.progress, r.cancel_requested,
    r.created_at, r.available_at, r.started_at, r.finished_at, r.backfill_id, r.start_by, r.end_by, r.reopened_at,
    r.labels, r.priority, r.concurrency_key, r.gates, r.passed, r.hold";
const TABLES: &str = "FROM run r JOIN task t ON t.id = r.task_id LEFT JOIN trigger g ON g.id = r.trigger_id";

fn read_run(row: &Row) -> rusqlite::Result<Run> {
    let at = |column| row.get::<_, Option<At>>(column).map(|at| at.map(|at| at.0));
    Ok(Run {
        id: RunId(row.get::<_, Id>(0)?.0),
        task_id: TaskId(row.get::<_, Id>(1)?.0),
        task: row.get::<_, Word<_>>(2)?.0,
        revision: row.get(3)?,
        trigger: row.get::<_, Option<Word<_>>>(4)?.map(|name| name.0),
        backfill: row.get::<_, Option<Id>>(18)?.map(|id| BackfillId(id.0)),
        nominal_at: row.get::<_, At>(5)?.0,
        state: row.get::<_, Word<_>>(6)?.0,
        attempt: row.get(7)?,
        idempotency_key: row.get(8)?,
        priority: row.get(23)?,
        concurrency_key: row.get(24)?,
        passage: gate::read_passage(row, 25)?,
        waits_for: None,
        input: Payload::default(),
        output: None,
        failure: read_failure(row, 9)?,
        progress: row
            .get::<_, Option<Json<(u64, Option<u64>, String)>>>(12)?
            .map(|Json((done, total, note))| Progress { done, total, note }),
        cancel_requested: row.get(13)?,
        created_at: row.get::<_, At>(14)?.0,
        available_at: row.get::<_, At>(15)?.0,
        started_at: at(16)?,
        finished_at: at(17)?,
        start_by: at(19)?,
        end_by: at(20)?,
        reopened_at: at(21)?,
        labels: Labels::of_written(row.get_ref(22)?.as_str()?),
        attempts: Vec::new(),
    })
}

/// Reads kind, code and message from three columns in a row.
fn read_failure(row: &Row, first: usize) -> rusqlite::Result<Option<Failure>> {
    let Some(Word(kind)) = row.get::<_, Option<Word<_>>>(first)? else { return Ok(None) };
    let (code, message) = (row.get(first + 1)?, row.get(first + 2)?);
    Ok(Some(Failure { kind, code, message, retry: RetryAdvice::ByPolicy }))
}

fn exists(c: &Connection, tenant: TenantId, id: RunId) -> Result<(), StoreError> {
    let mut get = c.prepare_cached("SELECT 1 FROM run WHERE id = ?1 AND tenant_id = ?2")?;
    let found = get.exists(params![Id(id.0), Id(tenant.0)])?;
    if found { Ok(()) } else { Err(StoreError::NotFound(format!("run {id}"))) }
}

/// The tenant's run of that id, with its payloads and attempts.
fn get(c: &Connection, tenant: TenantId, id: RunId) -> Result<Run, StoreError> {
    let mut get = c.prepare_cached(&format!(
        "SELECT {COLUMNS}, r.input_type, r.input, r.output_type, r.output {TABLES}
         WHERE r.id = ?1 AND r.tenant_id = ?2"
    ))?;
    let found = get.query_row(params![Id(id.0), Id(tenant.0)], |row| {
        let mut run = read_run(row)?;
        run.input = Payload { content_type: row.get(28)?, bytes: row.get(29)? };
        if let Some(content_type) = row.get(30)? {
            run.output = Some(Payload { content_type, bytes: row.get(31)? });
        }
        Ok(run)
    });
    let mut run = found.optional()?.ok_or_else(|| StoreError::NotFound(format!("run {id}")))?;
    if let Some(output) = &mut run.output {
        output::add_further(c, id, &mut output.bytes)?;
    }
    run.waits_for = gate::waits_for(c, id, run.passage.hold)?;
    let mut attempts = c.prepare_cached(
        "SELECT number, host_id, started_at, finished_at, failure_kind, failure_code, failure_message, wall,
             peak_memory, cpu
         FROM attempt WHERE run_id = ?1 ORDER BY number",
    )?;
    let rows = attempts.query_map([Id(id.0)], |row| {
        Ok(Attempt {
            number: row.get(0)?,
            host: HostId(row.get::<_, Id>(1)?.0),
            started_at: row.get::<_, At>(2)?.0,
            finished_at: row.get::<_, At>(3)?.0,
            failure: read_failure(row, 4)?,
            usage: Usage {
                cpu: Duration::from_micros(unsigned(row.get(9)?)),
                wall: Duration::from_micros(unsigned(row.get(7)?)),
                peak_memory: unsigned(row.get(8)?),
            },
        })
    })?;
    run.attempts = rows.collect::<Result<_, _>>()?;
    Ok(run)
}

/// That a run has a label, written as [`labels`] does. Said twice for the planner: those without any aren't looked at.
pub(super) const LABELLED: &str = "r.labels <> '' AND instr(',' || r.labels || ',', ?) > 0";

fn put_on_record(
    c: &Connection,
    change: &Change,
    tenant: TenantId,
    what: &'static str,
    runs: &[RunId],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let (object, difference) = record::runs(what, runs);
    audit::record(c, change, Some(tenant), || object, || difference)
}

fn list(c: &Connection, tenant: TenantId, filter: &RunFilter, page: &Page) -> Result<Paged<Run>, StoreError> {
    let mut sql = format!("SELECT {COLUMNS} {TABLES} WHERE r.tenant_id = ?");
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(Id(tenant.0))];
    if let Some(name) = &filter.task {
        if hidden(&filter.only, name) {
            return Err(StoreError::NotFound(format!("task `{name}`")));
        }
        sql.push_str(" AND r.task_id = ?");
        values.push(Box::new(Id(task::get(c, tenant, name)?.id.0)));
    }
    if let Some(name) = &filter.trigger {
        let trigger = trigger::get(c, tenant, name)?;
        if hidden(&filter.only, &trigger.task) {
            return Err(StoreError::NotFound(format!("trigger `{name}`")));
        }
        sql.push_str(" AND r.trigger_id = ?");
        values.push(Box::new(Id(trigger.id.0)));
    }
    if let Some(only) = &filter.only {
        sql.push_str(" AND t.name IN (SELECT value FROM json_each(?))");
        values.push(Box::new(Json(only.clone())));
    }
    if let Some(condition) = in_states(&filter.states) {
        sql.push_str(&format!(" AND {condition}"));
    }
    if let Some(condition) = of_kinds(&filter.failure_kinds) {
        sql.push_str(&format!(" AND {condition}"));
    }
    if let Some(since) = filter.ended_since {
        sql.push_str(" AND r.finished_at >= ?");
        values.push(Box::new(At(since)));
    }
    for label in labels(&filter.labels) {
        sql.push_str(&format!(" AND {LABELLED}"));
        values.push(Box::new(label));
    }
    if let Some(token) = &page.after {
        sql.push_str(" AND r.id < ?");
        values.push(Box::new(Id(Uuid::parse_str(token).map_err(|_| bad_token())?)));
    }
    sql.push_str(" ORDER BY r.id DESC LIMIT ?");
    values.push(Box::new(limit(page)));
    let mut list = c.prepare_cached(&sql)?;
    let rows = list.query_map(params_from_iter(values), read_run)?;
    Ok(paged(rows.collect::<Result<_, _>>()?, page, |last: &Run| last.id.to_string()))
}
