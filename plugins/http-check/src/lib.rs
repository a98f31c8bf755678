//! Fetches a URL and checks its status, latency and body.

mod check;

#[cfg(target_family = "wasm")]
mod fetch;

use check::{Input, Output};
use innkeeper::Failure;

#[innkeeper::task]
fn http_check(input: Input) -> Result<Output, Failure> {
    let checks = input.checks()?;
    #[cfg(target_family = "wasm")]
    let seen = fetch::fetch(&input)?;
    #[cfg(not(target_family = "wasm"))]
    let seen = check::Seen { status: 0, latency_ms: 0.0, body: Vec::new(), whole: true };
    let output = checks.apply(&input.url, &seen)?;
    innkeeper::info!("{} is well: {} in {:.1} ms", input.url, output.status, output.latency_ms);
    Ok(output)
}
