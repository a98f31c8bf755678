//! The embedded store as the source and the target of a transfer.

use super::files::ComponentFiles;
use super::{DATABASE_FILE, MIGRATIONS, connect, log, migrate, newer, output, version};
use crate::folder::unavailable;
use crate::transfer::{
    Batch, COMPONENT_BYTES, COMPONENT_BYTES_COLUMNS, Header, NEEDED_COMPONENTS, Part, Parts, Row, Sender,
    Summary, TABLES, Table, Value, component, unfit,
};
use crate::{FolderLock, StoreError};
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::BACKUP_TRIES_MAX;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql, Transaction, params_from_iter};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const COMPONENTS: &str = "components";
/// Where a store is made, in its folder, before it is one.
const UNFINISHED: &str = "restoring";

/// Keeps hosts from the folder for as long as it lives. `Conflict` if one has it; `NotFound` if there is no
/// store in it.
pub(crate) fn hold(folder: &Path) -> Result<FolderLock, StoreError> {
    database(folder)?;
    FolderLock::take(folder)
}

fn database(folder: &Path) -> Result<PathBuf, StoreError> {
    let path = folder.join(DATABASE_FILE);
    if path.is_file() {
        Ok(path)
    } else {
        Err(StoreError::NotFound(format!("store in {}", folder.display())))
    }
}

/// Gives all rows, of one moment. A host may have the store open.
pub(crate) fn export(folder: &Path, now: Timestamp, to: &Sender) -> Result<(), StoreError> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(&database(folder)?, read_only)?;
    let files = ComponentFiles::open(&folder.join(COMPONENTS))?;
    let header = Header::new(version(&connection)?, now);
    match header.schema {
        0 => return Err(StoreError::NotFound(format!("store in {}", folder.display()))),
        schema if schema > MIGRATIONS.len() => return Err(newer(schema)),
        _ => to.send_blocking(Part::Header(header.clone()))?,
    }
    to.send_blocking(table(COMPONENT_BYTES, COMPONENT_BYTES_COLUMNS.map(Into::into).into()))?;
    let (mut given, mut missing) = (HashSet::new(), None);
    // A file goes after its last row has been deleted, which a moment that is older doesn't see. Bytes that
    // were given already do no harm then; so a new moment begins until one has all its files.
    for _ in 0..BACKUP_TRIES_MAX {
        let moment = connection.transaction()?;
        if version(&moment)? != header.schema {
            let why = "a newer Innkeeper changes the store just now; try again";
            return Err(StoreError::Unavailable(why.into()));
        }
        missing = export_bytes(&moment, &files, &mut given, to)?;
        if missing.is_none() {
            for name in TABLES.into_iter().filter(|name| *name != COMPONENT_BYTES) {
                export_table(&moment, name, to)?;
            }
            return to.send_blocking(Part::End(None));
        }
    }
    let missing = missing.map(|digest| digest.to_string()).unwrap_or_default();
    Err(StoreError::Corrupt(format!("the file of component {missing} is gone; upload it again")))
}

/// The first one whose file isn't there.
fn export_bytes(
    c: &Connection,
    files: &ComponentFiles,
    given: &mut HashSet<Digest>,
    to: &Sender,
) -> Result<Option<Digest>, StoreError> {
    let mut list = c.prepare(NEEDED_COMPONENTS)?;
    for digest in list.query_map([], |row| row.get(0).map(Digest))? {
        let digest = digest?;
        if given.contains(&digest) {
            continue;
        }
        match files.get(digest) {
            Ok(bytes) => {
                to.send_blocking(Part::Rows(vec![vec![Value::Blob(bytes), Value::Blob(digest.0.into())]]))?;
            }
            Err(StoreError::NotFound(_)) => return Ok(Some(digest)),
            Err(error) => return Err(error),
        }
        given.insert(digest);
    }
    Ok(None)
}

