//! Sockets to listen on: bound as the relay needs them, for itself and for checks whether it could.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Whether the relay could listen there now, for a check before the start.
///
/// # Errors
/// What the system says, as at the start; a port that is in use is not waited for.
pub fn try_bind(addr: SocketAddr) -> io::Result<()> {
    bind_anywhere(addr, Duration::ZERO).map(drop)
}

/// A socket that shares its port with no other, and what it was bound to; a port that is in use is waited for. On a machine
/// without IPv6 `[::]` stands for `0.0.0.0`.
///
/// # Errors
/// What the system says.
pub fn bind_anywhere(addr: SocketAddr, patience: Duration) -> io::Result<(Socket, SocketAddr)> {
    match bind_alone(addr, patience) {
        Ok(socket) => Ok((socket, addr)),
        Err(error) if error.kind() != io::ErrorKind::AddrInUse && addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            // A machine without IPv6: every interface is then every IPv4 one.
            let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
            Ok((bind_alone(addr, patience)?, addr))
        }
        Err(error) => Err(error),
    }
}

/// Listens without sharing the port, for a second relay of the same user could share it unseen. A relay that was killed
/// leaves its port to the kernel for a moment, which takes its rings apart in the background: that is waited for.
fn bind_alone(addr: SocketAddr, patience: Duration) -> io::Result<Socket> {
    let given_up_at = Instant::now() + patience;
    loop {
        match bind_one(addr, false).and_then(|socket| socket.listen(1).map(|()| socket)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < given_up_at => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound,
        }
    }
}

/// A socket for a relay's connections, bound; `shared`: with other sockets on the same port.
///
/// # Errors
/// What the system says.
pub fn bind_one(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Accepted sockets have it from their listener, which spares a call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Where a relay that listens on `addr` can be reached from the same machine.
#[must_use]
pub fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        // Where there is no IPv6, `[::]` stands for all of IPv4; where there is, it stands for both.
        addr.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    addr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_asked_on_this_machine() {
        for (listens, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("192.0.2.7:8080", "192.0.2.7:8080"),
        ] {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
