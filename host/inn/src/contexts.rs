//! Contexts: which host, tenant and credentials `inn` uses, by name. One private file in the user's config folder.
//! This knows how they are kept, not which of them is meant.

use crate::data_folder::{private_folder, write_private};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file's name in the config folder.
const FILE: &str = "contexts.json";

/// What a context holds; what it doesn't is as usual.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Context {
    /// The host's URL; the data folder's host without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// For this context's host alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A file with the token, which is read when it is needed. Absolute, as all paths here are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure_plain_text: bool,
}

/// Every context, and which one is used when none is named.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contexts {
    pub current: Option<String>,
    pub contexts: BTreeMap<String, Context>,
}

/// There is no context of this name: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("there is no context `{0}`; `inn context ls` tells what there is")]
pub struct NoContext(pub String);

impl Contexts {
    /// The contexts that are kept in the folder; none if there is no such file.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} can't be understood", path.display())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("can't read {}", path.display())),
        }
    }

    /// Keeps them in the folder, which is made if it isn't there: all or none, and for this user's eyes only.
    pub fn save(&self, folder: &Path) -> Result<()> {
        private_folder(folder)?;
        write_private(&folder.join(FILE), &serde_json::to_vec_pretty(self)?)
    }

    pub fn get(&self, name: &str) -> Result<&Context, NoContext> {
        self.contexts.get(name).ok_or_else(|| NoContext(name.into()))
    }
}

/// Where contexts are kept: `$INN_CONFIG`, else `$XDG_CONFIG_HOME/innkeeper`, else `~/.config/innkeeper`. None
/// without a home folder.
pub fn config_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("INN_CONFIG")
        .or_else(|| folder("XDG_CONFIG_HOME").map(|base| base.join("innkeeper")))
        .or_else(|| folder("HOME").map(|home| home.join(".config/innkeeper")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn they_are_kept_in_a_private_file() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("config");
        assert!(Contexts::load(&folder).unwrap() == Contexts::default());
        let work = Context { token: Some("inn_secret".into()), ..Context::default() };
        let kept = Contexts { current: Some("work".into()), contexts: [("work".into(), work)].into() };
        // What somebody else left there under the file's name doesn't lend it its permissions.
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("contexts.part"), "").unwrap();
        fs::write(folder.join(FILE), "{}").unwrap();
        kept.save(&folder).unwrap();
        assert!(Contexts::load(&folder).unwrap() == kept);
        let mode = fs::metadata(folder.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(kept.get("work").is_ok() && kept.get("home").is_err());
    }

    #[test]
    fn a_file_that_is_no_contexts_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"contexts\": 3}").unwrap();
        assert!(Contexts::load(folder.path()).is_err());
    }

    #[test]
    fn the_folder_is_the_users() {
        let of = |set: &'static [(&str, &str)]| {
            config_folder(|name| set.iter().find(|(of, _)| *of == name).map(|(_, value)| value.into()))
        };
        let all = of(&[("INN_CONFIG", "/c"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]);
        assert_eq!(all, Some("/c".into()));
        assert_eq!(of(&[("INN_CONFIG", ""), ("XDG_CONFIG_HOME", "/x")]), Some("/x/innkeeper".into()));
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.config/innkeeper".into()));
        assert_eq!(of(&[]), None);
    }
}
