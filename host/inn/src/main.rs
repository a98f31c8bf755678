//! `inn`: the host and its command line, in one binary.

mod cli;
mod host;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    cli::main().await
}
