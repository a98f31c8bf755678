//! What a tenant may have more of, decided for every driver alike. A driver reads what is used, as far as the
//! tenant's quotas need it, and goes on with it through its transaction.

use crate::events::HostEvent;
use innkeeper_domain::Timestamp;
use innkeeper_domain::admit::{AdmissionState, Standing};
use innkeeper_domain::event::HostTopic;
use innkeeper_domain::ids::{TenantId, TriggerId};
use innkeeper_domain::limits::{STORED_BYTES_PER_LINE, STORED_BYTES_PER_RUN};
use innkeeper_domain::name::Name;
use innkeeper_domain::payload::Payload;
use innkeeper_domain::quota::{Quota, QuotaExceeded, Quotas};
use innkeeper_domain::rate;
use innkeeper_domain::tenant::TenantState;
use innkeeper_domain::trigger::{SkipRange, SkipReason};

/// A tenant in a transaction that creates runs of it.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// When the transaction takes place.
    pub now: Timestamp,
    pub tenant: TenantId,
    pub name: Name,
    pub state: TenantState,
    /// By its owner, or with the whole fleet.
    pub paused: bool,
    pub quotas: Quotas,
    /// CPU time used today, in microseconds; 0 without that quota.
    pub cpu: u64,
    /// Bytes stored; 0 without that quota.
    pub stored: u64,
    /// See [`rate::admit`]; none without a quota of starts.
    pub on_time_at: Option<Timestamp>,
    /// Bytes that the transaction adds.
    pub adds: u64,
    /// What triggers may want to be told of, a [`HostTopic::bit`] each.
    pub watched: u32,
    /// What the transaction has to tell.
    pub told: Vec<HostEvent>,
}

/// What a new run counts among the stored bytes.
pub(crate) fn bytes_of_run(input: &Payload) -> u64 {
    STORED_BYTES_PER_RUN + input.bytes.len() as u64
}

/// What a line of a log does.
pub(crate) fn bytes_of_line(text: &str) -> u64 {
    STORED_BYTES_PER_LINE + text.len() as u64
}

/// Whether the CPU time of the day is used up.
pub(crate) fn cpu_is_left(quotas: &Quotas, used: u64) -> Result<(), QuotaExceeded> {
    // Nothing of it may be begun with nothing left.
    quotas.check(Quota::CpuPerDay, used, 1)
}

/// Whether the tenant has no more stored than it may have. What it has exactly may be full: runs that were let in
/// up to the last byte begin, and what they add is over.
pub(crate) fn is_within_stored(quotas: &Quotas, used: u64) -> Result<(), QuotaExceeded> {
    quotas.check(Quota::StoredBytes, used, 0)
}

impl Account {
    /// One of which nothing is known to be used.
    pub fn new(tenant: TenantId, name: Name, (state, paused): (TenantState, bool), quotas: Quotas) -> Self {
        Self {
            now: Timestamp::MIN,
            tenant,
            name,
            state,
            paused,
            quotas,
            cpu: 0,
            stored: 0,
            on_time_at: None,
            adds: 0,
            watched: 0,
            told: Vec::new(),
        }
    }

    /// Whether it has this quota.
    pub fn has(&self, quota: Quota) -> bool {
        self.quotas.get(quota).is_some()
    }

    /// How it stands to a start by hand with this input.
    pub fn for_hand(&self, input: &Payload, now: Timestamp) -> Standing {
        let used = self.stored.saturating_add(self.adds);
        let check = cpu_is_left(&self.quotas, self.cpu)
            .and_then(|()| self.quotas.check(Quota::StoredBytes, used, bytes_of_run(input)))
            .and_then(|()| self.rate(now).map(|_| ()));
        self.standing(check.err().map(|exceeded| (0, exceeded)))
    }

    /// How it stands to a run that is over and is to be tried again by hand: it is stored already.
    pub fn for_retry(&self, now: Timestamp) -> Standing {
        let check = cpu_is_left(&self.quotas, self.cpu)
            .and_then(|()| is_within_stored(&self.quotas, self.stored))
            .and_then(|()| self.rate(now).map(|_| ()));
        self.standing(check.err().map(|exceeded| (0, exceeded)))
    }

    /// How it stands to the runs of a trigger with this input.
    pub fn for_trigger(&self, input: &Payload) -> Standing {
        if let Err(exceeded) = cpu_is_left(&self.quotas, self.cpu) {
            return self.standing(Some((0, exceeded)));
        }
        let (used, asked) = (self.stored.saturating_add(self.adds), bytes_of_run(input));
        self.standing(self.quotas.get(Quota::StoredBytes).map(|limit| {
            let exceeded = QuotaExceeded { quota: Quota::StoredBytes, limit, used, asked };
            (limit.saturating_sub(used) / asked, exceeded)
        }))
    }

    /// A run of this input was started by hand.
    pub fn started(&mut self, input: &Payload, now: Timestamp) {
        self.adds += bytes_of_run(input);
        self.on_time_at = self.rate(now).unwrap_or(self.on_time_at);
    }

    /// A run that was over is tried again by hand.
    pub fn retried(&mut self, now: Timestamp) {
        self.on_time_at = self.rate(now).unwrap_or(self.on_time_at);
    }

    /// Runs of this input were started by a trigger.
    pub fn fired(&mut self, runs: usize, input: &Payload) {
        self.adds += bytes_of_run(input) * runs as u64;
    }

    /// A run of this input isn't started by its trigger after all.
    pub fn not_fired(&mut self, input: &Payload) {
        self.adds -= bytes_of_run(input);
    }

    /// Due times of a trigger with a schedule have no run: it is told, and the quota that is the reason.
    pub fn skipped(
        &mut self,
        trigger: (TriggerId, &Name),
        task: &Name,
        skips: &[SkipRange],
        state: &AdmissionState,
    ) {
        if self.watched & HostTopic::TriggerSkipped.bit() != 0 {
            self.told.extend(skips.iter().map(|skip| HostEvent::skipped(trigger, task, skip)));
        }
        if skips.iter().any(|skip| skip.reason == SkipReason::Quota)
            && let Some((_, exceeded)) = &state.tenant.over
        {
            self.refused(exceeded);
        }
    }

    /// A quota keeps a run from being started: it is told.
    pub fn refused(&mut self, exceeded: &QuotaExceeded) {
        if self.watched & HostTopic::QuotaReached.bit() != 0 {
            let event = HostEvent::refused(exceeded, self.now);
            if self.told.iter().all(|told| told.id != event.id) {
                self.told.push(event);
            }
        }
    }

    /// What one start more makes of the rate.
    fn rate(&self, now: Timestamp) -> Result<Option<Timestamp>, QuotaExceeded> {
        let quota = Quota::StartsPerSecond;
        let Some(limit) = self.quotas.get(quota) else { return Ok(None) };
        rate::admit(self.on_time_at, now, limit, 1).map(Some).map_err(|used| QuotaExceeded {
            quota,
            limit,
            used,
            asked: 1,
        })
    }

    fn standing(&self, over: Option<(u64, QuotaExceeded)>) -> Standing {
        Standing { suspended: self.state == TenantState::Suspended, paused: self.paused, over }
    }
}
