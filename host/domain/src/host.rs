//! Hosts: what parts they play, what they offer, and what tasks require of them.

use crate::limits::{LABEL_CHARS_MAX, LABELS_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::ids::HostId;
use crate::name::Name;

/// A part that a host plays in its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Answers calls.
    Api,
    /// Starts the runs of triggers that are due, and clears away what is old.
    Scheduler,
    /// Executes runs.
    Worker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Api, Self::Scheduler, Self::Worker];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role; they are api, scheduler, worker")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(text.chars().take(64).collect()))
    }
}

/// Whether a host is to execute runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostState {
    /// It claims runs.
    Active,
    /// It claims no more, and goes on with those that it has.
    Cordoned,
    /// It claims no more, and after a grace hands back those that it still has.
    Draining,
}

impl HostState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Active, Self::Cordoned, Self::Draining];

    /// The word for it, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no state of a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host's state; they are active, cordoned, draining")]
pub struct HostStateError(String);

impl FromStr for HostState {
    type Err = HostStateError;
    fn from_str(text: &str) -> Result<Self, HostStateError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| HostStateError(text.chars().take(64).collect()))
    }
}

/// One process of a fleet, as it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its incarnation: new with every start, and whenever its leases were lost.
    pub id: HostId,
    /// What people call it; stays over restarts.
    pub name: Name,
    /// Where it listens; empty if it answers no calls.
    pub address: String,
    /// Innkeeper's version.
    pub version: String,
    pub roles: Vec<Role>,
    pub labels: Labels,
    /// Attempts that it executes at one time.
    pub capacity: u32,
}

/// That no host of a fleet is to begin anything, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPause {
    pub note: String,
    pub at: Timestamp,
}

/// What is known of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStatus {
    pub host: Host,
    pub state: HostState,
    pub started_at: Timestamp,
    /// When its leases end unless it gives a sign of life.
    pub lease_until: Timestamp,
    /// Runs that it is executing.
    pub running: u64,
}

/// Words with values that a host offers, or that a task requires of its host: `zone=eu`, `gpu=a100`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

/// Labels that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error(
        "`{0}` is not a label: expected KEY=VALUE, both of 1 to {LABEL_CHARS_MAX} of a-z A-Z 0-9 - _ . /"
    )]
    Malformed(String),
    #[error("label `{0}` is given twice")]
    Twice(String),
    #[error("there are {0} labels; at most {LABELS_MAX} can be")]
    TooMany(usize),
}

impl Labels {
    /// Whether a host with these labels has all that is required.
    pub fn offer(&self, required: &Labels) -> bool {
        required.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and the `later` ones, which win where both have a key.
    pub fn with(&self, later: &Labels) -> Labels {
        let all = self.0.iter().chain(&later.0);
        Labels(all.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// What [`Display`](fmt::Display) has written, of however many; for those of a run, which come from three places.
    pub fn of_written(text: &str) -> Labels {
        let written = text.split(',').filter_map(|label| label.split_once('='));
        Labels(written.map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// Reads `KEY=VALUE` texts.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, LabelError> {
        let mut labels = BTreeMap::new();
        for text in texts {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            if labels.insert(key.to_string(), value.to_string()).is_some() {
                return Err(LabelError::Twice(key.to_string()));
            }
        }
        let labels = Self(labels);
        labels.check()?;
        Ok(labels)
    }

    /// Checks every bound.
    pub fn check(&self) -> Result<(), LabelError> {
        if self.0.len() > LABELS_MAX {
            return Err(LabelError::TooMany(self.0.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let good = |text: &str| (1..=LABEL_CHARS_MAX).contains(&text.len()) && text.chars().all(allowed);
        match self.0.iter().find(|(key, value)| !good(key) || !good(value)) {
            None => Ok(()),
            Some((key, value)) => {
                Err(LabelError::Malformed(format!("{key}={value}").chars().take(200).collect()))
            }
        }
    }
}

/// `KEY=VALUE,KEY=VALUE`, in the order of the keys: the same labels are the same text.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.pad(&texts.join(","))
    }
}

impl FromStr for Labels {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        Self::parse(text.split(',').filter(|text| !text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_offers_what_it_has() {
        let host: Labels = "zone=eu,gpu=a100".parse().unwrap();
        for (required, offered) in [
            ("", true),
            ("gpu=a100", true),
            ("zone=eu,gpu=a100", true),
            ("gpu=h100", false),
            ("disk=ssd", false),
        ] {
            assert_eq!(host.offer(&required.parse().unwrap()), offered, "{required}");
        }
        assert_eq!(host.to_string(), "gpu=a100,zone=eu");
        assert_eq!(Labels::of_written(&host.to_string()), host);
        let later: Labels = "zone=us,disk=ssd".parse().unwrap();
        assert_eq!(host.with(&later).to_string(), "disk=ssd,gpu=a100,zone=us");
    }

    #[test]
    fn bad_labels_have_words() {
        for text in ["gpu", "=x", "a=b c", "a=", "ä=b"] {
            assert!(matches!(text.parse::<Labels>(), Err(LabelError::Malformed(_))), "{text}");
        }
        assert_eq!(Labels::parse(["a=1", "a=2"]), Err(LabelError::Twice("a".into())));
    }
}
