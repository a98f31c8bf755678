//! Hosts in PostgreSQL, and what becomes of the runs of those that are lost.

use super::connection::{in_transaction, reading};
use super::finish::end_all;
use super::row::{At, Json, Small, Word, execute, is_too_long, row, rows, unsigned};
use super::{PostgresStore, Shard, Shared, audit, fleet_pause};
use crate::ending::LeaseEnd;
use crate::record;
use crate::{HostStore, Orders, StoreError};
use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::host::{FleetPause, Host, HostState, HostStatus};
use innkeeper_domain::ids::{HostId, RunId};
use innkeeper_domain::limits::HOSTS_LISTED_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::Lease;
use std::collections::HashSet;
use tokio_postgres::Row;
use uuid::Uuid;

#[async_trait]
impl HostStore for PostgresStore {
    async fn host_start(
        &self,
        host: Host,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        in_transaction!(&self.shared.vital, |c| {
            c.batch_execute(fleet_pause::HOLD).await?;
            // One that was lost and reaped, else one that is still on record.
            let forget = "DELETE FROM host_told WHERE name = $1 RETURNING state";
            let told = match row(c, forget, &[&host.name.as_str()]).await? {
                Some(told) => Some(told),
                None => {
                    let last = "SELECT state FROM host WHERE name = $1 ORDER BY started_at DESC LIMIT 1";
                    row(c, last, &[&host.name.as_str()]).await?
                }
            };
            let state =
                told.map_or(Ok(HostState::Active), |told| told.try_get::<_, Word<_>>(0).map(|told| told.0))?;
            execute(
                c,
                "INSERT INTO host (id, started_at, lease_until, name, address, version, roles, labels, capacity, state,
                     paused)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, EXISTS (SELECT 1 FROM fleet_pause))",
                &[
                    &host.id.0,
                    &At(now),
                    &At(lease_until),
                    &host.name.as_str(),
                    &host.address,
                    &host.version,
                    &Json(&host.roles),
                    &host.labels.to_string(),
                    &Small(host.capacity),
                    &state.as_str(),
                ],
            )
            .await?;
        })?;
        Ok(0)
    }

    async fn host_renew(&self, host: HostId, lease_until: Timestamp) -> Result<(), StoreError> {
        reading!(&self.shared.vital, |c| {
            let renew = "UPDATE host SET lease_until = $2 WHERE id = $1";
            if execute(c, renew, &[&host.0, &At(lease_until)]).await? == 0 {
                return Err(StoreError::LeaseLost);
            }
        })
    }

    async fn hosts_reap(&self, by: HostId, now: Timestamp) -> Result<u64, StoreError> {
        // A look costs no transaction, and there is seldom anything to do. The newest of a name comes last, and
        // decides what is told to the next.
        let overdue = reading!(&self.shared.vital, |c| {
            let overdue =
                "SELECT id FROM host WHERE lease_until < $1 AND id <> $3 ORDER BY started_at, id LIMIT $2";
            let found = rows(c, overdue, &[&At(now), &(HOSTS_LISTED_MAX as i64), &by.0]).await?;
            found.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<Uuid>, StoreError>>()?
        })?;
        let (mut ended, mut blocked) = (0, None);
        for host in overdue {
            match self.reap(host, now).await {
                Ok(leases) => ended += leases,
                // A run of the one that can't be touched is no reason to leave the others' alone.
                Err(error) if is_too_long(&error) => blocked = Some(error),
                Err(error) => return Err(error),
            }
        }
        blocked.map_or(Ok(ended), Err)
    }

    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError> {
        let leases = in_transaction!(&self.shared.vital, |c| {
            row(c, "SELECT 1 FROM host WHERE id = $1 FOR UPDATE", &[&host.0]).await?;
            end_lives(&self.shared, c, &[host.0], LeaseEnd::HandedBack, now).await?
        })?;
        self.wake_for(&leases);
        Ok(leases.len() as u64)
    }

    async fn host_orders(&self, host: HostId) -> Result<Orders, StoreError> {
        reading!(&self.shared.vital, |c| {
            let state = state(c, host).await?.ok_or(StoreError::LeaseLost)?;
            let cancelled = rows(
                c,
                "SELECT host_id, id, attempt FROM run WHERE host_id = $1 AND state = 'running'
                     AND (cancel_requested OR tenant_id IN (SELECT id FROM tenant WHERE deleted_at IS NOT NULL))",
                &[&host.0],
            )
            .await?;
            Orders { state, cancelled: cancelled.iter().map(read_lease).collect::<Result<_, _>>()? }
        })
    }

    async fn host_release(&self, host: HostId, keep: Vec<Lease>, now: Timestamp) -> Result<u64, StoreError> {
        let keep: HashSet<Lease> = keep.into_iter().collect();
        let has_orphans = reading!(&self.shared.pool, |c| {
            leases(c, &[host.0]).await?.iter().any(|lease| !keep.contains(lease))
        })?;
        if !has_orphans {
            return Ok(0);
        }
        let released = in_transaction!(&self.shared.pool, |c| {
            let mut leases = leases(c, &[host.0]).await?;
            leases.retain(|lease| !keep.contains(lease));
            end(&self.shared, c, &leases, LeaseEnd::HandedBack, now).await?
        })?;
        self.wake_for(&released);
        Ok(released.len() as u64)
    }

    async fn fleet_pause(&self, note: String, change: Change) -> Result<FleetPause, StoreError> {
        let paused = in_transaction!(&self.shared.pool, |c| {
            let paused = fleet_pause::set(c, Some(&note), &change).await?;
            paused.ok_or_else(|| StoreError::Corrupt("a pause was not written".into()))?
        })?;
        self.shared.wakes.runs_ready();
        fleet_pause::wait(&self.shared).await?;
        Ok(paused)
    }

    async fn fleet_unpause(&self, change: Change) -> Result<(), StoreError> {
        in_transaction!(&self.shared.pool, |c| {
            fleet_pause::set(c, None, &change).await?;
        })?;
        self.shared.wakes.runs_ready();
        Ok(())
    }

    async fn fleet_paused(&self) -> Result<Option<FleetPause>, StoreError> {
        reading!(&self.shared.pool, |c| fleet_pause::get(c).await?)
    }

    async fn host_list(&self) -> Result<Vec<HostStatus>, StoreError> {
        reading!(&self.shared.pool, |c| list(c, None).await?)
    }

    async fn host_set_state(
        &self,
        name: &Name,
        state: HostState,
        change: Change,
    ) -> Result<Vec<HostStatus>, StoreError> {
        let hosts = in_transaction!(&self.shared.pool, |c| {
            // Claims hold a host's row, so this waits for those under way.
            rows(c, "SELECT 1 FROM host WHERE name = $1 ORDER BY id FOR UPDATE", &[&name.as_str()]).await?;
            let before = list(c, Some(name)).await?;
            if before.is_empty() {
                return Err(StoreError::NotFound(format!("host `{name}`")));
            }
            let set = "UPDATE host SET state = $2 WHERE name = $1";
            execute(c, set, &[&name.as_str(), &state.as_str()]).await?;
            let after = list(c, Some(name)).await?;
            let difference = (record::hosts(&before), record::hosts(&after));
            audit::record(c, &change, None, format!("host `{name}`"), difference).await?;
            after
        })?;
        self.shared.wakes.orders();
        self.shared.wakes.runs_ready();
        Ok(hosts)
    }
}

