//! The control plane: gRPC services over the store. Handlers are thin: parse, one call, convert.
//!
//! This is the only place that knows status codes, and it knows neither the engine nor the runtime:
//! what it needs of them is a trait here.

mod access;
mod audit;
pub mod auth;
mod backfill;
mod budget;
mod caller;
mod codec;
mod component;
mod convert;
mod denials;
mod event;
mod forecast;
mod gate;
mod holiday;
mod host;
mod intercept;
pub mod listen;
mod login_limit;
pub mod oidc;
pub mod peer;
pub mod proto;
mod quota;
mod run;
mod run_convert;
mod run_steps;
pub mod secret;
mod server;
pub mod slots;
mod status;
mod task;
mod tenant;
mod token;
mod trigger;
mod trigger_convert;
mod trigger_rule;
pub mod turns;
mod upload;
mod usage;
pub mod webhook;

pub use server::{ServeError, serve};

use async_trait::async_trait;
use bytes::Bytes;
use innkeeper_domain::component::{Digest, Inspected, Refusal};
use innkeeper_domain::name::Name;
use innkeeper_domain::time::Now;
use innkeeper_store::Store;
use peer::Identity;
use secret::Vault;
use slots::Slots;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use turns::Turns;

/// Says of uploaded bytes whether and how they can be run.
#[async_trait]
pub trait Inspector: Send + Sync + 'static {
    /// Inspects and compiles. After `Ok` the component runs without being compiled again.
    async fn inspect(&self, digest: Digest, bytes: Bytes) -> Result<Inspected, Refusal>;
}

/// What the services share.
#[derive(Clone)]
pub struct Api {
    pub store: Arc<dyn Store>,
    pub inspector: Arc<dyn Inspector>,
    pub vault: Arc<dyn Vault>,
    /// What the time is.
    pub now: Now,
    /// What people call this host.
    pub name: Name,
    /// Where it listens.
    pub address: String,
    pub version: &'static str,
    /// Ends streams when the host stops.
    pub stop: CancellationToken,
    /// The identity provider whose tokens are taken, if there is one.
    pub identity: Option<Arc<dyn Identity>>,
    /// Uploads that may be under way at one time.
    pub uploads: Slots,
    /// Components that are read to see whether they are whole.
    pub reads: Turns,
    /// Streams of runs and logs that may be.
    pub streams: Slots,
    /// Forecasts and planned backfills that may be.
    pub forecasts: Slots,
    /// Webhooks whose bodies may be in memory.
    pub webhooks: Slots,
}
