//! Quotas: how much of the host a tenant may have.

use crate::network::{NetworkSet, UnknownNetworks};
use crate::word::{UnknownWord, words};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A kind of quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    /// Attempts that are executed at one time; further runs wait.
    ConcurrentRuns,
    /// Memory of one attempt, in bytes. A task can't ask for more; one that has before it was lowered gets less.
    RunMemory,
    /// CPU time of a day in UTC, in microseconds. Beyond it starts are refused, due times are skipped, queued
    /// runs wait for the next day, and attempts that execute are ended. All attempts on one host draw from what was
    /// left; hosts don't know what attempts on others use before it is committed, so a fleet may pass it by as
    /// many times what was left as it has hosts, less one.
    CpuPerDay,
    /// Starts by hand in a second, and as many at once.
    StartsPerSecond,
    /// Attempts that begin in a second, and as many at once; further runs wait.
    BeginsPerSecond,
    /// Bytes of components, uploads under way, and runs with their inputs, outputs and logs; not those of tasks,
    /// triggers and secrets. Beyond it uploads and starts are refused, due times are skipped, and queued runs wait
    /// until there is room; attempts that execute then go on, and what they add is over it.
    StoredBytes,
    /// Triggers.
    Triggers,
    /// Components.
    Components,
    /// The least time between two firings of a trigger, in microseconds.
    LeastInterval,
    /// Runs that one call may start.
    FanOut,
    /// Bytes of one attempt's log; the rest is dropped and counted.
    RunLogBytes,
    /// Closed networks that the tenant's tasks may reach, if granted hosts in them; beside those that are open to all.
    OpenNetworks,
}

words!(
    Quota,
    "a quota",
    ConcurrentRuns = "concurrent-runs",
    RunMemory = "run-memory",
    CpuPerDay = "cpu-per-day",
    StartsPerSecond = "starts-per-second",
    BeginsPerSecond = "begins-per-second",
    StoredBytes = "stored-bytes",
    Triggers = "triggers",
    Components = "components",
    LeastInterval = "least-interval",
    FanOut = "fan-out",
    RunLogBytes = "run-log-bytes",
    OpenNetworks = "open-networks"
);

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Bytes,
    /// Microseconds.
    Time,
    /// A [`NetworkSet`].
    Networks,
}

impl Quota {
    /// What its numbers are.
    pub fn unit(self) -> Unit {
        match self {
            Self::RunMemory | Self::StoredBytes | Self::RunLogBytes => Unit::Bytes,
            Self::CpuPerDay | Self::LeastInterval => Unit::Time,
            Self::ConcurrentRuns
            | Self::StartsPerSecond
            | Self::BeginsPerSecond
            | Self::Triggers
            | Self::Components
            | Self::FanOut => Unit::Count,
            Self::OpenNetworks => Unit::Networks,
        }
    }

    /// Refuses a number that can't be its value.
    pub fn check_value(self, number: u64) -> Result<(), UnknownNetworks> {
        match self.unit() {
            Unit::Networks => NetworkSet::from_bits(number).map(|_| ()),
            Unit::Count | Unit::Bytes | Unit::Time => Ok(()),
        }
    }

    /// A number of it, for people.
    pub fn show(self, number: u64) -> String {
        match self.unit() {
            Unit::Count => number.to_string(),
            Unit::Bytes => format!("{number} bytes"),
            Unit::Time => format!("{:?}", Duration::from_micros(number)),
            Unit::Networks => NetworkSet::from_known_bits(number).to_string(),
        }
    }
}

/// A tenant's quotas; what isn't among them is bounded by the host alone. Kept as JSON, of which a quota that only another
/// version of the host knows is passed by: hosts of two versions may share a store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Quotas(pub BTreeMap<Quota, u64>);

impl<'de> Deserialize<'de> for Quotas {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let kept = BTreeMap::<String, u64>::deserialize(from)?;
        Ok(Self(
            kept.into_iter().filter_map(|(name, value)| Some((name.parse::<Quota>().ok()?, value))).collect(),
        ))
    }
}

impl Quotas {
    /// Its value, if it has one.
    pub fn get(&self, quota: Quota) -> Option<u64> {
        self.0.get(&quota).copied()
    }

    /// Refuses `asked` more where `used` are used and both together are over the quota.
    pub fn check(&self, quota: Quota, used: u64, asked: u64) -> Result<(), QuotaExceeded> {
        match self.get(quota) {
            Some(limit) if used.saturating_add(asked) > limit => {
                Err(QuotaExceeded { quota, limit, used, asked })
            }
            _ => Ok(()),
        }
    }

    /// Refuses an interval that is shorter than the least one.
    pub fn check_interval(&self, interval: Duration) -> Result<(), QuotaExceeded> {
        let asked = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        match self.get(Quota::LeastInterval) {
            Some(limit) if asked < limit => {
                Err(QuotaExceeded { quota: Quota::LeastInterval, limit, used: 0, asked })
            }
            _ => Ok(()),
        }
    }

    /// What bounds one attempt.
    pub fn bounds(&self, cpu_used_today: Duration) -> AttemptBounds {
        let cpu = self.get(Quota::CpuPerDay).map(Duration::from_micros);
        AttemptBounds {
            memory: self.get(Quota::RunMemory),
            log_bytes: self.get(Quota::RunLogBytes),
            cpu: cpu.map(|cpu| cpu.saturating_sub(cpu_used_today)),
            open_networks: self.get(Quota::OpenNetworks).map(NetworkSet::from_known_bits).unwrap_or_default(),
        }
    }
}

