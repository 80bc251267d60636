//! The HTTP server of the two listeners beside the relay's own port: port 80, and the one for metrics.
//!
//! A connection has one request and a few seconds. Where too many are open, the oldest is closed: clients that hold
//! connections open keep nobody else from being answered.

use crate::http::HEAD_BYTES_MAX;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Connections at a time, for each listener.
const CONNECTIONS_MAX: usize = 32;
/// From accept to the end.
const DEADLINE: Duration = Duration::from_secs(5);
/// What is waited after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves a listener until the runtime ends. `respond` gets what has come of a request and returns the whole response,
/// or `None` while the head is incomplete.
///
/// # Errors
/// If the runtime cannot watch the listener.
pub(super) async fn serve<F>(listener: std::net::TcpListener, respond: F) -> io::Result<()>
where
    F: Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let respond = Arc::new(respond);
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection for HTTP was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let respond = Arc::clone(&respond);
        let connection = tokio::spawn(async move {
            // A client that is gone or too slow needs no log line.
            let _ = tokio::time::timeout(DEADLINE, converse(stream, &*respond)).await;
        });
        open.push_back(connection.abort_handle());
    }
}

async fn converse(mut stream: TcpStream, respond: &(impl Fn(&[u8]) -> Option<Vec<u8>> + Sync)) -> io::Result<()> {
    let mut request = vec![0; HEAD_BYTES_MAX];
    let mut filled = 0;
    let response = loop {
        let read = stream.read(&mut request[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if let Some(response) = respond(&request[..filled]) {
            break response;
        }
        // The parser refuses a head that is longer than this.
        debug_assert!(filled < HEAD_BYTES_MAX);
    };
    stream.write_all(&response).await?;
    stream.shutdown().await?;
    // What the client still sends is taken, or the kernel would answer it with a reset, which can overtake the response.
    while stream.read(&mut request).await? != 0 {}
    Ok(())
}