impl PostgresStore {
    /// Ends the life of a host whose lease is over, and says how many of its runs that concerned.
    async fn reap(&self, host: Uuid, now: Timestamp) -> Result<u64, StoreError> {
        let leases = in_transaction!(&self.shared.vital, |c| {
            let lock =
                "SELECT name, state FROM host WHERE id = $1 AND lease_until < $2 FOR UPDATE SKIP LOCKED";
            let mut ended = Vec::new();
            if let Some(lost) = row(c, lock, &[&host, &At(now)]).await? {
                let (name, state): (&str, &str) = (lost.try_get(0)?, lost.try_get(1)?);
                if state != HostState::Active.as_str() {
                    let tell = "INSERT INTO host_told (name, state) VALUES ($1, $2)
                        ON CONFLICT (name) DO UPDATE SET state = excluded.state";
                    execute(c, tell, &[&name, &state]).await?;
                }
                ended = end_lives(&self.shared, c, &[host], LeaseEnd::HostLost, now).await?;
            }
            ended
        })?;
        self.wake_for(&leases);
        Ok(leases.len() as u64)
    }

    fn wake_for(&self, leases: &[Lease]) {
        if !leases.is_empty() {
            self.shared.wakes.runs_changed(leases.iter().map(|lease| lease.run));
            self.shared.wakes.runs_ready();
        }
    }
}

