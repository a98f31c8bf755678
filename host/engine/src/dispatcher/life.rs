//! One incarnation of a host: it claims, executes and commits as long as its leases hold.

use super::attempt::RunningAttempt;
use super::{Dispatcher, POLL};
use crate::executor::Invocation;
use futures::FutureExt;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::ids::HostId;
use innkeeper_domain::limits::CANCEL_GRACE;
use innkeeper_domain::run::{Claimed, Lease};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Finish, StoreError};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs that are claimed at once.
const CLAIM_BATCH: usize = 256;

/// How long an attempt's first news wait for more, to be stored together.
const NEWS_DELAY: Duration = Duration::from_millis(50);

/// How long after its deadline an attempt is ended that the executor should have ended.
const OVERDUE: Duration = Duration::from_secs(5);

/// Why an incarnation ended.
pub(super) enum Ending {
    Stopped,
    LeaseLost,
}

/// One incarnation.
pub(super) struct Life {
    shared: Arc<Shared>,
    lease: Duration,
    drain_grace: Duration,
    lease_until: Timestamp,
}

/// What the incarnation's tasks have in common.
struct Shared {
    store: Arc<dyn innkeeper_store::Store>,
    clock: Arc<dyn crate::clock::Clock>,
    executor: Arc<dyn crate::executor::Executor>,
    host: HostId,
    slots: Arc<Semaphore>,
    /// By lease: while an attempt is put away, the next one of the same run may be there already.
    running: Mutex<HashMap<Lease, Arc<RunningAttempt>>>,
    news: Arc<Notify>,
    tasks: TaskTracker,
    /// Ends every attempt at once, with nothing committed.
    abandon: CancellationToken,
}

impl Life {
    pub fn new(dispatcher: &Dispatcher, host: HostId, lease_until: Timestamp) -> Self {
        let shared = Shared {
            store: Arc::clone(&dispatcher.store),
            clock: Arc::clone(&dispatcher.clock),
            executor: Arc::clone(&dispatcher.executor),
            host,
            slots: Arc::new(Semaphore::new(dispatcher.config.capacity)),
            running: Mutex::default(),
            news: Arc::default(),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
        };
        let config = &dispatcher.config;
        Self { shared: Arc::new(shared), lease: config.lease, drain_grace: config.drain_grace, lease_until }
    }

    /// Lives until it is told to stop or the leases are lost; all its attempts have ended then.
    pub async fn live(mut self, stop: &CancellationToken) -> Ending {
        let shared = Arc::clone(&self.shared);
        let housekeeping = async {
            tokio::join!(shared.store_news(), shared.pass_on_cancels());
        };
        tokio::pin!(housekeeping);
        let lost = tokio::select! {
            () = stop.cancelled() => false,
            () = self.keep_leases() => true,
            () = shared.claim() => false,
            _ = &mut housekeeping => false,
        };
        shared.tasks.close();
        if lost {
            shared.abandon.cancel();
            shared.tasks.wait().await;
            return Ending::LeaseLost;
        }
        let grace_over = time::after(shared.clock.now(), self.drain_grace);
        let lost = tokio::select! {
            () = shared.tasks.wait() => false,
            () = self.keep_leases() => true,
            () = shared.clock.sleep_until(grace_over) => false,
            _ = &mut housekeeping => false,
        };
        shared.abandon.cancel();
        shared.tasks.wait().await;
        if lost {
            return Ending::LeaseLost;
        }
        shared.hand_back().await;
        Ending::Stopped
    }

    /// Renews the leases; returns when they are lost, or would be before the attempts can be ended.
    async fn keep_leases(&mut self) {
        let shared = &self.shared;
        loop {
            shared.clock.sleep_until(time::after(shared.clock.now(), self.lease / 3)).await;
            let now = shared.clock.now();
            let until = time::after(now, self.lease);
            match shared.store.host_renew(shared.host, until).await {
                Ok(()) => self.lease_until = until,
                Err(StoreError::LeaseLost) => return,
                Err(error) => tracing::warn!(%error, "the host's leases can't be renewed; it tries again"),
            }
            if shared.clock.now() >= time::before(self.lease_until, self.lease / 3) {
                return;
            }
            if let Err(error) = shared.store.hosts_reap(now).await {
                tracing::warn!(%error, "the store can't be asked for lost hosts");
            }
        }
    }
}

