//! The listening sockets: one for each address and shard, sharing the port; or those that the service manager passed.

use super::inherited::Inherited;
use super::{Failure, exit};
use crate::config::Listen;
use crate::shard::command::Listener;
use crate::sys::listen::{bind_anywhere, bind_one};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that wait to be accepted, for each shard.
const BACKLOG: i32 = 4096;
/// How long a port that is in use is waited for.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// The sockets of all shards.
pub(super) struct Listeners {
    /// By shard.
    pub(super) of_shards: Vec<Vec<Listener>>,
    /// Where the relay listens, with the ports that the system chose.
    pub(super) listen: Vec<Listen>,
    /// Where it echoes.
    pub(super) echo_addrs: Vec<SocketAddr>,
}

/// Binds each address once for each shard. They accept nothing before they are handed to the shards.
///
/// An address that the service manager has passed sockets for is not bound: they serve it.
pub(super) fn bind(
    listen: &[Listen],
    echo_addrs: &[SocketAddr],
    shards: u16,
    inherited: &mut Inherited,
) -> Result<Listeners, Failure> {
    let mut listeners =
        Listeners { of_shards: (0..shards).map(|_| Vec::new()).collect(), listen: Vec::new(), echo_addrs: Vec::new() };
    let echo = echo_addrs.iter().map(|&addr| (Listen { addr, tls: false }, true));
    for (listen, echo) in listen.iter().map(|&listen| (listen, false)).chain(echo) {
        let failed = |error| failure(listen.addr, "--addr", &error);
        let bound = match inherited.take(listen, shards, echo).map_err(failed)? {
            Some(taken) => {
                listeners.of_shards.iter_mut().zip(taken).for_each(|(listeners, taken)| listeners.extend(taken));
                listen.addr
            }
            None => bind_all(listen, echo, &mut listeners.of_shards).map_err(failed)?,
        };
        match echo {
            true => listeners.echo_addrs.push(bound),
            false => listeners.listen.push(Listen { addr: bound, ..listen }),
        }
    }
    inherited.check_none_left()?;
    Ok(listeners)
}

/// Binds one socket that no shard has: for the redirects to https.
pub(super) fn bind_http(addr: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    let bound = bind_anywhere(addr, PORT_PATIENCE).and_then(|(socket, _)| {
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    });
    bound.map_err(|error| failure(addr, "--http-addr, or --http-addr off", &error))
}

fn bind_all(listen: Listen, echo: bool, of_shards: &mut [Vec<Listener>]) -> io::Result<SocketAddr> {
    let (alone, addr) = bind_anywhere(listen.addr, PORT_PATIENCE)?;
    let bound = alone.local_addr()?.as_socket().unwrap_or(addr);
    drop(alone);
    for listeners in of_shards {
        let socket = bind_one(bound, true)?;
        socket.listen(BACKLOG)?;
        listeners.push(Listener { socket: socket.into(), inherited: false, echo, tls: listen.tls });
    }
    Ok(bound)
}

fn failure(addr: SocketAddr, flag: &str, error: &io::Error) -> Failure {
    let port = addr.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            exit::ADDRESS_IN_USE,
            format_args!(
                "{addr} is in use by another program; end it (see `ss -ltnp 'sport = :{port}'`) or give another {flag}"
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            exit::FAILURE,
            format_args!(
                "{addr}: not allowed to listen on this port; use one from 1024 up, or give the program CAP_NET_BIND_SERVICE"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => {
            Failure::new(exit::FAILURE, format_args!("{addr}: this machine has no such address; give another {flag}"))
        }
        _ => Failure::new(exit::FAILURE, format_args!("cannot listen on {addr}: {error}")),
    }
}
