//! The one thread that writes. It takes what has queued up, runs each write in a savepoint of its own,
//! commits all together, and only then answers. Under simulated time there is no such thread: then each write is
//! committed where it is asked for.
//!
//! Large writes have a commit to themselves, and at most half of the time while there are small ones: those of a
//! tenant whose runs have a lot to say would be in the way of everybody's else. Parts of what is only whole when more is
//! written, as the pieces of an output, are not synced by themselves: the write that they are for does that.

use super::checkpoint;
use super::row::from_sqlite;
use crate::StoreError;
use innkeeper_domain::limits::{
    LARGE_WRITE_BYTES, LARGE_WRITES_WAITING_MAX, PARTS_PER_COMMIT_BYTES, WRITES_PER_COMMIT_BYTES,
    WRITES_PER_COMMIT_MAX, WRITES_WAITING_MAX,
};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Runs in the transaction and gives what to do once it is known whether that was committed.
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

#[derive(Debug)]
pub(super) enum Writer {
    Thread {
        jobs: Option<Sender<Queued>>,
        /// A permit for each write that waits: large ones take no room of the others.
        room: Arc<Semaphore>,
        large_room: Arc<Semaphore>,
        threads: Mutex<Vec<JoinHandle<()>>>,
    },
    /// Whoever asks waits for the commit, with all else that its thread does.
    Inline(Arc<Mutex<Connection>>),
}

/// A write that waits.
pub(super) struct Queued {
    job: Job,
    size: Size,
    _room: Option<OwnedSemaphorePermit>,
}

/// What a write costs, and what is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// About how much it writes.
    bytes: usize,
    /// Whether it is on disk when it is answered. Otherwise it is at the latest when what is written after it is.
    synced: bool,
}

impl Size {
    pub fn of(bytes: usize) -> Self {
        Self { bytes, synced: true }
    }

    /// For what is a part of something, or may be lost with the attempt that it is of if the machine fails. A small one
    /// shares the sync of the others all the same.
    pub fn of_part(bytes: usize) -> Self {
        Self { bytes, synced: false }
    }

    fn is_large(self) -> bool {
        self.bytes >= LARGE_WRITE_BYTES
    }
}

/// How long what needn't be on disk is waited for.
const SOON: Duration = Duration::from_millis(250);

/// About what a row costs beside what is in it, in bytes.
pub(super) const ROW: usize = 64;

impl Writer {
    /// Writes through `connection`, whose log is copied through `copier`.
    pub fn start(mut connection: Connection, copier: Connection) -> Result<Self, StoreError> {
        let copier = checkpoint::start(&mut connection, copier)?;
        let (jobs, queue) = channel();
        let writer = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || Queue::new(queue).write_all(&connection))
            .map_err(|e| StoreError::Unavailable(format!("can't start a thread: {e}")))?;
        let room = Arc::new(Semaphore::new(WRITES_WAITING_MAX));
        let large_room = Arc::new(Semaphore::new(LARGE_WRITES_WAITING_MAX));
        Ok(Self::Thread { jobs: Some(jobs), room, large_room, threads: Mutex::new(vec![writer, copier]) })
    }

    /// What a write has come to, if that is known soon; otherwise it may be on disk later, or never.
    pub async fn soon<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::Thread { .. } => tokio::time::timeout(SOON, write).await.ok(),
            Self::Inline(_) => Some(write.await),
        }
    }

    /// Runs `write` in a transaction and answers when it is on disk (see [`Size`]). An error of it undoes it alone.
    /// `after` is called on the writer's thread once it is committed, whether or not anybody waits still:
    /// the place for wake-ups.
    pub async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_sized(Size::of(0), write, after).await
    }

    /// The same with a write of another size. One of many bytes waits for smaller ones.
    pub async fn write_sized<T: Send + 'static>(
        &self,
        size: Size,
        write: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = in_savepoint(connection, write);
            Box::new(move |committed| {
                let result = match (result, committed) {
                    (result, Ok(())) => result.inspect(after),
                    (Err(StoreError::Unavailable(why)), Err(_)) => Err(StoreError::Unavailable(why)),
                    // Even a refusal is void: it may rest on a write that never was.
                    (_, Err(error)) => Err(error),
                };
                // Nobody waits any more: the write stands all the same.
                let _ = answer.send(result);
            })
        });
        let stopped = || StoreError::Unavailable("it is closing".into());
        match self {
            Self::Thread { jobs, room, large_room, .. } => {
                let jobs = jobs.as_ref().ok_or_else(stopped)?;
                let room = if size.is_large() { large_room } else { room };
                let room = Arc::clone(room).acquire_owned().await.map_err(|_| stopped())?;
                jobs.send(Queued { job, size, _room: Some(room) }).map_err(|_| stopped())?;
            }
            Self::Inline(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                commit_together(&connection, Ok(()), [Queued { job, size, _room: None }]);
            }
        }
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Self::Thread { jobs, threads, .. } = self else { return };
        *jobs = None;
        let threads = threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// What waits to be written.
