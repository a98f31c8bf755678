//! Compiled artifacts on disk. Loading one means to run its machine code, so only files that this host's
//! keys have authenticated, for this engine and this component, are ever loaded; any other counts as absent. Hosts
//! of a fleet that have the same key and engine can use each other's.

use hmac::{Hmac, Mac};
use innkeeper_domain::component::{Digest, Inspected};
use innkeeper_domain::keyring::{KeyBytes, Keyring};
use innkeeper_domain::limits::{ARTIFACTS_BYTES_MAX, SPARSE_IMAGE_BYTES_MAX};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

/// A file begins with which key has authenticated it, and how.
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 32;
/// What is authenticated begins with the length of what was found of the upload, which is JSON; the code comes after.
const LENGTH_BYTES: usize = 4;

/// The artifacts of one engine configuration.
pub(crate) struct Artifacts {
    folder: PathBuf,
    /// Authenticates.
    current: ArtifactKey,
    /// What these have authenticated is good, too.
    older: Vec<ArtifactKey>,
    engine: Engine,
    /// Of all that machine code depends on beside the component: wasmtime's version, its settings, the CPU.
    engine_hash: [u8; 32],
}

struct ArtifactKey {
    /// Tells it from others, and nothing about it.
    id: [u8; KEY_ID_BYTES],
    bytes: KeyBytes,
}

/// What a good file holds.
pub(crate) struct Loaded {
    pub component: Component,
    /// What was found of the upload that it was made of.
    pub inspected: Inspected,
    /// How much memory it takes, at the most.
    pub memory_bytes: u64,
}

/// Why a file isn't used.
enum Refused {
    /// It is under a key that the host doesn't have: any more, or not yet.
    UnknownKey,
    Changed,
}

impl ArtifactKey {
    fn new(bytes: KeyBytes) -> Self {
        let mut key = Self { id: [0; KEY_ID_BYTES], bytes };
        let id = key.authenticate(b"innkeeper variant 2", &[]).finalize().into_bytes();
        key.id.copy_from_slice(&id[..KEY_ID_BYTES]);
        key
    }

    fn authenticate(&self, purpose: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
        #[allow(clippy::unwrap_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes.as_slice()).unwrap();
        mac.update(purpose);
        parts.iter().for_each(|part| mac.update(part));
        mac
    }
}

impl Artifacts {
    /// Those in a folder, under these keys, the current one first.
    pub fn open(folder: &Path, keys: &Keyring, engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        // Of no consequence to wasmtime: what was made otherwise can be run, but may be far larger.
        SPARSE_IMAGE_BYTES_MAX.hash(&mut hasher);
        let engine_hash = hasher.0.finalize().into();
        let current = ArtifactKey::new(keys.current().clone());
        let older = keys.bytes().skip(1).cloned().map(ArtifactKey::new).collect();
        Ok(Self { folder: folder.into(), current, older, engine: engine.clone(), engine_hash })
    }

    /// Whose artifacts are as good as this host's: those of an engine with the same settings on the same
    /// kind of processor, authenticated with the same key.
    pub fn variant(&self) -> String {
        format!("{}-{}", hex::encode(&self.engine_hash[..16]), hex::encode(self.current.id))
    }

