//! Rates: so many a second, and as many at once.
//!
//! The generic cell rate algorithm: one instant says it all, that at which the next would be on time if they came
//! evenly. Each that comes moves it on; it may be a second ahead.

use crate::time;
use jiff::Timestamp;
use std::time::Duration;

/// How far ahead the instant may be: as many at once as come in that time.
const BURST: Duration = Duration::from_secs(1);

/// Admits `asked` more at a rate of `per_second`, all or none of them; more than a million a second are not told
/// apart. Returns the new instant to keep; or how many of the rate are used now.
pub fn admit(
    on_time_at: Option<Timestamp>,
    now: Timestamp,
    per_second: u64,
    asked: u64,
) -> Result<Timestamp, u64> {
    let latest = time::after(now, BURST);
    // Later than that is only what was kept before a clock was set back.
    let from = on_time_at.unwrap_or(now).clamp(now, latest);
    let used = u128::from(per_second) * time::between(now, from).as_micros();
    let used = u64::try_from(used.div_ceil(MICROS)).unwrap_or(u64::MAX);
    if asked == 0 {
        return Ok(from);
    }
    if per_second == 0 {
        return Err(used);
    }
    let takes = (u128::from(asked) * MICROS / u128::from(per_second)).max(u128::from(asked));
    let takes = Duration::from_micros(u64::try_from(takes).unwrap_or(u64::MAX));
    let then = time::after(from, takes);
    if then > latest { Err(used) } else { Ok(then) }
}

const MICROS: u128 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: i64) -> Timestamp {
        time::from_micros(1_700_000_000_000_000 + micros)
    }

    #[test]
    fn so_many_at_once_and_then_evenly() {
        let mut on_time_at = None;
        for _ in 0..3 {
            on_time_at = Some(admit(on_time_at, at(0), 3, 1).unwrap());
        }
        assert_eq!(admit(on_time_at, at(0), 3, 1), Err(3));
        assert_eq!(admit(on_time_at, at(300_000), 3, 1), Err(3));
        let then = admit(on_time_at, at(333_334), 3, 1).unwrap();
        assert_eq!(admit(Some(then), at(333_334), 3, 1), Err(3));
        assert!(admit(Some(then), at(2_000_000), 3, 3).is_ok(), "after a while as many at once");
    }

    #[test]
    fn a_call_is_admitted_whole_or_not_at_all() {
        assert_eq!(admit(None, at(0), 10, 11), Err(0));
        assert_eq!(admit(None, at(0), 10, 10), Ok(at(1_000_000)));
        assert_eq!(admit(None, at(0), 10, 0), Ok(at(0)));
        assert_eq!(admit(None, at(0), 0, 1), Err(0));
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nobody_for_long() {
        let ahead = Some(at(3_600_000_000));
        assert_eq!(admit(ahead, at(0), 10, 1), Err(10));
        let kept = admit(ahead, at(0), 10, 0).unwrap();
        assert!(admit(Some(kept), at(100_000), 10, 1).is_ok());
    }

    proptest! {
        /// In no stretch of time are there more than the rate gives, and as many as come at once.
        #[test]
        fn never_more_than_the_rate(
            per_second in 1u64..2_000,
            calls in prop::collection::vec((0i64..400_000, 1u64..50), 1..100),
        ) {
            let (mut on_time_at, mut now, mut admitted) = (None, 0, 0);
            for (pause, asked) in calls {
                now += pause;
                if let Ok(then) = admit(on_time_at, at(now), per_second, asked) {
                    on_time_at = Some(then);
                    admitted += asked;
                }
                // Each may come a part of a microsecond early.
                let most = (now as u128 + MICROS + u128::from(admitted)) * u128::from(per_second) / MICROS;
                prop_assert!(u128::from(admitted) <= most, "{admitted} after {now} us");
            }
        }
    }
}
