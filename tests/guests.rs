//! Guests in the sandbox, most of them hostile: each ends by the bound that is meant for it, with that name, and a
//! neighbour beside it is unharmed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "guests/behaviour.rs"]
mod behaviour;
#[path = "guests/compile.rs"]
mod compile;
#[path = "guests/endless.rs"]
mod endless;
#[path = "guests/faults.rs"]
mod faults;
#[path = "guests/files.rs"]
mod files;
#[path = "guests/growth.rs"]
mod growth;
#[path = "guests/hoard.rs"]
mod hoard;
#[path = "guests/lies.rs"]
mod lies;
#[path = "guests/network.rs"]
mod network;
#[path = "guests/sandbox.rs"]
mod sandbox;
#[path = "guests/scratch.rs"]
mod scratch;
#[path = "guests/table.rs"]
mod table;
#[path = "guests/tenant.rs"]
mod tenant;
#[path = "support/wat.rs"]
mod wat;
