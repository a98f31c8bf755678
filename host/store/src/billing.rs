//! What a transaction adds to bills, decided for every driver alike.

use crate::columns::{micros, unsigned};
use crate::ending::{Ended, Leased};
use innkeeper_domain::Timestamp;
use innkeeper_domain::bill::{Used, day_number};
use innkeeper_domain::failure::Usage;
use innkeeper_domain::ids::{TaskId, TenantId};
use innkeeper_domain::limits::MEMORY_MAX;
use std::collections::BTreeMap;
use std::time::Duration;

/// The bill that something is on; in the order in which they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BillKey {
    pub tenant: TenantId,
    pub day: i64,
    pub task: TaskId,
}

impl BillKey {
    /// That of what ends now.
    pub fn of(tenant: TenantId, task: TaskId, now: Timestamp) -> Self {
        Self { tenant, day: day_number(now), task }
    }
}

/// Sums for some bills.
#[derive(Debug, Default)]
pub(crate) struct Bills(pub BTreeMap<BillKey, Used>);

impl Bills {
    /// Adds to a bill.
    pub fn add(&mut self, key: BillKey, used: Used) {
        let sum = self.0.entry(key).or_default();
        sum.runs += used.runs;
        sum.attempts += used.attempts;
        sum.cpu += used.cpu;
        sum.wall += used.wall;
        sum.memory_seconds = sum.memory_seconds.saturating_add(used.memory_seconds);
        sum.input_bytes += used.input_bytes;
        sum.output_bytes += used.output_bytes;
        sum.log_bytes += used.log_bytes;
    }
}

/// What runs are on bills for that came to their end without an attempt's outcome.
pub(crate) fn of_runs(runs: u64, input_bytes: u64) -> Used {
    Used { runs, input_bytes, ..Used::default() }
}

/// What the end of a lease is on the bill for, the log aside.
pub(crate) fn of_end(run: &Leased, ended: &Ended) -> Used {
    let run = match ended.finished_at {
        Some(_) => of_runs(1, run.input_bytes),
        None => Used::default(),
    };
    let Some(usage) = ended.billed() else { return run };
    // No attempt has more, whatever the host says: sums must not grow out of their columns.
    let usage = Usage { peak_memory: usage.peak_memory.min(MEMORY_MAX), ..usage };
    Used {
        attempts: 1,
        cpu: whole_micros(usage.cpu),
        wall: whole_micros(usage.wall),
        memory_seconds: usage.memory_seconds(),
        output_bytes: ended.output.map_or(0, |output| output.bytes.len() as u64),
        ..run
    }
}

/// A duration as its attempt has it on record: however many share a commit, their sum is that of the records.
fn whole_micros(duration: Duration) -> Duration {
    Duration::from_micros(unsigned(micros(duration)))
}
