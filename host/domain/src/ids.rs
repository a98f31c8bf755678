//! Ids: UUIDv7, one type for each thing, so that they can't be mixed up.

use crate::fairness::mix;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{cell::Cell, fmt, str::FromStr};
use uuid::Uuid;

/// Text that should have been an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what} id: expected a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct IdError {
    what: &'static str,
    text: String,
}

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The id of a ", $what, ". Ordered by creation, to the millisecond.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id for something that comes to be at `at`.
            pub fn new(at: Timestamp) -> Self {
                Self(uuid_at(at))
            }

            /// No id of something that comes to be at `at` or later is less.
            pub fn first(at: Timestamp) -> Self {
                Self(first_uuid_at(at))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let cut = || IdError { what: $what, text: text.chars().take(64).collect() };
                Uuid::parse_str(text).map(Self).map_err(|_| cut())
            }
        }
    };
}

id!(TenantId, "tenant");
id!(TaskId, "task");
id!(TriggerId, "trigger");
id!(RunId, "run");
id!(BackfillId, "backfill");
id!(HostId, "host");
id!(TokenId, "token");
id!(AuditId, "audit log line");

thread_local! {
    /// How many ids this thread has drawn of the seed that it replays.
    static REPLAYED: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// From here on the ids that this thread makes are drawn from the seed, so that all that follows can be repeated. For
/// simulations alone: such ids aren't unique.
pub fn replay(seed: u64) {
    REPLAYED.set(Some((seed, 0)));
}

fn uuid_at(at: Timestamp) -> Uuid {
    if let Some((seed, drawn)) = REPLAYED.get() {
        REPLAYED.set(Some((seed, drawn + 1)));
        let random = u128::from(mix(seed ^ mix(drawn)));
        return Uuid::from_u128(first_uuid_at(at).as_u128() | (random & ((1 << 62) - 1)));
    }
    let seconds = u64::try_from(at.as_second()).unwrap_or(0);
    let nanos = u32::try_from(at.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

fn first_uuid_at(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.as_millisecond()).unwrap_or(0);
    Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_time_and_read_back() {
        let early = RunId::new(Timestamp::from_second(1_700_000_000).unwrap());
        let late = RunId::new(Timestamp::from_second(1_700_000_001).unwrap());
        assert!(early < late);
        let then = Timestamp::from_second(1_700_000_001).unwrap();
        assert!(early < RunId::first(then) && RunId::first(then) <= late);
        assert_eq!(early.to_string().parse::<RunId>().unwrap(), early);
        assert!("nonsense".parse::<RunId>().unwrap_err().to_string().contains("run id"));
    }
}
