//! The process's resource limits: raised as far as they go, and what follows from them.

use crate::shard::bounds::TURNED_AWAY_MAX;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are no connections: standard streams, log, store with its journal, signals, and room for what
/// a library opens for a moment.
const RESERVED: u64 = 64;
/// As [`RESERVED`], for each shard: listeners, glommio's three rings and its eventfds, the data ring and its eventfd,
/// the queue, and [`TURNED_AWAY_MAX`] connections accepted only to be told that there is no room.
const RESERVED_PER_SHARD: u64 = 32 + TURNED_AWAY_MAX as u64;

/// A soft limit before and after raising it; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The soft limit that the process started with.
    pub before: u64,
    /// The soft limit now.
    pub now: u64,
}

/// Raises the soft limit of open files to the hard one. If that is not allowed, nothing changes.
pub fn raise_nofile() -> Raised {
    raise(Resource::Nofile)
}

/// Raises the soft limit of locked memory, in bytes, to the hard one: glommio looks at the soft limit.
pub fn raise_memlock() -> Raised {
    raise(Resource::Memlock)
}

fn raise(resource: Resource) -> Raised {
    let Rlimit { current, maximum } = getrlimit(resource);
    let raised = current != maximum && setrlimit(resource, Rlimit { current: maximum, maximum }).is_ok();
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    Raised { before: number(current), now: number(if raised { maximum } else { current }) }
}

/// How many connections fit under a limit of `nofile` open files; 0 when it does not even suffice for the relay itself.
#[must_use]
pub fn connection_capacity(nofile: u64, shards: u16) -> u64 {
    nofile.saturating_sub(RESERVED + RESERVED_PER_SHARD * u64::from(shards))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_leaves_room_for_the_relay_itself() {
        assert_eq!(connection_capacity(1024, 2), 1024 - 64 - 2 * (32 + 64));
        assert_eq!(connection_capacity(96, 1), 0);
        assert_eq!(connection_capacity(10, u16::MAX), 0);
        assert!(connection_capacity(u64::MAX, 128) > 1 << 60);
    }

    #[test]
    fn the_soft_limit_of_files_ends_up_at_the_hard_one() {
        let raised = raise_nofile();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(raised.now >= raised.before && raised.now == limit.current.unwrap_or(u64::MAX));
        assert_eq!(raise_nofile(), Raised { before: raised.now, now: raised.now }, "nothing is left to raise");
    }
}
