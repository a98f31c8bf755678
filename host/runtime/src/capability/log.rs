//! `innkeeper:task/log`: the run's log.

use crate::bindings::innkeeper::task::log::{Host, Level};
use crate::guest::Guest;
use innkeeper_domain::run::LogLevel;
use wasmtime::Result;

impl Host for Guest {
    fn write(&mut self, level: Level, message: String) -> Result<()> {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.log.write(level, &message);
        Ok(())
    }
}
