//! What tenants use of their quotas, in PostgreSQL.

use super::fleet_pause::IS_PAUSED;
use super::row::{At, Json, Small, Word, execute, row, rows, signed, unsigned};
use super::{Shard, Shared, event};
use crate::StoreError;
use crate::standing::Account;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::bill::day_number;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::quota::{Quota, Quotas};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The accounts of those of these tenants that aren't deleted, with what their quotas need, to create runs. Called
/// when the tasks are locked, so that a suspension that had them locked is seen. Those with quotas that starts use
/// up wait for each other.
pub(super) async fn accounts(
    c: &impl GenericClient,
    tenants: &[Uuid],
    now: Timestamp,
) -> Result<HashMap<TenantId, Account>, StoreError> {
    let mut accounts = HashMap::with_capacity(tenants.len());
    let get = format!(
        "SELECT id, state, quotas, name, paused_at IS NOT NULL OR {IS_PAUSED}, watched FROM tenant
         WHERE id = ANY($1) AND deleted_at IS NULL"
    );
    for row in rows(c, &get, &[&tenants]).await? {
        let tenant = TenantId(row.try_get(0)?);
        let (state, quotas) = (row.try_get::<_, Word<_>>(1)?.0, row.try_get::<_, Json<_>>(2)?.0);
        let (name, state) = (row.try_get::<_, Word<_>>(3)?.0, (state, row.try_get(4)?));
        let account = Account::new(tenant, name, state, quotas);
        accounts.insert(tenant, Account { now, watched: row.try_get::<_, Small>(5)?.0, ..account });
    }
    let having = |quotas: &[Quota]| {
        let has = accounts.values().filter(|account| quotas.iter().any(|quota| account.has(*quota)));
        has.map(|account| account.tenant.0).collect::<Vec<Uuid>>()
    };
    let limited = having(&[Quota::StartsPerSecond, Quota::StoredBytes]);
    let (of_cpu, of_bytes) = (having(&[Quota::CpuPerDay]), having(&[Quota::StoredBytes]));
    let on_time_at = hold(c, &limited).await?;
    let cpu = cpu_of_day(c, &of_cpu, now).await?;
    for account in accounts.values_mut() {
        account.cpu = cpu.get(&account.tenant).copied().unwrap_or_default();
        if account.has(Quota::StartsPerSecond) {
            account.on_time_at = on_time_at.get(&account.tenant).copied();
        }
        if of_bytes.contains(&account.tenant.0) {
            account.stored = stored_bytes(c, account.tenant, None).await?;
        }
    }
    Ok(accounts)
}

/// Locks the rates of these tenants until the transaction ends, and tells them.
async fn hold(c: &impl GenericClient, tenants: &[Uuid]) -> Result<HashMap<TenantId, Timestamp>, StoreError> {
    let mut rates = HashMap::with_capacity(tenants.len());
    if tenants.is_empty() {
        return Ok(rates);
    }
    execute(
        c,
        "INSERT INTO start_rate (tenant_id, on_time_at) SELECT id, 0 FROM unnest($1::uuid[]) AS e (id) ORDER BY id
         ON CONFLICT DO NOTHING",
        &[&tenants],
    )
    .await?;
    let lock = "SELECT tenant_id, on_time_at FROM start_rate WHERE tenant_id = ANY($1)
        ORDER BY tenant_id FOR UPDATE";
    for row in rows(c, lock, &[&tenants]).await? {
        rates.insert(TenantId(row.try_get(0)?), row.try_get::<_, At>(1)?.0);
    }
    Ok(rates)
}

/// When the tenant's next attempt would begin on time if they came evenly; none if none has begun. Under the lock of its
/// claims ([`Counted::Claims`]) if it is to be written.
pub(super) async fn begun(c: &impl GenericClient, tenant: TenantId) -> Result<Option<Timestamp>, StoreError> {
    let get = "SELECT on_time_at FROM begin_rate WHERE tenant_id = $1";
    match row(c, get, &[&tenant.0]).await? {
        Some(found) => Ok(Some(found.try_get::<_, At>(0)?.0)),
        None => Ok(None),
    }
}

pub(super) async fn write_begun(
    c: &impl GenericClient,
    tenant: TenantId,
    on_time_at: Timestamp,
) -> Result<(), StoreError> {
    let keep = "INSERT INTO begin_rate (tenant_id, on_time_at) VALUES ($1, $2)
        ON CONFLICT (tenant_id) DO UPDATE SET on_time_at = EXCLUDED.on_time_at";
    execute(c, keep, &[&tenant.0, &At(on_time_at)]).await?;
    Ok(())
}

/// Writes what the transaction has added to the accounts, and what it has to tell. Its last writes.
pub(super) async fn write(
    shared: &Shared,
    c: &impl GenericClient,
    shard: Shard,
    accounts: &HashMap<TenantId, Account>,
) -> Result<(), StoreError> {
    let mut stored = Stored::default();
    event::tell(c, accounts, &mut stored).await?;
    for account in accounts.values() {
        stored.add(account.tenant, signed(account.adds));
        if let Some(on_time_at) = account.on_time_at {
            let keep = "UPDATE start_rate SET on_time_at = $2 WHERE tenant_id = $1";
            execute(c, keep, &[&account.tenant.0, &At(on_time_at)]).await?;
        }
    }
    stored.write(shared, c, shard).await
}

/// Changes of the bytes of tenants' runs.
#[derive(Debug, Default)]
pub(super) struct Stored(BTreeMap<Uuid, i64>);

