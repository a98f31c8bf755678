//! A run's log as the guest writes it: lines, within bounds.

use crate::mask::Mask;
use crate::stream::Sink;
use innkeeper_domain::limits::{LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LOG_NOTES_MAX};
use innkeeper_domain::quota::Quota;
use innkeeper_domain::run::LogLevel;
use innkeeper_engine::executor::AttemptPort;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wasmtime_wasi::p2::StreamResult;

/// Lines of stderr that a failed command's message quotes.
const TAIL_LINES: usize = 10;

/// Where the lines go, masked, with what is left of the bounds. Clones share both.
#[derive(Clone)]
pub(crate) struct Log {
    port: Arc<dyn AttemptPort>,
    mask: Mask,
    /// The tenant's bound of its bytes, if that is the lower one.
    quota: Option<usize>,
    state: Arc<Mutex<State>>,
}

struct State {
    bytes_left: usize,
    lines_left: usize,
    notes_left: usize,
    dropped: u64,
    /// Which bounds something was dropped for.
    held: BTreeSet<Bound>,
    tail: VecDeque<String>,
}

/// A bound of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Lines,
    Bytes,
    Notes,
}

impl Log {
    /// A log without these secrets, of at most so many bytes if the tenant's quotas say so.
    pub fn new(port: Arc<dyn AttemptPort>, mask: Mask, log_bytes: Option<u64>) -> Self {
        let quota = log_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let quota = quota.filter(|bytes| *bytes < LOG_BYTES_MAX);
        let state = State {
            bytes_left: quota.unwrap_or(LOG_BYTES_MAX),
            lines_left: LOG_LINES_MAX,
            notes_left: LOG_NOTES_MAX,
            dropped: 0,
            held: BTreeSet::new(),
            tail: VecDeque::new(),
        };
        Self { port, mask, quota, state: Arc::new(Mutex::new(state)) }
    }

    /// What takes secrets out of all that others can read of the attempt.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Adds what the guest says: each line of it a line, cut to its bound; dropped and counted beyond the
    /// run's bounds.
    pub fn write(&self, level: LogLevel, text: &str) {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let mut lines = text.split('\n');
        let left = self.state().lines_left;
        for line in lines.by_ref().take(left) {
            self.line(level, line.strip_suffix('\r').unwrap_or(line));
        }
        // More than are left to the log are only counted: a message can have millions.
        let more = lines.count();
        if more > 0 {
            self.state().drop_for(Bound::Lines, more as u64);
        }
    }

    /// Adds what the host says about the guest, whatever is left of the guest's own bounds.
    pub fn note(&self, level: LogLevel, text: String) {
        let mut state = self.state();
        if state.notes_left == 0 {
            state.drop_for(Bound::Notes, 1);
            return;
        }
        state.notes_left -= 1;
        drop(state);
        self.port.log(level, self.mask.beginning(&text, LOG_LINE_BYTES_MAX));
    }

