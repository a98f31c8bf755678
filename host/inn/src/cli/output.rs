//! Printing: data on stdout and nothing else there, everything else on stderr.

use super::Format;
use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use console::Term;
use innkeeper_domain::Timestamp;
use serde_json::Value;
use std::io::{self, ErrorKind, Write};

/// The width of a table that doesn't go to a terminal.
const WIDTH_ELSEWHERE: u16 = 200;

/// A column of a table: its heading, and whether it holds numbers.
pub struct Column(pub &'static str, pub CellAlignment);

pub const fn text(heading: &'static str) -> Column {
    Column(heading, CellAlignment::Left)
}

pub const fn number(heading: &'static str) -> Column {
    Column(heading, CellAlignment::Right)
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
        Format::Table => line(&table(columns, rows)),
    }
}

/// Prints facts about one thing: one a line, or the JSON that stands for them. Empty ones are left out.
pub fn facts(format: Format, facts: &[(&str, String)], json: impl FnOnce() -> Value) -> Result<()> {
    if format == Format::Json {
        return self::json(&json());
    }
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let value = value.replace('\n', &format!("\n{:width$}  ", ""));
        line(&format!("{:width$}  {value}", console::style(name).dim()))?;
    }
    Ok(())
}

fn table(columns: &[Column], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let terminal = Term::stdout();
    let width = if terminal.is_term() { terminal.size().1 } else { WIDTH_ELSEWHERE };
    table.set_width(width);
    table.set_header(
        columns.iter().map(|Column(heading, align)| Cell::new(heading.to_uppercase()).set_alignment(*align)),
    );
    for row in rows {
        let cells = row
            .into_iter()
            .zip(columns)
            .map(|(cell, Column(_, align))| Cell::new(cell).set_alignment(*align));
        table.add_row(cells);
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Prints JSON, for people to read too.
pub fn json(value: &Value) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a line.
pub fn line(text: &str) -> Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Prints bytes as they are; on a terminal with a line's end after them.
pub fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    if Term::stdout().is_term() && !bytes.is_empty() && !bytes.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// A guest's text without what could steer a terminal.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Says something that is no data.
///
/// Nobody listening any more is no reason to stop: what was asked for is done all the same.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
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

    #[test]
    fn tables_have_no_trailing_space() {
        let table = table(
            &[text("name"), number("runs")],
            vec![vec!["a".into(), "1".into()], vec!["bb".into(), "10".into()]],
        );
        assert!(table.lines().all(|line| line == line.trim_end()), "{table:?}");
        assert!(table.starts_with(" NAME") && table.contains("10"), "{table:?}");
    }
}
