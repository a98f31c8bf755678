//! What a task's revision is granted.

use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv6Addr, str::FromStr};

/// A host that a task may speak HTTP with: a name or an address, exact, and a port if only that one
/// is meant. Without a port both 80 (http) and 443 (https) are meant, and no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpGrant {
    host: String,
    port: Option<u16>,
}

/// Text that is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a host to allow: {why}; write a host name or an address, and a port where it isn't 80 or 443: api.example.com, 192.0.2.1:8080, [2001:db8::1]:8080"
)]
pub struct HttpGrantError {
    text: String,
    why: &'static str,
}

impl HttpGrant {
    /// Whether a request to this host and port is granted. `host` is compared without regard to case,
    /// and an IPv6 address with or without brackets.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        let same_port = self.port.map_or(port == 80 || port == 443, |p| p == port);
        same_port && normal(host) == self.host
    }

    /// Whether this grants all that the other does.
    pub fn covers(&self, other: &Self) -> bool {
        match other.port {
            Some(port) => self.allows(&other.host, port),
            None => self.allows(&other.host, 80) && self.allows(&other.host, 443),
        }
    }
}

/// Lower case, no brackets, IPv6 in its short form, no dot at the end.
fn normal(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<Ipv6Addr>() {
        Ok(address) => address.to_string(),
        Err(_) if bare.contains(':') => bare.into(),
        Err(_) => bare.trim_end_matches('.').to_ascii_lowercase(),
    }
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;
    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        let fail = |why| Err(HttpGrantError { text: text.chars().take(300).collect(), why });
        if text.contains("://") || text.contains('/') {
            return fail("it is a URL or has a path");
        }
        if text.contains('*') {
            return fail("patterns are not taken, each host is named");
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            match rest.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, rest)) => match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None => return fail("what follows `]` is no port"),
                },
                None => return fail("`[` without `]`"),
            }
        } else if text.matches(':').count() > 1 {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return fail("the port is not a number from 1 to 65535"),
        };
        let host = normal(host);
        let is_v6 = host.parse::<Ipv6Addr>().is_ok();
        let is_name = |h: &str| h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if host.is_empty() || host.len() > 253 || !(is_v6 || is_name(&host)) {
            return fail("it is neither a host name nor an address");
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (false, None) => f.write_str(&self.host),
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

    #[test]
    fn grants_are_exact() {
        let any: HttpGrant = "API.example.com".parse().unwrap();
        assert!(any.allows("api.example.com", 80) && any.allows("api.Example.com.", 443));
        assert!(!any.allows("api.example.com", 8080));
        assert!(!any.allows("example.com", 80) && !any.allows("x.api.example.com", 80));
        let one: HttpGrant = "127.0.0.1:8080".parse().unwrap();
        assert!(one.allows("127.0.0.1", 8080) && !one.allows("127.0.0.1", 80));
        let six: HttpGrant = "[2001:DB8:0::1]:99".parse().unwrap();
        assert!(six.allows("[2001:db8::1]", 99));
        assert_eq!(six.to_string(), "[2001:db8::1]:99");
    }

    #[test]
    fn a_grant_covers_what_it_allows() {
        let grant = |text: &str| text.parse::<HttpGrant>().unwrap();
        for (wide, narrow) in [("a.example", "a.example:80"), ("a.example", "a.example:443")] {
            assert!(grant(wide).covers(&grant(narrow)) && !grant(narrow).covers(&grant(wide)), "{narrow}");
        }
        assert!(grant("A.example").covers(&grant("a.example")));
        assert!(grant("[::1]:9").covers(&grant("[0::1]:9")));
        assert!(!grant("a.example").covers(&grant("a.example:8080")));
        assert!(!grant("a.example").covers(&grant("b.example")));
    }

    #[test]
    fn what_is_no_host_says_why() {
        for (text, why) in [
            ("http://a.example", "URL"),
            ("a.example/x", "path"),
            ("*.example", "patterns"),
            ("a:0", "port"),
            ("a:b", "port"),
            ("", "neither"),
            ("a b", "neither"),
            ("[::1", "without"),
            ("[::1]8080", "follows"),
            ("::0.", "neither"),
        ] {
            assert!(text.parse::<HttpGrant>().unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
