//! What strangers send, made up: every reader of it must take it or refuse it with words, and keep what it promises.
//! Inputs are grown from grammars and good examples and then damaged; a seed is an input, to the letter.
//!
//! `make test` goes through the same few seeds of every target, `make fuzz` through new ones until it is stopped.
//! `TARGET=cel` is that target alone. `INN_SEED` repeats that one seed, once, whatever `MINUTES` is; `INN_SEEDS` says how
//! many to go through, from there or from the first.
//! Each target is worked on in a process of its own, so that even what ends that, as an overflow of the stack does,
//! has its seed told.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "fuzz/backup.rs"]
mod backup;
#[path = "fuzz/campaign.rs"]
mod campaign;
#[path = "fuzz/cel.rs"]
mod cel;
#[path = "fuzz/cron.rs"]
mod cron;
#[path = "fuzz/engine.rs"]
mod engine;
#[path = "fuzz/holidays.rs"]
mod holidays;
#[path = "access/host.rs"]
#[allow(dead_code, reason = "requests are sent by an admin alone")]
mod host;
#[path = "fuzz/message.rs"]
mod message;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/planted.rs"]
mod planted;
#[path = "fuzz/proto.rs"]
mod proto;
#[path = "support/random.rs"]
mod random;
#[path = "fuzz/smith.rs"]
mod smith;
#[path = "fuzz/text.rs"]
mod text;
#[path = "fuzz/token.rs"]
mod token;
#[path = "fuzz/upload.rs"]
mod upload;
#[path = "fuzz/webhook.rs"]
mod webhook;

use engine::Case;
use std::process::ExitCode;

/// Every target, and how many seeds `make test` goes through: those that take longer first.
const CASES: [Case; 9] = [
    Case { name: "upload", seeds: 200, new: || Box::new(upload::Uploads::new()) },
    Case { name: "proto", seeds: 120, new: || Box::new(proto::Requests::new()) },
    Case { name: "backup", seeds: 400, new: || Box::new(backup::Backups::new()) },
    Case { name: "cel", seeds: 30_000, new: || Box::new(cel::Expressions) },
    Case { name: "cron", seeds: 20_000, new: || Box::new(cron::Patterns) },
    Case { name: "holidays", seeds: 10_000, new: || Box::new(holidays::Files) },
    Case { name: "text", seeds: 50_000, new: || Box::new(text::Texts) },
    Case { name: "token", seeds: 10_000, new: || Box::new(token::Tokens::new()) },
    Case { name: "webhook", seeds: 20_000, new: || Box::new(webhook::Deliveries) },
];

fn main() -> ExitCode {
    engine::run(&CASES)
}
