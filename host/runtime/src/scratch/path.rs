//! Paths: what their text says, before anything is looked up.

use super::ScratchError;
use innkeeper_domain::limits::{SCRATCH_NAME_BYTES_MAX, SCRATCH_PATH_BYTES_MAX};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Up,
    Into(&'a str),
}

/// A path, step by step from some directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path<'a> {
    pub steps: Vec<Step<'a>>,
    /// Whether it says that it is a directory's, by what it ends with.
    pub of_directory: bool,
}

/// Reads a path. Whether `..` leads out of the directory is seen when it is walked.
pub(super) fn parse(path: &str) -> Result<Path<'_>, ScratchError> {
    if path.is_empty() {
        return Err(ScratchError::NoEntry);
    }
    if path.len() > SCRATCH_PATH_BYTES_MAX {
        return Err(ScratchError::NameTooLong);
    }
    if path.contains('\0') {
        return Err(ScratchError::Invalid);
    }
    if path.starts_with('/') {
        return Err(ScratchError::NotPermitted);
    }
    let mut steps = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => steps.push(Step::Up),
            name if name.len() > SCRATCH_NAME_BYTES_MAX => return Err(ScratchError::NameTooLong),
            name => steps.push(Step::Into(name)),
        }
    }
    let of_directory = path.ends_with('/') || path.ends_with("/.");
    Ok(Path { steps, of_directory })
}
