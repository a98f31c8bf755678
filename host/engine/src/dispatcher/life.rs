//! One incarnation of a host: it claims, executes and commits as long as its leases hold.

mod execution;

use super::Dispatcher;
use super::attempt::RunningAttempt;
use crate::secret::SecretOpener;
use futures::future::join_all;
use innkeeper_domain::host::{Host, HostState, Labels};
use innkeeper_domain::ids::HostId;
use innkeeper_domain::limits::{LARGE_WRITE_BYTES, RUNS_PER_STEP_MAX};
use innkeeper_domain::run::{Claimed, Lease};
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{AttemptNews, StoreError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Runs that are claimed at once.
const CLAIM_BATCH: usize = 256;

/// How long an attempt's first news wait for more, to be stored together.
const NEWS_DELAY: Duration = Duration::from_millis(50);

/// Writes of news that the store is asked for at one time, small ones and large ones.
const NEWS_WRITES: usize = 3;

/// After how many polls' time it looks for runs that are leased to it and that it doesn't know: a claim whose answer
/// was lost leaves such.
const RECONCILE_POLLS: u32 = 10;

/// How long a host tries to hand back what it has, and how often.
const HAND_BACK: Duration = Duration::from_secs(3);
const HAND_BACK_AGAIN: Duration = Duration::from_millis(200);

/// How long the end of an attempt may take to be committed when the host ends its attempts: what has been done isn't
/// done again because a store is slow.
const COMMIT_GRACE: Duration = Duration::from_secs(3);

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
    secrets: Arc<dyn SecretOpener>,
    host: HostId,
    labels: Labels,
    slots: Arc<Semaphore>,
    /// By lease: while an attempt is put away, the next one of the same run may be there already.
    running: Mutex<BTreeMap<Lease, Arc<RunningAttempt>>>,
    news: Arc<Notify>,
    /// Permits of the writes of news that the store is asked for at one time.
    small_news: Semaphore,
    large_news: Semaphore,
    tasks: TaskTracker,
    /// Ends every attempt as its own token does.
    abandon: CancellationToken,
    /// The longest wait between two looks at the store.
    poll: Duration,
    /// How long attempts have when the host is drained.
    drain_grace: Duration,
    /// Whether a drain has ended attempts that are to be handed back.
    drained: AtomicBool,
}

