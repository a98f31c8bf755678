//! What a host keeps in its data folder beside the store: tokens, keys, its address.

use crate::host::now;
use anyhow::{Context, Result};
use innkeeper_api::auth::token_hash;
use innkeeper_store::TokenStore;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// The file of the first admin's token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
/// The file that tells where the host listens.
pub const ADDRESS_FILE: &str = "address";

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
pub async fn admin_token(data: &Path, store: &dyn TokenStore) -> Result<()> {
    let path = data.join(ADMIN_TOKEN_FILE);
    let token = match fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => token.trim().to_string(),
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("can't read {}", path.display()));
        }
        _ => {
            let token = new_token()?;
            write_private(&path, format!("{token}\n").as_bytes())?;
            token
        }
    };
    Ok(store.token_ensure(token_hash(&token), now()).await?)
}

/// A token's text that nobody has had.
pub fn new_token() -> Result<String> {
    Ok(format!("inn_{}", hex::encode(random_bytes::<32>()?)))
}

/// Bytes from the machine's source of randomness.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(bytes)
}

/// Makes the folder if it isn't there; only this user can look into it.
pub fn private_folder(path: &Path) -> Result<()> {
    let make = DirBuilder::new().recursive(true).mode(0o700).create(path);
    make.with_context(|| format!("can't create the folder {}", path.display()))
}

/// Warns if others than its owner may look into a folder: one that was there already keeps its mode.
pub fn warn_of_open_folder(path: &Path) {
    if let Some(mode) = open_mode(path) {
        tracing::warn!(
            mode = %format_args!("{mode:03o}"),
            "others on this machine may look into the data folder, where its store, keys and tokens are: \
             `chmod 700 {}`",
            path.display()
        );
    }
}

/// The mode of a folder that others than its owner have any right to.
fn open_mode(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Whether others than its owner can read a file; not, if it isn't there.
pub fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o044 != 0)
}

/// Writes a file that only this user can read, whole or not at all. After `Ok` it is there whatever happens to the
/// machine.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        // Under a name of its own, and private from the beginning.
        let mut unfinished = tempfile::Builder::new().prefix(".inn-").tempfile_in(folder)?;
        unfinished.write_all(bytes)?;
        unfinished.as_file().sync_all()?;
        unfinished.persist(path).map_err(|e| e.error)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_read_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        assert!(!is_open(&file), "it isn't there");
        write_private(&file, b"text").unwrap();
        assert!(!is_open(&file));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(is_open(&file));
    }

    #[test]
    fn a_folder_that_was_there_keeps_its_mode_and_is_told_of() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        assert_eq!(open_mode(&folder), None, "it isn't there");
        private_folder(&folder).unwrap();
        assert_eq!(open_mode(&folder), None);
        for mode in [0o755, 0o750, 0o701] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            private_folder(&folder).unwrap();
            assert_eq!(open_mode(&folder), Some(mode));
        }
    }
}
