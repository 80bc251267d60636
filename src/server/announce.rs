//! What is said once, when the relay is ready.

use super::listeners::Listeners;
use crate::config::{Config, Secret, WEAK_KEY};
use crate::console;
use crate::preflight::Driver;
use crate::shard::shared::Caps;
use crate::sys::net::is_public;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

/// What the shards run on.
pub(super) fn driver(driver: Driver) {
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy();
    match driver {
        Driver::Uring(consumption) => tracing::info!(%kernel, receive_buffers = %consumption, "io_uring works"),
        Driver::Epoll(None) => tracing::info!(%kernel, "running on epoll, as --io says"),
        Driver::Epoll(Some(reason)) => {
            tracing::info!(%kernel, %reason, "running on epoll; `coralmux-relay doctor` says how to have io_uring");
        }
    }
}

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
    let public = listen(false).into_iter().filter(|&addr| is_seen_by_all(addr)).collect::<Vec<_>>();
    if !public.is_empty() {
        tracing::warn!(
            listen = list(&public),
            "without TLS on an address of the internet: tokens, and messages that are not encrypted end to end, can be \
             read on the way; give --domain or certificates, or listen on 127.0.0.1 behind a proxy that speaks TLS"
        );
    }
    if !listeners.echo_addrs.is_empty() {
        tracing::warn!(listen = list(&listeners.echo_addrs), "echoing to anyone who connects");
    }
}

/// Whether an address is one of the internet's, or stands for all of a machine that has one.
fn is_seen_by_all(addr: SocketAddr) -> bool {
    if !addr.ip().is_unspecified() {
        return is_public(addr.ip());
    }
    // Nothing is sent: the kernel only says which address it would send from.
    let from = |any: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|addr| addr.ip())
    };
    let far = [
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    ];
    far.into_iter().filter_map(|(any, to)| from(any, to)).any(is_public)
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
/// is kept where logs are kept.
pub(super) fn admin_key(key: &Secret, path: &Path) {
    console::say(format_args!("A new admin key was made and is kept in {}.", path.display()));
    if std::io::stdout().is_terminal() {
        console::say(format_args!("\n    {}\n", key.expose()));
        console::say("Send it as X-Admin-Key to pair tokens. It is not shown again.");
    }
}
