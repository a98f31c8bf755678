//! What flows from a source to a target, in parts, and the rules that every flow keeps.

use super::TABLES;
use crate::StoreError;
use crate::words::damaged;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::limits::{BACKUP_BATCH_BYTES, BACKUP_BATCH_ROWS};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

/// The table of components' bytes. The embedded store keeps them as files, but they flow as rows all the same.
pub(crate) const COMPONENT_BYTES: &str = "component_bytes";
/// Its columns.
pub(crate) const COMPONENT_BYTES_COLUMNS: [&str; 2] = ["bytes", "digest"];

/// What comes first: of which store this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the schema that the rows are of.
    pub schema: usize,
    pub created_at: Timestamp,
    /// Of the Innkeeper that made it.
    pub version: String,
}

impl Header {
    pub(crate) fn new(schema: usize, created_at: Timestamp) -> Self {
        Self { schema, created_at, version: env!("CARGO_PKG_VERSION").into() }
    }

    /// `Conflict` unless this Innkeeper knows the schema.
    pub(crate) fn check(&self, known: usize) -> Result<(), StoreError> {
        if (1..=known).contains(&self.schema) {
            return Ok(());
        }
        Err(StoreError::Conflict(format!(
            "its schema has version {}, of Innkeeper {}, and this Innkeeper knows versions up to {known}; use the \
             newer one",
            self.schema, self.version
        )))
    }
}

/// Whose rows follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub table: String,
    pub columns: Vec<String>,
}

/// A value in a row. What it is in the target's database, the type of the target's column says: an id is
/// sixteen bytes here, true is 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Null | Self::Int(_) => 0,
                Self::Text(text) => text.len(),
                Self::Blob(bytes) => bytes.len(),
            }
    }
}

pub(crate) type Row = Vec<Value>;

/// What a file is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: [u8; 32],
}

#[derive(Debug)]
pub(crate) enum Part {
    Header(Header),
    Table(Table),
    /// Of the last table.
    Rows(Vec<Row>),
    /// That was all: what ends without it was cut off.
    End(Option<Seal>),
}

/// Gathers rows, so that a part has many small ones, or a large one.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    rows: Vec<Row>,
    bytes: usize,
}

impl Batch {
    /// Takes a row; gives a part when it is full.
    pub fn push(&mut self, row: Row) -> Option<Part> {
        self.bytes += row.iter().map(Value::bytes).sum::<usize>();
        self.rows.push(row);
        let full = self.bytes >= BACKUP_BATCH_BYTES || self.rows.len() >= BACKUP_BATCH_ROWS;
        if full { self.rest() } else { None }
    }

    /// What is left.
    pub fn rest(&mut self) -> Option<Part> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        (!rows.is_empty()).then_some(Part::Rows(rows))
    }
}

/// Where a source puts its parts. It waits while the target is busy, so that only a few are in memory.
pub(crate) struct Sender(mpsc::Sender<Part>);

impl Sender {
    pub async fn send(&self, part: impl Into<Option<Part>>) -> Result<(), StoreError> {
        match part.into() {
            Some(part) => self.0.send(part).await.map_err(|_| stopped()),
            None => Ok(()),
        }
    }

    /// The same, on a thread that may wait.
    pub fn send_blocking(&self, part: impl Into<Option<Part>>) -> Result<(), StoreError> {
        match part.into() {
            Some(part) => self.0.blocking_send(part).map_err(|_| stopped()),
            None => Ok(()),
        }
    }
}

/// The target takes no more; its own error says why.
fn stopped() -> StoreError {
    StoreError::Unavailable("nobody takes the rows any more".into())
}

/// The source gave up; its own error says why.
pub(super) fn given_up() -> StoreError {
    StoreError::Unavailable("nobody gives rows any more".into())
}

/// Told how many rows have passed.
pub type Seen = Box<dyn FnMut(u64) + Send>;

/// What a transfer was of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub header: Header,
    /// Rows of each table, in the order of the tables.
    pub rows: Vec<(String, u64)>,
    /// Of the file, if there is one.
    pub seal: Option<Seal>,
}

