//! One line of an access log in the common or the combined format:
//!
//! ```text
//! HOST IDENT USER [TIME] "REQUEST" STATUS BYTES
//! HOST IDENT USER [TIME] "REQUEST" STATUS BYTES "REFERER" "AGENT"
//! ```
//!
//! As servers really write it: quotes within quotes are escaped, a user's name can have spaces, a request can
//! be anything that came down the wire, and what comes after the known fields is left alone.

use std::borrow::Cow;

/// A line that was understood.
#[derive(Debug, PartialEq)]
pub struct Line<'a> {
    pub client: &'a str,
    /// Seconds since 1970, UTC.
    pub time: i64,
    pub request: Request<'a>,
    pub status: u16,
    /// None for `-`.
    pub bytes: Option<u64>,
    /// None where the format has no agent, or it is `-`.
    pub agent: Option<Cow<'a, str>>,
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub enum Request<'a> {
    Http {
        method: &'a str,
        /// Without query and host.
        path: Cow<'a, str>,
    },
    /// No HTTP: a scanner's TLS hello, say, or nothing at all.
    Junk,
}

/// Why a line wasn't understood.
pub type Broken = &'static str;

/// Reads a line.
pub fn parse(line: &str) -> Result<Line<'_>, Broken> {
    let (client, rest) = line.split_once(' ').ok_or("it has one word only")?;
    if client.is_empty() {
        return Err("it begins with a space");
    }
    // The user's name may have spaces and brackets, so the time is where a bracket opens a good one.
    let (time, rest) = find_time(rest).ok_or("it has no [day/month/year:time zone]")?;
    let rest = rest.strip_prefix(" \"").ok_or("no quoted request follows the time")?;
    let (request, rest) = quoted(rest).ok_or("the request's quotes don't end")?;
    let mut fields = rest.trim_start().splitn(3, ' ');
    let status = fields.next().unwrap_or_default();
    let status = status
        .parse()
        .ok()
        .filter(|s| (100..1000).contains(s))
        .ok_or("the status is no number of three digits")?;
    let bytes = match fields.next() {
        Some("-") => None,
        Some(count) => Some(count.parse().map_err(|_| "the size is neither a number nor -")?),
        None => return Err("it ends before the size"),
    };
    let agent = fields.next().and_then(agent);
    Ok(Line { client, time, request: read_request(request), status, bytes, agent })
}

/// The agent of ` "REFERER" "AGENT"`; what follows is left alone.
fn agent(rest: &str) -> Option<Cow<'_, str>> {
    let (_, rest) = quoted(rest.trim_start().strip_prefix('"')?)?;
    let (agent, _) = quoted(rest.trim_start().strip_prefix('"')?)?;
    (agent != "-").then(|| unescape(agent))
}

/// Text up to the quote that ends it, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> Cow<'_, str> {
    if text.contains('\\') {
        Cow::Owned(text.replace("\\\"", "\"").replace("\\\\", "\\"))
    } else {
        Cow::Borrowed(text)
    }
}

fn read_request(request: &str) -> Request<'_> {
    let mut words = request.splitn(2, ' ');
    let method = words.next().unwrap_or_default();
    let Some(target) = words.next() else { return Request::Junk };
    // The protocol is missing in HTTP/0.9, and a path that wasn't encoded can have spaces.
    let target = match target.rsplit_once(' ') {
        Some((target, protocol)) if protocol.starts_with("HTTP/") => target,
        _ => target,
    };
    let is_method = !method.is_empty()
        && method.len() <= 20
        && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
    if !is_method || target.is_empty() {
        return Request::Junk;
    }
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            rest.find('/').map_or("/", |at| &rest[at..])
        }
        _ => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or(path);
    Request::Http { method, path: unescape(path) }
}

/// The first `[10/Oct/2000:13:55:36 -0700]`, and what follows it.
fn find_time(text: &str) -> Option<(i64, &str)> {
    text.match_indices('[').find_map(|(at, _)| {
        let (inside, rest) = text[at + 1..].split_once(']')?;
        Some((time(inside)?, rest))
    })
}

fn time(text: &str) -> Option<i64> {
    let (date_time, zone) = text.split_once(' ')?;
    let mut parts = date_time.split([':', '/']);
    let mut next = || parts.next();
    let (day, month, year) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let number = |text: &str, most: i64| text.parse().ok().filter(|n| (0..=most).contains(n));
    let (day, year) = (number(day, 31)?, number(year, 9999)?);
    let (hour, minute, second) = (number(hour, 23)?, number(minute, 59)?, number(second, 60)?);
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let zone: i64 = number(&zone[1..], 1500)?;
    let offset = sign * (zone / 100 * 3600 + zone % 100 * 60);
    Some(days_from_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days of the Gregorian calendar; years begin in March, so that leap days come last.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http<'a>(method: &'a str, path: &'a str) -> Request<'a> {
        Request::Http { method, path: path.into() }
    }

    #[test]
    fn both_formats() {
        let common =
            r#"192.0.2.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326"#;
        let line = parse(common).unwrap();
        assert_eq!(
            (line.client, line.time, line.status, line.bytes),
            ("192.0.2.1", 971_211_336, 200, Some(2326))
        );
        assert_eq!((line.request, line.agent), (http("GET", "/apache_pb.gif"), None));
        let combined =
            format!(r#"{common} "http://example.com/start.html" "Mozilla/4.08 [en] (Win98; \"I\" ;Nav)""#);
        assert_eq!(parse(&combined).unwrap().agent.unwrap(), r#"Mozilla/4.08 [en] (Win98; "I" ;Nav)"#);
    }

    #[test]
    fn oddities_of_real_logs() {
        let of = |request: &str| {
            parse(&format!(
                r#"2001:db8::7 - John [x] Doe [01/Mar/2024:00:00:00 +0000] "{request}" 400 - "-" "-" 0.001"#
            ))
            .map(|line| {
                (line.time, format!("{:?}", line.request), line.bytes, line.agent.map(Cow::into_owned))
            })
            .unwrap()
        };
        assert_eq!(
            of("GET / HTTP/1.1"),
            (1_709_251_200, r#"Http { method: "GET", path: "/" }"#.into(), None, None)
        );
        for junk in ["-", "", r"\x16\x03\x01\x02\x00", "HELP"] {
            assert_eq!(of(junk).1, "Junk", "{junk}");
        }
        assert!(of("GET /old").1.contains(r#""/old""#));
        assert!(of("GET http://a.example/x?y=1 HTTP/1.1").1.contains(r#""/x""#));
        assert!(of(r#"GET /a\"b c?q HTTP/1.1"#).1.contains(r#"/a\"b c"#));
        assert!(of("OPTIONS * HTTP/1.0").1.contains(r#""*""#));
    }

    #[test]
    fn broken_lines_say_why() {
        for (line, why) in [
            ("", "one word"),
            ("garbage", "one word"),
            (r#"a - - [yesterday] "GET / HTTP/1.1" 200 1"#, "no [day"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] GET / 200 1"#, "no quoted request"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET /"#, "don't end"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" OK 1"#, "status"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200"#, "ends before the size"),
            (r#"a - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 x"#, "size"),
            (r#"a - - [31/Foo/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 1"#, "no [day"),
        ] {
            assert!(parse(line).unwrap_err().contains(why), "{line}");
        }
    }

    #[test]
    fn days() {
        assert_eq!(days_from_1970(1970, 1, 1), 0);
        assert_eq!(days_from_1970(2000, 2, 29), 11_016);
        assert_eq!(days_from_1970(2024, 3, 1), 19_783);
    }
}
