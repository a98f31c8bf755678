//! The data folder's lock: one process at a time.

use crate::StoreError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

/// A data folder that no other host has open, as long as this lives.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
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
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Conflict(format!(
                "another process has the data folder {} open; stop it, or use another folder",
                folder.display()
            ))),
            Err(TryLockError::Error(e)) => Err(unavailable("lock", &path, &e)),
        }
    }
}

impl Drop for FolderLock {
    /// Closing the file wouldn't do: a process that is just being started still has it open.
    fn drop(&mut self) {
        // What can't be unlocked is so at the latest when all have closed it.
        let _ = self.file.unlock();
    }
}

/// A file or folder that can't be used now.
pub(crate) fn unavailable(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("can't {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        // As a process has it between being forked and becoming its program.
        let inherited = lock.file.try_clone().unwrap();
        assert!(matches!(FolderLock::take(folder.path()), Err(StoreError::Conflict(_))));
        drop(lock);
        drop(FolderLock::take(folder.path()).unwrap());
        drop(inherited);
    }
}
