//! The identity provider: gets its keys, keeps them fresh, and asks `innkeeper_api::oidc` about tokens.

use crate::fetch::Fetcher;
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use http::Uri;
use innkeeper_api::oidc::{Expected, Keys, Unverified};
use innkeeper_api::peer::{Identity, IdentityError};
use innkeeper_domain::limits::{
    IDENTITY_CHECKS_MAX, IDENTITY_DOCUMENT_BYTES_MAX, IDENTITY_FETCH_INTERVAL, IDENTITY_FETCH_PAUSE,
    IDENTITY_FETCH_TIMEOUT, IDENTITY_KEYS_KEPT, TLS_FILES_LOOK,
};
use innkeeper_domain::time::Now;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Whose tokens are taken.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// Its URL, as it is in its tokens.
    pub issuer: String,
    pub audience: String,
    pub keys: KeySource,
}

/// Where its keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// Where the issuer says, at `ISSUER/.well-known/openid-configuration`; `authorities` is a PEM file of roots
    /// beside those that browsers trust.
    Discovered { authorities: Option<PathBuf> },
    /// A JWK set in a file.
    File(PathBuf),
}

/// An identity provider, with its keys.
pub struct Oidc {
    expected: Expected,
    source: Source,
    now: Now,
    /// What was fetched last, and how often it was tried.
    fetched: watch::Sender<Fetched>,
    /// Says that a token names a key that isn't known.
    wanted: Notify,
    checks: Semaphore,
    /// What was wrong the last time: it is said once.
    problem: Mutex<String>,
}

enum Source {
    Discovered(Uri, Fetcher),
    File(PathBuf),
}

#[derive(Clone, Default)]
struct Fetched {
    keys: Arc<Keys>,
    /// When they were fetched, if ever.
    at: Option<Instant>,
    /// When it was tried last, well or ill.
    tried: Option<Instant>,
}

impl Fetched {
    fn may_be_fetched(&self) -> bool {
        self.tried.is_none_or(|tried| tried.elapsed() >= IDENTITY_FETCH_PAUSE)
    }
}

/// What is taken of an issuer's description.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

impl Oidc {
    /// Fetches nothing yet; a file of keys is read, and must be good.
    pub async fn new(config: OidcConfig, now: Now) -> Result<Self> {
        let source = match config.keys {
            KeySource::File(file) => Source::File(file),
            KeySource::Discovered { authorities } => {
                let at = format!("{}/.well-known/openid-configuration", config.issuer.trim_end_matches('/'));
                Source::Discovered(url(&at)?, Fetcher::new(authorities.as_deref())?)
            }
        };
        let oidc = Self {
            expected: Expected { issuer: config.issuer, audience: config.audience },
            source,
            now,
            fetched: watch::Sender::default(),
            wanted: Notify::new(),
            checks: Semaphore::new(IDENTITY_CHECKS_MAX),
            problem: Mutex::default(),
        };
        if matches!(oidc.source, Source::File(_)) {
            let (keys, at) = (Arc::new(oidc.fetch().await?), Some(Instant::now()));
            oidc.fetched.send_replace(Fetched { keys, at, tried: at });
        }
        Ok(oidc)
    }

