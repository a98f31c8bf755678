//! Streams from and to files of the scratch. They are always ready, for nothing waits for a disk.

use crate::scratch::{Handle, Offset};
use bytes::Bytes;
use innkeeper_domain::limits::SCRATCH_CALL_BYTES_MAX;
use innkeeper_domain::time::Now;
use std::time::Duration;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// Reads a file from an offset on. At its end it is closed, until the file has grown.
pub(super) struct Reader {
    file: Handle,
    offset: u64,
}

impl Reader {
    pub fn new(file: Handle, offset: u64) -> Self {
        Self { file, offset }
    }
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let bytes = self.file.with(|tree, id| tree.read(id, self.offset, size));
        let bytes = bytes.map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        if bytes.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.into())
    }
}

#[async_trait::async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

/// Writes to a file from an offset on, or always at its end. What was refused can be tried again: the guests' libraries
/// keep a stream for as long as they have the file open.
pub(super) struct Writer {
    file: Handle,
    to: Offset,
    clock: Now,
}

impl Writer {
    pub fn new(file: Handle, to: Offset, clock: Now) -> Self {
        Self { file, to, clock }
    }
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > SCRATCH_CALL_BYTES_MAX {
            return Err(StreamError::trap("the guest wrote more than a write to a file may have"));
        }
        let now = Duration::try_from((self.clock)().as_duration()).unwrap_or_default();
        let end = self.file.with(|tree, id| tree.write(id, self.to, &bytes, now));
        let end = end.map_err(|error| StreamError::LastOperationFailed(error.into()))?;
        if let Offset::At(offset) = &mut self.to {
            *offset = end;
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(SCRATCH_CALL_BYTES_MAX)
    }
}

#[async_trait::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}
