//! `innkeeper:task/context`: what the run is, and why it runs.

use crate::bindings::innkeeper::task::context::{Host, Instant};
use crate::guest::Guest;
use innkeeper_domain::time::to_micros;
use wasmtime::Result;

impl Host for Guest {
    fn run_id(&mut self) -> Result<String> {
        Ok(self.invocation.claimed.lease.run.to_string())
    }

    fn tenant(&mut self) -> Result<String> {
        Ok(self.invocation.claimed.tenant.to_string())
    }

    fn task(&mut self) -> Result<String> {
        Ok(self.invocation.claimed.task.to_string())
    }

    fn revision(&mut self) -> Result<u32> {
        Ok(self.invocation.claimed.revision)
    }

    fn attempt(&mut self) -> Result<u32> {
        Ok(self.invocation.claimed.try_number)
    }

    fn max_attempts(&mut self) -> Result<u32> {
        Ok(self.invocation.spec.retry.max_attempts)
    }

    fn trigger(&mut self) -> Result<Option<String>> {
        Ok(self.invocation.claimed.trigger.as_ref().map(|(_, name)| name.to_string()))
    }

    fn nominal_time(&mut self) -> Result<Instant> {
        Ok(to_micros(self.invocation.claimed.nominal_at))
    }

    fn last_successful_nominal_time(&mut self) -> Result<Option<Instant>> {
        Ok(self.invocation.claimed.last_success_nominal.map(to_micros))
    }

    fn deadline(&mut self) -> Result<Instant> {
        Ok(to_micros(self.invocation.deadline))
    }

    fn idempotency_key(&mut self) -> Result<Option<String>> {
        Ok(self.invocation.claimed.idempotency_key.clone())
    }
}
