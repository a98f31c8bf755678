//! Connections to the database: where it is, TLS, limits of time, and a pool of them.

use super::row::from_postgres;
use crate::StoreError;
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use innkeeper_domain::limits::{DATABASE_IDLE_TIMEOUT, DATABASE_LOCK_TIMEOUT, DATABASE_TIMEOUT};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits for a connection that is free.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a database listens that was told nothing.
const PORT_DEFAULT: u16 = 5432;
/// How long a peer may say nothing before the connection counts as broken.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the database asks a host that says nothing whether it is still there. A host that lost power, or
/// its network, is gone after one more than [`PROBES`] of these, and what it held is free.
const PROBE: Duration = Duration::from_secs(2);
const PROBES: u32 = 3;

/// Where a database is: `postgres://USER:PASSWORD@HOST:PORT/NAME`.
///
/// A database beyond loopback is spoken with by TLS, and its certificate checked: against the roots that
/// browsers trust, or those in the file that the parameter `sslrootcert` names. `sslmode=disable` trusts the
/// network instead; `sslmode=require` asks for TLS on loopback too.
#[derive(Clone)]
pub struct DatabaseUrl {
    text: String,
    config: tokio_postgres::Config,
    roots: Option<String>,
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.config.get_user().unwrap_or_default())?;
        let ports = self.config.get_ports();
        for (at, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match host {
                Host::Tcp(name) if name.contains(':') => write!(f, "{comma}[{name}]")?,
                Host::Tcp(name) => write!(f, "{comma}{name}")?,
                Host::Unix(folder) => write!(f, "{comma}{}", folder.display())?,
            }
            write!(f, ":{}", ports.get(at).or(ports.first()).unwrap_or(&PORT_DEFAULT))?;
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

/// Without the password.
impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that doesn't say where a database is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no database's URL ({0}); expected postgres://USER:PASSWORD@HOST:PORT/NAME")]
pub struct DatabaseUrlError(String);

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;
    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError("it doesn't begin with postgres://".into()));
        }
        let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
        if place.matches('@').count() > 1 {
            // What is after the first may be the rest of the password, which would be shown as the host's or database's.
            return Err(DatabaseUrlError(
                "a second `@`: in a name or a password it is written %40, and `/` %2F".into(),
            ));
        }
        if parameters.split('&').any(|one| one.contains('@') && !one.starts_with("sslrootcert=")) {
            // What is before the `?` may be a part of the password.
            return Err(DatabaseUrlError(
                "an `@` after a `?`: in a name or a password `?` is written %3F, in a parameter `@` is written %40".into(),
            ));
        }
        let (mut roots, mut rest) = (None, Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslrootcert", file)) => roots = Some(file.to_string()),
                // The certificate is checked whenever there is TLS.
                Some(("sslmode", "verify-full" | "verify-ca")) => rest.push("sslmode=require"),
                _ => rest.push(parameter),
            }
        }
        let mode_given = rest.iter().any(|parameter| parameter.starts_with("sslmode="));
        let mut config: tokio_postgres::Config = format!("{place}?{}", rest.join("&"))
            .parse()
            .map_err(|e: tokio_postgres::Error| DatabaseUrlError(words(&e)))?;
        if config.get_user().is_none() {
            return Err(DatabaseUrlError("it names no user".into()));
        }
        if !mode_given {
            let near = config.get_hosts().iter().all(is_near);
            config.ssl_mode(if near && roots.is_none() { SslMode::Disable } else { SslMode::Require });
        }
        config.application_name("innkeeper");
        config.connect_timeout(CONNECT_TIMEOUT);
        config.keepalives_idle(SILENCE);
        config.tcp_user_timeout(SILENCE);
        Ok(Self { text: text.into(), config, roots })
    }
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// An error with what caused it.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    if words.contains("server does not support TLS") {
        words.push_str("; give it a certificate, or add ?sslmode=disable to the URL to trust the network");
    }
    words
}

