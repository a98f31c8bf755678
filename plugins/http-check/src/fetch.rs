//! Fetching, by `wasi:http`.

use crate::check::{Input, Seen};
use innkeeper::Failure;
use innkeeper::http::{Error, Request};
use std::time::{Duration, Instant};

/// Fetches what the input names.
pub fn fetch(input: &Input) -> Result<Seen, Failure> {
    innkeeper::info!("{} {}", input.method, input.url);
    let begun = Instant::now();
    let mut request =
        Request::new(&input.method, &input.url).timeout(Duration::from_millis(input.timeout_ms));
    for (name, value) in &input.headers {
        request = request.header(name, value);
    }
    let response = request.send().map_err(failure)?;
    let status = response.status;
    let (body, whole) = response.body(input.max_body_bytes).map_err(failure)?;
    let latency_ms = begun.elapsed().as_secs_f64() * 1e3;
    innkeeper::debug!("{status}, {} bytes in {latency_ms:.1} ms", body.len());
    Ok(Seen { status, latency_ms, body, whole })
}

fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::BadRequest(_) => Failure::permanent("bad-input", message),
        Error::Denied(_) => Failure::permanent("denied", message),
        Error::Timeout(_) => Failure::retryable("timeout", message),
        Error::Tls(_) => Failure::retryable("tls", message),
        _ => Failure::retryable("unreachable", message),
    }
}
