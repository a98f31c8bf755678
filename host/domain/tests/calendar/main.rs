//! The calendar against oracles that share nothing with it but the zone data: the libraries that define the dialects,
//! and looking at every minute. What is random comes from a seed: `INN_SEED` repeats one.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "../../../../tests/support/random.rs"]
mod random;

mod generate;
mod library;
mod minutes;
mod mistakes;
mod words;
mod zones;
