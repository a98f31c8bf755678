//! Secrets: sealed under a key that the store never has (see [`crate::keyring`]).

use crate::ids::TenantId;
use crate::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use crate::name::Name;
use jiff::Timestamp;
use std::fmt;
use zeroize::Zeroizing;

/// A secret's text, in memory only, and wiped from there. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// Text that can't be a secret. Doesn't quote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes; this one has {0}")]
    Length(usize),
    #[error("NUL can't be in a secret")]
    Nul,
}

impl SecretText {
    /// Checks its bounds.
    pub fn new(text: String) -> Result<Self, SecretError> {
        let text = Zeroizing::new(text);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&text.len()) {
            return Err(SecretError::Length(text.len()));
        }
        if text.contains('\0') {
            return Err(SecretError::Nul);
        }
        Ok(Self(text))
    }

    /// The text, to be shown to a guest that may have it and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    pub tenant: TenantId,
    pub name: Name,
    /// Which key it is sealed under: tells keys apart, and nothing about them.
    pub key_id: String,
    /// A nonce and what the cipher made; bound to tenant and name.
    pub sealed: Vec<u8>,
    pub created_at: Timestamp,
    /// When its text was last set.
    pub updated_at: Timestamp,
}

/// A secret as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    pub name: Name,
    pub key_id: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Tasks whose current revision names it.
    pub tasks: Vec<Name>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_words_and_nothing_is_printed() {
        let text = SecretText::new("hunter2!".into()).unwrap();
        assert_eq!((text.expose(), format!("{text:?}").contains("hunter")), ("hunter2!", false));
        assert_eq!(SecretText::new("abc".into()), Err(SecretError::Length(3)));
        let long = SecretText::new("x".repeat(SECRET_BYTES_MAX + 1));
        assert_eq!(long, Err(SecretError::Length(SECRET_BYTES_MAX + 1)));
        assert_eq!(SecretText::new("with\0nul".into()), Err(SecretError::Nul));
    }
}
