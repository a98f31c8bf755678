//! Rules of triggers: what each starts runs on.

use crate::calendar::{Schedule, ScheduleError, human_duration};
use crate::event::TopicPattern;
use crate::event::{BATCH_VARIABLES, EVENT_VARIABLES};
use crate::expression::{Expression, ExpressionError, Variables};
use crate::limits::{EVENT_BATCH_MAX, EVENT_WAIT_MAX, WEBHOOK_TOLERANCE_MAX};
use crate::name::Name;
use crate::run::RunState;
use crate::webhook::Scheme;
use crate::word::words;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What a trigger starts runs on. Stored as one field of the trigger, with the name of the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The clock.
    Schedule(Schedule),
    /// Events on topics of its tenant.
    Event(EventRule),
    /// The end of another task's runs.
    After(AfterRule),
    /// An HTTP request to its own URL.
    Webhook(WebhookRule),
}

/// Which events, and how many of them make a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRule {
    pub pattern: TopicPattern,
    /// A CEL expression over the event that is true of those that are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// A CEL expression whose value is the input of the run; over `events` if it is batched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gather: Option<Gather>,
}

/// How events are gathered into one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gather {
    /// A run of the last event when none has come for `quiet`, or `most` after the first. The others have none.
    Debounce { quiet: Duration, most: Duration },
    /// A run of `size` events, or of those that have come `wait` after the first.
    Batch { size: usize, wait: Duration },
}

/// Whose end, and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AfterRule {
    pub task: Name,
    #[serde(default)]
    pub when: When,
}

/// Which ends of a run count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    #[default]
    Success,
    /// It failed, and isn't tried again.
    Failure,
    /// A cancelled run's too.
    Any,
}

/// How a request is authenticated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRule {
    #[serde(default)]
    pub scheme: Scheme,
    /// The name of the tenant's secret that requests are signed with.
    pub secret: Name,
    /// How far the time that a signature names may be from the host's.
    #[serde(default = "tolerance_default")]
    pub tolerance: Duration,
}

words!(When, "an end of a run", Success = "success", Failure = "failure", Any = "any");
/// The tolerance of a webhook that says none.
pub const WEBHOOK_TOLERANCE: Duration = Duration::from_secs(300);

fn tolerance_default() -> Duration {
    WEBHOOK_TOLERANCE
}

/// A rule that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("a debounce of {} was asked for; it may be 1ms to {}", human_duration(*.0), human_duration(EVENT_WAIT_MAX))]
    Debounce(Duration),
    #[error(
        "a longest wait of {} was asked for; it may be {}, as the debounce, to {}",
        human_duration(*.most), human_duration(*.quiet), human_duration(EVENT_WAIT_MAX)
    )]
    MostWait { quiet: Duration, most: Duration },
    #[error("batches of {0} events were asked for; they may be of 2 to {EVENT_BATCH_MAX}")]
    Batch(usize),
    #[error("a wait of {} for a batch was asked for; it may be 1ms to {}", human_duration(*.0), human_duration(EVENT_WAIT_MAX))]
    BatchWait(Duration),
    #[error("the filter is {0} for every event: write an expression that is true or false")]
    NoTruth(String),
    #[error("{what}: {error}")]
    Expression { what: &'static str, error: ExpressionError },
    #[error("a tolerance of {} was asked for; it may be at most {}", human_duration(*.0), human_duration(WEBHOOK_TOLERANCE_MAX))]
    Tolerance(Duration),
}

const WAITS: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=EVENT_WAIT_MAX;

impl Rule {
    /// Checks every bound of a rule that is no schedule.
    pub fn check(&self) -> Result<(), RuleError> {
        match self {
            Self::Schedule(_) | Self::After(_) => Ok(()),
            Self::Event(rule) => rule.check(),
            Self::Webhook(rule) if rule.tolerance > WEBHOOK_TOLERANCE_MAX => {
                Err(RuleError::Tolerance(rule.tolerance))
            }
            Self::Webhook(_) => Ok(()),
        }
    }

    /// Its schedule, if it has one.
    pub fn schedule(&self) -> Option<&Schedule> {
        match self {
            Self::Schedule(schedule) => Some(schedule),
            Self::Event(_) | Self::After(_) | Self::Webhook(_) => None,
        }
    }

    /// Whether events start its runs; the ends of other runs are events too.
    pub fn follows_events(&self) -> bool {
        matches!(self, Self::Event(_) | Self::After(_))
    }

    /// In words.
    pub fn words(&self) -> Result<String, ScheduleError> {
        match self {
            Self::Schedule(schedule) => schedule.words(),
            other => Ok(other.to_string()),
        }
    }
}

impl EventRule {
    /// Every event on these topics, one run each.
    pub fn new(pattern: TopicPattern) -> Self {
        Self { pattern, filter: None, input_from: None, gather: None }
    }

