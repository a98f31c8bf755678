//! Which process people reach.

use crate::client::Asked;
use crate::process::{Condition, Process};
use innkeeper_domain::calendar::Zones;
use innkeeper_store::Store;
use std::sync::{Arc, Mutex, PoisonError};

/// The newest process.
#[derive(Default)]
pub struct Front(Mutex<Option<Asked>>);

impl Front {
    pub fn set(&self, process: Arc<Process>, store: Arc<dyn Store>, zones: Arc<dyn Zones>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Asked { process, store, zones });
    }

    /// None while there is none that takes calls.
    pub fn get(&self) -> Option<Asked> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let takes_calls = asked.process.condition() != Condition::Dead && !asked.process.stop.is_cancelled();
        takes_calls.then_some(asked)
    }
}
