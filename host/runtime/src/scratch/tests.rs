//! What a scratch does, case by case.

use super::content::{Content, counted};
use super::*;

const NOW: Duration = Duration::from_secs(7);
const NODE: u64 = SCRATCH_NODE_BYTES as u64;
const BLOCK: u64 = SCRATCH_BLOCK_BYTES as u64;
const CREATE: How = How { create: true, exclusive: false, truncate: false, directory: false, write: true };

fn scratch(bytes: u64) -> (Handle, MemoryLimiter) {
    let memory = MemoryLimiter::new(1 << 30);
    (Scratch::new(bytes, memory.clone(), NOW).root(), memory)
}

fn create(base: &Handle, path: &str) -> Result<Handle, ScratchError> {
    base.open(path, CREATE, NOW).map(|(handle, _)| handle)
}

fn directory(base: &Handle, path: &str) -> Result<(), ScratchError> {
    base.with(|tree, id| tree.create_directory(id, path, NOW))
}

fn enter(base: &Handle, path: &str) -> Handle {
    base.open(path, How { directory: true, ..How::default() }, NOW).unwrap().0
}

fn write(file: &Handle, to: Offset, bytes: &[u8]) -> Result<u64, ScratchError> {
    file.with(|tree, id| tree.write(id, to, bytes, NOW))
}

fn resize(file: &Handle, size: u64) -> Result<(), ScratchError> {
    file.with(|tree, id| tree.resize(id, size, NOW))
}

fn remove(base: &Handle, path: &str) -> Result<(), ScratchError> {
    base.with(|tree, id| tree.remove_file(id, path, NOW))
}

fn rename(from: (&Handle, &str), to: (&Handle, &str)) -> Result<(), ScratchError> {
    let to = (to.0.id(), to.1);
    from.0.with(|tree, id| tree.rename((id, from.1), to, NOW))
}

fn find(base: &Handle, path: &str) -> Result<Id, ScratchError> {
    base.with(|tree, id| tree.find(id, path))
}

fn used(handle: &Handle) -> u64 {
    handle.with(|tree, _| tree.used())
}

#[test]
fn no_path_leads_out_of_the_directory_that_it_begins_in() {
    let (root, _) = scratch(1 << 20);
    directory(&root, "a").unwrap();
    directory(&root, "a/b").unwrap();
    create(&root, "secret").unwrap();
    let b = enter(&root, "a/b");
    for path in
        ["..", "../", "../../secret", "./../x", "../b", "/", "/secret", "//", "../../../../etc/passwd"]
    {
        assert_eq!(find(&b, path), Err(ScratchError::NotPermitted), "{path}");
        assert_eq!(create(&b, path).err(), Some(ScratchError::NotPermitted), "{path}");
        assert_eq!(directory(&b, path), Err(ScratchError::NotPermitted), "{path}");
        assert_eq!(remove(&b, path), Err(ScratchError::NotPermitted), "{path}");
        assert_eq!(rename((&b, path), (&b, "x")), Err(ScratchError::NotPermitted), "{path}");
    }
    create(&b, "x").unwrap();
    assert_eq!(rename((&b, "x"), (&b, "../x")), Err(ScratchError::NotPermitted));
    assert_eq!(find(&root, "a/b/../../secret"), find(&root, "secret"));
    assert_eq!(find(&root, "a/../.."), Err(ScratchError::NotPermitted));
    assert_eq!(find(&root, "secret/.."), Err(ScratchError::NotDirectory), "no step through a file");
    assert_eq!(find(&root, "none/.."), Err(ScratchError::NoEntry));
}

#[test]
fn names_and_paths_have_bounds() {
    let (root, _) = scratch(1 << 20);
    let longest = "n".repeat(SCRATCH_NAME_BYTES_MAX);
    create(&root, &longest).unwrap();
    assert_eq!(create(&root, &format!("{longest}n")).err(), Some(ScratchError::NameTooLong));
    let path = "./".repeat(SCRATCH_PATH_BYTES_MAX / 2);
    assert_eq!(find(&root, &path), Ok(root.id()));
    assert_eq!(find(&root, &format!("{path}.")), Err(ScratchError::NameTooLong));
    assert_eq!(find(&root, "a\0b"), Err(ScratchError::Invalid));
    assert_eq!(find(&root, ""), Err(ScratchError::NoEntry));
    assert_eq!(create(&root, "new/").err(), Some(ScratchError::IsDirectory));
    assert_eq!(find(&root, &format!("{longest}/")), Err(ScratchError::NotDirectory));
}

#[test]
fn directories_go_so_deep_and_no_deeper() {
    let (root, _) = scratch(1 << 20);
    directory(&root, "d").unwrap();
    let mut deepest = enter(&root, "d");
    for _ in 1..SCRATCH_DEPTH_MAX {
        directory(&deepest, "d").unwrap();
        deepest = enter(&deepest, "d");
    }
    assert_eq!(directory(&deepest, "d"), Err(ScratchError::NameTooLong));
    create(&deepest, "file").unwrap();
    // Nor by moving what is deep already.
    directory(&root, "top").unwrap();
    assert_eq!(rename((&root, "d"), (&root, "top/d")), Err(ScratchError::NameTooLong));
    rename((&root, "d/d"), (&root, "top/d")).unwrap();
    assert_eq!(rename((&root, "d"), (&deepest, "d")), Err(ScratchError::NameTooLong));
}

