//! What guests write to, as WASI wants it: a stream that takes all at once and is never full.

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// What one write may have, in bytes; more would be a long time's work within one call.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Where written bytes go. Clones share it.
pub(crate) trait Sink: Clone + Send + Sync + 'static {
    /// Takes bytes; an error of the trapping kind ends the guest.
    fn take_in(&self, bytes: &[u8]) -> StreamResult<()>;
}

/// A sink as a guest's stdout or stderr.
#[derive(Clone)]
pub(crate) struct GuestStream<S>(pub S);

impl<S> IsTerminal for GuestStream<S> {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl<S: Sink> StdoutStream for GuestStream<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for it, which is not linked.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl<S: Sink> OutputStream for GuestStream<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > WRITE_BYTES_MAX {
            let words =
                format!("the guest wrote more than the {WRITE_BYTES_MAX} bytes that one write may have");
            return Err(StreamError::trap(&words));
        }
        self.0.take_in(&bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait::async_trait]
impl<S: Sink> Pollable for GuestStream<S> {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[test]
    fn a_write_has_its_bound() {
        let mut stream = GuestStream(Output::default());
        assert_eq!(stream.check_write().unwrap(), WRITE_BYTES_MAX);
        stream.write(vec![b'x'; WRITE_BYTES_MAX].into()).unwrap();
        let over = stream.write(vec![b'x'; WRITE_BYTES_MAX + 1].into());
        assert!(matches!(over, Err(StreamError::Trap(_))), "{over:?}");
        assert_eq!(stream.0.take().bytes.len(), WRITE_BYTES_MAX);
    }
}
