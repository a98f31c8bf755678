//! The report: counts over all lines, in bounded memory.

use crate::line::{Line, Request};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Different paths, clients and methods that are counted; what comes when there are so many already is only
/// in the totals, and the report says so.
const DISTINCT_MAX: usize = 50_000;
/// Bytes of a path or agent that are kept.
const TEXT_BYTES_MAX: usize = 200;
/// Broken lines that are quoted.
const BROKEN_SHOWN: usize = 5;
/// Unusual clients that are shown.
const UNUSUAL_SHOWN: usize = 20;

/// A client with so many requests that failed (4xx), and most of its requests failing, is unusual.
const FAILED_REQUESTS: u64 = 10;
/// A client with so large a share of all requests is unusual, where there are enough of them.
const SHARE: f64 = 0.5;
const SHARE_REQUESTS_MIN: u64 = 100;

/// What only those ask for who look for holes.
const PROBES: &[&str] = &[
    "/wp-login.php",
    "/wp-admin",
    "/xmlrpc.php",
    "/.env",
    "/.git",
    "/.aws",
    "/phpmyadmin",
    "/cgi-bin/",
    "/etc/passwd",
    "/actuator",
    "/vendor/phpunit",
    "/boaform",
    "/HNAP1",
    "/../",
    "/..%2f",
    "%2e%2e",
    "/server-status",
];

/// Agents of programs that scan.
const SCANNERS: &[&str] =
    &["sqlmap", "nikto", "nmap", "masscan", "zgrab", "gobuster", "dirbuster", "wpscan", "nuclei"];

/// Counts lines.
#[derive(Default)]
pub struct Counter {
    lines: u64,
    blank: u64,
    broken: u64,
    broken_shown: Vec<BrokenLine>,
    requests: u64,
    junk: u64,
    bytes: u64,
    statuses: BTreeMap<String, u64>,
    methods: HashMap<String, u64>,
    paths: HashMap<String, u64>,
    clients: HashMap<String, Client>,
    capped: HashSet<&'static str>,
    first: Option<i64>,
    last: Option<i64>,
}

#[derive(Default)]
struct Client {
    requests: u64,
    failed: u64,
    bytes: u64,
    junk: u64,
    without_agent: u64,
    probes: u64,
    probe: Option<String>,
    scanner: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BrokenLine {
    line: u64,
    why: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub lines: u64,
    pub requests: u64,
    pub broken: u64,
    broken_lines: Vec<BrokenLine>,
    /// Requests that were no HTTP.
    junk_requests: u64,
    bytes: u64,
    /// RFC 3339, UTC.
    from: Option<String>,
    to: Option<String>,
    /// `2xx` and so on.
    status: BTreeMap<String, u64>,
    methods: BTreeMap<String, u64>,
    clients: usize,
    top_paths: Vec<Top>,
    top_clients: Vec<TopClient>,
    unusual_clients: Vec<Unusual>,
    /// What had too many different values to count them all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capped: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Top {
    path: String,
    requests: u64,
}

#[derive(Debug, Serialize)]
struct TopClient {
    client: String,
    requests: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Unusual {
    client: String,
    requests: u64,
    why: Vec<String>,
}

impl Counter {
    /// A line that was understood.
    pub fn line(&mut self, line: &Line) {
        self.lines += 1;
        self.requests += 1;
        let bytes = line.bytes.unwrap_or(0);
        self.bytes = self.bytes.saturating_add(bytes);
        *self.statuses.entry(format!("{}xx", line.status / 100)).or_default() += 1;
        self.first = Some(self.first.map_or(line.time, |first| first.min(line.time)));
        self.last = Some(self.last.map_or(line.time, |last| last.max(line.time)));
        if let Request::Http { method, path } = &line.request {
            add(&mut self.methods, "methods", &mut self.capped, method, |count| *count += 1);
            add(&mut self.paths, "paths", &mut self.capped, path, |count| *count += 1);
        } else {
            self.junk += 1;
        }
        add(&mut self.clients, "clients", &mut self.capped, line.client, |client| client.line(line, bytes));
    }

    /// A line that was not.
    pub fn broken(&mut self, why: &'static str) {
        self.lines += 1;
        self.broken += 1;
        if self.broken_shown.len() < BROKEN_SHOWN {
            self.broken_shown.push(BrokenLine { line: self.lines, why });
        }
    }

    /// An empty line.
    pub fn blank(&mut self) {
        self.lines += 1;
        self.blank += 1;
    }

    /// Whether there were lines, and none was understood.
    pub fn is_useless(&self) -> bool {
        self.broken > 0 && self.requests == 0
    }

