//! Listening sockets that the service manager passed (systemd's socket activation): each serves the configured address
//! that it is bound to. The service manager keeps them when this process ends, so that who comes meanwhile waits.

use super::{Failure, exit};
use crate::config::Listen;
use crate::ring::inherited::claim;
use crate::shard::command::Listener;
use socket2::{Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Sockets that no address has taken yet.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, Socket)>,
}

impl Inherited {
    /// What was passed to this process. To be called first of all, before the program opens anything.
    ///
    /// # Errors
    /// What was passed is not there, or is not a listening TCP socket.
    pub fn claim() -> io::Result<Self> {
        let mut sockets = Vec::new();
        for (number, passed) in claim()?.into_iter().enumerate() {
            let socket = Socket::from(passed);
            let address = socket.local_addr()?.as_socket();
            match (address, socket.r#type()?) {
                (Some(address), Type::STREAM) => sockets.push((address, socket)),
                _ => {
                    let text = format!(
                        "socket {number} of those that the service manager passed is not a listening TCP socket"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
                }
            }
        }
        Ok(Self { sockets })
    }

    /// The sockets of an address, for all shards to accept on. One for each shard where there are enough of them; else
    /// several shards accept on the same one, and take turns.
    pub(super) fn take(&mut self, listen: Listen, shards: u16, echo: bool) -> io::Result<Option<Vec<Vec<Listener>>>> {
        let addr = listen.addr;
        let is_it = |&mut (bound, _): &mut (SocketAddr, Socket)| {
            bound.port() == addr.port()
                && (bound.ip() == addr.ip() || bound.ip().is_unspecified() && addr.ip().is_unspecified())
        };
        let sockets: Vec<Socket> = self.sockets.extract_if(.., is_it).map(|(_, socket)| socket).collect();
        if sockets.is_empty() {
            return Ok(None);
        }
        let shards = usize::from(shards);
        let mut of_shards: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
        for turn in 0..sockets.len().max(shards) {
            let socket = &sockets[turn % sockets.len()];
            // Accepted sockets have it from their listener.
            socket.set_tcp_nodelay(true)?;
            let socket = OwnedFd::from(socket.try_clone()?);
            of_shards[turn % shards].push(Listener { socket, inherited: true, echo, tls: listen.tls });
        }
        Ok(Some(of_shards))
    }

    /// Whether each has found its address.
    pub(super) fn check_none_left(&self) -> Result<(), Failure> {
        let Some((addr, _)) = self.sockets.first() else { return Ok(()) };
        Err(Failure::new(
            exit::CONFIG,
            format_args!(
                "the service manager passed a socket on {addr}, and no --addr names that; name it, or take its ListenStream= out"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn inherited(listeners: &[&TcpListener]) -> Inherited {
        let socket =
            |listener: &&TcpListener| (listener.local_addr().unwrap(), Socket::from(listener.try_clone().unwrap()));
        Inherited { sockets: listeners.iter().map(socket).collect() }
    }

    fn on(addr: SocketAddr) -> Listen {
        Listen { addr, tls: false }
    }

    fn counts(of_shards: &[Vec<Listener>]) -> Vec<usize> {
        of_shards.iter().map(Vec::len).collect()
    }

    #[test]
    fn one_socket_serves_all_shards_and_several_are_dealt_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for (sockets, shards, dealt) in
            [(1, 3, vec![1, 1, 1]), (3, 3, vec![1, 1, 1]), (2, 3, vec![1, 1, 1]), (5, 2, vec![3, 2])]
        {
            let mut inherited = inherited(&vec![&listener; sockets]);
            let of_shards = inherited.take(on(addr), shards, false).unwrap().unwrap();
            assert_eq!(counts(&of_shards), dealt, "{sockets} sockets, {shards} shards");
            assert!(inherited.check_none_left().is_ok());
        }
    }

    #[test]
    fn a_socket_that_no_address_names_is_an_error() {
        let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let mut inherited = inherited(&[&one, &other]);
        assert!(inherited.take(on("127.0.0.1:1".parse().unwrap()), 1, false).unwrap().is_none());
        assert!(inherited.take(on(one.local_addr().unwrap()), 1, true).unwrap().unwrap()[0][0].echo);
        let text = inherited.check_none_left().unwrap_err().text;
        assert!(text.contains(&other.local_addr().unwrap().to_string()), "{text}");
    }

    #[test]
    fn every_interface_is_every_interface_whatever_its_family() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut inherited = inherited(&[&listener]);
        assert!(inherited.take(on(SocketAddr::from(([127, 0, 0, 1], port))), 1, false).unwrap().is_none());
        assert!(inherited.take(on(SocketAddr::from(([0u16; 8], port))), 1, false).unwrap().is_some());
    }
}
