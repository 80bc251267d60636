//! Where the connections come from: one source address, or several where one has too few ports.

use anyhow::{Context as _, Result};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The range that Linux uses unless told otherwise.
const PORTS_DEFAULT: usize = 28_232;

/// Source addresses, 127.0.0.1 and the next ones.
const ADDRESSES_MAX: usize = 250;

/// Gives each new connection its source address in turn.
#[derive(Debug)]
pub(super) struct Sources {
    /// Empty where the kernel chooses.
    addresses: Vec<SocketAddr>,
    next: usize,
}

impl Sources {
    /// Enough addresses for `connections_max` to `target`, behind those that `connections_before` of other processes
    /// take: more than one only where the target is on 127.0.0.0/8, all of which is this machine.
    pub(super) fn new(target: SocketAddr, connections_before: usize, connections_max: usize) -> Self {
        // Half of the ports: others have connections too, and closed ones keep their port for a while.
        let each = ports() / 2;
        let (first, end) = (connections_before.div_ceil(each), (connections_before + connections_max).div_ceil(each));
        let addresses = match target.ip() {
            IpAddr::V4(ip) if ip.is_loopback() && end > 1 => (first..end.max(first + 1))
                .map(|number| SocketAddr::from((Ipv4Addr::new(127, 0, 0, (number % ADDRESSES_MAX) as u8 + 1), 0)))
                .collect(),
            _ => Vec::new(),
        };
        Self { addresses, next: 0 }
    }

    /// A socket that is being connected to `target`, with a receive buffer of its own size and from an address of its own
    /// if so wished.
    pub(super) fn connect(
        &mut self,
        target: SocketAddr,
        receive_buffer_bytes: Option<usize>,
        own: Option<IpAddr>,
    ) -> Result<OwnedFd> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).context("no socket to be had")?;
        set_tcp_nodelay(&socket, true)?;
        if let Some(bytes) = receive_buffer_bytes {
            set_socket_recv_buffer_size(&socket, bytes)?;
        }
        // Closing resets: thousands of sockets in TIME_WAIT would take the ports of the next round.
        set_socket_linger(&socket, Some(Duration::ZERO))?;
        if let Some(own) = own {
            bind(&socket, &SocketAddr::new(own, 0)).with_context(|| format!("no port of {own} to be had"))?;
        } else if !self.addresses.is_empty() {
            let source = self.addresses[self.next % self.addresses.len()];
            self.next += 1;
            bind(&socket, &source).with_context(|| format!("no port of {source} to be had"))?;
        }
        match connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error).with_context(|| format!("connecting to {target}")),
        }
    }
}

/// How many ports the kernel gives out for each source address.
fn ports() -> usize {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| {
            let (first, last) = text.trim().split_once(char::is_whitespace)?;
            let (first, last): (usize, usize) = (first.parse().ok()?, last.trim().parse().ok()?);
            Some(last.saturating_sub(first).max(1000))
        })
        .unwrap_or(PORTS_DEFAULT)
}
