//! What a task's revision is granted.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::{fmt, str::FromStr};

/// Characters of a host name, and of one label of a pattern.
const HOST_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// Hosts that a task may speak HTTP with, and their ports. Which addresses they may be at is another matter.
///
/// A host is a name or an address, exact; `*.example.com`, which is every name below `example.com` and not that
/// itself; or `*`, any. A port is a number, a range, or `*` for any; without one 80 (http) and 443 (https) are meant.
/// Case and a dot at the end don't matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpGrant {
    hosts: Hosts,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Hosts {
    Exact(String),
    /// Names with one or more labels before these.
    Below(String),
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ports {
    /// 80 and 443.
    Usual,
    /// From the first to the last; neither is 0.
    Range(u16, u16),
}

/// Text that grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a host to allow: {why}; write a name or an address, `*.example.com` for all names below one or `*` for \
     any host, and the ports where they aren't 80 and 443: api.example.com, *.example.com:8443, 192.0.2.1:8000-8099, \
     [2001:db8::1]:*"
)]
pub struct HttpGrantError {
    text: String,
    why: &'static str,
}

impl HttpGrant {
    /// Whether a request to this host and port is granted. `host` is compared without regard to case,
    /// and an IPv6 address with or without brackets.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.ports.has(port) && self.hosts.has(&normal(host))
    }

    /// Whether everything that the other allows is allowed by this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.hosts.cover(&other.hosts) && self.ports.cover(other.ports)
    }
}

impl Hosts {
    /// `host` is [`normal`].
    fn has(&self, host: &str) -> bool {
        match self {
            Self::Exact(own) => own == host,
            Self::Below(rest) => {
                let before = host.strip_suffix(rest.as_str()).and_then(|before| before.strip_suffix('.'));
                before.is_some_and(|before| before.split('.').all(|label| !label.is_empty()))
            }
            Self::Any => true,
        }
    }

    fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Below(own), Self::Below(rest)) => own == rest || self.has(rest),
            (_, Self::Exact(host)) => self.has(host),
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let pattern = text.strip_prefix("*.");
        let name = normal(pattern.unwrap_or(text));
        if name.contains('*') {
            return Err("`*` stands alone, or for all that is before the first dot, as in *.example.com");
        }
        if !name.is_ascii() {
            return Err("it has letters beyond ASCII; write the name as DNS has it, xn--...");
        }
        let is_name = |h: &str| h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let is_v6 = name.parse::<Ipv6Addr>().is_ok();
        let length = name.len() + if pattern.is_some() { 2 } else { 0 };
        if name.is_empty() || length > HOST_CHARS_MAX || name.ends_with('.') || !(is_v6 || is_name(&name)) {
            return Err("it is neither a host name nor an address");
        }
        if pattern.is_none() {
            return Ok(Self::Exact(name));
        }
        let labels: Vec<&str> = name.split('.').collect();
        if is_v6 || name.parse::<Ipv4Addr>().is_ok() || labels.last().is_some_and(|last| is_number(last)) {
            return Err("addresses have no patterns, each is named");
        }
        if labels.iter().any(|label| label.is_empty() || label.len() > LABEL_CHARS_MAX) {
            return Err("each part of a name between dots has 1 to 63 characters");
        }
        if labels.len() < 2 {
            return Err(
                "a pattern has two labels or more after `*.`, or it would be a whole top-level domain",
            );
        }
        Ok(Self::Below(name))
    }
}

impl Ports {
    const ANY: Self = Self::Range(1, u16::MAX);

    fn has(self, port: u16) -> bool {
        self.ranges().iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// No two of one's ranges are next to each other, so that what is in both together is in one.
    fn cover(self, other: Self) -> bool {
        let within = |(first, last): (u16, u16)| self.ranges().iter().any(|(f, l)| *f <= first && last <= *l);
        other.ranges().into_iter().all(within)
    }

    fn ranges(self) -> [(u16, u16); 2] {
        match self {
            Self::Usual => [(80, 80), (443, 443)],
            Self::Range(first, last) => [(first, last); 2],
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|port: &u16| digits && *port > 0)
        };
        if text == "*" {
            return Ok(Self::ANY);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self::Range(first, last)),
            (Some(_), Some(_)) => Err("the range of ports ends before it begins"),
            _ => Err("the port is not a number from 1 to 65535, a range such as 8000-8099, or `*`"),
        }
    }
}

/// Whether a name that ends in this label is read as an IPv4 address in one of its many ways.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hex.is_some() || label.bytes().all(|b| b.is_ascii_digit()) && !label.is_empty()
}