    /// The report, with the first `top` of each list.
    pub fn report(self, top: usize) -> Report {
        let mut unusual: Vec<Unusual> =
            self.clients.iter().filter_map(|(name, c)| c.unusual(name, self.requests)).collect();
        unusual.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.client.cmp(&b.client)));
        unusual.truncate(UNUSUAL_SHOWN);
        let mut paths: Vec<Top> =
            self.paths.into_iter().map(|(path, requests)| Top { path, requests }).collect();
        paths.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.path.cmp(&b.path)));
        paths.truncate(top);
        let count = self.clients.len();
        let clients = self.clients.into_iter();
        let mut clients: Vec<TopClient> =
            clients.map(|(client, c)| TopClient { client, requests: c.requests, bytes: c.bytes }).collect();
        clients.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.client.cmp(&b.client)));
        clients.truncate(top);
        let mut capped: Vec<_> = self.capped.into_iter().collect();
        capped.sort_unstable();
        Report {
            lines: self.lines,
            requests: self.requests,
            broken: self.broken,
            broken_lines: self.broken_shown,
            junk_requests: self.junk,
            bytes: self.bytes,
            from: self.first.map(instant),
            to: self.last.map(instant),
            status: self.statuses,
            methods: self.methods.into_iter().collect(),
            clients: count,
            top_paths: paths,
            top_clients: clients,
            unusual_clients: unusual,
            capped,
        }
    }
}

/// Counts one more under a key, if there is room for the key.
fn add<T: Default>(
    counts: &mut HashMap<String, T>,
    what: &'static str,
    capped: &mut HashSet<&'static str>,
    key: &str,
    count: impl FnOnce(&mut T),
) {
    let key = cut(key);
    let full = counts.len() >= DISTINCT_MAX;
    match counts.get_mut(key) {
        Some(value) => count(value),
        None if !full => count(counts.entry(key.into()).or_default()),
        None => {
            capped.insert(what);
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

impl Client {
    fn line(&mut self, line: &Line, bytes: u64) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.failed += u64::from((400..500).contains(&line.status));
        match &line.request {
            Request::Junk => self.junk += 1,
            Request::Http { path, .. } => {
                let lower = path.to_ascii_lowercase();
                if PROBES.iter().any(|probe| lower.contains(&probe.to_ascii_lowercase())) {
                    self.probes += 1;
                    self.probe.get_or_insert_with(|| cut(path).into());
                }
            }
        }
        match &line.agent {
            None => self.without_agent += 1,
            Some(agent) => {
                let lower = agent.to_ascii_lowercase();
                if SCANNERS.iter().any(|scanner| lower.contains(scanner)) {
                    self.scanner.get_or_insert_with(|| cut(agent).into());
                }
            }
        }
    }

    /// What is unusual about a client, if anything is.
    fn unusual(&self, name: &str, all: u64) -> Option<Unusual> {
        let mut why = Vec::new();
        if let Some(probe) = &self.probe {
            why.push(format!("{} requests for what only scanners look for, such as {probe}", self.probes));
        }
        if let Some(scanner) = &self.scanner {
            why.push(format!("its agent is a scanner's: {scanner}"));
        }
        if self.failed >= FAILED_REQUESTS && self.failed * 2 > self.requests {
            why.push(format!("{} of its {} requests failed (4xx)", self.failed, self.requests));
        }
        if self.junk > 0 {
            why.push(format!("{} requests that are no HTTP", self.junk));
        }
        if all >= SHARE_REQUESTS_MIN && self.requests as f64 > all as f64 * SHARE {
            why.push(format!("it made {} of all {all} requests", self.requests));
        }
        (!why.is_empty()).then(|| Unusual { client: name.into(), requests: self.requests, why })
    }
}

/// RFC 3339 of seconds since 1970.
fn instant(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The inverse of `line::days_from_1970`: eras of 400 years, years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::parse;

    #[test]
    fn instants() {
        assert_eq!(instant(0), "1970-01-01T00:00:00Z");
        assert_eq!(instant(971_211_336), "2000-10-10T20:55:36Z");
        assert_eq!(instant(1_709_251_199), "2024-02-29T23:59:59Z");
    }

    #[test]
    fn distinct_keys_are_capped_and_totals_are_not() {
        let mut counter = Counter::default();
        for n in 0..DISTINCT_MAX + 10 {
            let text = format!(r#"192.0.2.1 - - [10/Oct/2000:13:55:36 -0700] "GET /{n} HTTP/1.1" 200 1"#);
            counter.line(&parse(&text).unwrap());
        }
        let report = counter.report(3);
        assert_eq!((report.requests, report.capped), (DISTINCT_MAX as u64 + 10, vec!["paths"]));
    }

    #[test]
    fn clients_that_probe_are_unusual() {
        let mut counter = Counter::default();
        let text =
            r#"192.0.2.9 - - [10/Oct/2000:13:55:36 -0700] "GET /.ENV HTTP/1.1" 404 1 "-" "sqlmap/1.7""#;
        counter.line(&parse(text).unwrap());
        let unusual = &counter.report(1).unusual_clients[0];
        assert_eq!((unusual.client.as_str(), unusual.why.len()), ("192.0.2.9", 2));
    }
}
