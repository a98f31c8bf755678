//! What the run is, and why it runs. Every answer stays the same during one attempt.
//!
//! Outside of a sandbox the answers are those of a first attempt of a task `test`, started by hand in 1970.

#[cfg(target_family = "wasm")]
use crate::bindings::innkeeper::task::context as host;
#[cfg(not(target_family = "wasm"))]
use outside as host;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The run's id, a UUIDv7. The same in every attempt: a good idempotency key for the outside.
pub fn run_id() -> String {
    host::run_id()
}

/// The tenant's name.
pub fn tenant() -> String {
    host::tenant()
}

/// The task's name.
pub fn task() -> String {
    host::task()
}

/// The task's revision that this run is pinned to; the first is 1.
pub fn revision() -> u32 {
    host::revision()
}

/// Which try this is; the first is 1.
pub fn attempt() -> u32 {
    host::attempt()
}

/// How many tries the task's retry policy allows in all.
pub fn max_attempts() -> u32 {
    host::max_attempts()
}

/// The name of the trigger that asked for the run; none when it was started by hand.
pub fn trigger() -> Option<String> {
    host::trigger()
}

/// The instant at which the trigger said the run was due, whenever it really started.
pub fn nominal_time() -> SystemTime {
    instant(host::nominal_time())
}

/// The nominal time of this trigger's last run that succeeded before this one was created: the place to go
/// on from.
pub fn last_successful_nominal_time() -> Option<SystemTime> {
    host::last_successful_nominal_time().map(instant)
}

/// When the host will end this attempt.
pub fn deadline() -> SystemTime {
    instant(host::deadline())
}

/// The key that the run was started under, if its starter gave one.
pub fn idempotency_key() -> Option<String> {
    host::idempotency_key()
}

fn instant(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(not(target_family = "wasm"))]
mod outside {
    pub fn run_id() -> String {
        "00000000-0000-7000-8000-000000000000".into()
    }
    pub fn tenant() -> String {
        "default".into()
    }
    pub fn task() -> String {
        "test".into()
    }
    pub fn revision() -> u32 {
        1
    }
    pub fn attempt() -> u32 {
        1
    }
    pub fn max_attempts() -> u32 {
        1
    }
    pub fn trigger() -> Option<String> {
        None
    }
    pub fn nominal_time() -> i64 {
        0
    }
    pub fn last_successful_nominal_time() -> Option<i64> {
        None
    }
    pub fn deadline() -> i64 {
        60_000_000
    }
    pub fn idempotency_key() -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_1970_too() {
        assert_eq!(instant(-1_000_000), UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(deadline().duration_since(nominal_time()).unwrap(), Duration::from_secs(60));
    }
}
