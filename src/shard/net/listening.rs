//! The sockets that a shard accepts on: what each is for, and whether it is accepted on one by one.

use crate::ring::Net;
use crate::shard::command::Listener;

/// A shard's listeners, by the index that the ring gave them.
#[derive(Default)]
pub(super) struct Listening {
    all: Vec<Purpose>,
    /// Connections are accepted one by one.
    one_by_one: bool,
    /// No more is accepted.
    stopped: bool,
}

/// What a listener is for.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Purpose {
    /// It is the service manager's, and the next process goes on with it.
    inherited: bool,
    /// Messages that come in on it are echoed.
    pub(in crate::shard) echo: bool,
    /// TLS is spoken on it.
    pub(in crate::shard) tls: bool,
}

impl Listening {
    /// Accepts on `listeners` too.
    pub(super) fn add<N: Net>(&mut self, net: &mut N, listeners: Vec<Listener<N::Socket>>) {
        for Listener { socket, inherited, echo, tls } in listeners {
            let index = net.listen(socket);
            debug_assert_eq!(index as usize, self.all.len(), "all of them listeners are added here");
            self.all.push(Purpose { inherited, echo, tls });
            self.arm(net, index);
        }
    }

    /// What the listener of that index is for.
    pub(super) fn purpose(&self, index: u32) -> Option<Purpose> {
        self.all.get(index as usize).copied()
    }

    /// Accepts on a listener, unless that is under way or over.
    pub(super) fn arm(&mut self, net: &mut impl Net, index: u32) {
        let Some(purpose) = self.all.get(index as usize).filter(|_| !self.stopped) else { return };
        match purpose.inherited || self.one_by_one {
            true => net.accept_once(index),
            false => net.accept(index),
        }
    }

    /// Accepts connections one by one from now on, or as many as there are. Listeners that are told to stop accepting for
    /// that are to be armed again at their last completion.
    pub(super) fn set_one_by_one(&mut self, net: &mut impl Net, one_by_one: bool) {
        if std::mem::replace(&mut self.one_by_one, one_by_one) == one_by_one || !one_by_one {
            return;
        }
        for (index, purpose) in (0..).zip(&self.all) {
            // The service manager's are armed for each connection anyway.
            if !purpose.inherited && net.is_accepting(index) {
                net.cancel_accept(index);
            }
        }
    }