impl DatabaseUrl {
    /// The URL as it was given, its password too.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parameters and the TLS that connections are made with.
    pub(super) fn parts(&self) -> Result<(tokio_postgres::Config, MakeRustlsConnect), StoreError> {
        let mut roots = RootCertStore::empty();
        match &self.roots {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(file) => {
                let unreadable = |e: &dyn std::fmt::Display| {
                    StoreError::Conflict(format!(
                        "the certificates in {file} (sslrootcert) can't be read: {e}"
                    ))
                };
                let certificates = CertificateDer::pem_file_iter(file).map_err(|e| unreadable(&e))?;
                for certificate in certificates {
                    let added = certificate.map_err(|e| unreadable(&e)).map(|c| roots.add(c));
                    added?.map_err(|e| unreadable(&e))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(|e| StoreError::Conflict(format!("TLS can't be set up: {e}")))?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        Ok((self.config.clone(), MakeRustlsConnect::new(tls)))
    }

    /// A pool of at most so many connections; it makes them when they are needed.
    pub(super) fn pool(&self, most: usize) -> Result<Pool, StoreError> {
        let (config, tls) = self.parts()?;
        let manager =
            Manager::from_config(config, tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        // A statement whose caller has gone is ended soon, so that given up connections don't pile up.
        let prepare = format!(
            "SET client_connection_check_interval = 500; SET statement_timeout = {statement}; SET lock_timeout = {lock};
             SET idle_in_transaction_session_timeout = {idle};
             SET tcp_keepalives_idle = {probe}; SET tcp_keepalives_interval = {probe};
             SET tcp_keepalives_count = {PROBES}; SET tcp_user_timeout = {gone};
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') = 'off'",
            statement = DATABASE_TIMEOUT.as_millis(),
            lock = DATABASE_LOCK_TIMEOUT.as_millis(),
            idle = DATABASE_IDLE_TIMEOUT.as_millis(),
            probe = PROBE.as_secs(),
            gone = (PROBE * (PROBES + 1)).as_millis(),
        );
        let prepare = Arc::new(prepare);
        let hook = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let prepare = Arc::clone(&prepare);
            Box::pin(async move { client.batch_execute(&prepare).await.map_err(HookError::Backend) })
        });
        let timeouts = Timeouts {
            wait: Some(WAIT_TIMEOUT),
            create: Some(CONNECT_TIMEOUT * 2),
            recycle: Some(CONNECT_TIMEOUT),
        };
        let pool = Pool::builder(manager)
            .max_size(most)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .post_create(hook)
            .build();
        pool.map_err(|e| StoreError::Conflict(format!("no connections can be made: {e}")))
    }
}

/// A connection of the pool.
pub(super) async fn connection(pool: &Pool) -> Result<Object, StoreError> {
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) => match from_postgres(error) {
            StoreError::Unavailable(why) => StoreError::Unavailable(why),
            other => StoreError::Unavailable(format!("no connection to the database: {other}")),
        },
        other => StoreError::Unavailable(format!("no connection to the database: {}", words(&other))),
    })
}

/// Whether what the database has committed is on its disk.
pub(super) async fn is_durable(pool: &Pool) -> Result<bool, StoreError> {
    let fsync = connection(pool).await?.query_one("SELECT current_setting('fsync') = 'on'", &[]).await?;
    Ok(fsync.try_get(0)?)
}

/// `Conflict` if connections share their sessions, as they do behind a pooler in transaction mode.
pub(super) async fn check_sessions(pool: &Pool) -> Result<(), StoreError> {
    let (one, two) = (connection(pool).await?, connection(pool).await?);
    one.batch_execute("SET innkeeper.session = 'one'").await?;
    two.batch_execute("SET innkeeper.session = 'two'").await?;
    let found = one.simple_query("SELECT current_setting('innkeeper.session', true)").await?;
    let is_own = found
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("one")));
    if is_own {
        Ok(())
    } else {
        Err(StoreError::Conflict(format!("connections share their sessions. {POOLER}")))
    }
}

