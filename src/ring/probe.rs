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
const OPERATIONS: [(&str, u8); 6] = [
    ("accept", opcode::Accept::CODE),
    ("recv", opcode::Recv::CODE),
    ("send", opcode::Send::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("timeout", opcode::Timeout::CODE),
    ("async cancel", opcode::AsyncCancel::CODE),
];

/// Builds a ring as a shard does, and asks it for each operation. Multishot receives, which cannot be asked for, are
/// as old as the set-up flags.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<(), Unfit> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(8)
        .map_err(Unfit::Refused)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| Unfit::Lacks("IORING_REGISTER_PROBE"))?;
    for (name, code) in OPERATIONS {
        if !probe.is_supported(code) {
            return Err(Unfit::Lacks(name));
        }
    }
    Pool::register(&ring.submitter()).map_err(|_| Unfit::Lacks("rings of provided buffers"))?;
    Ok(())
}
