//! The host's certificate, and whose client certificates it takes: read from files, and anew when they change.

use innkeeper_domain::limits::{TLS_FILE_BYTES_MAX, TLS_FILES_LOOK};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Where everything is, in PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The host's certificate, then those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose client certificates are taken; without them clients aren't asked for any.
    pub client_ca: Option<PathBuf>,
    /// The authorities' lists of certificates they have revoked. If there are any, each authority needs one that is
    /// not out of date.
    pub client_crl: Option<PathBuf>,
}

/// Why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {}: {why}", file.display())]
    Unreadable { file: PathBuf, why: io::Error },
    #[error("{} is no PEM file of what it should have: {why}", file.display())]
    NotPem { file: PathBuf, why: pem::Error },
    #[error("{} has no {what}", file.display())]
    Empty { file: PathBuf, what: &'static str },
    #[error("the certificate or its key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("{} has an authority that can't be used: {why}", file.display())]
    Authority { file: PathBuf, why: rustls::Error },
    #[error("client certificates can't be verified by these authorities and lists: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// TLS as the files say; while they can't be used, as they last said. Connections keep what they began with.
pub struct Tls {
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// What was last seen of the files: a digest, or what was wrong.
    seen: String,
}

impl Tls {
    /// Reads the files for the first time.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let read = Contents::read(&files)?;
        if read.key_is_open {
            tracing::warn!(
                file = %files.key.display(),
                "others than its owner can read the private key; `chmod 600` it"
            );
        }
        let state = State { config: Arc::new(read.config(&files)?), seen: read.digest() };
        Ok(Self { files, state: Mutex::new(state) })
    }

    /// For one handshake, by the certificates that are valid now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.state().config))
    }

    /// Looks at the files every ten seconds, and when told, until `stop`.
    pub async fn keep_fresh(self: Arc<Self>, told: Arc<Notify>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TLS_FILES_LOOK) => {}
                () = told.notified() => self.state().seen.clear(),
            }
            let own = Arc::clone(&self);
            if tokio::task::spawn_blocking(move || own.look()).await.is_err() {
                tracing::error!("looking at the TLS files has panicked; it goes on with the old ones");
            }
        }
    }

    /// Takes the files' contents over if they have changed and are good. What is wrong is said once.
    fn look(&self) {
        let read = Contents::read(&self.files);
        let seen = read.as_ref().map_or_else(ToString::to_string, Contents::digest);
        if self.state().seen == seen {
            return;
        }
        let config = read.and_then(|read| read.config(&self.files));
        let mut state = self.state();
        state.seen = seen;
        match config {
            Ok(config) => {
                state.config = Arc::new(config);
                tracing::info!("new connections use the TLS files as they are now");
            }
            Err(error) => {
                tracing::error!(%error, "the TLS files have changed and can't be used; the old ones are")
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files' bytes, of one moment.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    key_is_open: bool,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let optional = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        let (key, mode) = read(&files.key)?;
        Ok(Self {
            certificate: read(&files.certificate)?.0,
            key,
            key_is_open: mode & 0o044 != 0,
            client_ca: optional(&files.client_ca)?.map(|(bytes, _)| bytes),
            client_crl: optional(&files.client_crl)?.map(|(bytes, _)| bytes),
        })
    }

    fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for part in
            [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref(), self.client_crl.as_ref()]
        {
            let part = part.map(Vec::as_slice).unwrap_or_default();
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        format!("{:x}", hasher.finalize())
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(bytes), Some(file)) => {
                let mut verifier =
                    WebPkiClientVerifier::builder_with_provider(authorities(bytes, file)?.into(), provider)
                        .allow_unauthenticated();
                if let (Some(bytes), Some(file)) = (&self.client_crl, &files.client_crl) {
                    let lists =
                        all::<CertificateRevocationListDer<'_>>(bytes, file, "list of revoked certificates")?;
                    verifier = verifier.with_crls(lists).enforce_revocation_expiration();
                }
                builder.with_client_cert_verifier(verifier.build()?)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = all::<CertificateDer<'_>>(&self.certificate, &files.certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|why| match why {
            pem::Error::NoItemsFound => TlsError::Empty { file: files.key.clone(), what: "private key" },
            why => TlsError::NotPem { file: files.key.clone(), why },
        })?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session that is taken up again isn't verified anew: an expired or revoked client would come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn authorities(bytes: &[u8], file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in all::<CertificateDer<'_>>(bytes, file, "certificate")? {
        roots.add(certificate).map_err(|why| TlsError::Authority { file: file.into(), why })?;
    }
    Ok(roots)
}

