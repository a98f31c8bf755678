//! What guests write to, as WASI wants it: a stream that takes all at once and is never full.

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// What one write may have, in bytes.
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
