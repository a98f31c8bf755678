//! The data folder's lock: one process at a time.

use crate::StoreError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

/// A data folder that no other host has open, as long as this lives.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of a folder, making the folder if it isn't there. `Conflict` if another process has it.
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|e| unavailable("create the data folder", folder, &e))?;
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| unavailable("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Conflict(format!(
                "another process has the data folder {} open; stop it, or use another folder",
                folder.display()
            ))),
            Err(TryLockError::Error(e)) => Err(unavailable("lock", &path, &e)),
        }
    }
}

/// A file or folder that can't be used now.
pub(crate) fn unavailable(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("can't {what} {}: {error}", path.display()))
}
