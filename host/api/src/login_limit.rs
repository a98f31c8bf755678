//! How often somebody may fail to log in. Pure: time is an argument.

use innkeeper_domain::limits::{
    LOGIN_ADDRESSES_MAX, LOGIN_FAILURES_MAX, LOGIN_FAILURES_WINDOW, LOGIN_GOOD_MAX, LOGIN_LOOK_INTERVAL,
};
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::TokenHash;
use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Failed log-ins of every address, and what was good lately. Both are bounded: of addresses, those are forgotten
/// first whose failures are the oldest.
#[derive(Debug, Default)]
pub(crate) struct LoginLimit {
    failures: HashMap<IpAddr, Failures>,
    /// Hashes of what somebody, from anywhere, has logged in with. They are looked up from a limited address, too,
    /// so that one who guesses doesn't lock out others behind the same proxy. When the younger half is full, it
    /// becomes the older one.
    good: [HashSet<TokenHash>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
    /// When something unknown was last looked up in spite of them.
    looked: Option<Timestamp>,
}

impl Failures {
    /// How long they count still; none if they don't any more.
    fn left(self, now: Timestamp) -> Option<Duration> {
        let left = LOGIN_FAILURES_WINDOW.saturating_sub(time::between(self.since, now));
        Some(left).filter(|left| !left.is_zero())
    }
}

impl LoginLimit {
    /// Whether what this address shows is looked up now; if not, how long it must wait. Of an address that has
    /// failed too often something unknown is, but seldom: it may be good, and new here.
    pub fn admit(&mut self, address: IpAddr, shown: &TokenHash, now: Timestamp) -> Result<(), Duration> {
        if self.good.iter().any(|good| good.contains(shown)) {
            return Ok(());
        }
        let Some(failures) = self.failures.get_mut(&network(address)) else { return Ok(()) };
        if failures.count < LOGIN_FAILURES_MAX || failures.left(now).is_none() {
            return Ok(());
        }
        let since = failures.looked.map_or(LOGIN_LOOK_INTERVAL, |looked| time::between(looked, now));
        if since < LOGIN_LOOK_INTERVAL {
            return Err(LOGIN_LOOK_INTERVAL.saturating_sub(since));
        }
        failures.looked = Some(now);
        Ok(())
    }

    /// What was shown is good.
    pub fn good(&mut self, shown: TokenHash) {
        if self.good[0].len() >= LOGIN_GOOD_MAX && !self.good[0].contains(&shown) {
            self.good[1] = take(&mut self.good[0]);
        }
        self.good[0].insert(shown);
    }

    /// What was shown is not good.
    pub fn failed(&mut self, address: IpAddr, shown: &TokenHash, now: Timestamp) {
        for good in &mut self.good {
            good.remove(shown);
        }
        let address = network(address);
        if self.failures.len() >= LOGIN_ADDRESSES_MAX && !self.failures.contains_key(&address) {
            self.make_room(now);
        }
        let failures =
            self.failures.entry(address).or_insert(Failures { since: now, count: 0, looked: None });
        if failures.left(now).is_none() {
            *failures = Failures { since: now, count: 0, looked: None };
        }
        failures.count = failures.count.saturating_add(1);
    }

    fn make_room(&mut self, now: Timestamp) {
        self.failures.retain(|_, failures| failures.left(now).is_some());
        if self.failures.len() >= LOGIN_ADDRESSES_MAX {
            let oldest = self.failures.iter().min_by_key(|(_, failures)| failures.since);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.failures.remove(&oldest);
            }
        }
    }
}

/// Whom an address stands for: of IPv6, everybody has 2^64 of them.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Has failed too often at second 0, and was looked at in spite of it then.
    fn limited(address: &str) -> LoginLimit {
        let mut limit = LoginLimit::default();
        for _ in 0..LOGIN_FAILURES_MAX {
            assert_eq!(limit.admit(ip(address), &[0; 32], at(0)), Ok(()));
            limit.failed(ip(address), &[0; 32], at(0));
        }
        assert_eq!(limit.admit(ip(address), &[0; 32], at(0)), Ok(()));
        limit
    }

    #[test]
    fn after_so_many_failures_an_address_is_looked_at_once_a_second() {
        let mut limit = limited("192.0.2.1");
        let mut admit = |address, millis| {
            limit.admit(ip(address), &[0; 32], Timestamp::from_millisecond(millis).unwrap())
        };
        assert_eq!(admit("192.0.2.1", 400), Err(Duration::from_millis(600)));
        assert_eq!(admit("::ffff:192.0.2.1", 999), Err(Duration::from_millis(1)));
        assert_eq!(admit("192.0.2.2", 999), Ok(()), "another address");
        assert_eq!(admit("192.0.2.1", 1_000), Ok(()));
        assert!(admit("192.0.2.1", 1_001).is_err());
        assert_eq!(admit("192.0.2.1", 60_000), Ok(()));
        assert_eq!(admit("192.0.2.1", 60_001), Ok(()), "its failures don't count any more");
        limit.failed(ip("192.0.2.1"), &[0; 32], at(60));
        assert_eq!(limit.admit(ip("192.0.2.1"), &[0; 32], at(60)), Ok(()), "it counts anew");
    }

    #[test]
    fn what_was_good_elsewhere_passes_until_it_fails() {
        let mut limit = limited("192.0.2.1");
        limit.good([7; 32]);
        assert_eq!(limit.admit(ip("192.0.2.1"), &[7; 32], at(0)), Ok(()));
        assert!(limit.admit(ip("192.0.2.1"), &[8; 32], at(0)).is_err());
        limit.failed(ip("192.0.2.9"), &[7; 32], at(0));
        assert!(limit.admit(ip("192.0.2.1"), &[7; 32], at(0)).is_err(), "revoked meanwhile");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut limit = limited("2001:db8::1");
        assert!(limit.admit(ip("2001:db8::ffff"), &[0; 32], at(0)).is_err());
        assert!(limit.admit(ip("2001:db8:0:1::1"), &[0; 32], at(0)).is_ok());
    }

    #[test]
    fn what_it_remembers_is_bounded() {
        let mut limit = LoginLimit::default();
        for number in 0..3 * u32::try_from(LOGIN_ADDRESSES_MAX).unwrap() {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&number.to_le_bytes());
            limit.failed(IpAddr::V4(number.into()), &hash, at(i64::from(number / 200)));
            limit.good(hash);
        }
        assert!(limit.failures.len() <= LOGIN_ADDRESSES_MAX);
        assert!(limit.good.iter().all(|good| good.len() <= LOGIN_GOOD_MAX));
        let last = IpAddr::V4((3 * u32::try_from(LOGIN_ADDRESSES_MAX).unwrap() - 1).into());
        assert!(limit.failures.contains_key(&last), "the oldest go first");
    }
}
