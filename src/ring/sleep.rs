//! Sleeping until the ring has something: glommio's own ring reads the eventfd that the data ring signals.

use glommio::io::BufferedFile;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};

pub(super) struct Sleep {
    /// Never dropped: glommio complains about files that are not closed by an awaited call, and a shard's eventfd
    /// lives as long as the process.
    eventfd: ManuallyDrop<BufferedFile>,
}

impl Sleep {
    pub(super) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC)?.into_raw_fd();
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self { eventfd: ManuallyDrop::new(unsafe { BufferedFile::from_raw_fd(fd) }) })
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    pub(super) async fn wait(&self) -> io::Result<()> {
        match self.eventfd.read_at(0, 8).await {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::from(error)),
        }
    }
}
