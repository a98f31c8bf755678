//! The time that a processor works for an attempt.

use rustix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Counts the time of a future's polls on the clock of the thread that polls, against a bound.
#[derive(Debug)]
pub(crate) struct Meter {
    used: Duration,
    bound: Duration,
}

/// The bound is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsedUp;

impl Meter {
    pub fn new(bound: Option<Duration>) -> Self {
        Self { used: Duration::ZERO, bound: bound.unwrap_or(Duration::MAX) }
    }

    /// What was used so far.
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
        if self.used >= self.bound {
            return Poll::Ready(Err(UsedUp));
        }
        let begun = thread_clock();
        let polled = future.poll(context);
        self.used += thread_clock().saturating_sub(begun);
        match polled {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.used >= self.bound => Poll::Ready(Err(UsedUp)),
            Poll::Pending => Poll::Pending,
        }
    }
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
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Instant;

    fn work(duration: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn it_counts_work_and_no_waiting() {
        let mut meter = Meter::new(None);
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
        let mut meter = Meter::new(bound);
        let mut endless = pin!(async {
            loop {
                work(Duration::from_millis(1));
                tokio::task::yield_now().await;
            }
        });
        let ended: Result<(), _> = poll_fn(|context| meter.poll(endless.as_mut(), context)).await;
        assert_eq!((ended, meter.used() >= Duration::from_millis(5)), (Err(UsedUp), true));
        let mut meter = Meter::new(Some(Duration::from_nanos(1)));
        let mut ready = pin!(async { work(Duration::from_millis(1)) });
        assert_eq!(poll_fn(|context| meter.poll(ready.as_mut(), context)).await, Ok(()));
        let mut meter = Meter::new(Some(Duration::ZERO));
        let mut never = pin!(async { unreachable!("there is no time for it") });
        let ended: Result<(), _> = poll_fn(|context| meter.poll(never.as_mut(), context)).await;
        assert_eq!(ended, Err(UsedUp));
    }
}
