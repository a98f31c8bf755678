//! Random things done to a tree and to a model of it, which come out the same.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Duration = Duration::ZERO;
const BLOCK: usize = SCRATCH_BLOCK_BYTES;
/// Little enough that it is full now and then.
const BYTES: usize = 12 * BLOCK;

#[derive(Debug, Clone)]
enum Deed {
    Open(String, bool),
    /// Of the handles that are open, one of so many, counted round.
    Close(usize),
    CreateDirectory(String),
    RemoveDirectory(String),
    RemoveFile(String),
    Rename(String, String),
    Write(usize, usize, usize),
    Append(usize, usize),
    Resize(usize, usize),
}

fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "a", "b", "b", "c", ".", ".."]);
    (prop::collection::vec(part, 1..5), prop::sample::select(vec!["", "", "", "/"]))
        .prop_map(|(parts, end)| parts.join("/") + end)
}

fn deed() -> impl Strategy<Value = Deed> {
    let (which, size) = (0..8_usize, 0..4 * BLOCK);
    prop_oneof![
        4 => (path(), any::<bool>()).prop_map(|(path, truncate)| Deed::Open(path, truncate)),
        2 => which.clone().prop_map(Deed::Close),
        4 => path().prop_map(Deed::CreateDirectory),
        1 => path().prop_map(Deed::RemoveDirectory),
        1 => path().prop_map(Deed::RemoveFile),
        3 => (path(), path()).prop_map(|(from, to)| Deed::Rename(from, to)),
        4 => (which.clone(), size.clone(), size.clone()).prop_map(|(a, b, c)| Deed::Write(a, b, c)),
        2 => (which.clone(), size.clone()).prop_map(|(a, b)| Deed::Append(a, b)),
        2 => (which, size).prop_map(|(a, b)| Deed::Resize(a, b)),
    ]
}

/// Where something is: the names on the way to it.
type Place = Vec<String>;

/// Files by where they are, as numbers of their contents; directories have none.
#[derive(Default)]
struct Model {
    names: BTreeMap<Place, Option<usize>>,
    contents: Vec<Vec<u8>>,
    open: Vec<usize>,
}

/// What is at a place, which need not be there: the root, or whatever its parent has.
struct Walked {
    place: Place,
    by_name: bool,
    of_directory: bool,
}

impl Model {
    fn is_directory(&self, place: &Place) -> bool {
        place.is_empty() || self.names.get(place) == Some(&None)
    }

    fn walk(&self, path: &str) -> Result<Walked, ScratchError> {
        let of_directory = path.ends_with('/') || path.ends_with("/.");
        let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let mut place = Place::new();
        for (at, part) in parts.iter().enumerate() {
            if *part == ".." {
                place.pop().ok_or(ScratchError::NotPermitted)?;
                continue;
            }
            place.push((*part).into());
            if at + 1 == parts.len() {
                return Ok(Walked { place, by_name: true, of_directory });
            }
            if !self.is_directory(&place) {
                let there = self.names.contains_key(&place);
                return Err(if there { ScratchError::NotDirectory } else { ScratchError::NoEntry });
            }
        }
        Ok(Walked { place, by_name: false, of_directory })
    }

    fn children(&self, place: &Place) -> usize {
        self.names.keys().filter(|name| name.len() > place.len() && name.starts_with(place)).count()
    }

    fn used(&self) -> usize {
        let mut living: Vec<_> = self.names.values().flatten().chain(&self.open).collect();
        living.sort();
        living.dedup();
        let directories = self.names.values().filter(|content| content.is_none()).count();
        let blocks: usize = living.iter().map(|at| self.contents[**at].len().div_ceil(BLOCK) * BLOCK).sum();
        blocks + (living.len() + directories) * SCRATCH_NODE_BYTES
    }

    fn room(&self, more: usize) -> Result<(), ScratchError> {
        if self.used() + more > BYTES { Err(ScratchError::Full(Bound::Bytes)) } else { Ok(()) }
    }

