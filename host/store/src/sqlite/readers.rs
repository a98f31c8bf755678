//! Connections that only read.

use crate::StoreError;
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

#[derive(Debug)]
pub(super) enum Readers {
    Many {
        idle: Arc<Mutex<Vec<Connection>>>,
        permits: Arc<Semaphore>,
    },
    /// The writer's own connection, in the thread of whoever asks.
    Inline(Arc<Mutex<Connection>>),
}

impl Readers {
    pub fn new(connections: Vec<Connection>) -> Self {
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self::Many { idle: Arc::new(Mutex::new(connections)), permits }
    }

    /// Runs `read` in one read transaction, so that all it sees is of one moment.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (idle, permits) = match self {
            Self::Many { idle, permits } => (Arc::clone(idle), Arc::clone(permits)),
            Self::Inline(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                return read(&*connection.unchecked_transaction()?);
            }
        };
        let closing = || StoreError::Unavailable("it is closing".into());
        let permit = permits.acquire_owned().await.map_err(|_| closing())?;
        let work = move || {
            let _permit = permit;
            let mut lent = Lent::take(idle).ok_or_else(closing)?;
            let transaction = lent.connection.as_mut().ok_or_else(closing)?.transaction()?;
            read(&transaction)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Unavailable(e.to_string()))?
    }
}

/// A connection that goes back when this is dropped, after a panic too.
struct Lent {
    idle: Arc<Mutex<Vec<Connection>>>,
    connection: Option<Connection>,
}

impl Lent {
    /// There are as many connections as permits.
    fn take(idle: Arc<Mutex<Vec<Connection>>>) -> Option<Self> {
        let connection = idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Self { idle, connection: Some(connection) })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let connection = self.connection.take();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_no_connection() {
        let readers = Readers::new(vec![Connection::open_in_memory().unwrap()]);
        for _ in 0..3 {
            let panicking = readers.read(|_| -> Result<(), StoreError> { panic!("on purpose") }).await;
            assert!(matches!(panicking, Err(StoreError::Unavailable(_))));
        }
        let one = readers.read(|c| Ok(c.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?)).await;
        assert_eq!(one, Ok(1));
    }
}