struct Queue {
    come: Receiver<Queued>,
    small: Vec<Queued>,
    small_bytes: usize,
    /// As they came, but a larger one as if it had come later: by the time that counts, and a number.
    large: BTreeMap<(Instant, u64), Queued>,
    numbers: u64,
    /// Whether commits sync.
    syncs: bool,
    /// Whether small ones were written since the last large ones.
    shares: bool,
    /// When the next large one has its turn.
    large_at: Instant,
}

/// How much later a large write counts as come, for each of its bytes: a second for 1 MiB.
const LATER: Duration = Duration::from_micros(1);

impl Queue {
    fn new(come: Receiver<Queued>) -> Self {
        let (small, large) = (Vec::new(), BTreeMap::new());
        Self {
            come,
            small,
            small_bytes: 0,
            large,
            numbers: 0,
            syncs: true,
            shares: false,
            large_at: Instant::now(),
        }
    }

    /// Until nobody can ask for more, and nothing waits.
    fn write_all(mut self, connection: &Connection) {
        while self.wait() {
            let begun = Instant::now();
            if !self.small.is_empty() {
                let synced = self.sync(connection, true);
                commit_together(connection, synced, self.small.drain(..));
                (self.small_bytes, self.shares) = (0, true);
            }
            if !self.large.is_empty() && Instant::now() >= self.large_at {
                self.write_large(connection, begun.elapsed());
            }
        }
    }

    /// Goes on for as long as the small ones before have taken, and that with one commit at least.
    fn write_large(&mut self, connection: &Connection, small_took: Duration) {
        let begun = Instant::now();
        while !self.large.is_empty() {
            let large = self.take_large();
            let synced = self.sync(connection, large.iter().any(|one| one.size.synced));
            commit_together(connection, synced, large);
            if begun.elapsed() >= small_took {
                break;
            }
        }
        let shares = std::mem::take(&mut self.shares);
        self.large_at = begun + if shares { begun.elapsed() * 2 } else { Duration::ZERO };
    }

    /// Has the next commit synced, or not: syncs are what many commits cost most.
    fn sync(&mut self, connection: &Connection, syncs: bool) -> Result<(), StoreError> {
        if self.syncs != syncs {
            let how = if syncs { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", how).map_err(from_sqlite)?;
            self.syncs = syncs;
        }
        Ok(())
    }

    /// Waits for something to do, and takes in what has come. Whether there is anything.
    fn wait(&mut self) -> bool {
        let large_in = self.large_at.saturating_duration_since(Instant::now());
        let first = match self.large.is_empty() {
            true => self.come.recv().ok(),
            false => match self.come.recv_timeout(large_in) {
                Ok(one) => Some(one),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    self.large_at = Instant::now();
                    None
                }
            },
        };
        first.into_iter().for_each(|one| self.put(one));
        while self.small.len() < WRITES_PER_COMMIT_MAX
            && self.small_bytes < WRITES_PER_COMMIT_BYTES
            && let Ok(one) = self.come.try_recv()
        {
            self.put(one);
        }
        !self.small.is_empty() || !self.large.is_empty()
    }

    fn put(&mut self, one: Queued) {
        if one.size.is_large() {
            self.numbers += 1;
            let later = LATER * u32::try_from(one.size.bytes).unwrap_or(u32::MAX);
            self.large.insert((Instant::now() + later, self.numbers), one);
        } else {
            self.small_bytes += one.size.bytes;
            self.small.push(one);
        }
    }

    /// The next large ones, as many as one commit takes: more of those that have a sync to share.
    fn take_large(&mut self) -> Vec<Queued> {
        let (mut taken, mut bytes, mut most) = (Vec::new(), 0, PARTS_PER_COMMIT_BYTES);
        while bytes < most
            && let Some((_, one)) = self.large.pop_first()
        {
            if one.size.synced {
                most = WRITES_PER_COMMIT_BYTES;
            }
            bytes = one.size.bytes.saturating_add(bytes);
            taken.push(one);
        }
        taken
    }
}

