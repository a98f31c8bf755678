//! Admission of uploads: what are these bytes, and can they be run here?
//!
//! Looks at names and structure only; whether the code is valid is the compiler's to say.

use innkeeper_domain::component::{Inspected, Refusal, Shape};
use innkeeper_domain::limits::{COMPONENT_BYTES_MAX, COMPONENT_IMPORTS_MAX, IMPORT_NAME_BYTES_MAX};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wit_component::ComponentEncoder;

/// What is accepted; part of every refusal.
const ACCEPTED: &str = "accepted are: a component that exports innkeeper:task/handler@0.1 or wasi:cli/run@0.2, \
    and a core module with `_start` (WASI preview 1) or made by wit-bindgen";

/// Interfaces that the host links, with the versions it knows of each package.
const LINKED: &[(&str, &str, &[&str])] = &[
    ("innkeeper:task", "0.1", &["context", "control", "log"]),
    ("wasi:config", "0.2", &["store"]),
    (
        "wasi:cli",
        "0.2",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", "0.2", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", "0.2", &["types", "preopens"]),
    ("wasi:http", "0.2", &["types", "outgoing-handler"]),
    ("wasi:io", "0.2", &["error", "poll", "streams"]),
    ("wasi:random", "0.2", &["random", "insecure", "insecure-seed"]),
    (
        "wasi:sockets",
        "0.2",
        &[
            "network",
            "instance-network",
            "ip-name-lookup",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// Bytes that can be run: a component, adapted if they were a core module.
pub(crate) struct Admitted<'a> {
    pub component: Cow<'a, [u8]>,
    pub inspected: Inspected,
}

/// Admits bytes, or says what was found and what is accepted.
pub(crate) fn admit(bytes: &[u8]) -> Result<Admitted<'_>, Refusal> {
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: bytes.len() as u64, max: COMPONENT_BYTES_MAX });
    }
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            let component = adapt(bytes)?;
            let inspected = inspect_component(&component, true)?;
            Ok(Admitted { component: Cow::Owned(component), inspected })
        }
        Some([0, b'a', b's', b'm', 0x0d, 0, 1, 0]) => {
            let inspected = inspect_component(bytes, false)?;
            Ok(Admitted { component: Cow::Borrowed(bytes), inspected })
        }
        Some([0, b'a', b's', b'm', version @ ..]) => refuse(format!(
            "this is WebAssembly of a version that isn't known here (bytes {version:02x?} after the magic number)"
        )),
        _ => refuse(foreign(bytes)),
    }
}

fn refuse<T>(found: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::NotATask(format!("{}; {ACCEPTED}", found.into())))
}

/// What bytes are that aren't WebAssembly.
fn foreign(bytes: &[u8]) -> String {
    match bytes {
        [] => "the file is empty".into(),
        [0, b'a', b's', b'm', ..] => "this is a WebAssembly file cut off within its first 8 bytes".into(),
        [0x7f, b'E', b'L', b'F', ..] => {
            "this is a native Linux binary (ELF), not WebAssembly; build it for wasm32-wasip2".into()
        }
        [b'P', b'K', 3, 4, ..] => "this is a zip archive, not WebAssembly".into(),
        [0x1f, 0x8b, ..] => "this is gzip-compressed data, not WebAssembly; unpack it first".into(),
        _ => match std::str::from_utf8(bytes.get(..512).unwrap_or(bytes)).or_else(|e| {
            // A cut through a character at the end of the sample is no fault of the file's.
            std::str::from_utf8(&bytes[..e.valid_up_to()])
                .map(|text| if e.error_len().is_some() { "" } else { text })
        }) {
            Ok(text) if text.trim_start().starts_with('(') => {
                "this is WebAssembly's text format; turn it into a binary first (wasm-tools parse)".into()
            }
            Ok(text) if !text.is_empty() => {
                let start: String = text.lines().next().unwrap_or("").chars().take(40).collect();
                format!("this is a text file, not WebAssembly: it begins with {start:?}")
            }
            _ => format!(
                "this is not WebAssembly: it begins with the bytes {:02x?}",
                &bytes[..bytes.len().min(4)]
            ),
        },
    }
}

