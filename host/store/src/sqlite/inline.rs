//! The embedded store without threads of its own, for simulations: all that it does is done when its caller is
//! polled, so that the order of things is the caller's alone.

use super::files::ComponentFiles;
use super::readers::Readers;
use super::writer::Writer;
use super::{MIGRATIONS, SqliteStore, migrate, set_up};
use crate::StoreError;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A database in memory, which outlives the processes that are simulated on it. Only component bytes are files.
#[derive(Debug)]
pub struct InlineDatabase {
    connection: Arc<Mutex<Connection>>,
    components: PathBuf,
}

impl InlineDatabase {
    /// A new one, of this version's schema, with its components in this folder.
    pub fn new(components: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        set_up(&connection)?;
        migrate(&mut connection, MIGRATIONS.len())?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), components: components.into() })
    }

    /// The store as one more process sees it: with wake-ups and caches of its own.
    pub fn store(&self) -> Result<SqliteStore, StoreError> {
        let (writer, readers) = (Arc::clone(&self.connection), Arc::clone(&self.connection));
        let files = ComponentFiles::open(&self.components)?;
        Ok(SqliteStore::new(Writer::Inline(writer), Readers::Inline(readers), files, None))
    }
}
