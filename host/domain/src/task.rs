//! Tasks: a named definition, every change of which is a new revision.

use crate::calendar::human_duration;
use crate::component::Digest;
use crate::deadline::{DeadlineError, Deadlines};
use crate::expression::{Expression, ExpressionError};
use crate::host::{LabelError, Labels};
use crate::ids::TaskId;
use crate::limits::*;
use crate::name::Name;
use crate::permission::HttpGrant;
use crate::rate::Rate;
use crate::retry::{RetryError, RetryPolicy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};

/// What a revision of a task says. Kept as JSON: a field added later has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub component: Digest,
    /// Shown to a handler through `wasi:config/store`, to a command as its environment as well.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// A command's arguments, after its name.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Memory of one attempt in bytes: linear memories and tables together.
    pub memory: u64,
    /// How many bytes of files an attempt may have, in a directory of its own that goes with it; none by default.
    /// What it uses of it counts as memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<u64>,
    #[serde(default)]
    pub retry: RetryPolicy,
    /// The hosts that it may speak HTTP with; none by default.
    #[serde(default)]
    pub allow_http: BTreeSet<HttpGrant>,
    /// Labels that a host must have to execute it.
    #[serde(default)]
    pub requires: Labels,
    /// Secrets that are shown to it like config, by the config key that each is shown under.
    #[serde(default)]
    pub secrets: BTreeMap<String, Name>,
    /// How long after a run is due its first attempt must have begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<Duration>,
    /// How long after a run is due it must be over, retries included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Duration>,
    /// How long a cancelled attempt may take to end by itself.
    #[serde(default = "cancel_grace_default", skip_serializing_if = "is_cancel_grace_default")]
    pub cancel_grace: Duration,
    /// What its runs are labelled with; a trigger's and a start's of the same key go before.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// How many of its runs may execute at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// An expression over the input: of runs for which it is the same, `key_concurrency` may execute at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    #[serde(default = "key_concurrency_default", skip_serializing_if = "is_one")]
    pub key_concurrency: u32,
    /// How many of its attempts may begin in some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Of its runs, unless they are given another; of a tenant's runs that are ready the highest begin first.
    #[serde(default = "priority_default", skip_serializing_if = "is_priority_default")]
    pub priority: u8,
}

fn cancel_grace_default() -> Duration {
    CANCEL_GRACE
}

fn is_cancel_grace_default(grace: &Duration) -> bool {
    *grace == CANCEL_GRACE
}

fn key_concurrency_default() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn priority_default() -> u8 {
    PRIORITY_DEFAULT
}

fn is_priority_default(priority: &u8) -> bool {
    *priority == PRIORITY_DEFAULT
}

/// Checks a run's priority.
pub fn check_priority(priority: u8) -> Result<(), TaskSpecError> {
    if priority > PRIORITY_MAX { Err(TaskSpecError::Priority(priority)) } else { Ok(()) }
}

