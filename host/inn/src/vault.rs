//! The vault: the store's secrets under the host's keys, and how those are changed.

use crate::data_folder::random_bytes;
use crate::keys::{Keys, Origin, keep, new_key};
use async_trait::async_trait;
use innkeeper_api::secret::{Rotated, Vault, VaultError};
use innkeeper_domain::audit::Change;
use innkeeper_domain::ids::TenantId;
use innkeeper_domain::keyring::{Keyring, OpenError};
use innkeeper_domain::limits::ROTATION_STEP;
use innkeeper_domain::name::Name;
use innkeeper_domain::secret::{SealedSecret, SecretInfo, SecretText};
use innkeeper_engine::secret::SecretOpener;
use innkeeper_store::{Store, StoreError};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{RwLock, Semaphore};
use tokio_util::task::TaskTracker;

/// Secrets and keys of a host.
pub struct HostVault {
    store: Arc<dyn Store>,
    origin: Origin,
    /// Who seals holds it until the store has what was sealed: so a key that was replaced seals nothing any more
    /// once the new ring is in its place, and can be given up when nothing is under it.
    ring: Arc<RwLock<Keyring>>,
    /// One rotation at a time.
    rotation: Semaphore,
    tasks: TaskTracker,
}

impl HostVault {
    /// A vault of these keys; what it has begun to write is among `tasks`.
    pub fn new(store: Arc<dyn Store>, keys: Keys, tasks: TaskTracker) -> Self {
        let ring = Arc::new(RwLock::new(keys.ring));
        Self { store, origin: keys.origin, ring, rotation: Semaphore::new(1), tasks }
    }

    /// A key of the fleet's own is what every host must have.
    fn not_alone(&self) -> Result<(), VaultError> {
        if self.origin != Origin::OwnInFleet {
            return Ok(());
        }
        Err(VaultError::Keys(
            "this host has a key that it made itself, and the other hosts on its database can't read what is \
             encrypted with it; give all of them the same (`inn serve --key-file`, or INN_KEY)"
                .into(),
        ))
    }

    /// Makes a new key the current one, unless an earlier rotation has, and was cut off before its end.
    async fn renew(&self, file: &Path) -> Result<Keyring, VaultError> {
        let mut ring = self.ring.write().await;
        if ring.ids().count() == 1 {
            let new = new_key().map_err(machine)?;
            let renewed = Keyring::new(vec![new, ring.current().clone()]).map_err(machine)?;
            keep_durably(&renewed, file.into()).await?;
            *ring = renewed;
        }
        Ok(ring.clone())
    }

    /// Gives up every key but the current one, with which all is sealed.
    async fn forget_older(&self, file: &Path) -> Result<(), VaultError> {
        let mut ring = self.ring.write().await;
        let current = Keyring::new(vec![ring.current().clone()]).map_err(machine)?;
        keep_durably(&current, file.into()).await?;
        *ring = current;
        Ok(())
    }

    /// Seals with the ring's current key what isn't, and says how many those were.
    async fn reseal(&self, ring: &Keyring) -> Result<u64, VaultError> {
        let mut resealed: HashSet<(TenantId, Name)> = HashSet::new();
        loop {
            let under_others = self.store.secrets_under_other_keys(ring.key_id(), ROTATION_STEP).await?;
            let mut stuck = None;
            let mut goes_on = false;
            for from in under_others {
                let to = match ring.reseal(&from, random_bytes().map_err(machine)?) {
                    Ok(to) => to,
                    Err(error) => {
                        stuck = Some(cannot_reseal(&error));
                        continue;
                    }
                };
                goes_on = true;
                let (what, key_id) = ((from.tenant, from.name.clone()), from.key_id.clone());
                if self.store.secret_reseal(from, to).await? && !resealed.insert(what) {
                    return Err(VaultError::Keys(format!(
                        "another host goes on encrypting with key {key_id}; give every host the same keys in the same \
                         order, start them again, and rotate then. Nothing is lost"
                    )));
                }
            }
            match stuck {
                _ if goes_on => {}
                Some(error) => return Err(error),
                None => return Ok(resealed.len() as u64),
            }
        }
    }
}

