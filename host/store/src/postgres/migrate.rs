//! The database's schema, brought to this version when a host starts.

use super::connection::in_transaction;
use super::row::{row, unsigned};
use crate::StoreError;
use deadpool_postgres::{GenericClient, Pool};

/// Each schema change, in order; the database's version is how many it has had.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_initial.sql"),
    include_str!("../../migrations/postgres/0002_fleet.sql"),
];

/// The lock that a host holds while it changes the schema; a number that nobody else is likely to use.
const LOCK: i64 = 0x696e_6e6b_6565_7065;

/// Brings the schema to version `to`, if it is older: all changes in one transaction, one host at a time.
/// `Conflict` if it is newer than this Innkeeper knows.
pub(super) async fn migrate(pool: &Pool, to: usize) -> Result<(), StoreError> {
    in_transaction!(pool, |c| {
        // However long the others, or the changes, take.
        c.batch_execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0").await?;
        row(&c, "SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        c.batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)").await?;
        let version = version(&c).await?;
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        if done > MIGRATIONS.len() {
            return Err(newer(version));
        }
        for sql in MIGRATIONS.iter().take(to).skip(done) {
            c.batch_execute(sql).await?;
        }
        if done < to {
            c.batch_execute(&format!(
                "DELETE FROM schema_version; INSERT INTO schema_version (version) VALUES ({to})"
            ))
            .await?;
        }
    })
}

/// The version of the schema; 0 if there is none.
pub(super) async fn version(c: &impl GenericClient) -> Result<u64, StoreError> {
    let version = row(c, "SELECT version FROM schema_version", &[]).await?;
    Ok(match version {
        Some(version) => unsigned(version.try_get(0)?),
        None => 0,
    })
}

fn newer(version: u64) -> StoreError {
    StoreError::Conflict(format!(
        "the database has schema version {version}, this Innkeeper knows versions up to {}; use the newer \
         Innkeeper that wrote it, or restore a backup from before",
        MIGRATIONS.len()
    ))
}