/// Everything of a kind in a PEM file, of which there must be something.
fn all<T: PemObject>(bytes: &[u8], file: &Path, what: &'static str) -> Result<Vec<T>, TlsError> {
    let found: Result<Vec<T>, _> = T::pem_slice_iter(bytes).collect();
    let found = found.map_err(|why| TlsError::NotPem { file: file.into(), why })?;
    if found.is_empty() {
        return Err(TlsError::Empty { file: file.into(), what });
    }
    Ok(found)
}

/// A file's bytes, and its mode.
fn read(file: &Path) -> Result<(Vec<u8>, u32), TlsError> {
    let read = || {
        let opened = File::open(file)?;
        let mode = opened.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        opened.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > TLS_FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {TLS_FILE_BYTES_MAX} bytes")));
        }
        Ok((bytes, mode))
    };
    read().map_err(|why| TlsError::Unreadable { file: file.into(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::fs;

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.into()]).expect("a name");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    fn files(folder: &Path) -> TlsFiles {
        let (certificate, key) = pair("one.example");
        fs::write(folder.join("cert"), certificate).expect("a file");
        fs::write(folder.join("key"), key).expect("a file");
        TlsFiles {
            certificate: folder.join("cert"),
            key: folder.join("key"),
            client_ca: None,
            client_crl: None,
        }
    }

    #[test]
    fn a_bad_new_file_leaves_the_old_ones_in_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(folder.path());
        let tls = Tls::load(files.clone()).expect("good files");
        let first = Arc::clone(&tls.state().config);
        let is_first = || Arc::ptr_eq(&first, &tls.state().config);
        tls.look();
        assert!(is_first(), "nothing has changed");
        // As while they are being replaced: the certificate is new, and the key isn't.
        let (certificate, key) = pair("two.example");
        fs::write(&files.certificate, certificate).expect("a file");
        tls.look();
        assert!(is_first(), "a certificate without its key");
        fs::remove_file(&files.key).expect("it was there");
        tls.look();
        assert!(is_first(), "no key at all");
        fs::write(&files.key, key).expect("a file");
        tls.look();
        assert!(!is_first(), "both are new and fit");
    }

    #[test]
    fn what_cannot_be_used_is_said_in_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = files(folder.path());
        let said =
            |files: &TlsFiles| Tls::load(files.clone()).err().map(|e| e.to_string()).unwrap_or_default();
        let missing = TlsFiles { certificate: folder.path().join("missing"), ..good.clone() };
        assert!(said(&missing).contains("can't read") && said(&missing).contains("missing"));
        let swapped = TlsFiles { certificate: good.key.clone(), ..good.clone() };
        assert!(said(&swapped).ends_with("has no certificate"), "{}", said(&swapped));
        let swapped = TlsFiles { key: good.certificate.clone(), ..good.clone() };
        assert!(said(&swapped).ends_with("has no private key"), "{}", said(&swapped));
        let no_list = TlsFiles {
            client_ca: Some(good.certificate.clone()),
            client_crl: Some(good.certificate.clone()),
            ..good.clone()
        };
        assert!(said(&no_list).ends_with("has no list of revoked certificates"), "{}", said(&no_list));
        fs::write(folder.path().join("other"), pair("other.example").1).expect("a file");
        let other = TlsFiles { key: folder.path().join("other"), ..good };
        assert!(said(&other).contains("can't be used"), "{}", said(&other));
    }
}