/// Lower case, no brackets, IPv6 in its short form, no dot at the end.
fn normal(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<Ipv6Addr>() {
        Ok(address) => address.to_string(),
        Err(_) if bare.contains(':') => bare.into(),
        Err(_) => bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase(),
    }
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;
    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        let fail = |why| HttpGrantError { text: text.chars().take(300).collect(), why };
        if text.contains('/') {
            return Err(fail("it is a URL or has a path"));
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or(fail("`[` without `]`"))?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(fail("what is in brackets is no IPv6 address"));
            }
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err(fail("after `]` comes nothing, or `:` and the port")),
                port => (host, port),
            }
        } else if text.matches(':').count() > 1 {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let hosts = Hosts::parse(host).map_err(fail)?;
        let ports = port.map_or(Ok(Ports::Usual), Ports::parse).map_err(fail)?;
        Ok(Self { hosts, ports })
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Exact(host) if host.contains(':') => write!(f, "[{host}]"),
            Hosts::Exact(host) => f.write_str(host),
            Hosts::Below(rest) => write!(f, "*.{rest}"),
            Hosts::Any => f.write_str("*"),
        }?;
        match self.ports {
            Ports::Usual => Ok(()),
            Ports::ANY => f.write_str(":*"),
            Ports::Range(first, last) if first == last => write!(f, ":{first}"),
            Ports::Range(first, last) => write!(f, ":{first}-{last}"),
        }
    }
}

impl TryFrom<String> for HttpGrant {
    type Error = HttpGrantError;
    fn try_from(text: String) -> Result<Self, HttpGrantError> {
        text.parse()
    }
}