impl Shared {
    /// Claims ready runs as long as there is room, and executes them.
    async fn claim(self: &Arc<Self>) {
        loop {
            let Ok(first) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let mut permits = vec![first];
            while permits.len() < CLAIM_BATCH
                && let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned()
            {
                permits.push(permit);
            }
            let room = permits.len();
            let claimed = match self.store.runs_claim(self.host, room, self.clock.now()).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::error!(%error, "runs can't be claimed; it tries again");
                    self.clock.sleep_until(time::after(self.clock.now(), POLL)).await;
                    continue;
                }
            };
            let all_taken = claimed.len() == room;
            for (run, permit) in claimed.into_iter().zip(permits) {
                self.begin(run, permit);
            }
            if !all_taken {
                self.wait_for_runs().await;
            }
        }
    }

    async fn wait_for_runs(&self) {
        let now = self.clock.now();
        let poll = time::after(now, POLL);
        let next = self.store.runs_next_ready().await.ok().flatten();
        tokio::select! {
            () = self.clock.sleep_until(next.map_or(poll, |next| next.min(poll))) => {}
            () = self.store.hints().runs_ready.notified() => {}
        }
    }

    fn begin(self: &Arc<Self>, claimed: Claimed, permit: OwnedSemaphorePermit) {
        let attempt =
            Arc::new(RunningAttempt::new(claimed.lease, Arc::clone(&self.clock), Arc::clone(&self.news)));
        self.running().insert(claimed.lease, Arc::clone(&attempt));
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let lease = claimed.lease;
            tokio::select! {
                () = shared.abandon.cancelled() => {}
                () = shared.attempt(claimed, attempt) => {}
            }
            shared.running().remove(&lease);
            drop(permit);
        });
    }

    /// Executes an attempt and commits its end.
    async fn attempt(&self, claimed: Claimed, attempt: Arc<RunningAttempt>) {
        let (run, try_number) = (claimed.lease.run, claimed.try_number);
        let (end, spec) = match self.store.task_spec(claimed.task_id, claimed.revision).await {
            Ok(spec) => (self.execute(claimed, &spec, &attempt).await, Some(spec)),
            Err(error) => (internal(format!("the task's definition can't be read: {error}")), None),
        };
        let now = self.clock.now();
        let again_at = match (&end.outcome, spec) {
            (Outcome::Failure(failure), Some(spec)) => spec.retry.next_attempt(run, try_number, failure, now),
            _ => None,
        };
        let lines = attempt.remaining_lines();
        self.commit(Finish { lease: attempt.lease, end, again_at, lines }).await;
    }

    async fn execute(
        &self,
        claimed: Claimed,
        spec: &Arc<TaskSpec>,
        attempt: &Arc<RunningAttempt>,
    ) -> AttemptEnd {
        let deadline = time::after(claimed.started_at, spec.timeout);
        let timeout = spec.timeout;
        let run = claimed.lease.run;
        let invocation = Invocation { claimed, spec: Arc::clone(spec), deadline };
        let port = Arc::clone(attempt);
        let execution = AssertUnwindSafe(self.executor.execute(invocation, port)).catch_unwind();
        let overdue = time::after(deadline, CANCEL_GRACE + OVERDUE);
        tokio::select! {
            end = execution => end.unwrap_or_else(|_| {
                tracing::error!(%run, "the executor panicked");
                internal("the host panicked while it executed the attempt; its log has more".into())
            }),
            () = self.clock.sleep_until(overdue) => {
                tracing::error!(%run, "the executor didn't end an attempt at its deadline");
                let failure = Failure::new(FailureKind::Timeout, format!("over its timeout of {timeout:?}"));
                AttemptEnd { outcome: Outcome::Failure(failure), usage: Usage::default() }
            }
        }
    }

    /// Commits until the store takes it, or says that it is void.
    async fn commit(&self, finish: Finish) {
        loop {
            match self.store.run_finish_if_leased(finish.clone(), self.clock.now()).await {
                Ok(_) => return,
                Err(StoreError::LeaseLost) => {
                    tracing::warn!(run = %finish.lease.run, "an outcome came after its lease was lost; it is void");
                    return;
                }
                Err(error) => {
                    tracing::error!(run = %finish.lease.run, %error, "an outcome can't be committed; it tries again");
                    self.clock.sleep_until(time::after(self.clock.now(), POLL)).await;
                }
            }
        }
    }

    /// Stores what attempts say, soon after they say it.
    async fn store_news(&self) {
        loop {
            self.news.notified().await;
            self.clock.sleep_until(time::after(self.clock.now(), NEWS_DELAY)).await;
            let attempts: Vec<Arc<RunningAttempt>> = self.running().values().cloned().collect();
            let news: Vec<_> = attempts.iter().filter_map(|a| Some((a, a.news()?))).collect();
            if news.is_empty() {
                continue;
            }
            match self.store.runs_news(news.iter().map(|(_, news)| news.clone()).collect()).await {
                Ok(()) => news.iter().for_each(|(attempt, news)| attempt.stored(news)),
                Err(error) => {
                    tracing::warn!(%error, "what attempts say can't be stored; it tries again");
                    self.clock.sleep_until(time::after(self.clock.now(), POLL)).await;
                    self.news.notify_one();
                }
            }
        }
    }

    /// Tells running attempts that they are to end.
    async fn pass_on_cancels(&self) {
        loop {
            match self.store.runs_cancelled(self.host).await {
                Ok(leases) => {
                    let running = self.running();
                    leases.iter().filter_map(|lease| running.get(lease)).for_each(|a| a.cancel.cancel());
                }
                Err(error) => tracing::warn!(%error, "the store can't be asked for cancelled runs"),
            }
            let poll = time::after(self.clock.now(), POLL);
            tokio::select! {
                () = self.store.hints().cancels.notified() => {}
                () = self.clock.sleep_until(poll) => {}
            }
        }
    }

    async fn hand_back(&self) {
        match self.store.host_stop(self.host, self.clock.now()).await {
            Ok(0) => {}
            Ok(runs) => tracing::warn!(runs, "runs that had not ended were handed back"),
            Err(error) => {
                tracing::error!(%error, "the host can't end its leases; its runs are taken up when they run out");
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Lease, Arc<RunningAttempt>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn internal(message: String) -> AttemptEnd {
    let failure = Failure::new(FailureKind::Internal, message);
    AttemptEnd { outcome: Outcome::Failure(failure), usage: Usage::default() }
}
