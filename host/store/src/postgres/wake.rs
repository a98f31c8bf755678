//! Wake-ups between hosts, by LISTEN and NOTIFY. They are gathered for a moment and sent outside of the
//! transactions that they tell of: NOTIFY makes commits wait for each other, and they are only hints.

use super::connection::{DatabaseUrl, connection};
use super::row::row;
use crate::{Hints, StoreError};
use deadpool_postgres::Pool;
use futures::StreamExt;
use innkeeper_domain::ids::RunId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CHANNEL: &str = "innkeeper";
/// How long wake-ups are gathered.
const GATHER: Duration = Duration::from_millis(5);
/// Runs that one message names: PostgreSQL's messages have less than 8,000 bytes.
const RUNS_PER_MESSAGE: usize = 200;
/// Runs that are named at once; more are told of as all.
const RUNS_MAX: usize = 2_000;
/// The first and the longest wait before the connection that listens is made again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Tells this host's waiters and the other hosts'.
#[derive(Debug)]
pub(super) struct Wakes {
    hints: Arc<Hints>,
    /// Which messages are this host's own.
    sender: Uuid,
    outbox: Mutex<Outbox>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Outbox {
    ready: bool,
    triggers: bool,
    backfills: bool,
    events: bool,
    orders: bool,
    runs: HashSet<RunId>,
    all_runs: bool,
}

impl Wakes {
    pub fn new(hints: Arc<Hints>) -> Self {
        Self { hints, sender: Uuid::now_v7(), outbox: Mutex::default(), filled: Notify::new() }
    }

    /// Runs may have become ready.
    pub fn runs_ready(&self) {
        self.hints.runs_ready.notify_one();
        self.outbox().ready = true;
        self.filled.notify_one();
    }

    /// A trigger may be due earlier than before.
    pub fn triggers_changed(&self) {
        self.hints.triggers_changed.notify_one();
        self.outbox().triggers = true;
        self.filled.notify_one();
    }

    /// A backfill may be able to go on.
    pub fn backfills_changed(&self) {
        self.hints.backfills_changed.notify_one();
        self.outbox().backfills = true;
        self.filled.notify_one();
    }

    /// Events may have come.
    pub fn events_changed(&self) {
        self.hints.events_changed();
        self.outbox().events = true;
        self.filled.notify_one();
    }

    /// A host has something to do.
    pub fn orders(&self) {
        self.hints.orders.notify_one();
        self.outbox().orders = true;
        self.filled.notify_one();
    }

    /// These runs, or their logs, have changed.
    pub fn runs_changed(&self, runs: impl IntoIterator<Item = RunId>) {
        let mut outbox = self.outbox();
        for run in runs {
            self.hints.run_changed(run);
            if outbox.runs.len() < RUNS_MAX {
                outbox.runs.insert(run);
            } else {
                outbox.all_runs = true;
            }
        }
        drop(outbox);
        self.filled.notify_one();
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends to the other hosts until it is stopped.
    pub async fn send(&self, pool: &Pool, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = self.filled.notified() => {}
                () = stop.cancelled() => return,
            }
            tokio::time::sleep(GATHER).await;
            let outbox = std::mem::take(&mut *self.outbox());
            for message in outbox.messages(self.sender) {
                if let Err(error) = notify(pool, &message).await {
                    // The others find out when they look by themselves.
                    tracing::debug!(%error, "a wake-up was not sent");
                }
            }
        }
    }

