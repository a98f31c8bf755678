//! Write Innkeeper tasks in Rust.
//!
//! A task is a function. Its input and output are JSON, by serde; what it logs is shown while it runs; a
//! failure says whether trying again makes sense.
//!
//! ```
//! use innkeeper::Failure;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Input {
//!     name: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Output {
//!     greeting: String,
//! }
//!
//! #[innkeeper::task]
//! fn hello(input: Input) -> Result<Output, Failure> {
//!     if input.name.is_empty() {
//!         return Err(Failure::permanent("nobody", "the name is empty"));
//!     }
//!     innkeeper::info!("greeting {}", input.name);
//!     Ok(Output { greeting: format!("Hello, {}!", input.name) })
//! }
//! ```
//!
//! Build it as a `cdylib` for `wasm32-wasip2`. In unit tests, which run outside of a sandbox, log lines go to
//! stderr and the context has fixed values.

#![warn(missing_docs)]

pub mod context;
mod failure;
#[cfg(all(feature = "http", target_family = "wasm"))]
pub mod http;
mod log;
mod payload;

pub use failure::Failure;
pub use innkeeper_macros::task;
pub use log::{Level, log};
pub use payload::{Input, Output, Payload};

#[cfg(target_family = "wasm")]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "task",
        pub_export_macro: true,
        default_bindings_module: "innkeeper::bindings",
    });
}

#[cfg(target_family = "wasm")]
mod config_bindings {
    wit_bindgen::generate!({
        inline: r#"
            package innkeeper:sdk;
            world configured { import wasi:config/store@0.2.0-rc.1; }
        "#,
        path: ["wasi-config"],
        world: "innkeeper:sdk/configured",
        generate_all,
    });
}

/// An entry of the task's config; none if there is no such entry.
pub fn config(key: &str) -> Option<String> {
    #[cfg(target_family = "wasm")]
    return config_bindings::wasi::config::store::get(key).ok().flatten();
    #[cfg(not(target_family = "wasm"))]
    return std::env::var(key).ok();
}

/// Whether somebody asked for the run to end. A task that sees `true` should return soon: after a grace
/// period the host ends it.
pub fn cancelled() -> bool {
    #[cfg(target_family = "wasm")]
    return bindings::innkeeper::task::control::cancelled();
    #[cfg(not(target_family = "wasm"))]
    return false;
}

/// Tells how far the run is, for people who watch it. `total` is none while it isn't known.
pub fn progress(done: u64, total: Option<u64>, note: &str) {
    #[cfg(target_family = "wasm")]
    bindings::innkeeper::task::control::progress(done, total, note);
    #[cfg(not(target_family = "wasm"))]
    log(Level::Debug, &format!("progress: {done} of {total:?} {note}"));
}

/// What the attribute's code needs. Not for use by hand.
#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub mod __private {
    use crate::{Failure, Input, Output, Payload};

    pub use crate::bindings;
    pub use crate::bindings::export;
    pub use crate::bindings::exports::innkeeper::task::handler::{
        Failure as WireFailure, Guest, Payload as WirePayload,
    };

    pub fn with_input<I: Input, O: Output, E: Into<Failure>>(
        input: WirePayload,
        task: impl FnOnce(I) -> Result<O, E>,
    ) -> Result<WirePayload, WireFailure> {
        log_panics();
        let input = I::from_payload(Payload { content_type: input.content_type, bytes: input.bytes });
        finish(input.and_then(|input| task(input).map_err(Into::into)))
    }

    pub fn without_input<O: Output, E: Into<Failure>>(
        task: impl FnOnce() -> Result<O, E>,
    ) -> Result<WirePayload, WireFailure> {
        log_panics();
        finish(task().map_err(Into::into))
    }

    fn finish<O: Output>(result: Result<O, Failure>) -> Result<WirePayload, WireFailure> {
        let output = result.and_then(Output::into_payload).map_err(Failure::into_wire)?;
        Ok(WirePayload { content_type: output.content_type, bytes: output.bytes })
    }

    /// A panic traps, and a trap has no words of its own.
    fn log_panics() {
        std::panic::set_hook(Box::new(|info| crate::log(crate::Level::Error, &info.to_string())));
    }
}
