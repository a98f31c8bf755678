//! Runs in PostgreSQL: started, read, cancelled. Claims and ends are in `claim` and `finish`.

use super::cancel::cancel;
use super::connection::{in_transaction, reading};
use super::retry::retry;
use super::row::{
    At, Json, Small, Word, bad_token, in_states, labels, limit, of_kinds, paged, row, rows, unsigned,
};
use super::{PostgresStore, audit, claim, expire, finish, gate, task, trigger};
use crate::gates::Gated;
use crate::record;
use crate::reopen::in_order;
use crate::words::{hidden, is_over};
use crate::{
    AttemptNews, Cancelled, Finish, GateStatus, NewRun, OnRevision, Page, Paged, Retried, RunFilter,
    RunStore, StartError, Started, StoreError,
};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::failure::{Failure, RetryAdvice, Usage};
use innkeeper_domain::gate::{Hold, Passage};
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::{BackfillId, HostId, RunId, TaskId, TenantId};
use innkeeper_domain::payload::Payload;
use innkeeper_domain::run::{Attempt, Claimed, LogLevel, LogLine, Progress, Run, RunState};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

#[async_trait]
impl RunStore for PostgresStore {
    async fn runs_start(
        &self,
        tenant: TenantId,
        starts: Vec<NewRun>,
        change: Change,
    ) -> Result<Vec<Result<Started, StartError>>, StoreError> {
        self.starts.call((tenant, starts, change)).await
    }

    async fn run_get(&self, tenant: TenantId, id: RunId) -> Result<Run, StoreError> {
        reading!(&self.shared.pool, |c| get(c, tenant, id).await?)
    }

    async fn run_list(
        &self,
        tenant: TenantId,
        filter: RunFilter,
        page: Page,
    ) -> Result<Paged<Run>, StoreError> {
        reading!(&self.shared.pool, |c| list(c, tenant, &filter, &page).await?)
    }

    async fn run_cancel(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError> {
        let now = change.now;
        let run = in_transaction!(&self.shared.pool, |c| {
            let lock = "SELECT 1 FROM run WHERE id = $1 AND tenant_id = $2 FOR NO KEY UPDATE";
            row(c, lock, &[&id.0, &tenant.0]).await?.ok_or_else(|| missing(id))?;
            let before = get(c, tenant, id).await?;
            cancel(&self.shared, c, tenant, &[id], now).await?;
            let after = get(c, tenant, id).await?;
            if after != before {
                let difference = (record::run(&before), record::run(&after));
                audit::record(c, &change, Some(tenant), format!("run {id}"), difference).await?;
            }
            after
        })?;
        self.shared.wakes.runs_changed([id]);
        self.shared.wakes.orders();
        Ok(run)
    }

    async fn runs_cancel(
        &self,
        tenant: TenantId,
        ids: Vec<RunId>,
        change: Change,
    ) -> Result<Cancelled, StoreError> {
        let (ended, told) = in_transaction!(&self.shared.pool, |c| {
            let (ended, told) = cancel(&self.shared, c, tenant, &ids, change.now).await?;
            let changed = in_order([&ended[..], &told].concat());
            put_on_record(c, &change, tenant, "cancelled", &changed).await?;
            (ended, told)
        })?;
        let cancelled = Cancelled { ended: ended.len() as u64, told: told.len() as u64 };
        self.shared.wakes.runs_changed(ended.into_iter().chain(told));
        self.shared.wakes.orders();
        self.shared.wakes.backfills_changed();
        Ok(cancelled)
    }

    async fn runs_retry(
        &self,
        tenant: TenantId,
        ids: Vec<RunId>,
        on: OnRevision,
        change: Change,
    ) -> Result<Retried, StoreError> {
        let retried = in_transaction!(&self.shared.pool, |c| {
            let retried = retry(&self.shared, c, tenant, ids.clone(), on, change.now).await?;
            put_on_record(c, &change, tenant, "retried", &retried.reopened).await?;
            retried
        })?;
        self.shared.wakes.runs_changed(retried.reopened.iter().copied());
        self.shared.wakes.runs_ready();
        Ok(retried)
    }

    async fn runs_expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        expire::expire(&self.shared, now, limit).await
    }

