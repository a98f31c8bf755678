//! One attempt, from its definition to its committed end.

use super::super::attempt::RunningAttempt;
use super::Shared;
use crate::executor::Invocation;
use crate::secret;
use futures::FutureExt;
use innkeeper_domain::failure::{AttemptEnd, Failure, FailureKind, Outcome, Usage};
use innkeeper_domain::grants;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::run::Claimed;
use innkeeper_domain::secret::{SealedSecret, SecretText};
use innkeeper_domain::task::TaskSpec;
use innkeeper_domain::{Timestamp, time};
use innkeeper_store::{Finish, StoreError};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long after its time, or after its grace to a cancel, an attempt is ended that the executor should have ended.
const OVERDUE: Duration = Duration::from_secs(10);

impl Shared {
    /// Executes an attempt and commits its end.
    pub(super) async fn attempt(&self, claimed: Claimed, attempt: Arc<RunningAttempt>) {
        let (run, try_number, end_by) = (claimed.lease.run, claimed.try_number, claimed.end_by);
        let (end, spec) = match self.spec(&claimed).await {
            Ok(spec) => {
                let end = match self.secrets(&claimed, &spec).await {
                    Ok(secrets) => self.execute(claimed, &spec, secrets, &attempt).await,
                    Err(failure) => failed(failure),
                };
                (end, Some(spec))
            }
            Err(error) => (internal(format!("the task's definition can't be read: {error}")), None),
        };
        attempt.executed.store(true, Ordering::Relaxed);
        let now = self.clock.now();
        let again_at = match (&end.outcome, spec) {
            // What can't begin before the run's deadline is no try.
            (Outcome::Failure(failure), Some(spec)) => {
                let again_at = spec.retry.next_attempt(run, try_number, failure, now);
                again_at.filter(|at| end_by.is_none_or(|by| *at < by))
            }
            _ => None,
        };
        let _storing = attempt.storing.lock().await;
        self.store_long_log(&attempt).await;
        let lines = attempt.remaining_lines();
        self.commit(Finish { lease: attempt.lease, end, again_at, lines }).await;
    }

    /// What the run is pinned to, with only those grants that the task has still.
    async fn spec(&self, claimed: &Claimed) -> Result<Arc<TaskSpec>, StoreError> {
        let (run, task, current) = (claimed.lease.run, claimed.task_id, claimed.current_revision);
        let pinned = self.patiently(run, || self.store.task_spec(task, claimed.revision)).await?;
        if current == claimed.revision {
            return Ok(pinned);
        }
        let current = self.patiently(run, || self.store.task_spec(task, current)).await?;
        Ok(Arc::new(grants::still_granted(&pinned, &current)))
    }

    /// The secrets that the task names, as they are now.
    async fn secrets(
        &self,
        claimed: &Claimed,
        spec: &TaskSpec,
    ) -> Result<BTreeMap<String, SecretText>, Failure> {
        if spec.secrets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let sealed = self.sealed(claimed, spec).await?;
        match secret::opened(&spec.secrets, &sealed, self.secrets.as_ref()).await {
            // A rotation may just have given up the key that they were read under: then they are under another now.
            Err(failure) => match self.sealed(claimed, spec).await? {
                again if again == sealed => Err(failure),
                again => secret::opened(&spec.secrets, &again, self.secrets.as_ref()).await,
            },
            opened => opened,
        }
    }

    async fn sealed(&self, claimed: &Claimed, spec: &TaskSpec) -> Result<Vec<SealedSecret>, Failure> {
        let get = || self.store.secrets_get(claimed.tenant_id, secret::names(&spec.secrets));
        self.patiently(claimed.lease.run, get).await.map_err(|error| {
            Failure::new(FailureKind::Internal, format!("the task's secrets can't be read: {error}"))
        })
    }

