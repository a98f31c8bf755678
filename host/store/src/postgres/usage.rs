//! What tenants have used, in PostgreSQL.

use super::connection::reading;
use super::row::{Word, execute, limit, micros, paged, rows, signed, unsigned};
use super::{PostgresStore, Shard, Shared};
use crate::billing::{BillKey, Bills};
use crate::columns::{BillToken, bill_day};
use crate::{Page, Paged, StoreError, UsageFilter, UsageStore};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::bill::{Bill, Used};
use innkeeper_domain::ids::TaskId;
use innkeeper_domain::run::Lease;
use std::time::Duration;
use tokio_postgres::Row;
use uuid::Uuid;

#[async_trait]
impl UsageStore for PostgresStore {
    async fn usage_list(&self, filter: UsageFilter, page: Page) -> Result<Paged<Bill>, StoreError> {
        reading!(&self.shared.pool, |c| list(c, &filter, &page).await?)
    }
}

async fn list(c: &impl GenericClient, filter: &UsageFilter, page: &Page) -> Result<Paged<Bill>, StoreError> {
    let after = BillToken::after(page, filter)?;
    let found = rows(
        c,
        "SELECT n.name, u.task_id, u.task, u.day, sum(u.runs)::bigint, sum(u.attempts)::bigint,
             sum(u.cpu)::bigint, sum(u.wall)::bigint, sum(u.memory_seconds)::bigint, sum(u.input_bytes)::bigint,
             sum(u.output_bytes)::bigint, sum(u.log_bytes)::bigint
         FROM usage u JOIN tenant n ON n.id = u.tenant_id
         WHERE n.deleted_at IS NULL AND ($1::uuid IS NULL OR u.tenant_id = $1)
             AND ($2::text IS NULL OR u.task = $2) AND u.day BETWEEN $3 AND $4
             AND (u.day < $4 OR (n.name, u.task COLLATE \"C\", u.task_id) > ($5, $6, $7))
         GROUP BY u.day, n.name, u.task, u.task_id
         ORDER BY u.day DESC, n.name, u.task COLLATE \"C\", u.task_id LIMIT $8",
        &[
            &filter.tenant.map(|tenant| tenant.0),
            &filter.task.as_ref().map(|task| task.as_str()),
            &after.first_day,
            &after.day,
            &after.tenant,
            &after.task,
            &after.task_id,
            &limit(page),
        ],
    )
    .await?;
    Ok(paged(found.iter().map(read_bill).collect::<Result<_, _>>()?, page, BillToken::of))
}

fn read_bill(row: &Row) -> Result<Bill, StoreError> {
    let sum = |column: usize| row.try_get::<_, i64>(column).map(unsigned);
    Ok(Bill {
        tenant: row.try_get::<_, Word<_>>(0)?.0,
        task_id: TaskId(row.try_get(1)?),
        task: row.try_get::<_, Word<_>>(2)?.0,
        day: bill_day(row.try_get(3)?)?,
        used: Used {
            runs: sum(4)?,
            attempts: sum(5)?,
            cpu: Duration::from_micros(sum(6)?),
            wall: Duration::from_micros(sum(7)?),
            memory_seconds: sum(8)?,
            input_bytes: sum(9)?,
            output_bytes: sum(10)?,
            log_bytes: sum(11)?,
        },
    })
}

/// Attempts whose logs, as far as they are stored, go on bills.
#[derive(Debug, Default)]
pub(super) struct Logs {
    bills: Vec<BillKey>,
    runs: Vec<Uuid>,
    attempts: Vec<i64>,
}

impl Logs {
    pub fn add(&mut self, bill: BillKey, lease: Lease) {
        self.bills.push(bill);
        self.runs.push(lease.run.0);
        self.attempts.push(lease.attempt.into());
    }
}

/// Adds to bills, in the order of their keys. Among the last writes of a transaction.
pub(super) async fn write(
    shared: &Shared,
    c: &impl GenericClient,
    shard: Shard,
    bills: &Bills,
    logs: &Logs,
) -> Result<(), StoreError> {
    if bills.0.is_empty() {
        return Ok(());
    }
    let keys = |of: fn(&BillKey) -> Uuid| bills.0.keys().map(of).collect::<Vec<_>>();
    let (tenants, tasks) = (keys(|key| key.tenant.0), keys(|key| key.task.0));
    let days: Vec<i64> = bills.0.keys().map(|key| key.day).collect();
    let sums = |of: fn(&Used) -> i64| bills.0.values().map(of).collect::<Vec<_>>();
    // Which of the bills each log is on.
    let places: Vec<i64> = logs.bills.iter().map(|bill| bills.0.range(..bill).count() as i64 + 1).collect();
    execute(
        c,
        "INSERT INTO usage AS u (tenant_id, day, task_id, shard, task, runs, attempts, cpu, wall, memory_seconds,
             input_bytes, output_bytes, log_bytes)
         SELECT e.tenant_id, e.day, e.task_id, $4, t.name, e.runs, e.attempts, e.cpu, e.wall, e.memory_seconds,
             e.input_bytes, e.output_bytes, coalesce(l.bytes, 0)
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
                 $9::bigint[], $10::bigint[], $11::bigint[]) WITH ORDINALITY
                 AS e (tenant_id, day, task_id, runs, attempts, cpu, wall, memory_seconds, input_bytes,
                     output_bytes, place)
             JOIN task t ON t.id = e.task_id
             LEFT JOIN (SELECT a.place, sum((SELECT coalesce(sum(octet_length(text)), 0) FROM run_log
                            WHERE run_id = a.run_id AND attempt = a.attempt))::bigint AS bytes
                        FROM unnest($12::bigint[], $13::uuid[], $14::bigint[]) AS a (place, run_id, attempt)
                        GROUP BY a.place) l ON l.place = e.place
         ORDER BY e.tenant_id, e.day, e.task_id
         ON CONFLICT (tenant_id, day, task_id, shard) DO UPDATE SET runs = u.runs + EXCLUDED.runs,
             attempts = u.attempts + EXCLUDED.attempts, cpu = u.cpu + EXCLUDED.cpu, wall = u.wall + EXCLUDED.wall,
             memory_seconds = u.memory_seconds + EXCLUDED.memory_seconds,
             input_bytes = u.input_bytes + EXCLUDED.input_bytes,
             output_bytes = u.output_bytes + EXCLUDED.output_bytes, log_bytes = u.log_bytes + EXCLUDED.log_bytes",
        &[
            &tenants,
            &days,
            &tasks,
            &shared.shard(shard),
            &sums(|used| signed(used.runs)),
            &sums(|used| signed(used.attempts)),
            &sums(|used| micros(used.cpu)),
            &sums(|used| micros(used.wall)),
            &sums(|used| signed(used.memory_seconds)),
            &sums(|used| signed(used.input_bytes)),
            &sums(|used| signed(used.output_bytes)),
            &places,
            &logs.runs,
            &logs.attempts,
        ],
    )
    .await?;
    Ok(())
}
