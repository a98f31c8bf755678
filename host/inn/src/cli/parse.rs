//! Reading what people type: durations, sizes, instants, inputs.

use super::Usage;
use anyhow::{Context, Result};
use innkeeper_api::proto::Payload;
use innkeeper_domain::Timestamp;
use innkeeper_domain::limits::INPUT_BYTES_MAX;
use innkeeper_domain::time;
use innkeeper_store::postgres::{DatabaseUrl, DatabaseUrlError};
use innkeeper_store::transfer::Place;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

/// `500ms`, `2s`, `1h30m`, `1d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fail = || format!("`{text}` is not a duration; write 500ms, 2s, 5m, 1h30m or 1d");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(fail());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
        let count: u32 = rest[..digits].parse().map_err(|_| fail())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(fail()),
        };
        total = unit.checked_mul(count).and_then(|part| total.checked_add(part)).ok_or_else(fail)?;
        rest = &rest[unit_end..];
    }
    Ok(total)
}

/// `65536`, `64KiB`, `64MiB`, `1GiB`, `64MB`.
pub fn size(text: &str) -> Result<u64, String> {
    let fail = || format!("`{text}` is not a size; write 64MiB, 512KiB, 64MB or a number of bytes");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: u64 = text[..digits].parse().map_err(|_| fail())?;
    let unit = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(fail()),
    };
    count.checked_mul(unit).ok_or_else(fail)
}

/// An RFC 3339 instant, or `in 10m`.
pub fn instant(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(wait) = text.trim().strip_prefix("in ") {
        return Ok(time::after(now, duration(wait).map_err(Usage)?));
    }
    let at = text.trim().parse::<Timestamp>();
    at.map_err(|_| {
        Usage(format!(
            "`{text}` is not an instant; write 2030-01-31T09:00:00Z, 2030-01-31T09:00:00+01:00 or 'in 10m'"
        ))
        .into()
    })
}

/// An instant to come: RFC 3339, `in 30d`, or `30d` for that.
pub fn until(text: &str, now: Timestamp) -> Result<Timestamp> {
    duration(text).map_or_else(|_| instant(text, now), |wait| Ok(time::after(now, wait)))
}

/// An instant that has passed: RFC 3339, or `24h` for so long ago.
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(ago) = duration(text) {
        return Ok(time::before(now, ago));
    }
    instant(text, now).map_err(|_| {
        Usage(format!(
            "`{text}` is neither an instant nor a duration; write 2030-01-31T09:00:00Z, or 24h for so long ago"
        ))
        .into()
    })
}

/// A run's input, as [`payload`].
pub fn input(text: Option<&str>, content_type: Option<&str>) -> Result<Payload> {
    payload(text, content_type, "an input", INPUT_BYTES_MAX)
}

/// The text itself, `@FILE`, or `-` for stdin. Its content type is the one given, else JSON if it is, else text if
/// it is, else bytes. `what` it is has at most `max` bytes.
pub fn payload(text: Option<&str>, content_type: Option<&str>, what: &str, max: usize) -> Result<Payload> {
    let limit = |from: &mut dyn Read, name: &str| read(from, name, what, max);
    let bytes = match text {
        None => Vec::new(),
        Some("-") => limit(&mut io::stdin().lock(), "stdin")?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => limit(&mut File::open(path).with_context(|| format!("can't read {path}"))?, path)?,
            None => text.as_bytes().to_vec(),
        },
    };
    let content_type = content_type.map_or_else(|| guess(&bytes).to_string(), str::to_string);
    Ok(Payload { content_type, bytes })
}

fn read(from: impl Read, name: &str, what: &str, max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(max as u64 + 1).read_to_end(&mut bytes).with_context(|| format!("can't read {name}"))?;
    if bytes.len() > max {
        let why = format!("{name} has more than {max} bytes, which is the most that {what} can have");
        return Err(Usage(why).into());
    }
    Ok(bytes)
}

fn guess(bytes: &[u8]) -> &'static str {
    if bytes.is_empty() {
        ""
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
        "application/json"
    } else if std::str::from_utf8(bytes).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// Where a store is: a database's URL, or a folder. As [`database_url`].
pub fn place(text: &str) -> Result<Place> {
    Ok(text.parse().map_err(|e: DatabaseUrlError| Usage(e.to_string()))?)
}

/// A database's URL. Called by the commands, not by clap, which would print the password of a mistaken one.
pub fn database_url(text: &str) -> Result<DatabaseUrl> {
    Ok(text.parse().map_err(|e: DatabaseUrlError| Usage(e.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", 500), ("2s", 2_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("1m500ms", 60_500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "1.5s", "-1s", "1y", "99999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("65536", 65_536), ("64MiB", 64 << 20), ("1 GiB", 1 << 30), ("64MB", 64_000_000), ("8k", 8_192)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "1.5MiB", "-1", "1XB", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert_eq!(instant("in 10m", now).unwrap().as_second(), 1_600);
        assert_eq!(instant("1970-01-01T01:00:00+01:00", now).unwrap().as_second(), 0);
        assert!(instant("tomorrow", now).is_err());
        assert_eq!(
            (until("10m", now).unwrap().as_second(), since("10m", now).unwrap().as_second()),
            (1_600, 400)
        );
        assert_eq!(until("in 10m", now).unwrap().as_second(), 1_600);
        assert_eq!(since("1970-01-01T00:00:09Z", now).unwrap().as_second(), 9);
        assert!(until("30", now).is_err() && instant("in a while", now).is_err());
        let words = since("yesterday", now).unwrap_err().to_string();
        assert!(words.contains("24h") && !words.contains("in 10m"), "{words}");
    }

    #[test]
    fn inputs_are_what_they_look_like() {
        let of = |text| input(Some(text), None).unwrap().content_type;
        assert_eq!(of("{\"a\": 1}"), "application/json");
        assert_eq!(of("hello"), "text/plain; charset=utf-8");
        assert_eq!(input(None, None).unwrap(), Payload::default());
        assert_eq!(input(Some("x"), Some("text/x")).unwrap().content_type, "text/x");
        assert!(input(Some("@/no/such/file"), None).is_err());
        let words = read(&b"abc"[..], "x.json", "an event", 2).unwrap_err().to_string();
        assert_eq!(words, "x.json has more than 2 bytes, which is the most that an event can have");
    }
}