    /// Makes room for so many bytes: the longest unused go first, among them what a crash left unfinished. All can be
    /// made anew.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            // One that is gone meanwhile needs no room.
            let Ok(found) = file.metadata() else { continue };
            // Where the system doesn't keep when it was read, the oldest goes.
            let used = found.accessed().ok().max(found.modified().ok());
            files.push((used, found.len(), file.path()));
        }
        let mut all = bytes + files.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        files.sort();
        for (_, bytes, path) in files {
            if all <= ARTIFACTS_BYTES_MAX {
                break;
            }
            match fs::remove_file(path) {
                // Somebody else makes room, too.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => all -= bytes,
            }
        }
        Ok(())
    }

    /// Whether there is a file of a component; it may not be good.
    pub fn contains(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The artifact of a component as bytes, for other hosts of this variant.
    pub fn read(&self, digest: Digest) -> Option<Vec<u8>> {
        fs::read(self.path(digest)).ok()
    }

    /// Keeps another host's artifact, if it is good.
    pub fn adopt(&self, digest: Digest, file: &[u8]) -> io::Result<()> {
        if self.content(digest, file).is_err() {
            tracing::warn!(%digest, "an artifact that was shared is not good; it is made anew");
            return Ok(());
        }
        self.write(digest, &[file])
    }

    /// What a file holds that a host with one of these keys has written for this engine and component.
    fn content<'a>(&self, digest: Digest, file: &'a [u8]) -> Result<&'a [u8], Refused> {
        let (id, rest) = file.split_at_checked(KEY_ID_BYTES).ok_or(Refused::Changed)?;
        let (tag, content) = rest.split_at_checked(TAG_BYTES).ok_or(Refused::Changed)?;
        let key = std::iter::once(&self.current)
            .chain(&self.older)
            .find(|key| key.id == id)
            .ok_or(Refused::UnknownKey)?;
        let good = self.mac(key, digest, &[content]).verify_slice(tag).is_ok();
        if good { Ok(content) } else { Err(Refused::Changed) }
    }

    /// The artifact of a component, if there is one that is good. The error: it is, and the engine can't run it.
    pub fn load(&self, digest: Digest) -> wasmtime::Result<Option<Loaded>> {
        let Some(file) = fs::read(self.path(digest)).ok() else { return Ok(None) };
        let Some((inspected, code)) = self.good(digest, &file) else { return Ok(None) };
        // SAFETY: the bytes are what `precompile_component` of an engine with these settings gave: `save`
        // alone writes files whose tag fits, and the tag covers engine, component and every byte.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(&self.engine, code) }?;
        // Instances share copies of the images, which are among what isn't machine code.
        let images = code.len().saturating_sub(component.text().len());
        let memory_bytes = (code.len() + images) as u64;
        Ok(Some(Loaded { component, inspected, memory_bytes }))
    }

    /// What a file holds of a component, if it is good.
    fn good<'a>(&self, digest: Digest, file: &'a [u8]) -> Option<(Inspected, &'a [u8])> {
        let content = match self.content(digest, file) {
            Ok(content) => content,
            Err(Refused::UnknownKey) => {
                tracing::info!(%digest, "an artifact is under a key that the host doesn't have; it is made anew");
                return None;
            }
            Err(Refused::Changed) => {
                tracing::warn!(%digest, "an artifact is not what this host has written; it is made anew");
                return None;
            }
        };
        let (length, rest) = content.split_at_checked(LENGTH_BYTES)?;
        let length = u32::from_le_bytes(length.try_into().ok()?);
        let (inspected, code) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        Some((serde_json::from_slice(inspected).ok()?, code))
    }

    /// Gives up an artifact, if there is one.
    pub fn remove(&self, digest: Digest) {
        // One that stays takes up room, and is tried again.
        let _ = fs::remove_file(self.path(digest));
    }

    /// Keeps an artifact. After a crash it is whole or absent.
    pub fn save(&self, digest: Digest, inspected: &Inspected, code: &[u8]) -> io::Result<()> {
        let inspected = serde_json::to_vec(inspected)?;
        let length = u32::try_from(inspected.len()).map_err(io::Error::other)?;
        let head = [&length.to_le_bytes()[..], &inspected].concat();
        let key = &self.current;
        let tag = self.mac(key, digest, &[&head, code]).finalize().into_bytes();
        self.write(digest, &[&key.id, &tag, &head, code])
    }

    fn write(&self, digest: Digest, parts: &[&[u8]]) -> io::Result<()> {
        let path = self.path(digest);
        let unfinished = path.with_extension(format!("{}.part", uuid::Uuid::now_v7()));
        self.make_room(parts.iter().map(|part| part.len() as u64).sum())?;
        let write = || {
            let mut file = File::create(&unfinished)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().inspect_err(|_| {
            // It is in nobody's way, but takes up the disk that may be full.
            let _ = fs::remove_file(&unfinished);
        })
    }

    fn mac(&self, key: &ArtifactKey, digest: Digest, content: &[&[u8]]) -> Hmac<Sha256> {
        let parts = [&[&digest.0[..], &self.engine_hash], content].concat();
        key.authenticate(b"innkeeper artifact 2", &parts)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}-{}", digest.hex(), hex::encode(&self.engine_hash[..8])))
    }
}

/// Feeds what wasmtime hashes into a SHA-256: the standard hasher's 64 bits are too few to bind code to.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.clone().finalize();
        hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