#[test]
fn bytes_count_in_blocks_until_they_are_gone() {
    let (root, memory) = scratch(64 * 1024);
    let file = create(&root, "f").unwrap();
    assert_eq!(used(&root), NODE);
    write(&file, Offset::At(0), b"x").unwrap();
    assert_eq!((used(&root), memory.peak()), (NODE + BLOCK, NODE + BLOCK));
    // No byte of a hole is free.
    assert_eq!(write(&file, Offset::At(1 << 40), b"x"), Err(ScratchError::Full(Bound::Bytes)));
    assert_eq!(write(&file, Offset::At(u64::MAX), b"x"), Err(ScratchError::Full(Bound::Bytes)));
    assert_eq!(resize(&file, u64::MAX), Err(ScratchError::Full(Bound::Bytes)));
    assert_eq!(resize(&file, 64 * 1024), Err(ScratchError::Full(Bound::Bytes)), "the file itself counts too");
    resize(&file, 15 * BLOCK).unwrap();
    assert_eq!(used(&root), NODE + 15 * BLOCK);
    assert_eq!(create(&root, "g").map(|g| used(&g)), Ok(2 * NODE + 15 * BLOCK));
    assert_eq!(write(&file, Offset::End, b"x"), Err(ScratchError::Full(Bound::Bytes)));
    resize(&file, 1).unwrap();
    remove(&root, "g").unwrap();
    assert_eq!(used(&root), NODE + BLOCK);
    // Without a name it lives on as long as it is open, and counts.
    remove(&root, "f").unwrap();
    assert_eq!(find(&root, "f"), Err(ScratchError::NoEntry));
    assert_eq!(file.with(|tree, id| tree.read(id, 0, 10)), Ok(b"x".to_vec()));
    assert_eq!(used(&root), NODE + BLOCK);
    let again = file.clone();
    drop(file);
    assert_eq!(used(&root), NODE + BLOCK);
    drop(again);
    assert_eq!(used(&root), 0);
}

#[test]
fn what_is_used_counts_as_memory() {
    let memory = MemoryLimiter::new(NODE + 2 * BLOCK);
    let scratch = Scratch::new(1 << 20, memory.clone(), NOW);
    let root = scratch.root();
    let file = create(&root, "f").unwrap();
    resize(&file, 2 * BLOCK).unwrap();
    assert_eq!(write(&file, Offset::End, b"x"), Err(ScratchError::Full(Bound::Memory)));
    assert_eq!(create(&root, "g").err(), Some(ScratchError::Full(Bound::Memory)));
    assert!(memory.refusal().is_some_and(|words| words.contains("scratch")));
    assert!(matches!(&scratch.refusals()[..], [words] if words.contains("--memory")));
    resize(&file, BLOCK).unwrap();
    create(&root, "g").unwrap();
    assert_eq!(memory.peak(), NODE + 2 * BLOCK);
}

#[test]
fn there_are_so_many_files_and_no_more() {
    let (root, _) = scratch(SCRATCH_BYTES_MAX);
    let mut open = None;
    for number in 0..SCRATCH_FILES_MAX {
        open = Some(create(&root, &number.to_string()).unwrap());
    }
    assert_eq!(create(&root, "more").err(), Some(ScratchError::Full(Bound::Files)));
    assert_eq!(directory(&root, "more"), Err(ScratchError::Full(Bound::Files)));
    let last = (SCRATCH_FILES_MAX - 1).to_string();
    remove(&root, &last).unwrap();
    assert_eq!(directory(&root, "more"), Err(ScratchError::Full(Bound::Files)), "it is open still");
    drop(open);
    directory(&root, "more").unwrap();
}

#[test]
fn nothing_comes_into_a_directory_that_was_removed() {
    let (root, _) = scratch(1 << 20);
    directory(&root, "d").unwrap();
    create(&root, "f").unwrap();
    let removed = enter(&root, "d");
    root.with(|tree, id| tree.remove_directory(id, "d", NOW)).unwrap();
    assert_eq!(create(&removed, "x").err(), Some(ScratchError::NoEntry));
    assert_eq!(directory(&removed, "x"), Err(ScratchError::NoEntry));
    assert_eq!(rename((&root, "f"), (&removed, "f")), Err(ScratchError::NoEntry));
    assert_eq!(used(&root), 2 * NODE);
    drop(removed);
    assert_eq!(used(&root), NODE);
}

