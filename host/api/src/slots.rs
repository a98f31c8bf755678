//! What only so much may be under way of at one time: on this host, and of one tenant, so that one tenant leaves room
//! for the others.

use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::{
    CONNECTIONS_MAX, FORECASTS_MAX, FORECASTS_PER_TENANT_MAX, STREAMS_PER_CONNECTION_MAX,
    STREAMS_PER_TENANT_MAX, UPLOADS_MAX, UPLOADS_PER_TENANT_MAX, WEBHOOKS_MAX, WEBHOOKS_PER_TENANT_MAX,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;

/// Counts what is under way. Clones count together.
#[derive(Debug, Clone)]
pub struct Slots {
    /// In the plural.
    what: &'static str,
    all_max: usize,
    each_max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_tenant: HashMap<TenantId, usize>,
}

/// The right to one, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    tenant: TenantId,
}

impl Slots {
    /// For uploads, each with its bytes in memory.
    pub fn uploads() -> Self {
        Self::new("uploads", UPLOADS_MAX, UPLOADS_PER_TENANT_MAX)
    }

    /// For streams that follow runs; in all there are as many as connections have room for.
    pub fn streams() -> Self {
        let all = CONNECTIONS_MAX.saturating_mul(STREAMS_PER_CONNECTION_MAX as usize);
        Self::new("streams of runs and logs", all, STREAMS_PER_TENANT_MAX)
    }

    /// For forecasts and planned backfills, each with a thread of its own.
    pub fn forecasts() -> Self {
        Self::new("forecasts and planned backfills", FORECASTS_MAX, FORECASTS_PER_TENANT_MAX)
    }

    /// For webhooks, each with its body in memory.
    pub fn webhooks() -> Self {
        Self::new("webhooks", WEBHOOKS_MAX, WEBHOOKS_PER_TENANT_MAX)
    }

    fn new(what: &'static str, all_max: usize, each_max: usize) -> Self {
        Self { what, all_max, each_max, taken: Arc::default() }
    }

    /// Takes one for a tenant, if there is one.
    pub(crate) fn take(&self, tenant: TenantId) -> Result<Slot, Status> {
        let what = self.what;
        let mut taken = self.taken();
        let own = taken.by_tenant.get(&tenant).copied().unwrap_or_default();
        if own >= self.each_max {
            return Err(Status::resource_exhausted(format!(
                "{own} {what} of the tenant are under way on this host, and it may have no more at one time; try \
                 again in a while"
            )));
        }
        if taken.all >= self.all_max {
            return Err(Status::resource_exhausted(format!(
                "{} {what} are under way on this host; try again in a while",
                taken.all
            )));
        }
        taken.all += 1;
        taken.by_tenant.insert(tenant, own + 1);
        Ok(Slot { slots: self.clone(), tenant })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.by_tenant.get_mut(&self.tenant) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::Timestamp;
    use tonic::Code;

    #[test]
    fn one_tenant_leaves_room_for_others() {
        let slots = Slots::new("uploads", 3, 2);
        let [a, b, c] = [0; 3].map(|_| TenantId::new(Timestamp::UNIX_EPOCH));
        let first = slots.take(a).unwrap();
        let second = slots.take(a).unwrap();
        let refused = slots.take(a).unwrap_err();
        assert!(
            refused.code() == Code::ResourceExhausted
                && refused.message().contains("2 uploads of the tenant")
        );
        let third = slots.take(b).unwrap();
        assert!(slots.take(c).unwrap_err().message().contains("3 uploads are under way"));
        drop(first);
        let again = slots.take(c).unwrap();
        drop((second, third, again));
        assert!(slots.taken().by_tenant.is_empty() && slots.taken().all == 0, "nothing is left behind");
    }
}
