//! Generates the messages and services from `proto/`, without `protoc`.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "audit",
        "backfill",
        "component",
        "event",
        "forecast",
        "holiday",
        "host",
        "payload",
        "quota",
        "run",
        "secret",
        "task",
        "tenant",
        "token",
        "trigger",
        "usage",
    ]
    .map(|name| format!("innkeeper/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("innkeeper.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    // The codec knows a request's fields by its name.
    config.enable_type_names();
    tonic_prost_build::configure()
        .bytes(".innkeeper.v1.PushComponentRequest")
        .codec_path("crate::codec::BoundedCodec")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
