//! Kinds that have a word each, as stored and shown.

/// Gives every variant of a kind its word, and reads it back.
macro_rules! words {
    ($type:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it, as stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl std::str::FromStr for $type {
            type Err = $crate::word::UnknownWord;
            fn from_str(text: &str) -> Result<Self, $crate::word::UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::word::UnknownWord {
                        text: text.chars().take(64).collect(),
                        what: $what,
                        known: &[$($word),+],
                    }),
                }
            }
        }
    };
}

pub(crate) use words;

/// A word that isn't one of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}; known are: {}", known.join(", "))]
pub struct UnknownWord {
    pub text: String,
    pub what: &'static str,
    pub known: &'static [&'static str],
}
