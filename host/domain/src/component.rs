//! Components: what was uploaded, under the digest of its bytes.

use crate::failure::plain;
use crate::limits::REFUSAL_BYTES_MAX;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The sha-256 of the bytes as uploaded. Written `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// Text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 hex digits")]
pub struct DigestError(String);

impl Digest {
    /// The 64 hex digits alone: a file name.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let err = || DigestError(text.chars().take(80).collect());
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(err());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| err())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// How a component is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Exports `innkeeper:task/handler`: called with the input, returns the output.
    Handler,
    /// Exports `wasi:cli/run`: input on stdin, output on stdout, log on stderr.
    Command,
}

impl Shape {
    /// The word for it, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Command => "command",
        }
    }
}

impl FromStr for Shape {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "handler" => Ok(Self::Handler),
            "command" => Ok(Self::Command),
            _ => Err(()),
        }
    }
}

/// An uploaded component, as a tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    pub digest: Digest,
    /// Bytes as uploaded.
    pub size: u64,
    pub shape: Shape,
    /// Whether it came as a core module and was adapted to a component on upload.
    pub adapted: bool,
    /// The interfaces it imports, such as `wasi:http/outgoing-handler@0.2.6`: the upper bound of what
    /// it could ask for.
    pub imports: Vec<String>,
    pub created_at: Timestamp,
}

/// What an inspection of uploaded bytes found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    pub shape: Shape,
    pub adapted: bool,
    pub imports: Vec<String>,
}

/// Why uploaded bytes can't be a task: what was found, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Not WebAssembly, or damaged, or of a kind that isn't run here. The text says all.
    #[error("{0}")]
    NotATask(String),
    /// Over the bound.
    #[error("the file has {bytes} bytes; a component may have at most {max}")]
    TooLarge { bytes: u64, max: u64 },
    /// The compiler gave up: over its time, or it failed. The text says how.
    #[error("{0}")]
    NotCompiled(String),
    /// The host can't inspect it now; the same upload may work later.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// The same in words that can be shown: they may quote names out of the upload, of any size.
    #[must_use]
    pub fn shown(self) -> Self {
        let plain = |words: String| plain(&words, REFUSAL_BYTES_MAX);
        match self {
            Self::NotATask(words) => Self::NotATask(plain(words)),
            Self::NotCompiled(words) => Self::NotCompiled(plain(words)),
            Self::Unavailable(words) => Self::Unavailable(plain(words)),
            Self::TooLarge { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_quote_little_and_nothing_that_steers_a_terminal() {
        let refusal = Refusal::NotATask(format!("it imports `\x1b[2J{}`", "é".repeat(REFUSAL_BYTES_MAX)));
        let shown = refusal.shown().to_string();
        assert!(shown.starts_with("it imports ` [2Jé") && shown.len() <= REFUSAL_BYTES_MAX, "{shown}");
    }

    #[test]
    fn digests_read_back() {
        let digest = Digest([0xab; 32]);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert_eq!(digest.hex().parse::<Digest>().unwrap(), digest);
        for bad in ["", "sha256:12", &"g".repeat(64), &"é".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
