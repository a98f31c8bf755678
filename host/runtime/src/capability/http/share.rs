//! What attempts may have at one time: connections and lookups, their tenant's share and the host's.

use super::client::Bounds;
use innkeeper_domain::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The host's, and those of tenants whose attempts have any.
pub(super) struct Shares {
    bounds: Bounds,
    host: Arc<Room>,
    tenants: Mutex<HashMap<TenantId, Weak<Share>>>,
}

/// One tenant's. There is one of each tenant's as long as anything is taken of it.
pub(super) struct Share {
    bounds: Bounds,
    host: Arc<Room>,
    tenant: Room,
}

struct Room {
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
}

/// Room for a connection; given back when it is dropped.
pub(super) struct Connection {
    _permits: [OwnedSemaphorePermit; 3],
    _of: Arc<Share>,
}

/// Room for a lookup; given back when it is dropped.
pub(super) struct Lookup {
    _permits: [OwnedSemaphorePermit; 2],
    _of: Arc<Share>,
}

/// There is no room for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error(
        "the attempt has {0} connections open, which is the most at one time; it must read or drop a response first"
    )]
    Attempt(usize),
    #[error(
        "the tenant's attempts have {0} connections open on this host, which is the most at one time; try again later"
    )]
    Tenant(usize),
    #[error(
        "of the {0} connections that all attempts on this host may have open at one time, no more are left than the tenant has \
         already; try again later"
    )]
    Host(usize),
}

impl Shares {
    pub fn new(bounds: Bounds) -> Self {
        let host = Room {
            connections: Arc::new(Semaphore::new(bounds.host_connections)),
            lookups: Arc::new(Semaphore::new(bounds.host_lookups)),
        };
        Self { bounds, host: Arc::new(host), tenants: Mutex::default() }
    }

    pub fn of(&self, tenant: TenantId) -> Arc<Share> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = tenants.get(&tenant).and_then(Weak::upgrade) {
            return share;
        }
        tenants.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Share {
            bounds: self.bounds,
            host: Arc::clone(&self.host),
            tenant: Room {
                connections: Arc::new(Semaphore::new(self.bounds.tenant_connections)),
                lookups: Arc::new(Semaphore::new(self.bounds.tenant_lookups)),
            },
        });
        tenants.insert(tenant, Arc::downgrade(&share));
        share
    }
}

impl Share {
    /// Room for a connection of an attempt that has so much for itself; at once or not at all.
    pub fn connection(self: &Arc<Self>, attempt: &Arc<Semaphore>) -> Result<Connection, Full> {
        let take = |of: &Arc<Semaphore>, full| Arc::clone(of).try_acquire_owned().map_err(|_| full);
        let of_attempt = take(attempt, Full::Attempt(self.bounds.connections))?;
        let of_tenant = take(&self.tenant.connections, Full::Tenant(self.bounds.tenant_connections))?;
        let full = Full::Host(self.bounds.host_connections);
        // With this one.
        let has = self.bounds.tenant_connections - self.tenant.connections.available_permits();
        if has > self.host.connections.available_permits() {
            return Err(full);
        }
        let of_host = take(&self.host.connections, full)?;
        Ok(Connection { _permits: [of_attempt, of_tenant, of_host], _of: Arc::clone(self) })
    }

    /// Waits for room for a lookup: first for the tenant's, so that who has used that up keeps nobody else waiting.
    pub async fn lookup(self: &Arc<Self>) -> Result<Lookup, AcquireError> {
        let tenant = Arc::clone(&self.tenant.lookups).acquire_owned().await?;
        let host = Arc::clone(&self.host.lookups).acquire_owned().await?;
        Ok(Lookup { _permits: [tenant, host], _of: Arc::clone(self) })
    }
}
