//! The time that processors work for attempts: what their tenants have left of it, and who has had much of it lately.

use crate::crowd::processors;
use innkeeper_domain::ids::TenantId;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What an attempt may work among the host's own tasks, before it counts as long.
const FIRST_SLICE: Duration = Duration::from_millis(2);
/// How fast it is forgotten what a tenant's attempts have worked: half of it in so long.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// What counts as nothing.
const NEGLIGIBLE: Duration = Duration::from_micros(10);
/// The part of all processors' time that tenants who aren't alone may have among the host's own tasks, all together.
const FIRST_PART: f64 = 0.1;
/// How often it is looked who has been forgotten.
const LOOK: Duration = Duration::from_millis(200);

/// The meters of tenants whose attempts execute, or did lately.
#[derive(Debug)]
pub(crate) struct Meters {
    sums: Mutex<Sums>,
    /// How many tenants had attempts lately.
    active: AtomicUsize,
    processors: usize,
}

#[derive(Debug)]
struct Sums {
    of: HashMap<TenantId, Arc<Sum>>,
    looked: Instant,
}

/// CPU time of a tenant's attempts on this host, in nanoseconds.
#[derive(Debug)]
struct Sum {
    spent: AtomicU64,
    /// What of it attempts spent that have ended. Never ahead of `spent` for who acquires it.
    ended: AtomicU64,
    recent: Mutex<Recent>,
}

/// What was spent lately: a sum in which what is long ago counts little.
#[derive(Debug, Clone, Copy)]
struct Recent {
    spent: Duration,
    at: Instant,
}

impl Recent {
    fn at(self, now: Instant) -> Self {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        Self { spent: self.spent.mul_f64(0.5_f64.powf(halves)), at: now }
    }
}

impl Sum {
    fn new(now: Instant) -> Self {
        let recent = Mutex::new(Recent { spent: Duration::ZERO, at: now });
        Self { spent: AtomicU64::new(0), ended: AtomicU64::new(0), recent }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recently_spent(&self, now: Instant) -> Duration {
        self.recent().at(now).spent
    }

    fn spend(&self, took: Duration) {
        self.spent.fetch_add(nanos(took), Ordering::AcqRel);
        let mut recent = self.recent();
        let mut then = recent.at(Instant::now());
        then.spent += took;
        *recent = then;
    }
}

impl Meters {
    /// Meters of nobody yet, on a machine with so many processors.
    pub fn new() -> Self {
        let sums = Sums { of: HashMap::new(), looked: Instant::now() };
        Self { sums: Mutex::new(sums), active: AtomicUsize::new(0), processors: processors() }
    }

    /// The meter of an attempt that begins. The bound is what its tenant had left at its claim; all attempts of the
    /// tenant draw from it. What others have used that execute now counts, and what any of them uses from now on.
    /// What one used that has ended doesn't, for the claim knew it; unless it ended and its end wasn't committed
    /// when this one was claimed. By so much, and by one tick of the epoch for each that executes, the bound may be
    /// passed on this host.
    pub fn begin(&self, tenant: TenantId, bound: Option<Duration>) -> Meter {
        let now = Instant::now();
        let sum = self.sum(tenant, now);
        let share = bound.map(|bound| {
            let before = sum.ended.load(Ordering::Acquire);
            Share { before, bound: nanos(bound) }
        });
        let long = self.is_much(sum.recently_spent(now));
        Meter { used: Duration::ZERO, sum, share, long: Arc::new(AtomicBool::new(long)) }
    }

    /// Whether a tenant has spent so much lately that its attempts count as long from their beginning. One that is
    /// alone never has; others have a part of the time together, and each its share of that.
    fn is_much(&self, spent: Duration) -> bool {
        let others = self.active.load(Ordering::Relaxed).saturating_sub(1);
        // What somebody spends all the time adds up to in the end.
        let all = HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2 * self.processors as f64;
        others > 0 && spent.as_secs_f64() > all * FIRST_PART / others as f64
    }

    fn sum(&self, tenant: TenantId, now: Instant) -> Arc<Sum> {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(sums.looked) >= LOOK {
            sums.looked = now;
            sums.of.retain(|_, sum| Arc::strong_count(sum) > 1 || sum.recently_spent(now) > NEGLIGIBLE);
            self.active.store(sums.of.len(), Ordering::Relaxed);
        }
        Arc::clone(sums.of.entry(tenant).or_insert_with(|| Arc::new(Sum::new(now))))
    }
}

/// Counts the time of a future's polls on the clock of the thread that polls, against its tenant's bound. The attempt
/// has ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    used: Duration,
    sum: Arc<Sum>,
    share: Option<Share>,
    long: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Share {
    /// What had ended at the beginning.
    before: u64,
    bound: u64,
}

/// The bound is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsedUp;

impl Meter {
    /// What the attempt used so far.
    pub fn used(&self) -> Duration {
        self.used
    }

    /// Tells, also while somebody else polls, whether the attempt counts as long: it has worked for some time, or its
    /// tenant has.
    pub fn long(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.long)
    }