#[async_trait]
impl Vault for HostVault {
    async fn set(
        &self,
        tenant: TenantId,
        name: Name,
        text: SecretText,
        change: Change,
    ) -> Result<SecretInfo, VaultError> {
        self.not_alone()?;
        let nonce = random_bytes().map_err(machine)?;
        let (ring, store) = (Arc::clone(&self.ring), Arc::clone(&self.store));
        // On its own, so that it is seen to its end, whoever waits for it: see `ring`.
        let put = self.tasks.spawn(async move {
            let ring = ring.read().await;
            store.secret_put(ring.seal(tenant, name, &text, nonce, change.now), change).await
        });
        Ok(put.await.map_err(machine)??)
    }

    async fn text(&self, tenant: TenantId, name: &Name) -> Result<SecretText, VaultError> {
        let found = self.store.secrets_get(tenant, vec![name.clone()]).await?;
        let none = || VaultError::Store(StoreError::NotFound(format!("secret `{name}`")));
        let secret = found.first().ok_or_else(none)?;
        self.ring.read().await.open(secret).map_err(|e| VaultError::Keys(e.to_string()))
    }

    async fn rotate(&self) -> Result<Rotated, VaultError> {
        self.not_alone()?;
        let _one_at_a_time = self.rotation.acquire().await.map_err(machine)?;
        let (ring, rotated) = match &self.origin {
            Origin::Own(file) => {
                let ring = self.renew(file).await?;
                let rotated = self.reseal(&ring).await?;
                self.forget_older(file).await?;
                (ring, rotated)
            }
            Origin::Given | Origin::OwnInFleet => {
                let ring = self.ring.read().await.clone();
                let rotated = self.reseal(&ring).await?;
                (ring, rotated)
            }
        };
        tracing::info!(key = ring.key_id(), rotated, "secrets were encrypted with another key");
        Ok(Rotated { key_id: ring.key_id().into(), rotated })
    }
}

#[async_trait]
impl SecretOpener for HostVault {
    async fn open(&self, secret: &SealedSecret) -> Result<SecretText, String> {
        self.ring.read().await.open(secret).map_err(|e| e.to_string())
    }
}

fn cannot_reseal(error: &OpenError) -> VaultError {
    VaultError::Keys(match error {
        OpenError::UnknownKey { key_id, .. } => format!(
            "{error}; give the host key {key_id} too, after its current one, and rotate again, or set the secret anew. \
             Nothing is lost: what could be opened is encrypted with the current key, the rest is as it was"
        ),
        OpenError::Changed(_) => format!("{error}; set it again, or delete it, and rotate then"),
    })
}

async fn keep_durably(ring: &Keyring, file: PathBuf) -> Result<(), VaultError> {
    let ring = ring.clone();
    let kept = tokio::task::spawn_blocking(move || keep(&ring, &file)).await.map_err(machine)?;
    kept.map_err(|e| VaultError::Machine(format!("{e:#}")))
}

