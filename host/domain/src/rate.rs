//! Rates: so many in some time, and as many at once.
//!
//! The generic cell rate algorithm: one instant says it all, that at which the next would be on time if they came
//! evenly. Each that comes moves it on; it may be that time ahead.

use crate::limits::RATE_COUNT_MAX;
use crate::time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use std::{fmt, str::FromStr};

/// So many in a second, a minute, an hour or a day, and as many at once. Written `10/s`, `100/m`, `5/h`, `1/d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// From 1.
    count: u32,
    per: Per,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

impl Per {
    const ALL: [(Self, &str, u64); 4] =
        [(Self::Second, "s", 1), (Self::Minute, "m", 60), (Self::Hour, "h", 3_600), (Self::Day, "d", 86_400)];

    fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    fn duration(self) -> Duration {
        Duration::from_secs(Self::ALL[self as usize].2)
    }
}

/// Text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a rate: it is written N/s, N/m, N/h or N/d (a second, minute, hour, day), N from 1 to {RATE_COUNT_MAX}"
)]
pub struct RateError(String);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.word())
    }
}

impl FromStr for Rate {
    type Err = RateError;
    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError(text.chars().take(64).collect());
        let (count, per) = text.split_once('/').ok_or_else(error)?;
        let (per, ..) = Per::ALL.into_iter().find(|(_, word, _)| *word == per).ok_or_else(error)?;
        let count = count.parse().ok().filter(|count| (1..=RATE_COUNT_MAX).contains(count));
        Ok(Self { count: count.ok_or_else(error)?, per })
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;
    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl Rate {
    /// So many a second, as far as rates go; none for 0.
    pub fn a_second(count: u64) -> Option<Self> {
        let count = u32::try_from(count).unwrap_or(RATE_COUNT_MAX).min(RATE_COUNT_MAX);
        (count > 0).then_some(Self { count, per: Per::Second })
    }

    /// The time of one, rounded up: never more than the rate.
    fn step(self) -> Duration {
        let micros = self.per.duration().as_micros().div_ceil(u128::from(self.count));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// The instant as it counts now. Later than that is only what was kept before a clock was set back.
    fn from(self, on_time_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        on_time_at.unwrap_or(now).clamp(now, self.latest(now))
    }

    fn latest(self, now: Timestamp) -> Timestamp {
        time::after(now, self.step().saturating_mul(self.count))
    }

    /// How many of `wanted` come at the rate now.
    pub fn room(self, on_time_at: Option<Timestamp>, now: Timestamp, wanted: usize) -> usize {
        let ahead = time::between(self.from(on_time_at, now), self.latest(now));
        let fit = ahead.as_micros() / self.step().as_micros();
        usize::try_from(fit).unwrap_or(usize::MAX).min(wanted)
    }

    /// The instant to keep after so many that there was [`room`](Self::room) for.
    pub fn take(self, on_time_at: Option<Timestamp>, now: Timestamp, taken: u64) -> Timestamp {
        let steps = u32::try_from(taken).unwrap_or(u32::MAX);
        time::after(self.from(on_time_at, now), self.step().saturating_mul(steps))
    }

    /// The instant to keep when so many of those that were taken last have not come.
    pub fn give_back(self, on_time_at: Timestamp, count: u64) -> Timestamp {
        let steps = u32::try_from(count).unwrap_or(u32::MAX);
        time::before(on_time_at, self.step().saturating_mul(steps))
    }

    /// When there is room for one, if none comes until then: not before `now`.
    pub fn opens_at(self, on_time_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let ahead = self.step().saturating_mul(self.count - 1);
        time::before(self.from(on_time_at, now), ahead).max(now)
    }
}

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

    #[test]
    fn rates_read_back_and_mistakes_have_words() {
        for text in ["1/s", "100/m", "5/h", "100000/d"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
            assert_eq!(serde_json::to_string(&text.parse::<Rate>().unwrap()).unwrap(), format!("\"{text}\""));
        }
        for text in ["", "1", "0/s", "1/w", "-1/s", "1.5/s", "100001/s", "1/s ", "99999999999/s"] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("N/s"), "{error}");
        }
    }

    proptest! {
        /// A rate lets as many at once, in no stretch of time more than it says and as many as come at once, and when
        /// there is no room it says exactly when there is again.
        #[test]
        fn a_rate_is_kept_and_used_up(
            count in 1u32..200, per in 0usize..4, calls in prop::collection::vec((0u32..400, 1usize..50), 1..100),
        ) {
            let rate = Rate { count, per: Per::ALL[per].0 };
            let whole = rate.per.duration().as_micros();
            prop_assert_eq!(rate.room(None, at(0), usize::MAX), count as usize);
            let (mut on_time_at, mut now, mut admitted) = (None, 0i64, 0u128);
            for (thousandths, wanted) in calls {
                now += i64::try_from(whole).unwrap() * i64::from(thousandths) / 1_000;
                let room = rate.room(on_time_at, at(now), wanted);
                if room > 0 {
                    on_time_at = Some(rate.take(on_time_at, at(now), room as u64));
                    admitted += room as u128;
                }
                let most = u128::from(count) + now.unsigned_abs() as u128 * u128::from(count) / whole;
                prop_assert!(admitted <= most, "{admitted} after {now} us");
                if room < wanted {
                    let opens = rate.opens_at(on_time_at, at(now));
                    prop_assert_eq!(rate.room(on_time_at, opens, 1), 1);
                    let before = time::before(opens, Duration::from_micros(1));
                    prop_assert!(rate.room(on_time_at, before, 1) == 0 || opens == at(now));
                }
            }
        }

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