    fn open(&mut self, path: &str, truncate: bool) -> Result<(), ScratchError> {
        let Walked { place, by_name, of_directory } = self.walk(path)?;
        let content = match self.names.get(&place) {
            _ if !by_name => return Err(ScratchError::IsDirectory),
            Some(None) => return Err(ScratchError::IsDirectory),
            Some(Some(_)) if of_directory => return Err(ScratchError::NotDirectory),
            Some(Some(content)) => *content,
            None if of_directory => return Err(ScratchError::IsDirectory),
            None => {
                self.room(SCRATCH_NODE_BYTES)?;
                self.contents.push(Vec::new());
                self.names.insert(place, Some(self.contents.len() - 1));
                self.contents.len() - 1
            }
        };
        if truncate {
            self.contents[content].clear();
        }
        self.open.push(content);
        Ok(())
    }

    fn create_directory(&mut self, path: &str) -> Result<(), ScratchError> {
        let Walked { place, by_name, .. } = self.walk(path)?;
        if !by_name || self.names.contains_key(&place) {
            return Err(ScratchError::Exists);
        }
        self.room(SCRATCH_NODE_BYTES)?;
        self.names.insert(place, None);
        Ok(())
    }

    fn remove_directory(&mut self, path: &str) -> Result<(), ScratchError> {
        let Walked { place, by_name, .. } = self.walk(path)?;
        match self.names.get(&place) {
            _ if !by_name => Err(ScratchError::Busy),
            None => Err(ScratchError::NoEntry),
            Some(Some(_)) => Err(ScratchError::NotDirectory),
            Some(None) if self.children(&place) > 0 => Err(ScratchError::NotEmpty),
            Some(None) => {
                self.names.remove(&place);
                Ok(())
            }
        }
    }