fn machine(error: impl std::fmt::Display) -> VaultError {
    VaultError::Machine(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::now;
    use crate::keys::keys;
    use innkeeper_store::sqlite::SqliteStore;
    use innkeeper_store::{Page, SecretStore as _, TenantStore as _};

    struct Host {
        store: Arc<SqliteStore>,
        tenant: TenantId,
        folder: tempfile::TempDir,
    }

    impl Host {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
            let tenant = store.tenant_ensure(&name("default"), now()).await.unwrap().id;
            Self { store, tenant, folder }
        }

        /// The vault of the folder's own keys.
        fn own(&self) -> HostVault {
            self.vault(keys(self.folder.path(), None).unwrap())
        }

        fn given(&self, keys: &[u8]) -> HostVault {
            let ring = Keyring::new(keys.iter().map(|byte| [*byte; 32].into()).collect()).unwrap();
            self.vault(Keys { ring, origin: Origin::Given })
        }

        fn vault(&self, keys: Keys) -> HostVault {
            HostVault::new(Arc::clone(&self.store) as _, keys, TaskTracker::new())
        }

        async fn set(&self, vault: &HostVault, secret: &str, text: &str) -> Result<SecretInfo, VaultError> {
            let text = SecretText::new(text.into()).unwrap();
            vault.set(self.tenant, name(secret), text, now().into()).await
        }

        async fn open(&self, vault: &HostVault, secret: &str) -> Result<String, String> {
            let sealed = self.store.secrets_get(self.tenant, vec![name(secret)]).await.unwrap();
            vault.open(&sealed[0]).await.map(|text| text.expose().into())
        }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_rotation_that_was_cut_off_is_gone_on_with() {
        let host = Host::new().await;
        let vault = host.own();
        let first = host.set(&vault, "one", "the first").await.unwrap();
        let Origin::Own(file) = &vault.origin else { panic!("its own") };
        let renewed = vault.renew(file).await.unwrap();
        host.set(&vault, "two", "the second").await.unwrap();
        drop(vault);
        // As after a crash: the ring is on the disk, one secret is under each key.
        let vault = host.own();
        assert_eq!(host.open(&vault, "one").await.unwrap(), "the first");
        let rotated = vault.rotate().await.unwrap();
        assert_eq!(rotated, Rotated { key_id: renewed.key_id().into(), rotated: 1 });
        let vault = host.own();
        assert!(!vault.ring.read().await.ids().any(|id| id == first.key_id), "the old key is gone");
        for (secret, text) in [("one", "the first"), ("two", "the second")] {
            assert_eq!(host.open(&vault, secret).await.unwrap(), text);
        }
        // Nothing is left to go on with: the next is a rotation of its own.
        let next = vault.rotate().await.unwrap();
        assert!(next.rotated == 2 && next.key_id != renewed.key_id(), "{next:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_set_during_a_rotation_is_not_lost() {
        let host = Host::new().await;
        let vault = host.own();
        let sets = async {
            for n in 0..100 {
                let (of, text) = (format!("s-{}", n % 7), format!("text {n}"));
                // A caller that doesn't wait for the answer does no harm.
                let patience = std::time::Duration::from_micros(if n % 3 == 0 { 50 } else { 10_000_000 });
                let _ = tokio::time::timeout(patience, host.set(&vault, &of, &text)).await;
            }
        };
        let rotations = async {
            for _ in 0..10 {
                vault.rotate().await.unwrap();
            }
        };
        tokio::join!(sets, rotations);
        vault.tasks.close();
        vault.tasks.wait().await;
        let restarted = host.own();
        for n in 0..7 {
            let text = host.open(&restarted, &format!("s-{n}")).await.unwrap();
            assert!(text.starts_with("text "), "{text}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_missing_is_named_and_the_rest_is_done() {
        let host = Host::new().await;
        let lost = host.set(&host.given(&[1]), "one", "the first").await.unwrap().key_id;
        host.set(&host.given(&[2]), "two", "the second").await.unwrap();
        let error = host.given(&[3, 2]).rotate().await.unwrap_err();
        assert!(matches!(&error, VaultError::Keys(words) if words.contains(&lost)), "{error}");
        assert_eq!(host.open(&host.given(&[3]), "two").await.unwrap(), "the second");
        assert_eq!(host.open(&host.given(&[1]), "one").await.unwrap(), "the first");
        assert_eq!(host.given(&[3, 1]).rotate().await.unwrap().rotated, 1);
        assert_eq!(host.given(&[3, 1]).rotate().await.unwrap().rotated, 0);
    }

    #[tokio::test]
    async fn a_fleet_needs_a_key_that_all_have() {
        let host = Host::new().await;
        let vault = host.vault(keys(host.folder.path(), None).unwrap().in_fleet());
        let error = host.set(&vault, "one", "the first").await.unwrap_err();
        assert!(error.to_string().contains("--key-file"), "{error}");
        assert!(matches!(vault.rotate().await, Err(VaultError::Keys(_))));
        let page = Page { size: 9, after: None };
        assert!(host.store.secret_list(host.tenant, page).await.unwrap().items.is_empty());
    }
}
