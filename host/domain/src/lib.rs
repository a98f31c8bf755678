//! What Innkeeper decides, and the words it decides in.
//!
//! Everything here is pure: no I/O, no async, no clock. Time is an argument, randomness too, so that
//! every decision can be tested by calling it and replayed by calling it again.

pub mod access;
pub mod admit;
pub mod audit;
pub mod backfill;
pub mod bill;
pub mod calendar;
pub mod component;
pub mod deadline;
pub mod event;
pub mod expression;
pub mod failure;
pub mod fairness;
pub mod firing;
pub mod forecast;
pub mod gate;
pub mod grants;
pub mod holiday;
pub mod host;
pub mod ids;
pub mod keyring;
pub mod limits;
pub mod name;
pub mod network;
pub mod payload;
pub mod permission;
pub mod quota;
pub mod rate;
pub mod retry;
pub mod rule;
pub mod run;
pub mod secret;
pub mod task;
pub mod tenant;
pub mod time;
pub mod timetable;
pub mod trigger;
pub mod webhook;
mod word;

/// An instant in UTC. Innkeeper keeps microseconds; see [`time`].
pub use jiff::Timestamp;
pub use word::UnknownWord;
