//! Printing: data on stdout and nothing else there, everything else on stderr. What others wrote can't steer a terminal:
//! tables, facts, notes and JSON see to that themselves, and whoever prints a [`line()`] of its own does.

use super::Format;
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use console::{Term, measure_text_width};
use innkeeper_domain::Timestamp;
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// The width of a table that doesn't go to a terminal.
const WIDTH_ELSEWHERE: u16 = 200;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    heading: &'static str,
    align: CellAlignment,
    fit: Fit,
}

/// What becomes of a column where there isn't room for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Wraps,
    Whole,
    /// It is left out, those with the lowest number first.
    Goes(u8),
}

impl Column {
    /// Never wrapped.
    pub const fn whole(self) -> Self {
        Self { fit: Fit::Whole, ..self }
    }

    /// Left out where there isn't room; the one with the lowest number first.
    pub const fn goes(self, order: u8) -> Self {
        Self { fit: Fit::Goes(order), ..self }
    }
}

pub const fn text(heading: &'static str) -> Column {
    Column { heading, align: CellAlignment::Left, fit: Fit::Wraps }
}

pub const fn number(heading: &'static str) -> Column {
    Column { heading, align: CellAlignment::Right, fit: Fit::Wraps }
}

/// Prints rows: as a table, or the JSON that stands for them.
pub fn rows(
    format: Format,
    columns: &[Column],
    rows: Vec<Vec<String>>,
    json: impl FnOnce() -> Value,
) -> Result<()> {
    match format {
        Format::Json => self::json(&json()),
        Format::Table => {
            let terminal = Term::stdout();
            let width = if terminal.is_term() { terminal.size().1 } else { WIDTH_ELSEWHERE };
            line(&table(columns, rows, width))
        }
    }
}

/// Prints facts about one thing: one a line, or the JSON that stands for them. Empty ones are left out.
pub fn facts(format: Format, facts: &[(&str, String)], json: impl FnOnce() -> Value) -> Result<()> {
    if format == Format::Json {
        return self::json(&json());
    }
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        line(&format!("{:width$}  {}", console::style(name).dim(), indented(value, width + 2)))?;
    }
    Ok(())
}

/// A value whose further lines begin where the first does.
fn indented(value: &str, by: usize) -> String {
    harmless(value).replace('\n', &format!("\n{:by$}", ""))
}

fn table(columns: &[Column], rows: Vec<Vec<String>>, width: u16) -> String {
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width);
    let shown = shown(columns, &rows, width.into());
    let kept = |index: &usize| shown.contains(index);
    let headings =
        columns.iter().map(|column| Cell::new(column.heading.to_uppercase()).set_alignment(column.align));
    table.set_header(headings.enumerate().filter(|(index, _)| kept(index)).map(|(_, cell)| cell));
    for row in rows {
        let cells = row.into_iter().zip(columns).enumerate().filter(|(index, _)| kept(index));
        table.add_row(cells.map(|(_, (cell, column))| Cell::new(cell).set_alignment(column.align)));
    }
    for (at, index) in shown.iter().enumerate() {
        if columns[*index].fit == Fit::Whole
            && let Some(column) = table.column_mut(at)
        {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Which columns there is room for, as their cells are.
fn shown(columns: &[Column], rows: &[Vec<String>], width: usize) -> Vec<usize> {
    let wide = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| measure_text_width(cell));
        // With a space at both sides.
        cells.max().unwrap_or_default().max(columns[index].heading.len()) + 2
    };
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    while shown.iter().map(|index| wide(*index)).sum::<usize>() > width {
        let going = |index: &usize| match columns[*index].fit {
            Fit::Goes(order) => Some((order, *index)),
            Fit::Wraps | Fit::Whole => None,
        };
        let Some((_, first)) = shown.iter().filter_map(going).min() else { break };
        shown.retain(|index| *index != first);
    }
    shown
}

/// Says how many runs were cancelled.
pub fn cancelled(runs: u64) -> String {
    let runs = if runs == 1 { "1 run".into() } else { format!("{runs} runs") };
    format!("cancelled {runs} that had not begun")
}

/// Prints JSON, for people to read too.
pub fn json(value: &Value) -> Result<()> {
    line(&escaped(&serde_json::to_string_pretty(value)?))
}

/// Prints JSON on one line.
pub fn json_line(value: &Value) -> Result<()> {
    line(&escaped(&value.to_string()))
}

