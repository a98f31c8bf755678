//! Webhooks: whether a request that asks for a run comes from who may ask, and which delivery it is.
//!
//! A sender signs what it sends with a secret that it shares with the trigger. Where it signs the time as well, what is
//! older than the tolerance is refused, so that somebody who has recorded a request can't send it again later; within the
//! tolerance, and where it signs no time, the delivery's key makes the second one no run.

use crate::limits::{WEBHOOK_ID_CHARS_MAX, WEBHOOK_SIGNATURES_MAX};
use crate::secret::SecretText;
use crate::time;
use crate::word::words;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// How a sender signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// As Standard Webhooks says: `webhook-id`, `webhook-timestamp`, and in `webhook-signature` `v1,` with the base64
    /// of the HMAC of `ID.TIMESTAMP.BODY`.
    #[default]
    Standard,
    /// As GitHub does: in `x-hub-signature-256` `sha256=` with the hex of the HMAC of the body.
    Github,
    /// As Stripe does: in `stripe-signature` `t=TIMESTAMP,v1=` with the hex of the HMAC of `TIMESTAMP.BODY`.
    Stripe,
}

words!(Scheme, "a webhook scheme", Standard = "standard", Github = "github", Stripe = "stripe");

/// A request that comes from who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Names it among all of its trigger's: one that is sent again has the same.
    pub key: String,
    /// When it was signed; none if that isn't signed.
    pub signed_at: Option<Timestamp>,
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the request has no header `{0}`, by which its sender is known")]
    Missing(&'static str),
    #[error("the header `{header}` can't be read: {why}")]
    Unreadable { header: &'static str, why: &'static str },
    #[error(
        "the request was signed {} from now; at most {} is taken: is the sender's clock right?",
        seconds(.off),
        seconds(.tolerance)
    )]
    Time { off: Duration, tolerance: Duration },
    #[error("the signature is not that of the trigger's secret and this body")]
    Signature,
}

/// What the headers of a request say of it. Nothing of it is known to be true before [`Claim::verify`].
#[derive(Debug)]
pub struct Claim {
    scheme: Scheme,
    /// What is signed before the body.
    prefix: Vec<u8>,
    id: Option<String>,
    signed_at: Option<Timestamp>,
    signatures: Vec<Vec<u8>>,
}

/// The value of a header by its name in lower case.
type Header<'a> = &'a dyn Fn(&str) -> Option<&'a [u8]>;

impl Scheme {
    /// What a request claims, if it can be true: every header is there and can be read, and it was signed not longer
    /// than `tolerance` from `now`. Needs neither body nor secret.
    pub fn claim(
        self,
        header: Header<'_>,
        tolerance: Duration,
        now: Timestamp,
    ) -> Result<Claim, WebhookError> {
        let claim = match self {
            Self::Standard => standard(header),
            Self::Github => github(header),
            Self::Stripe => stripe(header),
        }?;
        claim.signed_at.map_or(Ok(()), |at| in_time(at, tolerance, now))?;
        Ok(claim)
    }
}

impl Claim {
    /// Whether who sent this body has the secret.
    pub fn verify(self, body: &[u8], secret: &SecretText) -> Result<Delivery, WebhookError> {
        let key = match self.scheme {
            Scheme::Standard => standard_key(secret),
            Scheme::Github | Scheme::Stripe => secret.expose().as_bytes().to_vec(),
        };
        let signature = signed_by(&key, &[&self.prefix, body], self.signatures)?;
        let key = match self.scheme {
            Scheme::Standard => self.id.unwrap_or_default(),
            // The delivery's id isn't signed: somebody who sends it again could choose another.
            Scheme::Github => hex::encode(signature),
            Scheme::Stripe => stripe_event(body),
        };
        Ok(Delivery { key, signed_at: self.signed_at })
    }
}

fn standard(header: Header<'_>) -> Result<Claim, WebhookError> {
    const SIGNATURES: &str = "webhook-signature";
    let id = required(header, "webhook-id")?;
    if id.is_empty() || id.len() > WEBHOOK_ID_CHARS_MAX {
        return Err(unreadable("webhook-id", "it is empty or too long"));
    }
    let timestamp = required(header, "webhook-timestamp")?;
    let given = required(header, SIGNATURES)?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let given = given.take(WEBHOOK_SIGNATURES_MAX).filter_map(|one| BASE64.decode(one).ok());
    Ok(Claim {
        scheme: Scheme::Standard,
        prefix: format!("{id}.{timestamp}.").into(),
        id: Some(id.into()),
        signed_at: Some(instant("webhook-timestamp", timestamp)?),
        signatures: some(SIGNATURES, given, "it has no `v1,` and base64")?,
    })
}

