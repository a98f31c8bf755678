//! The mark of a store that was moved elsewhere: a table of its own, so that people find it.

use super::connection::{connection, in_transaction};
use super::migrate::exists;
use super::row::{At, row, rows};
use crate::StoreError;
use crate::postgres::DatabaseUrl;
use crate::words::moved;
use deadpool_postgres::{GenericClient, Pool};
use innkeeper_domain::Timestamp;

/// Marks it. `Conflict` if it is marked already, or if hosts live; `NotFound` if there is no store.
pub(crate) async fn mark(url: &DatabaseUrl, whither: &str) -> Result<(), StoreError> {
    let pool = url.pool(1)?;
    in_transaction!(&pool, |c| {
        if !exists(c, "host").await? {
            return Err(StoreError::NotFound(format!("store in {url}")));
        }
        check(c).await?;
        // Waits for hosts that are just beginning their lives.
        c.batch_execute("LOCK TABLE host IN SHARE MODE").await?;
        let now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let living =
            format!("SELECT name, max(lease_until) FROM host WHERE lease_until > {now} GROUP BY name");
        if let Some(host) = rows(c, &living, &[]).await?.first() {
            let (name, until): (&str, Timestamp) = (host.try_get(0)?, host.try_get::<_, At>(1)?.0);
            return Err(StoreError::Conflict(format!(
                "host `{name}` uses the database; stop it, or if it was killed, wait until its lease is over at \
                 {until:.0}"
            )));
        }
        c.batch_execute("CREATE TABLE moved (whither TEXT NOT NULL)").await?;
        c.execute("INSERT INTO moved (whither) VALUES ($1)", &[&whither]).await?;
    })
}

/// Takes the mark away.
pub(crate) async fn unmark(url: &DatabaseUrl) -> Result<(), StoreError> {
    let c = connection(&url.pool(1)?).await?;
    Ok(c.batch_execute("DROP TABLE IF EXISTS moved").await?)
}

/// `Conflict` if the store is marked.
pub(super) async fn refuse(pool: &Pool) -> Result<(), StoreError> {
    check(&connection(pool).await?).await
}

async fn check(c: &impl GenericClient) -> Result<(), StoreError> {
    if !exists(c, "moved").await? {
        return Ok(());
    }
    match row(c, "SELECT whither FROM moved", &[]).await? {
        Some(found) => {
            Err(moved("the store in this database", found.try_get(0)?, "run `DROP TABLE moved` in it"))
        }
        None => Ok(()),
    }
}
