//! Hosts in SQLite. There is only ever one: the folder's lock sees to that.

use super::SqliteStore;
use super::finish::{lose, release};
use super::row::{At, Id};
use crate::{HostStore, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::{HostId, RunId};
use innkeeper_domain::run::Lease;
use rusqlite::{Connection, Params, params};
use std::sync::Arc;

#[async_trait]
impl HostStore for SqliteStore {
    async fn host_start(
        &self,
        host: HostId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write(move |c| {
            // Whatever other host is on record had the folder's lock before this one, and is gone.
            let lost = reap(c, "SELECT id FROM host WHERE id <> ?1", [Id(host.0)], now)?;
            c.execute(
                "INSERT INTO host (id, started_at, lease_until) VALUES (?1, ?2, ?3)",
                params![Id(host.0), At(now), At(lease_until)],
            )?;
            Ok(lost)
        })
        .await
    }

    async fn host_renew(&self, host: HostId, lease_until: Timestamp) -> Result<(), StoreError> {
        self.write(move |c| {
            let mut renew = c.prepare_cached("UPDATE host SET lease_until = ?2 WHERE id = ?1")?;
            match renew.execute(params![Id(host.0), At(lease_until)])? {
                0 => Err(StoreError::LeaseLost),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn hosts_reap(&self, now: Timestamp) -> Result<u64, StoreError> {
        let hints = Arc::clone(&self.hints);
        let reap =
            move |c: &Connection| reap(c, "SELECT id FROM host WHERE lease_until < ?1", [At(now)], now);
        let wake = move |lost: &u64| {
            if *lost > 0 {
                hints.runs_ready.notify_one();
            }
        };
        self.writer.write(reap, wake).await
    }

    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError> {
        let hints = Arc::clone(&self.hints);
        let stop = move |c: &Connection| {
            let leases = leases(c, host)?;
            leases.iter().try_for_each(|lease| release(c, *lease, now))?;
            c.execute("DELETE FROM host WHERE id = ?1", [Id(host.0)])?;
            Ok(leases.len() as u64)
        };
        self.writer.write(stop, move |_| hints.runs_ready.notify_one()).await
    }
}

/// Ends the lives of the hosts that `which` selects, and says how many runs they had.
fn reap(c: &Connection, which: &str, parameters: impl Params, now: Timestamp) -> Result<u64, StoreError> {
    let mut lost = c.prepare_cached(which)?;
    let rows = lost.query_map(parameters, |row| Ok(HostId(row.get::<_, Id>(0)?.0)))?;
    let lost: Vec<HostId> = rows.collect::<Result<_, _>>()?;
    let mut count = 0;
    for host in lost {
        let leases = leases(c, host)?;
        for lease in &leases {
            lose(c, *lease, now)?;
        }
        count += leases.len() as u64;
        c.execute("DELETE FROM host WHERE id = ?1", [Id(host.0)])?;
    }
    Ok(count)
}

fn leases(c: &Connection, host: HostId) -> Result<Vec<Lease>, StoreError> {
    let mut running =
        c.prepare_cached("SELECT id, attempt FROM run WHERE host_id = ?1 AND state = 'running'")?;
    let rows = running.query_map([Id(host.0)], |row| {
        Ok(Lease { run: RunId(row.get::<_, Id>(0)?.0), host, attempt: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
