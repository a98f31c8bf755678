//! The messages, services and clients that are generated from `proto/`.

#![allow(clippy::all, clippy::pedantic, missing_docs)]

tonic::include_proto!("innkeeper.v1");

/// The encoded descriptors of all services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/innkeeper.bin"));
