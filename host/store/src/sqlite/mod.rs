//! The embedded store: SQLite in WAL mode, synchronous FULL, and a folder of component files.
//!
//! One thread writes, and commits what has queued up together, so that every acknowledgement follows the
//! disk and yet many share one sync; but what running attempts say follows it only at their end. Reads have connections of their own and never wait for the writer.
//!
//! ```text
//! DIR/innkeeper.db     everything but bytes
//! DIR/components/      uploaded bytes, a file for each digest
//! DIR/lock             held while a process has the store open
//! DIR/moved            whither the store was moved; nobody opens it then
//! ```

mod audit;
mod backfill;
mod backfill_advance;
mod cancel;
mod checkpoint;
mod claim;
mod component;
mod event;
mod event_deliver;
mod expire;
mod files;
mod finish;
mod fleet_pause;
mod gate;
mod gate_grant;
mod holiday;
mod host;
mod inline;
mod log;
pub(crate) mod moved;
mod output;
mod quota;
mod readers;
mod retention;
mod retention_tenant;
mod retry;
mod row;
mod run;
mod secret;
mod start;
mod task;
mod tenant;
mod token;
pub(crate) mod transfer;
mod trigger;
mod trigger_advance;
mod trigger_fire;
mod trigger_retime;
mod upload;
mod usage;
mod writer;

use crate::folder::unavailable;
use crate::unreadable::Unreadable;
use crate::{FolderLock, Hints, Store, StoreError};
use files::ComponentFiles;
pub use inline::InlineDatabase;
use innkeeper_domain::ids::TaskId;
use innkeeper_domain::task::TaskSpec;
use readers::Readers;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use writer::Writer;

/// Each schema change, in order; the store's version is how many it has had.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../migrations/sqlite/0002_fleet.sql"),
    include_str!("../../migrations/sqlite/0003_tenants.sql"),
    include_str!("../../migrations/sqlite/0004_time.sql"),
    include_str!("../../migrations/sqlite/0005_holidays.sql"),
    include_str!("../../migrations/sqlite/0006_backfill.sql"),
    include_str!("../../migrations/sqlite/0007_limits.sql"),
    include_str!("../../migrations/sqlite/0008_runs.sql"),
    include_str!("../../migrations/sqlite/0009_events.sql"),
    include_str!("../../migrations/sqlite/0010_outputs.sql"),
    include_str!("../../migrations/sqlite/0011_logs.sql"),
];

/// The database in a store's folder.
const DATABASE_FILE: &str = "innkeeper.db";

/// Connections for reading.
const READERS: usize = 4;

/// Revisions whose specs are kept in memory.
const SPECS_CACHED_MAX: usize = 10_000;

/// The embedded store. Closes when dropped: what was acknowledged is on disk by then anyway.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    files: ComponentFiles,
    hints: Arc<Hints>,
    specs: Mutex<HashMap<(TaskId, u32), Arc<TaskSpec>>>,
    unreadable: Unreadable,
    // Last, so that it is freed after the connections are closed.
    _lock: Option<FolderLock>,
}

impl SqliteStore {
    /// Opens the store in this folder, making it if it isn't there, and brings it to this version's
    /// schema. `Conflict` if another process has it open, it was moved elsewhere, or a newer version of
    /// Innkeeper has written it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let lock = FolderLock::take(folder)?;
        moved::check(folder)?;
        let path = folder.join(DATABASE_FILE);
        let mut connection = connect(&path, OpenFlags::default())?;
        migrate(&mut connection, MIGRATIONS.len())?;
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let readers = (0..READERS).map(|_| connect(&path, read_only)).collect::<Result<_, _>>()?;
        let files = ComponentFiles::open(&folder.join("components"))?;
        files.remove_unfinished()?;
        let copier = connect(&path, OpenFlags::default())?;
        Ok(Self::new(Writer::start(connection, copier)?, Readers::new(readers), files, Some(lock)))
    }

    fn new(writer: Writer, readers: Readers, files: ComponentFiles, lock: Option<FolderLock>) -> Self {
        Self {
            writer,
            readers,
            files,
            hints: Arc::new(Hints::default()),
            specs: Mutex::default(),
            unreadable: Unreadable::default(),
            _lock: lock,
        }
    }

    /// Whether there is a store in this folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(DATABASE_FILE).is_file()
    }
}

impl Store for SqliteStore {
    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }
}

/// A new database is its owner's alone; what SQLite puts beside it has its mode.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(unavailable("create", path, &e)),
            _ => {}
        }
    }
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    set_up(&connection)?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    if !flags.contains(OpenFlags::SQLITE_OPEN_READ_ONLY) {
        connection.execute_batch("PRAGMA journal_mode = WAL;")?;
    }
    Ok(connection)
}

/// What every connection needs, wherever its database is.
fn set_up(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(128);
    // Otherwise a statement is planned anew whenever a bound of a range in it changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // 8 MiB: a commit goes through all pages that are kept if a row of it has split one of them, which takes longer than
    // to read some again from the system's cache.
    Ok(connection.execute_batch("PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;")?)
}