/// The secret's bytes: of `whsec_` and base64 what that says, else its text.
fn standard_key(secret: &SecretText) -> Vec<u8> {
    let text = secret.expose();
    let encoded = text.strip_prefix("whsec_").and_then(|encoded| BASE64.decode(encoded).ok());
    encoded.unwrap_or_else(|| text.as_bytes().to_vec())
}

fn github(header: Header<'_>) -> Result<Claim, WebhookError> {
    const HEADER: &str = "x-hub-signature-256";
    let given = required(header, HEADER)?;
    let given = given.strip_prefix("sha256=").and_then(|hex| hex::decode(hex).ok());
    let signatures = some(HEADER, given, "it is not `sha256=` and hex digits")?;
    Ok(Claim { scheme: Scheme::Github, prefix: Vec::new(), id: None, signed_at: None, signatures })
}

fn stripe(header: Header<'_>) -> Result<Claim, WebhookError> {
    const HEADER: &str = "stripe-signature";
    let header = required(header, HEADER)?;
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let timestamp = parts().find(|(name, _)| *name == "t").map(|(_, value)| value);
    let timestamp = timestamp.ok_or_else(|| unreadable(HEADER, "it has no `t=`"))?;
    let given = parts().filter(|(name, _)| *name == "v1").take(WEBHOOK_SIGNATURES_MAX);
    let given = given.filter_map(|(_, value)| hex::decode(value).ok());
    Ok(Claim {
        scheme: Scheme::Stripe,
        prefix: format!("{timestamp}.").into(),
        id: None,
        signed_at: Some(instant(HEADER, timestamp)?),
        signatures: some(HEADER, given, "it has no `v1=` and hex digits")?,
    })
}

/// The id of Stripe's event, which stays when it is sent and signed again; else what stands for the body.
fn stripe_event(body: &[u8]) -> String {
    let event: Option<Event> = serde_json::from_slice(body).ok();
    let id = event.map(|event| event.id).filter(|id| !id.is_empty() && id.len() <= WEBHOOK_ID_CHARS_MAX);
    id.unwrap_or_else(|| hex::encode(Sha256::digest(body)))
}

/// What is read of Stripe's events.
#[derive(Deserialize)]
struct Event {
    id: String,
}

/// A header's text.
fn required<'a>(header: Header<'a>, name: &'static str) -> Result<&'a str, WebhookError> {
    let value = header(name).ok_or(WebhookError::Missing(name))?;
    let visible = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let text = std::str::from_utf8(value).ok().filter(|_| visible);
    text.ok_or_else(|| unreadable(name, "it is not visible ASCII"))
}

/// The signatures of a header, of which there must be one.
fn some(
    header: &'static str,
    given: impl IntoIterator<Item = Vec<u8>>,
    why: &'static str,
) -> Result<Vec<Vec<u8>>, WebhookError> {
    let given: Vec<Vec<u8>> = given.into_iter().filter(|signature| !signature.is_empty()).collect();
    if given.is_empty() { Err(unreadable(header, why)) } else { Ok(given) }
}

/// The signature that is that of these parts; each is compared in the same time.
fn signed_by(key: &[u8], parts: &[&[u8]], given: Vec<Vec<u8>>) -> Result<Vec<u8>, WebhookError> {
    let Ok(empty) = Hmac::<Sha256>::new_from_slice(key) else { return Err(WebhookError::Signature) };
    let mac = parts.iter().fold(empty, |mac, part| mac.chain_update(part));
    let found = given.into_iter().find(|given| mac.clone().verify_slice(given).is_ok());
    found.ok_or(WebhookError::Signature)
}

fn instant(header: &'static str, seconds: &str) -> Result<Timestamp, WebhookError> {
    let seconds = seconds.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.ok_or_else(|| unreadable(header, "its time is not seconds since 1970"))
}

fn in_time(at: Timestamp, tolerance: Duration, now: Timestamp) -> Result<(), WebhookError> {
    let off = time::between(at, now).max(time::between(now, at));
    if off > tolerance { Err(WebhookError::Time { off, tolerance }) } else { Ok(()) }
}

