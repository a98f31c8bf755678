//! Scheduling and dispatch: what is due becomes runs, and what is queued gets executed.
//!
//! The two halves never call each other; rows in the store are the queue between them. Nothing here
//! knows wasmtime: a sandbox is an [`executor::Executor`].

pub mod backfill;
pub mod clock;
pub mod delivery;
pub mod dispatcher;
pub mod executor;
pub mod retention;
pub mod scheduler;
pub mod secret;
