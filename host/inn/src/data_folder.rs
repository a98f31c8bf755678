//! What a host keeps in its data folder beside the store: tokens, keys, its address.

use crate::host::now;
use anyhow::{Context, Result};
use innkeeper_api::auth::token_hash;
use innkeeper_store::{Role, TenantStore, TokenHolder};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The file of the first admin's token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
/// The file that tells where the host listens.
pub const ADDRESS_FILE: &str = "address";
/// The file of the key that artifacts are authenticated with.
const ARTIFACT_KEY_FILE: &str = "artifact.key";
/// The environment's word for that key.
const KEY_VARIABLE: &str = "INN_KEY";

/// Removes a file, if it is there.
pub fn forget(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("can't remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Sees to it that the token in the data folder is an admin's; without the file there is a new one.
pub async fn admin_token(data: &Path, store: &dyn TenantStore) -> Result<()> {
    let path = data.join(ADMIN_TOKEN_FILE);
    let token = match fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => token.trim().to_string(),
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("can't read {}", path.display()));
        }
        _ => {
            let token = format!("inn_{}", hex::encode(random_bytes()?));
            write_private(&path, format!("{token}\n").as_bytes())?;
            token
        }
    };
    let holder = TokenHolder { tenant: None, role: Role::Admin };
    Ok(store.token_put(token_hash(&token), holder, now()).await?)
}

/// The key that artifacts are authenticated with: the environment's, else that of the file given, else the data
/// folder's own, which is made if it isn't there.
pub fn artifact_key(data: &Path, file: Option<&Path>) -> Result<[u8; 32]> {
    if let Some(text) = std::env::var_os(KEY_VARIABLE).filter(|text| !text.is_empty()) {
        return key_of(text.as_encoded_bytes()).with_context(|| format!("{KEY_VARIABLE} is no key"));
    }
    if let Some(file) = file {
        let key = fs::read(file).with_context(|| format!("can't read the key {}", file.display()))?;
        return key_of(&key).with_context(|| format!("{} is no key", file.display()));
    }
    let path = data.join(ARTIFACT_KEY_FILE);
    match fs::read(&path) {
        Ok(key) => key_of(&key)
            .with_context(|| format!("{} is no key; remove it, and a new one is made", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let key = random_bytes()?;
            write_private(&path, &key)?;
            Ok(key)
        }
        Err(e) => Err(e).with_context(|| format!("can't read {}", path.display())),
    }
}

/// A key: 32 bytes, or 64 hex digits that stand for them.
fn key_of(bytes: &[u8]) -> Result<[u8; 32]> {
    if let Ok(key) = bytes.try_into() {
        return Ok(key);
    }
    let mut key = [0; 32];
    let decoded = hex::decode_to_slice(bytes.trim_ascii(), &mut key);
    decoded.map(|()| key).map_err(|_| {
        anyhow::anyhow!("expected 32 bytes or 64 hex digits, such as `openssl rand -hex 32` prints")
    })
}

fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(bytes)
}

/// Makes the folder if it isn't there; only this user can look into it.
pub fn private_folder(path: &Path) -> Result<()> {
    let make = DirBuilder::new().recursive(true).mode(0o700).create(path);
    make.with_context(|| format!("can't create the data folder {}", path.display()))
}

/// Writes a file that only this user can read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let unfinished = path.with_extension("part");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}
