//! What tenants have used, in SQLite.

use super::SqliteStore;
use super::row::{Id, Word, limit, micros, paged, signed, unsigned};
use crate::billing::BillKey;
use crate::columns::{BillToken, bill_day};
use crate::{Page, Paged, StoreError, UsageFilter, UsageStore};
use async_trait::async_trait;
use innkeeper_domain::bill::{Bill, Used};
use innkeeper_domain::ids::TaskId;
use rusqlite::{Connection, params};
use std::time::Duration;

#[async_trait]
impl UsageStore for SqliteStore {
    async fn usage_list(&self, filter: UsageFilter, page: Page) -> Result<Paged<Bill>, StoreError> {
        self.read(move |c| list(c, &filter, &page)).await
    }
}

fn list(c: &Connection, filter: &UsageFilter, page: &Page) -> Result<Paged<Bill>, StoreError> {
    let after = BillToken::after(page, filter)?;
    let mut list = c.prepare_cached(
        "SELECT n.name, u.task_id, u.task, u.day, sum(u.runs), sum(u.attempts), sum(u.cpu), sum(u.wall),
             sum(u.memory_seconds), sum(u.input_bytes), sum(u.output_bytes), sum(u.log_bytes)
         FROM usage u JOIN tenant n ON n.id = u.tenant_id
         WHERE n.deleted_at IS NULL AND (?1 IS NULL OR u.tenant_id = ?1) AND (?2 IS NULL OR u.task = ?2)
             AND u.day BETWEEN ?3 AND ?4
             AND (u.day < ?4 OR (n.name, u.task, u.task_id) > (?5, ?6, ?7))
         GROUP BY u.day, n.name, u.task, u.task_id
         ORDER BY u.day DESC, n.name, u.task, u.task_id LIMIT ?8",
    )?;
    let parameters = params![
        filter.tenant.map(|tenant| Id(tenant.0)),
        filter.task.as_ref().map(|task| task.as_str()),
        after.first_day,
        after.day,
        after.tenant,
        after.task,
        Id(after.task_id),
        limit(page),
    ];
    let rows = list.query_map(parameters, |row| {
        let sum = |column| row.get::<_, i64>(column).map(unsigned);
        let used = Used {
            runs: sum(4)?,
            attempts: sum(5)?,
            cpu: Duration::from_micros(sum(6)?),
            wall: Duration::from_micros(sum(7)?),
            memory_seconds: sum(8)?,
            input_bytes: sum(9)?,
            output_bytes: sum(10)?,
            log_bytes: sum(11)?,
        };
        let (tenant, task) = (row.get::<_, Word<_>>(0)?.0, row.get::<_, Word<_>>(2)?.0);
        let task_id = TaskId(row.get::<_, Id>(1)?.0);
        Ok(bill_day(row.get(3)?).map(|day| Bill { tenant, task_id, task, day, used }))
    })?;
    let bills = rows.map(|bill| bill?).collect::<Result<_, StoreError>>()?;
    Ok(paged(bills, page, BillToken::of))
}

/// Adds to a bill.
pub(super) fn bill(c: &Connection, key: BillKey, used: &Used) -> Result<(), StoreError> {
    c.prepare_cached(
        "INSERT INTO usage (tenant_id, day, task_id, shard, task, runs, attempts, cpu, wall, memory_seconds,
             input_bytes, output_bytes, log_bytes)
         SELECT ?1, ?2, id, 0, name, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 FROM task WHERE id = ?3
         ON CONFLICT DO UPDATE SET runs = runs + excluded.runs, attempts = attempts + excluded.attempts,
             cpu = cpu + excluded.cpu, wall = wall + excluded.wall,
             memory_seconds = memory_seconds + excluded.memory_seconds,
             input_bytes = input_bytes + excluded.input_bytes,
             output_bytes = output_bytes + excluded.output_bytes, log_bytes = log_bytes + excluded.log_bytes",
    )?
    .execute(params![
        Id(key.tenant.0),
        key.day,
        Id(key.task.0),
        signed(used.runs),
        signed(used.attempts),
        micros(used.cpu),
        micros(used.wall),
        signed(used.memory_seconds),
        signed(used.input_bytes),
        signed(used.output_bytes),
        signed(used.log_bytes),
    ])?;
    Ok(())
}
