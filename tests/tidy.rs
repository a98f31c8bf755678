//! Rules about the repository that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file may have.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Every file that is ours, below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') && name != ".ci" || name == "target" {
            continue;
        }
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    assert!(found.len() > 100, "the repository has been found");
    found
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = all_files()
        .into_iter()
        .filter(|path| has_ending(path, "rs") && !path.starts_with(root().join("tests")))
        .map(|path| (fs::read_to_string(&path).expect("text").lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "split these: {long:?}");
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<_> = all_files()
        .into_iter()
        .filter(|path| has_ending(path, "rs") && !fs::read_to_string(path).expect("text").starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "begin these with `//!`: {silent:?}");
}

/// Who may know whom, of our own crates. The compiler enforces what the manifests say; this, that they say
/// what the architecture does.
#[test]
fn crates_know_only_whom_they_may() {
    for (name, may_know) in [
        ("domain", &[][..]),
        ("store", &["domain"]),
        ("engine", &["domain", "store"]),
        ("runtime", &["domain", "engine"]),
        ("api", &["domain", "store"]),
    ] {
        let manifest =
            fs::read_to_string(root().join("host").join(name).join("Cargo.toml")).expect("a manifest");
        let known: BTreeSet<_> =
            manifest.lines().filter_map(|line| line.strip_prefix("innkeeper-")?.split('.').next()).collect();
        assert_eq!(known, may_know.iter().copied().collect(), "{name}");
    }
}

/// Every `make` target that README names is there, and every `inn` command is one.
#[test]
fn the_commands_in_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let in_code = readme.lines().filter_map(|line| line.strip_prefix("make "));
    let in_prose = readme.split("`make ").skip(1);
    let target =
        |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>();
    let targets: BTreeSet<String> = in_code.chain(in_prose).map(target).collect();
    assert!(targets.len() > 2, "README names make's targets");
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
    let inn = env!("CARGO_BIN_EXE_inn");
    let mut commands: BTreeSet<Vec<String>> = BTreeSet::new();
    for line in readme.lines().filter_map(|line| line.trim().strip_prefix("inn ")) {
        let words: Vec<String> = line
            .split_whitespace()
            .take(2)
            .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
            .map(Into::into)
            .collect();
        commands.insert(words);
    }
    assert!(commands.len() > 5, "README shows how `inn` is used");
    for mut command in commands.into_iter().filter(|command| !command.is_empty()) {
        // The second word is a subcommand of these only.
        let nouns = [
            "component",
            "hosts",
            "task",
            "trigger",
            "runs",
            "tenant",
            "token",
            "quota",
            "audit",
            "context",
            "holidays",
            "secret",
        ];
        if !nouns.contains(&command[0].as_str()) {
            command.truncate(1);
        }
        let help = std::process::Command::new(inn).args(&command).arg("--help").output().expect("inn runs");
        assert!(help.status.success(), "inn {}", command.join(" "));
    }
}
