//! The metrics listener: a thread of its own that answers one request at a time, also while a shard is stuck.
//!
//! It is for an operator's tools, on loopback unless the operator says otherwise, and knows no secrets. A client gets
//! [`PATIENCE`] for its whole request and as much for the answer; the others wait in the backlog.

use super::figures::Figures;
use super::{Failure, exit};
use crate::config::MetricsAddr;
use crate::http::{self, HEAD_BYTES_MAX, Watched};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What one client gets.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens, so that a port in use is told of at the start.
pub(super) fn bind(addr: MetricsAddr) -> Result<Option<TcpListener>, Failure> {
    match addr {
        MetricsAddr::Off => Ok(None),
        MetricsAddr::Given(addr) => TcpListener::bind(addr).map(Some).map_err(|error| failure(addr, &error)),
        MetricsAddr::Default(addr) => match TcpListener::bind(addr) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                tracing::warn!(%addr, %error, "no metrics are served; give a free --metrics-addr, or off");
                Ok(None)
            }
        },
    }
}

fn failure(addr: SocketAddr, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::AddrInUse { exit::ADDRESS_IN_USE } else { exit::FAILURE };
    let text = format_args!("cannot serve metrics on {addr}: {error}; give another --metrics-addr, or off");
    Failure::new(code, text)
}

/// Answers until the process ends.
pub(super) fn start(listener: TcpListener, figures: Figures) -> Result<(), Failure> {
    let serve = move || {
        loop {
            match listener.accept() {
                // A client that breaks off is no matter.
                Ok((stream, _)) => drop(answer(stream, &figures)),
                // Out of descriptors, most likely: not again and again at once.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    };
    let spawned = thread::Builder::new().name("metrics".to_owned()).spawn(serve);
    let failed = |error| Failure::new(exit::FAILURE, format_args!("cannot start the metrics thread: {error}"));
    spawned.map(drop).map_err(failed)
}

fn answer(mut stream: TcpStream, figures: &Figures) -> io::Result<()> {
    let given_up_at = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    let response = loop {
        match http::watch(&request, figures.shared.rules.load().gate.names()) {
            Ok(Some((watched, head_only))) => break respond(watched, head_only, figures),
            Err(refusal) => break refusal.response,
            // The reader refuses a head that is longer than this.
            Ok(None) => debug_assert!(request.len() < HEAD_BYTES_MAX),
        }
        stream.set_read_timeout(Some(left(given_up_at)?))?;
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&piece[..count]),
        }
    };
    let mut rest = response.as_slice();
    let given_up_at = Instant::now() + PATIENCE;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(given_up_at)?))?;
        let written = stream.write(rest)?;
        rest = &rest[written..];
    }
    Ok(())
}

fn left(given_up_at: Instant) -> io::Result<Duration> {
    let left = given_up_at.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn respond(watched: Watched, head_only: bool, figures: &Figures) -> Vec<u8> {
    let shared = &figures.shared;
    match watched {
        Watched::Metrics => http::metrics(&figures.render(), head_only),
        Watched::Health => http::health(&shared.health_report(Instant::now()), false, head_only),
        Watched::Live => http::text("ok\n", false, head_only),
        Watched::Ready => http::ready(shared.lifecycle.unready(Instant::now()), false, head_only),
    }
}
