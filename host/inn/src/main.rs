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
    // Before anything else is begun, as little as possible being there to be harmed.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == host::COMPILE_WORKER) {
        return innkeeper_runtime::worker::main(&arguments.collect::<Vec<_>>());
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::main());
    // What is left are blocking calls that nobody waits for.
    runtime.shutdown_background();
    code
}
