//! The options of `inn serve` about how the host is reached, and whose word it takes for who calls.

use super::Usage;
use crate::host::Transport;
use crate::oidc::{KeySource, OidcConfig};
use innkeeper_api::listen::TlsFiles;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Speak TLS, with this certificate and those between it and its root (PEM). This file, and the others here, are
    /// read anew when they change
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Take client certificates that these authorities have issued (PEM); clients without one need a token
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,

    /// Refuse client certificates that the authorities have revoked: their lists (PEM), one of each, none out of date
    #[arg(long, value_name = "FILE", requires = "tls_client_ca")]
    tls_client_crl: Option<PathBuf>,

    /// Listen beyond loopback without TLS: anybody in between can read tokens, and use them
    #[arg(long, conflicts_with = "tls_cert")]
    plain_text_beyond_loopback: bool,

    /// Take the tokens of this identity provider (OpenID Connect), written as in them
    #[arg(long, value_name = "URL", requires = "oidc_audience")]
    oidc_issuer: Option<String>,

    /// Of its tokens, take those that are meant for this audience
    #[arg(long, value_name = "NAME", requires = "oidc_issuer")]
    oidc_audience: Option<String>,

    /// Its keys (a JWK set), instead of asking the provider for them
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    oidc_keys: Option<PathBuf>,

    /// Authorities that the provider's own certificate may be of (PEM), beside those that browsers trust
    #[arg(long, value_name = "FILE", requires = "oidc_issuer", conflicts_with = "oidc_keys")]
    oidc_ca: Option<PathBuf>,
}

impl AccessArgs {
    pub fn transport(&self) -> Transport {
        match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => Transport::Tls(TlsFiles {
                certificate,
                key,
                client_ca: self.tls_client_ca.clone(),
                client_crl: self.tls_client_crl.clone(),
            }),
            _ if self.plain_text_beyond_loopback => Transport::PlainBeyondLoopback,
            _ => Transport::Plain,
        }
    }

    pub fn oidc(&self) -> Result<Option<OidcConfig>, Usage> {
        let (Some(issuer), Some(audience)) = (&self.oidc_issuer, &self.oidc_audience) else {
            return Ok(None);
        };
        if issuer.is_empty() || audience.is_empty() {
            return Err(Usage("--oidc-issuer and --oidc-audience can't be empty".into()));
        }
        let keys = match &self.oidc_keys {
            Some(file) => KeySource::File(file.clone()),
            None => KeySource::Discovered { authorities: self.oidc_ca.clone() },
        };
        Ok(Some(OidcConfig { issuer: issuer.clone(), audience: audience.clone(), keys }))
    }
}
