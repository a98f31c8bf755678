//! The write-ahead log is copied into the database beside the writer, by a thread and a connection of its own: the
//! copy of a few MiB and its sync take as long as a hundred commits, and every write would wait for them.
//!
//! A log begins anew only when all of it is copied, and nobody reads from it. While writes go on the thread never
//! gets there: what is left of a long log is the writer's to copy, which also bounds how far the thread is behind.

use crate::StoreError;
use rusqlite::Connection;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Pages of the log after which they are copied: 1 MiB, whose sync holds up those of commits for least.
const STEP: usize = 250;
/// Pages after which the writer copies what is left: 64 MiB.
const LONG: usize = 16_000;
/// Pages after which it tries that again, if a reader was in the way.
const AGAIN: usize = 4_000;
/// Pages after which it waits for readers, so that readers who always overlap can't make the log grow without an end:
/// those who come meanwhile are in nobody's way. It waits for `READERS`, at the most.
const ENDLESS: usize = 2 * LONG;
const READERS: Duration = Duration::from_millis(200);
/// How often it is told that it can't be copied.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// What of a log stays on disk that has begun anew.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// Has the log of `writer` copied through `own`, until `writer` is closed.
pub(super) fn start(writer: &mut Connection, own: Connection) -> Result<JoinHandle<()>, StoreError> {
    let (wake, woken) = sync_channel(1);
    let copied = watch(writer, wake)?;
    thread::Builder::new()
        .name("store-copier".into())
        .spawn(move || copy(&own, &woken, &copied))
        .map_err(|e| StoreError::Unavailable(format!("can't start a thread: {e}")))
}

/// Pages of the log that are in the database too, as the thread last saw it. Locked by whoever copies.
type Copied = Arc<Mutex<usize>>;

/// Looks at the log after each commit, and wakes the thread.
fn watch(writer: &mut Connection, wake: SyncSender<()>) -> Result<Copied, StoreError> {
    let copied = Copied::default();
    writer.busy_timeout(READERS)?;
    writer.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    let mut log = Log { copied: Arc::clone(&copied), pages: 0, look_at: LONG, seen: 0, wake };
    writer.wal_hook(Some(move |wal: &mut Wal, pages| {
        log.grown(wal, usize::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    Ok(copied)
}

/// The log as the writer sees it.
struct Log {
    copied: Copied,
    pages: usize,
    /// How long it is when the writer copies what is left.
    look_at: usize,
    /// What `copied` was when nobody was at it.
    seen: usize,
    wake: SyncSender<()>,
}

impl Log {
    /// After a commit.
    fn grown(&mut self, wal: &mut Wal, pages: usize) {
        if pages < self.pages {
            (self.seen, self.look_at) = (0, LONG);
            if let Ok(mut copied) = self.copied.try_lock() {
                *copied = 0;
            }
        }
        self.pages = pages;
        if pages >= self.look_at {
            let mode = if pages < ENDLESS { CheckpointMode::PASSIVE } else { CheckpointMode::RESTART };
            self.look_at = pages + AGAIN.max(pages / 8);
            let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
            // That it can't is no error of the commit's.
            if let Ok((_, done)) = wal.checkpoint_v2(mode) {
                *copied = usize::try_from(done).unwrap_or(0);
            }
            return;
        }
        if let Ok(copied) = self.copied.try_lock() {
            self.seen = *copied;
        }
        // More than there are: they were of the log before this one.
        let left = if self.seen > pages { pages } else { pages - self.seen };
        if left >= STEP {
            // Full: it is awake.
            let _ = self.wake.try_send(());
        }
    }
}

fn copy(connection: &Connection, woken: &Receiver<()>, copied: &Mutex<usize>) {
    let mut told_at: Option<Instant> = None;
    while woken.recv().is_ok() {
        let mut copied = copied.lock().unwrap_or_else(PoisonError::into_inner);
        match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
            Ok((_, pages)) => *copied = usize::try_from(pages).unwrap_or(0),
            Err(error) if told_at.is_none_or(|at| at.elapsed() > TELL_AGAIN) => {
                told_at = Some(Instant::now());
                tracing::warn!(%error, "the store's log can't be copied into its database now");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    const MIB: u64 = 1024 * 1024;

    fn connection(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE IF NOT EXISTS t (x BLOB)",
            )
            .unwrap();
        connection
    }

    fn write(writer: &Connection, mebibytes: u64) {
        for _ in 0..mebibytes {
            writer.execute("INSERT INTO t VALUES (zeroblob(1024 * 1024))", []).unwrap();
        }
    }

    fn size(path: &Path) -> u64 {
        fs::metadata(path).unwrap().len()
    }

    #[test]
    fn the_log_is_copied_beside_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut writer = connection(&path);
        let copier = start(&mut writer, connection(&path)).unwrap();
        write(&writer, 20);
        let until = Instant::now() + Duration::from_secs(20);
        while size(&path) < 15 * MIB {
            assert!(Instant::now() < until, "{} bytes are copied", size(&path));
            thread::sleep(Duration::from_millis(5));
        }
        drop(writer);
        copier.join().unwrap();
    }

    #[test]
    fn a_long_log_begins_anew_whatever_becomes_of_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut writer = connection(&path);
        let (wake, asleep) = sync_channel(1);
        watch(&mut writer, wake).unwrap();
        write(&writer, 100);
        let (database, log) = (size(&path), size(&folder.path().join("db-wal")));
        assert!(database > 60 * MIB && log < 70 * MIB, "database {database}, log {log}");
        drop((writer, asleep));
    }

    #[test]
    fn readers_that_always_overlap_do_not_make_the_log_grow_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut writer = connection(&path);
        let copier = start(&mut writer, connection(&path)).unwrap();
        write(&writer, 1);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (stop, path) = (&stop, &path);
            scope.spawn(move || {
                let (one, other) = (connection(path), connection(path));
                let begin =
                    |reader: &Connection| reader.execute_batch("BEGIN; SELECT 1 FROM t LIMIT 1").unwrap();
                begin(&one);
                // One begins while the other reads.
                for (next, last) in [(&other, &one), (&one, &other)].into_iter().cycle() {
                    begin(next);
                    last.execute_batch("COMMIT").unwrap();
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
            write(&writer, 400);
            stop.store(true, Ordering::Relaxed);
        });
        let log = size(&folder.path().join("db-wal"));
        assert!(log < 200 * MIB, "{log}");
        drop(writer);
        copier.join().unwrap();
    }
}
