//! How much of what a socket was given its peer has not taken yet.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// See [`Net::unacknowledged_bytes`](crate::Net::unacknowledged_bytes).
pub(super) fn unacknowledged_bytes(socket: &OwnedFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int to the address that it is given, which is that of a live one.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes.unsigned_abs() as usize) }
}
