//! The keys that secrets are sealed under, and how.
//!
//! A secret is encrypted with XChaCha20-Poly1305 under a key derived from one of the host's. Its tenant and name
//! are authenticated with it, so that whoever can write to the store can't give a task another's secret.

use crate::ids::TenantId;
use crate::limits::KEYS_MAX;
use crate::name::Name;
use crate::secret::{SealedSecret, SecretText};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::Mac;
use jiff::Timestamp;
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// A key's bytes, wiped from memory after their use.
pub type KeyBytes = Zeroizing<[u8; 32]>;

/// A number for one sealing, from the host's source of randomness.
pub type Nonce = [u8; 24];

/// Labels of what is derived from a key. Changing one makes every secret unreadable.
const LABEL_ID: &[u8] = b"innkeeper key id";
const LABEL_CIPHER: &[u8] = b"innkeeper secrets";

/// A host's keys: the current one, which seals, and older ones, which only open.
#[derive(Clone)]
pub struct Keyring {
    current: Key,
    older: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    bytes: KeyBytes,
}

/// Tells which keys there are, and nothing about them.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// Keys that can't be a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("there is no key")]
    Empty,
    #[error("there are {0} keys; at most {KEYS_MAX} can be, older ones than these can go after a rotation")]
    TooMany(usize),
    #[error("the key {0} is there twice")]
    Twice(String),
}

/// A sealed secret that this ring can't open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the secret `{name}` is encrypted with key {key_id}, and the host has {known}")]
    UnknownKey { name: Name, key_id: String, known: String },
    #[error("the secret `{0}` was changed in the store: it isn't what was set under this name")]
    Changed(Name),
}

impl Keyring {
    /// A ring of these keys, the current one first.
    pub fn new(keys: Vec<KeyBytes>) -> Result<Self, KeyringError> {
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::TooMany(keys.len()));
        }
        let mut keys = keys.into_iter().map(Key::new);
        let current = keys.next().ok_or(KeyringError::Empty)?;
        let ring = Self { current, older: keys.collect() };
        let ids: Vec<&str> = ring.ids().collect();
        match ids.iter().enumerate().find(|(at, id)| ids[..*at].contains(*id)) {
            Some((_, id)) => Err(KeyringError::Twice((*id).into())),
            None => Ok(ring),
        }
    }

    /// The current key's id: tells keys apart, and nothing about them.
    pub fn key_id(&self) -> &str {
        &self.current.id
    }

    /// The ids of all keys, the current one's first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.id.as_str())
    }

    /// The current key's bytes.
    pub fn current(&self) -> &KeyBytes {
        &self.current.bytes
    }

    /// The bytes of all keys, the current one's first.
    pub fn bytes(&self) -> impl Iterator<Item = &KeyBytes> {
        self.keys().map(|key| &key.bytes)
    }

    /// Seals a text with the current key. The nonce must be a new one, at random.
    pub fn seal(
        &self,
        tenant: TenantId,
        name: Name,
        text: &SecretText,
        nonce: Nonce,
        now: Timestamp,
    ) -> SealedSecret {
        let payload = Payload { msg: text.expose().as_bytes(), aad: &bound_to(tenant, &name) };
        let encrypted = self.current.cipher().encrypt(&XNonce::from(nonce), payload);
        let encrypted = encrypted.unwrap_or_else(|_| unreachable!("only a text of 256 GiB is too long"));
        let sealed = [&nonce[..], &encrypted].concat();
        let key_id = self.current.id.clone();
        SealedSecret { tenant, name, key_id, sealed, created_at: now, updated_at: now }
    }

    /// The text of a sealed secret, if this ring has its key and nobody changed it.
    pub fn open(&self, secret: &SealedSecret) -> Result<SecretText, OpenError> {
        let key = self.keys().find(|key| key.id == secret.key_id).ok_or_else(|| OpenError::UnknownKey {
            name: secret.name.clone(),
            key_id: secret.key_id.clone(),
            known: self.ids().collect::<Vec<_>>().join(", "),
        })?;
        let changed = || OpenError::Changed(secret.name.clone());
        let (nonce, encrypted) = secret.sealed.split_first_chunk::<24>().ok_or_else(changed)?;
        let payload = Payload { msg: encrypted, aad: &bound_to(secret.tenant, &secret.name) };
        let text = key.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| changed())?;
        let text = String::from_utf8(text).map_err(|_| changed())?;
        SecretText::new(text).map_err(|_| changed())
    }

    /// The same secret sealed with the current key.
    pub fn reseal(&self, secret: &SealedSecret, nonce: Nonce) -> Result<SealedSecret, OpenError> {
        let text = self.open(secret)?;
        let sealed = self.seal(secret.tenant, secret.name.clone(), &text, nonce, secret.updated_at);
        Ok(SealedSecret { created_at: secret.created_at, ..sealed })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

impl Key {
    fn new(bytes: KeyBytes) -> Self {
        let id = hex::encode(&derived(&bytes, LABEL_ID)[..8]);
        Self { id, bytes }
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*derived(&self.bytes, LABEL_CIPHER)).into())
    }
}

