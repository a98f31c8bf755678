//! What tests need: components out of WebAssembly's text format.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A core module of wit-bindgen's kind: it exports `innkeeper:task/handler@0.1.0#run`, `memory` and
/// `cabi_realloc`, and imports by the names of interfaces.
pub fn bound_module(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit")).unwrap();
    let world = resolve.select_world(&[package], Some("task")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// The component of such a module.
pub fn handler(wat: &str) -> Vec<u8> {
    let module = bound_module(wat);
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
