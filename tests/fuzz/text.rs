//! Short texts that mean something: names, durations, hosts to allow. What is taken reads the same when it is shown.

use crate::engine::{Input, Seen, Target, same, words};
use crate::mutate::{Grow, text};
use crate::random::Random;
use innkeeper_domain::Timestamp;
use innkeeper_domain::component::Digest;
use innkeeper_domain::event::{Topic, TopicPattern};
use innkeeper_domain::holiday::Day;
use innkeeper_domain::host::Labels;
use innkeeper_domain::ids::RunId;
use innkeeper_domain::name::Name;
use innkeeper_domain::network::NetworkSet;
use innkeeper_domain::permission::HttpGrant;
use innkeeper_domain::quota::Quota;
use innkeeper_domain::rate::Rate;
use innkeeper_domain::secret::SecretText;
use innkeeper_runtime::network::Network;
use innkeeper_store::transfer::Place;
use std::collections::HashSet;
use std::slice::Windows;
use std::str::FromStr;
use std::time::Duration;

pub struct Texts;

/// The command line's own readers, which are in no library.
#[path = "../../host/inn/src/cli"]
mod cli {
    #[allow(dead_code, unused_imports, reason = "a part of them is tested here")]
    pub mod parse;

    /// What they say of a mistake.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    pub struct Usage(pub String);
}

/// Reads a text, and shows what it has read.
type Reader = fn(&str) -> Result<String, String>;

const READERS: [(&str, Reader); 17] = [
    ("name", shown::<Name>),
    ("labels", shown::<Labels>),
    ("digest", shown::<Digest>),
    ("id", shown::<RunId>),
    ("rate", shown::<Rate>),
    ("host to allow", shown::<HttpGrant>),
    ("topic", |text| text.parse::<Topic>().map(|topic| topic.as_str().into()).map_err(|e| e.to_string())),
    ("pattern", |text| text.parse::<TopicPattern>().map(|p| p.as_str().into()).map_err(|e| e.to_string())),
    ("quota", shown::<Quota>),
    ("day", shown::<Day>),
    ("network", shown::<Network>),
    ("closed networks", shown::<NetworkSet>),
    ("duration", |text| cli::parse::duration(text).map(|time| shown_duration(text, time))),
    ("size", |text| cli::parse::size(text).map(|bytes| bytes.to_string())),
    ("instant", |text| {
        cli::parse::since(text, Timestamp::UNIX_EPOCH).map(|at| at.to_string()).map_err(|e| e.to_string())
    }),
    // What is shown of it is not to be read again.
    ("database", |text| text.parse::<Place>().map(|_| text.into()).map_err(|e| e.to_string())),
    ("secret", |text| {
        SecretText::new(text.into()).map(|secret| secret.expose().into()).map_err(|e| e.to_string())
    }),
];

const EXAMPLES: Grow = Grow {
    corpus: &[
        b"nightly-report",
        b"zone=eu,gpu=a100",
        b"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        b"01890a5d-ac96-774b-bcce-b302099a8057",
        b"100/m",
        b"api.example.com:8443",
        b"[2001:db8::1]:8080",
        b"*.example.com:8000-8099",
        b"*:*",
        b"orders.*.paid.**",
        b"stored-bytes",
        b"2026-12-25/yearly/2030-12-25",
        b"10.0.0.0/8",
        b"64:ff9b::/96",
        b"loopback,link-local,metadata,6to4",
        b"1h30m",
        b"64MiB",
        b"2030-01-31T09:00:00+01:00",
        b"in 10m",
        b"postgres://inn:secret@db.example.com:5432/inn?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        b"postgres://inn@[::1],localhost/inn?target_session_attrs=any",
    ],
    tokens: &[
        "/s",
        "/",
        ":",
        "::",
        "[",
        "]",
        "@",
        "=",
        ",",
        ".",
        "..",
        "*",
        "**",
        "*.",
        ":*",
        ":1-65535",
        "-",
        "_",
        "%",
        "%00",
        "%40",
        "?",
        "&",
        "#",
        "0x",
        "127.0.0.1",
        "0177.1",
        "::ffff:127.0.0.1",
        "%eth0",
        "localhost",
        "private,",
        "none",
        "xn--",
        "ms",
        "d",
        "KiB",
        "999999999999999999",
        "4294967295d",
        "-9999-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "[Europe/Berlin]",
        "innkeeper.",
        "sha256:",
        "postgres://",
        "é",
        "İ",
        "\u{ff10}",
        "\u{202e}",
        "\u{85}",
        "\0",
        "\n",
        "\x1b[31m",
        " ",
        "\u{a0}",
    ],
};