fn export_table(c: &Connection, name: &str, to: &Sender) -> Result<(), StoreError> {
    if name == log::LINES && has_pieces_of_logs(c)? {
        to.send_blocking(table(name, log::COLUMNS.map(Into::into).into()))?;
        let mut batch = Batch::default();
        log::each_row(c, |row| to.send_blocking(batch.push(row)))?;
        return to.send_blocking(batch.rest());
    }
    let columns: Vec<String> = columns(c, name)?.into_iter().map(|(column, _)| column).collect();
    if columns.is_empty() {
        return Ok(());
    }
    let outputs = Outputs::of(c, name, &columns)?;
    let mut list = c.prepare(&format!("SELECT {} FROM {}", quoted(&columns), quote(name)))?;
    to.send_blocking(table(name, columns))?;
    let (mut rows, mut batch) = (list.query([])?, Batch::default());
    while let Some(row) = rows.next()? {
        let values = (0..row.as_ref().column_count()).map(|at| read(row.get_ref(at)?));
        let mut values = values.collect::<Result<Row, StoreError>>()?;
        if let Some(outputs) = &outputs {
            outputs.make_whole(c, &mut values)?;
        }
        to.send_blocking(batch.push(values))?;
    }
    to.send_blocking(batch.rest())
}

/// Where the outputs of runs are, which are given whole.
struct Outputs {
    id: usize,
    output: usize,
}

impl Outputs {
    /// None if there are none in the table, or the schema is of before there were pieces.
    fn of(c: &Connection, name: &str, columns: &[String]) -> Result<Option<Self>, StoreError> {
        if name != "run" || self::columns(c, output::TABLE)?.is_empty() {
            return Ok(None);
        }
        let at = |name| columns.iter().position(|column| column == name);
        Ok(at("id").zip(at("output")).map(|(id, output)| Self { id, output }))
    }

    fn make_whole(&self, c: &Connection, row: &mut [Value]) -> Result<(), StoreError> {
        let Value::Blob(run) = &row[self.id] else { return Ok(()) };
        let run = Uuid::from_slice(run).map_err(|e| StoreError::Corrupt(format!("a run's id: {e}")))?;
        match &mut row[self.output] {
            Value::Blob(output) => output::add_further(c, RunId(run), output),
            _ => Ok(()),
        }
    }
}

/// Not in a schema of before there were pieces.
fn has_pieces_of_logs(c: &Connection) -> Result<bool, StoreError> {
    Ok(!columns(c, log::TABLE)?.is_empty())
}

fn table(name: &str, columns: Vec<String>) -> Part {
    Part::Table(Table { table: name.into(), columns })
}

fn read(value: ValueRef<'_>) -> Result<Value, StoreError> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Value::Text(text.into()),
            Err(error) => return Err(StoreError::Corrupt(format!("text that is none: {error}"))),
        },
        ValueRef::Blob(bytes) => Value::Blob(bytes.into()),
        ValueRef::Real(number) => return Err(StoreError::Corrupt(format!("a broken number: {number}"))),
    })
}

/// Takes all rows: makes the store beside its place, and puts it there when it is whole.
pub(crate) fn import(folder: &Path, mut parts: Parts) -> Result<Summary, StoreError> {
    let _lock = FolderLock::take(folder)?;
    // A log that another store has left behind would become a part of this one.
    for file in [DATABASE_FILE, "innkeeper.db-wal", "innkeeper.db-journal"].map(|name| folder.join(name)) {
        if file.exists() {
            return Err(StoreError::Conflict(format!(
                "there is a store already ({}); take an empty folder",
                file.display()
            )));
        }
    }
    let header = parts.header_blocking()?;
    header.check(MIGRATIONS.len())?;
    let unfinished = Unfinished::make(folder)?;
    let mut connection = Connection::open(unfinished.0.join(DATABASE_FILE))?;
    // Until it is whole it is nothing that could be lost.
    connection.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA cache_size = -65536;",
    )?;
    migrate(&mut connection, header.schema)?;
    let transaction = connection.transaction()?;
    import_rows(&transaction, &ComponentFiles::open(&unfinished.0.join(COMPONENTS))?, &mut parts)?;
    transaction.commit()?;
    migrate(&mut connection, MIGRATIONS.len())?;
    connection.close().map_err(|(_, error)| error)?;
    unfinished.finish(folder)?;
    parts.summary()
}

fn import_rows(c: &Transaction, files: &ComponentFiles, parts: &mut Parts) -> Result<(), StoreError> {
    let mut target = Target::Files;
    loop {
        let part = parts.next_blocking()?;
        if let (Part::Table(_) | Part::End(_), Target::Log(lines)) = (&part, &mut target) {
            lines.store(c)?;
        }
        match part {
            Part::End(_) => return Ok(()),
            Part::Table(table) => target = Target::of(c, &table)?,
            Part::Rows(rows) => rows.into_iter().try_for_each(|row| target.take(c, files, row))?,
            Part::Header(_) => unreachable!("there is one header"),
        }
    }
}

