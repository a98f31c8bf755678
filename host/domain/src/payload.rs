//! What goes into a run and comes out of it.

use crate::limits::CONTENT_TYPE_CHARS_MAX;

/// Bytes and what they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// A media type such as `application/json`; empty when nobody said.
    pub content_type: String,
    /// The bytes; see `limits` for how many.
    pub bytes: Vec<u8>,
}

/// A payload that can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Over the bound.
    #[error("{what} has {bytes} bytes; at most {max} are taken")]
    TooLarge {
        /// `the input` or `the output`.
        what: &'static str,
        /// How many there were.
        bytes: usize,
        /// How many are allowed.
        max: usize,
    },
    /// No media type.
    #[error(
        "the content type has {0} characters, or some that aren't visible ASCII; at most {CONTENT_TYPE_CHARS_MAX} are taken"
    )]
    BadContentType(usize),
}

impl Payload {
    /// JSON text.
    pub fn json(text: impl Into<Vec<u8>>) -> Self {
        Self { content_type: "application/json".into(), bytes: text.into() }
    }

    /// Checks both bounds. `what` names the payload in the error.
    pub fn check(&self, what: &'static str, max: usize) -> Result<(), PayloadError> {
        if self.bytes.len() > max {
            return Err(PayloadError::TooLarge { what, bytes: self.bytes.len(), max });
        }
        let visible = self.content_type.bytes().all(|b| (0x20..0x7f).contains(&b));
        if self.content_type.len() > CONTENT_TYPE_CHARS_MAX || !visible {
            return Err(PayloadError::BadContentType(self.content_type.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert_eq!(Payload::json("{}").check("the input", 2), Ok(()));
        assert!(Payload::json("{ }").check("the input", 2).unwrap_err().to_string().contains("3 bytes"));
        let odd = Payload { content_type: "a\nb".into(), bytes: vec![] };
        assert!(matches!(odd.check("the input", 2), Err(PayloadError::BadContentType(3))));
    }
}