/// What to do about a pooler.
pub(super) const POOLER: &str = "Is there a connection pooler in transaction mode in between? Innkeeper needs \
    prepared statements and LISTEN: let it connect directly, or pool by session";

/// A connection of the pool for a piece of work that may be cut off: only when it is given back is it fit for
/// the next. Dropped before, with a statement that may still run, it is closed, and the pool makes another.
pub(super) struct Lent(Option<Object>);

/// A connection of the pool that is to be given back.
pub(super) async fn lend(pool: &Pool) -> Result<Lent, StoreError> {
    Ok(Lent(Some(connection(pool).await?)))
}

impl Lent {
    /// The work is done, whether it succeeded or not.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Lent {
    type Target = Object;
    fn deref(&self) -> &Object {
        self.0.as_ref().expect("it is there until it is given back")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Object {
        self.0.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(unfinished) = self.0.take() {
            drop(Object::take(unfinished));
        }
    }
}

/// Runs the statements of one transaction and commits it. What got in the way of another transaction is run
/// again, so the statements must not use up what they are made from. A connection that doesn't answer in
/// time, or whose caller doesn't wait any more, is thrown away.
macro_rules! in_transaction {
    ($pool:expr, |$transaction:ident| $statements:expr) => {{
        let mut tries = 0;
        loop {
            tries += 1;
            let mut connection = $crate::postgres::connection::lend($pool).await?;
            let attempt = async {
                let transaction = connection.transaction().await?;
                let $transaction = &transaction;
                let value = $statements;
                transaction.commit().await?;
                Ok::<_, $crate::StoreError>(value)
            };
            let limit = innkeeper_domain::limits::DATABASE_TIMEOUT * 2;
            let Ok(result) = tokio::time::timeout(limit, attempt).await else {
                break Err($crate::postgres::row::silent());
            };
            connection.give_back();
            match result {
                Err(error) if $crate::postgres::row::is_in_the_way(&error) && tries < 5 => {
                    tracing::debug!(%error, "a transaction is run again");
                }
                result => break result,
            }
        }
    }};
}

/// Runs statements that only read, each for itself. Its connection fares as that of [`in_transaction`].
macro_rules! reading {
    ($pool:expr, |$connection:ident| $statements:expr) => {{
        let connection = $crate::postgres::connection::lend($pool).await?;
        let reading = async {
            let $connection = &*connection;
            Ok::<_, $crate::StoreError>($statements)
        };
        let limit = innkeeper_domain::limits::DATABASE_TIMEOUT * 2;
        match tokio::time::timeout(limit, reading).await {
            Ok(result) => {
                connection.give_back();
                result
            }
            Err(_) => Err($crate::postgres::row::silent()),
        }
    }};
}

pub(super) use {in_transaction, reading};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_for_what_is_far() {
        for (url, mode) in [
            ("postgres://a@127.0.0.1/b", SslMode::Disable),
            ("postgres://a@localhost:5433/b", SslMode::Disable),
            ("postgres://a@db.example.com/b", SslMode::Require),
            ("postgres://a@db.example.com/b?sslmode=disable", SslMode::Disable),
            ("postgresql://a@localhost/b?sslmode=verify-full&connect_timeout=3", SslMode::Require),
        ] {
            assert_eq!(url.parse::<DatabaseUrl>().unwrap().config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn mistakes_have_words_and_passwords_stay_hidden() {
        for (url, expected) in [
            ("mysql://a@b/c", "begin with postgres://"),
            ("postgres://b/c", "no user"),
            ("postgres://a@b/c?nonsense=1", "nonsense"),
            ("postgres://a:top@secret@b/c", "%40"),
            ("postgres://a:top@sec/secret@b/c", "%40"),
            ("postgres://a:secret?top@b/c", "%3F"),
            ("postgres://a:top@secret?top@b/c", "%3F"),
        ] {
            let error = url.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        let url: DatabaseUrl = "postgres://a:secret@b/c".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "postgres://a@b:5432/c postgres://a@b:5432/c");
    }
}
