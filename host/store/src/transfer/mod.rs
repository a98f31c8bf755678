//! Taking a whole store elsewhere: into a backup's file, out of one, or from one store to another.
//!
//! A source gives every row of every table, of one moment, in parts; a target takes them, and keeps all or
//! nothing. Both kinds of stores are both, and so is a file ([`file`]). They never know each other: a table
//! has the same name and the same columns everywhere, and what type a column has is the business of the
//! store that has it. What isn't taken along is what can be made again (compiled components), and what isn't
//! in the store (keys, token files).

mod file;
mod part;
mod record;

#[cfg(test)]
pub(crate) use part::way;
pub(crate) use part::{
    Batch, COMPONENT_BYTES, COMPONENT_BYTES_COLUMNS, Part, Parts, Row, Sender, Table, Value, component, unfit,
};
pub use part::{Header, Seal, Seen, Summary};

use crate::postgres::{self, DatabaseUrl, DatabaseUrlError};
use crate::{StoreError, sqlite};
use innkeeper_domain::Timestamp;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::str::FromStr;

/// Every table that is taken along, each after those that its rows refer to. A source of an older schema
/// hasn't all of them.
pub const TABLES: [&str; 27] = [
    COMPONENT_BYTES,
    "tenant",
    "token",
    "secret",
    "holiday_calendar",
    "audit",
    "usage",
    "stored",
    "start_rate",
    "begin_rate",
    "component",
    "task",
    "task_revision",
    "trigger",
    "skip",
    "backfill",
    "run",
    "gate",
    "attempt",
    "run_log",
    "event_head",
    "event",
    "host",
    "host_told",
    "fleet_pause",
    "upload",
    "upload_chunk",
];

/// The components whose bytes are needed: as the drivers decide when one is deleted.
pub(crate) const NEEDED_COMPONENTS: &str = "SELECT digest FROM component UNION SELECT r.component
    FROM task_revision r JOIN task t ON t.id = r.task_id WHERE t.unfinished > 0";

/// Where a store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// An embedded store's folder.
    Folder(PathBuf),
    Database(Box<DatabaseUrl>),
}

impl FromStr for Place {
    type Err = DatabaseUrlError;
    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if scheme.is_some() {
            text.parse().map(|url| Self::Database(Box::new(url)))
        } else {
            Ok(Self::Folder(text.into()))
        }
    }
}

/// Without a password.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Database(url) => url.fmt(f),
        }
    }
}

/// Writes a backup of a store, which may be in use meanwhile: it is of one moment after the call. On return
/// the writer has been flushed; a file isn't on disk yet. `NotFound` if there is no store.
pub async fn backup(
    from: &Place,
    now: Timestamp,
    to: impl Write + Send + 'static,
    seen: Seen,
) -> Result<Summary, StoreError> {
    let (sender, parts) = part::way(seen);
    let write = blocking(move || file::write(parts, to));
    joined(tokio::join!(from.export(now, sender), write))
}

/// Makes a store of a backup, all or nothing of it, in an empty folder or database, and brings it to this
/// version's schema. `Conflict` if there is a store, or the backup is of a newer schema; `Invalid` if it is
/// none, is damaged or was cut off.
pub async fn restore(
    from: impl Read + Send + 'static,
    to: &Place,
    seen: Seen,
) -> Result<Summary, StoreError> {
    let (sender, parts) = part::way(seen);
    let read = blocking(move || file::read(from, &sender));
    joined(tokio::join!(read, to.import(parts))).map_err(|error| match error {
        // Of the backup's rows, which aren't this host's: what is wrong with the target has other words.
        StoreError::Corrupt(words) => unfit(&words),
        error => error,
    })
}

/// Moves a store into an empty folder or database. No host can use it meanwhile (`Conflict` if one does),
/// nor afterwards, when it is marked as moved; it stays as it is otherwise. The mark is there from the
/// beginning, so that whenever this is cut off, no two hosts take themselves for the store's; if it fails, it
/// is taken away.
pub async fn move_store(from: &Place, to: &Place, now: Timestamp, seen: Seen) -> Result<Summary, StoreError> {
    let _lock = match from {
        Place::Folder(folder) => Some(sqlite::transfer::hold(folder)?),
        Place::Database(_) => None,
    };
    let mark = format!("to {to} at {now:.0}");
    match from {
        Place::Folder(folder) => sqlite::moved::mark(folder, &mark)?,
        Place::Database(url) => postgres::moved::mark(url, &mark).await?,
    }
    let (sender, parts) = part::way(seen);
    let moved = joined(tokio::join!(from.export(now, sender), to.import(parts)));
    let Err(error) = moved else { return moved };
    let unmarked = match from {
        Place::Folder(folder) => sqlite::moved::unmark(folder),
        Place::Database(url) => postgres::moved::unmark(url).await,
    };
    match unmarked {
        Ok(()) => Err(error),
        Err(again) => Err(StoreError::Conflict(format!(
            "{error}; it wasn't moved, but the mark that it was stays ({again}): hosts will tell how to undo it"
        ))),
    }
}

impl Place {
    async fn export(&self, now: Timestamp, to: Sender) -> Result<(), StoreError> {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                blocking(move || sqlite::transfer::export(&folder, now, &to)).await
            }
            Self::Database(url) => postgres::transfer::export(url, now, &to).await,
        }
    }

    async fn import(&self, parts: Parts) -> Result<Summary, StoreError> {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                blocking(move || sqlite::transfer::import(&folder, parts)).await
            }
            Self::Database(url) => postgres::transfer::import(url, parts).await,
        }
    }
}

/// Who failed first has the word.
fn joined(ends: (Result<(), StoreError>, Result<Summary, StoreError>)) -> Result<Summary, StoreError> {
    match ends {
        (Err(source), Err(target)) if target == part::given_up() => Err(source),
        (Ok(()), target) => target,
        (Err(source), Ok(_)) => Err(source),
        (Err(_), target) => target,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Unavailable(e.to_string()))?
}
