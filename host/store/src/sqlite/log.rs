//! Logs. Lines are stored in pieces of many: a row costs about as much as a piece does, and a task that says a lot would
//! keep the writer from everybody else. Outside of this store a line is a row, as in backups.

use super::row::{Id, Json, signed, unsigned};
use crate::StoreError;
use crate::standing::bytes_of_line;
use crate::transfer::{Row, Value, unfit};
use innkeeper_domain::ids::RunId;
use innkeeper_domain::limits::LOG_WRITE_LINES;
use innkeeper_domain::run::{LogLevel, LogLine};
use innkeeper_domain::time::{from_micros, to_micros};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use uuid::Uuid;

/// The table of the pieces.
pub(super) const TABLE: &str = "log_piece";
/// The table that it is elsewhere, with a row for each line, and its columns.
pub(super) const LINES: &str = "run_log";
pub(super) const COLUMNS: [&str; 6] = ["at", "attempt", "level", "run_id", "sequence", "text"];

/// A line in a piece: its number, its instant in microseconds, its level, its text.
type Stored<Text> = (u32, i64, u8, Text);

/// Adds those lines to a log that it hasn't yet, and says what they count among the stored bytes.
pub(super) fn add(c: &Connection, run: RunId, lines: &[LogLine]) -> Result<u64, StoreError> {
    let of_attempts = lines.chunk_by(|one, next| one.attempt == next.attempt);
    of_attempts.map(|lines| add_of_attempt(c, run, lines)).sum()
}

fn add_of_attempt(c: &Connection, run: RunId, lines: &[LogLine]) -> Result<u64, StoreError> {
    let numbers = || lines.iter().map(|line| line.sequence);
    let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else { return Ok(0) };
    let attempt = lines[0].attempt;
    let mut overlapping = c.prepare_cached(
        "SELECT last, lines FROM log_piece WHERE run_id = ?1 AND attempt = ?2 AND last >= ?3 AND first <= ?4",
    )?;
    let overlapping = overlapping.query_map(params![Id(run.0), attempt, first, last], |row| {
        Ok((row.get::<_, u32>(0)?, row.get::<_, Json<Vec<Stored<String>>>>(1)?.0))
    })?;
    let overlapping: Vec<_> = overlapping.collect::<Result<_, _>>()?;
    if overlapping.is_empty() && lines.is_sorted_by(|one, next| one.sequence < next.sequence) {
        insert(c, run, lines)?;
        return Ok(lines.iter().map(|line| bytes_of_line(&line.text)).sum());
    }
    // Said again, or not in order.
    let mut stored = 0;
    let mut all = BTreeMap::new();
    for (last, there) in overlapping {
        c.prepare_cached("DELETE FROM log_piece WHERE run_id = ?1 AND attempt = ?2 AND last = ?3")?
            .execute(params![Id(run.0), attempt, last])?;
        all.extend(there.into_iter().map(|line| (line.0, line_of(attempt, line))));
    }
    for line in lines {
        if let Entry::Vacant(place) = all.entry(line.sequence) {
            stored += bytes_of_line(&line.text);
            place.insert(line.clone());
        }
    }
    insert(c, run, &all.into_values().collect::<Vec<_>>())?;
    Ok(stored)
}

