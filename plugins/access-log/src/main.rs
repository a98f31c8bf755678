//! Reads a web server's access log on stdin and reports on it as JSON on stdout.
//!
//! A plain program: it runs as a task as it runs in a shell. Broken lines are counted and tolerated; only a
//! log in which nothing could be read is an error.

mod line;
mod report;

use report::Counter;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

/// Bytes of a line that are read; the rest of it is skipped.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Rows of each list when nobody says.
const TOP_DEFAULT: usize = 10;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(message) => {
            eprintln!("access-log: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let top = top(std::env::args().skip(1))?;
    let counter = read(io::stdin().lock()).map_err(|e| format!("can't read the log: {e}"))?;
    let useless = counter.is_useless();
    let report = counter.report(top);
    if report.broken > 0 {
        eprintln!("access-log: {} of {} lines are broken", report.broken, report.lines);
    }
    let mut json = serde_json::to_vec_pretty(&report).map_err(|e| e.to_string())?;
    json.push(b'\n');
    io::stdout().write_all(&json).map_err(|e| format!("can't write the report: {e}"))?;
    if useless {
        eprintln!("access-log: no line is of the common or the combined format");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn top(mut arguments: impl Iterator<Item = String>) -> Result<usize, String> {
    let usage = "usage: access-log [--top N] < LOG";
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => Ok(TOP_DEFAULT),
        (Some("--top"), Some(count), None) => count
            .parse()
            .ok()
            .filter(|top| (1..=1000).contains(top))
            .ok_or_else(|| format!("--top takes 1 to 1000; {usage}")),
        _ => Err(usage.into()),
    }
}

fn read(mut log: impl BufRead) -> io::Result<Counter> {
    let mut counter = Counter::default();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = log.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(counter);
        }
        if read == LINE_BYTES_MAX && !bytes.ends_with(b"\n") {
            log.skip_until(b'\n')?;
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\r', '\n']);
        if line.trim().is_empty() {
            counter.blank();
            continue;
        }
        match line::parse(line) {
            Ok(line) => counter.line(&line),
            Err(why) => counter.broken(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_log_is_read_as_it_should_be() {
        let log = include_bytes!("../testdata/access.log");
        let report = read(&log[..]).unwrap().report(3);
        let expected: serde_json::Value =
            serde_json::from_str(include_str!("../testdata/report.json")).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }

    #[test]
    fn long_lines_line_ends_and_a_missing_last_one() {
        let good = "192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.1\" 200 1";
        let log = format!("{good}\r\n\n{}\n{good} \"{}\"\n{good}", "x".repeat(200_000), "y".repeat(200_000));
        let report = read(log.as_bytes()).unwrap().report(1);
        assert_eq!((report.lines, report.requests, report.broken), (5, 3, 1));
    }

    #[test]
    fn arguments() {
        let of = |arguments: &[&str]| top(arguments.iter().map(ToString::to_string));
        assert_eq!(of(&[]), Ok(TOP_DEFAULT));
        assert_eq!(of(&["--top", "3"]), Ok(3));
        for bad in [&["--top"][..], &["--top", "0"], &["--top", "x"], &["file"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_log_of_nothing_but_garbage_is_useless() {
        assert!(read(&b"a\nb\n"[..]).unwrap().is_useless());
        assert!(!read(&b""[..]).unwrap().is_useless());
    }
}