/// Where rows go.
enum Target {
    /// Bytes of components.
    Files,
    /// Lines of logs, which are in pieces here.
    Log(log::Lines),
    /// A table, by the statement that inserts a row, and its columns' types.
    Rows(String, Vec<String>),
}

impl Target {
    fn of(c: &Connection, table: &Table) -> Result<Self, StoreError> {
        if table.table == COMPONENT_BYTES {
            return Ok(Self::Files);
        }
        if table.table == log::LINES && has_pieces_of_logs(c)? {
            let known = table.columns == log::COLUMNS;
            return if known { Ok(Self::Log(log::Lines::default())) } else { Err(other_columns(table)) };
        }
        let (sql, types) = insert(c, table)?;
        Ok(Self::Rows(sql, types))
    }

    fn take(&mut self, c: &Connection, files: &ComponentFiles, row: Row) -> Result<(), StoreError> {
        match self {
            Self::Files => {
                let (digest, bytes) = component(&row)?;
                files.put(digest, bytes)
            }
            Self::Log(lines) => lines.take(c, row),
            Self::Rows(sql, types) => {
                if !row.iter().zip(types).all(|(value, of)| fits(value, of)) {
                    return Err(unfit("a value is not of its column's type"));
                }
                c.prepare_cached(sql)?.execute(params_from_iter(&row))?;
                Ok(())
            }
        }
    }
}

fn other_columns(table: &Table) -> StoreError {
    unfit(&format!("the columns of `{}` are others", table.table))
}

/// The statement that inserts a row of the table, and its columns' types.
fn insert(c: &Connection, table: &Table) -> Result<(String, Vec<String>), StoreError> {
    let (names, types): (Vec<_>, Vec<_>) = columns(c, &table.table)?.into_iter().unzip();
    if names != table.columns {
        return Err(other_columns(table));
    }
    let places = vec!["?"; names.len()].join(", ");
    Ok((format!("INSERT INTO {} ({}) VALUES ({places})", quote(&table.table), quoted(&names)), types))
}

