//! The database's schema, brought to this version when a host starts.

use super::connection::lend;
use super::row::row;
use crate::StoreError;
use deadpool_postgres::{GenericClient, Pool};

/// Each schema change, in order; the database's version is how many it has had.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_initial.sql"),
    include_str!("../../migrations/postgres/0002_fleet.sql"),
    include_str!("../../migrations/postgres/0003_tenants.sql"),
    include_str!("../../migrations/postgres/0004_time.sql"),
    include_str!("../../migrations/postgres/0005_holidays.sql"),
    include_str!("../../migrations/postgres/0006_backfill.sql"),
    include_str!("../../migrations/postgres/0007_limits.sql"),
    include_str!("../../migrations/postgres/0008_runs.sql"),
    include_str!("../../migrations/postgres/0009_events.sql"),
    include_str!("../../migrations/postgres/0010_outputs.sql"),
    include_str!("../../migrations/postgres/0011_logs.sql"),
];

/// The lock that a host holds while it changes the schema; a number that nobody else is likely to use.
const LOCK: i64 = 0x696e_6e6b_6565_7065;

/// Brings the schema to version `to`, if it is older: all changes in one transaction, one host at a time.
/// `Conflict` if it is newer than this Innkeeper knows, or hosts of an older one work with it.
pub(super) async fn migrate(pool: &Pool, to: usize) -> Result<(), StoreError> {
    // Without the limit of time that other transactions have.
    let mut connection = lend(pool).await?;
    let change = async {
        let c = connection.transaction().await?;
        begin(&c).await?;
        let done = version(&c).await?;
        if (FLEETS..TENANTS.min(to)).contains(&done) {
            refuse_under_hosts(&c).await?;
        }
        apply(&c, done, to).await?;
        Ok(c.commit().await?)
    };
    let changed = change.await;
    connection.give_back();
    changed
}

/// Keeps others from changing the schema until the transaction ends, which may take as long as it takes.
pub(super) async fn begin(c: &impl GenericClient) -> Result<(), StoreError> {
    // However long the others, or the changes, take.
    c.batch_execute(
        "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0;
         SET LOCAL idle_in_transaction_session_timeout = 0",
    )
    .await?;
    let taken = row(c, "SELECT pg_try_advisory_xact_lock($1)", &[&LOCK]).await?;
    if !taken.map_or(Ok(false), |taken| taken.try_get(0))? {
        tracing::info!("waiting for another host's migration");
        row(c, "SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    }
    Ok(())
}

/// Brings the schema from version `done` to version `to`, if that is newer. Between [`begin`] and the
/// transaction's end.
pub(super) async fn apply(c: &impl GenericClient, done: usize, to: usize) -> Result<(), StoreError> {
    if done > MIGRATIONS.len() {
        return Err(newer(done));
    }
    for sql in MIGRATIONS.iter().take(to).skip(done) {
        c.batch_execute(sql).await?;
    }
    if done < to {
        c.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL);
             DELETE FROM schema_version; INSERT INTO schema_version (version) VALUES ({to})"
        ))
        .await?;
    }
    Ok(())
}

/// The first version with fleets, and the first that its hosts can't go on with.
const FLEETS: usize = 2;
const TENANTS: usize = 3;

/// `Conflict` while a host of an older version has a lease: it would go on with a schema that it doesn't know.
async fn refuse_under_hosts(c: &impl GenericClient) -> Result<(), StoreError> {
    let living = "SELECT string_agg(DISTINCT name, ', ') FROM host
        WHERE lease_until > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let names = row(c, living, &[]).await?.map_or(Ok(None), |found| found.try_get::<_, Option<String>>(0))?;
    match names {
        None => Ok(()),
        Some(names) => Err(StoreError::Conflict(format!(
            "hosts of an older Innkeeper are on the database ({names}), and this version changes what they work with: \
             stop all hosts first, then start this one. One that has crashed is gone when its lease is over, in less \
             than a minute"
        ))),
    }
}

/// The version of the schema; 0 if there is none.
pub(super) async fn version(c: &impl GenericClient) -> Result<usize, StoreError> {
    if !exists(c, "schema_version").await? {
        return Ok(0);
    }
    match row(c, "SELECT version FROM schema_version", &[]).await? {
        Some(version) => Ok(usize::try_from(version.try_get::<_, i64>(0)?).unwrap_or(usize::MAX)),
        None => Ok(0),
    }
}

/// Whether there is such a table.
pub(super) async fn exists(c: &impl GenericClient, table: &str) -> Result<bool, StoreError> {
    Ok(row(c, "SELECT 1 WHERE to_regclass($1::text) IS NOT NULL", &[&table]).await?.is_some())
}

pub(super) fn newer(version: usize) -> StoreError {
    StoreError::Conflict(format!(
        "the database has schema version {version}, this Innkeeper knows versions up to {}; use the newer \
         Innkeeper that wrote it, or restore a backup from before",
        MIGRATIONS.len()
    ))
}
