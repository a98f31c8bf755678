//! Hosts in SQLite. There is only ever one: the folder's lock sees to that.

use super::finish::end;
use super::row::{At, Id, Json, Word, unsigned};
use super::{SqliteStore, audit, fleet_pause};
use crate::ending::LeaseEnd;
use crate::record;
use crate::{HostStore, Orders, StoreError};
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::host::{FleetPause, Host, HostState, HostStatus};
use innkeeper_domain::ids::{HostId, RunId};
use innkeeper_domain::limits::HOSTS_LISTED_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::Lease;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use std::collections::HashSet;
use std::sync::Arc;

#[async_trait]
impl HostStore for SqliteStore {
    async fn host_start(
        &self,
        host: Host,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.end_leases(move |c| {
            // Whatever other host is on record had the folder's lock before this one, and is gone.
            let lost = reap(c, "SELECT id FROM host WHERE id <> ?1", [Id(host.id.0)], now)?;
            let mut told = c.prepare_cached("DELETE FROM host_told WHERE name = ?1 RETURNING state")?;
            let told = told.query_row([host.name.as_str()], |row| row.get::<_, Word<_>>(0)).optional()?;
            c.execute(
                "INSERT INTO host (id, started_at, lease_until, name, address, version, roles, labels, capacity, state,
                     paused)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, EXISTS (SELECT 1 FROM fleet_pause))",
                params![
                    Id(host.id.0),
                    At(now),
                    At(lease_until),
                    host.name.as_str(),
                    host.address,
                    host.version,
                    Json(&host.roles),
                    host.labels.to_string(),
                    host.capacity,
                    told.map_or(HostState::Active, |state| state.0).as_str(),
                ],
            )?;
            Ok(lost)
        })
        .await
    }

    async fn host_renew(&self, host: HostId, lease_until: Timestamp) -> Result<(), StoreError> {
        let renewed = self.write(move |c| {
            let mut renew = c.prepare_cached("UPDATE host SET lease_until = ?2 WHERE id = ?1")?;
            match renew.execute(params![Id(host.0), At(lease_until)])? {
                0 => Err(StoreError::LeaseLost),
                _ => Ok(()),
            }
        });
        if let Some(renewed) = self.writer.soon(renewed).await {
            return renewed;
        }
        // Nobody else can take up what this host has while it holds the folder's lock, whether that is written late or
        // never: its attempts needn't end because others have a lot to write.
        let is_there = move |c: &Connection| {
            Ok(c.prepare_cached("SELECT 1 FROM host WHERE id = ?1")?.exists([Id(host.0)])?)
        };
        if self.read(is_there).await? { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn hosts_reap(&self, by: HostId, now: Timestamp) -> Result<u64, StoreError> {
        let overdue = move |c: &Connection| {
            let mut get = c.prepare_cached("SELECT 1 FROM host WHERE lease_until < ?1 AND id <> ?2")?;
            Ok(get.exists(params![At(now), Id(by.0)])?)
        };
        // A look costs no commit, and there is seldom anything to do.
        if !self.read(overdue).await? {
            return Ok(0);
        }
        let overdue = "SELECT id FROM host WHERE lease_until < ?1 AND id <> ?2";
        self.end_leases(move |c| reap(c, overdue, params![At(now), Id(by.0)], now)).await
    }

    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError> {
        let stop = move |c: &Connection| {
            let leases = leases(c, host)?;
            for lease in &leases {
                end(c, *lease, LeaseEnd::HandedBack, now)?;
            }
            c.execute("DELETE FROM host WHERE id = ?1", [Id(host.0)])?;
            Ok(leases)
        };
        self.end_leases(stop).await
    }

    async fn host_orders(&self, host: HostId) -> Result<Orders, StoreError> {
        self.read(move |c| {
            let state = state(c, host)?.ok_or(StoreError::LeaseLost)?;
            let mut list = c.prepare_cached(
                "SELECT id, attempt FROM run WHERE host_id = ?1 AND state = 'running'
                     AND (cancel_requested = 1 OR tenant_id IN (SELECT id FROM tenant WHERE deleted_at IS NOT NULL))",
            )?;
            let rows = list.query_map([Id(host.0)], |row| read_lease(row, host))?;
            Ok(Orders { state, cancelled: rows.collect::<Result<_, _>>()? })
        })
        .await
    }

    async fn host_release(&self, host: HostId, keep: Vec<Lease>, now: Timestamp) -> Result<u64, StoreError> {
        let keep: HashSet<Lease> = keep.into_iter().collect();
        let orphans = move |c: &Connection| {
            let mut leases = leases(c, host)?;
            leases.retain(|lease| !keep.contains(lease));
            Ok(leases)
        };
        let leases = self.read(orphans).await?;
        if leases.is_empty() {
            return Ok(0);
        }
        let release = move |c: &Connection| {
            let mut released = Vec::new();
            for lease in leases {
                match end(c, lease, LeaseEnd::HandedBack, now) {
                    Ok(_) => released.push(lease),
                    Err(StoreError::LeaseLost) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(released)
        };
        self.end_leases(release).await
    }

    async fn fleet_pause(&self, note: String, change: Change) -> Result<FleetPause, StoreError> {
        let hints = Arc::clone(&self.hints);
        let pause = move |c: &Connection| {
            let paused = fleet_pause::set(c, Some(&note), &change)?;
            paused.ok_or_else(|| StoreError::Corrupt("a pause was not written".into()))
        };
        self.writer.write(pause, move |_| hints.runs_ready.notify_one()).await
    }

    async fn fleet_unpause(&self, change: Change) -> Result<(), StoreError> {
        let hints = Arc::clone(&self.hints);
        let unpause = move |c: &Connection| fleet_pause::set(c, None, &change).map(drop);
        self.writer.write(unpause, move |()| hints.runs_ready.notify_one()).await
    }

    async fn fleet_paused(&self) -> Result<Option<FleetPause>, StoreError> {
        self.read(fleet_pause::get).await
    }

    async fn host_list(&self) -> Result<Vec<HostStatus>, StoreError> {
        self.read(|c| list(c, None)).await
    }

    async fn host_set_state(
        &self,
        name: &Name,
        state: HostState,
        change: Change,
    ) -> Result<Vec<HostStatus>, StoreError> {
        let name = name.clone();
        let hints = Arc::clone(&self.hints);
        let set = move |c: &Connection| {
            let before = list(c, Some(&name))?;
            if before.is_empty() {
                return Err(StoreError::NotFound(format!("host `{name}`")));
            }
            c.execute("UPDATE host SET state = ?2 WHERE name = ?1", params![name.as_str(), state.as_str()])?;
            let after = list(c, Some(&name))?;
            let object = || format!("host `{name}`");
            audit::record(c, &change, None, object, || (record::hosts(&before), record::hosts(&after)))?;
            Ok(after)
        };
        let wake = move |_: &Vec<HostStatus>| {
            hints.orders.notify_one();
            hints.runs_ready.notify_one();
        };
        self.writer.write(set, wake).await
    }
}

impl SqliteStore {
    /// A write that ends leases, and tells those who wait for their runs. Returns how many it ended.
    async fn end_leases(
        &self,
        write: impl FnOnce(&Connection) -> Result<Vec<Lease>, StoreError> + Send + 'static,
    ) -> Result<u64, StoreError> {
        let hints = Arc::clone(&self.hints);
        let wake = move |ended: &Vec<Lease>| {
            ended.iter().for_each(|lease| hints.run_changed(lease.run));
            hints.runs_ready.notify_one();
        };
        Ok(self.writer.write(write, wake).await?.len() as u64)
    }
}

/// Whether the host may claim runs; none if its life has ended.
pub(super) fn may_claim(c: &Connection, host: HostId) -> Result<Option<bool>, StoreError> {
    let mut get = c.prepare_cached("SELECT state = ?2 AND NOT paused FROM host WHERE id = ?1")?;
    Ok(get.query_row(params![Id(host.0), HostState::Active.as_str()], |row| row.get(0)).optional()?)
}

/// The host's state; none if its life has ended.
fn state(c: &Connection, host: HostId) -> Result<Option<HostState>, StoreError> {
    let mut get = c.prepare_cached("SELECT state FROM host WHERE id = ?1")?;
    Ok(get.query_row([Id(host.0)], |row| Ok(row.get::<_, Word<_>>(0)?.0)).optional()?)
}

fn list(c: &Connection, name: Option<&Name>) -> Result<Vec<HostStatus>, StoreError> {
    let mut list = c.prepare_cached(
        "SELECT h.id, h.name, h.address, h.version, h.roles, h.labels, h.capacity, h.state, h.started_at,
             h.lease_until, (SELECT count(*) FROM run r WHERE r.host_id = h.id AND r.state = 'running')
         FROM host h WHERE ?1 IS NULL OR h.name = ?1 ORDER BY h.name, h.id LIMIT ?2",
    )?;
    let rows = list.query_map(params![name.map(Name::as_str), HOSTS_LISTED_MAX as i64], |row| {
        Ok(HostStatus {
            host: Host {
                id: HostId(row.get::<_, Id>(0)?.0),
                name: row.get::<_, Word<_>>(1)?.0,
                address: row.get(2)?,
                version: row.get(3)?,
                roles: row.get::<_, Json<_>>(4)?.0,
                labels: row.get::<_, Word<_>>(5)?.0,
                capacity: row.get(6)?,
            },
            state: row.get::<_, Word<_>>(7)?.0,
            started_at: row.get::<_, At>(8)?.0,
            lease_until: row.get::<_, At>(9)?.0,
            running: unsigned(row.get(10)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Ends the lives of the hosts that `which` selects, and their leases.
fn reap(
    c: &Connection,
    which: &str,
    parameters: impl Params,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    let mut lost = c.prepare_cached(which)?;
    let rows = lost.query_map(parameters, |row| Ok(HostId(row.get::<_, Id>(0)?.0)))?;
    let lost: Vec<HostId> = rows.collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    for host in lost {
        for lease in leases(c, host)? {
            end(c, lease, LeaseEnd::HostLost, now)?;
            ended.push(lease);
        }
        c.execute(
            "INSERT INTO host_told (name, state) SELECT name, state FROM host WHERE id = ?1 AND state <> 'active'
             ON CONFLICT (name) DO UPDATE SET state = excluded.state",
            [Id(host.0)],
        )?;
        c.execute("DELETE FROM host WHERE id = ?1", [Id(host.0)])?;
    }
    Ok(ended)
}

fn leases(c: &Connection, host: HostId) -> Result<Vec<Lease>, StoreError> {
    let mut running =
        c.prepare_cached("SELECT id, attempt FROM run WHERE host_id = ?1 AND state = 'running' ORDER BY id")?;
    let rows = running.query_map([Id(host.0)], |row| read_lease(row, host))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn read_lease(row: &Row, host: HostId) -> rusqlite::Result<Lease> {
    Ok(Lease { run: RunId(row.get::<_, Id>(0)?.0), host, attempt: row.get(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::host::Labels;
    use std::sync::mpsc::channel;

    #[tokio::test]
    async fn a_lease_holds_however_long_somebody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let host = Host {
            id: HostId::new(at(1)),
            name: "one".parse().unwrap(),
            address: String::new(),
            version: String::new(),
            roles: vec![],
            labels: Labels::default(),
            capacity: 1,
        };
        let id = host.id;
        store.host_start(host, at(10), at(1)).await.unwrap();
        let (go, gate) = channel::<()>();
        let long = store.write(move |_| Ok(gate.recv().is_ok()));
        let renewals = async {
            assert_eq!(store.host_renew(id, at(20)).await, Ok(()));
            assert_eq!(store.host_renew(HostId::new(at(2)), at(20)).await, Err(StoreError::LeaseLost));
            go.send(()).unwrap();
        };
        assert_eq!(tokio::join!(long, renewals).0, Ok(true));
        let until = |c: &Connection| {
            Ok(c.query_row("SELECT lease_until FROM host", [], |row| row.get::<_, At>(0))?.0)
        };
        // It comes after the renewal.
        store.write(|_| Ok(())).await.unwrap();
        assert_eq!(store.read(until).await, Ok(at(20)));
    }
}
