//! Moving files and directories.

use super::ScratchError;
use super::tree::{Body, Id, Kind, Place, Tree};
use innkeeper_domain::limits::SCRATCH_DEPTH_MAX;
use std::time::Duration;

impl Tree {
    /// Gives a file or directory another name, elsewhere or not. A file takes the place of a file, a directory that of an
    /// empty directory. Either all of it is done, or nothing.
    pub fn rename(&mut self, from: (Id, &str), to: (Id, &str), now: Duration) -> Result<(), ScratchError> {
        let (old_parent, old_name, from_directory) = self.name(from)?;
        let (new_parent, new_name, to_directory) = self.name(to)?;
        let moved = self.child(old_parent, old_name)?.ok_or(ScratchError::NoEntry)?;
        let kind = self.node(moved)?.kind();
        if kind == Kind::File && (from_directory || to_directory) {
            return Err(ScratchError::NotDirectory);
        }
        if !self.node(new_parent)?.linked {
            return Err(ScratchError::NoEntry);
        }
        if kind == Kind::Directory && self.is_within(new_parent, moved) {
            return Err(ScratchError::Invalid);
        }
        let replaced = self.child(new_parent, new_name)?;
        if replaced == Some(moved) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (kind, &self.node(replaced)?.body) {
                (Kind::File, Body::Directory(_)) => return Err(ScratchError::IsDirectory),
                (Kind::Directory, Body::File(_)) => return Err(ScratchError::NotDirectory),
                (Kind::Directory, Body::Directory(directory)) if !directory.entries.is_empty() => {
                    return Err(ScratchError::NotEmpty);
                }
                _ => {}
            }
        }
        if kind == Kind::Directory
            && self.depth(new_parent) + 1 + self.directories_below(moved) > SCRATCH_DEPTH_MAX
        {
            return Err(ScratchError::NameTooLong);
        }
        // From here on nothing fails.
        if replaced.is_some() {
            self.unlink(new_parent, new_name, now)?;
        }
        self.directory_mut(old_parent)?.entries.remove(old_name);
        self.node_mut(old_parent)?.modify(now);
        self.directory_mut(new_parent)?.entries.insert(new_name.into(), moved);
        self.node_mut(new_parent)?.modify(now);
        if kind == Kind::Directory {
            self.directory_mut(moved)?.parent = Some(new_parent);
        }
        self.node_mut(moved)?.change(now);
        Ok(())
    }

    /// The directory and the name at the end of a path, and whether it says that it is a directory's.
    fn name<'a>(&self, (base, path): (Id, &'a str)) -> Result<(Id, &'a str, bool), ScratchError> {
        match self.place(base, path)? {
            Place::Directory(_) => Err(ScratchError::Busy),
            Place::Entry { parent, name, of_directory } => Ok((parent, name, of_directory)),
        }
    }

    /// Whether a directory is another one, or somewhere in it.
    fn is_within(&self, directory: Id, other: Id) -> bool {
        let parent = |id: &Id| self.directory(*id).ok().and_then(|directory| directory.parent);
        std::iter::successors(Some(directory), parent).any(|id| id == other)
    }

    /// How many directories deep a directory goes.
    fn directories_below(&self, directory: Id) -> usize {
        let (mut deepest, mut left) = (0, vec![(directory, 0)]);
        while let Some((id, depth)) = left.pop() {
            deepest = deepest.max(depth);
            let Ok(directory) = self.directory(id) else { continue };
            let below = directory.entries.values().filter(|id| self.directory(**id).is_ok());
            left.extend(below.map(|id| (*id, depth + 1)));
        }
        deepest
    }
}
