//! What is done in turns: so much at one time on this host, and one thing at a time of one tenant. Others wait, as long
//! as their calls may take. Each tenant has a line of its own, and only the first in it waits beside other tenants'.

use innkeeper_domain::ids::TenantId;
use innkeeper_domain::limits::COMPONENTS_READ_MAX;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{AcquireError, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tonic::Status;

/// Gives turns to those who come, in their order. Clones give the same turns.
#[derive(Debug, Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    lines: Arc<Lines>,
    tasks: TaskTracker,
}

type Lines = Mutex<HashMap<TenantId, Line>>;

/// A tenant's, which is there as long as anybody is in it.
#[derive(Debug, Default)]
struct Line {
    first: Arc<tokio::sync::Mutex<()>>,
    places: usize,
}

/// A place in a tenant's line, given up when dropped.
#[derive(Debug)]
struct Place {
    lines: Arc<Lines>,
    tenant: TenantId,
}

/// Given back when dropped.
#[derive(Debug)]
struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: OwnedMutexGuard<()>,
    _place: Place,
}

impl Turns {
    /// For components that are read to see whether they are whole, each with its bytes in memory.
    pub fn reads(tasks: TaskTracker) -> Self {
        Self::new(COMPONENTS_READ_MAX, tasks)
    }

    fn new(all_max: usize, tasks: TaskTracker) -> Self {
        Self { all: Arc::new(Semaphore::new(all_max)), lines: Arc::default(), tasks }
    }

    /// Does something in a turn of the tenant's. The turn goes along with it: what has begun isn't ended, not even when
    /// its caller is gone.
    pub(crate) async fn take<T: Send + 'static>(
        &self,
        tenant: TenantId,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = self.turn(tenant).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let done = self.tasks.spawn(async move {
            let _turn = turn;
            work.await
        });
        done.await.map_err(|error| Status::internal(error.to_string()))
    }

    /// Waits for the tenant's turn first, so that who has many waiting keeps nobody else waiting.
    async fn turn(&self, tenant: TenantId) -> Result<Turn, AcquireError> {
        let (place, first) = self.stand(tenant);
        let of_tenant = first.lock_owned().await;
        let of_all = Arc::clone(&self.all).acquire_owned().await?;
        Ok(Turn { _of_all: of_all, _of_tenant: of_tenant, _place: place })
    }

    /// A place in the tenant's line, and what only the first in it holds.
    fn stand(&self, tenant: TenantId) -> (Place, Arc<tokio::sync::Mutex<()>>) {
        let mut lines = locked(&self.lines);
        let line = lines.entry(tenant).or_default();
        line.places += 1;
        (Place { lines: Arc::clone(&self.lines), tenant }, Arc::clone(&line.first))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = locked(&self.lines);
        if let Some(line) = lines.get_mut(&self.tenant) {
            line.places = line.places.saturating_sub(1);
            if line.places == 0 {
                lines.remove(&self.tenant);
            }
        }
    }
}

fn locked(lines: &Lines) -> MutexGuard<'_, HashMap<TenantId, Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, poll};
    use innkeeper_domain::Timestamp;
    use tokio::sync::oneshot;

    fn tenants<const N: usize>() -> [TenantId; N] {
        [0; N].map(|_| TenantId::new(Timestamp::UNIX_EPOCH))
    }

    /// How many turns are left, and how many tenants have lines.
    fn left(turns: &Turns) -> (usize, usize) {
        (turns.all.available_permits(), locked(&turns.lines).len())
    }

    #[tokio::test]
    async fn one_tenants_line_keeps_no_other_tenant_waiting() {
        let turns = Turns::new(2, TaskTracker::new());
        let [a, b, c] = tenants();
        let first = turns.turn(a).await.unwrap();
        let mut line: Vec<_> = (0..10).map(|_| Box::pin(turns.turn(a))).collect();
        for waiting in &mut line {
            assert!(poll!(waiting).is_pending(), "a tenant has one turn at a time");
        }
        let second = turns.turn(b).now_or_never().expect("another tenant has one at once").unwrap();
        let mut third = Box::pin(turns.turn(c));
        assert!(poll!(&mut third).is_pending(), "there are two in all");
        drop(first);
        assert!(poll!(&mut line[0]).is_pending(), "it is behind the third tenant");
        let third = third.now_or_never().expect("it was next").unwrap();
        drop(second);
        let fourth = line.remove(0).now_or_never().expect("it was next").unwrap();
        // Those who still wait give up, too.
        drop((third, fourth, line));
        assert_eq!(left(&turns), (2, 0), "nothing is left behind");
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_what_is_done_in_it() {
        let tasks = TaskTracker::new();
        let turns = Turns::new(1, tasks.clone());
        let [tenant] = tenants();
        let (end, ended) = oneshot::channel::<()>();
        let mut call = Box::pin(turns.take(tenant, ended));
        assert!(poll!(&mut call).is_pending());
        drop(call);
        assert_eq!(left(&turns), (0, 1), "the caller is gone, and the turn isn't");
        end.send(()).unwrap();
        tasks.close();
        tasks.wait().await;
        assert_eq!(left(&turns), (1, 0), "nothing is left behind");
        assert_eq!(turns.take(tenant, async { 7 }).await.unwrap(), 7);
    }
}
