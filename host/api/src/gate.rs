//! What is remembered from call to call: who has failed to log in, and refusals that are not on record yet.

use crate::denials::{Denials, What};
use crate::login_limit::LoginLimit;
use innkeeper_domain::Timestamp;
use innkeeper_domain::audit::Actor;
use innkeeper_domain::time::Now;
use innkeeper_store::TokenHash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) struct Gate {
    now: Now,
    logins: Mutex<LoginLimit>,
    pub denials: Denials,
}

impl Gate {
    pub fn new(now: Now) -> Self {
        Self { now, logins: Mutex::default(), denials: Denials::default() }
    }

    /// Somebody was refused, which goes on record.
    pub fn denied(&self, actor: &Arc<Actor>, what: What) {
        self.denials.add(actor, what, self.now());
    }

    /// Whether what this address shows is looked up; if not, how long it must wait.
    pub fn admit(&self, address: IpAddr, shown: &TokenHash) -> Result<(), Duration> {
        self.logins().admit(address, shown, self.now())
    }

    /// What was shown, or was only just made, is good.
    pub fn good(&self, shown: TokenHash) {
        self.logins().good(shown);
    }

    /// What was shown is not good.
    pub fn failed(&self, address: IpAddr, shown: &TokenHash) {
        self.logins().failed(address, shown, self.now());
    }

    fn now(&self) -> Timestamp {
        (self.now)()
    }

    fn logins(&self) -> MutexGuard<'_, LoginLimit> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
