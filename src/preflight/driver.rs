//! What the shards run on: io_uring where it works, epoll elsewhere.

use super::{ProbeError, Surroundings};
use crate::config::Io;
use crate::ring::order::Consumption;
use crate::ring::probe::{Unfit, probe};

/// What moves the bytes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring, and how its receive buffers are consumed.
    Uring(Consumption),
    /// epoll, and why it is not io_uring, unless epoll was asked for.
    Epoll(Option<ProbeError>),
}

impl Driver {
    /// The one that is wanted, or that is left; `memlock` is how much memory may be locked, in bytes.
    ///
    /// # Errors
    /// io_uring is wanted and cannot be had.
    pub fn choose(wanted: Io, memlock: u64) -> Result<Self, ProbeError> {
        match wanted {
            Io::Epoll => Ok(Self::Epoll(None)),
            Io::Uring => try_uring(memlock).map(Self::Uring),
            Io::Auto => Ok(try_uring(memlock).map_or_else(|missing| Self::Epoll(Some(missing)), Self::Uring)),
        }
    }

    /// Its name in `/health` and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring(_) => "io_uring",
            Self::Epoll(_) => "epoll",
        }
    }

    /// Why it is not io_uring, unless it is, or was not wanted.
    #[must_use]
    pub fn reason(self) -> Option<ProbeError> {
        match self {
            Self::Epoll(missing) => missing,
            Self::Uring(_) => None,
        }
    }
}

/// glommio ends the process when it meets a kernel that it cannot use, so this comes before any executor.
fn try_uring(memlock: u64) -> Result<Consumption, ProbeError> {
    let consumption = probe().map_err(|missing| {
        let around = Surroundings::observe();
        match missing {
            Unfit::Refused(error) => ProbeError::of_errno(error.raw_os_error().unwrap_or_default(), &around),
            Unfit::Lacks(what) => ProbeError::of_missing(what, &around),
        }
    })?;
    ProbeError::check_memlock(memlock)?;
    Ok(consumption)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::MEMLOCK_BYTES_MIN;

    #[test]
    fn epoll_takes_over_where_it_may() {
        let missing = ProbeError::Memlock { limit: 0, needed: MEMLOCK_BYTES_MIN };
        assert_eq!(Driver::choose(Io::Uring, 0), Err(missing));
        let driver = Driver::choose(Io::Auto, 0).unwrap();
        assert_eq!((driver.name(), driver.reason()), ("epoll", Some(missing)));
        let driver = Driver::choose(Io::Epoll, u64::MAX).unwrap();
        assert_eq!((driver.name(), driver.reason()), ("epoll", None));
    }
}