impl Target for Texts {
    /// Whose it is, and the text.
    fn make(&mut self, random: &mut Random) -> Input {
        let reader = READERS[random.below(READERS.len() as u64) as usize].0;
        vec![reader.into(), text(random, &EXAMPLES).into()]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let piece =
            |place: usize| input.get(place).map_or_else(String::new, |piece| crate::engine::text(piece));
        let Some((_, read)) = READERS.iter().find(|(name, _)| *name == piece(0)) else {
            return Ok(Seen::Refused);
        };
        if piece(0) == "database" {
            hides_the_password(&piece(1))?;
        }
        match read(&piece(1)) {
            Ok(shown) => {
                same("reading what is shown", &Ok(shown.clone()), &read(&shown)).map(|()| Seen::Taken)
            }
            Err(error) => words(&error).map(|()| Seen::Refused),
        }
    }
}

fn shown<T: FromStr<Err: ToString> + ToString>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|read| read.to_string()).map_err(|error| error.to_string())
}

/// In a unit of which there aren't too many for one number.
fn shown_duration(text: &str, time: Duration) -> String {
    match u32::try_from(time.as_secs() / 86_400) {
        Ok(days) => format!("{days}d{}ms", time.as_millis() % 86_400_000),
        Err(_) => text.into(),
    }
}

/// Bytes of a password that mustn't be seen in a row.
const PART: usize = 6;

/// Words that are said of any URL.
const SAID_ANYWAY: [&str; 3] = [
    "this is no database's URL (invalid connection string: unexpected character at byte: expected `` but got ``); \
     expected postgres://USER:PASSWORD@HOST:PORT/NAME",
    "unknown option, invalid value for option `host` `hostaddr` `port` `user` `password` `dbname` `options` \
     `application_name` `sslmode` `sslnegotiation` `sslrootcert` `connect_timeout` `tcp_user_timeout` `keepalives` \
     `keepalives_idle` `keepalives_interval` `keepalives_retries` `target_session_attrs` `channel_binding` \
     `load_balance_hosts`",
    "it doesn't begin with postgres://, it names no user, a second `@`: in a name or a password it is written %40, and \
     `/` %2F, unexpected EOF, invalid utf-8 sequence of bytes from index, incomplete utf-8 byte sequence, invalid digit",
];

/// Whether no part of a password is in what is shown of a database's URL, or said of a mistake in it.
fn hides_the_password(url: &str) -> Result<(), String> {
    let Some([before, password, after]) = around_password(url) else { return Ok(()) };
    let (said, of_another) = (said_of(url), said_of(&format!("{before}another{after}")));
    // What doesn't come from the password may look like a part of it.
    let mut seen: HashSet<&[u8]> = parts(&said).collect();
    for known in [before, after, of_another.as_str()].into_iter().chain(SAID_ANYWAY) {
        for part in parts(known) {
            seen.remove(part);
        }
    }
    match parts(password).find(|part| seen.contains(*part)) {
        Some(part) => Err(format!("{:?} of the password is in {said:?}", String::from_utf8_lossy(part))),
        None => Ok(()),
    }
}

/// What is before a URL's password, the password, and what is after it.
fn around_password(url: &str) -> Option<[&str; 3]> {
    let begin = url.find("://")? + 3;
    let place = url.find('?').unwrap_or(url.len());
    let end = match url[..place].rfind('@') {
        // A `?` may be a part of it, unless what is after that is taken for a parameter of the host's own.
        None if !url.contains("sslrootcert=") => url.find('@')?,
        end => end?,
    };
    let password = begin + url.get(begin..end)?.find(':')? + 1;
    Some([&url[..password], &url[password..end], &url[end..]])
}

fn said_of(url: &str) -> String {
    url.parse::<Place>().map_or_else(|error| error.to_string(), |place| place.to_string())
}

fn parts(text: &str) -> Windows<'_, u8> {
    text.as_bytes().windows(PART)
}
