//! A backup as a file. It can be read and written in one pass, so a pipe will do.
//!
//! ```text
//! innkeeper backup 1\n                 the 1 is the format's version
//! records: kind      1 byte
//!          length    4 bytes, the lowest first
//!          content   as many bytes
//!          check     the beginning of the SHA-256 of everything in the file before it
//! ```
//!
//! | kind | content |
//! | --- | --- |
//! | `h` header | JSON: the schema's version, the time, Innkeeper's version |
//! | `t` table | JSON: a table's name and its columns, of the rows that follow |
//! | `r` row | the values of the table's columns, see [`super::record`] |
//! | `e` end | JSON: how many rows there are |
//!
//! A check has 8 bytes, the last one all 32. So nothing is read that has been damaged, and nothing is kept
//! that has been cut off. It knows no database.

use super::part::{Part, Parts, Row, Seal, Sender, Summary, Table};
use super::record;
use crate::StoreError;
use innkeeper_domain::limits::BACKUP_RECORD_BYTES_MAX;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};

/// What every backup begins with, before its format's version and the line's end.
const MAGIC: &[u8] = b"innkeeper backup ";
/// The format's version that is written and read here.
const FORMAT: &str = "1";
/// Characters that a format's version may have.
const FORMAT_CHARS_MAX: usize = 8;
/// Bytes of a record's check, but for the last one's.
const CHECK: usize = 8;
/// Bytes that are read or written at once.
const BUFFER: usize = 256 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct End {
    rows: u64,
}

/// Writes all parts. On return the writer has been flushed; a file isn't on disk yet.
pub(super) fn write(mut parts: Parts, to: impl Write) -> Result<Summary, StoreError> {
    // Of what isn't there nothing is written.
    let header = parts.header_blocking()?;
    let mut out = Writer { to: BufWriter::with_capacity(BUFFER, to), hash: Sha256::new(), bytes: 0 };
    out.write(MAGIC)?;
    out.write(FORMAT.as_bytes())?;
    out.write(b"\n")?;
    out.json(b'h', &header)?;
    let (mut content, mut total) = (Vec::new(), 0);
    loop {
        match parts.next_blocking()? {
            Part::Table(table) => out.json(b't', &table)?,
            Part::Rows(rows) => {
                for row in rows {
                    content.clear();
                    record::write(&row, &mut content);
                    out.record(b'r', &content, CHECK)?;
                    total += 1;
                }
                // One large row is no reason to keep as much memory.
                content.shrink_to(BUFFER);
            }
            Part::End(_) => break,
            Part::Header(_) => unreachable!("there is one header"),
        }
    }
    out.json(b'e', &End { rows: total })?;
    out.to.flush().map_err(|e| unwritten(&e))?;
    let seal = Seal { bytes: out.bytes, sha256: out.hash.finalize().into() };
    Ok(Summary { seal: Some(seal), ..parts.summary()? })
}

struct Writer<W: Write> {
    to: BufWriter<W>,
    /// Of everything that was written.
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    fn json(&mut self, kind: u8, content: &impl Serialize) -> Result<(), StoreError> {
        let content = serde_json::to_vec(content).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        self.record(kind, &content, if kind == b'e' { 32 } else { CHECK })
    }

    fn record(&mut self, kind: u8, content: &[u8], check: usize) -> Result<(), StoreError> {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        if length > BACKUP_RECORD_BYTES_MAX {
            return Err(StoreError::Corrupt(format!(
                "a row has {length} bytes, and {BACKUP_RECORD_BYTES_MAX} are the most"
            )));
        }
        self.write(&[kind])?;
        self.write(&length.to_le_bytes())?;
        self.write(content)?;
        let hash = self.hash.clone().finalize();
        self.write(&hash[..check])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes).map_err(|e| unwritten(&e))
    }
}

fn unwritten(error: &io::Error) -> StoreError {
    StoreError::Conflict(format!("the backup can't be written: {error}"))
}

