//! The one thread that writes. It takes what has queued up, runs each write in a savepoint of its own,
//! commits all together, and only then answers. Under simulated time there is no such thread: then each write is
//! committed where it is asked for.

use super::row::from_sqlite;
use crate::StoreError;
use innkeeper_domain::limits::{WRITES_PER_COMMIT_MAX, WRITES_WAITING_MAX};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tokio::sync::{mpsc, oneshot};

/// Runs in the transaction and gives what to do once it is known whether that was committed.
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

#[derive(Debug)]
pub(super) enum Writer {
    Thread {
        jobs: Option<mpsc::Sender<Job>>,
        thread: Mutex<Option<JoinHandle<()>>>,
    },
    /// Whoever asks waits for the commit, with all else that its thread does.
    Inline(Arc<Mutex<Connection>>),
}

impl Writer {
    pub fn start(connection: Connection) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel(WRITES_WAITING_MAX);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(&connection, queue))
            .map_err(|e| StoreError::Unavailable(format!("can't start a thread: {e}")))?;
        Ok(Self::Thread { jobs: Some(jobs), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `write` in a transaction and answers when it is on disk. An error of it undoes it alone.
    /// `after` is called on the writer's thread once it is committed, whether or not anybody waits still:
    /// the place for wake-ups.
    pub async fn write<T: Send + 'static>(
        &self,
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
            Self::Thread { jobs, .. } => {
                let jobs = jobs.as_ref().ok_or_else(stopped)?;
                jobs.send(job).await.map_err(|_| stopped())?;
            }
            Self::Inline(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                commit_together(&connection, &mut vec![job]);
            }
        }
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Self::Thread { jobs, thread } = self else { return };
        *jobs = None;
        let thread = thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn write_all(connection: &Connection, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(WRITES_PER_COMMIT_MAX);
    while queue.blocking_recv_many(&mut jobs, WRITES_PER_COMMIT_MAX) > 0 {
        commit_together(connection, &mut jobs);
    }
}

fn commit_together(connection: &Connection, jobs: &mut Vec<Job>) {
    let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(from_sqlite);
    let answers: Vec<Answer> = jobs.drain(..).map(|job| job(connection)).collect();
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
        Writer::start(connection).unwrap()
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
