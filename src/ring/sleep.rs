//! Sleeping until there is something to do: glommio's own ring reads an eventfd, which the data ring signals when it
//! has completions, and other threads when they have put something into the shard's mailbox.
//!
//! One eventfd serves both. An eventfd of the mailbox's own, read through the data ring, would make the kernel signal
//! this one from within the other's wake-up; it puts that off, and a wake-up was seen to be lost that way (6.18).

use glommio::io::BufferedFile;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Wakes the shard that it came from; any thread may hold a clone.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Arc<OwnedFd>,
}

impl Waker {
    /// Makes [`Ring::wait`](super::Ring::wait) return, now or the next time.
    pub fn wake(&self) {
        // An eventfd's write fails only when its counter is full: then the shard is being woken already.
        let _ = rustix::io::write(&*self.eventfd, &1u64.to_ne_bytes());
    }
}

pub(super) struct Sleep {
    /// Never dropped: glommio complains about files that are not closed by an awaited call, and a shard's eventfd
    /// lives as long as the process.
    file: ManuallyDrop<BufferedFile>,
    waker: Waker,
}

impl Sleep {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&eventfd, 0)?.into_raw_fd();
        // SAFETY: the descriptor is new and nobody else's.
        let file = ManuallyDrop::new(unsafe { BufferedFile::from_raw_fd(fd) });
        Ok(Self { file, waker: Waker { eventfd: Arc::new(eventfd) } })
    }

    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.waker.eventfd.as_raw_fd()
    }

    pub(super) async fn wait(&self) -> io::Result<()> {
        match self.file.read_at(0, 8).await {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::from(error)),
        }
    }
}