    /// The last lines that were written to a stream, joined; empty if there are none.
    pub fn tail(&self) -> String {
        self.state().tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Tells how much was dropped, and why. To be called once, at the end.
    pub fn finish(&self) {
        let state = self.state();
        let (dropped, held) = (state.dropped, state.held.clone());
        drop(state);
        if dropped == 0 {
            return;
        }
        let bounds = held.into_iter().map(|bound| match (bound, self.quota) {
            (Bound::Lines, _) => format!("{LOG_LINES_MAX} lines"),
            (Bound::Bytes, None) => format!("{LOG_BYTES_MAX} bytes"),
            (Bound::Bytes, Some(bytes)) => {
                format!("{bytes} bytes (the tenant's quota `{}`)", Quota::RunLogBytes)
            }
            (Bound::Notes, _) => format!("{LOG_NOTES_MAX} lines of the host's"),
        });
        let bounds = bounds.collect::<Vec<_>>().join(" and ");
        self.port
            .log(LogLevel::Warn, format!("{dropped} more lines were dropped: a log has at most {bounds}"));
    }

    fn line(&self, level: LogLevel, line: &str) {
        // First, so that what is dropped anyway costs no search for secrets.
        if self.state().lines_left == 0 {
            self.state().drop_for(Bound::Lines, 1);
            return;
        }
        let line = self.mask.beginning(line, LOG_LINE_BYTES_MAX);
        let mut state = self.state();
        if state.bytes_left < line.len() {
            state.drop_for(Bound::Bytes, 1);
            return;
        }
        state.lines_left = state.lines_left.saturating_sub(1);
        state.bytes_left -= line.len();
        drop(state);
        self.port.log(level, line);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_for(&mut self, bound: Bound, lines: u64) {
        self.dropped += lines;
        self.held.insert(bound);
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

    fn add(&self, mut bytes: &[u8]) {
        let mut partial = self.partial();
        // When no lines are left to the log, more are only counted, but for the last, which a failure may quote.
        let is_full = self.log.state().lines_left == 0;
        if is_full && let Some(end) = end_before(bytes, TAIL_LINES) {
            let (counted, last) = bytes.split_at(end);
            let lines = counted.iter().filter(|byte| **byte == b'\n').count();
            self.log.state().drop_for(Bound::Lines, lines as u64);
            partial.clear();
            bytes = last;
        }
        // Of a line without end only so much is kept as would be shown, or tells that a secret begins there.
        let kept = LOG_LINE_BYTES_MAX + 1 + self.log.mask.longest();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = kept.saturating_sub(partial.len());
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
        let masked = self.log.mask.beginning(line, LOG_LINE_BYTES_MAX);
        let mut state = self.log.state();
        if state.tail.len() == TAIL_LINES {
            state.tail.pop_front();
        }
        state.tail.push_back(masked);
        drop(state);
        self.log.line(LogLevel::Info, line);
    }

    fn partial(&self) -> MutexGuard<'_, Vec<u8>> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the line ends after which so many more do; none if there aren't as many.
fn end_before(bytes: &[u8], lines: usize) -> Option<usize> {
    let ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| at + 1).nth(lines)
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
    use innkeeper_domain::secret::SecretText;
    use std::collections::BTreeMap;

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

    fn log(port: &Arc<Recorded>) -> Log {
        Log::new(port.clone(), Mask::new(&BTreeMap::new()), None)
    }

    fn texts(port: &Recorded) -> Vec<String> {
        port.lines.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    #[test]
    fn streams_become_lines_whatever_the_writes() {
        let port = Arc::new(Recorded::default());
        let stream = LogStream::new(log(&port));
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
        let log = log(&port);
        (0..LOG_NOTES_MAX + 5).for_each(|_| log.note(LogLevel::Warn, "denied".into()));
        log.finish();
        assert_eq!(texts(&port).len(), LOG_NOTES_MAX + 1);
        assert!(texts(&port).last().unwrap().starts_with("5 more lines"));
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let port = Arc::new(Recorded::default());
        let log = log(&port);
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

    #[test]
    fn what_a_full_log_has_no_lines_for_is_counted_and_its_last_lines_are_told() {
        let port = Arc::new(Recorded::default());
        let stream = LogStream::new(log(&port));
        stream.add(&b"\n".repeat(LOG_LINES_MAX));
        stream.add(b"begun");
        let last = (0..TAIL_LINES).map(|n| format!("{n}\n")).collect::<String>();
        stream.add(&[b"\n".repeat(1_000).as_slice(), last.as_bytes(), b"half"].concat());
        assert_eq!(stream.log.tail(), last.trim_end());
        stream.finish();
        assert_eq!(stream.log.tail().lines().last(), Some("half"));
        stream.log.write(LogLevel::Info, "one\ntwo\n");
        stream.log.finish();
        let texts = texts(&port);
        assert_eq!(texts.len(), LOG_LINES_MAX + 1);
        let dropped = 1_000 + TAIL_LINES + 1 + 2;
        assert!(
            texts[LOG_LINES_MAX].starts_with(&format!("{dropped} more lines")),
            "{}",
            texts[LOG_LINES_MAX]
        );
    }

    #[test]
    fn lines_have_their_ends_counted_from_the_last() {
        assert_eq!(
            [0, 1, 2, 3].map(|lines| end_before(b"a\nb\nc\nd", lines)),
            [Some(6), Some(4), Some(2), None]
        );
        assert_eq!(end_before(b"no end", 0), None);
    }

    #[test]
    fn secrets_are_masked_however_they_are_written() {
        let port = Arc::new(Recorded::default());
        let secret = SecretText::new("hunter2".into()).unwrap();
        let log = Log::new(port.clone(), Mask::new(&[("KEY".to_string(), secret)].into()), None);
        let stream = LogStream::new(log.clone());
        for piece in ["it is hun", "ter2\n", &"x".repeat(LOG_LINE_BYTES_MAX - 3), "hunter2\n"] {
            stream.add(piece.as_bytes());
        }
        log.write(LogLevel::Warn, "hunter2\nonce more: hunter2");
        log.note(LogLevel::Warn, "denied: HTTP to hunter2:80".into());
        let texts = texts(&port);
        assert_eq!((texts[0].as_str(), texts[1].trim_start_matches('x')), ("it is ***", "***"));
        assert_eq!(texts[2..], ["***", "once more: ***", "denied: HTTP to ***:80"]);
        assert!(!log.tail().contains("hun"), "{}", log.tail());
    }

    #[test]
    fn the_tenants_bound_is_named_when_it_held() {
        let port = Arc::new(Recorded::default());
        let log = Log::new(port.clone(), Mask::new(&BTreeMap::new()), Some(10));
        ["12345678", "901", "90"].iter().for_each(|line| log.write(LogLevel::Info, line));
        log.finish();
        assert_eq!(texts(&port)[..2], ["12345678", "90"]);
        let note = &texts(&port)[2];
        assert!(note.ends_with("a log has at most 10 bytes (the tenant's quota `run-log-bytes`)"), "{note}");
    }
}
