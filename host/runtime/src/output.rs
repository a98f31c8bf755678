//! A command's stdout: its output, within its bound.

use crate::stream::Sink;
use innkeeper_domain::limits::OUTPUT_BYTES_MAX;
use innkeeper_domain::payload::Payload;
use serde::de::IgnoredAny;
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime_wasi::p2::{StreamError, StreamResult};

/// The guest gave more output than it may.
#[derive(Debug, thiserror::Error)]
#[error("over the output's bound of {OUTPUT_BYTES_MAX} bytes")]
pub(crate) struct OutputTooLarge;

/// Collects a command's output. Clones share it. The write that passes the bound traps.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    /// What was written, with a content type after its looks: JSON if it is an object or an array, else
    /// text if it is UTF-8, else bytes.
    pub fn take(&self) -> Payload {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Payload { content_type: content_type(&bytes).into(), bytes }
    }
}

fn content_type(bytes: &[u8]) -> &'static str {
    let begins_json = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    if begins_json && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        "application/json"
    } else if std::str::from_utf8(bytes).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}

impl Sink for Output {
    fn take_in(&self, bytes: &[u8]) -> StreamResult<()> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if output.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(StreamError::Trap(OutputTooLarge.into()));
        }
        output.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_after_the_looks() {
        assert_eq!(content_type(b" {\"a\": 1}\n"), "application/json");
        assert_eq!(content_type(b"{not json}"), "text/plain; charset=utf-8");
        assert_eq!(content_type(b"12"), "text/plain; charset=utf-8");
        assert_eq!(content_type(b"\xff"), "application/octet-stream");
    }

    #[test]
    fn the_bound_holds() {
        let output = Output::default();
        output.take_in(&vec![0; OUTPUT_BYTES_MAX]).unwrap();
        assert!(output.take_in(b"x").is_err());
        assert_eq!(output.take().bytes.len(), OUTPUT_BYTES_MAX);
    }
}
