//! A scratch: the files that an attempt may have while it executes. A tree in memory, so that no path leads to the
//! host's files, whatever it looks like. Knows neither wasmtime nor WASI.

mod content;
#[cfg(test)]
mod model;
mod path;
mod rename;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use tree::{How, Id, Kind, Offset, Stat, Tree};

use crate::memory::MemoryLimiter;
use innkeeper_domain::limits::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An attempt's scratch. Clones share it.
#[derive(Clone)]
pub(crate) struct Scratch(Arc<Mutex<Tree>>);

impl Scratch {
    /// An empty one that takes so many bytes, and counts what is used of them as memory.
    pub fn new(bytes: u64, memory: MemoryLimiter, now: Duration) -> Self {
        Self(Arc::new(Mutex::new(Tree::new(bytes, memory, now))))
    }

    /// Its root, opened.
    pub fn root(&self) -> Handle {
        let id = self.tree().open_root();
        Handle { scratch: self.clone(), id }
    }

    /// Words on each bound that something was refused for.
    pub fn refusals(&self) -> Vec<String> {
        let tree = self.tree();
        let words = |bound: &Bound| {
            match bound {
            Bound::Bytes => format!(
                "the scratch was full: its files may take {} bytes, in blocks of {SCRATCH_BLOCK_BYTES} and \
                 {SCRATCH_NODE_BYTES} for each (--scratch)",
                tree.bytes()
            ),
            Bound::Files => {
                format!("the scratch was full: it may have {SCRATCH_FILES_MAX} files and directories")
            }
            Bound::Memory => {
                "the scratch could not grow: what it uses counts as memory, of which there was no more (--memory)"
                    .into()
            }
        }
        };
        tree.refused().iter().map(words).collect()
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file or directory that is open, and so stays, whatever becomes of its name.
pub(crate) struct Handle {
    scratch: Scratch,
    id: Id,
}

impl Handle {
    /// What it is of, among those that there ever were in this scratch.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Does something with it. Handles must not be opened or dropped meanwhile.
    pub fn with<T>(&self, act: impl FnOnce(&mut Tree, Id) -> T) -> T {
        act(&mut self.scratch.tree(), self.id)
    }

    /// Opens what is at a path from here, which is made if `how` says so.
    pub fn open(&self, path: &str, how: How, now: Duration) -> Result<(Self, Kind), ScratchError> {
        let (id, kind) = self.with(|tree, id| tree.open(id, path, how, now))?;
        Ok((Self { scratch: self.scratch.clone(), id }, kind))
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.with(Tree::retain);
        Self { scratch: self.scratch.clone(), id: self.id }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.with(Tree::release);
    }
}

/// Why something can't be done in a scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScratchError {
    #[error("there is no such file or directory")]
    NoEntry,
    #[error("it exists already")]
    Exists,
    #[error("it isn't a directory")]
    NotDirectory,
    #[error("it is a directory")]
    IsDirectory,
    #[error("the directory isn't empty")]
    NotEmpty,
    #[error("the path leads out of the directory")]
    NotPermitted,
    #[error("that can't be")]
    Invalid,
    #[error("`.` and `..` stay where they are")]
    Busy,
    #[error("a name or path is too long, or leads too deep")]
    NameTooLong,
    #[error("the scratch is full")]
    Full(Bound),
}

/// What a scratch may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bound {
    Bytes,
    Files,
    /// The run's memory, as which the scratch's use counts.
    Memory,
}
