//! The control plane: gRPC services over the store. Handlers are thin: parse, one call, convert.
//!
//! This is the only place that knows status codes, and it knows neither the engine nor the runtime:
//! what it needs of them is a trait here.

pub mod proto;