impl Stored {
    pub fn add(&mut self, tenant: TenantId, bytes: i64) {
        *self.0.entry(tenant.0).or_default() += bytes;
    }

    /// The last write of a transaction.
    pub async fn write(
        mut self,
        shared: &Shared,
        c: &impl GenericClient,
        shard: Shard,
    ) -> Result<(), StoreError> {
        self.0.retain(|_, bytes| *bytes != 0);
        if self.0.is_empty() {
            return Ok(());
        }
        let (tenants, bytes): (Vec<&Uuid>, Vec<&i64>) = self.0.iter().unzip();
        execute(
            c,
            "INSERT INTO stored AS s (tenant_id, shard, bytes)
             SELECT tenant_id, $3, bytes FROM unnest($1::uuid[], $2::bigint[]) AS e (tenant_id, bytes)
             ORDER BY tenant_id
             ON CONFLICT (tenant_id, shard) DO UPDATE SET bytes = s.bytes + EXCLUDED.bytes",
            &[&tenants, &bytes, &shared.shard(shard)],
        )
        .await?;
        Ok(())
    }
}

/// CPU time that tenants have used on the day of this instant, in microseconds.
pub(super) async fn cpu_of_day(
    c: &impl GenericClient,
    tenants: &[Uuid],
    now: Timestamp,
) -> Result<HashMap<TenantId, u64>, StoreError> {
    let mut used = HashMap::with_capacity(tenants.len());
    if tenants.is_empty() {
        return Ok(used);
    }
    let sum = "SELECT tenant_id, sum(cpu)::bigint FROM usage WHERE tenant_id = ANY($1) AND day = $2 GROUP BY tenant_id";
    for row in rows(c, sum, &[&tenants, &day_number(now)]).await? {
        used.insert(TenantId(row.try_get(0)?), unsigned(row.try_get(1)?));
    }
    Ok(used)
}

/// Bytes that the tenant has stored, without its upload of this component.
pub(super) async fn stored_bytes(
    c: &impl GenericClient,
    tenant: TenantId,
    without: Option<Digest>,
) -> Result<u64, StoreError> {
    let sum = "SELECT ((SELECT coalesce(sum(bytes), 0) FROM stored WHERE tenant_id = $1)
        + (SELECT coalesce(sum(size), 0) FROM component WHERE tenant_id = $1)
        + (SELECT coalesce(sum(size), 0) FROM upload WHERE tenant_id = $1 AND digest IS DISTINCT FROM $2))::bigint";
    let without = without.as_ref().map(|digest| &digest.0[..]);
    let found = row(c, sum, &[&tenant.0, &without]).await?;
    Ok(unsigned(found.map_or(Ok(0), |found| found.try_get(0))?))
}

/// What is counted of a tenant before there may be more of it, one transaction at a time. Not by a lock of the tenant's
/// row, which claims need. The numbers are those of locks, of hosts of every version.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    Claims = 0,
    Components = 1,
    HolidayCalendars = 2,
    Secrets = 3,
    Tokens = 4,
    Triggers = 5,
    Uploads = 6,
    After = 7,
}

impl Counted {
    /// The number of the lock: tenants' ids end at random. Should two be the same, they only wait for each other.
    fn key(self, tenant: Uuid) -> i64 {
        (tenant.as_u64_pair().1 ^ self as u64).cast_signed()
    }
}

/// Keeps others from counting the same of this tenant until the transaction ends. Among its first locks.
pub(super) async fn exclude(
    c: &impl GenericClient,
    tenant: TenantId,
    counted: Counted,
) -> Result<(), StoreError> {
    row(c, "SELECT pg_advisory_xact_lock($1)", &[&counted.key(tenant.0)]).await?;
    Ok(())
}

/// [`exclude`], but nobody is waited for. Returns the tenants of which nobody else counts it.
pub(super) async fn try_exclude(
    c: &impl GenericClient,
    tenants: &[Uuid],
    counted: Counted,
) -> Result<Vec<Uuid>, StoreError> {
    let keys: Vec<i64> = tenants.iter().map(|tenant| counted.key(*tenant)).collect();
    let lock =
        "SELECT id FROM unnest($1::uuid[], $2::bigint[]) AS e (id, key) WHERE pg_try_advisory_xact_lock(key)";
    rows(c, lock, &[&tenants, &keys]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Refuses one more of what is counted in rows: a table and a condition.
pub(super) async fn check_count(
    c: &impl GenericClient,
    tenant: TenantId,
    quotas: &Quotas,
    quota: Quota,
    counted: &'static str,
) -> Result<(), StoreError> {
    if quotas.get(quota).is_some() {
        let count = format!("SELECT count(*) FROM {counted} AND tenant_id = $1");
        let used = row(c, &count, &[&tenant.0]).await?.map_or(Ok(0), |found| found.try_get(0))?;
        quotas.check(quota, unsigned(used), 1)?;
    }
    Ok(())
}

/// Lets starts, and others that ask for stored bytes of the tenant, wait until the transaction ends.
pub(super) async fn hold_stored(c: &impl GenericClient, tenant: TenantId) -> Result<(), StoreError> {
    hold(c, &[tenant.0]).await?;
    Ok(())
}

/// Refuses so many more stored bytes for a component.
pub(super) async fn check_stored(
    c: &impl GenericClient,
    tenant: TenantId,
    quotas: &Quotas,
    digest: Digest,
    asked: u64,
) -> Result<(), StoreError> {
    if quotas.get(Quota::StoredBytes).is_some() {
        quotas.check(Quota::StoredBytes, stored_bytes(c, tenant, Some(digest)).await?, asked)?;
    }
    Ok(())
}
