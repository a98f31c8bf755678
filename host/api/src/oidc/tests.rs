//! Tokens, good and bad, signed here.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RsaEncoding,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com/realm";

enum Signer {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Hmac(Vec<u8>),
    Nobody,
}

impl Signer {
    fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("it is one"))
    }

    fn p256() -> Self {
        Self::ec(&ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    fn ed() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        Self::Ed(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("it is one"))
    }

    fn rsa(encoding: &'static dyn RsaEncoding) -> Self {
        // Made by `openssl genpkey -algorithm RSA | openssl pkcs8 -topk8 -nocrypt -outform DER`; ring makes none. It guards nothing.
        let pkcs8 = include_bytes!("testdata/rsa.pkcs8.der");
        Self::Rsa(Box::new(RsaKeyPair::from_pkcs8(pkcs8).expect("a key")), encoding)
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Ec(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y), "kid": id})
            }
            Self::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(key.public_key()), "kid": id})
            }
            Self::Rsa(key, _) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": BASE64.encode(n), "e": BASE64.encode(e), "kid": id, "use": "sig"})
            }
            Self::Hmac(secret) => json!({"kty": "oct", "k": BASE64.encode(secret), "kid": id}),
            Self::Nobody => unreachable!("nobody has no key"),
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let message = text.as_bytes();
        let random = SystemRandom::new();
        let signature = match self {
            Self::Ec(key) => key.sign(&random, message).expect("signed").as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
            Self::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(*encoding, &random, message, &mut signature).expect("signed");
                signature
            }
            Self::Hmac(secret) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                ring::hmac::sign(&key, message).as_ref().to_vec()
            }
            Self::Nobody => Vec::new(),
        };
        format!("{text}.{}", BASE64.encode(signature))
    }
}

fn keys(all: &[Value]) -> Keys {
    Keys::parse(json!({ "keys": all }).to_string().as_bytes()).expect("keys")
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "innkeeper", "sub": "ci@example.com", "exp": NOW + 300, "nbf": NOW - 300})
}

fn changed(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[claim] = value;
    claims
}

fn without(claim: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(claim);
    claims
}

fn subject(token: &str, keys: &Keys) -> Result<String, String> {
    let expected = Expected { issuer: ISSUER.into(), audience: "innkeeper".into() };
    let said =
        Unverified::read(token)?.subject(keys, &expected, Timestamp::from_second(NOW).expect("a time"));
    if let Err(why) = &said {
        assert!(token.split('.').filter(|part| part.len() > 8).all(|part| !why.contains(part)), "{why}");
    }
    said
}

#[test]
fn each_algorithm_with_its_key_is_taken() {
    for (algorithm, signer) in [
        ("ES256", Signer::p256()),
        ("ES384", Signer::ec(&ECDSA_P384_SHA384_FIXED_SIGNING)),
        ("EdDSA", Signer::ed()),
        ("RS256", Signer::rsa(&RSA_PKCS1_SHA256)),
        ("RS512", Signer::rsa(&RSA_PKCS1_SHA512)),
        ("PS256", Signer::rsa(&RSA_PSS_SHA256)),
        ("PS384", Signer::rsa(&RSA_PSS_SHA384)),
    ] {
        let keys = keys(&[signer.jwk("one")]);
        for header in [json!({"alg": algorithm, "kid": "one"}), json!({"alg": algorithm, "typ": "JWT"})] {
            let token = signer.sign(&header, &claims());
            assert_eq!(subject(&token, &keys).as_deref(), Ok("ci@example.com"), "{algorithm}");
            // One letter of the claims, and one of the signature, changed.
            for part in [1, 2] {
                let mut parts: Vec<String> = token.split('.').map(Into::into).collect();
                let other = if parts[part].starts_with('A') { "B" } else { "A" };
                parts[part].replace_range(0..1, other);
                assert!(subject(&parts.join("."), &keys).is_err(), "{algorithm}, part {part}");
            }
        }
    }
}

#[test]
fn the_algorithm_must_fit_the_key() {
    let rsa = Signer::rsa(&RSA_PKCS1_SHA256);
    let jwk = rsa.jwk("one");
    let known = keys(std::slice::from_ref(&jwk));
    let kid = |algorithm: &str| json!({"alg": algorithm, "kid": "one"});
    // No signature, in every spelling.
    for none in ["none", "None", "NONE", "nOnE", ""] {
        assert!(subject(&Signer::Nobody.sign(&kid(none), &claims()), &known).is_err(), "{none}");
    }
    // The public key as a shared secret, in several of its forms.
    let Signer::Rsa(pair, _) = &rsa else { unreachable!("it is RSA's") };
    let modulus = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public()).n;
    for secret in [modulus, pair.public().as_ref().to_vec(), jwk.to_string().into_bytes()] {
        let why = subject(&Signer::Hmac(secret).sign(&kid("HS256"), &claims()), &known);
        assert!(why.expect_err("no").contains("doesn't fit"));
    }
    // One key of two algorithms, where the issuer says it is for one.
    let mut only = jwk.clone();
    only["alg"] = json!("RS512");
    assert!(subject(&rsa.sign(&kid("RS256"), &claims()), &keys(&[only])).is_err());
    // An Ed25519 signature under the id of another key.
    let ed = Signer::ed();
    assert!(subject(&ed.sign(&kid("EdDSA"), &claims()), &keys(&[jwk, ed.jwk("two")])).is_err());
    // A key that the token brings along.
    let stranger = Signer::p256();
    let mut header = json!({"alg": "ES256", "kid": "one"});
    header["jwk"] = stranger.jwk("one");
    assert!(subject(&stranger.sign(&header, &claims()), &keys(&[Signer::p256().jwk("one")])).is_err());
}

