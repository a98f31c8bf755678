//! Fetches a URL and checks its status, latency and body.
//!
//! Only a sandbox can fetch; elsewhere there are the checks, and their tests.

#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod check;

#[cfg(target_family = "wasm")]
mod fetch;

#[cfg(target_family = "wasm")]
#[innkeeper::task]
fn http_check(input: check::Input) -> Result<check::Output, innkeeper::Failure> {
    let checks = input.checks()?;
    let seen = fetch::fetch(&input)?;
    let output = checks.apply(&input.url, &seen)?;
    innkeeper::info!("{} is well: {} in {:.1} ms", input.url, output.status, output.latency_ms);
    Ok(output)
}
