//! The tree of files and directories, and what it counts.

use super::content::{Content, counted};
use super::path::{self, Step};
use super::{Bound, ScratchError};
use crate::memory::MemoryLimiter;
use innkeeper_domain::limits::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops;
use std::time::Duration;

/// Which file or directory, of all that there ever were in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub u64);

const ROOT: Id = Id(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
}

/// How something is opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// A file is made if there is nothing.
    pub create: bool,
    /// Only together with `create`: there must be nothing.
    pub exclusive: bool,
    /// A file's bytes are cut off.
    pub truncate: bool,
    /// It must be a directory.
    pub directory: bool,
    /// It is to be written to, so it can't be a directory.
    pub write: bool,
}

/// Where bytes are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offset {
    At(u64),
    End,
}

/// What is known of a file or directory. Times are since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub kind: Kind,
    /// Of a file, in bytes.
    pub size: u64,
    /// Whether it has a name still.
    pub linked: bool,
    pub accessed: Duration,
    pub modified: Duration,
    pub changed: Duration,
}

/// Files and directories within bounds. Every time is the caller's.
pub(crate) struct Tree {
    pub(super) nodes: BTreeMap<Id, Node>,
    next: u64,
    bytes: u64,
    used: u64,
    memory: MemoryLimiter,
    refused: BTreeSet<Bound>,
}

pub(super) struct Node {
    pub body: Body,
    /// How many handles it is open by.
    opened: usize,
    /// Whether it has a name. Without one it goes when nobody has it open.
    pub linked: bool,
    accessed: Duration,
    modified: Duration,
    changed: Duration,
}

pub(super) enum Body {
    File(Content),
    Directory(Directory),
}

#[derive(Default)]
pub(super) struct Directory {
    pub entries: BTreeMap<Box<str>, Id>,
    /// None of the root, and of what was removed.
    pub parent: Option<Id>,
}

/// What a path leads to.
pub(super) enum Place<'a> {
    /// A directory, by `.` or `..`.
    Directory(Id),
    Entry {
        parent: Id,
        name: &'a str,
        of_directory: bool,
    },
}

impl Tree {
    pub fn new(bytes: u64, memory: MemoryLimiter, now: Duration) -> Self {
        let root = Node::new(Body::Directory(Directory::default()), now);
        let nodes = [(ROOT, root)].into();
        Self { nodes, next: 1, bytes, used: 0, memory, refused: BTreeSet::new() }
    }

    /// What it may use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bounds that something was refused for.
    pub fn refused(&self) -> &BTreeSet<Bound> {
        &self.refused
    }

    /// What it uses.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Opens the root.
    pub fn open_root(&mut self) -> Id {
        self.retain(ROOT);
        ROOT
    }

    /// Opens what a path from a directory leads to. Whoever opens must [`Tree::release`] it.
    pub fn open(
        &mut self,
        base: Id,
        path: &str,
        how: How,
        now: Duration,
    ) -> Result<(Id, Kind), ScratchError> {
        let found = match self.place(base, path)? {
            Place::Directory(id) => Some(id),
            Place::Entry { parent, name, of_directory } => match self.child(parent, name)? {
                None if !how.create => return Err(ScratchError::NoEntry),
                None if of_directory => return Err(ScratchError::IsDirectory),
                None => {
                    let id = self.add(parent, name, Body::File(Content::default()), now)?;
                    self.retain(id);
                    return Ok((id, Kind::File));
                }
                Some(id) if of_directory && self.node(id)?.kind() == Kind::File => {
                    return Err(ScratchError::NotDirectory);
                }
                found => found,
            },
        };
        let id = found.ok_or(ScratchError::NoEntry)?;
        if how.create && how.exclusive {
            return Err(ScratchError::Exists);
        }
        let kind = self.node(id)?.kind();
        match kind {
            Kind::Directory if how.write || how.create || how.truncate => {
                return Err(ScratchError::IsDirectory);
            }
            Kind::File if how.directory => return Err(ScratchError::NotDirectory),
            Kind::File if how.truncate => self.resize(id, 0, now)?,
            Kind::File | Kind::Directory => {}
        }
        self.retain(id);
        Ok((id, kind))
    }