/// A core module as a component.
fn adapt(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    let core = Core::read(module)?;
    if core.modules.contains("wasi_unstable") {
        return refuse(
            "this core module is for the WASI of 2019 (wasi_unstable); build it with a newer toolchain",
        );
    }
    let foreign: Vec<&str> = core.modules.iter().map(String::as_str).filter(|m| !core.is_known(m)).collect();
    if !foreign.is_empty() {
        let names = foreign.join("`, `");
        return refuse(format!("this core module imports from `{names}`, which the host doesn't have"));
    }
    if !core.has_start && !core.has_component_type {
        return refuse("this core module has no `_start` and no component type: it is a library");
    }
    // The encoder trusts its input to be valid.
    Validator::new_with_features(WasmFeatures::default())
        .validate_all(module)
        .map_err(|e| Refusal::NotATask(format!("this core module is not valid: {e}; {ACCEPTED}")))?;
    let adapter = if core.has_component_type && !core.has_start {
        WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
    } else {
        WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
    };
    let encode = || {
        ComponentEncoder::default()
            .validate(true)
            .module(module)?
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
            // Go's allocator doesn't let others allocate; memory that is grown is nobody's.
            .realloc_via_memory_grow(true)
            .encode()
    };
    encode().map_err(|e| {
        Refusal::NotATask(format!("this core module can't be adapted to a component: {e:#}; {ACCEPTED}"))
    })
}

/// A core module, as far as it matters here.
#[derive(Default)]
struct Core {
    has_start: bool,
    has_component_type: bool,
    /// The modules that it imports from.
    modules: BTreeSet<String>,
}

impl Core {
    fn read(module: &[u8]) -> Result<Self, Refusal> {
        let mut core = Self::default();
        for payload in Parser::new(0).parse_all(module) {
            match payload.map_err(damaged)? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        core.modules.insert(import.map_err(damaged)?.module.into());
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        core.has_start |= export.map_err(damaged)?.name == "_start";
                    }
                }
                Payload::CustomSection(section) => {
                    core.has_component_type |= section.name().starts_with("component-type");
                }
                _ => {}
            }
        }
        Ok(core)
    }

    /// wit-bindgen's modules import interfaces by their names, which are checked in the component.
    fn is_known(&self, module: &str) -> bool {
        module == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME
            || (self.has_component_type && (module.contains(':') || module == "$root"))
    }
}

fn damaged(error: wasmparser::BinaryReaderError) -> Refusal {
    let words = if error.message().contains("unexpected end") {
        format!("this WebAssembly file is cut off or damaged at byte {}", error.offset())
    } else {
        format!("this WebAssembly file is damaged: {error}")
    };
    Refusal::NotATask(format!("{words}; {ACCEPTED}"))
}

/// What a component imports and exports decides how it is run.
fn inspect_component(bytes: &[u8], adapted: bool) -> Result<Inspected, Refusal> {
    let (imports, exports) = names(bytes)?;
    let shape = shape(&exports)?;
    if let Some(newer) = imports.iter().find(|name| is_wasi(name, "0.3")) {
        return refuse(format!(
            "this component imports {newer}: WASI 0.3 isn't run here yet, build it for WASI 0.2"
        ));
    }
    let unknown: Vec<&str> = imports.iter().map(String::as_str).filter(|name| !is_linked(name)).collect();
    if !unknown.is_empty() {
        let mut words = format!("this component imports what the host doesn't have: {}", unknown.join(", "));
        if unknown.iter().any(|name| !name.contains(':')) {
            words.push_str(" (compose it with the components that export these)");
        }
        return refuse(words);
    }
    Ok(Inspected { shape, adapted, imports })
}

/// The names of a component's own imports and exports, not those of components within it.
fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0u32);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                if imports.len() + section.count() as usize > COMPONENT_IMPORTS_MAX {
                    return refuse(format!("this component has more than {COMPONENT_IMPORTS_MAX} imports"));
                }
                for import in section {
                    imports.push(import.map_err(damaged)?.name.name.to_string());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(damaged)?.name.name.to_string());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

fn shape(exports: &[String]) -> Result<Shape, Refusal> {
    let find = |interface: &str| exports.iter().find(|name| name.split('@').next() == Some(interface));
    match (find("innkeeper:task/handler"), find("wasi:cli/run")) {
        (Some(name), _) if has_version(name, "0.1") => Ok(Shape::Handler),
        (Some(name), _) => {
            refuse(format!("this component exports {name}, a version that this host doesn't know"))
        }
        (None, Some(name)) if is_wasi(name, "0.2") => Ok(Shape::Command),
        (None, Some(name)) => {
            refuse(format!("this component exports {name}: only WASI 0.2 is run here yet, build it for that"))
        }
        (None, None) if find("wasi:http/incoming-handler").is_some() => refuse(
            "this component handles HTTP requests (wasi:http/incoming-handler), which isn't run here yet",
        ),
        (None, None) => {
            let mut words = String::from("this component exports ");
            match exports {
                [] => words.push_str("nothing"),
                some => {
                    // Writing to a string can't fail.
                    let _ = write!(words, "{} and no task", some[..some.len().min(5)].join(", "));
                }
            }
            refuse(words)
        }
    }
}

