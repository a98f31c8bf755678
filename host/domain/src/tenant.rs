//! Tenants: the unit of isolation.

use crate::ids::TenantId;
use crate::limits::{NOTE_CHARS_MAX, TENANT_WEIGHT_MAX};
use crate::name::Name;
use crate::quota::Quotas;
use crate::word::words;
use jiff::Timestamp;

/// A tenant as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub name: Name,
    pub state: TenantState,
    /// Why it is suspended.
    pub note: String,
    /// Whether its owner has paused it, beside `state`, which is the admin's.
    pub pause: Option<TenantPause>,
    /// Its share when there is more to execute than hosts can, in proportion to the others'; from 1.
    pub weight: u32,
    pub quotas: Quotas,
    pub created_at: Timestamp,
}

/// That nothing of a tenant is to begin, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPause {
    pub note: String,
    pub at: Timestamp,
}

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    Active,
    /// It can look at what it has; nothing of it begins, and it can change nothing.
    Suspended,
}

words!(TenantState, "a tenant's state", Active = "active", Suspended = "suspended");

/// What is to be different of a tenant; none: as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantUpdate {
    /// With the note that goes with it.
    pub state: Option<(TenantState, String)>,
    pub pause: Option<Option<TenantPause>>,
    pub weight: Option<u32>,
    /// The quotas to set, and to take away.
    pub quotas: std::collections::BTreeMap<crate::quota::Quota, Option<u64>>,
}

/// A tenant that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    #[error("a weight of {0} was asked for; it may be 1 to {TENANT_WEIGHT_MAX}")]
    Weight(u32),
    #[error("a note has at most {NOTE_CHARS_MAX} characters")]
    Note,
}

impl TenantUpdate {
    /// Checks every bound.
    pub fn check(&self) -> Result<(), TenantError> {
        if let Some(weight) = self.weight.filter(|weight| !(1..=TENANT_WEIGHT_MAX).contains(weight)) {
            return Err(TenantError::Weight(weight));
        }
        let suspended = self.state.as_ref().map(|(_, note)| note);
        let paused = self.pause.iter().flatten().map(|pause| &pause.note);
        let is_long = |note: &String| note.chars().count() > NOTE_CHARS_MAX;
        if suspended.into_iter().chain(paused).any(is_long) { Err(TenantError::Note) } else { Ok(()) }
    }

    /// The tenant with the differences.
    pub fn apply(self, mut tenant: Tenant) -> Tenant {
        if let Some((state, note)) = self.state {
            tenant.state = state;
            tenant.note = note;
        }
        tenant.pause = self.pause.unwrap_or(tenant.pause);
        tenant.weight = self.weight.unwrap_or(tenant.weight);
        for (quota, value) in self.quotas {
            match value {
                Some(value) => tenant.quotas.0.insert(quota, value),
                None => tenant.quotas.0.remove(&quota),
            };
        }
        tenant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    #[test]
    fn an_update_changes_only_what_it_says() {
        let tenant = Tenant {
            id: TenantId(uuid::Uuid::nil()),
            name: "a".parse().unwrap(),
            state: TenantState::Suspended,
            note: "unpaid".into(),
            pause: Some(TenantPause { note: "holidays".into(), at: Timestamp::UNIX_EPOCH }),
            weight: 3,
            quotas: Quotas([(Quota::Triggers, 1), (Quota::FanOut, 2)].into()),
            created_at: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(TenantUpdate::default().apply(tenant.clone()), tenant);
        let quotas = [(Quota::Triggers, Some(9)), (Quota::FanOut, None)].into();
        let changed = TenantUpdate { quotas, ..TenantUpdate::default() }.apply(tenant);
        assert_eq!(changed.quotas, Quotas([(Quota::Triggers, 9)].into()));
        assert_eq!((changed.weight, changed.note.as_str()), (3, "unpaid"));
        let resumed = TenantUpdate { pause: Some(None), ..TenantUpdate::default() }.apply(changed);
        assert_eq!((resumed.pause, resumed.state), (None, TenantState::Suspended));
        let heavy = TenantUpdate { weight: Some(0), ..TenantUpdate::default() };
        assert_eq!(heavy.check(), Err(TenantError::Weight(0)));
    }
}
