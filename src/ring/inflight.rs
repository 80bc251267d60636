//! What the kernel holds: the memory of each send and fill that is in progress.

use super::Conn;
use super::chunk::{Outgoing, OwnedBuf};
use slab::Slab;

pub(super) enum InflightOp {
    Send(Outgoing),
    Fill(OwnedBuf),
}

/// The operations in progress, by the index that their completion names.
#[derive(Default)]
pub(super) struct Inflight {
    ops: Slab<(Conn, InflightOp)>,
}

impl Inflight {
    pub(super) fn insert(&mut self, conn: Conn, op: InflightOp) -> u32 {
        self.ops.insert((conn, op)) as u32
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<(Conn, InflightOp)> {
        self.ops.try_remove(index as usize)
    }

    /// The send just inserted at `index`.
    pub(super) fn outgoing_mut(&mut self, index: u32) -> &mut Outgoing {
        match self.ops.get_mut(index as usize) {
            Some((_, InflightOp::Send(outgoing))) => outgoing,
            _ => unreachable!("called only with the index that insert() returned for a send"),
        }
    }

    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.ops));
    }
}