    /// Keeps the keys fresh until `stop`; looks also when `told`.
    pub async fn keep_fresh(self: Arc<Self>, told: Arc<Notify>, stop: CancellationToken) {
        loop {
            let before = self.fetched.borrow().clone();
            let pause = match &self.source {
                Source::File(_) => TLS_FILES_LOOK,
                Source::Discovered(..) if before.at.is_some() && before.at == before.tried => {
                    IDENTITY_FETCH_INTERVAL
                }
                Source::Discovered(..) => IDENTITY_FETCH_PAUSE,
            };
            // Not at once if it was only just tried, nor when wanted: that was asked before it was known.
            if before.tried.is_some() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause) => {}
                    () = told.notified() => {}
                    () = self.wanted.notified() => if !before.may_be_fetched() { continue },
                }
            }
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.fetch() => fetched,
            };
            let tried = Some(Instant::now());
            match fetched {
                Ok(keys) => {
                    if !self.said(String::new()) || before.at.is_none() {
                        tracing::info!(
                            issuer = self.expected.issuer,
                            keys = keys.count(),
                            "the issuer's keys are known"
                        );
                    }
                    self.fetched.send_replace(Fetched { keys: Arc::new(keys), at: tried, tried });
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if !self.said(error.clone()) {
                        tracing::warn!(
                            issuer = self.expected.issuer,
                            error,
                            "the issuer's keys can't be had; those that are known are used for a day"
                        );
                    }
                    self.fetched.send_replace(Fetched { tried, ..before });
                }
            }
        }
    }

    /// Whether this is what was wrong the last time too.
    fn said(&self, problem: String) -> bool {
        let mut last = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let same = *last == problem;
        *last = problem;
        same
    }

    async fn fetch(&self) -> Result<Keys> {
        let (bytes, from) = match &self.source {
            Source::File(file) => (read(file).await, file.display().to_string()),
            Source::Discovered(at, fetcher) => {
                let description: Description = serde_json::from_slice(&fetcher.get(at).await?)
                    .with_context(|| format!("{at} doesn't describe an identity provider"))?;
                ensure!(
                    description.issuer == self.expected.issuer,
                    "{at} describes the issuer `{}`, not `{}`; --oidc-issuer must be so to the letter",
                    description.issuer,
                    self.expected.issuer
                );
                let keys = url(&description.jwks_uri)?;
                ensure!(
                    at.scheme() != Some(&http::uri::Scheme::HTTPS) || keys.scheme() == at.scheme(),
                    "{at} has its keys at {keys}, which isn't https"
                );
                (fetcher.get(&keys).await.map(Into::into), keys.to_string())
            }
        };
        Keys::parse(&bytes?).map_err(|why| anyhow::anyhow!("{from}: {why}"))
    }

    /// The keys, and among them the one that is named, if it can be had.
    async fn keys(&self, id: Option<&str>) -> Result<Arc<Keys>, IdentityError> {
        let mut changes = self.fetched.subscribe();
        let known = |fetched: &Fetched| {
            let fresh = fetched.at.is_some_and(|at| at.elapsed() < IDENTITY_KEYS_KEPT);
            (fresh && id.is_none_or(|id| fetched.keys.has(id))).then(|| Arc::clone(&fetched.keys))
        };
        let now = changes.borrow_and_update().clone();
        if let Some(keys) = known(&now) {
            return Ok(keys);
        }
        if now.may_be_fetched() {
            self.wanted.notify_one();
            // What comes of it is looked at below.
            let _ = timeout(2 * IDENTITY_FETCH_TIMEOUT, changes.changed()).await;
        }
        let now = changes.borrow_and_update().clone();
        known(&now).ok_or_else(|| {
            // Its keys are those that it has: they were had when it was last tried, and not long ago.
            if now.at.is_some() && now.at == now.tried {
                IdentityError::Bad("the token is signed with a key that its issuer doesn't have".into())
            } else {
                IdentityError::Unavailable("the issuer's keys can't be had; the host's log says why".into())
            }
        })
    }
}

#[async_trait]
impl Identity for Oidc {
    fn issuer(&self) -> &str {
        &self.expected.issuer
    }

    async fn subject(&self, token: &str) -> Result<String, IdentityError> {
        let key = Unverified::read(token).map_err(IdentityError::Bad)?.key().map(ToString::to_string);
        let keys = self.keys(key.as_deref()).await?;
        // Strangers make this work: a few at a time, beside what else the host does.
        let _permit =
            self.checks.acquire().await.map_err(|_| IdentityError::Unavailable("the host stops".into()))?;
        let (token, expected, now) = (token.to_string(), self.expected.clone(), (self.now)());
        let checked =
            tokio::task::spawn_blocking(move || Unverified::read(&token)?.subject(&keys, &expected, now));
        let checked =
            checked.await.map_err(|_| IdentityError::Unavailable("checking it has failed".into()))?;
        checked.map_err(IdentityError::Bad)
    }
}

async fn read(file: &Path) -> Result<Vec<u8>> {
    let read = async {
        let opened = tokio::fs::File::open(file).await?;
        let mut bytes = Vec::new();
        opened.take(IDENTITY_DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
        ensure!(
            bytes.len() <= IDENTITY_DOCUMENT_BYTES_MAX,
            "it has more than {IDENTITY_DOCUMENT_BYTES_MAX} bytes"
        );
        Ok(bytes)
    };
    read.await.with_context(|| format!("can't read the issuer's keys from {}", file.display()))
}

/// A URL that can be fetched.
fn url(text: &str) -> Result<Uri> {
    let url: Uri = text.parse().with_context(|| format!("`{text}` is no URL"))?;
    match url.scheme_str() {
        Some("https" | "http") if url.authority().is_some_and(|to| !to.as_str().contains('@')) => Ok(url),
        _ => bail!("`{text}` is no URL that begins with https://"),
    }
}

#[cfg(test)]
mod tests;
