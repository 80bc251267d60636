//! What io_uring can do here, tried for real before any shard starts.

use super::buffers::Pool;
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
pub fn parts() -> Result<Vec<(&'static str, bool)>, Unfit> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(8)
        .map_err(Unfit::Refused)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| Unfit::Lacks("IORING_REGISTER_PROBE"))?;
    let mut parts: Vec<_> = OPERATIONS.iter().map(|&(name, code)| (name, probe.is_supported(code))).collect();
    parts.push(("rings of provided buffers", Pool::register(&ring.submitter()).is_ok()));
    Ok(parts)
}

/// Builds a ring as a shard does, and asks it for each operation. Multishot receives, which cannot be asked for, are
/// as old as the set-up flags.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<(), Unfit> {
    match parts()?.into_iter().find(|&(_, is_there)| !is_there) {
        Some((name, _)) => Err(Unfit::Lacks(name)),
        None => Ok(()),
    }
}
