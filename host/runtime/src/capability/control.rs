//! `innkeeper:task/control`: progress, and whether to go on.

use crate::bindings::innkeeper::task::control::Host;
use crate::guest::Guest;
use innkeeper_domain::limits::PROGRESS_NOTE_BYTES_MAX;
use innkeeper_domain::run::Progress;
use wasmtime::Result;

impl Host for Guest {
    fn cancelled(&mut self) -> Result<bool> {
        Ok(self.port.is_cancelled())
    }

    fn progress(&mut self, done: u64, total: Option<u64>, note: String) -> Result<()> {
        let note = self.log.mask().beginning(&note, PROGRESS_NOTE_BYTES_MAX);
        self.port.progress(Progress { done, total, note });
        Ok(())
    }
}
