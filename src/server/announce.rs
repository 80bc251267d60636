//! What is said once, when the relay is ready.

use super::listeners::Listeners;
use crate::config::{Config, Secret};
use crate::shard::shared::Caps;
use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// What is said of an admin key that can be found by trying.
pub(crate) const WEAK_KEY: &str = "the admin key is short or monotonous: whoever finds it by trying may do everything; take one of \
                                   32 random bytes, such as `openssl rand -hex 32` makes";

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

/// What is allowed and seldom meant.
pub(super) fn cautions(config: &Config, key: &Secret) {
    for caution in &config.cautions {
        tracing::warn!("{caution}");
    }
    if key.is_weak() {
        tracing::warn!("{WEAK_KEY}");
    }
}

/// The key that was just made: its file; and the key itself where a person is in front of it, for what is printed elsewhere
/// is kept by whoever keeps logs.
pub(super) fn admin_key(key: &Secret, path: &Path) {
    println!("A new admin key was made and is kept in {}.", path.display());
    if std::io::stdout().is_terminal() {
        println!("\n    {}\n", key.expose());
        println!("Send it as X-Admin-Key to pair tokens. It is not shown again.");
    }
}