/// What a key gives under a label, from which it can't be found.
fn derived(key: &KeyBytes, label: &[u8]) -> KeyBytes {
    let mac = <hmac::Hmac<Sha256> as Mac>::new_from_slice(&**key);
    let mut mac = mac.unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
    mac.update(label);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// What a secret's text is bound to.
fn bound_to(tenant: TenantId, name: &Name) -> Vec<u8> {
    [tenant.0.as_bytes(), name.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(uuid::Uuid::from_u128(7));

    fn ring(keys: &[u8]) -> Keyring {
        Keyring::new(keys.iter().map(|byte| Zeroizing::new([*byte; 32])).collect()).unwrap()
    }

    fn sealed(ring: &Keyring) -> SealedSecret {
        let text = SecretText::new("a very secret text".into()).unwrap();
        ring.seal(TENANT, "password".parse().unwrap(), &text, [9; 24], Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_was_sealed_opens_also_after_the_key_was_replaced() {
        let secret = sealed(&ring(&[1]));
        for ring in [ring(&[1]), ring(&[2, 3, 1])] {
            assert_eq!(ring.open(&secret).unwrap().expose(), "a very secret text");
        }
        let again = ring(&[2, 1]).reseal(&secret, [8; 24]).unwrap();
        assert_eq!(again.key_id, ring(&[2]).key_id());
        assert_eq!(ring(&[2]).open(&again).unwrap().expose(), "a very secret text");
        assert_eq!((again.created_at, again.updated_at), (secret.created_at, secret.updated_at));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let secret = sealed(&ring(&[1]));
        let error = ring(&[2]).open(&secret).unwrap_err();
        assert!(matches!(&error, OpenError::UnknownKey { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains(&secret.key_id) && words.contains(ring(&[2]).key_id()), "{words}");
        // One that only says to be of that key is not.
        let claimed = SealedSecret { key_id: ring(&[2]).key_id().into(), ..secret };
        assert_eq!(ring(&[2]).open(&claimed), Err(OpenError::Changed("password".parse().unwrap())));
    }

    #[test]
    fn rows_cannot_be_swapped_or_changed() {
        let ring = ring(&[1]);
        let secret = sealed(&ring);
        let tenant = SealedSecret { tenant: TenantId(uuid::Uuid::from_u128(8)), ..secret.clone() };
        let name = SealedSecret { name: "other".parse().unwrap(), ..secret.clone() };
        let cut = SealedSecret { sealed: secret.sealed[..20].into(), ..secret.clone() };
        for changed in [tenant, name, cut] {
            assert_eq!(ring.open(&changed), Err(OpenError::Changed(changed.name.clone())));
        }
        for at in 0..secret.sealed.len() {
            let mut changed = secret.clone();
            changed.sealed[at] ^= 1;
            assert!(ring.open(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn nothing_of_it_shows() {
        let (ring, secret) = (ring(&[0xab]), sealed(&ring(&[0xab])));
        let shown = format!("{ring:?} {secret:?}");
        assert!(!shown.contains("abab") && !shown.contains("171, 171") && !shown.contains("very"), "{shown}");
        assert!(!secret.sealed.windows(4).any(|bytes| bytes == b"very"));
        assert_eq!(ring.key_id().len(), 16);
    }

    #[test]
    fn a_ring_has_a_few_different_keys() {
        let new = |keys: &[u8]| {
            Keyring::new(keys.iter().map(|byte| Zeroizing::new([*byte; 32])).collect()).map(|_| ())
        };
        assert_eq!(new(&[]), Err(KeyringError::Empty));
        assert_eq!(new(&[1; 9]), Err(KeyringError::TooMany(9)));
        assert_eq!(new(&[1, 2, 1]), Err(KeyringError::Twice(ring(&[1]).key_id().into())));
    }
}
