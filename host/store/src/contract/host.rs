//! Hosts and their signs of life.

use crate::StoreError;
use async_trait::async_trait;
use innkeeper_domain::Timestamp;
use innkeeper_domain::ids::HostId;

/// Hosts.
#[async_trait]
pub trait HostStore: Send + Sync + 'static {
    /// A host process begins its life. On a store that only one process can have open, every other host
    /// is lost by now: their runs are taken up again at once, as by [`HostStore::hosts_reap`], and counted.
    async fn host_start(
        &self,
        host: HostId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Keeps the host's leases until then. `LeaseLost` if they ended before, and its runs are others' now.
    async fn host_renew(&self, host: HostId, lease_until: Timestamp) -> Result<(), StoreError>;

    /// Ends the leases of hosts that gave no sign of life in time. Their running runs are ready again at
    /// once, or failed with `host-lost` after too many losses. Returns how many runs that concerned.
    async fn hosts_reap(&self, now: Timestamp) -> Result<u64, StoreError>;

    /// The host ends its life in order, and executes nothing any more. Runs that it still has are handed
    /// back: they are ready at once, and it counts neither as a try nor as a loss. Returns how many.
    async fn host_stop(&self, host: HostId, now: Timestamp) -> Result<u64, StoreError>;
}
