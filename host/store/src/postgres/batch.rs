//! Calls that come at the same time are done in one transaction: the database's disk is waited for once.

use super::row::is_too_long;
use crate::StoreError;
use futures::FutureExt;
use innkeeper_domain::limits::{BLOCKED_CALLS_MAX, WRITES_WAITING_MAX};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

type Waiting<C, A> = (C, oneshot::Sender<Result<A, StoreError>>);

/// Collects calls while the ones before are under way.
#[derive(Debug)]
pub(super) struct Batches<C, A> {
    queue: mpsc::Sender<Waiting<C, A>>,
}

impl<C: Clone + Send + Sync + 'static, A: Send + 'static> Batches<C, A> {
    /// `apply` does some calls in one transaction, and gives an answer to each. It ends when this is dropped
    /// and all are answered.
    pub fn start<F>(
        tasks: &TaskTracker,
        most: usize,
        apply: impl Fn(Arc<Vec<C>>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>> + Send,
    {
        let (queue, waiting) = mpsc::channel(WRITES_WAITING_MAX);
        tasks.spawn(async move { work(waiting, most, apply).await });
        Self { queue }
    }

    /// Does one call, and answers when it is on the database's disk.
    pub async fn call(&self, call: C) -> Result<A, StoreError> {
        let (answer, answered) = oneshot::channel();
        let closing = || StoreError::Unavailable("it is closing".into());
        self.queue.send((call, answer)).await.map_err(|_| closing())?;
        answered.await.map_err(|_| closing())?
    }
}

async fn work<C: Clone, A, F>(
    mut waiting: mpsc::Receiver<Waiting<C, A>>,
    most: usize,
    apply: impl Fn(Arc<Vec<C>>) -> F,
) where
    F: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    let mut batch = Vec::with_capacity(most);
    while waiting.recv_many(&mut batch, most).await > 0 {
        let (calls, answers): (Vec<C>, Vec<_>) = batch.drain(..).unzip();
        let calls = Arc::new(calls);
        let results = match caught(&apply, Arc::clone(&calls)).await {
            Ok(results) => results,
            Err(error) if calls.len() == 1 || is_away(&error) => vec_of(&error, calls.len()),
            // One of them is to blame, and the others are not to suffer for it.
            Err(_) => one_by_one(&calls, &apply).await,
        };
        for (answer, result) in answers.into_iter().zip(results) {
            // Nobody waits any more: the call stands all the same.
            let _ = answer.send(result);
        }
    }
}

/// Whether the database itself can't be used, so that to try again at once only multiplies the wait.
fn is_away(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_)) && !is_too_long(error)
}

/// What `apply` answers. A panic of it is an answer too: without the worker nobody would get one any more.
async fn caught<C, A, F>(
    apply: &impl Fn(Arc<Vec<C>>) -> F,
    calls: Arc<Vec<C>>,
) -> Result<Vec<Result<A, StoreError>>, StoreError>
where
    F: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    let panicked = |_| Err(StoreError::Corrupt("a write panicked; see the host's log".into()));
    AssertUnwindSafe(async { apply(calls).await }).catch_unwind().await.unwrap_or_else(panicked)
}

/// Gives up when the database goes away, or too many of the calls are blocked.
async fn one_by_one<C: Clone, A, F>(
    calls: &[C],
    apply: &impl Fn(Arc<Vec<C>>) -> F,
) -> Vec<Result<A, StoreError>>
where
    F: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    let mut results = Vec::with_capacity(calls.len());
    let mut blocked = 0;
    for call in calls {
        let missing = || Err(StoreError::Corrupt("a call was not answered".into()));
        match caught(apply, Arc::new(vec![call.clone()])).await {
            Ok(answers) => results.push(answers.into_iter().next().unwrap_or_else(missing)),
            Err(error) => {
                blocked += usize::from(is_too_long(&error));
                if is_away(&error) || blocked == BLOCKED_CALLS_MAX {
                    results.extend(vec_of(&error, calls.len() - results.len()));
                    break;
                }
                results.push(Err(error));
            }
        }
    }
    results
}

fn vec_of<A>(error: &StoreError, length: usize) -> Vec<Result<A, StoreError>> {
    (0..length).map(|_| Err(error.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::row::too_long;
    use super::*;
    use futures::future::join_all;
    use std::sync::Mutex;

    /// The answers to these calls, made at once, and how many were applied together each time.
    async fn call_all(
        calls: std::ops::Range<u32>,
        apply: fn(&u32) -> Result<u32, StoreError>,
    ) -> (Vec<Result<u32, StoreError>>, Vec<usize>) {
        let tasks = TaskTracker::new();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let batches = Batches::start(&tasks, 4, move |calls: Arc<Vec<u32>>| {
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().unwrap().push(calls.len());
                calls.iter().map(apply).map(|answer| answer.map(Ok)).collect()
            }
        });
        let answers = join_all(calls.map(|n| batches.call(n))).await;
        drop(batches);
        tasks.close();
        tasks.wait().await;
        let sizes = sizes.lock().unwrap().clone();
        (answers, sizes)
    }

    #[tokio::test]
    async fn calls_that_wait_are_done_together_and_only_the_bad_one_fails() {
        let bad = || StoreError::Corrupt("three".into());
        let (answers, sizes) = call_all(0..6, |n| match n {
            3 => Err(StoreError::Corrupt("three".into())),
            n => Ok(n * 10),
        })
        .await;
        let expected: Vec<_> = (0..6).map(|n| if n == 3 { Err(bad()) } else { Ok(n * 10) }).collect();
        assert_eq!(answers, expected);
        assert!(sizes.iter().any(|size| *size > 1));
    }

    #[tokio::test]
    async fn a_panic_fails_its_call_and_the_worker_goes_on() {
        let (answers, _) = call_all(0..6, |n| if *n == 1 { panic!("on purpose") } else { Ok(*n) }).await;
        assert!(matches!(&answers[1], Err(StoreError::Corrupt(why)) if why.contains("panicked")));
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    }

    #[tokio::test]
    async fn a_call_that_is_blocked_does_not_block_the_others() {
        let (answers, _) = call_all(0..4, |n| if *n == 1 { Err(too_long("locked")) } else { Ok(*n) }).await;
        assert_eq!(answers, [Ok(0), Err(too_long("locked")), Ok(2), Ok(3)]);
    }

    #[tokio::test]
    async fn when_the_database_is_away_it_is_waited_for_once() {
        let away = || StoreError::Unavailable("away".into());
        let (answers, sizes) = call_all(0..4, |_| Err(StoreError::Unavailable("away".into()))).await;
        assert_eq!((answers, sizes), (vec![Err(away()); 4], vec![4]));
    }
}
