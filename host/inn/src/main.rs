//! `inn`: the host and its command line, in one binary.

mod cli;
mod contexts;
mod data_folder;
mod fetch;
mod host;
mod keys;
mod oidc;
mod vault;

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::main());
    // What is left are blocking calls that nobody waits for: a compilation, say, that can't be interrupted.
    runtime.shutdown_background();
    code
}