impl Life {
    pub fn new(dispatcher: &Dispatcher, host: &Host, lease_until: Timestamp) -> Self {
        let config = &dispatcher.config;
        let shared = Shared {
            store: Arc::clone(&dispatcher.store),
            clock: Arc::clone(&dispatcher.clock),
            executor: Arc::clone(&dispatcher.executor),
            secrets: Arc::clone(&dispatcher.secrets),
            host: host.id,
            labels: host.labels.clone(),
            slots: Arc::new(Semaphore::new(usize::try_from(host.capacity).unwrap_or(usize::MAX))),
            running: Mutex::default(),
            news: Arc::default(),
            small_news: Semaphore::new(NEWS_WRITES),
            large_news: Semaphore::new(NEWS_WRITES),
            tasks: TaskTracker::new(),
            abandon: CancellationToken::new(),
            poll: config.poll,
            drain_grace: config.drain_grace,
            drained: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), lease: config.lease, drain_grace: config.drain_grace, lease_until }
    }

    /// Lives until it is told to stop or the leases are lost; all its attempts have ended then.
    pub async fn live(mut self, stop: &CancellationToken) -> Ending {
        let shared = Arc::clone(&self.shared);
        let housekeeping = async {
            tokio::join!(shared.store_news(), shared.reap(), shared.expire());
        };
        tokio::pin!(housekeeping);
        let lost = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = self.keep_leases() => true,
            () = shared.follow_orders() => true,
            () = shared.claim() => true,
            _ = &mut housekeeping => false,
        };
        shared.tasks.close();
        let grace_over = time::after(shared.clock.now(), self.drain_grace);
        let lost = lost
            || tokio::select! {
                biased;
                () = shared.tasks.wait() => false,
                () = self.keep_leases() => true,
                () = shared.follow_orders() => true,
                () = shared.clock.sleep_until(grace_over) => false,
                _ = &mut housekeeping => false,
            };
        // Ends what runs, with nothing committed. What has only to be committed may wait for what is being stored of it.
        shared.abandon.cancel();
        tokio::select! {
            biased;
            () = shared.tasks.wait() => {}
            () = self.keep_leases(), if !lost => shared.tasks.wait().await,
            _ = &mut housekeeping => {}
        }
        // So that what is left need not wait for the end of its lease.
        shared.hand_back().await;
        if lost { Ending::LeaseLost } else { Ending::Stopped }
    }

    /// Renews the leases when a third of their time is over; returns when they are lost, or so late that the
    /// attempts must be ended while they still hold.
    async fn keep_leases(&mut self) {
        let shared = Arc::clone(&self.shared);
        let third = self.lease / 3;
        let mut next = time::before(self.lease_until, third * 2);
        loop {
            shared.clock.sleep_until(next).await;
            let asked_at = shared.clock.now();
            let until = time::after(asked_at, self.lease);
            // However long the store takes: past this point nothing may be executed.
            let too_late = time::before(self.lease_until, third);
            let patience = time::after(asked_at, third / 2).min(too_late);
            let renewed = tokio::select! {
                biased;
                renewed = shared.store.host_renew(shared.host, until) => renewed,
                () = shared.clock.sleep_until(patience) => Err(StoreError::Unavailable("it doesn't answer".into())),
            };
            match renewed {
                Ok(()) => {
                    self.lease_until = until;
                    next = time::before(until, third * 2);
                }
                Err(StoreError::LeaseLost) => {
                    tracing::error!("the store has ended the host's leases");
                    return;
                }
                Err(error) if shared.clock.now() >= too_late => {
                    tracing::error!(%error, "the host's leases could not be renewed in time");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the host's leases can't be renewed; it tries again");
                    next = time::after(shared.clock.now(), third / 10).min(too_late);
                }
            }
        }
    }
}

impl Shared {
    /// Claims ready runs as long as there is room, and executes them. Returns when the leases are lost.
    async fn claim(self: &Arc<Self>) {
        let mut reconcile_at = time::after(self.clock.now(), self.poll * RECONCILE_POLLS);
        loop {
            if self.drained.swap(false, Ordering::Relaxed) {
                reconcile_at = self.clock.now();
            }
            if self.clock.now() >= reconcile_at {
                let wait = if self.reconcile().await { self.poll * RECONCILE_POLLS } else { self.poll };
                reconcile_at = time::after(self.clock.now(), wait);
            }
            let first = tokio::select! {
                biased;
                first = Arc::clone(&self.slots).acquire_owned() => first,
                () = self.clock.sleep_until(reconcile_at) => continue,
            };
            let Ok(first) = first else { return };
            let mut permits = vec![first];
            while permits.len() < CLAIM_BATCH
                && let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned()
            {
                permits.push(permit);
            }
            let room = permits.len();
            let asked_at = self.clock.now();
            let claimed = match self.store.runs_claim(self.host, &self.labels, room, asked_at).await {
                Ok(claimed) => claimed,
                Err(StoreError::LeaseLost) => return,
                Err(error) => {
                    tracing::error!(%error, "runs can't be claimed; it tries again");
                    drop(permits);
                    self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
                    continue;
                }
            };
            let all_taken = claimed.len() == room;
            let mut permits = permits.into_iter();
            for (run, permit) in claimed.into_iter().zip(permits.by_ref()) {
                self.begin(run, permit);
            }
            drop(permits);
            if !all_taken {
                self.wait_for_runs(asked_at, reconcile_at).await;
            }
        }
    }

