//! What io_uring can do here, tried for real before any shard starts.

use super::order::Consumption;
use super::persist::persist;
use super::provided::Provided;
use io_uring::{IoUring, Probe, opcode};
use std::io;

/// Why the data ring cannot work here.
#[derive(Debug)]
pub enum Unfit {
    /// The kernel refused to build a ring.
    Refused(io::Error),
    /// The kernel lacks this.
    Lacks(&'static str),
}

/// What is there.
pub struct Parts {
    /// Each part that the data ring cannot do without, and whether it is there.
    pub parts: Vec<(&'static str, bool)>,
    /// How receive buffers will be consumed.
    pub consumption: Consumption,
}

/// The operations that the data ring uses.
const OPERATIONS: [(&str, u8); 7] = [
    ("accept", opcode::Accept::CODE),
    ("recv", opcode::Recv::CODE),
    ("send", opcode::Send::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("read", opcode::Read::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("async cancel", opcode::AsyncCancel::CODE),
];

/// Builds a ring as a shard does, and tells of each part that the data ring uses whether it is there.
///
/// # Errors
/// There is no ring, or it cannot be asked.
pub fn parts() -> Result<Parts, Unfit> {
    let mut ring = persist(|| super::builder().build(8)).map_err(Unfit::Refused)?;
    let mut probe = Probe::new();
    match persist(|| ring.submitter().register_probe(&mut probe)) {
        Ok(()) => {}
        Err(error) if is_unknown(&error) => return Err(Unfit::Lacks("IORING_REGISTER_PROBE")),
        Err(error) => return Err(Unfit::Refused(error)),
    }
    let mut parts: Vec<_> = OPERATIONS.iter().map(|&(name, code)| (name, probe.is_supported(code))).collect();
    let wanted = Consumption::of_this_kernel();
    // SAFETY: nothing is received on this ring.
    let (has_buffers, consumption) = match persist(|| unsafe { Provided::streams(&ring.submitter(), wanted) }) {
        Ok((_, consumption)) => (true, consumption),
        Err(error) if is_unknown(&error) => (false, wanted),
        Err(error) => return Err(Unfit::Refused(error)),
    };
    parts.push(("rings of provided buffers", has_buffers));
    enter(&mut ring).map_err(Unfit::Refused)?;
    Ok(Parts { parts, consumption })
}

/// A kernel that does not know what is asked for says `EINVAL`; a filter in front of it says something else.
fn is_unknown(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// A filter may let the set-up pass and forbid the call that everything else goes through.
fn enter(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: an operation that does nothing points to nothing.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1).map(|_| ())
}

/// Builds a ring as a shard does, asks it for each operation, and gives how receive buffers will be consumed. Multishot receives, which cannot be asked for, are
/// as old as the set-up flags.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<Consumption, Unfit> {
    let Parts { parts, consumption } = parts()?;
    match parts.into_iter().find(|&(_, is_there)| !is_there) {
        Some((name, _)) => Err(Unfit::Lacks(name)),
        None => Ok(consumption),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix("kB")).unwrap();
        size.trim().parse::<usize>().unwrap() << 10
    }

    #[test]
    fn a_probe_leaves_nothing_mapped() {
        let before = mapped_bytes();
        for _ in 0..400 {
            probe().unwrap();
        }
        // What other tests map meanwhile is far less than the buffers of 400 rings.
        let grown = mapped_bytes().saturating_sub(before);
        assert!(grown < 1 << 30, "{} MiB more", grown >> 20);
    }
}
