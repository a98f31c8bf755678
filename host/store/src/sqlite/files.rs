//! Component bytes as files, one for each digest, whole or not there.

use crate::StoreError;
use crate::folder::unavailable;
use crate::words::damaged;
use innkeeper_domain::component::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(super) struct ComponentFiles {
    folder: PathBuf,
}

impl ComponentFiles {
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|e| unavailable("create", folder, &e))?;
        Ok(Self { folder: folder.into() })
    }

    /// Writes the bytes so that after a crash the file is whole or absent; on return it is on disk.
    pub fn put(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(digest);
        // A file that is there is whole; but one that has been damaged since is mended.
        if fs::read(&path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let unfinished = path.with_extension(format!("{}.part", uuid::Uuid::now_v7()));
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e: std::io::Error| {
            // What is left of it is in nobody's way, but takes up the disk that may be full.
            let _ = fs::remove_file(&unfinished);
            unavailable("write", &path, &e)
        })
    }

    /// Removes what was being written when the process ended. Only while nobody writes.
    pub fn remove_unfinished(&self) -> Result<(), StoreError> {
        for path in self.paths()? {
            if path.extension().is_some_and(|ending| ending == "part") {
                fs::remove_file(&path).map_err(|e| unavailable("remove", &path, &e))?;
            }
        }
        Ok(())
    }

    /// Whose files there are.
    pub fn digests(&self) -> Result<Vec<Digest>, StoreError> {
        let digest = |path: &PathBuf| {
            let mut digest = [0; 32];
            hex::decode_to_slice(path.file_name()?.to_str()?, &mut digest).ok()?;
            Some(Digest(digest))
        };
        Ok(self.paths()?.iter().filter_map(digest).collect())
    }

    fn paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let list =
            || fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>();
        list().map_err(|e| unavailable("list", &self.folder, &e))
    }

    pub fn contains(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    pub fn get(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => StoreError::NotFound(format!("component {digest}")),
            _ => unavailable("read", &path, &e),
        })?;
        if Sha256::digest(&bytes)[..] == digest.0 {
            Ok(bytes)
        } else {
            Err(damaged(&path.display().to_string()))
        }
    }

    pub fn remove(&self, digest: Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(unavailable("remove", &path, &e)),
            _ => Ok(()),
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_noticed_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let files = ComponentFiles::open(folder.path()).unwrap();
        let digest = Digest(Sha256::digest(b"wasm").into());
        assert!(matches!(files.get(digest), Err(StoreError::NotFound(_))));
        files.put(digest, b"wasm").unwrap();
        fs::write(files.path(digest), b"wosm").unwrap();
        assert!(matches!(files.get(digest), Err(StoreError::Corrupt(_))));
        files.put(digest, b"wasm").unwrap();
        assert_eq!(files.get(digest).unwrap(), b"wasm");
        files.remove(digest).unwrap();
        files.remove(digest).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_being_written_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let files = ComponentFiles::open(folder.path()).unwrap();
        let digest = Digest(Sha256::digest(b"wasm").into());
        files.put(digest, b"wasm").unwrap();
        fs::write(files.path(digest).with_extension("x.part"), b"wa").unwrap();
        fs::write(folder.path().join("README"), b"").unwrap();
        files.remove_unfinished().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(files.digests().unwrap(), [digest]);
    }
}