/// A definition that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskSpecError {
    #[error("a timeout of {} was asked for; it may be {} to {}", human_duration(*.0), human_duration(TIMEOUT_MIN), human_duration(TIMEOUT_MAX))]
    Timeout(Duration),
    #[error("{0} bytes of memory were asked for; they may be {MEMORY_MIN} to {MEMORY_MAX}")]
    Memory(u64),
    #[error(
        "a scratch of {0} bytes was asked for; it may be {SCRATCH_BYTES_MIN} to {SCRATCH_BYTES_MAX}, or none"
    )]
    Scratch(u64),
    #[error(
        "a scratch of {scratch} bytes was asked for, and its use counts as memory, of which there are {memory}; ask for \
         more memory, or for less scratch"
    )]
    ScratchInMemory { scratch: u64, memory: u64 },
    #[error(
        "the config has {entries} entries and {bytes} bytes; at most {CONFIG_ENTRIES_MAX} and {CONFIG_BYTES_MAX} are taken"
    )]
    Config { entries: usize, bytes: usize },
    #[error("`{0}` can't be a config key: it is empty, or has `=`, a space or a control character")]
    ConfigKey(String),
    #[error(
        "there are {count} arguments of {bytes} bytes; at most {ARGUMENTS_MAX} and {ARGUMENTS_BYTES_MAX} are taken"
    )]
    Arguments { count: usize, bytes: usize },
    #[error("NUL can't be in an argument or a config value")]
    Nul,
    #[error("{0} hosts are allowed; at most {HTTP_GRANTS_MAX} can be")]
    HttpGrants(usize),
    #[error("{0} secrets are named; at most {TASK_SECRETS_MAX} can be")]
    Secrets(usize),
    #[error("`{0}` is a key of the config and of a secret; it can be one of them")]
    SecretKey(String),
    #[error("a concurrency of {0} was asked for; it may be 1 to {CONCURRENCY_MAX}, or none for no limit")]
    Concurrency(u32),
    #[error("the concurrency key can't be read: {0}")]
    ConcurrencyKey(ExpressionError),
    #[error("the concurrency of a key was given, but no key (an expression over the input)")]
    NoConcurrencyKey,
    #[error("a priority of {0} was asked for; it may be 0 to {PRIORITY_MAX}, the highest")]
    Priority(u8),
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error("a grace of {} to a cancel was asked for; it may be at most {}", human_duration(*.0), human_duration(CANCEL_GRACE_MAX))]
    CancelGrace(Duration),
    #[error(transparent)]
    Deadline(#[from] DeadlineError),
    #[error(transparent)]
    Retry(#[from] RetryError),
}

impl TaskSpec {
    /// A definition with nothing said but the component.
    pub fn new(component: Digest) -> Self {
        Self {
            component,
            config: BTreeMap::new(),
            arguments: Vec::new(),
            timeout: TIMEOUT_DEFAULT,
            memory: MEMORY_DEFAULT,
            scratch: None,
            retry: RetryPolicy::default(),
            allow_http: BTreeSet::new(),
            requires: Labels::default(),
            secrets: BTreeMap::new(),
            start_deadline: None,
            deadline: None,
            cancel_grace: CANCEL_GRACE,
            labels: Labels::default(),
            concurrency: None,
            concurrency_key: None,
            key_concurrency: 1,
            rate: None,
            priority: PRIORITY_DEFAULT,
        }
    }

    /// How long its runs may take.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines { start: self.start_deadline, end: self.deadline }
    }

    /// Checks every bound.
    pub fn check(&self) -> Result<(), TaskSpecError> {
        if self.timeout < TIMEOUT_MIN || self.timeout > TIMEOUT_MAX {
            return Err(TaskSpecError::Timeout(self.timeout));
        }
        if self.memory < MEMORY_MIN || self.memory > MEMORY_MAX {
            return Err(TaskSpecError::Memory(self.memory));
        }
        if let Some(scratch) = self.scratch {
            if !(SCRATCH_BYTES_MIN..=SCRATCH_BYTES_MAX).contains(&scratch) {
                return Err(TaskSpecError::Scratch(scratch));
            }
            if scratch >= self.memory {
                return Err(TaskSpecError::ScratchInMemory { scratch, memory: self.memory });
            }
        }
        let bytes = self.config.iter().map(|(k, v)| k.len() + v.len()).sum();
        if self.config.len() > CONFIG_ENTRIES_MAX || bytes > CONFIG_BYTES_MAX {
            return Err(TaskSpecError::Config { entries: self.config.len(), bytes });
        }
        let bad_key = |k: &String| k.is_empty() || k.contains(['=', ' ']) || k.chars().any(char::is_control);
        if let Some(key) = self.config.keys().chain(self.secrets.keys()).find(|k| bad_key(k)) {
            return Err(TaskSpecError::ConfigKey(key.clone()));
        }
        let bytes = self.arguments.iter().map(String::len).sum();
        if self.arguments.len() > ARGUMENTS_MAX || bytes > ARGUMENTS_BYTES_MAX {
            return Err(TaskSpecError::Arguments { count: self.arguments.len(), bytes });
        }
        if self.arguments.iter().chain(self.config.values()).any(|text| text.contains('\0')) {
            return Err(TaskSpecError::Nul);
        }
        if self.allow_http.len() > HTTP_GRANTS_MAX {
            return Err(TaskSpecError::HttpGrants(self.allow_http.len()));
        }
        if self.secrets.len() > TASK_SECRETS_MAX {
            return Err(TaskSpecError::Secrets(self.secrets.len()));
        }
        if let Some(key) = self.secrets.keys().find(|key| self.config.contains_key(*key)) {
            return Err(TaskSpecError::SecretKey(key.clone()));
        }
        if self.cancel_grace > CANCEL_GRACE_MAX {
            return Err(TaskSpecError::CancelGrace(self.cancel_grace));
        }
        let concurrencies = self.concurrency.into_iter().chain([self.key_concurrency]);
        for concurrency in concurrencies {
            if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
                return Err(TaskSpecError::Concurrency(concurrency));
            }
        }
        match &self.concurrency_key {
            Some(key) => drop(Expression::parse_key(key).map_err(TaskSpecError::ConcurrencyKey)?),
            None if self.key_concurrency != 1 => return Err(TaskSpecError::NoConcurrencyKey),
            None => {}
        }
        check_priority(self.priority)?;
        self.requires.check()?;
        self.labels.check()?;
        self.deadlines().check()?;
        Ok(self.retry.check()?)
    }
}