    /// Listens to the other hosts until it is stopped.
    pub async fn listen(&self, url: &DatabaseUrl, stop: &CancellationToken) {
        let mut wait = BACKOFF.0;
        while !stop.is_cancelled() {
            let mut heard = false;
            let listening = self.listen_once(url, &mut heard);
            let ended = tokio::select! {
                ended = listening => ended,
                () = stop.cancelled() => return,
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "wake-ups of other hosts can't be heard; it tries again");
            }
            wait = if heard { BACKOFF.0 } else { (wait * 2).min(BACKOFF.1) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn listen_once(&self, url: &DatabaseUrl, heard: &mut bool) -> Result<(), StoreError> {
        let (config, tls) = url.parts()?;
        let (client, mut connection) = config.connect(tls).await?;
        let mut messages = futures::stream::poll_fn(|context| connection.poll_message(context));
        let listen = format!("LISTEN {CHANNEL}");
        let listen = client.batch_execute(&listen);
        tokio::pin!(listen);
        let mut listens = false;
        loop {
            tokio::select! {
                result = &mut listen, if !listens => {
                    result?;
                    (listens, *heard) = (true, true);
                    // Whatever was told before is lost.
                    self.all();
                }
                message = messages.next() => match message {
                    Some(Ok(AsyncMessage::Notification(told))) => self.hear(told.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                }
            }
        }
    }

    fn all(&self) {
        self.hints.runs_ready.notify_one();
        self.hints.triggers_changed.notify_one();
        self.hints.backfills_changed.notify_one();
        self.hints.events_changed();
        self.hints.orders.notify_one();
        self.hints.all_runs_changed();
    }

    fn hear(&self, message: &str) {
        let mut parts = message.splitn(3, ' ');
        let (sender, flags) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if sender == self.sender.simple().to_string() {
            return;
        }
        for flag in flags.chars() {
            match flag {
                'r' => self.hints.runs_ready.notify_one(),
                't' => self.hints.triggers_changed.notify_one(),
                'b' => self.hints.backfills_changed.notify_one(),
                'e' => self.hints.events_changed(),
                'o' => self.hints.orders.notify_one(),
                'a' => self.hints.all_runs_changed(),
                // Of a newer version; it polls.
                _ => {}
            }
        }
        for run in parts.next().unwrap_or_default().split(',').filter_map(|id| Uuid::parse_str(id).ok()) {
            self.hints.run_changed(RunId(run));
        }
    }
}

impl Outbox {
    /// `SENDER FLAGS RUN,RUN,RUN`.
    fn messages(self, sender: Uuid) -> Vec<String> {
        let flags = [
            (self.ready, 'r'),
            (self.triggers, 't'),
            (self.backfills, 'b'),
            (self.events, 'e'),
            (self.orders, 'o'),
            (self.all_runs, 'a'),
        ];
        let flags: String = flags.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect();
        let mut runs: Vec<String> = Vec::new();
        if !self.all_runs {
            let ids: Vec<String> = self.runs.iter().map(|run| run.0.simple().to_string()).collect();
            runs = ids.chunks(RUNS_PER_MESSAGE).map(|ids| ids.join(",")).collect();
        }
        if runs.is_empty() {
            runs.push(String::new());
        }
        let sender = sender.simple();
        runs.iter()
            .enumerate()
            .map(|(at, runs)| format!("{sender} {} {runs}", if at == 0 { &flags } else { "" }))
            .collect()
    }
}

async fn notify(pool: &Pool, message: &str) -> Result<(), StoreError> {
    let connection = connection(pool).await?;
    row(&connection, "SELECT pg_notify($1, $2)", &[&CHANNEL, &message]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::Timestamp;

    #[tokio::test]
    async fn what_one_host_sends_wakes_another() {
        let (here, there) = (Wakes::new(Arc::default()), Wakes::new(Arc::default()));
        let run = RunId::new(Timestamp::UNIX_EPOCH);
        let mut watch = there.hints.watch_run(run);
        here.orders();
        here.runs_changed([run]);
        let messages = std::mem::take(&mut *here.outbox()).messages(here.sender);
        assert_eq!(messages.len(), 1);
        for message in &messages {
            there.hear(message);
        }
        there.hints.orders.notified().await;
        watch.changed().await;
    }

    #[test]
    fn messages_fit() {
        let wakes = Wakes::new(Arc::default());
        wakes.runs_changed((0..1_000).map(|n| RunId(Uuid::from_u128(n))));
        let messages = std::mem::take(&mut *wakes.outbox()).messages(wakes.sender);
        assert_eq!(messages.len(), 5);
        assert!(messages.iter().all(|message| message.len() < 8_000));
        wakes.runs_changed((0..3_000).map(|n| RunId(Uuid::from_u128(n))));
        let messages = std::mem::take(&mut *wakes.outbox()).messages(wakes.sender);
        assert_eq!(messages, [format!("{} a ", wakes.sender.simple())]);
    }
}