    /// What the store says. One that is away is waited for: that is no failure of the run's.
    async fn patiently<T, F>(&self, run: RunId, ask: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Err(StoreError::Unavailable(why)) => {
                    tracing::warn!(%run, why, "what an attempt needs can't be read; it tries again");
                    self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
                }
                known => return known,
            }
        }
    }

    async fn execute(
        &self,
        claimed: Claimed,
        spec: &Arc<TaskSpec>,
        secrets: BTreeMap<String, SecretText>,
        attempt: &Arc<RunningAttempt>,
    ) -> AttemptEnd {
        let timed_out_at = time::after(claimed.started_at, spec.timeout);
        let end_by = claimed.end_by.filter(|by| *by < timed_out_at);
        let deadline = end_by.unwrap_or(timed_out_at);
        let (timeout, grace) = (spec.timeout, spec.cancel_grace);
        let run = claimed.lease.run;
        let invocation = Invocation { claimed, spec: Arc::clone(spec), secrets, deadline };
        let port = Arc::clone(attempt);
        let execution = AssertUnwindSafe(self.executor.execute(invocation, port)).catch_unwind();
        let end = tokio::select! {
            biased;
            end = execution => end.unwrap_or_else(|_| {
                tracing::error!(%run, "the executor panicked");
                internal("the host panicked while it executed the attempt; its log has more".into())
            }),
            () = self.clock.sleep_until(time::after(deadline, OVERDUE)) => {
                tracing::error!(%run, "the executor didn't end an attempt at its deadline");
                failed(Failure::new(FailureKind::Timeout, format!("over its timeout of {timeout:?}")))
            }
            () = self.overdue_cancel(attempt, grace) => {
                tracing::error!(%run, "the executor didn't end an attempt that was cancelled");
                failed(Failure::new(FailureKind::Cancelled, "it was cancelled, and didn't end within its grace"))
            }
        };
        match end_by {
            Some(by) => of_deadline(end, by),
            None => end,
        }
    }

    /// Waits until a cancel is so long ago that the executor should have ended the attempt.
    async fn overdue_cancel(&self, attempt: &RunningAttempt, grace: Duration) {
        attempt.cancel.cancelled().await;
        self.clock.sleep_until(time::after(self.clock.now(), grace + OVERDUE)).await;
    }

    /// Stores so much of what the attempt has said that the rest is one write's.
    async fn store_long_log(&self, attempt: &RunningAttempt) {
        while let Some(news) = attempt.more_than_a_write() {
            match self.store_news_of(vec![news.clone()]).await {
                Ok(()) => attempt.stored(&news),
                Err(error) => {
                    tracing::warn!(run = %news.lease.run, %error, "a log can't be stored; it tries again");
                    self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
                }
            }
        }
    }

    /// Commits until the store takes it, or says that it is void.
    async fn commit(&self, finish: Finish) {
        loop {
            match self.store.run_finish_if_leased(finish.clone(), self.clock.now()).await {
                Ok(_) => return,
                Err(StoreError::LeaseLost) => {
                    tracing::warn!(run = %finish.lease.run, "an outcome was not committed now: its lease was lost, or an earlier try was committed unheard");
                    return;
                }
                Err(error) => {
                    tracing::error!(run = %finish.lease.run, %error, "an outcome can't be committed; it tries again");
                    self.clock.sleep_until(time::after(self.clock.now(), self.poll)).await;
                }
            }
        }
    }
}

/// The end of an attempt whose time was over with its run's: that is what it failed by, not its timeout.
fn of_deadline(mut end: AttemptEnd, by: Timestamp) -> AttemptEnd {
    if let Outcome::Failure(failure) = &mut end.outcome
        && failure.kind == FailureKind::Timeout
    {
        let message = format!("the run was not over by {by}, its deadline, and the attempt was ended");
        *failure = Failure::new(FailureKind::Deadline, message);
    }
    end
}

fn internal(message: String) -> AttemptEnd {
    failed(Failure::new(FailureKind::Internal, message))
}

/// The end of an attempt of which nothing more is known.
fn failed(failure: Failure) -> AttemptEnd {
    AttemptEnd { outcome: Outcome::Failure(failure), usage: Usage::default() }
}
