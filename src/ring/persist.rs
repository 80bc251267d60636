//! Setting up while the kernel is short of free memory.
//!
//! It makes a ring and its tables of buffers from pages that are free at the moment. Where page cache that has yet to be
//! written takes nearly all of them, it says `ENOMEM` though there is plenty of memory, and frees some meanwhile.

use std::io;
use std::time::Duration;

const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Tries again for up to two seconds while there is no memory. To be called before the thread has anything else to do.
pub(super) fn persist<T>(mut set_up: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match set_up() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    set_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(code: i32, times: u32) -> (io::Result<u32>, u32) {
        let mut count = 0;
        let outcome = persist(|| {
            count += 1;
            if count > times { Ok(count) } else { Err(io::Error::from_raw_os_error(code)) }
        });
        (outcome, count)
    }

    #[test]
    fn memory_is_waited_for_and_nothing_else() {
        assert_eq!(failing(libc::ENOMEM, 3).0.unwrap(), 4);
        let (outcome, count) = failing(libc::ENOMEM, u32::MAX);
        assert_eq!((outcome.unwrap_err().raw_os_error(), count), (Some(libc::ENOMEM), TRIES));
        let (outcome, count) = failing(libc::EPERM, u32::MAX);
        assert_eq!((outcome.unwrap_err().raw_os_error(), count), (Some(libc::EPERM), 1));
    }
}
