//! Where a host's keys come from: the environment, a file that it was given, or its data folder.

use crate::data_folder::{is_open, random_bytes, write_private};
use anyhow::{Context, Result, anyhow};
use innkeeper_domain::keyring::{KeyBytes, Keyring};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The file of a host's own keys. It is called after what they were first for.
const KEY_FILE: &str = "artifact.key";
/// The environment's word for the keys.
const KEY_VARIABLE: &str = "INN_KEY";

/// A host's keys.
#[derive(Debug)]
pub struct Keys {
    pub ring: Keyring,
    pub origin: Origin,
}

/// Who has made a host's keys, and so who may change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The operator, who has given them to the host.
    Given,
    /// The host itself, which keeps them in this file.
    Own(PathBuf),
    /// The host itself, while it shares its store with others that don't know them.
    OwnInFleet,
}

/// The environment's keys, else those of the file given, else the data folder's own, which are made if they aren't
/// there.
pub fn keys(data: &Path, file: Option<&Path>) -> Result<Keys> {
    let given = |ring| Keys { ring, origin: Origin::Given };
    if let Some(text) = std::env::var_os(KEY_VARIABLE).filter(|text| !text.is_empty()) {
        return parse(text.as_encoded_bytes())
            .map(given)
            .with_context(|| format!("{KEY_VARIABLE} is no key"));
    }
    if let Some(file) = file {
        let bytes = fs::read(file).map(Zeroizing::new);
        let bytes = bytes.with_context(|| format!("can't read the key {}", file.display()))?;
        if is_open(file) {
            tracing::warn!(file = %file.display(), "others than its owner can read the host's key; `chmod 600` it");
        }
        return parse(&bytes).map(given).with_context(|| format!("{} is no key", file.display()));
    }
    let path = data.join(KEY_FILE);
    let ring = match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => parse(&bytes).with_context(|| {
            format!(
                "{} is no key; put it back from where you keep a copy (without one, remove it: a new one is made, \
                 and secrets must be set again)",
                path.display()
            )
        })?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let key = new_key()?;
            write_private(&path, &*key)?;
            Keyring::new(vec![key])?
        }
        Err(e) => return Err(e).with_context(|| format!("can't read {}", path.display())),
    };
    Ok(Keys { ring, origin: Origin::Own(path) })
}

impl Keys {
    /// These keys as those of a host that shares its store.
    pub fn in_fleet(self) -> Self {
        let origin = match self.origin {
            Origin::Given => Origin::Given,
            Origin::Own(_) | Origin::OwnInFleet => Origin::OwnInFleet,
        };
        Self { origin, ..self }
    }
}

/// A key that nobody has yet.
pub fn new_key() -> Result<KeyBytes> {
    random_bytes().map(Zeroizing::new)
}

/// Puts a ring in the place of the host's own; after `Ok` the disk has it.
pub fn keep(ring: &Keyring, file: &Path) -> Result<()> {
    let mut text = Zeroizing::new(String::new());
    for key in ring.bytes() {
        text.push_str(&Zeroizing::new(hex::encode(key.as_slice())));
        text.push('\n');
    }
    write_private(file, text.as_bytes())
}

/// Keys: 32 bytes, which are one, or lines of 64 hex digits, which stand for one each; the first is the current one.
fn parse(bytes: &[u8]) -> Result<Keyring> {
    if let Ok(key) = <[u8; 32]>::try_from(bytes) {
        return Ok(Keyring::new(vec![key.into()])?);
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let keys = lines.map(|line| {
        let mut key = KeyBytes::default();
        let decoded = hex::decode_to_slice(line, &mut *key);
        decoded.map(|()| key).map_err(|_| {
            anyhow!(
                "expected 32 bytes, or lines of 64 hex digits, such as `openssl rand -hex 32` prints, the current key first"
            )
        })
    });
    Ok(Keyring::new(keys.collect::<Result<_>>()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_or_several() {
        let ids = |bytes: &[u8]| parse(bytes).map(|ring| ring.ids().map(str::to_string).collect::<Vec<_>>());
        let (a, b) = ("ab".repeat(32), "CD".repeat(32));
        let one = ids(&[0xab; 32]).unwrap();
        assert_eq!(ids(a.as_bytes()).unwrap(), one);
        let two = ids(format!("\n{a}\r\n {b}\n").as_bytes()).unwrap();
        assert_eq!((two.len(), &two[0]), (2, &one[0]));
        for bad in [&b"abcd"[..], b"", &[0xab; 31], format!("{a}\n{a}").as_bytes()] {
            assert!(ids(bad).is_err());
        }
    }

    #[test]
    fn a_hosts_own_keys_stay() {
        let folder = tempfile::tempdir().unwrap();
        let made = keys(folder.path(), None).unwrap();
        let Origin::Own(file) = &made.origin else { panic!("{made:?}") };
        let again = keys(folder.path(), None).unwrap().ring;
        assert_eq!(again.key_id(), made.ring.key_id());
        let both = Keyring::new(vec![new_key().unwrap(), made.ring.current().clone()]).unwrap();
        keep(&both, file).unwrap();
        let read = keys(folder.path(), None).unwrap();
        assert_eq!(read.ring.ids().collect::<Vec<_>>(), both.ids().collect::<Vec<_>>());
        assert_eq!(read.in_fleet().origin, Origin::OwnInFleet);
        fs::write(file, "no key").unwrap();
        assert!(format!("{:#}", keys(folder.path(), None).unwrap_err()).contains("put it back"));
    }
}
