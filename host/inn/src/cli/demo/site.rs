//! The demo's own web site: real pages on a loopback port, for http-check to look at.

use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes of a request that are read.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// How long a request may take to come in.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until it is told to stop; says where.
pub async fn serve(tasks: &TaskTracker, stop: CancellationToken) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let asked = Arc::new(AtomicU64::new(0));
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let asked = Arc::clone(&asked);
                    // A client that goes away in between is no business of the site's.
                    connections.spawn(async move { _ = answer(stream, &asked).await });
                }
            }
        }
    });
    Ok(address)
}

async fn answer(mut stream: TcpStream, asked: &AtomicU64) -> Result<()> {
    let mut request = Vec::new();
    let read = async {
        while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
            if stream.read_buf(&mut request).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    tokio::time::timeout(REQUEST_TIMEOUT, read).await??;
    let head = String::from_utf8_lossy(&request);
    let path = head.split(' ').nth(1).unwrap_or("/");
    let (status, body) = match path {
        "/" => ("200 OK", "<h1>Welcome to the inn</h1>"),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ("200 OK", "slow, but here")
        }
        "/flaky" if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) => {
            ("503 Service Unavailable", "try again")
        }
        "/flaky" => ("200 OK", "here now"),
        "/broken" => ("500 Internal Server Error", "out of order"),
        _ => ("404 Not Found", "no such page"),
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}
