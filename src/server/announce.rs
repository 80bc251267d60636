//! What is said once, when the relay is ready.

use super::listeners::Listeners;
use crate::config::{Config, Secret};
use crate::shard::shared::Caps;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// The relay accepts connections from now on.
pub(super) fn ready(config: &Config, listeners: &Listeners, http_addrs: &[SocketAddr], caps: &Caps, tokens: usize) {
    let list = |addrs: &[SocketAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let listen = |tls| listeners.listen.iter().filter(|l| l.tls == tls).map(|l| l.addr).collect::<Vec<_>>();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = list(&listen(false)),
        tls = list(&listen(true)),
        http = list(http_addrs),
        shards = config.shards,
        connections_max = caps.connections_max,
        tokens,
        db = %config.db.display(),
        "ready"
    );
    if !listeners.echo_addrs.is_empty() {
        tracing::warn!(listen = list(&listeners.echo_addrs), "echoing to anyone who connects");
    }
}

/// Where the metrics are.
pub(super) fn metrics(listener: &TcpListener) {
    if let Ok(addr) = listener.local_addr() {
        tracing::info!(listen = %addr, "serving /metrics, /health, /livez and /readyz");
    }
}

/// The key that was just made: shown once, on standard output, never in the log.
pub(super) fn admin_key(key: &Secret, path: &Path) {
    println!("A new admin key was made and is kept in {}:", path.display());
    println!();
    println!("    {}", key.expose());
    println!();
    println!("Send it as X-Admin-Key to pair tokens. It is not shown again.");
}
