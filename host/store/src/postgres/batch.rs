//! Calls that come at the same time are done in one transaction: the database's disk is waited for once.

use crate::StoreError;
use innkeeper_domain::limits::WRITES_WAITING_MAX;
use std::future::Future;
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
        let results = match apply(Arc::clone(&calls)).await {
            Ok(results) => results,
            Err(error @ StoreError::Unavailable(_)) => vec_of(&error, calls.len()),
            Err(error) if calls.len() == 1 => vec_of(&error, 1),
            // One of them is to blame, and the others are not to suffer for it.
            Err(_) => one_by_one(&calls, &apply).await,
        };
        for (answer, result) in answers.into_iter().zip(results) {
            // Nobody waits any more: the call stands all the same.
            let _ = answer.send(result);
        }
    }
}

async fn one_by_one<C: Clone, A, F>(
    calls: &[C],
    apply: &impl Fn(Arc<Vec<C>>) -> F,
) -> Vec<Result<A, StoreError>>
where
    F: Future<Output = Result<Vec<Result<A, StoreError>>, StoreError>>,
{
    let mut results = Vec::with_capacity(calls.len());
    for call in calls {
        let missing = || Err(StoreError::Corrupt("a call was not answered".into()));
        results.push(match apply(Arc::new(vec![call.clone()])).await {
            Ok(answers) => answers.into_iter().next().unwrap_or_else(missing),
            Err(error) => Err(error),
        });
    }
    results
}

fn vec_of<A>(error: &StoreError, length: usize) -> Vec<Result<A, StoreError>> {
    (0..length).map(|_| Err(error.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::sync::Mutex;

    #[tokio::test]
    async fn calls_that_wait_are_done_together_and_only_the_bad_one_fails() {
        let tasks = TaskTracker::new();
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sizes);
        let batches = Batches::start(&tasks, 4, move |calls: Arc<Vec<u32>>| {
            let seen = Arc::clone(&seen);
            async move {
                seen.lock().unwrap().push(calls.len());
                if calls.contains(&3) {
                    return Err(StoreError::Corrupt("three".into()));
                }
                Ok(calls.iter().map(|call| Ok(call * 10)).collect())
            }
        });
        let answers = join_all((0..6).map(|n| batches.call(n))).await;
        let expected: Vec<_> = (0..6)
            .map(|n| if n == 3 { Err(StoreError::Corrupt("three".into())) } else { Ok(n * 10) })
            .collect();
        assert_eq!(answers, expected);
        assert!(sizes.lock().unwrap().iter().any(|size| *size > 1));
        drop(batches);
        tasks.close();
        tasks.wait().await;
    }
}