/// The version of the schema; 0 if there is none.
fn version(c: &Connection) -> Result<usize, StoreError> {
    let version: i64 = c.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Brings the schema to version `to`, if it is older. `Conflict` if it is newer than this Innkeeper knows.
fn migrate(connection: &mut Connection, to: usize) -> Result<(), StoreError> {
    let done = version(connection)?;
    if done > MIGRATIONS.len() {
        return Err(newer(done));
    }
    // What a migration sorts may be larger than the memory.
    let temporary: i64 = connection.query_row("PRAGMA temp_store", [], |row| row.get(0))?;
    connection.pragma_update(None, "temp_store", "FILE")?;
    for (at, sql) in MIGRATIONS.iter().enumerate().take(to).skip(done) {
        let change = connection.transaction()?;
        change.execute_batch(sql)?;
        change.execute_batch(&format!("PRAGMA user_version = {}", at + 1))?;
        change.commit()?;
    }
    connection.pragma_update(None, "temp_store", temporary)?;
    Ok(())
}

fn newer(version: usize) -> StoreError {
    StoreError::Conflict(format!(
        "the store has schema version {version}, this Innkeeper knows versions up to {}; use the newer \
         Innkeeper that wrote it, or restore a backup from before",
        MIGRATIONS.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::gate::GateKind;
    use innkeeper_domain::run::RunState;

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = SqliteStore::open(folder.path()).unwrap();
        let second = SqliteStore::open(folder.path()).unwrap_err();
        assert!(second.to_string().contains("another process"), "{second}");
        drop(first);
        SqliteStore::open(folder.path()).unwrap();
    }

    #[test]
    fn a_store_from_a_newer_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let error = SqliteStore::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("version 99"), "{error}");
    }

    #[test]
    fn the_queries_of_the_hot_path_use_their_indexes() {
        let folder = tempfile::tempdir().unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        let connection = Connection::open(folder.path().join(DATABASE_FILE)).unwrap();
        let list = |states: &[RunState]| {
            let states = crate::columns::in_states(states).unwrap();
            format!("SELECT r.id FROM run r WHERE r.tenant_id = ? AND {states} ORDER BY r.id DESC LIMIT ?")
        };
        let labelled = format!(
            "SELECT r.id FROM run r WHERE r.tenant_id = ? AND {} ORDER BY r.id DESC LIMIT ?",
            run::LABELLED
        );
        let tasks = format!("SELECT id FROM task WHERE {}", retention::TASK_OVER);
        let triggers = format!("SELECT id FROM trigger WHERE {}", retention::TRIGGER_OVER);
        for (sql, index) in [
            (cancel::unbegun(cancel::OF_TASK).as_str(), "run_unbegun"),
            (cancel::unbegun(cancel::OF_TRIGGER).as_str(), "run_unbegun"),
            (cancel::unbegun(cancel::OF_BACKFILL).as_str(), "run_unbegun"),
            (backfill_advance::DUE, "backfill_wake"),
            (expire::START, "run_start_by"),
            (expire::END, "run_end_by"),
            (expire::CANCEL, "run_cancel_by"),
            (labelled.as_str(), "run_labelled"),
            (backfill::OWN_RUN, "run_occurrence"),
            (backfill::BACKFILLED_RUN, "run_backfill"),
            (retention::BACKFILLS, "backfill_finished"),
            (list(&[RunState::Failed]).as_str(), "run_unsuccessful"),
            (list(&[RunState::Cancelled, RunState::Failed]).as_str(), "run_unsuccessful"),
            (list(&[RunState::Running]).as_str(), "run_tenant"),
            // What a foreign key asks for when a task is deleted.
            ("SELECT 1 FROM trigger WHERE task_id = ?", "trigger_task"),
            (retention::SKIPS, "skip_last"),
            (tasks.as_str(), "task_deleted"),
            (triggers.as_str(), "trigger_deleted"),
            (claim::ready().as_str(), "run_ready"),
            (claim::REQUIRED, "run_ready"),
            (claim::QUEUES, "run_ready"),
            (claim::NEXT, "run_ready"),
            (claim::COUNT, "run_ready"),
            (claim::RUNNING, "run_host"),
            (gate_grant::held_sql(GateKind::Trigger).as_str(), "run_held_trigger"),
            (gate_grant::held_sql(GateKind::Key).as_str(), "run_held_key"),
            (gate_grant::held_sql(GateKind::Task).as_str(), "run_held_task"),
            (gate_grant::open_sql().as_str(), "gate_open"),
            (retention::BILLS, "usage_day"),
            (trigger_advance::DUE, "trigger_due"),
            (trigger_advance::DUE_LAST, "trigger_due"),
            (trigger_advance::NEXT_DUE, "trigger_due"),
            (trigger_retime::OUTDATED, "trigger_edition"),
            (output::FURTHER, "sqlite_autoindex_output_piece_1"),
        ] {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = vec![1i64; plan.parameter_count()];
            let steps: Vec<String> = plan
                .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let first = steps.iter().find(|step| step.starts_with("SEARCH") || step.starts_with("SCAN"));
            assert!(first.is_some_and(|step| step.contains(index)), "{sql}: {steps:?}");
            // A pair is looked for by its first column alone.
            assert!(!steps.iter().any(|step| step.contains(")>(")), "{sql}: {steps:?}");
            assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{sql}: {steps:?}");
        }
    }
}
