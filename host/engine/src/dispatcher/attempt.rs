//! A running attempt, as the dispatcher sees it: what it has said, and whether it is to end.

use crate::clock::Clock;
use crate::executor::AttemptPort;
use async_trait::async_trait;
use innkeeper_domain::run::{Lease, LogLevel, LogLine, Progress};
use innkeeper_store::AttemptNews;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// One attempt that is being executed.
pub(super) struct RunningAttempt {
    pub lease: Lease,
    pub cancel: CancellationToken,
    /// Ends it at once, with nothing committed; what has its end already has some time to commit that.
    pub abandon: CancellationToken,
    /// It executes no more.
    pub executed: AtomicBool,
    /// It executes no more, and what it had to commit is committed.
    pub ended: CancellationToken,
    /// Locked while something of it is being stored, for the older mustn't come after the newer.
    pub storing: tokio::sync::Mutex<()>,
    clock: Arc<dyn Clock>,
    /// Told when there is something new to be stored.
    news: Arc<Notify>,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    next_sequence: u32,
    /// Lines that the store hasn't acknowledged.
    lines: Vec<LogLine>,
    /// The newest, until the store has acknowledged it.
    progress: Option<Progress>,
}

impl RunningAttempt {
    pub fn new(lease: Lease, clock: Arc<dyn Clock>, news: Arc<Notify>) -> Self {
        Self {
            lease,
            cancel: CancellationToken::new(),
            abandon: CancellationToken::new(),
            executed: AtomicBool::new(false),
            ended: CancellationToken::new(),
            storing: tokio::sync::Mutex::default(),
            clock,
            news,
            said: Mutex::default(),
        }
    }

    /// The first of what isn't stored yet, as much as one write takes; none if all is. It stays here until
    /// [`RunningAttempt::stored`].
    pub fn news(&self) -> Option<AttemptNews> {
        let said = self.said();
        if said.lines.is_empty() && said.progress.is_none() {
            return None;
        }
        let lines = said.lines[..LogLine::in_one_write(&said.lines)].to_vec();
        Some(AttemptNews { lease: self.lease, lines, progress: said.progress.clone() })
    }

    /// The same, if it has said more than one write takes.
    pub fn more_than_a_write(&self) -> Option<AttemptNews> {
        let is_more = {
            let said = self.said();
            LogLine::in_one_write(&said.lines) < said.lines.len()
        };
        if is_more { self.news() } else { None }
    }

    /// The store has these news.
    pub fn stored(&self, news: &AttemptNews) {
        let mut said = self.said();
        if let Some(last) = news.lines.last() {
            let stored = said.lines.partition_point(|line| line.sequence <= last.sequence);
            said.lines.drain(..stored);
        }
        if said.progress == news.progress {
            said.progress = None;
        }
    }

    /// The lines that aren't known to be stored.
    pub fn remaining_lines(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.said().lines)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AttemptPort for RunningAttempt {
    fn log(&self, level: LogLevel, text: String) {
        let at = self.clock.now();
        let mut said = self.said();
        said.next_sequence += 1;
        let line = LogLine { attempt: self.lease.attempt, sequence: said.next_sequence, at, level, text };
        said.lines.push(line);
        drop(said);
        self.news.notify_one();
    }

    fn progress(&self, progress: Progress) {
        self.said().progress = Some(progress);
        self.news.notify_one();
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }
}