/// `ready`: whether the commit can be what it is to be.
fn commit_together(
    connection: &Connection,
    ready: Result<(), StoreError>,
    writes: impl IntoIterator<Item = Queued>,
) {
    let begun = ready.and_then(|()| connection.execute_batch("BEGIN IMMEDIATE").map_err(from_sqlite));
    let answers: Vec<Answer> = writes.into_iter().map(|one| (one.job)(connection)).collect();
    let committed = begun.and_then(|()| commit(connection));
    if let Err(error) = &committed {
        tracing::error!(%error, "the store can't commit");
        if !connection.is_autocommit() {
            // Undoes the transaction; if even that fails, the next BEGIN will say so.
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
    for answer in answers {
        answer(committed.clone());
    }
}

fn commit(connection: &Connection) -> Result<(), StoreError> {
    if connection.is_autocommit() {
        // SQLite undoes the whole transaction by itself on some errors, a full disk among them.
        return Err(StoreError::Unavailable("the transaction was undone".into()));
    }
    connection.execute_batch("COMMIT").map_err(from_sqlite)
}

fn in_savepoint<T>(
    connection: &Connection,
    write: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    if connection.is_autocommit() {
        return Err(StoreError::Unavailable("the transaction it was to be part of was undone".into()));
    }
    run_cached(connection, "SAVEPOINT job")?;
    let result = catch_unwind(AssertUnwindSafe(|| write(connection)))
        .unwrap_or_else(|_| Err(StoreError::Corrupt("a write panicked; see the host's log".into())));
    if connection.is_autocommit() {
        return result.and(Err(StoreError::Unavailable("the transaction was undone".into())));
    }
    if result.is_err() {
        run_cached(connection, "ROLLBACK TO job")?;
    }
    run_cached(connection, "RELEASE job")?;
    result
}

fn run_cached(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)").unwrap();
        Writer::start(connection, Connection::open_in_memory().unwrap()).unwrap()
    }

    fn insert(x: i64) -> impl FnOnce(&Connection) -> Result<(), StoreError> + Send {
        move |c| Ok(c.execute("INSERT INTO t VALUES (?1)", [x]).map(|_| ())?)
    }

    async fn count(writer: &Writer) -> i64 {
        let count = |c: &Connection| Ok(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?);
        writer.write(count, |_| ()).await.unwrap()
    }

    #[tokio::test]
    async fn a_failed_write_is_undone_alone() {
        let writer = writer();
        writer.write(insert(1), |()| ()).await.unwrap();
        let failing = |c: &Connection| {
            c.execute("INSERT INTO t VALUES (2)", [])?;
            Err::<(), _>(StoreError::Conflict("no".into()))
        };
        assert_eq!(writer.write(failing, |()| ()).await, Err(StoreError::Conflict("no".into())));
        assert!(writer.write(insert(1), |()| ()).await.is_err());
        writer.write(insert(3), |()| ()).await.unwrap();
        assert_eq!(count(&writer).await, 2);
    }

    #[tokio::test]
    async fn large_writes_wait_for_small_ones_and_the_larger_for_longest() {
        let writer = writer();
        let (enter, entered) = channel();
        let (go, gate) = channel::<()>();
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = Arc::clone(&order);
            move |_: &Connection| {
                order.lock().unwrap().push(what);
                Ok(())
            }
        };
        let first = move |_: &Connection| {
            enter.send(()).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            gate.recv().map_err(|e| StoreError::Corrupt(e.to_string()))
        };
        // The others come while the writer is at the first one.
        let others = async {
            entered.recv().unwrap();
            tokio::join!(
                writer.write_sized(Size::of(2 * LARGE_WRITE_BYTES), note("larger"), |()| ()),
                writer.write_sized(Size::of_part(LARGE_WRITE_BYTES), note("large"), |()| ()),
                writer.write(note("small"), |()| ()),
                async { go.send(()).unwrap() },
            )
        };
        let (first, (larger, large, small, ())) = tokio::join!(writer.write(first, |()| ()), others);
        assert!([first, larger, large, small].iter().all(Result::is_ok));
        assert_eq!(*order.lock().unwrap(), ["small", "large", "larger"]);
    }

    #[tokio::test]
    async fn only_parts_are_written_without_a_sync() {
        let writer = writer();
        let how = |c: &Connection| Ok(c.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?);
        let (normal, full) = (1, 2);
        for _ in 0..2 {
            let part = writer.write_sized(Size::of_part(LARGE_WRITE_BYTES), how, |_| ()).await;
            let large = writer.write_sized(Size::of(LARGE_WRITE_BYTES), how, |_| ()).await;
            assert_eq!((part, large), (Ok(normal), Ok(full)));
            let part = writer.write_sized(Size::of_part(LARGE_WRITE_BYTES), how, |_| ()).await;
            assert_eq!((part, writer.write(how, |_| ()).await), (Ok(normal), Ok(full)));
        }
    }

    #[tokio::test]
    async fn a_panic_is_undone_and_the_writer_goes_on() {
        let writer = writer();
        let panicking = |c: &Connection| -> Result<(), StoreError> {
            c.execute("INSERT INTO t VALUES (2)", [])?;
            panic!("on purpose")
        };
        assert!(matches!(writer.write(panicking, |()| ()).await, Err(StoreError::Corrupt(_))));
        assert_eq!(count(&writer).await, 0);
    }

    #[tokio::test]
    async fn when_a_transaction_is_undone_nobody_is_told_otherwise() {
        let writer = writer();
        let undoing = |c: &Connection| Ok(c.execute_batch("ROLLBACK")?);
        assert!(matches!(writer.write(undoing, |()| ()).await, Err(StoreError::Unavailable(_))));
        writer.write(insert(1), |()| ()).await.unwrap();
        assert_eq!(count(&writer).await, 1);
    }
}
