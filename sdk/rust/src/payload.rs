//! Inputs and outputs.

use crate::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes and what they are: the input or output of tasks that don't speak JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// A media type, such as `text/csv`; empty when nobody said.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a task can take: anything that serde can deserialize, from JSON; or a [`Payload`] as it is.
pub trait Input: Sized {
    /// Reads the input. The failure is permanent: the same input would fail the same way.
    fn from_payload(payload: Payload) -> Result<Self, Failure>;
}

impl<T: DeserializeOwned> Input for T {
    /// An empty input counts as `null`: `()` and `Option` take it.
    fn from_payload(payload: Payload) -> Result<Self, Failure> {
        let json: &[u8] = if payload.bytes.is_empty() { b"null" } else { &payload.bytes };
        serde_json::from_slice(json).map_err(|e| {
            Failure::permanent("bad-input", format!("the input is not what the task takes: {e}"))
        })
    }
}

impl Input for Payload {
    fn from_payload(payload: Payload) -> Result<Self, Failure> {
        Ok(payload)
    }
}

/// What a task can give: anything that serde can serialize, as JSON; or a [`Payload`] as it is.
pub trait Output {
    /// Writes the output.
    fn into_payload(self) -> Result<Payload, Failure>;
}

impl<T: Serialize> Output for T {
    fn into_payload(self) -> Result<Payload, Failure> {
        let bytes = serde_json::to_vec(&self);
        let bytes =
            bytes.map_err(|e| Failure::permanent("bad-output", format!("the output is no JSON: {e}")))?;
        Ok(Payload { content_type: "application/json".into(), bytes })
    }
}

impl Output for Payload {
    fn into_payload(self) -> Result<Payload, Failure> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(text: &str) -> Payload {
        Payload { content_type: String::new(), bytes: text.into() }
    }

    #[test]
    fn inputs_are_json_and_nothing_is_null() {
        assert_eq!(Vec::<u8>::from_payload(payload("[1, 2]")), Ok(vec![1, 2]));
        assert_eq!(Option::<u8>::from_payload(payload("")), Ok(None));
        assert_eq!(<()>::from_payload(payload("")), Ok(()));
        assert_eq!(Payload::from_payload(payload("raw")), Ok(payload("raw")));
    }

    #[test]
    fn bad_input_says_where_and_is_permanent() {
        let failure = Vec::<u8>::from_payload(payload("[1, x]")).unwrap_err();
        assert_eq!(failure.code, "bad-input");
        assert!(failure.message.contains("line 1 column 5") && !failure.is_retryable(), "{failure}");
    }

    #[test]
    fn outputs_are_json_or_as_they_are() {
        assert_eq!(vec![1].into_payload().unwrap().bytes, b"[1]");
        assert_eq!(payload("raw").into_payload().unwrap(), payload("raw"));
    }
}
