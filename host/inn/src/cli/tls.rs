//! TLS of the client: whom it trusts, what it shows, and what went wrong in words.

use super::Usage;
use anyhow::{Context, Result};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Whom the client trusts, and the certificate that it shows.
#[derive(Debug, Clone)]
pub struct Trust(ClientTlsConfig);

impl Trust {
    /// Reads the files that are named. Without a CA of one's own, those that browsers trust are trusted.
    pub fn read(ca: Option<&Path>, cert: Option<&(PathBuf, PathBuf)>) -> Result<Self> {
        let config = match ca {
            Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(
                ca,
                "CERTIFICATE",
                "certificate of a CA",
            )?)),
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        Ok(Self(match cert {
            Some((cert, key)) => {
                let cert = pem(cert, "CERTIFICATE", "certificate")?;
                config.identity(Identity::from_pem(cert, pem(key, "PRIVATE KEY", "private key")?))
            }
            None => config,
        }))
    }

    pub fn config(&self) -> ClientTlsConfig {
        self.0.clone()
    }
}

/// A PEM file that has what it should. Otherwise it would be taken for an empty one.
fn pem(path: &Path, label: &str, what: &str) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("can't read the {what} {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{label}-----"))) {
        return Ok(bytes);
    }
    Err(Usage(format!("{} has no {what} in PEM (`-----BEGIN {label}-----`)", path.display())).into())
}

/// What is likely wrong with TLS, and what to do, of the text of an error's deepest cause.
pub fn advice(cause: &str) -> Option<&'static str> {
    const KNOWN: &[(&str, &str)] = &[
        ("CertificateExpired", "the certificate that was shown is over (--cert)"),
        (
            "UnknownIssuer",
            "its certificate is of an issuer that isn't known here; name the issuer's with --ca FILE",
        ),
        (
            "BadSignature",
            "its certificate isn't of the issuer that it names; give the right one with --ca FILE",
        ),
        (
            "CaUsedAsEndEntity",
            "its certificate is a CA's own, which can't be a host's; give it one of its own",
        ),
        ("not valid for name", "its certificate is for other names; use one of those in the URL"),
        ("NotValidForName", "its certificate is for other names; use one of those in the URL"),
        ("certificate expired", "its certificate is over; the host needs a new one"),
        ("Expired", "its certificate is over; the host needs a new one"),
        ("InvalidContentType", "it doesn't speak TLS there; use http:// if that is so meant"),
        ("frame with invalid size", "it seems to speak TLS there; use https://"),
        ("CertificateRequired", "the host wants to see a certificate (--cert, --key)"),
        ("UnknownCA", "the host doesn't trust the issuer of the certificate that was shown (--cert)"),
        ("BadCertificate", "the host doesn't take the certificate that was shown (--cert)"),
        ("CertificateUnknown", "the host doesn't take the certificate that was shown (--cert)"),
        ("KeyMismatch", "certificate and key don't go together (--cert, --key)"),
    ];
    KNOWN.iter().find(|(sign, _)| cause.contains(sign)).map(|(_, advice)| *advice)
}

/// The text of what is at the bottom of an error.
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_what_they_should_have_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let cert = file("cert", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
        let key = file("key", "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n");
        let none = file("none", "nothing\n");
        assert!(Trust::read(Some(&cert), Some(&(cert.clone(), key.clone()))).is_ok());
        assert!(Trust::read(Some(&none), None).unwrap_err().is::<Usage>());
        assert!(Trust::read(None, Some(&(key, cert))).unwrap_err().is::<Usage>());
        assert!(Trust::read(Some(Path::new("/no/such/file")), None).is_err());
    }

    #[test]
    fn who_is_not_known_is_told_apart_from_who_expects_more() {
        let of = |cause: &str| advice(cause).unwrap_or_default();
        assert!(of("invalid peer certificate: UnknownIssuer").contains("--ca"));
        assert!(of("received corrupt message of type InvalidContentType").contains("http://"));
        assert!(of("received fatal alert: CertificateRequired").contains("--cert"));
        assert_eq!(advice("connection refused"), None);
    }
}
