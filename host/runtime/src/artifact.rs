//! Compiled artifacts on disk. Loading one means to run its machine code, so only files that this host's
//! key has authenticated, for this engine and this component, are ever loaded; any other counts as absent.

use hmac::{Hmac, Mac};
use innkeeper_domain::component::{Digest, Shape};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

const TAG_BYTES: usize = 32;

/// The artifacts of one engine configuration.
pub(crate) struct Artifacts {
    folder: PathBuf,
    key: [u8; 32],
    engine: Engine,
    /// Of all that machine code depends on beside the component: wasmtime's version, its settings, the CPU.
    engine_hash: [u8; 32],
}

impl Artifacts {
    pub fn open(folder: &Path, key: &[u8; 32], engine: &Engine) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_hash = hasher.0.finalize().into();
        Ok(Self { folder: folder.into(), key: *key, engine: engine.clone(), engine_hash })
    }

    /// The artifact of a component, if there is one that is good.
    pub fn load(&self, digest: Digest) -> Option<(Component, Shape)> {
        let path = self.path(digest);
        let file = fs::read(&path).ok()?;
        let (tag, content) = file.split_at_checked(TAG_BYTES)?;
        if self.mac(digest, content).verify_slice(tag).is_err() {
            tracing::warn!(path = %path.display(), "an artifact is not what this host has written; it is made anew");
            return None;
        }
        let (shape, code) = content.split_first()?;
        let shape = if *shape == 0 { Shape::Handler } else { Shape::Command };
        // SAFETY: the bytes are what `precompile_component` of an engine with these settings gave: `save`
        // alone writes files whose tag fits, and the tag covers engine, component and every byte.
        #[allow(unsafe_code)]
        let component = unsafe { Component::deserialize(&self.engine, code) };
        component
            .inspect_err(|error| tracing::warn!(%error, "an artifact can't be loaded; it is made anew"))
            .ok()
            .map(|c| (c, shape))
    }

    /// Keeps an artifact. After a crash it is whole or absent.
    pub fn save(&self, digest: Digest, shape: Shape, code: &[u8]) -> io::Result<()> {
        let mut content = Vec::with_capacity(code.len() + 1);
        content.push(u8::from(shape == Shape::Command));
        content.extend_from_slice(code);
        let tag = self.mac(digest, &content).finalize().into_bytes();
        let path = self.path(digest);
        let unfinished = path.with_extension(format!("{}.part", uuid::Uuid::now_v7()));
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(&tag)?;
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().inspect_err(|_| {
            // It is in nobody's way, but takes up the disk that may be full.
            let _ = fs::remove_file(&unfinished);
        })
    }

    fn mac(&self, digest: Digest, content: &[u8]) -> Hmac<Sha256> {
        #[allow(clippy::unwrap_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).unwrap();
        mac.update(b"innkeeper artifact 1");
        mac.update(&digest.0);
        mac.update(&self.engine_hash);
        mac.update(content);
        mac
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let engine: String = self.engine_hash[..8].iter().map(|b| format!("{b:02x}")).collect();
        self.folder.join(format!("{}-{engine}", digest.hex()))
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