    async fn run_pause(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError> {
        self.hold(tenant, id, change, Passage::pause).await
    }

    async fn run_resume(&self, tenant: TenantId, id: RunId, change: Change) -> Result<Run, StoreError> {
        self.hold(tenant, id, change, Passage::resume).await
    }

    async fn gates_list(&self, tenant: TenantId, limit: usize) -> Result<Vec<GateStatus>, StoreError> {
        reading!(&self.shared.pool, |c| gate::list(c, tenant, limit).await?)
    }

    async fn run_logs(
        &self,
        tenant: TenantId,
        id: RunId,
        after: (u32, u32),
        limit: usize,
    ) -> Result<Vec<LogLine>, StoreError> {
        reading!(&self.shared.pool, |c| {
            let exists = "SELECT 1 FROM run WHERE id = $1 AND tenant_id = $2";
            row(c, exists, &[&id.0, &tenant.0]).await?.ok_or_else(|| missing(id))?;
            let found = rows(
                c,
                "SELECT attempt, sequence, at, level, text FROM run_log
                 WHERE run_id = $1 AND (attempt, sequence) > ($2, $3) ORDER BY attempt, sequence LIMIT $4",
                &[&id.0, &Small(after.0), &Small(after.1), &i64::try_from(limit).unwrap_or(i64::MAX)],
            )
            .await?;
            let read = |row: &Row| {
                Ok::<_, StoreError>(LogLine {
                    attempt: row.try_get::<_, Small>(0)?.0,
                    sequence: row.try_get::<_, Small>(1)?.0,
                    at: row.try_get::<_, At>(2)?.0,
                    level: LogLevel::from_number(
                        u8::try_from(row.try_get::<_, Small>(3)?.0).unwrap_or(u8::MAX),
                    ),
                    text: row.try_get(4)?,
                })
            };
            found.iter().map(read).collect::<Result<_, _>>()?
        })
    }

    async fn runs_claim(
        &self,
        host: HostId,
        labels: &Labels,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        claim::claim(&self.shared, host, labels, limit, now).await
    }

    async fn runs_next_ready(
        &self,
        labels: &Labels,
        after: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        claim::next_ready(&self.shared, labels, after).await
    }

    async fn runs_news(&self, all: Vec<AttemptNews>) -> Result<(), StoreError> {
        finish::news(&self.shared, &all).await
    }

    async fn run_finish_if_leased(&self, finish: Finish, now: Timestamp) -> Result<RunState, StoreError> {
        self.finishes.call((finish, now)).await
    }
}

impl PostgresStore {
    /// Changes where an unfinished run stands, by whether it executes.
    async fn hold(
        &self,
        tenant: TenantId,
        id: RunId,
        change: Change,
        next: fn(Passage, bool) -> Passage,
    ) -> Result<Run, StoreError> {
        let run = in_transaction!(&self.shared.pool, |c| {
            let lock = "SELECT trigger_id FROM run WHERE id = $1 AND tenant_id = $2 FOR NO KEY UPDATE";
            let found = row(c, lock, &[&id.0, &tenant.0]).await?.ok_or_else(|| missing(id))?;
            let before = get(c, tenant, id).await?;
            if before.state.is_final() {
                return Err(is_over(id, before.state));
            }
            let passage = next(before.passage, before.state == RunState::Running);
            gate::lock_tasks(c, [before.task_id.0]).await?;
            let gates = match passage.hold {
                // Its gate may have gone while it was paused.
                Hold::At(_) => Some(gate::of_task(c, before.task_id).await?),
                Hold::Free | Hold::ByHand => None,
            };
            let (task, key) = (before.task_id, before.concurrency_key.as_deref());
            let of = Gated { tenant, task, trigger: found.try_get(0)?, key };
            let mut moves = gate::Moves::default();
            moves.add(id, &of, (before.passage, passage), before.available_at, gates.as_ref());
            moves.write(c).await?;
            let after = get(c, tenant, id).await?;
            if after != before {
                let difference = (record::run(&before), record::run(&after));
                audit::record(c, &change, Some(tenant), format!("run {id}"), difference).await?;
            }
            after
        })?;
        self.shared.wakes.runs_changed([id]);
        self.shared.wakes.runs_ready();
        Ok(run)
    }
}

fn missing(run: RunId) -> StoreError {
    StoreError::NotFound(format!("run {run}"))
}

/// Columns of a run's row that [`read_run`] reads; payloads are added where they are wanted.
const COLUMNS: &str = "r.id, r.task_id, t.name, r.revision, g.name, r.nominal_at, r.state, r.attempt,
    r.idempotency_key, r.failure_kind, r.failure_code, r.failure_message, r.progress, r.cancel_requested,
    r.created_at, r.available_at, r.started_at, r.finished_at, r.backfill_id, r.start_by, r.end_by, r.reopened_at,
    r.labels, r.priority, r.concurrency_key, r.gates, r.passed, r.hold";
const TABLES: &str = "FROM run r JOIN task t ON t.id = r.task_id LEFT JOIN trigger g ON g.id = r.trigger_id";

fn read_run(row: &Row) -> Result<Run, StoreError> {
    let at = |column: usize| row.try_get::<_, Option<At>>(column).map(|at| at.map(|at| at.0));
    Ok(Run {
        id: RunId(row.try_get(0)?),
        task_id: TaskId(row.try_get(1)?),
        task: row.try_get::<_, Word<_>>(2)?.0,
        revision: row.try_get::<_, Small>(3)?.0,
        trigger: row.try_get::<_, Option<Word<_>>>(4)?.map(|name| name.0),
        backfill: row.try_get::<_, Option<_>>(18)?.map(BackfillId),
        nominal_at: row.try_get::<_, At>(5)?.0,
        state: row.try_get::<_, Word<_>>(6)?.0,
        attempt: row.try_get::<_, Small>(7)?.0,
        idempotency_key: row.try_get(8)?,
        priority: u8::try_from(row.try_get::<_, i16>(23)?).unwrap_or_default(),
        concurrency_key: row.try_get(24)?,
        passage: gate::read_passage(row, 25)?,
        waits_for: None,
        input: Payload::default(),
        output: None,
        failure: read_failure(row, 9)?,
        progress: row
            .try_get::<_, Option<Json<(u64, Option<u64>, String)>>>(12)?
            .map(|Json((done, total, note))| Progress { done, total, note }),
        cancel_requested: row.try_get(13)?,
        created_at: row.try_get::<_, At>(14)?.0,
        available_at: row.try_get::<_, At>(15)?.0,
        started_at: at(16)?,
        finished_at: at(17)?,
        start_by: at(19)?,
        end_by: at(20)?,
        reopened_at: at(21)?,
        labels: Labels::of_written(row.try_get(22)?),
        attempts: Vec::new(),
    })
}

/// Reads kind, code and message from three columns in a row.
fn read_failure(row: &Row, first: usize) -> Result<Option<Failure>, StoreError> {
    let Some(Word(kind)) = row.try_get::<_, Option<Word<_>>>(first)? else { return Ok(None) };
    let (code, message) = (row.try_get(first + 1)?, row.try_get(first + 2)?);
    Ok(Some(Failure { kind, code, message, retry: RetryAdvice::ByPolicy }))
}

/// The tenant's run of that id, with its payloads and attempts, all of one moment.
async fn get(c: &impl GenericClient, tenant: TenantId, id: RunId) -> Result<Run, StoreError> {
    let get = format!(
        "SELECT {COLUMNS}, r.input_type, r.input, r.output_type, r.output,
             (SELECT coalesce(json_agg(json_build_array(number, host_id, started_at, finished_at, failure_kind,
                  failure_code, failure_message, wall, peak_memory, cpu) ORDER BY number), '[]')::text
              FROM attempt WHERE run_id = r.id) {TABLES}
         WHERE r.id = $1 AND r.tenant_id = $2"
    );
    let row = row(c, &get, &[&id.0, &tenant.0]).await?.ok_or_else(|| missing(id))?;
    let mut run = read_run(&row)?;
    run.input = Payload { content_type: row.try_get(28)?, bytes: row.try_get(29)? };
    if let Some(content_type) = row.try_get(30)? {
        run.output = Some(Payload { content_type, bytes: row.try_get(31)? });
    }
    let attempts = row.try_get::<_, Json<Vec<AttemptColumns>>>(32)?.0;
    run.waits_for = gate::waits_for(c, id, run.passage.hold).await?;
    run.attempts = attempts.into_iter().map(read_attempt).collect::<Result<_, _>>()?;
    Ok(run)
}

type AttemptColumns = (u32, Uuid, i64, i64, Option<String>, Option<String>, Option<String>, i64, i64, i64);

fn read_attempt(columns: AttemptColumns) -> Result<Attempt, StoreError> {
    let (number, host, started_at, finished_at, kind, code, message, wall, peak_memory, cpu) = columns;
    let failure = match kind {
        None => None,
        Some(kind) => Some(Failure {
            kind: kind.parse().map_err(|_| StoreError::Corrupt(format!("`{kind}` is unknown")))?,
            code: code.unwrap_or_default(),
            message: message.unwrap_or_default(),
            retry: RetryAdvice::ByPolicy,
        }),
    };
    Ok(Attempt {
        number,
        host: HostId(host),
        started_at: innkeeper_domain::time::from_micros(started_at),
        finished_at: innkeeper_domain::time::from_micros(finished_at),
        failure,
        usage: Usage {
            wall: Duration::from_micros(unsigned(wall)),
            cpu: Duration::from_micros(unsigned(cpu)),
            peak_memory: unsigned(peak_memory),
        },
    })
}

async fn put_on_record(
    c: &impl GenericClient,
    change: &Change,
    tenant: TenantId,
    what: &'static str,
    runs: &[RunId],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let (object, difference) = record::runs(what, runs);
    audit::record(c, change, Some(tenant), object, difference).await
}

async fn list(
    c: &impl GenericClient,
    tenant: TenantId,
    filter: &RunFilter,
    page: &Page,
) -> Result<Paged<Run>, StoreError> {
    let mut sql = format!("SELECT {COLUMNS} {TABLES} WHERE r.tenant_id = $1");
    let mut values: Vec<Box<dyn ToSql + Sync + Send>> = vec![Box::new(tenant.0)];
    if let Some(name) = &filter.task {
        if hidden(&filter.only, name) {
            return Err(StoreError::NotFound(format!("task `{name}`")));
        }
        values.push(Box::new(task::get(c, tenant, name).await?.id.0));
        sql.push_str(&format!(" AND r.task_id = ${}", values.len()));
    }
    if let Some(name) = &filter.trigger {
        let trigger = trigger::get(c, tenant, name).await?;
        if hidden(&filter.only, &trigger.task) {
            return Err(StoreError::NotFound(format!("trigger `{name}`")));
        }
        values.push(Box::new(trigger.id.0));
        sql.push_str(&format!(" AND r.trigger_id = ${}", values.len()));
    }
    if let Some(only) = &filter.only {
        values.push(Box::new(only.iter().map(ToString::to_string).collect::<Vec<_>>()));
        sql.push_str(&format!(" AND t.name = ANY(${})", values.len()));
    }
    if let Some(condition) = in_states(&filter.states) {
        sql.push_str(&format!(" AND {condition}"));
    }
    if let Some(condition) = of_kinds(&filter.failure_kinds) {
        sql.push_str(&format!(" AND {condition}"));
    }
    if let Some(since) = filter.ended_since {
        values.push(Box::new(At(since)));
        sql.push_str(&format!(" AND r.finished_at >= ${}", values.len()));
    }
    for label in labels(&filter.labels) {
        values.push(Box::new(label));
        // Those without any aren't looked at.
        let has = format!("r.labels <> '' AND strpos(',' || r.labels || ',', ${}) > 0", values.len());
        sql.push_str(&format!(" AND {has}"));
    }
    if let Some(token) = &page.after {
        values.push(Box::new(Uuid::parse_str(token).map_err(|_| bad_token())?));
        sql.push_str(&format!(" AND r.id < ${}", values.len()));
    }
    values.push(Box::new(limit(page)));
    sql.push_str(&format!(" ORDER BY r.id DESC LIMIT ${}", values.len()));
    let values: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|value| value.as_ref() as &(dyn ToSql + Sync)).collect();
    let found = rows(c, &sql, &values).await?;
    let runs = found.iter().map(read_run).collect::<Result<_, _>>()?;
    Ok(paged(runs, page, |last: &Run| last.id.to_string()))
}
