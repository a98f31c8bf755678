//! Signed requests, and such as only look like it: what is taken is signed, and what is signed is taken.

use crate::engine::{Input, Seen, Target, plain_words, same, text};
use crate::mutate::{Grow, damage};
use crate::random::Random;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use innkeeper_domain::Timestamp;
use innkeeper_domain::secret::SecretText;
use innkeeper_domain::webhook::Scheme;
use sha2::Sha256;
use std::time::Duration;

pub struct Deliveries;

const SECRET: &str = "whsec_c2VjcmV0IG9mIHRoZSB0cmlnZ2Vy";
/// When the requests come, in seconds since 1970, and how far from then they may be signed.
const NOW: i64 = 1_800_000_000;
const TOLERANCE: i64 = 300;

/// The headers that a sender of any scheme sets.
const HEADERS: [&str; 5] =
    ["webhook-id", "webhook-timestamp", "webhook-signature", "x-hub-signature-256", "stripe-signature"];

const EXAMPLES: Grow = Grow {
    corpus: &[b"{\"id\": \"evt_1\"}", b"[1, 2, 3]", b""],
    tokens: &[
        "v1,",
        "v1=",
        "t=",
        "sha256=",
        ",",
        "=",
        " ",
        "\t",
        "1800000000",
        "1799999700",
        "1800000301",
        "-1",
        "+1800000000",
        "9223372036854775807",
        "AAAA",
        "é",
        "\0",
        "\u{feff}",
        "==",
        "v0=",
        "t=1,t=2",
        "\"id\":\"\"",
    ],
};

impl Target for Deliveries {
    /// The scheme, the headers' values, the body.
    fn make(&mut self, random: &mut Random) -> Input {
        let scheme = random.pick(Scheme::ALL).unwrap_or_default();
        let body = crate::mutate::bytes(random, &EXAMPLES);
        let at =
            NOW + random.pick(&[0, TOLERANCE, -TOLERANCE, TOLERANCE + 1, -TOLERANCE - 1, 7]).unwrap_or(0);
        let id = random.pick(&["msg_1", "a.b", "x"]).unwrap_or("x");
        let mut headers: [Vec<u8>; 5] = match scheme {
            Scheme::Standard => {
                let signature = BASE64.encode(signed(scheme, &[format!("{id}.{at}.").as_bytes(), &body]));
                let rest = if random.chance(30) { " v1,AAAA" } else { "" };
                [id.into(), at.to_string().into(), format!("v1,{signature}{rest}").into(), vec![], vec![]]
            }
            Scheme::Github => {
                let signature = hex::encode(signed(scheme, &[&body]));
                [vec![], vec![], vec![], format!("sha256={signature}").into(), vec![]]
            }
            Scheme::Stripe => {
                let signature = hex::encode(signed(scheme, &[format!("{at}.").as_bytes(), &body]));
                [vec![], vec![], vec![], vec![], format!("t={at},v1={signature}").into()]
            }
        };
        let mut body = body;
        if random.chance(60) {
            let place = random.below(6) as usize;
            damage(random, headers.get_mut(place).unwrap_or(&mut body), &EXAMPLES);
        }
        std::iter::once(scheme.as_str().into()).chain(headers).chain([body]).collect()
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let piece = |place: usize| input.get(place).map_or(&[][..], Vec::as_slice);
        let scheme: Scheme = text(piece(0)).parse().unwrap_or_default();
        let header = |name: &str| {
            let place = HEADERS.iter().position(|known| *known == name)?;
            Some(piece(place + 1)).filter(|value| !value.is_empty())
        };
        let body = piece(6);
        let now = Timestamp::from_second(NOW).unwrap();
        let tolerance = Duration::from_secs(TOLERANCE.unsigned_abs());
        let secret = SecretText::new(SECRET.into()).unwrap();
        let verified = || scheme.claim(&header, tolerance, now).and_then(|claim| claim.verify(body, &secret));
        let answer = verified();
        same("verifying it again", &answer, &verified())?;
        same("whether it is taken", &answer.is_ok(), &is_signed(scheme, &|name| header(name), body))?;
        match answer {
            Ok(delivery) if delivery.key.is_empty() || delivery.key.len() > 256 => {
                Err(format!("its key has {} bytes", delivery.key.len()))
            }
            Ok(_) => Ok(Seen::Taken),
            Err(error) => plain_words(&error.to_string()).map(|()| Seen::Refused),
        }
    }
}

fn signed(scheme: Scheme, parts: &[&[u8]]) -> Vec<u8> {
    let key = match scheme {
        Scheme::Standard => BASE64.decode(&SECRET["whsec_".len()..]).unwrap(),
        Scheme::Github | Scheme::Stripe => SECRET.into(),
    };
    let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    parts.iter().fold(mac, |mac, part| mac.chain_update(part)).finalize().into_bytes().to_vec()
}

/// Whether a request is signed and of now, by a reading of the schemes that shares nothing with the host's: only the
/// first signature that fits counts.
fn is_signed<'a>(scheme: Scheme, header: &dyn Fn(&str) -> Option<&'a [u8]>, body: &[u8]) -> bool {
    let ascii = |name: &str| {
        let value = header(name).filter(|value| value.iter().all(|b| matches!(b, b' '..=b'~' | b'\t')))?;
        std::str::from_utf8(value).ok()
    };
    let is_now = |at: &str| at.parse().is_ok_and(|at: i64| at.abs_diff(NOW) <= TOLERANCE.unsigned_abs());
    match scheme {
        Scheme::Standard => {
            let (Some(id), Some(at)) = (ascii("webhook-id"), ascii("webhook-timestamp")) else {
                return false;
            };
            let right = BASE64.encode(signed(scheme, &[format!("{id}.{at}.").as_bytes(), body]));
            let mut given = ascii("webhook-signature").unwrap_or_default().split(' ');
            let fits =
                given.by_ref().filter(|one| one.starts_with("v1,")).take(8).any(|one| one[3..] == right);
            fits && is_now(at) && id.len() <= 256
        }
        Scheme::Github => {
            let right = hex::encode(signed(scheme, &[body]));
            let given = ascii("x-hub-signature-256").and_then(|given| given.strip_prefix("sha256="));
            given.is_some_and(|given| given.eq_ignore_ascii_case(&right))
        }
        Scheme::Stripe => {
            let parts: Vec<_> =
                ascii("stripe-signature").unwrap_or_default().split(',').map(str::trim).collect();
            let Some(at) = parts.iter().find_map(|part| part.strip_prefix("t=")) else { return false };
            let right = hex::encode(signed(scheme, &[format!("{at}.").as_bytes(), body]));
            let given = parts.iter().filter_map(|part| part.strip_prefix("v1=")).take(8);
            given.into_iter().any(|given| given.eq_ignore_ascii_case(&right)) && is_now(at)
        }
    }
}
