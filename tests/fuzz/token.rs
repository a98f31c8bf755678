//! Tokens of an identity provider, and its keys: what was changed after it was signed lets nobody in.

use crate::engine::{Input, Seen, Target, plain_words, same, text, words};
use crate::mutate::{Grow, damage};
use crate::random::Random;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use innkeeper_api::oidc::{Expected, Keys, Unverified};
use innkeeper_domain::Timestamp;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

pub struct Tokens {
    key: Ed25519KeyPair,
    /// The key set with its public half.
    keys: String,
}

const ISSUER: &str = "https://login.example.com";
const NOW: i64 = 1_800_000_000;

const EXAMPLES: Grow = Grow {
    corpus: &[
        br#"{"alg":"EdDSA","kid":"one","typ":"JWT"}"#,
        br#"{"alg":"none"}"#,
        br#"{"alg":"HS256","kid":"one"}"#,
        br#"{"iss":"https://login.example.com","aud":"innkeeper","sub":"me","exp":1800000100}"#,
        br#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"oct","k":"AA"}]}"#,
    ],
    tokens: &[
        "{", "}", "[", "]", "\"", ":", ",", ".", "-", "_", "=", "null", "1e999", "-1", "\"alg\":\"none\"", "\"RS256\"",
        "\"HS256\"", "\"crit\":[\"exp\"]", "\"kid\":\"two\"", "\"aud\":[\"innkeeper\"]", "\"exp\":0", "\"nbf\":9e99",
        "\"sub\":\"\"", "\"keys\":[]", "\"x\":\"\"", "\\u0000", "\\ud800", "é", "\0",
    ],
};

impl Tokens {
    pub fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let x = BASE64.encode(key.public_key());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "alg": "EdDSA", "x": x}]});
        Self { key, keys: keys.to_string() }
    }

    fn signed(&self, head: &[u8], claims: &[u8]) -> String {
        let message = format!("{}.{}", BASE64.encode(head), BASE64.encode(claims));
        let signature = BASE64.encode(self.key.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

impl Target for Tokens {
    /// The token, the key set, and what was signed of the token.
    fn make(&mut self, random: &mut Random) -> Input {
        let (mut head, mut claims) = (EXAMPLES.corpus[0].to_vec(), EXAMPLES.corpus[3].to_vec());
        match random.below(4) {
            0 => damage(random, &mut head, &EXAMPLES),
            1 => damage(random, &mut claims, &EXAMPLES),
            _ => {}
        }
        let mut token = self.signed(&head, &claims).into_bytes();
        let message = token[..token.iter().rposition(|byte| *byte == b'.').unwrap_or(0)].to_vec();
        if random.chance(40) {
            damage(random, &mut token, &EXAMPLES);
        }
        let mut keys = self.keys.clone().into_bytes();
        if random.chance(20) {
            damage(random, &mut keys, &EXAMPLES);
        }
        vec![token, keys, message]
    }

    fn check(&mut self, input: &[Vec<u8>]) -> Result<Seen, String> {
        let piece = |place: usize| input.get(place).map_or(&[][..], Vec::as_slice);
        let keys = match Keys::parse(piece(1)) {
            Ok(keys) => keys,
            Err(error) => return words(&error).map(|()| Seen::Refused),
        };
        let token = text(piece(0));
        let expected = Expected { issuer: ISSUER.into(), audience: "innkeeper".into() };
        let now = Timestamp::from_second(NOW).unwrap();
        let subject = || Unverified::read(&token)?.subject(&keys, &expected, now);
        let answer = subject();
        // Of several claims that are missing, any may be named.
        same("reading it again", &answer.as_ref().ok(), &subject().as_ref().ok())?;
        match answer {
            Ok(subject) if subject.is_empty() || subject.chars().any(char::is_control) => {
                Err(format!("its subject is {subject:?}"))
            }
            Ok(_) if token.rsplit_once('.').map(|(message, _)| message.as_bytes()) != Some(piece(2)) => {
                Err("it was changed after it was signed, and is taken".into())
            }
            Ok(_) => Ok(Seen::Taken),
            Err(error) => plain_words(&error).map(|()| Seen::Refused),
        }
    }
}