/// A task as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub name: Name,
    /// The revision that new runs are pinned to; the first is 1.
    pub revision: u32,
    pub spec: TaskSpec,
    pub created_at: Timestamp,
    /// When the current revision was made.
    pub updated_at: Timestamp,
    /// Since when nothing of it begins, if so.
    pub paused: Option<TaskPause>,
}

/// A task's pause. It is none of its revisions': whatever changes, it stays until somebody resumes the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPause {
    pub note: String,
    pub at: Timestamp,
}

/// One revision of a task. Revisions don't change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub number: u32,
    pub spec: TaskSpec,
    /// The older revision that this one repeats, when it was made by a rollback.
    pub rollback_of: Option<u32>,
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_words() {
        let good = TaskSpec::new(Digest([0; 32]));
        assert_eq!(good.check(), Ok(()));
        let slow = TaskSpec { timeout: Duration::ZERO, ..good.clone() };
        assert!(slow.check().unwrap_err().to_string().contains("timeout"));
        let big = TaskSpec { memory: MEMORY_MAX + 1, ..good.clone() };
        assert!(big.check().unwrap_err().to_string().contains("memory"));
        let scratch = |scratch| TaskSpec { scratch: Some(scratch), ..good.clone() }.check();
        assert_eq!(scratch(SCRATCH_BYTES_MIN), Ok(()));
        assert_eq!(scratch(0), Err(TaskSpecError::Scratch(0)));
        assert_eq!(scratch(SCRATCH_BYTES_MAX + 1), Err(TaskSpecError::Scratch(SCRATCH_BYTES_MAX + 1)));
        let words = scratch(MEMORY_DEFAULT).unwrap_err().to_string();
        assert!(words.contains("more memory"), "{words}");
        let key = TaskSpec { config: [("a=b".into(), String::new())].into(), ..good.clone() };
        assert_eq!(key.check(), Err(TaskSpecError::ConfigKey("a=b".into())));
        let limits = TaskSpec { concurrency: Some(0), ..good.clone() };
        assert_eq!(limits.check(), Err(TaskSpecError::Concurrency(0)));
        let keyless = TaskSpec { key_concurrency: 2, ..good.clone() };
        assert_eq!(keyless.check(), Err(TaskSpecError::NoConcurrencyKey));
        let urgent = TaskSpec { priority: 10, ..good.clone() };
        assert_eq!(urgent.check(), Err(TaskSpecError::Priority(10)));
        let nul = TaskSpec { arguments: vec!["a\0".into()], ..good };
        assert_eq!(nul.check(), Err(TaskSpecError::Nul));
    }

    #[test]
    fn a_spec_from_before_a_field_was_added_reads() {
        let old = serde_json::json!({
            "component": Digest([1; 32]), "timeout": {"secs": 1, "nanos": 0}, "memory": 65536
        });
        let spec: TaskSpec = serde_json::from_value(old).unwrap();
        assert_eq!((&spec.retry, spec.cancel_grace), (&RetryPolicy::default(), CANCEL_GRACE));
        assert_eq!((spec.key_concurrency, spec.priority, spec.concurrency), (1, PRIORITY_DEFAULT, None));
        let written = serde_json::to_value(&spec).unwrap();
        assert!(written.get("priority").is_none(), "what is as before is written as before");
    }
}