#[test]
fn what_it_says_must_be_so() {
    let signer = Signer::p256();
    let keys = keys(&[signer.jwk("one")]);
    let said = |claims: &Value| subject(&signer.sign(&json!({"alg": "ES256", "kid": "one"}), claims), &keys);
    for good in [
        changed("aud", json!(["other", "innkeeper"])),
        changed("exp", json!(NOW - 59)),
        changed("exp", json!(NOW as f64 + 0.5)),
        changed("nbf", json!(NOW + 60)),
        changed("sub", json!("x".repeat(SUBJECT_BYTES_MAX))),
        without("nbf"),
    ] {
        assert!(said(&good).is_ok(), "{good}: {:?}", said(&good));
    }
    for (bad, words) in [
        (changed("aud", json!("other")), "audience innkeeper"),
        (changed("aud", json!([])), "audience innkeeper"),
        (without("aud"), "`aud`"),
        (changed("iss", json!("https://id.example.com/other")), "not of the issuer"),
        (changed("iss", json!(format!("{ISSUER}/"))), "not of the issuer"),
        (changed("iss", json!([ISSUER, "https://evil.example"])), "claims"),
        (without("iss"), "claims"),
        (changed("exp", json!(NOW - 60)), "expired"),
        (changed("exp", json!(-1)), "`exp`"),
        (changed("exp", json!("9999999999")), "claims"),
        (without("exp"), "claims"),
        (changed("nbf", json!(NOW + 61)), "not valid yet"),
        (changed("nbf", json!("soon")), "claims"),
        (changed("sub", json!("")), "subject"),
        (changed("sub", json!("x".repeat(SUBJECT_BYTES_MAX + 1))), "subject"),
        (changed("sub", json!("a\u{0}b")), "subject"),
        (changed("sub", json!(7)), "claims"),
        (without("sub"), "claims"),
    ] {
        let why = said(&bad).expect_err("it isn't so");
        assert!(why.contains(words), "{bad}: {why}");
    }
}

#[test]
fn the_head_must_be_plain() {
    let signer = Signer::p256();
    let keys = keys(&[signer.jwk("one"), Signer::p256().jwk("two")]);
    for (header, words) in [
        (json!({"alg": "ES256"}), "which of the issuer's keys"),
        (json!({"alg": "ES256", "kid": "two"}), "not signed by the key"),
        (json!({"alg": "ES256", "kid": "three"}), "doesn't fit"),
        (json!({"alg": "ES256", "kid": "one", "typ": "logout+jwt"}), "of a kind"),
        (json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false}), "must be understood"),
        (json!({"alg": "ES256", "kid": "one", "crit": []}), "must be understood"),
        (json!({"kid": "one"}), "no signed JWT"),
    ] {
        let why = subject(&signer.sign(&header, &claims()), &keys).expect_err("it isn't plain");
        assert!(why.contains(words), "{header}: {why}");
    }
    assert!(
        subject(&signer.sign(&json!({"alg": "ES256", "kid": "one", "typ": "at+JWT"}), &claims()), &keys)
            .is_ok()
    );
    let long = signer.sign(&json!({"alg": "ES256", "kid": "one"}), &changed("more", json!("x".repeat(9000))));
    assert!(subject(&long, &keys).expect_err("too long").contains("bytes"));
    for nonsense in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "\u{1F600}.x.y", "inn_0123456789abcdef"] {
        assert!(subject(nonsense, &keys).is_err(), "{nonsense}");
    }
}

#[test]
fn keys_that_are_not_for_this_are_left_out() {
    let signer = Signer::p256();
    let good = signer.jwk("good");
    let meant = |field: &str, value: Value| {
        let mut key = signer.jwk("other");
        key[field] = value;
        key
    };
    let set = keys(&[
        good,
        meant("use", json!("enc")),
        meant("key_ops", json!(["sign"])),
        meant("alg", json!("ECDH-ES")),
        meant("crv", json!("secp256k1")),
        meant("x", json!("not base64!")),
        Signer::Hmac(vec![1; 32]).jwk("secret"),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "new"}),
        json!("no key"),
    ]);
    assert_eq!((set.count(), set.has("good"), set.has("other"), set.has("secret")), (1, true, false, false));
    for none in [r#"{"keys": []}"#, r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#, "{}", "", "[]", "<html>"] {
        assert!(Keys::parse(none.as_bytes()).is_err(), "{none}");
    }
    let many = vec![signer.jwk("many"); IDENTITY_KEYS];
    assert!(Keys::parse(json!({ "keys": many }).to_string().as_bytes()).is_err());
}

const IDENTITY_KEYS: usize = innkeeper_domain::limits::IDENTITY_KEYS_MAX + 1;