    async fn wait_for_runs(&self, asked_at: Timestamp, at_most: Timestamp) {
        let poll = time::after(self.clock.now(), self.poll).min(at_most);
        let next = self.store.runs_next_ready(&self.labels, asked_at).await.ok().flatten();
        // What was ready and yet not claimed isn't this host's to have: it is cordoned, or another was faster.
        let next = next.filter(|next| *next > asked_at);
        tokio::select! {
            biased;
            () = self.clock.sleep_until(next.map_or(poll, |next| next.min(poll))) => {}
            () = self.store.hints().runs_ready.notified() => {}
        }
    }

    /// Hands back what is leased to this host and not executed by it: runs that a drain ended, and those of a
    /// claim whose answer was lost. Called between claims, so that none is on its way. Whether it could.
    async fn reconcile(&self) -> bool {
        let keep = self.running().keys().copied().collect();
        match self.store.host_release(self.host, keep, self.clock.now()).await {
            Ok(0) => true,
            Ok(runs) => {
                tracing::info!(runs, "runs that this host doesn't execute were handed back");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the store can't be asked for the host's leases");
                false
            }
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
                biased;
                () = shared.abandoned(&attempt) => {}
                () = shared.attempt(claimed, Arc::clone(&attempt)) => {}
            }
            shared.running().remove(&lease);
            drop(permit);
            attempt.ended.cancel();
        });
    }

    /// Waits until the attempt is to be ended, whatever it does.
    async fn abandoned(&self, attempt: &RunningAttempt) {
        tokio::select! {
            biased;
            () = self.abandon.cancelled() => {}
            () = attempt.abandon.cancelled() => {}
        }
        if attempt.executed.load(Ordering::Relaxed) {
            self.clock.sleep_until(time::after(self.clock.now(), COMMIT_GRACE)).await;
        }
    }

    /// Stores what attempts say, soon after they say it.
    async fn store_news(&self) {
        loop {
            self.news.notified().await;
            self.clock.sleep_until(time::after(self.clock.now(), NEWS_DELAY)).await;
            let attempts: Vec<Arc<RunningAttempt>> = self.running().values().cloned().collect();
            // One that ends stores what it has said by itself.
            let news = attempts.iter().filter_map(|attempt| {
                let storing = attempt.storing.try_lock().ok()?;
                Some(Said { attempt, news: attempt.news()?, _storing: storing })
            });
            let stored = join_all(in_writes(news).into_iter().map(|write| self.store_said(write))).await;
            if let Some(error) = stored.into_iter().find_map(Result::err) {
                tracing::warn!(%error, "what attempts say can't be stored; it tries again");
                self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
                self.news.notify_one();
            } else if attempts.iter().any(|attempt| attempt.news().is_some()) {
                self.news.notify_one();
            }
        }
    }

    async fn store_said(&self, write: Vec<Said<'_>>) -> Result<(), StoreError> {
        self.store_news_of(write.iter().map(|said| said.news.clone()).collect()).await?;
        write.iter().for_each(|said| said.attempt.stored(&said.news));
        Ok(())
    }

    /// A few at one time: whatever they say, a store has more to do. Those that are much don't keep others waiting.
    async fn store_news_of(&self, news: Vec<AttemptNews>) -> Result<(), StoreError> {
        let is_much = news.iter().map(AttemptNews::cost).sum::<usize>() >= LARGE_WRITE_BYTES;
        let writes = if is_much { &self.large_news } else { &self.small_news };
        let _permit = writes.acquire().await;
        self.store.runs_news(news).await
    }

    /// Takes up the runs of hosts that are lost.
    async fn reap(&self) {
        loop {
            if let Err(error) = self.store.hosts_reap(self.host, self.clock.now()).await {
                tracing::warn!(%error, "the store can't be asked for lost hosts");
            }
            self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
        }
    }

    /// Ends runs whose deadlines have passed, and those that their hosts should have ended, whatever became of these.
    async fn expire(&self) {
        loop {
            let all = match self.store.runs_expire(self.clock.now(), RUNS_PER_STEP_MAX).await {
                Ok(ended) => ended < RUNS_PER_STEP_MAX as u64,
                Err(error) => {
                    tracing::warn!(%error, "the store can't be asked for runs whose deadlines have passed");
                    true
                }
            };
            if all {
                self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
            }
        }
    }

    /// Tells running attempts that they are to end, and drains the host when it is told to. Returns when
    /// the leases are lost.
    async fn follow_orders(&self) {
        let mut draining_since = None;
        loop {
            match self.store.host_orders(self.host).await {
                Ok(orders) => {
                    let running = self.running();
                    orders
                        .cancelled
                        .iter()
                        .filter_map(|lease| running.get(lease))
                        .for_each(|a| a.cancel.cancel());
                    drop(running);
                    draining_since = match orders.state {
                        HostState::Draining => draining_since.or_else(|| Some(self.clock.now())),
                        HostState::Active | HostState::Cordoned => None,
                    };
                }
                Err(StoreError::LeaseLost) => return,
                Err(error) => tracing::warn!(%error, "the store can't be asked for the host's orders"),
            }
            let now = self.clock.now();
            if draining_since.is_some_and(|since| now >= time::after(since, self.drain_grace)) {
                self.drain().await;
            }
            tokio::select! {
                biased;
                () = self.store.hints().orders.notified() => {}
                () = self.clock.sleep_until(time::after(now, self.poll)) => {}
            }
        }
    }

    /// Ends what runs, with nothing committed. The claims' loop hands it back.
    async fn drain(&self) {
        let attempts: Vec<_> = self.running().values().cloned().collect();
        if attempts.is_empty() {
            return;
        }
        for attempt in &attempts {
            attempt.abandon.cancel();
        }
        for attempt in &attempts {
            attempt.ended.cancelled().await;
        }
        tracing::info!(runs = attempts.len(), "the host is drained");
        self.drained.store(true, Ordering::Relaxed);
        self.store.hints().runs_ready.notify_one();
    }

    /// Ends the leases in order, if the store can be asked.
    async fn hand_back(&self) {
        let patience = time::after(self.clock.now(), HAND_BACK);
        loop {
            let stopped = tokio::select! {
                biased;
                stopped = self.store.host_stop(self.host, self.clock.now()) => stopped,
                () = self.clock.sleep_until(patience) => Err(StoreError::Unavailable("it doesn't answer".into())),
            };
            match stopped {
                Ok(0) => return,
                Ok(runs) => return tracing::warn!(runs, "runs that had not ended were handed back"),
                Err(error) if self.clock.now() >= patience => {
                    return tracing::error!(
                        %error,
                        "the host can't end its leases; its runs are taken up when they run out"
                    );
                }
                Err(_) => self.clock.sleep_until(time::after(self.clock.now(), HAND_BACK_AGAIN)).await,
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Lease, Arc<RunningAttempt>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an attempt has said, on its way to the store.
struct Said<'a> {
    attempt: &'a Arc<RunningAttempt>,
    news: AttemptNews,
    _storing: tokio::sync::MutexGuard<'a, ()>,
}

/// What some attempts have said, in writes: what many say that say little together, so that nobody's few lines wait for
/// another's many.
fn in_writes<'a>(news: impl Iterator<Item = Said<'a>>) -> Vec<Vec<Said<'a>>> {
    let (mut writes, mut together, mut all) = (Vec::new(), Vec::new(), 0);
    for said in news {
        let more = said.news.cost();
        if more >= LARGE_WRITE_BYTES {
            writes.push(vec![said]);
            continue;
        }
        if all + more >= LARGE_WRITE_BYTES {
            writes.push(std::mem::take(&mut together));
            all = 0;
        }
        all += more;
        together.push(said);
    }
    writes.push(together);
    writes.retain(|write| !write.is_empty());
    writes
}