impl From<HttpGrant> for String {
    fn from(grant: HttpGrant) -> String {
        grant.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grant(text: &str) -> HttpGrant {
        text.parse().unwrap()
    }

    #[test]
    fn names_and_addresses_are_exact() {
        let any = grant("API.example.com.");
        assert!(any.allows("api.example.com", 80) && any.allows("api.Example.com.", 443));
        assert!(!any.allows("api.example.com", 8080) && !any.allows("api.example.com..", 80));
        assert!(!any.allows("example.com", 80) && !any.allows("x.api.example.com", 80));
        let one = grant("127.0.0.1:8080");
        assert!(one.allows("127.0.0.1", 8080) && !one.allows("127.0.0.1", 80));
        let six = grant("[2001:DB8:0::1]:99");
        assert!(six.allows("[2001:db8::1]", 99));
        assert_eq!(six.to_string(), "[2001:db8::1]:99");
    }

    #[test]
    fn a_grant_covers_what_it_allows() {
        for (wide, narrow) in [
            ("a.example", "a.example:80"),
            ("a.example", "a.example:443"),
            ("a.example:80-443", "a.example"),
            ("*.b.example", "*.a.b.example"),
            ("*.b.example", "a.b.example"),
            ("*", "*.b.example"),
            ("*", "[::1]"),
            ("*:*", "*"),
        ] {
            assert!(grant(wide).covers(&grant(narrow)) && !grant(narrow).covers(&grant(wide)), "{narrow}");
        }
        assert!(grant("A.example").covers(&grant("a.example")));
        assert!(grant("[::1]:9").covers(&grant("[0::1]:9")));
        for (one, other) in
            [("a.example", "a.example:8080"), ("a.example", "b.example"), ("*.b.example", "b.example")]
        {
            assert!(!grant(one).covers(&grant(other)), "{other}");
        }
    }

    #[test]
    fn a_pattern_is_of_names_below() {
        let below = grant("*.Example.com.");
        for host in ["a.example.com", "a.b.EXAMPLE.com", "a.example.com."] {
            assert!(below.allows(host, 443), "{host}");
        }
        for host in ["example.com", ".example.com", "a..example.com", "aexample.com", "example.com.evil.test"]
        {
            assert!(!below.allows(host, 443), "{host}");
        }
        assert!(!below.allows("a.example.com", 8080));
        assert!(
            grant("*").allows("::1", 80)
                && grant("*").allows("a.test", 443)
                && !grant("*").allows("a.test", 81)
        );
    }

    #[test]
    fn ports_are_numbers_ranges_or_any() {
        let range = grant("a.test:8000-8099");
        assert!(range.allows("a.test", 8000) && range.allows("a.test", 8099));
        assert!(
            !range.allows("a.test", 7999) && !range.allows("a.test", 8100) && !range.allows("a.test", 80)
        );
        assert!(grant("a.test:*").allows("a.test", 1) && !grant("a.test:*").allows("a.test", 0));
        for (text, shown) in [("a:5-5", "a:5"), ("a:1-65535", "a:*"), ("*:*", "*:*"), ("[::1]:*", "[::1]:*")]
        {
            assert_eq!(grant(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_host_says_why_and_what_would_be_one() {
        for (text, why) in [
            ("http://a.example", "URL"),
            ("a.example/x", "path"),
            ("*.com", "two labels"),
            ("*.com.", "two labels"),
            ("*.", "neither"),
            ("a.*.example", "stands alone"),
            ("*a.example.com", "stands alone"),
            ("**", "stands alone"),
            ("*.*.example.com", "stands alone"),
            ("*.0.0.1", "addresses"),
            ("*.a.0x1", "addresses"),
            ("*.127.0.0.1", "addresses"),
            ("*.a..b", "1 to 63"),
            ("a:0", "port"),
            ("a:b", "port"),
            ("a:+80", "port"),
            ("a:", "port"),
            ("a:1-", "port"),
            ("a:9-8", "before it begins"),
            ("", "neither"),
            (".", "neither"),
            ("a..", "neither"),
            ("a b", "neither"),
            ("user@a", "neither"),
            ("fe80::1%eth0", "neither"),
            ("bücher.example", "xn--"),
            ("[::1", "without"),
            ("[::1]80", "after `]`"),
            ("[a]:80", "brackets"),
            ("*.[::1]", "addresses"),
            ("::0.", "neither"),
        ] {
            let error = text.parse::<HttpGrant>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("*.example.com:8443"), "{text}: {error}");
        }
        assert!(format!("*.{}.com", "a".repeat(64)).parse::<HttpGrant>().is_err());
        let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(60)].join(".");
        assert!(
            long.parse::<HttpGrant>().is_ok() && format!("{long}.example.com").parse::<HttpGrant>().is_err()
        );
    }

    /// Hosts of which many are the same, or below each other.
    fn hosts() -> impl Strategy<Value = String> {
        let names = prop::collection::vec(prop::sample::select(vec!["a", "b", "com"]), 1..5);
        let addresses = prop::sample::select(vec!["127.0.0.1", "[::1]", "[2001:db8::1]"]);
        prop_oneof![4 => names.prop_map(|labels| labels.join(".")), 1 => addresses.prop_map(String::from)]
    }

    fn ports() -> impl Strategy<Value = u16> {
        prop_oneof![prop::sample::select(vec![1, 79, 80, 81, 442, 443, 444, 65535]), 1..=u16::MAX]
    }

    fn grants() -> impl Strategy<Value = HttpGrant> {
        let host = prop_oneof![4 => hosts(), 4 => hosts().prop_map(|host| format!("*.{host}")), 1 => Just("*".into())];
        let port = prop_oneof![
            Just(String::new()),
            Just(":*".into()),
            ports().prop_map(|port| format!(":{port}")),
            (ports(), ports()).prop_map(|(one, other)| format!(":{}-{}", one.min(other), one.max(other))),
        ];
        let known = |(host, port): (String, String)| format!("{host}{port}").parse().ok();
        (host, port).prop_filter_map("no grant", known)
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(grant in grants()) {
            prop_assert_eq!(grant.to_string().parse(), Ok(grant));
        }

        #[test]
        fn what_covers_another_allows_all_that_it_does(
            one in grants(), other in grants(), host in hosts(), port in ports(),
        ) {
            prop_assert!(one.covers(&one));
            if one.covers(&other) {
                prop_assert!(!other.allows(&host, port) || one.allows(&host, port), "{one} covers {other}");
            }
        }

        /// What doesn't cover another has a reason: something that only the other allows, among what is telling.
        #[test]
        fn what_does_not_cover_another_leaves_something_out(one in grants(), other in grants()) {
            let mut telling: Vec<String> = vec!["other.test".into(), "[2001:db8::2]".into()];
            if let Hosts::Exact(host) | Hosts::Below(host) = &other.hosts {
                telling.extend([host.clone(), format!("x.{host}"), format!("x.y.{host}")]);
            }
            let ends = one.ports.ranges().into_iter().chain(other.ports.ranges());
            let ports: Vec<u16> = ends
                .flat_map(|(first, last)| [first, last, first.saturating_sub(1), last.saturating_add(1)])
                .collect();
            let left_out = telling.iter().any(|host| {
                ports.iter().any(|port| other.allows(host, *port) && !one.allows(host, *port))
            });
            prop_assert_eq!(left_out, !one.covers(&other), "{} and {}", one, other);
        }
    }
}