    fn remove_file(&mut self, path: &str) -> Result<(), ScratchError> {
        let Walked { place, by_name, of_directory } = self.walk(path)?;
        match self.names.get(&place) {
            _ if !by_name => Err(ScratchError::IsDirectory),
            None => Err(ScratchError::NoEntry),
            Some(None) => Err(ScratchError::IsDirectory),
            Some(Some(_)) if of_directory => Err(ScratchError::NotDirectory),
            Some(Some(_)) => {
                self.names.remove(&place);
                Ok(())
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), ScratchError> {
        let from = self.walk(from)?;
        if !from.by_name {
            return Err(ScratchError::Busy);
        }
        let to = self.walk(to)?;
        if !to.by_name {
            return Err(ScratchError::Busy);
        }
        let moved = *self.names.get(&from.place).ok_or(ScratchError::NoEntry)?;
        if moved.is_some() && (from.of_directory || to.of_directory) {
            return Err(ScratchError::NotDirectory);
        }
        if moved.is_none() && to.place.len() > from.place.len() && to.place.starts_with(&from.place) {
            return Err(ScratchError::Invalid);
        }
        if from.place == to.place {
            return Ok(());
        }
        match (moved, self.names.get(&to.place)) {
            (Some(_), Some(None)) => return Err(ScratchError::IsDirectory),
            (None, Some(Some(_))) => return Err(ScratchError::NotDirectory),
            (None, Some(None)) if self.children(&to.place) > 0 => return Err(ScratchError::NotEmpty),
            _ => {}
        }
        let all = std::mem::take(&mut self.names);
        let (below, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(name, _)| name.starts_with(&from.place));
        self.names.extend(others);
        let place = |name: Place| [to.place.as_slice(), &name[from.place.len()..]].concat();
        self.names.extend(below.into_iter().map(|(name, content)| (place(name), content)));
        Ok(())
    }

    fn resize(&mut self, content: usize, size: usize) -> Result<(), ScratchError> {
        let blocks = |size: usize| size.div_ceil(BLOCK) * BLOCK;
        self.room(blocks(size).saturating_sub(blocks(self.contents[content].len())))?;
        self.contents[content].resize(size, 0);
        Ok(())
    }

    fn write(&mut self, content: usize, offset: usize, bytes: &[u8]) -> Result<(), ScratchError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset + bytes.len();
        self.resize(content, end.max(self.contents[content].len()))?;
        self.contents[content][offset..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// Everything that is in a directory, and below it.
fn listed(directory: &Handle, place: &Place, found: &mut BTreeMap<Place, Option<Vec<u8>>>) {
    let mut last = None;
    while let Some((name, kind)) = directory.with(|tree, id| tree.entry_after(id, last.as_deref())).unwrap() {
        let mut place = place.clone();
        place.push(name.to_string());
        let (handle, _) = directory.open(&name, How::default(), NOW).unwrap();
        match kind {
            Kind::File => drop(found.insert(place, Some(read(&handle)))),
            Kind::Directory => {
                listed(&handle, &place, found);
                found.insert(place, None);
            }
        }
        last = Some(name);
    }
}

fn read(file: &Handle) -> Vec<u8> {
    file.with(|tree, id| tree.read(id, 0, usize::MAX)).unwrap()
}

fn check(deeds: Vec<Deed>) {
    let memory = MemoryLimiter::new(BYTES as u64);
    let root = Scratch::new(BYTES as u64, memory.clone(), NOW).root();
    let (mut model, mut open) = (Model::default(), Vec::<Handle>::new());
    for (number, deed) in deeds.into_iter().enumerate() {
        let bytes = |length: usize| vec![number as u8 + 1; length];
        let which = |which: usize| (!model.open.is_empty()).then(|| which % model.open.len());
        let (one, other) = match &deed {
            Deed::Open(path, truncate) => {
                let how = How { create: true, write: true, truncate: *truncate, ..How::default() };
                let one = root.open(path, how, NOW).map(|(handle, _)| open.push(handle));
                (one, model.open(path, *truncate))
            }
            Deed::Close(at) => {
                if let Some(at) = which(*at) {
                    drop(open.remove(at));
                    model.open.remove(at);
                }
                (Ok(()), Ok(()))
            }
            Deed::CreateDirectory(path) => {
                let one = root.with(|tree, id| tree.create_directory(id, path, NOW));
                (one, model.create_directory(path))
            }
            Deed::RemoveDirectory(path) => {
                let one = root.with(|tree, id| tree.remove_directory(id, path, NOW));
                (one, model.remove_directory(path))
            }
            Deed::RemoveFile(path) => {
                (root.with(|tree, id| tree.remove_file(id, path, NOW)), model.remove_file(path))
            }
            Deed::Rename(from, to) => {
                let one = root.with(|tree, id| tree.rename((id, from), (id, to), NOW));
                (one, model.rename(from, to))
            }
            Deed::Write(at, offset, length) => {
                let Some(at) = which(*at) else { continue };
                let to = Offset::At(*offset as u64);
                let one = open[at].with(|tree, id| tree.write(id, to, &bytes(*length), NOW));
                (one.map(drop), model.write(model.open[at], *offset, &bytes(*length)))
            }
            Deed::Append(at, length) => {
                let Some(at) = which(*at) else { continue };
                let one = open[at].with(|tree, id| tree.write(id, Offset::End, &bytes(*length), NOW));
                let end = model.contents[model.open[at]].len();
                (one.map(drop), model.write(model.open[at], end, &bytes(*length)))
            }
            Deed::Resize(at, size) => {
                let Some(at) = which(*at) else { continue };
                let one = open[at].with(|tree, id| tree.resize(id, *size as u64, NOW));
                (one, model.resize(model.open[at], *size))
            }
        };
        assert_eq!(one, other, "{deed:?}");
        assert_eq!(root.with(|tree, _| tree.used()), model.used() as u64, "{deed:?}");
        let mut found = BTreeMap::new();
        listed(&root, &Place::new(), &mut found);
        let expected = model.names.iter();
        let expected = expected.map(|(at, file)| (at.clone(), file.map(|file| model.contents[file].clone())));
        assert!(found == expected.collect(), "{deed:?}");
        for (handle, content) in open.iter().zip(&model.open) {
            assert!(read(handle) == model.contents[*content], "{deed:?}");
        }
    }
    open.clear();
    for place in model.names.keys().rev() {
        let path = place.join("/");
        let remove = |tree: &mut Tree, id| {
            tree.remove_file(id, &path, NOW).or_else(|_| tree.remove_directory(id, &path, NOW))
        };
        root.with(remove).unwrap();
    }
    assert_eq!(root.with(|tree, _| (tree.used(), tree.nodes.len())), (0, 1));
    assert!(memory.grow_scratch(BYTES), "all of the memory is free again");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn a_tree_does_what_its_model_does(deeds in prop::collection::vec(deed(), 1..60)) {
        check(deeds);
    }
}
