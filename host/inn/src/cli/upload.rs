//! Sending a component's bytes, over connections that break if need be.

use super::client::{Client, call};
use super::{is_broken_connection, output};
use anyhow::Result;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use innkeeper_api::proto::push_component_request::{Header, Part};
use innkeeper_api::proto::{BeginUploadRequest, PushComponentRequest, PushComponentResponse};
use innkeeper_domain::component::Digest;
use innkeeper_domain::limits::UPLOAD_PIECE_BYTES;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tonic::{Code, Status};

/// Bytes that are sent at once.
const CHUNK: usize = 256 * 1024;

/// How often it is tried again in a row without more bytes having arrived.
const RETRIES: u32 = 5;
/// The wait before the first retry in a row; then twice as long each time.
const BACKOFF: Duration = Duration::from_millis(250);

/// Uploads bytes, with progress on stderr if that is a terminal. A broken connection is made anew, and the
/// upload goes on with what the host has.
pub async fn push(client: &Client, bytes: Vec<u8>) -> Result<PushComponentResponse> {
    let upload = Upload {
        client,
        digest: Digest(Sha256::digest(&bytes).into()).to_string(),
        bytes: bytes.into(),
        progress: ProgressBar::new(0),
    };
    let (mut received, mut tries) = (None, 0);
    let pushed = loop {
        let before = received;
        match upload.attempt(&mut received).await {
            Ok(pushed) => break Ok(pushed),
            Err(status) if !can_go_on(&status, received) => break Err(status),
            Err(status) => {
                tries = if received > before { 1 } else { tries + 1 };
                if tries > RETRIES {
                    break Err(status);
                }
                let wait = BACKOFF * 2u32.pow(tries - 1);
                upload.note(&format!("the upload was cut off ({}); trying again", status.message()));
                tokio::time::sleep(wait).await;
            }
        }
    };
    upload.progress.finish_and_clear();
    if pushed.is_err() && received.is_some_and(|received| received > 0) {
        output::note("the host keeps what has arrived for a day: push the same again, and it goes on there");
    }
    Ok(pushed?)
}

/// Whether another try can do better: the connection broke, the call took too long, or what the host had kept
/// was not ours.
fn can_go_on(status: &Status, received: Option<u64>) -> bool {
    is_broken_connection(status)
        || matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
        || status.code() == Code::DataLoss && received.is_some_and(|received| received > 0)
}

struct Upload<'a> {
    client: &'a Client,
    digest: String,
    bytes: Bytes,
    progress: ProgressBar,
}

impl Upload<'_> {
    /// Sends what the host doesn't have; `received` is how much it had, as far as that was asked.
    async fn attempt(&self, received: &mut Option<u64>) -> Result<PushComponentResponse, Status> {
        let size = self.bytes.len() as u64;
        let mut offset = 0;
        // Of a small upload nothing is kept.
        if size > UPLOAD_PIECE_BYTES {
            let request = BeginUploadRequest { digest: self.digest.clone(), size };
            match self.client.components().begin_upload(call(request)).await {
                Ok(begun) => {
                    let begun = begun.into_inner();
                    if begun.component.is_some() {
                        return Ok(PushComponentResponse { component: begun.component, existed: true });
                    }
                    offset = begun.received.min(size);
                }
                Err(status) if status.code() == Code::FailedPrecondition => {
                    self.note(&format!("nothing is kept if the connection breaks: {}", status.message()));
                }
                Err(status) => return Err(status),
            }
            if offset > 0 {
                let (had, all) = (output::bytes(offset), output::bytes(size));
                self.note(&format!("the host has {had} of {all} from before; it goes on there"));
            }
            *received = Some(offset);
        }
        // No deadline of the client's: compiling takes what it takes, within the host's bound.
        Ok(self.client.components().push_component(self.parts(offset)).await?.into_inner())
    }

    /// The header, and the bytes after the first `offset`.
    fn parts(&self, offset: u64) -> impl Stream<Item = PushComponentRequest> + use<> {
        let size = self.bytes.len() as u64;
        let header = Header { digest: self.digest.clone(), size, offset };
        let header = PushComponentRequest { part: Some(Part::Header(header)) };
        let rest = self.bytes.slice(usize::try_from(offset).unwrap_or(self.bytes.len())..);
        if rest.is_empty() {
            show_waiting(&self.progress)
        } else {
            show_sending(&self.progress, offset, size)
        }
        let chunks = stream::unfold((rest, self.progress.clone()), |(mut rest, sent)| async move {
            if rest.is_empty() {
                return None;
            }
            let chunk = rest.split_to(rest.len().min(CHUNK));
            sent.inc(chunk.len() as u64);
            if rest.is_empty() {
                show_waiting(&sent);
            }
            Some((PushComponentRequest { part: Some(Part::Chunk(chunk)) }, (rest, sent)))
        });
        stream::iter([header]).chain(chunks)
    }

    /// Says something without spoiling the progress bar.
    fn note(&self, text: &str) {
        self.progress.suspend(|| output::note(text));
    }
}

fn show_sending(progress: &ProgressBar, offset: u64, size: u64) {
    progress.disable_steady_tick();
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}") {
        progress.set_style(style);
    }
    progress.set_message("uploading");
    progress.set_length(size);
    progress.set_position(offset);
}

fn show_waiting(progress: &ProgressBar) {
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        progress.set_style(style);
    }
    progress.set_message("the host inspects and compiles it");
    progress.enable_steady_tick(Duration::from_millis(100));
}
