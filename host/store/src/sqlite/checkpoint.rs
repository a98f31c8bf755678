//! The write-ahead log is copied into the database beside the writer, by a thread and a connection of its own: the
//! copy of a few MiB and its sync take as long as a hundred commits, and every write would wait for them.
//!
//! A log begins anew only when all of it is copied, and nobody reads from it. While writes go on the thread never
//! gets there: what little is left of a long log is the writer's to copy.

use crate::StoreError;
use rusqlite::Connection;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Pages of the log after which they are copied: 1 MiB, whose sync holds up those of commits for least.
const STEP: usize = 250;
/// Pages after which the writer sees to it that the log begins anew, if few of them are left to be copied: 64 MiB.
const LONG: usize = 16_000;
/// Pages after which it does so however many are left: 256 MiB.
const TOO_LONG: usize = 64_000;

/// Has the log of `writer` copied through `own`, until `writer` is closed.
pub(super) fn start(writer: &mut Connection, own: Connection) -> Result<JoinHandle<()>, StoreError> {
    let (wake, woken) = sync_channel(1);
    let copied = Arc::new(AtomicUsize::new(0));
    let mut log = Log { copied: Arc::clone(&copied), pages: 0, look_at: LONG, wake };
    writer.wal_hook(Some(move |wal: &mut Wal, pages| {
        log.grown(wal, usize::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    thread::Builder::new()
        .name("store-copier".into())
        .spawn(move || copy(&own, &woken, &copied))
        .map_err(|e| StoreError::Unavailable(format!("can't start a thread: {e}")))
}

/// The log as the writer sees it.
struct Log {
    /// Pages of it that are in the database too, as the thread last saw it.
    copied: Arc<AtomicUsize>,
    pages: usize,
    /// How long it is when the writer looks next whether it can begin anew.
    look_at: usize,
    wake: SyncSender<()>,
}

impl Log {
    /// After a commit.
    fn grown(&mut self, wal: &mut Wal, pages: usize) {
        if pages < self.pages {
            self.copied.store(0, Ordering::Relaxed);
            self.look_at = LONG;
        }
        self.pages = pages;
        let left = pages.saturating_sub(self.copied.load(Ordering::Relaxed));
        if pages >= self.look_at && (left < STEP || pages >= TOO_LONG) {
            self.look_at = pages + STEP;
            // The thread may be at it, or a reader in the way: then another time.
            let _ = wal.checkpoint_v2(CheckpointMode::PASSIVE);
        } else if left >= STEP {
            // Full: it is awake.
            let _ = self.wake.try_send(());
        }
    }
}

fn copy(connection: &Connection, woken: &Receiver<()>, copied: &AtomicUsize) {
    while woken.recv().is_ok() {
        match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
            Ok((_, pages)) => copied.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the store's log can't be copied into its database now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const MIB: u64 = 1024 * 1024;

    fn connection(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF").unwrap();
        connection
    }

    #[test]
    fn the_log_is_copied_and_begins_anew_while_writes_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut writer = connection(&path);
        let copier = start(&mut writer, connection(&path)).unwrap();
        writer.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        for _ in 0..80 {
            writer.execute("INSERT INTO t VALUES (zeroblob(2 * 1024 * 1024))", []).unwrap();
        }
        let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
        let (database, log) = (size("db"), size("db-wal"));
        assert!(database > 50 * MIB && log < 150 * MIB, "database {database}, log {log}");
        drop(writer);
        copier.join().unwrap();
    }
}
