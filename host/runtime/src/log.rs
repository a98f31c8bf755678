//! A run's log as the guest writes it: lines, within bounds.

use crate::stream::Sink;
use innkeeper_domain::failure::cut;
use innkeeper_domain::limits::{LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LOG_NOTES_MAX};
use innkeeper_domain::run::LogLevel;
use innkeeper_engine::executor::AttemptPort;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime_wasi::p2::StreamResult;

/// Lines of stderr that a failed command's message quotes.
const TAIL_LINES: usize = 10;

/// Where the lines go, with what is left of the bounds. Clones share both.
#[derive(Clone)]
pub(crate) struct Log {
    port: Arc<dyn AttemptPort>,
    state: Arc<Mutex<State>>,
}

struct State {
    bytes_left: usize,
    lines_left: usize,
    notes_left: usize,
    dropped: u64,
    tail: VecDeque<String>,
}

impl Log {
    pub fn new(port: Arc<dyn AttemptPort>) -> Self {
        let state = State {
            bytes_left: LOG_BYTES_MAX,
            lines_left: LOG_LINES_MAX,
            notes_left: LOG_NOTES_MAX,
            dropped: 0,
            tail: VecDeque::new(),
        };
        Self { port, state: Arc::new(Mutex::new(state)) }
    }

    /// Adds what the guest says: each line of it a line, cut to its bound; dropped and counted beyond the
    /// run's bounds.
    pub fn write(&self, level: LogLevel, text: &str) {
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            self.line(level, line.strip_suffix('\r').unwrap_or(line));
        }
    }

    /// Adds what the host says about the guest, whatever is left of the guest's own bounds.
    pub fn note(&self, level: LogLevel, text: String) {
        let mut state = self.state();
        if state.notes_left == 0 {
            state.dropped += 1;
            return;
        }
        state.notes_left -= 1;
        drop(state);
        self.port.log(level, cut(text, LOG_LINE_BYTES_MAX));
    }

    /// The last lines that were written to a stream, joined; empty if there are none.
    pub fn tail(&self) -> String {
        self.state().tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Tells how much was dropped. To be called once, at the end.
    pub fn finish(&self) {
        let dropped = self.state().dropped;
        if dropped > 0 {
            self.port.log(
                LogLevel::Warn,
                format!("{dropped} more lines were dropped: a log has at most {LOG_LINES_MAX} lines and {LOG_BYTES_MAX} bytes"),
            );
        }
    }

    fn line(&self, level: LogLevel, line: &str) {
        let line = cut(line.into(), LOG_LINE_BYTES_MAX);
        let mut state = self.state();
        if state.lines_left == 0 || state.bytes_left < line.len() {
            state.dropped += 1;
            return;
        }
        state.lines_left -= 1;
        state.bytes_left -= line.len();
        drop(state);
        self.port.log(level, line);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest's stdout or stderr, whose lines go to the log as they are written.
#[derive(Clone)]
pub(crate) struct LogStream {
    log: Log,
    /// The line that has no end yet.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    pub fn new(log: Log) -> Self {
        Self { log, partial: Arc::default() }
    }

    /// Ends the last line.
    pub fn finish(&self) {
        let rest = std::mem::take(&mut *self.partial());
        if !rest.is_empty() {
            self.line(&rest);
        }
    }

    fn add(&self, bytes: &[u8]) {
        let mut partial = self.partial();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            // Of a line without end only so much is kept as would be shown.
            let room = LOG_LINE_BYTES_MAX.saturating_add(1).saturating_sub(partial.len());
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    partial.extend_from_slice(&end[..end.len().min(room)]);
                    let line = std::mem::take(&mut *partial);
                    self.line(&line);
                }
                None => partial.extend_from_slice(&piece[..piece.len().min(room)]),
            }
        }
    }

    fn line(&self, bytes: &[u8]) {
        let line = String::from_utf8_lossy(bytes);
        let line = line.strip_suffix('\r').unwrap_or(&line);
        let mut state = self.log.state();
        if state.tail.len() == TAIL_LINES {
            state.tail.pop_front();
        }
        state.tail.push_back(cut(line.into(), LOG_LINE_BYTES_MAX));
        drop(state);
        self.log.line(LogLevel::Info, line);
    }

    fn partial(&self) -> MutexGuard<'_, Vec<u8>> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for LogStream {
    fn take_in(&self, bytes: &[u8]) -> StreamResult<()> {
        self.add(bytes);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use innkeeper_domain::run::Progress;

    /// A port that keeps what it is told.
    #[derive(Default)]
    pub(crate) struct Recorded {
        pub lines: Mutex<Vec<(LogLevel, String)>>,
    }

    #[async_trait::async_trait]
    impl AttemptPort for Recorded {
        fn log(&self, level: LogLevel, text: String) {
            self.lines.lock().unwrap().push((level, text));
        }
        fn progress(&self, _: Progress) {}
        fn is_cancelled(&self) -> bool {
            false
        }
        async fn cancelled(&self) {
            std::future::pending().await
        }
    }

    fn texts(port: &Recorded) -> Vec<String> {
        port.lines.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn streams_become_lines_whatever_the_writes() {
        let port = Arc::new(Recorded::default());
        let stream = LogStream::new(Log::new(port.clone()));
        for piece in ["on", "e\r\ntwo\n\nth", "ree \u{fffd}"] {
            stream.add(piece.as_bytes());
        }
        stream.add(b"\xff!");
        stream.finish();
        stream.finish();
        assert_eq!(texts(&port), ["one", "two", "", "three \u{fffd}\u{fffd}!"]);
        assert_eq!(stream.log.tail().lines().count(), 4);
    }

    #[test]
    fn what_a_guest_makes_the_host_say_is_bounded_too() {
        let port = Arc::new(Recorded::default());
        let log = Log::new(port.clone());
        (0..LOG_NOTES_MAX + 5).for_each(|_| log.note(LogLevel::Warn, "denied".into()));
        log.finish();
        assert_eq!(texts(&port).len(), LOG_NOTES_MAX + 1);
        assert!(texts(&port).last().unwrap().starts_with("5 more lines"));
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let port = Arc::new(Recorded::default());
        let log = Log::new(port.clone());
        let stream = LogStream::new(log.clone());
        stream.add(&vec![b'x'; 3 * LOG_LINE_BYTES_MAX]);
        stream.add(b"\n");
        for _ in 0..2 * LOG_LINES_MAX {
            log.write(LogLevel::Info, "y");
        }
        log.finish();
        let texts = texts(&port);
        assert_eq!(texts[0].len(), LOG_LINE_BYTES_MAX);
        assert_eq!(texts.len(), LOG_LINES_MAX + 1);
        assert!(texts.last().unwrap().contains("10001 more lines were dropped"), "{}", texts.last().unwrap());
    }
}
