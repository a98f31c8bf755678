//! Uploads over connections that break.

use crate::inn::{Host, run_with, wat_command};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use innkeeper_api::proto::component_service_client::ComponentServiceClient;
use innkeeper_api::proto::push_component_request::{Header, Part};
use innkeeper_api::proto::{BeginUploadRequest, BeginUploadResponse, PushComponentRequest};
use innkeeper_domain::component::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const MIB: usize = 1 << 20;

/// A command that does nothing, and has so many bytes in a section that nobody reads.
fn large_command(bytes: usize) -> Vec<u8> {
    let mut module = wat_command("");
    let mut size = bytes + 2;
    module.push(0);
    while size >= 0x80 {
        module.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    module.extend([size as u8, 1, b'x']);
    module.extend((0..bytes).map(|n| (n % 251) as u8));
    module
}

fn digest(bytes: &[u8]) -> String {
    Digest(Sha256::digest(bytes).into()).to_string()
}

/// Any gRPC client.
struct Client {
    services: ComponentServiceClient<Channel>,
    token: String,
}

impl Client {
    async fn connect(host: &Host) -> Self {
        let read = |name: &str| std::fs::read_to_string(host.data().join(name)).unwrap().trim().to_string();
        let services = ComponentServiceClient::connect(read("address")).await.unwrap();
        Self { services, token: format!("Bearer {}", read("admin.token")) }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.parse().unwrap());
        request
    }

    async fn begin(&mut self, digest: &str, size: usize) -> BeginUploadResponse {
        let request = BeginUploadRequest { digest: digest.into(), size: size as u64 };
        self.services.begin_upload(self.request(request)).await.unwrap().into_inner()
    }

    /// Pushes what is left after `offset`, as one that says the whole has this digest.
    async fn push(&mut self, digest: &str, bytes: &[u8], offset: usize) -> Result<(), Status> {
        let parts = parts(digest, bytes.len(), offset, &bytes[offset..]);
        self.services.push_component(self.request(parts)).await.map(|_| ())
    }
}

/// A header, and these bytes in chunks of 1 MiB.
fn parts(
    digest: &str,
    size: usize,
    offset: usize,
    bytes: &[u8],
) -> impl Stream<Item = PushComponentRequest> + use<> {
    let header = Header { digest: digest.into(), size: size as u64, offset: offset as u64 };
    let chunks: Vec<_> = bytes.chunks(MIB).map(|chunk| Part::Chunk(Bytes::copy_from_slice(chunk))).collect();
    let parts = std::iter::once(Part::Header(header)).chain(chunks);
    stream::iter(parts.map(|part| PushComponentRequest { part: Some(part) }))
}

