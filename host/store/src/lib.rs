//! Where Innkeeper keeps things. One contract, [`Store`]; SQLite behind it.
//!
//! The store decides nothing that `domain` can decide: it asks `admit` and `RunState::next` inside its
//! transactions and writes what they say. It knows no engine, no sandbox and no protocol.

mod contract;
mod error;
mod hints;
pub mod sqlite;
mod upload_errors;

pub use contract::*;
pub use error::StoreError;
pub use hints::{Hints, RunWatch};
