//! The mark of a store that was moved elsewhere: a file, so that people find it.

use crate::StoreError;
use crate::folder::unavailable;
use crate::words::moved;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

fn path(folder: &Path) -> PathBuf {
    folder.join("moved")
}

/// Marks it. `Conflict` if it is marked already.
pub(crate) fn mark(folder: &Path, whither: &str) -> Result<(), StoreError> {
    check(folder)?;
    let path = path(folder);
    let write = || {
        let mut file = File::create(&path)?;
        writeln!(file, "{whither}")?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| unavailable("write", &path, &e))
}

/// Takes the mark away.
pub(crate) fn unmark(folder: &Path) -> Result<(), StoreError> {
    let path = path(folder);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(unavailable("remove", &path, &e)),
        _ => Ok(()),
    }
}

/// `Conflict` if the store is marked.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    let path = path(folder);
    match fs::read_to_string(&path) {
        Ok(whither) => Err(moved(
            &format!("the store in {}", folder.display()),
            whither.trim(),
            &format!("remove the file {}", path.display()),
        )),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(unavailable("read", &path, &e)),
    }
}