    /// Counts one more that has it open.
    pub fn retain(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opened += 1;
        }
    }

    /// Counts one less; without a name it goes with the last.
    pub fn release(&mut self, id: Id) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.opened = node.opened.saturating_sub(1);
        }
        self.free_if_unused(id);
    }

    pub fn create_directory(&mut self, base: Id, path: &str, now: Duration) -> Result<(), ScratchError> {
        let Place::Entry { parent, name, .. } = self.place(base, path)? else {
            return Err(ScratchError::Exists);
        };
        if self.child(parent, name)?.is_some() {
            return Err(ScratchError::Exists);
        }
        if self.depth(parent) >= SCRATCH_DEPTH_MAX {
            return Err(ScratchError::NameTooLong);
        }
        let body = Body::Directory(Directory { parent: Some(parent), ..Directory::default() });
        self.add(parent, name, body, now).map(drop)
    }

    pub fn remove_directory(&mut self, base: Id, path: &str, now: Duration) -> Result<(), ScratchError> {
        let Place::Entry { parent, name, .. } = self.place(base, path)? else {
            return Err(ScratchError::Busy);
        };
        let id = self.child(parent, name)?.ok_or(ScratchError::NoEntry)?;
        if !self.directory(id)?.entries.is_empty() {
            return Err(ScratchError::NotEmpty);
        }
        self.unlink(parent, name, now)
    }

    pub fn remove_file(&mut self, base: Id, path: &str, now: Duration) -> Result<(), ScratchError> {
        let Place::Entry { parent, name, of_directory } = self.place(base, path)? else {
            return Err(ScratchError::IsDirectory);
        };
        let id = self.child(parent, name)?.ok_or(ScratchError::NoEntry)?;
        match self.node(id)?.kind() {
            Kind::Directory => Err(ScratchError::IsDirectory),
            Kind::File if of_directory => Err(ScratchError::NotDirectory),
            Kind::File => self.unlink(parent, name, now),
        }
    }

    /// What a path from a directory leads to, which must be there.
    pub fn find(&self, base: Id, path: &str) -> Result<Id, ScratchError> {
        match self.place(base, path)? {
            Place::Directory(id) => Ok(id),
            Place::Entry { parent, name, of_directory } => {
                let id = self.child(parent, name)?.ok_or(ScratchError::NoEntry)?;
                match self.node(id)?.kind() {
                    Kind::File if of_directory => Err(ScratchError::NotDirectory),
                    Kind::File | Kind::Directory => Ok(id),
                }
            }
        }
    }

    pub fn stat(&self, id: Id) -> Result<Stat, ScratchError> {
        let node = self.node(id)?;
        let size = match &node.body {
            Body::File(content) => content.size(),
            Body::Directory(_) => 0,
        };
        let Node { linked, accessed, modified, changed, .. } = *node;
        Ok(Stat { kind: node.kind(), size, linked, accessed, modified, changed })
    }

    /// Sets the times that are given.
    pub fn set_times(
        &mut self,
        id: Id,
        accessed: Option<Duration>,
        modified: Option<Duration>,
        now: Duration,
    ) -> Result<(), ScratchError> {
        let node = self.node_mut(id)?;
        node.accessed = accessed.unwrap_or(node.accessed);
        node.modified = modified.unwrap_or(node.modified);
        node.changed = now;
        Ok(())
    }

    /// Bytes of a file from an offset on: at most [`SCRATCH_CALL_BYTES_MAX`], and none at its end.
    pub fn read(&self, id: Id, offset: u64, length: usize) -> Result<Vec<u8>, ScratchError> {
        Ok(self.content(id)?.read(offset, length.min(SCRATCH_CALL_BYTES_MAX)))
    }

    /// Writes bytes to a file, all of them or none, and tells the offset of what comes after.
    pub fn write(&mut self, id: Id, to: Offset, bytes: &[u8], now: Duration) -> Result<u64, ScratchError> {
        let size = self.content(id)?.size();
        let offset = match to {
            Offset::At(offset) => offset,
            Offset::End => size,
        };
        if bytes.is_empty() {
            return Ok(offset);
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(ScratchError::Full(Bound::Bytes))?;
        self.count_growth(size, end)?;
        self.content_mut(id)?.write(offset, bytes);
        self.node_mut(id)?.modify(now);
        Ok(end)
    }

    /// Cuts a file, or adds zeros to it, which count like any bytes.
    pub fn resize(&mut self, id: Id, size: u64, now: Duration) -> Result<(), ScratchError> {
        let before = self.content(id)?.size();
        self.count_growth(before, size)?;
        self.content_mut(id)?.resize(size);
        self.give(counted(before).saturating_sub(counted(size)));
        self.node_mut(id)?.modify(now);
        Ok(())
    }

    /// The entry of a directory whose name comes next after another, or the first. Entries that come and go meanwhile
    /// are told of or not; the others are, once.
    pub fn entry_after(&self, id: Id, name: Option<&str>) -> Result<Option<(Box<str>, Kind)>, ScratchError> {
        let after = name.map_or(ops::Bound::Unbounded, ops::Bound::Excluded);
        let next = self.directory(id)?.entries.range::<str, _>((after, ops::Bound::Unbounded)).next();
        next.map(|(name, id)| Ok((name.clone(), self.node(*id)?.kind()))).transpose()
    }

    /// Where a path from a directory leads, which it never leaves.
    pub(super) fn place<'a>(&self, base: Id, path: &'a str) -> Result<Place<'a>, ScratchError> {
        let path = path::parse(path)?;
        let mut way = vec![base];
        let mut here = base;
        self.directory(here)?;
        let last = path.steps.len().saturating_sub(1);
        for (at, step) in path.steps.into_iter().enumerate() {
            match step {
                Step::Up => {
                    way.pop();
                    here = *way.last().ok_or(ScratchError::NotPermitted)?;
                }
                Step::Into(name) if at == last => {
                    return Ok(Place::Entry { parent: here, name, of_directory: path.of_directory });
                }
                Step::Into(name) => {
                    here = self.child(here, name)?.ok_or(ScratchError::NoEntry)?;
                    self.directory(here)?;
                    way.push(here);
                }
            }
        }
        Ok(Place::Directory(here))
    }

    pub(super) fn child(&self, parent: Id, name: &str) -> Result<Option<Id>, ScratchError> {
        Ok(self.directory(parent)?.entries.get(name).copied())
    }

    /// How many directories are around one, the root not counted, and it itself counted.
    pub(super) fn depth(&self, directory: Id) -> usize {
        let parent = |id: &Id| self.directory(*id).ok().and_then(|directory| directory.parent);
        std::iter::successors(Some(directory), parent).count() - 1
    }

    /// Takes a name away from a file or an empty directory.
    pub(super) fn unlink(&mut self, parent: Id, name: &str, now: Duration) -> Result<(), ScratchError> {
        let removed = self.directory_mut(parent)?.entries.remove(name).ok_or(ScratchError::NoEntry)?;
        self.node_mut(parent)?.modify(now);
        let node = self.node_mut(removed)?;
        node.linked = false;
        node.change(now);
        if let Body::Directory(directory) = &mut node.body {
            directory.parent = None;
        }
        self.free_if_unused(removed);
        Ok(())
    }

    fn add(&mut self, parent: Id, name: &str, body: Body, now: Duration) -> Result<Id, ScratchError> {
        if !self.node(parent)?.linked {
            return Err(ScratchError::NoEntry);
        }
        // The root is none of them.
        if self.nodes.len() > SCRATCH_FILES_MAX {
            return Err(self.refuse(Bound::Files));
        }
        self.take(SCRATCH_NODE_BYTES as u64)?;
        let id = Id(self.next);
        self.next += 1;
        self.nodes.insert(id, Node::new(body, now));
        self.directory_mut(parent)?.entries.insert(name.into(), id);
        self.node_mut(parent)?.modify(now);
        Ok(id)
    }

    fn free_if_unused(&mut self, id: Id) {
        if self.nodes.get(&id).is_some_and(|node| !node.linked && node.opened == 0)
            && let Some(node) = self.nodes.remove(&id)
        {
            self.give(node.counted());
        }
    }

    fn count_growth(&mut self, before: u64, after: u64) -> Result<(), ScratchError> {
        if after > self.bytes {
            return Err(self.refuse(Bound::Bytes));
        }
        self.take(counted(after).saturating_sub(counted(before)))
    }

    fn take(&mut self, bytes: u64) -> Result<(), ScratchError> {
        if bytes > self.bytes - self.used {
            return Err(self.refuse(Bound::Bytes));
        }
        if !self.memory.grow_scratch(usize::try_from(bytes).unwrap_or(usize::MAX)) {
            return Err(self.refuse(Bound::Memory));
        }
        self.used += bytes;
        Ok(())
    }

    fn give(&mut self, bytes: u64) {
        self.used -= bytes;
        self.memory.shrink_scratch(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    fn refuse(&mut self, bound: Bound) -> ScratchError {
        self.refused.insert(bound);
        ScratchError::Full(bound)
    }

    pub(super) fn node(&self, id: Id) -> Result<&Node, ScratchError> {
        self.nodes.get(&id).ok_or(ScratchError::NoEntry)
    }

    pub(super) fn node_mut(&mut self, id: Id) -> Result<&mut Node, ScratchError> {
        self.nodes.get_mut(&id).ok_or(ScratchError::NoEntry)
    }

    pub(super) fn directory(&self, id: Id) -> Result<&Directory, ScratchError> {
        match &self.node(id)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) => Err(ScratchError::NotDirectory),
        }
    }

    pub(super) fn directory_mut(&mut self, id: Id) -> Result<&mut Directory, ScratchError> {
        match &mut self.node_mut(id)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) => Err(ScratchError::NotDirectory),
        }
    }

    fn content(&self, id: Id) -> Result<&Content, ScratchError> {
        match &self.node(id)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(ScratchError::IsDirectory),
        }
    }

    fn content_mut(&mut self, id: Id) -> Result<&mut Content, ScratchError> {
        match &mut self.node_mut(id)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(ScratchError::IsDirectory),
        }
    }
}

impl Node {
    fn new(body: Body, now: Duration) -> Self {
        Self { body, opened: 0, linked: true, accessed: now, modified: now, changed: now }
    }

    pub fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
        }
    }

    /// What it counts: its blocks, and itself.
    pub fn counted(&self) -> u64 {
        let blocks = match &self.body {
            Body::File(content) => counted(content.size()),
            Body::Directory(_) => 0,
        };
        blocks + SCRATCH_NODE_BYTES as u64
    }

    pub fn modify(&mut self, now: Duration) {
        self.modified = now;
        self.change(now);
    }

    pub fn change(&mut self, now: Duration) {
        self.changed = now;
    }
}