/// The host's state; none if its life has ended.
pub(super) async fn state(c: &impl GenericClient, host: HostId) -> Result<Option<HostState>, StoreError> {
    match row(c, "SELECT state FROM host WHERE id = $1", &[&host.0]).await? {
        Some(found) => Ok(Some(found.try_get::<_, Word<_>>(0)?.0)),
        None => Ok(None),
    }
}

async fn list(c: &impl GenericClient, name: Option<&Name>) -> Result<Vec<HostStatus>, StoreError> {
    let found = rows(
        c,
        "SELECT h.id, h.name, h.address, h.version, h.roles, h.labels, h.capacity, h.state, h.started_at,
             h.lease_until, (SELECT count(*) FROM run r WHERE r.host_id = h.id AND r.state = 'running')
         FROM host h WHERE $1::text IS NULL OR h.name = $1 ORDER BY h.name, h.id LIMIT $2",
        &[&name.map(Name::as_str), &(HOSTS_LISTED_MAX as i64)],
    )
    .await?;
    let read = |row: &Row| {
        Ok(HostStatus {
            host: Host {
                id: HostId(row.try_get(0)?),
                name: row.try_get::<_, Word<_>>(1)?.0,
                address: row.try_get(2)?,
                version: row.try_get(3)?,
                roles: row.try_get::<_, Json<_>>(4)?.0,
                labels: row.try_get::<_, Word<_>>(5)?.0,
                capacity: row.try_get::<_, Small>(6)?.0,
            },
            state: row.try_get::<_, Word<_>>(7)?.0,
            started_at: row.try_get::<_, At>(8)?.0,
            lease_until: row.try_get::<_, At>(9)?.0,
            running: unsigned(row.try_get(10)?),
        })
    };
    found.iter().map(read).collect()
}

/// Ends the lives of hosts whose rows are locked, and the leases that they have.
async fn end_lives(
    shared: &Shared,
    c: &impl GenericClient,
    hosts: &[Uuid],
    how: LeaseEnd<'_>,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    let ended = end(shared, c, &leases(c, hosts).await?, how, now).await?;
    execute(c, "DELETE FROM host WHERE id = ANY($1)", &[&hosts]).await?;
    Ok(ended)
}

/// Ends those of the leases that hold.
async fn end(
    shared: &Shared,
    c: &impl GenericClient,
    leases: &[Lease],
    how: LeaseEnd<'_>,
    now: Timestamp,
) -> Result<Vec<Lease>, StoreError> {
    let ends: Vec<_> = leases.iter().map(|lease| (*lease, how, now)).collect();
    let answers = end_all(shared, c, Shard::Others, &ends).await?;
    Ok(leases.iter().zip(answers).filter(|(_, answer)| answer.is_ok()).map(|(lease, _)| *lease).collect())
}

async fn leases(c: &impl GenericClient, hosts: &[Uuid]) -> Result<Vec<Lease>, StoreError> {
    let running =
        "SELECT host_id, id, attempt FROM run WHERE host_id = ANY($1) AND state = 'running' ORDER BY id";
    rows(c, running, &[&hosts]).await?.iter().map(read_lease).collect()
}

fn read_lease(row: &Row) -> Result<Lease, StoreError> {
    Ok(Lease {
        run: RunId(row.try_get(1)?),
        host: HostId(row.try_get(0)?),
        attempt: row.try_get::<_, Small>(2)?.0,
    })
}