fn unreadable(header: &'static str, why: &'static str) -> WebhookError {
    WebhookError::Unreadable { header, why }
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1","total":7}"#;
    const TOLERANCE: Duration = Duration::from_secs(300);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn at(
        scheme: Scheme,
        headers: &[(&str, &str)],
        body: &[u8],
        secret: &str,
        now: Timestamp,
    ) -> Result<Delivery, WebhookError> {
        let found = |name: &str| headers.iter().find(|(known, _)| *known == name);
        let header = |name: &str| found(name).map(|(_, value)| value.as_bytes());
        let secret = SecretText::new(secret.into()).unwrap();
        scheme.claim(&header, TOLERANCE, now)?.verify(body, &secret)
    }

    fn verify(
        scheme: Scheme,
        headers: &[(&str, &str)],
        body: &[u8],
        secret: &str,
    ) -> Result<Delivery, WebhookError> {
        at(scheme, headers, body, secret, now())
    }

    fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
        let mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.chain_update(text).finalize().into_bytes().to_vec()
    }

    #[test]
    fn examples_of_the_schemes_own_documents() {
        // GitHub's page on validating deliveries.
        let headers = [(
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )];
        let good = verify(Scheme::Github, &headers, b"Hello, World!", "It's a Secret to Everybody").unwrap();
        assert_eq!(good.signed_at, None);
        // The specification of Standard Webhooks.
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        let (body, secret) = (br#"{"test": 2432232314}"#, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let then = Timestamp::from_second(1_614_265_330).unwrap();
        let good = at(Scheme::Standard, &headers, body, secret, then).unwrap();
        assert_eq!(good, Delivery { key: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(), signed_at: Some(then) });
        let late = verify(Scheme::Standard, &headers, body, secret);
        assert!(matches!(late, Err(WebhookError::Time { .. })), "{late:?}");
    }

    #[test]
    fn what_is_changed_is_refused() {
        let signature = hex::encode(mac(b"a secret", &[b"1800000000.", BODY].concat()));
        let header = format!("t=1800000000,v1={},v1={signature}", "0".repeat(64));
        let stripe = |body: &[u8], secret: &str| {
            verify(Scheme::Stripe, &[("stripe-signature", &header)], body, secret)
        };
        let good = stripe(BODY, "a secret").unwrap();
        assert_eq!(good, Delivery { key: "evt_1".into(), signed_at: Some(now()) });
        assert_eq!(stripe(b"{}", "a secret"), Err(WebhookError::Signature));
        assert_eq!(stripe(BODY, "another one"), Err(WebhookError::Signature));
        let standard = |id: &str, at: &str| {
            let signature = BASE64.encode(mac(b"a secret", &[b"m1.1800000000.", BODY].concat()));
            let signature = format!("v1a,xx v1,{signature}");
            let headers =
                [("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signature.as_str())];
            verify(Scheme::Standard, &headers, BODY, "a secret")
        };
        assert!(standard("m1", "1800000000").is_ok());
        assert_eq!(standard("m2", "1800000000"), Err(WebhookError::Signature));
        assert_eq!(standard("m1", "1800000001"), Err(WebhookError::Signature));
        assert!(matches!(standard("m1", "soon"), Err(WebhookError::Unreadable { .. })));
        assert!(matches!(standard("", "1800000000"), Err(WebhookError::Unreadable { .. })));
    }

    #[test]
    fn what_is_old_or_early_is_refused_though_it_is_signed() {
        for (second, good) in [(-301, false), (-300, true), (0, true), (300, true), (301, false)] {
            let at = (now().as_second() + second).to_string();
            let text = [at.as_bytes(), b".", BODY].concat();
            let header = format!("t={at}, v1={}", hex::encode(mac(b"a secret", &text)));
            let verified = verify(Scheme::Stripe, &[("stripe-signature", &header)], BODY, "a secret");
            assert_eq!(verified.is_ok(), good, "{second}: {verified:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (scheme, header) in [
            (Scheme::Standard, "webhook-id"),
            (Scheme::Github, "x-hub-signature-256"),
            (Scheme::Stripe, "stripe-signature"),
        ] {
            assert_eq!(verify(scheme, &[], BODY, "a secret"), Err(WebhookError::Missing(header)));
        }
        let no_time = verify(Scheme::Stripe, &[("stripe-signature", "v1=00")], BODY, "a secret");
        assert!(no_time.unwrap_err().to_string().contains("`t=`"));
        let odd = verify(Scheme::Github, &[("x-hub-signature-256", "sha1=00")], BODY, "a secret");
        assert!(matches!(odd, Err(WebhookError::Unreadable { .. })));
        let short =
            |signature: &str| verify(Scheme::Github, &[("x-hub-signature-256", signature)], BODY, "a secret");
        assert!(matches!(short("sha256="), Err(WebhookError::Unreadable { .. })));
        assert_eq!(short("sha256=00"), Err(WebhookError::Signature));
        let headers =
            [("webhook-id", "ü"), ("webhook-timestamp", "1800000000"), ("webhook-signature", "v1,")];
        let words = |headers: &[(&str, &str)]| {
            verify(Scheme::Standard, headers, BODY, "a secret").unwrap_err().to_string()
        };
        assert!(words(&headers).contains("not visible ASCII"), "{}", words(&headers));
        assert!(words(&[&[("webhook-id", "m1")], &headers[1..]].concat()).contains("no `v1,`"));
    }
}