/// Stores lines of an attempt, in order, of which none is there.
fn insert(c: &Connection, run: RunId, mut lines: &[LogLine]) -> Result<(), StoreError> {
    let mut insert = c.prepare_cached(
        "INSERT INTO log_piece (run_id, attempt, first, last, count, text_bytes, lines)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    while let (piece, rest) = lines.split_at(LogLine::in_one_write(lines))
        && let [first, ..] = piece
        && let [.., last] = piece
    {
        let bytes = piece.iter().map(|line| line.text.len() as u64).sum();
        let stored = piece.iter().map(|line| -> Stored<&str> {
            (line.sequence, to_micros(line.at), line.level.number(), &line.text)
        });
        insert.execute(params![
            Id(run.0),
            first.attempt,
            first.sequence,
            last.sequence,
            signed(piece.len() as u64),
            signed(bytes),
            Json(stored.collect::<Vec<_>>()),
        ])?;
        lines = rest;
    }
    Ok(())
}

fn line_of(attempt: u32, (sequence, at, level, text): Stored<String>) -> LogLine {
    LogLine { attempt, sequence, at: from_micros(at), level: LogLevel::from_number(level), text }
}

/// Lines in order, after the one with this attempt and number.
pub(super) fn read(
    c: &Connection,
    run: RunId,
    after: (u32, u32),
    limit: usize,
) -> Result<Vec<LogLine>, StoreError> {
    let mut pieces = c.prepare_cached(
        "SELECT attempt, lines FROM log_piece WHERE run_id = ?1 AND (attempt, last) > (?2, ?3)
         ORDER BY attempt, last",
    )?;
    let mut pieces = pieces.query(params![Id(run.0), after.0, after.1])?;
    let mut lines = Vec::new();
    while lines.len() < limit
        && let Some(piece) = pieces.next()?
    {
        let (attempt, Json(stored)) = (piece.get(0)?, piece.get::<_, Json<Vec<Stored<String>>>>(1)?);
        let stored = stored.into_iter().map(|line| line_of(attempt, line));
        lines.extend(stored.filter(|line| (line.attempt, line.sequence) > after));
    }
    lines.truncate(limit);
    Ok(lines)
}

/// Bytes of an attempt's log, as far as it is stored.
pub(super) fn bytes(c: &Connection, run: RunId, attempt: u32) -> Result<u64, StoreError> {
    let sum = "SELECT coalesce(sum(text_bytes), 0) FROM log_piece WHERE run_id = ?1 AND attempt = ?2";
    let mut sum = c.prepare_cached(sum)?;
    Ok(unsigned(sum.query_row(params![Id(run.0), attempt], |row| row.get(0))?))
}

/// Deletes the beginning of a run's log: pieces until these are so many lines or a few more. How many lines, and bytes
/// of their texts.
pub(super) fn delete(c: &Connection, run: RunId, lines: i64) -> Result<(i64, i64), StoreError> {
    let (mut count, mut bytes, mut end) = (0, 0, None);
    let mut pieces = c.prepare_cached(
        "SELECT attempt, last, count, text_bytes FROM log_piece WHERE run_id = ?1 ORDER BY attempt, last",
    )?;
    let mut pieces = pieces.query([Id(run.0)])?;
    while count < lines
        && let Some(piece) = pieces.next()?
    {
        end = Some((piece.get::<_, u32>(0)?, piece.get::<_, u32>(1)?));
        count += piece.get::<_, i64>(2)?;
        bytes += piece.get::<_, i64>(3)?;
    }
    drop(pieces);
    if let Some((attempt, last)) = end {
        c.prepare_cached("DELETE FROM log_piece WHERE run_id = ?1 AND (attempt, last) <= (?2, ?3)")?
            .execute(params![Id(run.0), attempt, last])?;
    }
    Ok((count, bytes))
}

/// Every line there is, as a row of [`LINES`].
pub(super) fn each_row(
    c: &Connection,
    mut give: impl FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut pieces = c.prepare("SELECT run_id, attempt, lines FROM log_piece")?;
    let mut pieces = pieces.query([])?;
    while let Some(piece) = pieces.next()? {
        let (Id(run), attempt) = (piece.get(0)?, piece.get(1)?);
        for (sequence, at, level, text) in piece.get::<_, Json<Vec<Stored<String>>>>(2)?.0 {
            let (level, sequence) = (Value::Int(level.into()), Value::Int(sequence.into()));
            let run = Value::Blob(run.as_bytes().into());
            give(vec![Value::Int(at), Value::Int(attempt), level, run, sequence, Value::Text(text)])?;
        }
    }
    Ok(())
}

/// Rows of [`LINES`] on their way to pieces.
#[derive(Default)]
pub(super) struct Lines {
    run: Uuid,
    /// Of one attempt.
    lines: Vec<LogLine>,
}

impl Lines {
    /// Takes a row, with the columns [`COLUMNS`].
    pub fn take(&mut self, c: &Connection, row: Row) -> Result<(), StoreError> {
        let bad = || unfit("a row of a log is none");
        let Ok([at, attempt, level, run, sequence, text]) = <[Value; 6]>::try_from(row) else {
            return Err(bad());
        };
        let (Value::Int(at), Value::Blob(run), Value::Text(text)) = (at, run, text) else {
            return Err(bad());
        };
        let (Value::Int(attempt), Value::Int(level), Value::Int(sequence)) = (attempt, level, sequence)
        else {
            return Err(bad());
        };
        let run = Uuid::from_slice(&run).map_err(|_| bad())?;
        let (Ok(attempt), Ok(sequence)) = (attempt.try_into(), sequence.try_into()) else {
            return Err(bad());
        };
        // As a level that is out of range is read.
        let line = line_of(attempt, (sequence, at, u8::try_from(level).unwrap_or(u8::MAX), text));
        let goes_on = self.run == run && self.lines.last().is_some_and(|last| last.attempt == attempt);
        if !goes_on || self.lines.len() >= LOG_WRITE_LINES {
            self.store(c)?;
        }
        self.run = run;
        self.lines.push(line);
        Ok(())
    }

    /// Stores what was taken.
    pub fn store(&mut self, c: &Connection) -> Result<(), StoreError> {
        add(c, RunId(self.run), &mem::take(&mut self.lines)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{MIGRATIONS, migrate};
    use innkeeper_domain::Timestamp;
    use innkeeper_domain::limits::LOG_WRITE_BYTES;
    use proptest::prelude::*;

    fn store() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS.len()).unwrap();
        connection
    }

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    fn line(attempt: u32, sequence: u32, text: &str) -> LogLine {
        let at = from_micros(1_000_000 + i64::from(sequence));
        LogLine { attempt, sequence, at, level: LogLevel::Warn, text: text.into() }
    }

    fn all(c: &Connection, of: RunId) -> Vec<LogLine> {
        read(c, of, (0, 0), usize::MAX).unwrap()
    }

    fn pieces(c: &Connection) -> i64 {
        c.query_row("SELECT count(*) FROM log_piece", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_piece_has_as_many_lines_and_bytes_as_one_write() {
        let c = store();
        let many = LOG_WRITE_LINES as u32;
        let lines: Vec<_> = (1..=2 * many + 1).map(|n| line(1, n, "said")).collect();
        assert_eq!(add(&c, run(1), &lines).unwrap(), lines.len() as u64 * bytes_of_line("said"));
        assert_eq!((pieces(&c), all(&c, run(1)) == lines), (3, true));
        let long = "x".repeat(LOG_WRITE_BYTES - 1);
        add(&c, run(2), &[line(1, 1, &long), line(1, 2, "y"), line(1, 3, "z"), line(2, 1, "z")]).unwrap();
        assert_eq!(pieces(&c), 3 + 3);
        assert_eq!(bytes(&c, run(2), 1), Ok(LOG_WRITE_BYTES as u64 + 1));
        assert_eq!(bytes(&c, run(2), 2), Ok(1));
        assert_eq!(read(&c, run(2), (1, 2), 9).unwrap(), [line(1, 3, "z"), line(2, 1, "z")]);
    }

    #[test]
    fn what_is_deleted_is_the_beginning_and_a_piece_more_at_the_most() {
        let c = store();
        let piece = LOG_WRITE_LINES;
        let lines: Vec<_> = (1..=4 * piece as u32).map(|n| line(1, n, "said")).collect();
        add(&c, run(1), &lines).unwrap();
        add(&c, run(2), &lines[..1]).unwrap();
        let delete = |most: usize| delete(&c, run(1), most as i64).unwrap();
        let of_pieces = |number: usize| ((number * piece) as i64, (number * piece * 4) as i64);
        assert_eq!(delete(0), (0, 0));
        assert_eq!(delete(piece), of_pieces(1));
        assert_eq!(delete(piece + 1), of_pieces(2));
        assert_eq!(all(&c, run(1)), lines[3 * piece..]);
        assert_eq!(delete(usize::MAX >> 1), of_pieces(1));
        assert_eq!((all(&c, run(1)).len(), all(&c, run(2)).len()), (0, 1));
    }

    #[test]
    fn logs_of_an_older_schema_are_the_same_in_pieces() {
        let mut c = Connection::open_in_memory().unwrap();
        migrate(&mut c, 10).unwrap();
        let texts = [
            "",
            "a\0b",
            "\"quoted\" \\ [1,2]",
            "\u{1}\u{1f}\u{7f}\r\t",
            "žluťoučký 🦀 \u{2028}",
            "{\"a\":null}",
        ];
        let mut expected = Vec::new();
        for attempt in [2, 1] {
            // Not in their order.
            for sequence in (1..=600).rev() {
                let line = line(attempt, sequence, texts[sequence as usize % texts.len()]);
                c.execute(
                    "INSERT INTO run_log (run_id, attempt, sequence, at, level, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![Id(run(1).0), attempt, sequence, to_micros(line.at), line.level.number(), line.text],
                )
                .unwrap();
                expected.push(line);
            }
        }
        expected.sort_by_key(|line| (line.attempt, line.sequence));
        migrate(&mut c, MIGRATIONS.len()).unwrap();
        assert_eq!((all(&c, run(1)) == expected, pieces(&c)), (true, 6));
        let of = |attempt| expected.iter().filter(move |line| line.attempt == attempt);
        for attempt in [1, 2] {
            let expected = of(attempt).map(|line| line.text.len() as u64).sum();
            assert_eq!(bytes(&c, run(1), attempt), Ok(expected));
        }
        assert_eq!(add(&c, run(1), &expected).unwrap(), 0, "all of it is there");
        assert_eq!(read(&c, run(1), (1, 250), 1).unwrap(), expected[250..=250]);
    }

    #[test]
    fn a_row_that_is_none_is_refused() {
        let row = |change: fn(&mut Row)| {
            let mut row = vec![Value::Int(1), Value::Int(1), Value::Int(2)];
            row.extend([Value::Blob(vec![7; 16]), Value::Int(1), Value::Text("said".into())]);
            change(&mut row);
            let (c, mut lines) = (store(), Lines::default());
            lines.take(&c, row).and_then(|()| lines.store(&c)).map(|()| pieces(&c))
        };
        assert_eq!(row(|_| ()), Ok(1));
        let bad: [fn(&mut Row); 6] = [
            |row| row[0] = Value::Null,
            |row| row[1] = Value::Int(-1),
            |row| row[3] = Value::Blob(vec![7; 15]),
            |row| row[4] = Value::Int(1 << 32),
            |row| row[5] = Value::Blob(b"said".to_vec()),
            |row| row.truncate(5),
        ];
        for change in bad {
            assert!(matches!(row(change), Err(StoreError::Invalid(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever is said again, in whatever order, by whatever way it comes: each line is there once, as it was first.
        #[test]
        fn a_log_is_what_was_said_first(
            writes in prop::collection::vec((1_u128..3, 1_u32..3, 0_u32..2_000, 0_u32..1_300, any::<bool>()), 1..12),
            after in (0_u32..4, 0_u32..3_300), limit in 0_usize..2_000,
        ) {
            let (c, mut model) = (store(), BTreeMap::new());
            for (number, (of, attempt, first, count, descending)) in writes.into_iter().enumerate() {
                let mut lines: Vec<_> =
                    (first..first + count).map(|n| line(attempt, n, &format!("said {number}"))).collect();
                if descending {
                    lines.reverse();
                }
                let mut expected = 0;
                for line in &lines {
                    model.entry((of, attempt, line.sequence)).or_insert_with(|| {
                        expected += bytes_of_line(&line.text);
                        line.clone()
                    });
                }
                prop_assert_eq!(add(&c, run(of), &lines).unwrap(), expected);
            }
            for of in 1..3 {
                let expected = model.range((of, 0, 0)..(of + 1, 0, 0)).map(|(_, line)| line.clone());
                let expected: Vec<_> = expected.collect();
                let later = expected.iter().filter(|line| (line.attempt, line.sequence) > after).take(limit);
                prop_assert_eq!(read(&c, run(of), after, limit).unwrap(), later.cloned().collect::<Vec<_>>());
                // Out of the store and into another.
                let (other, mut lines) = (store(), Lines::default());
                each_row(&c, |row| lines.take(&other, row)).unwrap();
                lines.store(&other).unwrap();
                prop_assert_eq!(&all(&other, run(of)), &expected);
                for attempt in 1..3 {
                    let of_attempt = expected.iter().filter(|line| line.attempt == attempt);
                    let sum = of_attempt.map(|line| line.text.len() as u64).sum();
                    prop_assert_eq!(bytes(&c, run(of), attempt), Ok(sum));
                }
                let mut left = expected.len() as i64;
                while left > 0 {
                    let (count, _) = delete(&c, run(of), 100).unwrap();
                    prop_assert!(count >= left.min(100) && count < 100 + LOG_WRITE_LINES as i64);
                    left -= count;
                    prop_assert_eq!(all(&c, run(of)), &expected[expected.len() - left as usize..]);
                }
            }
        }
    }

    #[test]
    fn instants_are_kept_to_the_microsecond() {
        let c = store();
        for (number, at) in
            (1..).zip([Timestamp::UNIX_EPOCH, from_micros(-1), from_micros(253_370_764_799_999_999)])
        {
            let line = LogLine { at, ..line(1, number, "said") };
            add(&c, run(1), std::slice::from_ref(&line)).unwrap();
            assert_eq!(read(&c, run(1), (1, number - 1), 9).unwrap(), [line]);
        }
    }
}
