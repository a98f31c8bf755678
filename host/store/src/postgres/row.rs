//! Between rows and the domain's types.

use super::connection::{POOLER, words};
use crate::StoreError;
pub(super) use crate::columns::{
    after_name, bad_token, in_states, labels, limit, micros, of_kinds, paged, signed, unsigned,
};
use deadpool_postgres::GenericClient;
use innkeeper_domain::Timestamp;
use innkeeper_domain::time::{from_micros, to_micros};
use serde::{Serialize, de::DeserializeOwned};
use std::borrow::Cow;
use std::error::Error;
use std::str::FromStr;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// What a transaction is answered with that got in the way of another.
const IN_THE_WAY: &str = "it got in the way of another transaction; try again";

/// What to do about a right that is missing.
const PRIVILEGES: &str = "the user that Innkeeper connects as must own its tables and may create more of them; grant it \
    that (GRANT USAGE, CREATE ON SCHEMA public TO the user), or make it the database's owner";

/// How that begins which waited too long for a lock, or took too long.
const TOO_LONG: &str = "it took too long";

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        from_postgres(error)
    }
}

pub(super) fn from_postgres(error: tokio_postgres::Error) -> StoreError {
    let Some(database) = error.as_db_error() else {
        // A value that can't be read is the data's fault, everything else the connection's.
        let words = words(&error);
        let unreadable = words.starts_with("error deserializing");
        return if unreadable { StoreError::Corrupt(words) } else { StoreError::Unavailable(words) };
    };
    let words = format!("the database says: {}", database.message());
    match database.code() {
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
            StoreError::Unavailable(IN_THE_WAY.into())
        }
        &SqlState::DISK_FULL => StoreError::Unavailable("the database's disk is full".into()),
        &SqlState::DUPLICATE_PSTATEMENT | &SqlState::INVALID_SQL_STATEMENT_NAME => {
            StoreError::Unavailable(format!("{words}. {POOLER}"))
        }
        &SqlState::LOCK_NOT_AVAILABLE | &SqlState::QUERY_CANCELED => too_long(&words),
        &SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Unavailable(format!("{words}; {PRIVILEGES}")),
        &SqlState::READ_ONLY_SQL_TRANSACTION | &SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => {
            StoreError::Unavailable(words)
        }
        // Connections, authorization, resources, limits, an operator's intervention, a failing system.
        code if ["08", "28", "53", "54", "57", "58"].iter().any(|class| code.code().starts_with(class)) => {
            StoreError::Unavailable(words)
        }
        // Integrity: somebody was faster.
        code if code.code().starts_with("23") => StoreError::Conflict(words),
        _ => StoreError::Corrupt(words),
    }
}

/// Whether running the transaction again may help at once.
pub(super) fn is_in_the_way(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(why) if why == IN_THE_WAY)
}

pub(super) fn too_long(words: &str) -> StoreError {
    StoreError::Unavailable(format!("{TOO_LONG}; {words}"))
}

/// Whether the database is there, but something else is blocked, or there was too much to do at once.
pub(super) fn is_too_long(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(why) if why.starts_with(TOO_LONG))
}

/// The database has said nothing for too long.
pub(super) fn silent() -> StoreError {
    StoreError::Unavailable("the database doesn't answer".into())
}

type SqlError = Box<dyn Error + Sync + Send>;

/// An instant as its microseconds.
#[derive(Debug)]
pub(super) struct At(pub Timestamp);

impl<'a> FromSql<'a> for At {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        i64::from_sql(ty, raw).map(|micros| Self(from_micros(micros)))
    }

    fn accepts(ty: &Type) -> bool {
        <i64 as FromSql>::accepts(ty)
    }
}

impl ToSql for At {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        to_micros(self.0).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <i64 as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// A value with a word for it, as that word.
pub(super) struct Word<T>(pub T);

impl<'a, T: FromStr> FromSql<'a> for Word<T> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        let text = <&str>::from_sql(ty, raw)?;
        text.parse().map(Self).map_err(|_| format!("`{text}` is unknown").into())
    }

    fn accepts(ty: &Type) -> bool {
        <&str as FromSql>::accepts(ty)
    }
}

/// A value as JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<'a, T: DeserializeOwned> FromSql<'a> for Json<T> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        Ok(Self(serde_json::from_str(<&str>::from_sql(ty, raw)?)?))
    }

    fn accepts(ty: &Type) -> bool {
        <&str as FromSql>::accepts(ty)
    }
}

impl<T: Serialize + std::fmt::Debug> ToSql for Json<T> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        serde_json::to_string(&self.0)?.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <String as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// A number that is small by contract.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small(pub u32);

impl<'a> FromSql<'a> for Small {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        Ok(Self(i64::from_sql(ty, raw)?.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        <i64 as FromSql>::accepts(ty)
    }
}

impl ToSql for Small {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        i64::from(self.0).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <i64 as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// Text from outside. PostgreSQL's has no NUL.
pub(super) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A digest, from its bytes.
pub(super) fn digest(bytes: &[u8]) -> Result<innkeeper_domain::component::Digest, StoreError> {
    let bytes = bytes.try_into();
    bytes
        .map(innkeeper_domain::component::Digest)
        .map_err(|_| StoreError::Corrupt("a digest has 32 bytes".into()))
}

pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// All rows of a query, which is prepared once for each connection.
pub(super) async fn rows(
    c: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<Row>, StoreError> {
    let statement = c.prepare_cached(sql).await?;
    Ok(c.query(&statement, parameters).await?)
}

/// The first row, if there is one.
pub(super) async fn row(
    c: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Option<Row>, StoreError> {
    Ok(rows(c, sql, parameters).await?.into_iter().next())
}

/// Runs a statement, and says how many rows it changed.
pub(super) async fn execute(
    c: &impl GenericClient,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<u64, StoreError> {
    let statement = c.prepare_cached(sql).await?;
    Ok(c.execute(&statement, parameters).await?)
}
