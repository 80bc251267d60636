//! The sockets that a shard accepts on. Each stays open until the ring has been heard of it for the last time: an accept names
//! its descriptor by number, and may reach the kernel when another thread already has a file of that number.

use super::mail::Listener;
use crate::ring::Ring;
use std::os::fd::AsFd;

/// A shard's listeners, by the index that names them to the ring.
#[derive(Default)]
pub(super) struct Listening {
    all: Vec<Option<Entry>>,
    /// Connections are accepted one by one.
    one_by_one: bool,
    /// No more is accepted.
    stopped: bool,
}

struct Entry {
    listener: Listener,
    /// An accept is under way.
    accepting: bool,
}

impl Listening {
    /// Accepts on `listeners` too.
    pub(super) fn add(&mut self, ring: &mut Ring, listeners: Vec<Listener>) {
        for listener in listeners {
            self.all.push(Some(Entry { listener, accepting: false }));
            self.arm(ring, (self.all.len() - 1) as u32);
        }
    }

    /// The listener of that index, while it is open.
    pub(super) fn get(&self, index: u32) -> Option<&Listener> {
        self.all.get(index as usize)?.as_ref().map(|entry| &entry.listener)
    }

    /// Accepts on a listener, unless that is under way or over.
    pub(super) fn arm(&mut self, ring: &mut Ring, index: u32) {
        let Some(Some(entry)) = self.all.get_mut(index as usize) else { return };
        if self.stopped || std::mem::replace(&mut entry.accepting, true) {
            return;
        }
        let socket = entry.listener.socket.as_fd();
        match entry.listener.inherited || self.one_by_one {
            true => ring.accept_once(socket, index),
            false => ring.accept(socket, index),
        }
    }

    /// Accepts connections one by one from now on, or as many as there are. Listeners that are told to stop accepting for
    /// that are to be armed again at their last completion.
    pub(super) fn set_one_by_one(&mut self, ring: &mut Ring, one_by_one: bool) {
        if std::mem::replace(&mut self.one_by_one, one_by_one) == one_by_one || !one_by_one {
            return;
        }
        for (index, entry) in self.all.iter().enumerate() {
            // The service manager's are armed for each connection anyway.
            if entry.as_ref().is_some_and(|entry| entry.accepting && !entry.listener.inherited) {
                ring.cancel_accept(index as u32);
            }
        }
    }

    /// Accepts no more, and gives the ports back, unless they are the service manager's.
    pub(super) fn stop(&mut self, ring: &mut Ring) {
        self.stopped = true;
        for (index, slot) in self.all.iter_mut().enumerate() {
            let Some(entry) = slot else { continue };
            // Shut down, a listening socket refuses at once, even while the ring still holds a reference to it. One that
            // the next process goes on with must not.
            if !entry.listener.inherited {
                let _ = rustix::net::shutdown(&entry.listener.socket, rustix::net::Shutdown::Both);
            }
            if entry.accepting {
                ring.cancel_accept(index as u32);
            } else {
                *slot = None;
            }
        }
    }

    /// To be called with each completion, once what it brought has been taken; `more`: the ring goes on by itself.
    pub(super) fn handle_completion(&mut self, index: u32, more: bool) {
        if more {
            return;
        }
        if let Some(slot) = self.all.get_mut(index as usize) {
            match slot {
                Some(entry) if !self.stopped => entry.accepting = false,
                _ => *slot = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Completion;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    fn listener(inherited: bool) -> (Listener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (Listener { socket: socket.into(), inherited, echo: false, tls: false }, address)
    }

    fn complete(ring: &mut Ring) -> Vec<Completion> {
        let mut completions = Vec::new();
        ring.turn(&mut completions, false).unwrap();
        completions
    }

    /// The addresses of those who were accepted.
    fn handle(listening: &mut Listening, completions: Vec<Completion>) -> Vec<SocketAddr> {
        let mut accepted = Vec::new();
        for completion in completions {
            let Completion::Accepted { listener, socket, more } = completion else { panic!("{completion:?}") };
            if let Ok(socket) = socket {
                assert!(listening.get(listener).is_some(), "who was accepted is served");
                accepted.push(TcpStream::from(socket).local_addr().unwrap());
            }
            listening.handle_completion(listener, more);
        }
        accepted
    }

    fn turn(ring: &mut Ring, listening: &mut Listening) -> Vec<SocketAddr> {
        let completions = complete(ring);
        handle(listening, completions)
    }

    #[test]
    fn whoever_gets_a_listeners_number_is_not_accepted_on() {
        for inherited in [false, true] {
            let (mut ring, mut listening) = (Ring::new().unwrap(), Listening::default());
            listening.add(&mut ring, vec![listener(inherited).0, listener(inherited).0]);
            // In the same turn, with the accepts still to be submitted.
            listening.stop(&mut ring);
            let others: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let _clients: Vec<_> =
                others.iter().map(|other| TcpStream::connect(other.local_addr().unwrap()).unwrap()).collect();
            let accepted: Vec<_> = (0..3).flat_map(|_| turn(&mut ring, &mut listening)).collect();
            assert!(accepted.is_empty(), "inherited: {inherited}: {accepted:?}");
            assert!(listening.all.iter().all(Option::is_none), "and the listeners are closed");
        }
    }

    #[test]
    fn one_that_was_accepted_before_the_stop_is_served_and_then_the_port_is_closed() {
        for inherited in [false, true] {
            let (mut ring, mut listening) = (Ring::new().unwrap(), Listening::default());
            let (listener, address) = listener(inherited);
            listening.add(&mut ring, vec![listener]);
            let _client = TcpStream::connect(address).unwrap();
            let completions = complete(&mut ring);
            listening.stop(&mut ring);
            assert_eq!(handle(&mut listening, completions), [address], "inherited: {inherited}");
            assert!((0..3).all(|_| turn(&mut ring, &mut listening).is_empty()));
            assert!(TcpStream::connect(address).is_err(), "inherited: {inherited}");
        }
    }

    #[test]
    fn in_a_crowd_each_turn_accepts_one() {
        let (mut ring, mut listening) = (Ring::new().unwrap(), Listening::default());
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

    #[test]
    fn a_listener_is_accepted_on_once_at_a_time_and_never_after_the_stop() {
        let (mut ring, mut listening) = (Ring::new().unwrap(), Listening::default());
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
        assert!(listening.get(0).is_none(), "nothing was under way");
    }
}
