//! Hosts and their signs of life.

use crate::StoreError;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Change;
use innkeeper_domain::host::{FleetPause, Host, HostState, HostStatus};
use innkeeper_domain::ids::HostId;
use innkeeper_domain::name::Name;
use innkeeper_domain::run::Lease;

/// What a host is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    pub state: HostState,
    /// Its running runs that are to be cancelled.
    pub cancelled: Vec<Lease>,
}

/// Hosts.
#[async_trait]
pub trait HostStore: Send + Sync + 'static {
    /// A host process begins its life, and is active. A cordon of a host of that name that was lost stays.
    /// On a store that only one process can have open, every other host is lost by now: their runs are
    /// taken up again at once, as by [`HostStore::hosts_reap`], and counted.
    async fn host_start(&self, host: Host, lease_until: Timestamp, now: Timestamp)
    -> Result<u64, StoreError>;

    /// Keeps the host's leases until then. `LeaseLost` if they ended before, and its runs are others' now.
    async fn host_renew(&self, host: HostId, lease_until: Timestamp) -> Result<(), StoreError>;

    /// Ends the leases of hosts that gave no sign of life in time, but for the one that asks: it knows by
    /// itself how late it is. Their running runs are ready again at once, or failed with `host-lost` after too
    /// many losses. Returns how many runs that concerned.
    async fn hosts_reap(&self, by: HostId, now: Timestamp) -> Result<u64, StoreError>;

    /// The host ends its life in order, and executes nothing any more. Runs that it still has are handed
    /// back: they are ready at once, and it counts neither as a try nor as a loss. Returns how many.
    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError>;

    /// What the host is to do. `LeaseLost` if its life has ended.
    async fn host_orders(&self, host: HostId) -> Result<Orders, StoreError>;

    /// Hands back the runs that are leased to the host, but for those in `keep`, as
    /// [`HostStore::host_stop`] does. Returns how many.
    async fn host_release(&self, host: HostId, keep: Vec<Lease>, now: Timestamp) -> Result<u64, StoreError>;

    /// Pauses the fleet, every tenant's: after this nothing is claimed, whichever hosts come, and due times are skipped as
    /// `paused`. What executes goes on. Pausing again changes the note.
    async fn fleet_pause(&self, note: String, change: Change) -> Result<FleetPause, StoreError>;

    /// Changes nothing if the fleet isn't paused.
    async fn fleet_unpause(&self, change: Change) -> Result<(), StoreError>;

    /// None if the fleet isn't paused.
    async fn fleet_paused(&self) -> Result<Option<FleetPause>, StoreError>;

    /// Every host that lives, by name.
    async fn host_list(&self) -> Result<Vec<HostStatus>, StoreError>;

    /// Sets the state of the hosts of that name. After this a host that isn't active claims nothing.
    /// `NotFound`.
    async fn host_set_state(
        &self,
        name: &Name,
        state: HostState,
        change: Change,
    ) -> Result<Vec<HostStatus>, StoreError>;
}
