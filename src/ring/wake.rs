//! Waking a shard from another thread: an eventfd that its driver looks at.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Wakes the shard that it came from; any thread may hold a clone.
#[derive(Clone, Debug)]
pub struct Waker {
    /// `None`: there is nobody to wake.
    eventfd: Option<Arc<OwnedFd>>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { eventfd: Some(Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?)) })
    }

    /// Wakes nobody: for a shard that is turned whether or not there is something to do.
    pub(super) fn of_nobody() -> Self {
        Self { eventfd: None }
    }

    /// Makes a [`Net::turn`](crate::Net::turn) that waits return, now or the next time.
    pub fn wake(&self) {
        if let Some(eventfd) = &self.eventfd {
            // An eventfd's write fails only when its counter is full: then the shard is being woken already.
            let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        }
    }

    pub(super) fn eventfd(&self) -> Option<&OwnedFd> {
        self.eventfd.as_deref()
    }
}
