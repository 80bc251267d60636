//! The sockets that the epoll driver accepts on. One is in the epoll set only while it is accepted on: a service manager's
//! socket is in the sets of all shards, and one that is added again goes to the end of the socket's queue, so that shards
//! take turns as they do with rings.

use super::LISTENER;
use crate::Completion;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, accept_with, shutdown};
use std::os::fd::{AsFd, OwnedFd};

/// Connections that one listener brings in a turn; the others wait in the kernel until the next one.
const ACCEPTS_A_TURN: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    None,
    Once,
    Many,
    /// Until the next turn says so.
    Ended,
}

struct Listener {
    /// `None`: it is closed.
    socket: Option<OwnedFd>,
    accept: Accept,
}

/// See the module. Indices are not given anew.
#[derive(Default)]
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// Those whose end the next turn tells, and why.
    ended: Vec<(u32, Errno)>,
}

impl Listeners {
    pub(super) fn add(&mut self, socket: OwnedFd) -> u32 {
        // Else an accept would wait where another shard was faster. Fails for nothing that listens.
        let _ = rustix::io::ioctl_fionbio(&socket, true);
        self.all.push(Listener { socket: Some(socket), accept: Accept::None });
        (self.all.len() - 1) as u32
    }

    pub(super) fn is_accepting(&self, index: u32) -> bool {
        self.all.get(index as usize).is_some_and(|listener| listener.accept != Accept::None)
    }

    /// Accepts one connection, or as many as there are, unless it is accepted on already.
    pub(super) fn begin(&mut self, set: &OwnedFd, index: u32, once: bool) {
        let Some(listener) = self.all.get_mut(index as usize) else { return };
        let Some(socket) = listener.socket.as_ref().filter(|_| listener.accept == Accept::None) else { return };
        match join(set, socket, index) {
            Ok(()) => listener.accept = if once { Accept::Once } else { Accept::Many },
            Err(error) => {
                listener.accept = Accept::Ended;
                self.ended.push((index, error));
            }
        }
    }

    /// Stops accepting; the next turn says so.
    pub(super) fn cancel(&mut self, set: &OwnedFd, index: u32) {
        let Some(listener) = self.all.get_mut(index as usize) else { return };
        if matches!(listener.accept, Accept::None | Accept::Ended) {
            return;
        }
        if let Some(socket) = &listener.socket {
            leave(set, socket);
        }
        listener.accept = Accept::Ended;
        self.ended.push((index, Errno::CANCELED));
    }

    /// Closes a listener; with `shut`, nobody can connect any more by whatever descriptor.
    pub(super) fn close(&mut self, set: &OwnedFd, index: u32, shut: bool) {
        self.cancel(set, index);
        let Some(socket) = self.all.get_mut(index as usize).and_then(|listener| listener.socket.take()) else { return };
        if shut {
            // Fails where it has been shut by another shard.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }

    /// Tells of those that accept no more.
    pub(super) fn tell_ended(&mut self, completions: &mut Vec<Completion>) {
        for (index, error) in self.ended.drain(..) {
            self.all[index as usize].accept = Accept::None;
            let socket = Err(error.into());
            completions.push(Completion::Accepted { listener: index, socket, more: false });
        }
    }

    /// Somebody waits to be accepted, or did. How many calls it took.
    pub(super) fn accept(&mut self, set: &OwnedFd, index: u32, completions: &mut Vec<Completion>) -> u64 {
        let Some(listener) = self.all.get_mut(index as usize) else { return 0 };
        for calls in 1..=ACCEPTS_A_TURN as u64 {
            let Some(socket) = &listener.socket else { return calls - 1 };
            let accepted = match accept_with(socket, SocketFlags::CLOEXEC) {
                Ok(accepted) => Ok(accepted),
                // Another shard was faster, or the client has gone; the set tells of the next one.
                Err(Errno::AGAIN | Errno::INTR) => return calls,
                Err(error) => Err(error.into()),
            };
            let more = accepted.is_ok() && listener.accept == Accept::Many;
            if !more {
                leave(set, socket);
                listener.accept = Accept::None;
            }
            completions.push(Completion::Accepted { listener: index, socket: accepted, more });
            if !more {
                return calls;
            }
        }
        ACCEPTS_A_TURN as u64
    }
}

fn join(set: &OwnedFd, socket: &OwnedFd, index: u32) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(LISTENER | u64::from(index));
    match epoll::add(set, socket, data, epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE) {
        // A system that knows nothing of exclusive waiting wakes all shards, of which one is faster.
        Err(Errno::INVAL) => epoll::add(set, socket, data, epoll::EventFlags::IN),
        other => other,
    }
}

/// Takes a socket out of the set.
pub(super) fn leave(set: &OwnedFd, socket: &impl AsFd) {
    // Fails only where it is not in the set.
    let _ = epoll::delete(set, socket);
}