    /// Accepts no more, and gives the ports back, unless they are the service manager's.
    pub(super) fn stop(&mut self, net: &mut impl Net) {
        self.stopped = true;
        for (index, purpose) in (0..).zip(&self.all) {
            net.close_listener(index, !purpose.inherited);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Completion, Epoll, Net, Ring};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    fn listener(inherited: bool) -> (Listener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (Listener { socket: socket.into(), inherited, echo: false, tls: false }, address)
    }

    fn complete(ring: &mut impl Net<Socket = OwnedFd>) -> Vec<Completion> {
        let mut completions = Vec::new();
        ring.turn(&mut completions, false).unwrap();
        completions
    }

    /// The addresses of those who were accepted.
    fn handle(listening: &Listening, completions: Vec<Completion>) -> Vec<SocketAddr> {
        let mut accepted = Vec::new();
        for completion in completions {
            let Completion::Accepted { listener, socket, .. } = completion else { panic!("{completion:?}") };
            if let Ok(socket) = socket {
                assert!(listening.purpose(listener).is_some(), "who was accepted is served");
                accepted.push(TcpStream::from(socket).local_addr().unwrap());
            }
        }
        accepted
    }

    fn turn(ring: &mut impl Net<Socket = OwnedFd>, listening: &mut Listening) -> Vec<SocketAddr> {
        let completions = complete(ring);
        handle(listening, completions)
    }

    fn whoever_gets_a_listeners_number_is_not_accepted_on<N: Net<Socket = OwnedFd>>(new: &dyn Fn() -> N) {
        for inherited in [false, true] {
            let (mut ring, mut listening) = (new(), Listening::default());
            let (ours, addresses): (Vec<_>, Vec<_>) = (0..2).map(|_| listener(inherited)).unzip();
            listening.add(&mut ring, ours);
            // In the same turn, with the accepts still to be submitted.
            listening.stop(&mut ring);
            let others: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let _clients: Vec<_> =
                others.iter().map(|other| TcpStream::connect(other.local_addr().unwrap()).unwrap()).collect();
            let accepted: Vec<_> = (0..3).flat_map(|_| turn(&mut ring, &mut listening)).collect();
            assert!(accepted.is_empty(), "inherited: {inherited}: {accepted:?}");
            let is_open = |address: &SocketAddr| TcpStream::connect(address).is_ok();
            assert!(!addresses.iter().any(is_open), "and the listeners are closed");
        }
    }

    fn one_that_was_accepted_before_the_stop_is_served_and_then_the_port_is_closed<N: Net<Socket = OwnedFd>>(
        new: &dyn Fn() -> N,
    ) {
        for inherited in [false, true] {
            let (mut ring, mut listening) = (new(), Listening::default());
            let (listener, address) = listener(inherited);
            listening.add(&mut ring, vec![listener]);
            let _client = TcpStream::connect(address).unwrap();
            let completions = complete(&mut ring);
            listening.stop(&mut ring);
            assert_eq!(handle(&listening, completions), [address], "inherited: {inherited}");
            assert!((0..3).all(|_| turn(&mut ring, &mut listening).is_empty()));
            assert!(TcpStream::connect(address).is_err(), "inherited: {inherited}");
        }
    }

    fn in_a_crowd_each_turn_accepts_one<N: Net<Socket = OwnedFd>>(new: &dyn Fn() -> N) {
        let (mut ring, mut listening) = (new(), Listening::default());
        let (one, address) = listener(false);
        listening.add(&mut ring, vec![one]);
        listening.set_one_by_one(&mut ring, true);
        assert!(turn(&mut ring, &mut listening).is_empty());
        let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(turn(&mut ring, &mut listening).is_empty(), "the kernel keeps them");
        for _ in 0..2 {
            listening.arm(&mut ring, 0);
            assert_eq!(turn(&mut ring, &mut listening), [address]);
        }
        listening.set_one_by_one(&mut ring, false);
        listening.arm(&mut ring, 0);
        assert_eq!(turn(&mut ring, &mut listening), [address; 3]);
    }

    fn a_listener_is_accepted_on_once_at_a_time_and_never_after_the_stop<N: Net<Socket = OwnedFd>>(
        new: &dyn Fn() -> N,
    ) {
        let (mut ring, mut listening) = (new(), Listening::default());
        let (one, address) = listener(true);
        listening.add(&mut ring, vec![one]);
        // Further ones do not start a second accept on the first.
        listening.add(&mut ring, vec![listener(true).0]);
        listening.arm(&mut ring, 0);
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        assert_eq!(turn(&mut ring, &mut listening), [address]);
        assert!(turn(&mut ring, &mut listening).is_empty());
        listening.stop(&mut ring);
        listening.arm(&mut ring, 0);
        assert!(turn(&mut ring, &mut listening).is_empty());
        assert!(TcpStream::connect(address).is_err(), "nothing was under way");
    }

    /// Makes a test for each driver out of a function that is given one.
    macro_rules! for_each_driver {
        ($($name:ident)*) => {
            mod on_the_ring {
                $(#[test] fn $name() { super::$name(&|| super::Ring::new().unwrap()); })*
            }
            mod on_epoll {
                $(#[test] fn $name() { super::$name(&|| super::Epoll::new().unwrap()); })*
            }
        };
    }

    for_each_driver! {
        whoever_gets_a_listeners_number_is_not_accepted_on
        one_that_was_accepted_before_the_stop_is_served_and_then_the_port_is_closed
        in_a_crowd_each_turn_accepts_one
        a_listener_is_accepted_on_once_at_a_time_and_never_after_the_stop
    }
}
