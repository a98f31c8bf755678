//! The time that processors work for attempts, and what their tenants have left of it.

use innkeeper_domain::ids::TenantId;
use rustix::time::{ClockId, clock_gettime};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

/// The meters of tenants whose CPU time is bounded, as long as attempts of theirs execute.
#[derive(Debug, Default)]
pub(crate) struct Meters(Mutex<HashMap<TenantId, Weak<Sum>>>);

/// CPU time of a tenant's bounded attempts on this host, in nanoseconds.
#[derive(Debug, Default)]
struct Sum {
    spent: AtomicU64,
    /// What of it attempts spent that have ended. Never ahead of `spent` for who acquires it.
    ended: AtomicU64,
}

impl Meters {
    /// The meter of an attempt that begins. The bound is what its tenant had left at its claim; all attempts of the
    /// tenant draw from it. What others have used that execute now counts, and what any of them uses from now on.
    /// What one used that has ended doesn't, for the claim knew it; unless it ended and its end wasn't committed
    /// when this one was claimed. By so much, and by one tick of the epoch for each that executes, the bound may be
    /// passed on this host.
    pub fn begin(&self, tenant: TenantId, bound: Option<Duration>) -> Meter {
        let share = bound.map(|bound| {
            let sum = self.sum(tenant);
            let before = sum.ended.load(Ordering::Acquire);
            Share { sum, before, bound: nanos(bound) }
        });
        Meter { used: Duration::ZERO, share }
    }

    fn sum(&self, tenant: TenantId) -> Arc<Sum> {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sum) = sums.get(&tenant).and_then(Weak::upgrade) {
            return sum;
        }
        // Here and not when the last attempt has ended: there are no more than attempts.
        sums.retain(|_, sum| sum.strong_count() > 0);
        let sum = Arc::default();
        sums.insert(tenant, Arc::downgrade(&sum));
        sum
    }
}

/// Counts the time of a future's polls on the clock of the thread that polls, against its tenant's bound. The attempt
/// has ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    used: Duration,
    share: Option<Share>,
}

#[derive(Debug)]
struct Share {
    sum: Arc<Sum>,
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
        if let Some(share) = &self.share {
            share.sum.spent.fetch_add(nanos(took), Ordering::AcqRel);
        }
        match polled {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.is_used_up() => Poll::Ready(Err(UsedUp)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_used_up(&self) -> bool {
        self.share.as_ref().is_some_and(|share| {
            share.sum.spent.load(Ordering::Acquire).saturating_sub(share.before) >= share.bound
        })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.sum.ended.fetch_add(nanos(self.used), Ordering::AcqRel);
        }
    }
}

/// Enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long processors have worked for this thread.
fn thread_clock() -> Duration {
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
        Meters::default().begin(TenantId::new(Timestamp::UNIX_EPOCH), bound)
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
        let meters = Meters::default();
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
        drop(second);
        drop(meters.begin(TenantId::new(Timestamp::UNIX_EPOCH), bound));
        assert!(meters.0.lock().unwrap().len() <= 1);
    }
}
