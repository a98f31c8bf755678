//! Simulated time: it passes only when there is nothing left to do, and then at once up to the next moment at which
//! somebody wants to be woken. One thread does everything, so that the order of things is always the same.

use innkeeper_domain::Timestamp;
use innkeeper_domain::time::{from_micros, to_micros};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The time that is true, whatever the clocks of the hosts show.
#[derive(Debug)]
pub struct Time(Mutex<State>);

#[derive(Debug)]
struct State {
    /// In microseconds since 1970.
    now: i64,
    /// Who is to be woken, by when and by who came first.
    sleepers: BTreeMap<(i64, u64), Waker>,
    came: u64,
}

impl Time {
    pub fn new(at: Timestamp) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { now: to_micros(at), sleepers: BTreeMap::new(), came: 0 })))
    }

    pub fn now(&self) -> Timestamp {
        from_micros(self.state().now)
    }

    /// Waits for so long.
    pub fn sleep(self: &Arc<Self>, time: Duration) -> Sleep {
        let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let until = self.state().now.saturating_add(micros);
        Sleep { time: Arc::clone(self), until, key: None }
    }

    /// Waits until then.
    pub fn sleep_until(self: &Arc<Self>, at: Timestamp) -> Sleep {
        Sleep { time: Arc::clone(self), until: to_micros(at), key: None }
    }

    /// What `work` gives, while time passes as it should.
    pub fn run<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        let time = Arc::clone(self);
        let runtime = tokio::runtime::Builder::new_current_thread()
            // Called when there is nothing to do; whoever is woken by it is polled next.
            .on_thread_park(move || time.pass())
            .build()
            .expect("a runtime");
        runtime.block_on(work)
    }

    fn pass(&self) {
        let mut state = self.state();
        let Some((&(next, _), _)) = state.sleepers.first_key_value() else {
            drop(state);
            panic!("nothing will ever happen any more");
        };
        state.now = state.now.max(next);
        let later = state.sleepers.split_off(&(next + 1, 0));
        let woken = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait; over when it is dropped.
pub struct Sleep {
    time: Arc<Time>,
    until: i64,
    key: Option<(i64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let time = Arc::clone(&self.time);
        let mut state = time.state();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            state.came += 1;
            (self.until, state.came)
        });
        state.sleepers.insert(key, context.waker().clone());
        drop(state);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.time.state().sleepers.remove(&key);
        }
    }
}
