//! What goes on record of webhooks that start nothing: refused senders, and secrets that can't be read.

use crate::auth::peer_address;
use crate::denials::What;
use crate::gate::Gate;
use http::request::Parts;
use innkeeper_domain::audit::Actor;
use innkeeper_domain::ids::{TenantId, TriggerId};
use innkeeper_domain::limits::{PAGE_ROWS_MAX, TENANTS_MAX, WEBHOOK_FAILURES_SAID_MAX};
use innkeeper_domain::name::Name;
use innkeeper_domain::trigger::Trigger;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Page, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the same failure is said.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// A refused sender goes on record, for the trigger's tenant to see.
pub(super) async fn refused(
    gate: &Gate,
    names: &Names,
    store: &dyn Store,
    parts: &Parts,
    tenant: TenantId,
    trigger: &Trigger,
) {
    let name = format!("sender to trigger {}", trigger.id);
    let address = peer_address(parts).to_string();
    let actor = Actor { name, role: None, address, action: "webhook".into() };
    let tenant = names.of(store, tenant).await.map(|name| (tenant, name));
    gate.denied(&Arc::new(actor), What { tenant, object: format!("trigger `{}`", trigger.name) });
}

/// Names of tenants, which keep them.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<HashMap<TenantId, Name>>>);

impl Names {
    /// The tenant's; none while the store can't say. The list is read once for each tenant that is new.
    async fn of(&self, store: &dyn Store, tenant: TenantId) -> Option<Name> {
        if let Some(name) = self.known(tenant) {
            return Some(name);
        }
        let mut after = None;
        loop {
            let page = store.tenant_list(Page { size: PAGE_ROWS_MAX, after }).await.ok()?;
            {
                let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if (names.len() + page.items.len()) as u64 > 2 * TENANTS_MAX {
                    // Of those that were deleted.
                    names.clear();
                }
                names.extend(page.items.into_iter().map(|tenant| (tenant.id, tenant.name)));
            }
            after = Some(page.next?);
            if let Some(name) = self.known(tenant) {
                return Some(name);
            }
        }
    }

    fn known(&self, tenant: TenantId) -> Option<Name> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned()
    }
}

/// Whose failure was said lately.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Arc<Mutex<HashMap<TriggerId, Timestamp>>>);

impl Said {
    /// Whether a trigger's failure is to be said now: not if it was less than a minute ago, nor if so many others' were.
    pub fn is_due(&self, trigger: TriggerId, now: Timestamp) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|_, at| time::between(*at, now) < SAID_AGAIN);
        if said.len() >= WEBHOOK_FAILURES_SAID_MAX || said.contains_key(&trigger) {
            return false;
        }
        said.insert(trigger, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_said_once_a_minute() {
        let (said, trigger) = (Said::default(), TriggerId::new(Timestamp::UNIX_EPOCH));
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(
            [0, 1, 59, 60, 61].map(|second| said.is_due(trigger, at(second))),
            [true, false, false, true, false]
        );
        let others =
            (0..2 * WEBHOOK_FAILURES_SAID_MAX).filter(|_| said.is_due(TriggerId::new(at(62)), at(62)));
        assert_eq!(others.count(), WEBHOOK_FAILURES_SAID_MAX - 1);
    }
}