/// What a tenant's quotas leave to one attempt, beside what its task asks for; none: nothing to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttemptBounds {
    /// In bytes.
    pub memory: Option<u64>,
    /// In bytes.
    pub log_bytes: Option<u64>,
    /// CPU time that was left of the day's when the attempt was claimed, for all that its tenant's attempts on its
    /// host use from then on.
    pub cpu: Option<Duration>,
    /// Closed networks that are open to it.
    pub open_networks: NetworkSet,
}

/// A request that a quota forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct QuotaExceeded {
    pub quota: Quota,
    pub limit: u64,
    /// What was used before the request.
    pub used: u64,
    /// What the request would have added.
    pub asked: u64,
}

impl QuotaExceeded {
    fn words(&self) -> String {
        let Self { quota, limit, used, asked } = *self;
        let [limit, used, asked] = [limit, used, asked].map(|number| quota.show(number));
        let why = match quota {
            Quota::LeastInterval => format!("{asked} were asked for, at least {limit} must be"),
            Quota::RunMemory | Quota::FanOut | Quota::RunLogBytes | Quota::OpenNetworks => {
                format!("{asked} were asked for, {limit} are allowed")
            }
            Quota::CpuPerDay => format!("{used} of today's {limit} are used; it begins anew at midnight UTC"),
            Quota::ConcurrentRuns
            | Quota::StartsPerSecond
            | Quota::BeginsPerSecond
            | Quota::StoredBytes
            | Quota::Triggers
            | Quota::Components => format!("{used} of {limit} are used, {asked} more were asked for"),
        };
        format!("over the tenant's quota `{quota}`: {why}; the host's admin can raise it (`inn quota set`)")
    }
}

/// How much of each quota a tenant uses; those that concern one run or one call aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuotaUse(pub BTreeMap<Quota, u64>);

/// Text that names no quota.
pub type QuotaError = UnknownWord;

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(quota: Quota, limit: u64) -> Quotas {
        Quotas([(quota, limit)].into())
    }

    #[test]
    fn what_fits_exactly_is_no_excess() {
        let ten = quotas(Quota::Triggers, 10);
        assert_eq!(ten.check(Quota::Triggers, 9, 1), Ok(()));
        let error = ten.check(Quota::Triggers, 10, 1).unwrap_err();
        assert_eq!((error.limit, error.used, error.asked), (10, 10, 1));
        assert_eq!(ten.check(Quota::Components, u64::MAX, u64::MAX), Ok(()));
        assert!(ten.check(Quota::Triggers, u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn an_excess_names_quota_value_and_use() {
        for quota in Quota::ALL {
            let words = QuotaExceeded { quota: *quota, limit: 7, used: 5, asked: 3 }.to_string();
            assert!(words.contains(&format!("`{quota}`")) && words.contains(&quota.show(7)), "{words}");
            assert_eq!(quota.as_str().parse(), Ok(*quota));
        }
    }

    #[test]
    fn the_least_interval_is_a_lower_bound() {
        let minute = quotas(Quota::LeastInterval, 60_000_000);
        assert_eq!(minute.check_interval(Duration::from_secs(60)), Ok(()));
        assert!(minute.check_interval(Duration::from_secs(59)).is_err());
    }

    #[test]
    fn the_days_cpu_is_what_is_left_of_it() {
        let day = quotas(Quota::CpuPerDay, 10_000_000);
        assert_eq!(day.bounds(Duration::from_secs(4)).cpu, Some(Duration::from_secs(6)));
        assert_eq!(day.bounds(Duration::from_secs(11)).cpu, Some(Duration::ZERO));
        assert_eq!(Quotas::default().bounds(Duration::from_secs(4)), AttemptBounds::default());
    }

    #[test]
    fn networks_are_opened_by_name_and_no_others() {
        let set: NetworkSet = "loopback,private".parse().unwrap();
        // A bit that only a later version knows opens nothing here.
        let some = quotas(Quota::OpenNetworks, set.bits() | 1 << 60);
        assert_eq!(some.bounds(Duration::ZERO).open_networks, set);
        assert_eq!(Quota::OpenNetworks.show(set.bits()), "loopback,private");
        assert_eq!(Quota::OpenNetworks.check_value(set.bits()), Ok(()));
        assert!(
            Quota::OpenNetworks.check_value(1 << 60).is_err() && Quota::Triggers.check_value(1 << 60).is_ok()
        );
        let kept = serde_json::to_string(&quotas(Quota::OpenNetworks, 3)).unwrap();
        assert_eq!(kept, r#"{"open-networks":3}"#);
    }

    #[test]
    fn one_that_only_another_version_knows_is_passed_by() {
        let kept = r#"{"triggers":3,"of-a-later-version":9}"#;
        assert_eq!(serde_json::from_str::<Quotas>(kept).unwrap(), quotas(Quota::Triggers, 3));
        assert!(serde_json::from_str::<Quotas>(r#"{"triggers":"three"}"#).is_err());
        for quota in Quota::ALL {
            let kept = serde_json::to_string(&quotas(*quota, 7)).unwrap();
            assert_eq!(serde_json::from_str::<Quotas>(&kept).unwrap(), quotas(*quota, 7));
        }
    }
}