fn is_wasi(name: &str, version: &str) -> bool {
    name.starts_with("wasi:") && has_version(name, version)
}

/// Whether a name ends with that version, or a patch or pre-release of it.
fn has_version(name: &str, version: &str) -> bool {
    name.split_once('@')
        .and_then(|(_, has)| has.strip_prefix(version))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_linked(name: &str) -> bool {
    if name.len() > IMPORT_NAME_BYTES_MAX {
        return false;
    }
    let (path, _) = name.split_once('@').unwrap_or((name, ""));
    let Some((package, interface)) = path.split_once('/') else { return false };
    LINKED.iter().any(|(known, version, interfaces)| {
        *known == package && has_version(name, version) && interfaces.contains(&interface)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        admit(bytes).map(|_| ()).unwrap_err().to_string()
    }

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn what_is_no_webassembly_is_named() {
        for (bytes, words) in [
            (&b""[..], "the file is empty"),
            (b"\0asm\x01", "cut off"),
            (b"\0asm\x02\0\0\0", "version"),
            (b"\x7fELF\x02\x01\x01\0", "ELF"),
            (b"PK\x03\x04....", "zip"),
            (b"#!/bin/sh\necho hi\n", "text file, not WebAssembly: it begins with \"#!/bin/sh\""),
            (b"(module)", "text format"),
            (b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", "ff, fe"),
        ] {
            let refusal = refusal(bytes);
            assert!(refusal.contains(words) && refusal.contains("accepted are"), "{refusal}");
        }
    }

    #[test]
    fn core_modules() {
        let command = wat(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
        let admitted = admit(&command).unwrap();
        assert_eq!((admitted.inspected.shape, admitted.inspected.adapted), (Shape::Command, true));
        assert!(refusal(&wat("(module)")).contains("it is a library"));
        let env = wat(r#"(module (import "env" "f" (func)) (func (export "_start")))"#);
        assert!(refusal(&env).contains("imports from `env`"));
        let old = wat(r#"(module (import "wasi_unstable" "f" (func)) (func (export "_start")))"#);
        assert!(refusal(&old).contains("2019"));
        let cut = &command[..command.len() - 3];
        assert!(refusal(cut).contains("cut off or damaged at byte"), "{}", refusal(cut));
    }

    #[test]
    fn components_of_other_worlds() {
        assert!(refusal(&wat("(component)")).contains("exports nothing"));
        let other = wat(r#"(component (instance $i) (export "acme:other/thing@1.0.0" (instance $i)))"#);
        assert!(refusal(&other).contains("acme:other/thing@1.0.0 and no task"));
        let newer = wat(r#"(component (instance $i) (export "innkeeper:task/handler@2.0.0" (instance $i)))"#);
        assert!(refusal(&newer).contains("a version that this host doesn't know"));
        let later =
            wat(r#"(component (instance $i) (export "wasi:http/incoming-handler@0.2.6" (instance $i)))"#);
        assert!(refusal(&later).contains("isn't run here yet"));
        let p3 = wat(r#"(component (instance $i) (export "wasi:cli/run@0.3.0" (instance $i)))"#);
        assert!(refusal(&p3).contains("only WASI 0.2"));
    }

    #[test]
    fn every_unknown_import_is_named() {
        let component = wat(r#"(component
                (import "acme:db/query@1.0.0" (instance))
                (import "wasi:keyvalue/store@0.2.0" (instance))
                (import "wasi:cli/environment@0.2.6" (instance))
                (instance $i) (export "wasi:cli/run@0.2.6" (instance $i)))"#);
        let refusal = refusal(&component);
        assert!(refusal.contains("acme:db/query@1.0.0, wasi:keyvalue/store@0.2.0;"), "{refusal}");
    }

    #[test]
    fn versions() {
        assert!(has_version("a:b/c@0.2.12", "0.2") && has_version("a:b/c@0.2.0-rc.1", "0.2"));
        assert!(!has_version("a:b/c@0.20.1", "0.2") && !has_version("a:b/c", "0.2"));
        assert!(is_linked("wasi:config/store@0.2.0-rc.1") && !is_linked("wasi:http/proxy@0.2.0"));
    }
}
