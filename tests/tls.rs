//! `inn serve` with TLS, as a process: its options, the address that it tells, new certificates while it works.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long things may take that take a moment.
const PATIENCE: Duration = Duration::from_secs(30);
/// Less than a handshake may take.
const PROMPT: Duration = Duration::from_secs(6);

/// Writes a new certificate of a new authority, and its key; the authority's, in PEM.
fn certify(folder: &Path) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    fs::write(folder.join("host.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(folder.join("host.key"), key.serialize_pem()).unwrap();
    authority
}

fn serve(folder: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inn"));
    command.current_dir(folder).args(["serve", "--data", "data"]).args(options);
    command.env("RUST_LOG", "warn").env("NO_COLOR", "1").env_remove("INN_DATABASE_URL").stdin(Stdio::null());
    command
}

/// What a host that doesn't start says, and its exit code.
fn refusal(options: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let output = serve(folder.path(), options).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A host that is killed when dropped.
struct Host {
    folder: TempDir,
    process: Child,
    authority: String,
}

impl Host {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = certify(folder.path());
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = serve(folder.path(), options).stderr(log).spawn().unwrap();
        let mut host = Self { folder, process, authority };
        host.until("it tells its address", |host| host.folder.path().join("data/address").is_file());
        host
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < PATIENCE, "it never came about that {what}: {}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn address(&self) -> String {
        fs::read_to_string(self.folder.path().join("data/address")).unwrap().trim().into()
    }

    fn connect(&self) -> TcpStream {
        let url = self.address();
        let stream = TcpStream::connect(url.split_once("://").unwrap().1).unwrap();
        stream.set_read_timeout(Some(PROMPT)).unwrap();
        stream
    }

    /// Whether a client of this authority gets so far that the host speaks HTTP/2.
    fn serves(&self, authority: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let session =
            ClientConnection::new(Arc::new(config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
        speaks_http2(&mut StreamOwned::new(session, self.connect()))
    }

    fn hang_up(&self) {
        let told = Command::new("kill").args(["-HUP", &self.process.id().to_string()]).status().unwrap();
        assert!(told.success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends the preface and empty SETTINGS; the host's first frame is SETTINGS too (type 4).
fn speaks_http2(stream: &mut (impl Read + Write)) -> bool {
    let mut head = [0; 9];
    let sent = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    sent.and_then(|()| stream.flush()).and_then(|()| stream.read_exact(&mut head)).is_ok() && head[3] == 4
}

const TLS: [&str; 4] = ["--tls-cert", "host.pem", "--tls-key", "host.key"];

#[test]
fn it_serves_who_knows_its_authority_and_takes_over_a_new_certificate() {
    let mut host = Host::start(&[&TLS[..], &["--listen", "0.0.0.0:0"]].concat());
    assert!(host.address().starts_with("https://127.0.0.1:"), "{}", host.address());
    assert!(host.log().contains("others than its owner can read the private key"), "{}", host.log());
    let old = host.authority.clone();
    assert!(host.serves(&old));
    let new = certify(host.folder.path());
    assert!(host.serves(&old) && !host.serves(&new), "it wasn't told");
    host.hang_up();
    host.until("it shows the new certificate", |host| host.serves(&new));
    assert!(!host.serves(&old));
    fs::write(host.folder.path().join("host.pem"), "nonsense").unwrap();
    host.hang_up();
    host.until("it says what is wrong", |host| host.log().contains("host.pem has no certificate"));
    assert!(host.serves(&new), "the last good one is still shown");
}

#[test]
fn plain_text_and_silence_hold_up_nobody() {
    let host = Host::start(&[&TLS[..], &["--listen", "127.0.0.1:0"]].concat());
    let _silent: Vec<TcpStream> = (0..30).map(|_| host.connect()).collect();
    let mut plain = host.connect();
    let begun = Instant::now();
    assert!(!speaks_http2(&mut plain), "it speaks TLS alone");
    assert!(host.serves(&host.authority));
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
}

#[test]
fn what_is_not_safe_is_refused_with_words() {
    let (code, said) = refusal(&["--listen", "0.0.0.0:0"]);
    assert!(
        code == Some(1) && said.contains("--tls-cert") && said.contains("--plain-text-beyond-loopback"),
        "{said}"
    );
    for (options, words) in [
        (&["--tls-cert", "host.pem"][..], "--tls-key"),
        (&["--tls-client-ca", "host.pem"], "--tls-cert"),
        (&["--oidc-issuer", "https://id.example.com"], "--oidc-audience"),
    ] {
        let (code, said) = refusal(&[options, &["--listen", "127.0.0.1:0"]].concat());
        assert!(code == Some(2) && said.contains(words), "{said}");
    }
    let (code, said) =
        refusal(&["--tls-cert", "missing.pem", "--tls-key", "host.key", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && said.contains("can't read missing.pem"), "{said}");
    let oidc = ["--oidc-issuer", "http://id.example.com", "--oidc-audience", "a", "--oidc-keys", "host.pem"];
    let (code, said) = refusal(&[&oidc[..], &["--listen", "127.0.0.1:0"]].concat());
    assert!(code == Some(1) && said.contains("it is no JWK set"), "{said}");
}

#[test]
fn plain_text_beyond_loopback_is_done_when_asked_for_and_warned_of() {
    let host = Host::start(&["--listen", "0.0.0.0:0", "--plain-text-beyond-loopback"]);
    assert!(host.address().starts_with("http://127.0.0.1:"), "{}", host.address());
    assert!(host.log().contains("anybody in between can read tokens"), "{}", host.log());
    assert!(speaks_http2(&mut host.connect()));
}