/// JSON that means the same, with all control characters escaped: it may have those beyond ASCII as they are.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Prints a line as it is: what others wrote in it has to be [`harmless`] already.
pub fn line(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints bytes as they are.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Prints what a guest gave: as it is to a file or a program, and to a terminal what that may have of it.
pub fn given(bytes: &[u8]) -> Result<()> {
    if io::stdout().is_terminal() { raw(for_terminal(bytes).as_bytes()) } else { raw(bytes) }
}

/// Bytes as harmless text, with a line's end after it.
fn for_terminal(bytes: &[u8]) -> String {
    let mut text = harmless(&String::from_utf8_lossy(bytes).replace("\r\n", "\n"));
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Text without what could steer a terminal; it keeps its lines and tabs.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Says something that is no data.
///
/// Nobody listening any more is no reason to stop: what was asked for is done all the same.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(text));
}

/// Says what went wrong.
pub fn error(text: &str) {
    let label = console::style("error:").for_stderr().red().bold();
    let _ = writeln!(io::stderr().lock(), "{label} {}", harmless(text));
}

/// Whether somebody stopped reading what was printed: `inn runs ls | head`.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// An instant for a table, to the second; empty when there is none.
pub fn instant(at: Option<prost_types::Timestamp>) -> String {
    at.and_then(domain_instant).map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
}

/// The domain's instant of the protocol's.
pub fn domain_instant(at: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// The protocol's instant of the domain's, cut to microseconds.
pub fn wire_instant(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_microsecond();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// A duration for people: `850µs`, `12.3ms`, `4.56s`, `2m5s`.
pub fn duration(duration: std::time::Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        1_000_000..60_000_000 => format!("{:.2}s", duration.as_secs_f64()),
        _ => {
            let seconds = duration.as_secs();
            match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
                (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
                (hours, minutes, _) => format!("{hours}h{minutes}m"),
            }
        }
    }
}

/// A number of bytes for people.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations_and_sizes_for_people() {
        let of = |micros| duration(Duration::from_micros(micros));
        assert_eq!(
            [850, 12_345, 4_560_000, 125_000_000, 7_260_000_000].map(of),
            ["850µs", "12.3ms", "4.56s", "2m5s", "2h1m"]
        );
        assert_eq!([12, 2048, 3 << 20].map(bytes), ["12 B", "2.0 KiB", "3.0 MiB"]);
    }

    /// Clears the screen, names the window, and the same by a character beyond ASCII.
    const STEERS: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}2Ja\tb\nc\r\u{7f}é";

    fn steers(text: &str) -> bool {
        text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
    }

    #[test]
    fn what_others_wrote_does_not_steer_a_terminal() {
        assert!(steers(STEERS));
        let table = table(&[text("note")], vec![vec![STEERS.into()]], WIDTH_ELSEWHERE);
        assert!(!steers(&table) && table.contains('é'), "{table:?}");
        let fact = indented(STEERS, 6);
        assert!(!steers(&fact) && fact.contains("a\tb\n      c"), "{fact:?}");
        let given = for_terminal(STEERS.as_bytes());
        assert!(!steers(&given) && given.ends_with("é\n"), "{given:?}");
        assert_eq!(for_terminal(b"one\r\ntwo\n"), "one\ntwo\n");
        assert_eq!(for_terminal(b"\xff"), "\u{fffd}\n");
        assert_eq!(for_terminal(b""), "");
    }

    #[test]
    fn json_has_no_control_characters_and_means_the_same() {
        let value = serde_json::json!({ STEERS: STEERS });
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            assert!(steers(&json), "{json:?}");
            assert!(!steers(&escaped(&json)), "{json:?}");
            assert_eq!(serde_json::from_str::<Value>(&escaped(&json)).unwrap(), value);
        }
    }

    #[test]
    fn tables_have_no_trailing_space() {
        let table = table(
            &[text("name"), number("runs")],
            vec![vec!["a".into(), "1".into()], vec!["bb".into(), "10".into()]],
            WIDTH_ELSEWHERE,
        );
        assert!(table.lines().all(|line| line == line.trim_end()), "{table:?}");
        assert!(table.starts_with(" NAME") && table.contains("10"), "{table:?}");
    }

    #[test]
    fn a_narrow_table_leaves_out_what_matters_least_and_wraps_no_id() {
        const COLUMNS: &[Column] =
            &[text("id").whole(), text("task"), number("late").goes(1), number("due").goes(2)];
        let id = "01990000-0000-7000-8000-000000000000";
        let at = |width| {
            table(COLUMNS, vec![[id, "a rather long name", "12ms", "soon"].map(Into::into).into()], width)
        };
        assert!(at(80).contains("LATE") && at(80).contains("DUE"), "{}", at(80));
        assert!(!at(66).contains("LATE") && at(66).contains("DUE"), "{}", at(66));
        assert!(!at(50).contains("DUE") && at(50).contains(id), "{}", at(50));
    }
}
