//! Where Innkeeper keeps things. One contract, [`Store`]; SQLite and PostgreSQL behind it.
//!
//! The store decides nothing that `domain` can decide: it asks `admit` and `RunState::next` inside its
//! transactions and writes what they say. It knows no engine, no sandbox and no protocol.

mod billing;
mod columns;
mod contract;
mod ending;
mod error;
mod events;
mod folder;
mod gates;
mod hints;
mod holidays;
pub mod postgres;
mod record;
mod reopen;
mod secrets;
mod sharing;
pub mod sqlite;
mod standing;
mod starting;
mod terms;
pub mod transfer;
mod unreadable;
mod words;

pub use contract::*;
pub use error::StoreError;
pub use folder::FolderLock;
pub use hints::{Hints, RunWatch};