    /// Polls, unless the bound is reached. A guest yields at every tick of the epoch, so it is passed by no more
    /// than that; a future that is ready then is taken as it is.
    pub fn poll<F: Future>(
        &mut self,
        future: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<Result<F::Output, UsedUp>> {
        if self.is_used_up() {
            return Poll::Ready(Err(UsedUp));
        }
        let begun = thread_clock();
        let polled = future.poll(context);
        let took = thread_clock().saturating_sub(begun);
        self.used += took;
        self.sum.spend(took);
        match polled {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.is_used_up() => Poll::Ready(Err(UsedUp)),
            Poll::Pending => {
                if self.used >= FIRST_SLICE {
                    self.long.store(true, Ordering::Relaxed);
                }
                Poll::Pending
            }
        }
    }

    fn is_used_up(&self) -> bool {
        self.share.as_ref().is_some_and(|share| {
            self.sum.spent.load(Ordering::Acquire).saturating_sub(share.before) >= share.bound
        })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.sum.ended.fetch_add(nanos(self.used), Ordering::AcqRel);
    }
}

/// Enough for 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long processors have worked for this thread.
pub(crate) fn thread_clock() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is negative, and there are less than 10^9 nanoseconds.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::Timestamp;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Instant;

    fn of_bound(bound: Option<Duration>) -> Meter {
        Meters::new().begin(TenantId::new(Timestamp::UNIX_EPOCH), bound)
    }

    fn work(duration: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn it_counts_work_and_no_waiting() {
        let mut meter = of_bound(None);
        let mut busy = pin!(async {
            for _ in 0..5 {
                // More than the wait, for the thread may have to share the processor.
                work(Duration::from_millis(20));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let begun = Instant::now();
        assert_eq!(poll_fn(|context| meter.poll(busy.as_mut(), context)).await, Ok(()));
        assert!(meter.used() > Duration::ZERO && meter.used() < begun.elapsed() / 2, "{meter:?}");
    }

    #[tokio::test]
    async fn the_bound_ends_what_goes_on_and_leaves_what_is_ready() {
        let bound = Some(Duration::from_millis(5));
        let mut meter = of_bound(bound);
        let mut endless = pin!(async {
            loop {
                work(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        });
        let ended: Result<(), _> = poll_fn(|context| meter.poll(endless.as_mut(), context)).await;
        assert_eq!((ended, meter.used() >= Duration::from_millis(5)), (Err(UsedUp), true));
        let mut meter = of_bound(Some(Duration::from_nanos(1)));
        let mut ready = pin!(async { work(Duration::from_millis(1)) });
        assert_eq!(poll_fn(|context| meter.poll(ready.as_mut(), context)).await, Ok(()));
        let mut meter = of_bound(Some(Duration::ZERO));
        let mut never = pin!(async { unreachable!("there is no time for it") });
        let ended: Result<(), _> = poll_fn(|context| meter.poll(never.as_mut(), context)).await;
        assert_eq!(ended, Err(UsedUp));
    }

    async fn end<T>(meter: &mut Meter, future: impl Future<Output = T>) -> Result<T, UsedUp> {
        let mut future = pin!(future);
        poll_fn(|context| meter.poll(future.as_mut(), context)).await
    }

    #[tokio::test]
    async fn attempts_of_a_tenant_draw_from_one_bound_and_those_that_have_ended_from_none() {
        let meters = Meters::new();
        let (one, other) = (TenantId::new(Timestamp::UNIX_EPOCH), TenantId::new(Timestamp::UNIX_EPOCH));
        let bound = Some(Duration::from_millis(20));
        let mut first = meters.begin(one, bound);
        let until = thread_clock() + Duration::from_millis(30);
        let busy = async { while thread_clock() < until {} };
        assert_eq!(end(&mut first, busy).await, Ok(()));
        let mut second = meters.begin(one, bound);
        let used = first.used();
        assert!(used >= Duration::from_millis(20), "{used:?}");
        assert_eq!(end(&mut second, async {}).await, Err(UsedUp), "the first still executes");
        assert_eq!(end(&mut meters.begin(other, bound), async {}).await, Ok(()));
        drop(first);
        assert_eq!(end(&mut second, async {}).await, Err(UsedUp), "it was in flight when the second began");
        assert_eq!(end(&mut meters.begin(one, bound), async {}).await, Ok(()), "its claim knew of it");
    }

    #[test]
    fn tenants_are_forgotten_when_it_is_long_ago_that_they_spent() {
        let meters = Meters::new();
        let tenants: Vec<_> = (0..50).map(|_| TenantId::new(Timestamp::UNIX_EPOCH)).collect();
        let begun = Instant::now();
        for tenant in &tenants {
            meters.begin(*tenant, None).sum.spend(Duration::from_millis(100));
        }
        meters.sum(tenants[0], begun + LOOK);
        assert_eq!(meters.active.load(Ordering::Relaxed), 50);
        let _executes = meters.begin(tenants[1], None);
        meters.sum(tenants[0], begun + Duration::from_secs(3600));
        assert_eq!(meters.active.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn who_has_spent_much_lately_counts_as_long_unless_nobody_else_is_there() {
        let meters = Meters::new();
        let [greedy, modest] = [(); 2].map(|()| TenantId::new(Timestamp::UNIX_EPOCH));
        let is_long = |tenant| meters.begin(tenant, None).long().load(Ordering::Relaxed);
        meters.begin(greedy, None).sum.spend(Duration::from_secs(3600));
        meters.sum(greedy, Instant::now() + LOOK);
        assert!(!is_long(greedy), "it is alone");
        meters.begin(modest, None).sum.spend(Duration::from_millis(1));
        meters.sum(modest, Instant::now() + 2 * LOOK);
        assert!(is_long(greedy) && !is_long(modest));
    }
}
