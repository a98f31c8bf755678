//! What tenants use of their quotas, in SQLite.

use super::event;
use super::fleet_pause::IS_PAUSED;
use super::row::{At, Id, Json, Word, signed, unsigned};
use crate::StoreError;
use crate::standing::Account;
use innkeeper_domain::Timestamp;
use innkeeper_domain::bill::day_number;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::quota::{Quota, Quotas};
use rusqlite::{Connection, OptionalExtension, params};

/// The tenant's account, with what its quotas need; none if it is deleted.
pub(super) fn account(
    c: &Connection,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Option<Account>, StoreError> {
    let mut get = c.prepare_cached(&format!(
        "SELECT name, state, quotas, paused_at IS NOT NULL OR {IS_PAUSED}, watched FROM tenant
         WHERE id = ?1 AND deleted_at IS NULL"
    ))?;
    let found = get.query_row([Id(tenant.0)], |row| {
        let (name, state) = (row.get::<_, Word<_>>(0)?.0, row.get::<_, Word<_>>(1)?.0);
        let account = Account::new(tenant, name, (state, row.get(3)?), row.get::<_, Json<_>>(2)?.0);
        Ok(Account { now, watched: row.get(4)?, ..account })
    });
    let Some(mut account) = found.optional()? else { return Ok(None) };
    if account.has(Quota::CpuPerDay) {
        account.cpu = cpu_of_day(c, tenant, now)?;
    }
    if account.has(Quota::StoredBytes) {
        account.stored = stored_bytes(c, tenant, None)?;
    }
    if account.has(Quota::StartsPerSecond) {
        let mut get = c.prepare_cached("SELECT on_time_at FROM start_rate WHERE tenant_id = ?1")?;
        account.on_time_at =
            get.query_row([Id(tenant.0)], |row| row.get::<_, At>(0)).optional()?.map(|at| at.0);
    }
    Ok(Some(account))
}

/// Writes what the transaction has added to the account, and what it has to tell.
pub(super) fn write(c: &Connection, account: &Account) -> Result<(), StoreError> {
    let told = event::tell(c, account)?;
    store(c, account.tenant, signed(account.adds + told))?;
    if let Some(on_time_at) = account.on_time_at {
        c.prepare_cached(
            "INSERT INTO start_rate (tenant_id, on_time_at) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET on_time_at = excluded.on_time_at",
        )?
        .execute(params![Id(account.tenant.0), At(on_time_at)])?;
    }
    Ok(())
}

/// When the tenant's next attempt would begin on time if they came evenly; none if none has begun.
pub(super) fn begun(c: &Connection, tenant: TenantId) -> Result<Option<Timestamp>, StoreError> {
    let mut get = c.prepare_cached("SELECT on_time_at FROM begin_rate WHERE tenant_id = ?1")?;
    Ok(get.query_row([Id(tenant.0)], |row| row.get::<_, At>(0)).optional()?.map(|at| at.0))
}

pub(super) fn write_begun(c: &Connection, tenant: TenantId, on_time_at: Timestamp) -> Result<(), StoreError> {
    c.prepare_cached(
        "INSERT INTO begin_rate (tenant_id, on_time_at) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET on_time_at = excluded.on_time_at",
    )?
    .execute(params![Id(tenant.0), At(on_time_at)])?;
    Ok(())
}

/// CPU time that the tenant has used on the day of this instant, in microseconds.
pub(super) fn cpu_of_day(c: &Connection, tenant: TenantId, now: Timestamp) -> Result<u64, StoreError> {
    let sum = "SELECT coalesce(sum(cpu), 0) FROM usage WHERE tenant_id = ?1 AND day = ?2";
    let mut sum = c.prepare_cached(sum)?;
    Ok(unsigned(sum.query_row(params![Id(tenant.0), day_number(now)], |row| row.get(0))?))
}

/// Bytes that the tenant has stored, without its upload of this component.
pub(super) fn stored_bytes(
    c: &Connection,
    tenant: TenantId,
    without: Option<Digest>,
) -> Result<u64, StoreError> {
    let mut sum = c.prepare_cached(
        "SELECT (SELECT coalesce(sum(bytes), 0) FROM stored WHERE tenant_id = ?1)
             + (SELECT coalesce(sum(size), 0) FROM component WHERE tenant_id = ?1)
             + (SELECT coalesce(sum(size), 0) FROM upload WHERE tenant_id = ?1 AND digest IS NOT ?2)",
    )?;
    Ok(unsigned(sum.query_row(params![Id(tenant.0), without.map(|digest| digest.0)], |row| row.get(0))?))
}

/// Adds to the bytes of the tenant's runs, or takes away.
pub(super) fn store(c: &Connection, tenant: TenantId, bytes: i64) -> Result<(), StoreError> {
    if bytes != 0 {
        c.prepare_cached(
            "INSERT INTO stored (tenant_id, shard, bytes) VALUES (?1, 0, ?2)
             ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
        )?
        .execute(params![Id(tenant.0), bytes])?;
    }
    Ok(())
}

/// Refuses one more of what is counted in rows: a table and a condition.
pub(super) fn check_count(
    c: &Connection,
    tenant: TenantId,
    quotas: &Quotas,
    quota: Quota,
    rows: &'static str,
) -> Result<(), StoreError> {
    if quotas.get(quota).is_some() {
        let count = format!("SELECT count(*) FROM {rows} AND tenant_id = ?1");
        let used = c.query_row(&count, [Id(tenant.0)], |row| row.get(0))?;
        quotas.check(quota, unsigned(used), 1)?;
    }
    Ok(())
}

/// Refuses so many more stored bytes for a component.
pub(super) fn check_stored(
    c: &Connection,
    tenant: TenantId,
    quotas: &Quotas,
    digest: Digest,
    asked: u64,
) -> Result<(), StoreError> {
    if quotas.get(Quota::StoredBytes).is_some() {
        quotas.check(Quota::StoredBytes, stored_bytes(c, tenant, Some(digest))?, asked)?;
    }
    Ok(())
}