#[test]
fn renames_replace_like_with_like() {
    let (root, _) = scratch(1 << 20);
    for path in ["d", "d/in", "empty"] {
        directory(&root, path).unwrap();
    }
    let file = create(&root, "f").unwrap();
    create(&root, "g").unwrap();
    let inside = enter(&root, "d/in");
    for (from, to, error) in [
        ("none", "x", ScratchError::NoEntry),
        ("f", "d", ScratchError::IsDirectory),
        ("d", "f", ScratchError::NotDirectory),
        ("empty", "d", ScratchError::NotEmpty),
        ("d", "d/in/x", ScratchError::Invalid),
        ("f", "x/", ScratchError::NotDirectory),
        (".", "x", ScratchError::Busy),
        ("f", "d/in/..", ScratchError::Busy),
    ] {
        assert_eq!(rename((&root, from), (&root, to)), Err(error), "{from} to {to}");
    }
    assert_eq!(rename((&root, "d"), (&inside, "x")), Err(ScratchError::Invalid), "by a handle within it");
    rename((&root, "f"), (&root, "f")).unwrap();
    rename((&root, "f"), (&inside, "g")).unwrap();
    assert_eq!(find(&root, "d/in/g"), Ok(file.id()));
    rename((&root, "g"), (&inside, "g")).unwrap();
    assert!(!file.with(|tree, id| tree.stat(id)).unwrap().linked, "it was replaced");
    rename((&root, "d"), (&root, "empty")).unwrap();
    assert_eq!(find(&root, "empty/in"), Ok(inside.id()));
    drop(file);
    assert_eq!(used(&root), 3 * NODE);
}

#[test]
fn a_directory_can_be_emptied_while_it_is_listed() {
    let (root, _) = scratch(1 << 20);
    for name in ["a", "b", "c"] {
        create(&root, name).unwrap();
    }
    let (mut seen, mut last) = (Vec::new(), None);
    while let Some((name, kind)) = root.with(|tree, id| tree.entry_after(id, last.as_deref())).unwrap() {
        assert_eq!(kind, Kind::File);
        remove(&root, &name).unwrap();
        seen.push(name.to_string());
        last = Some(name);
    }
    assert_eq!((seen.concat(), used(&root)), ("abc".into(), 0));
}

#[test]
fn opening_says_what_it_wants() {
    let (root, _) = scratch(1 << 20);
    directory(&root, "d").unwrap();
    let file = create(&root, "f").unwrap();
    write(&file, Offset::End, b"text").unwrap();
    let open = |path: &str, how: How| root.open(path, how, NOW).map(|(_, kind)| kind);
    assert_eq!(open("f", How { exclusive: true, ..CREATE }), Err(ScratchError::Exists));
    assert_eq!(open("f", How { directory: true, ..How::default() }), Err(ScratchError::NotDirectory));
    assert_eq!(open("d", CREATE), Err(ScratchError::IsDirectory));
    assert_eq!(open("d", How { write: true, ..How::default() }), Err(ScratchError::IsDirectory));
    assert_eq!(open("x", How::default()), Err(ScratchError::NoEntry));
    assert_eq!(open("f/x", CREATE), Err(ScratchError::NotDirectory));
    assert_eq!(open(".", How::default()), Ok(Kind::Directory));
    assert_eq!(open("f", CREATE), Ok(Kind::File));
    assert_eq!(file.with(|tree, id| tree.read(id, 1, 2)), Ok(b"ex".to_vec()));
    assert_eq!(open("f", How { truncate: true, ..CREATE }), Ok(Kind::File));
    assert_eq!(file.with(|tree, id| tree.stat(id)).unwrap().size, 0);
}

#[test]
fn what_was_cut_off_is_zero_when_it_is_back_and_takes_no_memory() {
    let mut content = Content::default();
    content.write(BLOCK - 2, &[1; 3 * SCRATCH_BLOCK_BYTES]);
    assert_eq!((content.size(), content.blocks()), (4 * BLOCK - 2, 4));
    content.resize(BLOCK - 1);
    content.resize(100 * BLOCK);
    assert_eq!(content.blocks(), 1);
    let mut expected = vec![0; 2 * SCRATCH_BLOCK_BYTES];
    expected[0] = 1;
    assert_eq!(content.read(BLOCK - 2, 2 * SCRATCH_BLOCK_BYTES), expected);
    assert_eq!(content.read(100 * BLOCK - 1, 10), [0]);
    assert!(content.read(100 * BLOCK, 10).is_empty());
    assert!(content.read(u64::MAX, usize::MAX).is_empty());
    assert_eq!((counted(0), counted(1), counted(BLOCK), counted(BLOCK + 1)), (0, BLOCK, BLOCK, 2 * BLOCK));
}

#[test]
fn one_read_has_a_bound() {
    let (root, _) = scratch(4 << 20);
    let file = create(&root, "f").unwrap();
    resize(&file, 3 << 20).unwrap();
    let bytes = file.with(|tree, id| tree.read(id, 0, usize::MAX)).unwrap();
    assert_eq!(bytes.len(), SCRATCH_CALL_BYTES_MAX);
}
