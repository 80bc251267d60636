//! The sockets that a ring accepts on. As with [`sockets`](super::sockets), each stays open until an accept that is in progress
//! has completed.

use rustix::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};

struct Entry {
    socket: OwnedFd,
    is_accepting: bool,
    is_closing: bool,
}

/// See the module. Indices are not given anew: a process has few listeners in all its life.
#[derive(Default)]
pub(super) struct Listeners {
    all: Vec<Option<Entry>>,
}

impl Listeners {
    pub(super) fn add(&mut self, socket: OwnedFd) -> u32 {
        self.all.push(Some(Entry { socket, is_accepting: false, is_closing: false }));
        (self.all.len() - 1) as u32
    }

    fn entry(&mut self, index: u32) -> Option<&mut Entry> {
        self.all.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn is_accepting(&self, index: u32) -> bool {
        self.all.get(index as usize).and_then(Option::as_ref).is_some_and(|entry| entry.is_accepting)
    }

    /// An accept begins; the number to carry it out on. `None`: one is in progress, or the listener is closed.
    pub(super) fn begin(&mut self, index: u32) -> Option<i32> {
        let entry = self.entry(index).filter(|entry| !entry.is_accepting && !entry.is_closing)?;
        entry.is_accepting = true;
        Some(entry.socket.as_raw_fd())
    }

    /// An accept has completed; `last`: it does no more.
    pub(super) fn complete(&mut self, index: u32, last: bool) {
        let Some(entry) = self.entry(index).filter(|_| last) else { return };
        entry.is_accepting = false;
        if entry.is_closing {
            self.all[index as usize] = None;
        }
    }

    /// Closes a listener when nothing is in progress on it. Whether something is.
    pub(super) fn close(&mut self, index: u32, shut: bool) -> bool {
        let Some(entry) = self.entry(index) else { return false };
        if shut {
            // It refuses at once, even while the kernel still holds a reference to it.
            let _ = rustix::net::shutdown(&entry.socket, Shutdown::Both);
        }
        entry.is_closing = true;
        let is_accepting = entry.is_accepting;
        if !is_accepting {
            self.all[index as usize] = None;
        }
        is_accepting
    }
}
