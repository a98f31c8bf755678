//! What only so much may be under way of at one time: on this host, and of one tenant or from one address, so that one
//! leaves room for the others.

use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::{
    CONNECTIONS_MAX, FORECASTS_MAX, FORECASTS_PER_TENANT_MAX, STREAMS_PER_CONNECTION_MAX,
    STREAMS_PER_TENANT_MAX, UPLOADS_MAX, UPLOADS_PER_TENANT_MAX, WEBHOOKS_MAX, WEBHOOKS_PER_ADDRESS_MAX,
    WEBHOOKS_PER_TENANT_MAX,
};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::Status;

/// Counts what is under way. Clones count together.
#[derive(Debug, Clone)]
pub struct Slots<Who: Copy + Eq + Hash = TenantId> {
    /// In the plural.
    what: &'static str,
    /// Whose: `of the tenant`.
    whose: &'static str,
    all_max: usize,
    each_max: usize,
    taken: Arc<Mutex<Taken<Who>>>,
}

#[derive(Debug)]
struct Taken<Who> {
    all: usize,
    each: HashMap<Who, usize>,
}

/// The right to one, given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot<Who: Copy + Eq + Hash = TenantId> {
    slots: Slots<Who>,
    who: Who,
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
        Self::each(what, "of the tenant", all_max, each_max)
    }
}

impl Slots<IpAddr> {
    /// For webhooks, by where they come from.
    pub(crate) fn senders() -> Self {
        Self::each("webhooks", "from this address", WEBHOOKS_MAX, WEBHOOKS_PER_ADDRESS_MAX)
    }
}

impl<Who: Copy + Eq + Hash> Slots<Who> {
    fn each(what: &'static str, whose: &'static str, all_max: usize, each_max: usize) -> Self {
        let taken = Taken { all: 0, each: HashMap::new() };
        Self { what, whose, all_max, each_max, taken: Arc::new(Mutex::new(taken)) }
    }

    /// Takes one for a tenant or an address, if there is one.
    pub(crate) fn take(&self, who: Who) -> Result<Slot<Who>, Status> {
        let (what, whose) = (self.what, self.whose);
        let mut taken = self.taken();
        let own = taken.each.get(&who).copied().unwrap_or_default();
        if own >= self.each_max {
            return Err(Status::resource_exhausted(format!(
                "{own} {what} {whose} are under way on this host, and there may be no more at one time; try again \
                 in a while"
            )));
        }
        if taken.all >= self.all_max {
            return Err(Status::resource_exhausted(format!(
                "{} {what} are under way on this host; try again in a while",
                taken.all
            )));
        }
        taken.all += 1;
        taken.each.insert(who, own + 1);
        Ok(Slot { slots: self.clone(), who })
    }

    fn taken(&self) -> MutexGuard<'_, Taken<Who>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Who: Copy + Eq + Hash> Drop for Slot<Who> {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.each.get_mut(&self.who) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.each.remove(&self.who);
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
        assert!(slots.taken().each.is_empty() && slots.taken().all == 0, "nothing is left behind");
    }
}
