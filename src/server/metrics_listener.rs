//! The metrics listener, on a thread of its own: it answers also while a shard is stuck, or a CA's answer is processed.
//!
//! It is for an operator's tools, on loopback unless the operator says otherwise, and knows no secrets.

use super::figures::Figures;
use super::{Failure, exit, http_listener};
use crate::config::MetricsAddr;
use crate::http::{self, Watched};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

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
    let failed = |error| Failure::new(exit::FAILURE, format_args!("cannot start the metrics thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let serve = move || {
        if let Err(error) = runtime.block_on(http_listener::serve(listener, move |bytes| answer(bytes, &figures))) {
            tracing::error!(%error, "no metrics are served");
        }
    };
    let spawned = thread::Builder::new().name("metrics".to_owned()).spawn(serve);
    spawned.map(drop).map_err(failed)
}

fn answer(bytes: &[u8], figures: &Figures) -> Option<Vec<u8>> {
    match http::watch(bytes, figures.shared.rules.load().gate.names()) {
        Ok(watched) => watched.map(|(watched, head_only)| respond(watched, head_only, figures)),
        Err(refusal) => Some(refusal.response),
    }
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
