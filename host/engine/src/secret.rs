//! The secrets that an attempt is shown: read and opened when it begins, never before.

use async_trait::async_trait;
use innkeeper_domain::failure::{Failure, FailureKind};
use innkeeper_domain::keyring::Keyring;
use innkeeper_domain::limits::ATTEMPT_SECRETS_BYTES_MAX;
use innkeeper_domain::name::Name;
use innkeeper_domain::secret::{SealedSecret, SecretText};
use std::collections::{BTreeMap, BTreeSet};

/// Opens secrets that the store has sealed.
#[async_trait]
pub trait SecretOpener: Send + Sync + 'static {
    /// The text. The error is for people: which key is missing, or that somebody changed it.
    async fn open(&self, secret: &SealedSecret) -> Result<SecretText, String>;
}

#[async_trait]
impl SecretOpener for Keyring {
    async fn open(&self, secret: &SealedSecret) -> Result<SecretText, String> {
        Keyring::open(self, secret).map_err(|e| e.to_string())
    }
}

/// The names that a task's secrets have, each once.
pub(crate) fn names(wanted: &BTreeMap<String, Name>) -> Vec<Name> {
    wanted.values().collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

/// The texts by the config keys that they are shown under, out of what the store has.
pub(crate) async fn opened(
    wanted: &BTreeMap<String, Name>,
    sealed: &[SealedSecret],
    opener: &dyn SecretOpener,
) -> Result<BTreeMap<String, SecretText>, Failure> {
    let failure = |words: String| Failure::new(FailureKind::Secret, words);
    let mut texts = BTreeMap::new();
    let mut bytes = 0;
    for (key, name) in wanted {
        let secret = sealed.iter().find(|secret| secret.name == *name).ok_or_else(|| {
            failure(format!(
                "there is no secret `{name}`, which the task names; set it (`inn secret set {name}`)"
            ))
        })?;
        let text = opener.open(secret).await.map_err(failure)?;
        bytes += text.expose().len();
        if bytes > ATTEMPT_SECRETS_BYTES_MAX {
            return Err(failure(format!(
                "the task's secrets have more than {ATTEMPT_SECRETS_BYTES_MAX} bytes together; name fewer, or shorter ones"
            )));
        }
        texts.insert(key.clone(), text);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_domain::Timestamp;
    use innkeeper_domain::ids::TenantId;
    use innkeeper_domain::limits::SECRET_BYTES_MAX;

    fn ring(key: u8) -> Keyring {
        Keyring::new(vec![[key; 32].into()]).unwrap()
    }

    fn sealed(name: &str, text: &str) -> SealedSecret {
        let now = Timestamp::UNIX_EPOCH;
        let text = SecretText::new(text.into()).unwrap();
        ring(1).seal(TenantId::new(now), name.parse().unwrap(), &text, [1; 24], now)
    }

    fn wanted(pairs: &[(&str, &str)]) -> BTreeMap<String, Name> {
        pairs.iter().map(|(key, name)| ((*key).to_string(), name.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn each_key_has_its_secret() {
        let wanted = wanted(&[("A", "one"), ("B", "two"), ("C", "one")]);
        assert_eq!(names(&wanted).len(), 2);
        let (sealed, ring) = ([sealed("two", "the second"), sealed("one", "the first")], ring(1));
        let texts = opened(&wanted, &sealed, &ring).await.unwrap();
        let shown: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), text.expose())).collect();
        assert_eq!(shown, [("A", "the first"), ("B", "the second"), ("C", "the first")]);
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let wanted = wanted(&[("A", "one")]);
        let missing = opened(&wanted, &[sealed("two", "text")], &ring(1)).await.unwrap_err();
        assert_eq!(missing.kind, FailureKind::Secret);
        assert!(missing.message.contains("inn secret set one"), "{missing:?}");
        let other = opened(&wanted, &[sealed("one", "text")], &ring(2)).await.unwrap_err();
        assert!(other.kind == FailureKind::Secret && other.message.contains(ring(1).key_id()), "{other:?}");
        assert!(other.message.contains(ring(2).key_id()), "{other:?}");
    }

    #[tokio::test]
    async fn they_have_a_bound_together() {
        let count = ATTEMPT_SECRETS_BYTES_MAX / SECRET_BYTES_MAX + 1;
        let wanted: BTreeMap<_, _> = (0..count).map(|n| (n.to_string(), "one".parse().unwrap())).collect();
        let large = sealed("one", &"x".repeat(SECRET_BYTES_MAX));
        let failure = opened(&wanted, &[large], &ring(1)).await.unwrap_err();
        assert!(failure.message.contains("65536"), "{failure:?}");
    }
}