fn fits(value: &Value, of: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Int(_) => of == "INTEGER",
        Value::Text(_) => of == "TEXT",
        Value::Blob(_) => of == "BLOB",
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A table's columns by name, and their types; none if there is no such table.
fn columns(c: &Connection, table: &str) -> Result<Vec<(String, String)>, StoreError> {
    let mut list = c.prepare("SELECT name, type FROM pragma_table_info(?1) ORDER BY name")?;
    let rows = list.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn quote(name: &str) -> String {
    format!("\"{name}\"")
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// A store that is being made; removed when dropped, or else before the next one.
struct Unfinished(PathBuf);

impl Unfinished {
    fn make(folder: &Path) -> Result<Self, StoreError> {
        let unfinished = Self(folder.join(UNFINISHED));
        unfinished.remove();
        fs::create_dir(&unfinished.0).map_err(|e| unavailable("create", &unfinished.0, &e))?;
        Ok(unfinished)
    }

    /// Puts the store in its place: the database last, for without it there is no store.
    fn finish(self, folder: &Path) -> Result<(), StoreError> {
        let (from, components) = (self.0.join(COMPONENTS), folder.join(COMPONENTS));
        let finish = || {
            File::open(self.0.join(DATABASE_FILE))?.sync_all()?;
            fs::create_dir_all(&components)?;
            for file in fs::read_dir(&from)? {
                let file = file?;
                fs::rename(file.path(), components.join(file.file_name()))?;
            }
            File::open(&components)?.sync_all()?;
            fs::rename(self.0.join(DATABASE_FILE), folder.join(DATABASE_FILE))?;
            File::open(folder)?.sync_all()
        };
        finish().map_err(|e: std::io::Error| unavailable("write the store in", folder, &e))
    }

    fn remove(&self) {
        // What stays is in nobody's way, and creating the folder will tell.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::SqliteStore;
    use crate::transfer::way;
    use crate::{ComponentStore, TenantStore};
    use innkeeper_domain::component::{Component, Shape};
    use sha2::{Digest as _, Sha256};

    #[test]
    fn every_table_is_taken_along() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS.len()).unwrap();
        let mut list = connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
        let tables = list.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let mut tables: Vec<_> = tables.map(Result::unwrap).collect();
        // Outputs go along whole, and logs line by line.
        tables.retain(|table| ![output::TABLE, log::TABLE].contains(&table.as_str()));
        tables.extend([COMPONENT_BYTES.into(), log::LINES.into()]);
        tables.sort();
        let mut taken = TABLES;
        taken.sort_unstable();
        assert_eq!(tables, taken, "add new tables to TABLES, after those that they refer to");
    }

    async fn with_components(folder: &Path, count: u8) -> (SqliteStore, Vec<Digest>) {
        let store = SqliteStore::open(folder).unwrap();
        let tenant = store.tenant_ensure(&"default".parse().unwrap(), Timestamp::UNIX_EPOCH).await.unwrap();
        let mut digests = Vec::new();
        for byte in 0..count {
            let digest = Digest(Sha256::digest([byte]).into());
            let (shape, created_at) = (Shape::Handler, Timestamp::UNIX_EPOCH);
            let component = Component { digest, size: 1, shape, adapted: false, imports: vec![], created_at };
            store
                .component_put(tenant.id, component, vec![byte], Timestamp::UNIX_EPOCH.into())
                .await
                .unwrap();
            digests.push(digest);
        }
        digests.sort_by_key(|digest| digest.0);
        (store, digests)
    }

    /// A component is deleted after the moment that the backup is of, and before its file is read.
    #[tokio::test]
    async fn a_component_that_goes_meanwhile_is_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let (store, digests) = with_components(folder.path(), 6).await;
        let tenant = store.tenant_get(&"default".parse().unwrap()).await.unwrap();
        let (to, mut parts) = way(Box::new(|_| ()));
        let path = folder.path().to_path_buf();
        let export = tokio::task::spawn_blocking(move || export(&path, Timestamp::UNIX_EPOCH, &to));
        parts.header().await.unwrap();
        assert!(matches!(parts.next().await, Ok(Part::Table(_))));
        // One is on its way, one waits for its place, and the others have not been read.
        assert!(matches!(parts.next().await, Ok(Part::Rows(_))));
        for digest in &digests[3..] {
            store.component_delete(tenant.id, *digest, Timestamp::UNIX_EPOCH.into()).await.unwrap();
        }
        while !matches!(parts.next().await.unwrap(), Part::End(_)) {}
        export.await.unwrap().unwrap();
        let rows = parts.summary().unwrap().rows;
        let count = |table: &str| rows.iter().find(|(name, _)| name == table).unwrap().1;
        assert_eq!((count("component_bytes"), count("component")), (3, 3), "{rows:?}");
    }

    #[tokio::test]
    async fn a_component_whose_file_is_lost_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (store, digests) = with_components(folder.path(), 1).await;
        drop(store);
        fs::remove_file(folder.path().join(COMPONENTS).join(digests[0].hex())).unwrap();
        let (to, mut parts) = way(Box::new(|_| ()));
        let path = folder.path().to_path_buf();
        let export = tokio::task::spawn_blocking(move || export(&path, Timestamp::UNIX_EPOCH, &to));
        while parts.next().await.is_ok() {}
        let error = export.await.unwrap().unwrap_err().to_string();
        assert!(error.contains(&digests[0].to_string()) && error.contains("upload it again"), "{error}");
    }

    /// What a killed restore has left behind is cleared away by the next one, and is no store.
    #[tokio::test]
    async fn half_a_store_is_none() {
        let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(with_components(folder.path(), 1).await);
        let half = target.path().join(UNFINISHED);
        fs::create_dir_all(half.join(COMPONENTS)).unwrap();
        fs::write(half.join(DATABASE_FILE), b"half").unwrap();
        fs::write(half.join(COMPONENTS).join("half"), b"half").unwrap();
        let no_store = export(target.path(), Timestamp::UNIX_EPOCH, &way(Box::new(|_| ())).0);
        assert!(matches!(no_store, Err(StoreError::NotFound(_))));
        let (to, parts) = way(Box::new(|_| ()));
        let path = target.path().to_path_buf();
        let import = tokio::task::spawn_blocking(move || import(&path, parts));
        let path = folder.path().to_path_buf();
        let export = tokio::task::spawn_blocking(move || export(&path, Timestamp::UNIX_EPOCH, &to));
        export.await.unwrap().unwrap();
        import.await.unwrap().unwrap();
        assert!(!half.exists() && !target.path().join(COMPONENTS).join("half").exists());
        SqliteStore::open(target.path()).unwrap();
    }
}
