//! Names that people give.

use crate::limits::NAME_CHARS_MAX;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A name of a task, trigger or tenant: 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit.
/// Unique among its kind in its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Text that is no name, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name is missing")]
    Empty,
    /// Over the bound.
    #[error("a name has at most {NAME_CHARS_MAX} characters; this one has {0}")]
    TooLong(usize),
    /// A character that names don't have.
    #[error("`{name}` is not a name: `{found}` at position {position} is none of a-z 0-9 - _ .")]
    BadCharacter {
        /// The text.
        name: String,
        /// The character.
        found: char,
        /// Counted from 1.
        position: usize,
    },
    /// Begins with punctuation.
    #[error("`{0}` is not a name: it must begin with a letter or a digit")]
    BadStart(String),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let chars = text.chars().count();
        if chars == 0 {
            return Err(NameError::Empty);
        }
        if chars > NAME_CHARS_MAX {
            return Err(NameError::TooLong(chars));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if let Some((at, found)) = text.chars().enumerate().find(|(_, c)| !allowed(*c)) {
            return Err(NameError::BadCharacter { name: text.into(), found, position: at + 1 });
        }
        if text.starts_with(['-', '_', '.']) {
            return Err(NameError::BadStart(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "http-check", "2x", "a.b_c", &"n".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("n".repeat(64).parse::<Name>(), Err(NameError::TooLong(64)));
        assert!(matches!("Ab".parse::<Name>(), Err(NameError::BadCharacter { position: 1, .. })));
        assert!(matches!("a/b".parse::<Name>(), Err(NameError::BadCharacter { position: 2, .. })));
        assert!(matches!(".a".parse::<Name>(), Err(NameError::BadStart(_))));
    }
}
