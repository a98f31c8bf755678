//! Tokens that an identity provider has signed: whether one is good, and whose it is. Knows no network; whoever
//! fetches the keys gives them.

mod keys;
mod signature;

pub use keys::Keys;

use innkeeper_domain::Timestamp;
use innkeeper_domain::limits::{IDENTITY_LEEWAY, IDENTITY_TOKEN_BYTES_MAX, SUBJECT_BYTES_MAX};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::Deserialize;

/// What a token must say.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Who has signed it, letter by letter.
    pub issuer: String,
    /// Whom it is meant for, at least.
    pub audience: String,
}

/// A token's text whose head has been read, and nothing of it believed.
#[derive(Debug)]
pub struct Unverified<'a> {
    text: &'a str,
    key: Option<String>,
    algorithm: Algorithm,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    nbf: Option<f64>,
}

/// Of what a token can say that it is, what lets its bearer in. A log-out token, say, is signed by the same keys.
const KINDS: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

impl<'a> Unverified<'a> {
    /// Reads the head. An error says in words what is wrong with the token, and has nothing of it.
    pub fn read(text: &'a str) -> Result<Self, String> {
        if text.len() > IDENTITY_TOKEN_BYTES_MAX {
            return Err(format!("the token has more than {IDENTITY_TOKEN_BYTES_MAX} bytes"));
        }
        let Header { alg, kid, typ, crit, .. } = jsonwebtoken::decode_header(text).map_err(|_| {
            "the token is no signed JWT, or its algorithm is none of RS256, RS384, RS512, PS256, PS384, PS512, ES256, \
             ES384 and EdDSA"
        })?;
        if crit.is_some() {
            return Err("the token has a header that it says must be understood, and it is not".into());
        }
        if typ.is_some_and(|typ| !KINDS.contains(&typ.to_ascii_lowercase().as_str())) {
            return Err("the token is of a kind that lets nobody in".into());
        }
        Ok(Self { text, key: kid, algorithm: alg })
    }

    /// The id of the key that it says it is signed with.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Its subject, if it is signed by one of the keys, meant for us, and valid now. An error says in words what is
    /// wrong with the token, and has nothing of it. This computes for up to some hundred microseconds.
    pub fn subject(&self, keys: &Keys, expected: &Expected, now: Timestamp) -> Result<String, String> {
        signature::use_ring();
        let key =
            keys.find(self.key(), self.algorithm).map_err(|why| format!("the token is not good: {why}"))?;
        let mut validation = Validation::new(self.algorithm);
        validation.set_issuer(&[&expected.issuer]);
        validation.set_audience(&[&expected.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // These go by the host's clock, below.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let decoded = jsonwebtoken::decode::<Claims>(self.text, &key.decoding, &validation);
        let claims = decoded.map_err(|error| in_words(error.kind(), expected))?.claims;
        if claims.iss != expected.issuer {
            return Err(in_words(&ErrorKind::InvalidIssuer, expected));
        }
        let (now, leeway) = (now.as_second() as f64, IDENTITY_LEEWAY.as_secs_f64());
        if claims.exp + leeway <= now {
            return Err("the token has expired; get a new one of the identity provider".into());
        }
        if claims.nbf.is_some_and(|from| from - leeway > now) {
            return Err(
                "the token is not valid yet; compare the clocks of the provider and of this host".into()
            );
        }
        if !(1..=SUBJECT_BYTES_MAX).contains(&claims.sub.len()) || claims.sub.chars().any(char::is_control) {
            return Err(format!("the token's subject is not 1 to {SUBJECT_BYTES_MAX} bytes of plain text"));
        }
        Ok(claims.sub)
    }
}

fn in_words(kind: &ErrorKind, expected: &Expected) -> String {
    match kind {
        ErrorKind::InvalidSignature => "the token is not signed by the key that it names".into(),
        ErrorKind::InvalidIssuer => format!("the token is not of the issuer {}", expected.issuer),
        ErrorKind::InvalidAudience => {
            format!("the token is not meant for the audience {}", expected.audience)
        }
        ErrorKind::MissingRequiredClaim(claim) => format!("the token has no claim `{claim}`"),
        ErrorKind::Json(_) => "the token's claims are not as they should be (iss, sub, aud, exp, nbf)".into(),
        _ => "the token is no signed JWT".into(),
    }
}

#[cfg(test)]
mod tests;
