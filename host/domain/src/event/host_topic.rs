//! What the host tells of by itself, in tenants where a trigger wants it.

use super::{Topic, TopicPattern};
use crate::run::RunState;
use crate::word::words;

/// A topic of the host's own events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostTopic {
    RunSucceeded,
    RunFailed,
    RunCancelled,
    /// Due times of a trigger with a schedule have no run.
    TriggerSkipped,
    /// A quota has kept a run from being started: at most once an hour for each.
    QuotaReached,
}

words!(
    HostTopic,
    "a topic of the host's",
    RunSucceeded = "innkeeper.run.succeeded",
    RunFailed = "innkeeper.run.failed",
    RunCancelled = "innkeeper.run.cancelled",
    TriggerSkipped = "innkeeper.trigger.skipped",
    QuotaReached = "innkeeper.quota.reached"
);

impl HostTopic {
    /// That of a run's end; none if it isn't over.
    pub fn of_end(state: RunState) -> Option<Self> {
        match state {
            RunState::Succeeded => Some(Self::RunSucceeded),
            RunState::Failed => Some(Self::RunFailed),
            RunState::Cancelled => Some(Self::RunCancelled),
            _ => None,
        }
    }

    /// How a run ended whose end is on this topic.
    pub fn end_on(topic: &Topic) -> Option<RunState> {
        let ends = [RunState::Succeeded, RunState::Failed, RunState::Cancelled];
        ends.into_iter().find(|state| Self::of_end(*state).is_some_and(|own| own.as_str() == topic.as_str()))
    }

    /// As stored in a set of them.
    pub fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The [`bit`](Self::bit) of a run's end; none of them if it is no end.
    pub fn end_bit(state: RunState) -> u32 {
        Self::of_end(state).map_or(0, Self::bit)
    }

    /// The [`bit`](Self::bit)s of those that a pattern matches.
    pub fn matching(pattern: &TopicPattern) -> u32 {
        let matches = |own: &&Self| own.as_str().parse().is_ok_and(|topic| pattern.matches(&topic));
        Self::ALL.iter().filter(matches).map(|own| own.bit()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_bits() {
        for (pattern, bits) in [
            ("innkeeper.run.failed", 2),
            ("innkeeper.run.*", 7),
            ("innkeeper.trigger.skipped", 8),
            ("innkeeper.quota.*", 16),
            ("innkeeper.**", 31),
            ("**", 31),
            ("*", 0),
            ("orders.**", 0),
        ] {
            assert_eq!(HostTopic::matching(&pattern.parse().unwrap()), bits, "{pattern}");
        }
    }

    #[test]
    fn ends_of_runs_have_a_topic_each() {
        for state in RunState::ALL {
            let own = HostTopic::of_end(state);
            assert_eq!(own.is_some(), state.is_final());
            let topic: Option<Topic> = own.map(|own| own.as_str().parse().unwrap());
            assert_eq!(topic.and_then(|topic| HostTopic::end_on(&topic)), own.map(|_| state));
        }
    }
}
