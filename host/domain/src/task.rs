//! Tasks: a named definition, every change of which is a new revision.

use crate::component::Digest;
use crate::host::{LabelError, Labels};
use crate::ids::TaskId;
use crate::limits::*;
use crate::name::Name;
use crate::permission::HttpGrant;
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
}

/// A definition that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskSpecError {
    #[error("a timeout of {0:?} was asked for; it may be {TIMEOUT_MIN:?} to {TIMEOUT_MAX:?}")]
    Timeout(Duration),
    #[error("{0} bytes of memory were asked for; they may be {MEMORY_MIN} to {MEMORY_MAX}")]
    Memory(u64),
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
    #[error(transparent)]
    Requires(#[from] LabelError),
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
            retry: RetryPolicy::default(),
            allow_http: BTreeSet::new(),
            requires: Labels::default(),
            secrets: BTreeMap::new(),
        }
    }

    /// Checks every bound.
    pub fn check(&self) -> Result<(), TaskSpecError> {
        if self.timeout < TIMEOUT_MIN || self.timeout > TIMEOUT_MAX {
            return Err(TaskSpecError::Timeout(self.timeout));
        }
        if self.memory < MEMORY_MIN || self.memory > MEMORY_MAX {
            return Err(TaskSpecError::Memory(self.memory));
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
        self.requires.check()?;
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
        let key = TaskSpec { config: [("a=b".into(), String::new())].into(), ..good.clone() };
        assert_eq!(key.check(), Err(TaskSpecError::ConfigKey("a=b".into())));
        let nul = TaskSpec { arguments: vec!["a\0".into()], ..good };
        assert_eq!(nul.check(), Err(TaskSpecError::Nul));
    }

    #[test]
    fn a_spec_from_before_a_field_was_added_reads() {
        let old = serde_json::json!({
            "component": Digest([1; 32]), "timeout": {"secs": 1, "nanos": 0}, "memory": 65536
        });
        let spec: TaskSpec = serde_json::from_value(old).unwrap();
        assert_eq!(spec.retry, RetryPolicy::default());
    }
}
