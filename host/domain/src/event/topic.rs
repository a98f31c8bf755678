//! Topics of events, and patterns of topics.

use crate::limits::{TOPIC_CHARS_MAX, TOPIC_SEGMENTS_MAX};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The first segment of the topics of the host's own events.
const OWN: &str = "innkeeper";

/// What an event is about: 1 to [`TOPIC_SEGMENTS_MAX`] segments of `a-z A-Z 0-9 _ -` with dots in between, such as
/// `orders.created`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(String);

/// Which topics are wanted: a topic, of which a segment may be `*` for any one, and the last one `**` for any one or
/// more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(String);

/// Text that is no topic, or no pattern of topics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic is missing; one looks like orders.created")]
    Empty,
    #[error("a topic has at most {TOPIC_CHARS_MAX} characters; this one has {0}")]
    TooLong(usize),
    #[error("a topic has at most {TOPIC_SEGMENTS_MAX} segments; `{0}` has more")]
    TooManySegments(String),
    #[error("`{0}` is no topic: there must be something before, between and after its dots")]
    EmptySegment(String),
    #[error("`{text}` is no topic: `{found}` is none of a-z A-Z 0-9 _ - and the dots in between")]
    BadCharacter { text: String, found: char },
    #[error("`{0}` is no pattern of topics: `**` can only be the last segment; `*` is for any one")]
    NotLast(String),
    #[error(
        "topics under `{OWN}.` are the host's own; publish under another name, such as `my-{OWN}` instead of `{OWN}`"
    )]
    Own,
}

fn check(text: &str, is_pattern: bool) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    // Bytes: whatever is longer and no ASCII has a character that is refused anyway.
    if text.len() > TOPIC_CHARS_MAX {
        return Err(TopicError::TooLong(text.chars().count()));
    }
    let last = text.split('.').count();
    if last > TOPIC_SEGMENTS_MAX {
        return Err(TopicError::TooManySegments(text.into()));
    }
    for (place, segment) in text.split('.').enumerate() {
        let is_last = place + 1 == last;
        match segment {
            "" => return Err(TopicError::EmptySegment(text.into())),
            "*" if is_pattern => {}
            "**" if is_pattern && is_last => {}
            "**" if is_pattern => return Err(TopicError::NotLast(text.into())),
            _ => {
                let bad = segment.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'));
                if let Some(found) = bad {
                    // Whoever is shown the error is not to be sent control characters.
                    let shown = |c: char| if c.is_control() { ' ' } else { c };
                    let text = text.chars().map(shown).collect();
                    return Err(TopicError::BadCharacter { text, found: shown(found) });
                }
            }
        }
    }
    Ok(())
}

impl Topic {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the host's own, which nobody else may publish on.
    pub fn is_own(&self) -> bool {
        self.0.split('.').next() == Some(OWN)
    }

    /// Reads a topic that somebody publishes on; not one of the host's own.
    pub fn published(text: &str) -> Result<Self, TopicError> {
        let topic: Self = text.parse()?;
        if topic.is_own() { Err(TopicError::Own) } else { Ok(topic) }
    }
}

impl TopicPattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic is one of those wanted.
    pub fn matches(&self, topic: &Topic) -> bool {
        let (mut wanted, mut found) = (self.0.split('.'), topic.0.split('.'));
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for Topic {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        check(text, false)?;
        Ok(Self(text.into()))
    }
}

impl FromStr for TopicPattern {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        check(text, true)?;
        Ok(Self(text.into()))
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl TryFrom<String> for $type {
            type Error = TopicError;
            fn try_from(text: String) -> Result<Self, TopicError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(text: $type) -> Self {
                text.0
            }
        }
    };
}

as_text!(Topic);
as_text!(TopicPattern);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_segment_and_two_are_all_that_follow() {
        for (pattern, topic, expected) in [
            ("orders.created", "orders.created", true),
            ("orders.created", "orders", false),
            ("orders", "orders.created", false),
            ("orders.*", "orders.created", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.created.eu", false),
            ("*.created", "orders.created", true),
            ("orders.**", "orders.created.eu", true),
            ("orders.**", "orders.created", true),
            ("orders.**", "orders", false),
            ("**", "orders", true),
            ("*", "Orders_1-x", true),
        ] {
            let matches = pattern.parse::<TopicPattern>().unwrap().matches(&topic.parse().unwrap());
            assert_eq!(matches, expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn mistakes_have_words() {
        let (long, deep) = ("a".repeat(TOPIC_CHARS_MAX + 1), ["a"; TOPIC_SEGMENTS_MAX + 1].join("."));
        for (text, words) in [
            ("", "missing"),
            (&long, "at most"),
            (&deep, "segments"),
            ("a..b", "between"),
            (".a", "before"),
            ("a.*", "`*`"),
            ("ä", "`ä`"),
            ("a b", "` `"),
        ] {
            let error = text.parse::<Topic>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(matches!("a.**.b".parse::<TopicPattern>(), Err(TopicError::NotLast(_))));
        assert!("a.*b".parse::<TopicPattern>().is_err());
        assert_eq!(Topic::published("innkeeper.run.failed"), Err(TopicError::Own));
        assert_eq!(Topic::published("innkeeper"), Err(TopicError::Own));
        assert!(Topic::published("innkeepers.run").is_ok());
    }
}