/// Sends the first bytes of an upload, waits until the host has kept them, and drops the connection.
async fn cut_off(host: &Host, digest: &str, whole: &[u8], at: usize) {
    let (mut sender, mut asker) = (Client::connect(host).await, Client::connect(host).await);
    let parts = parts(digest, whole.len(), 0, &whole[..at]).chain(stream::pending());
    let request = sender.request(parts);
    let kept = async {
        while asker.begin(digest, whole.len()).await.received < at as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        pushed = sender.services.push_component(request) => panic!("{pushed:?}"),
        kept = tokio::time::timeout(Duration::from_secs(30), kept) => kept.expect("it is kept"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_was_cut_off_goes_on_where_it_stopped() {
    let host = Host::start();
    let whole = large_command(5 * MIB);
    let name = digest(&whole);
    cut_off(&host, &name, &whole, 3 * MIB).await;
    let mut client = Client::connect(&host).await;
    assert_eq!(client.begin(&name, whole.len()).await.received, 3 * MIB as u64);
    let beyond = client.push(&name, &whole, 4 * MIB).await.unwrap_err();
    assert_eq!(beyond.code(), Code::FailedPrecondition, "{beyond}");
    client.push(&name, &whole, 3 * MIB).await.unwrap();
    let component = client.begin(&name, whole.len()).await.component.expect("the host has it");
    assert_eq!((component.digest, component.size), (name, whole.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_begins_at_the_beginning_needs_to_ask_nothing() {
    let host = Host::start();
    let whole = large_command(3 * MIB);
    let name = digest(&whole);
    cut_off(&host, &name, &whole, 2 * MIB).await;
    Client::connect(&host).await.push(&name, &whole, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_become_a_component_is_not_kept() {
    let host = Host::start();
    let mut client = Client::connect(&host).await;
    let (text, other) = (vec![b'x'; 3 * MIB], digest(b"others"));
    let refused = client.push(&digest(&text), &text, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(client.begin(&digest(&text), text.len()).await.received, 0);
    let mistaken = client.push(&other, &text, 0).await.unwrap_err();
    assert_eq!(mistaken.code(), Code::DataLoss, "{mistaken}");
    assert_eq!(client.begin(&other, text.len()).await.received, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_push_goes_on_with_an_earlier() {
    let mut host = Host::start();
    let whole = large_command(3 * MIB);
    cut_off(&host, &digest(&whole), &whole, 2 * MIB).await;
    // What is kept is on disk.
    host.kill();
    host.restart(&[]);
    let pushed = host.push(&whole);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    assert!(pushed.stderr.contains("the host has 2.0 MiB of 3.0 MiB"), "{}", pushed.stderr);
    // What the host had kept from somebody who sent other bytes under this digest is found out, and mended.
    let whole = large_command(4 * MIB);
    cut_off(&host, &digest(&whole), &vec![b'x'; whole.len()], 2 * MIB).await;
    let pushed = host.push(&whole);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    assert!(pushed.stderr.contains("trying again"), "{}", pushed.stderr);
}

/// Forwards connections to the host, the first only until so many bytes have gone there. Counts all bytes.
fn proxy(host: &Host, first: usize) -> (String, Arc<AtomicUsize>) {
    let to = std::fs::read_to_string(host.data().join("address")).unwrap();
    let to = to.trim().strip_prefix("http://").unwrap().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    thread::spawn(move || {
        let limits = std::iter::once(first).chain(std::iter::repeat(usize::MAX));
        for (client, limit) in listener.incoming().flatten().zip(limits) {
            let host = TcpStream::connect(&to).unwrap();
            let (from, into) = (host.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || forward(from, into, usize::MAX, &AtomicUsize::new(0)));
            let counted = Arc::clone(&counted);
            thread::spawn(move || forward(client, host, limit, &counted));
        }
    });
    (url, sent)
}

/// Forwards until the end, or so many bytes; then both ways are cut.
fn forward(mut from: TcpStream, mut to: TcpStream, limit: usize, counted: &AtomicUsize) {
    let (mut buffer, mut left) = (vec![0; 64 * 1024], limit);
    while left > 0 {
        let most = buffer.len().min(left);
        match from.read(&mut buffer[..most]) {
            Ok(0) | Err(_) => break,
            Ok(bytes) if to.write_all(&buffer[..bytes]).is_ok() => {
                left -= bytes;
                counted.fetch_add(bytes, Ordering::Relaxed);
            }
            Ok(_) => break,
        }
    }
    // Either may be closed already.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn a_push_goes_on_by_itself_over_a_new_connection() {
    let host = Host::start();
    let whole = large_command(8 * MIB);
    let file = host.file("large.wasm", &whole);
    let (url, sent) = proxy(&host, 6 * MIB);
    let pushed = run_with(&["component", "push", &file, "--host", &url], &host.data());
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    assert!(pushed.stderr.contains("trying again"), "{}", pushed.stderr);
    assert!(pushed.stderr.contains("it goes on there"), "{}", pushed.stderr);
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 11 * MIB, "{sent} bytes were sent of {}", whole.len());
    let again = host.push(&whole);
    assert!(again.code == 0 && again.stderr.contains("there already"), "{}", again.stderr);
}