    /// What its input's expression can name.
    pub fn input_variables(&self) -> &'static [&'static str] {
        match self.gather {
            Some(Gather::Batch { .. }) => &BATCH_VARIABLES,
            Some(Gather::Debounce { .. }) | None => &EVENT_VARIABLES,
        }
    }

    fn check(&self) -> Result<(), RuleError> {
        if let Some(text) = &self.filter {
            let read = Expression::parse(text, &EVENT_VARIABLES);
            let read = read.map_err(|error| RuleError::Expression { what: "the filter", error })?;
            // What has a value without an event has it for every one.
            if let Ok(value) = read.value(&Variables::new(), &mut 0)
                && !value.is_boolean()
            {
                return Err(RuleError::NoTruth(value.to_string()));
            }
        }
        if let Some(text) = &self.input_from {
            let read = Expression::parse(text, self.input_variables());
            read.map_err(|error| RuleError::Expression { what: "the input's expression", error })?;
        }
        match self.gather {
            Some(Gather::Debounce { quiet, .. }) if !WAITS.contains(&quiet) => {
                Err(RuleError::Debounce(quiet))
            }
            Some(Gather::Debounce { quiet, most }) if !(quiet..=EVENT_WAIT_MAX).contains(&most) => {
                Err(RuleError::MostWait { quiet, most })
            }
            Some(Gather::Batch { size, .. }) if !(2..=EVENT_BATCH_MAX).contains(&size) => {
                Err(RuleError::Batch(size))
            }
            Some(Gather::Batch { wait, .. }) if !WAITS.contains(&wait) => Err(RuleError::BatchWait(wait)),
            _ => Ok(()),
        }
    }
}

impl When {
    /// Whether the end of a run in this state counts.
    pub fn includes(self, state: RunState) -> bool {
        match self {
            Self::Success => state == RunState::Succeeded,
            Self::Failure => state == RunState::Failed,
            Self::Any => state.is_final(),
        }
    }
}

impl From<Schedule> for Rule {
    fn from(schedule: Schedule) -> Self {
        Self::Schedule(schedule)
    }
}

impl From<EventRule> for Rule {
    fn from(rule: EventRule) -> Self {
        Self::Event(rule)
    }
}

impl From<AfterRule> for Rule {
    fn from(rule: AfterRule) -> Self {
        Self::After(rule)
    }
}

impl From<WebhookRule> for Rule {
    fn from(rule: WebhookRule) -> Self {
        Self::Webhook(rule)
    }
}

/// As people write it.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(schedule) => schedule.fmt(f),
            Self::Event(rule) => {
                write!(f, "on {}", rule.pattern)?;
                match rule.gather {
                    None => Ok(()),
                    Some(Gather::Debounce { quiet, most }) => {
                        write!(f, ", when quiet for {}, ", human_duration(quiet))?;
                        write!(f, "after {} at most", human_duration(most))
                    }
                    Some(Gather::Batch { size, wait }) => {
                        write!(f, ", {size} together, or after {}", human_duration(wait))
                    }
                }
            }
            Self::After(AfterRule { task, when: When::Any }) => write!(f, "after {task}"),
            Self::After(rule) => write!(f, "after {} of {}", rule.when, rule.task),
            Self::Webhook(rule) => write!(f, "webhook ({})", rule.scheme),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(gather: Gather) -> Result<(), RuleError> {
        Rule::from(EventRule { gather: Some(gather), ..EventRule::new("a.*".parse().unwrap()) }).check()
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let second = Duration::from_secs;
        assert_eq!(event(Gather::Batch { size: 2, wait: second(1) }), Ok(()));
        assert_eq!(event(Gather::Batch { size: 1, wait: second(1) }), Err(RuleError::Batch(1)));
        assert_eq!(event(Gather::Batch { size: 2, wait: second(0) }), Err(RuleError::BatchWait(second(0))));
        assert_eq!(event(Gather::Debounce { quiet: second(5), most: second(5) }), Ok(()));
        let (quiet, most) = (second(5), second(4));
        assert_eq!(event(Gather::Debounce { quiet, most }), Err(RuleError::MostWait { quiet, most }));
        let filter = |text: &str| {
            let rule = EventRule { filter: Some(text.into()), ..EventRule::new("a.*".parse().unwrap()) };
            Rule::from(rule).check()
        };
        assert_eq!(filter("1 + 1"), Err(RuleError::NoTruth("2".into())));
        assert_eq!(filter("'x'"), Err(RuleError::NoTruth("\"x\"".into())));
        assert_eq!(
            (filter("true"), filter("data.total > 1"), filter("size(topic) > 1")),
            (Ok(()), Ok(()), Ok(()))
        );
        let long = WEBHOOK_TOLERANCE_MAX + second(1);
        let hook = WebhookRule { scheme: Scheme::Github, secret: "s".parse().unwrap(), tolerance: long };
        assert_eq!(Rule::from(hook).check(), Err(RuleError::Tolerance(long)));
    }
}
