//! The sockets that the service manager passed to this process (systemd's socket activation, sd_listen_fds(3)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Takes what was passed, marked to be closed when another program is executed. To be called first of all: later the
/// numbers could be those of files that the program has opened itself. The second call gets nothing.
///
/// # Errors
/// The environment promises descriptors that are not there, or does not read.
pub fn claim() -> io::Result<Vec<OwnedFd>> {
    if CLAIMED.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // An empty variable says nothing, here as for every setting.
    let is_said = |name: &str| std::env::var_os(name).is_some_and(|text| !text.is_empty());
    if !is_said("LISTEN_PID") || !is_said("LISTEN_FDS") {
        return Ok(Vec::new());
    }
    // SAFETY: they are open (that has just been looked at when they were marked), were opened for this process by the one
    // that started it, and are claimed once.
    Ok(sd_notify::listen_fds()?.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}