/// Reads all parts. `Invalid` if it is no backup, is damaged or was cut off.
pub(super) fn read(from: impl Read, to: &Sender) -> Result<(), StoreError> {
    let mut from = Reader { from: BufReader::with_capacity(BUFFER, from), hash: Sha256::new(), bytes: 0 };
    from.format()?;
    let mut batch = super::part::Batch::default();
    let mut total = 0;
    loop {
        let (kind, content) = from.record()?;
        if kind == b'r' {
            total += 1;
            let row: Row = record::read(&content).ok_or_else(|| from.damaged())?;
            to.send_blocking(batch.push(row))?;
            continue;
        }
        to.send_blocking(batch.rest())?;
        match kind {
            b'h' => to.send_blocking(Part::Header(from.json(&content)?))?,
            b't' => to.send_blocking(Part::Table(from.json::<Table>(&content)?))?,
            b'e' if from.json::<End>(&content)?.rows == total => break,
            _ => return Err(from.damaged()),
        }
    }
    if from.is_followed()? {
        return Err(StoreError::Invalid(
            "something follows the backup's end; was it joined with another file?".into(),
        ));
    }
    let seal = Seal { bytes: from.bytes, sha256: from.hash.finalize().into() };
    to.send_blocking(Part::End(Some(seal)))
}

struct Reader<R: Read> {
    from: BufReader<R>,
    /// Of everything that was read.
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the first line.
    fn format(&mut self) -> Result<(), StoreError> {
        let foreign =
            || StoreError::Invalid("this is no backup of Innkeeper's: it doesn't begin like one".into());
        let magic: [u8; MAGIC.len()] =
            self.read().map_err(|e| if self.bytes == 0 { foreign() } else { e })?;
        if magic != MAGIC {
            return Err(foreign());
        }
        let mut version = String::new();
        loop {
            match self.read::<1>()? {
                [b'\n'] => break,
                [character] if version.len() < FORMAT_CHARS_MAX => version.push(character.into()),
                _ => return Err(foreign()),
            }
        }
        if version != FORMAT {
            return Err(StoreError::Invalid(format!(
                "the backup has format `{}`, this Innkeeper reads format {FORMAT}; use the one that made it, or a newer \
                 one",
                version.escape_default()
            )));
        }
        Ok(())
    }

    /// The next record, checked.
    fn record(&mut self) -> Result<(u8, Vec<u8>), StoreError> {
        let [kind] = self.read()?;
        let length = u32::from_le_bytes(self.read()?);
        if length > BACKUP_RECORD_BYTES_MAX {
            return Err(self.damaged());
        }
        let mut content = Vec::new();
        let read =
            self.from.by_ref().take(length.into()).read_to_end(&mut content).map_err(|e| unread(&e))?;
        if read != length as usize {
            return Err(self.cut());
        }
        self.took(&content);
        let hash = self.hash.clone().finalize();
        let good = if kind == b'e' {
            self.read::<32>()? == hash[..]
        } else {
            self.read::<CHECK>()? == hash[..CHECK]
        };
        if good { Ok((kind, content)) } else { Err(self.damaged()) }
    }

    fn json<T: DeserializeOwned>(&self, content: &[u8]) -> Result<T, StoreError> {
        serde_json::from_slice(content).map_err(|_| self.damaged())
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => self.cut(),
            _ => unread(&e),
        })?;
        self.took(&bytes);
        Ok(bytes)
    }

    fn took(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn is_followed(&mut self) -> Result<bool, StoreError> {
        self.from.by_ref().take(1).read_to_end(&mut Vec::new()).map(|read| read > 0).map_err(|e| unread(&e))
    }

    fn damaged(&self) -> StoreError {
        StoreError::Invalid(format!(
            "the backup is damaged, somewhere before its byte {}; nothing of it was kept, take another",
            self.bytes
        ))
    }

    fn cut(&self) -> StoreError {
        StoreError::Invalid(format!(
            "the backup was cut off after {} bytes, and isn't whole; nothing of it was kept, take another",
            self.bytes
        ))
    }
}

fn unread(error: &io::Error) -> StoreError {
    StoreError::Conflict(format!("the backup can't be read: {error}"))
}