/// Where a target takes its parts from: in a good order, and every row whole.
pub(crate) struct Parts {
    from: mpsc::Receiver<Part>,
    seen: Seen,
    header: Option<Header>,
    columns: usize,
    rows: Vec<(String, u64)>,
    total: u64,
    seal: Option<Seal>,
}

/// A way from a source to a target.
pub(crate) fn way(seen: Seen) -> (Sender, Parts) {
    let (sender, from) = mpsc::channel(1);
    let parts = Parts { from, seen, header: None, columns: 0, rows: Vec::new(), total: 0, seal: None };
    (Sender(sender), parts)
}

impl Parts {
    /// The first part.
    pub async fn header(&mut self) -> Result<Header, StoreError> {
        match self.next().await? {
            Part::Header(header) => Ok(header),
            _ => Err(misplaced()),
        }
    }

    pub async fn next(&mut self) -> Result<Part, StoreError> {
        let part = self.from.recv().await;
        self.checked(part)
    }

    /// [`Parts::header`], on a thread that may wait.
    pub fn header_blocking(&mut self) -> Result<Header, StoreError> {
        match self.next_blocking()? {
            Part::Header(header) => Ok(header),
            _ => Err(misplaced()),
        }
    }

    /// [`Parts::next`], on a thread that may wait.
    pub fn next_blocking(&mut self) -> Result<Part, StoreError> {
        let part = self.from.blocking_recv();
        self.checked(part)
    }

    /// What has passed.
    pub fn summary(self) -> Result<Summary, StoreError> {
        let header = self.header.ok_or_else(misplaced)?;
        Ok(Summary { header, rows: self.rows, seal: self.seal })
    }

    fn checked(&mut self, part: Option<Part>) -> Result<Part, StoreError> {
        let part = part.ok_or_else(given_up)?;
        match &part {
            Part::Header(header) if self.header.is_none() => self.header = Some(header.clone()),
            _ if self.header.is_none() => return Err(misplaced()),
            Part::Header(_) => return Err(misplaced()),
            Part::Table(table) => {
                if !TABLES.contains(&table.table.as_str()) {
                    return Err(unfit(&format!("there is no table `{}`", table.table)));
                }
                if table.table == COMPONENT_BYTES && table.columns != COMPONENT_BYTES_COLUMNS {
                    return Err(unfit("components' bytes have other columns"));
                }
                self.columns = table.columns.len();
                self.rows.push((table.table.clone(), 0));
            }
            Part::Rows(rows) => {
                let (table, count) = self.rows.last_mut().ok_or_else(misplaced)?;
                if rows.iter().any(|row| row.len() != self.columns) {
                    return Err(unfit(&format!("a row of `{table}` has too few or too many values")));
                }
                if table == COMPONENT_BYTES {
                    rows.iter().try_for_each(|row| component(row).map(|_| ()))?;
                }
                *count += rows.len() as u64;
                self.total += rows.len() as u64;
                (self.seen)(self.total);
            }
            Part::End(seal) => self.seal = *seal,
        }
        Ok(part)
    }
}

/// A component's digest and bytes, which go together.
pub(crate) fn component(row: &[Value]) -> Result<(Digest, &[u8]), StoreError> {
    let [Value::Blob(bytes), Value::Blob(digest)] = row else {
        return Err(unfit("a component's bytes are no bytes"));
    };
    let found: [u8; 32] = Sha256::digest(bytes).into();
    if found[..] != digest[..] {
        return Err(damaged(&format!("component {}", hex::encode(digest))));
    }
    Ok((Digest(found), bytes))
}

/// Rows that this Innkeeper's tables can't take.
pub(crate) fn unfit(why: &str) -> StoreError {
    StoreError::Invalid(format!("the rows don't fit the store ({why}); were they made by an Innkeeper?"))
}

fn misplaced() -> StoreError {
    unfit("its parts are out of order")
}
