//! Hand-over: a connection's one move to the shard that owns its token, before `auth.ok`.

use super::auth::Claim;
use super::newcomer::{Admission, Stage};
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::close::CloseReason;
use crate::shard::command::Command;
use crate::shard::mutation::{Mutation, is_made};
use crate::shard::net::Taken;
use crate::shard::net::connection::Phase;
use crate::tls::Tls;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// A connection on its way to another shard.
pub struct HandOver<S = OwnedFd> {
    socket: S,
    address: IpAddr,
    counted: Option<IpAddr>,
    claim: Claim,
    tls: Option<Tls>,
    /// When it was upgraded.
    since: Instant,
    /// What the client sent behind its auth message.
    rest: Vec<u8>,
}

/// Where a connection is to go.
pub struct Destination {
    shard: u16,
    claim: Claim,
    rest: Vec<u8>,
}

impl Destination {
    /// To `shard`, to authenticate there.
    #[must_use]
    pub(super) fn new(shard: u16, claim: Claim) -> Self {
        Self { shard, claim, rest: Vec::new() }
    }

    /// Adds bytes that came behind the auth message.
    pub fn add(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }
}

impl<N: Net> Shard<N> {
    /// Moves a connection in [`Phase::Moving`], once nothing of it is under way here.
    pub(in crate::shard) fn try_move(&mut self, conn: Conn) {
        if self.net[conn].phase() != Phase::Moving {
            return;
        }
        let Some(Taken { socket, tls, newcomer }) = self.net.take(conn) else { return };
        self.pulse.disarm(conn);
        let Some(newcomer) = newcomer else { return };
        self.door.newcomers.remove(&newcomer);
        let (address, counted, since) = (newcomer.address, newcomer.counted(), newcomer.since);
        let Some(destination) = newcomer.into_destination() else { return };
        let Destination { shard, mut claim, rest } = *destination;
        claim.ext &= !is_made(Mutation::ExtLeftBehind);
        let handover = HandOver { socket, address, counted, claim, since, tls, rest };
        if let Err(Command::HandOver(handover)) = self.queues.try_post(shard, Command::HandOver(Box::new(handover))) {
            // The other shard's queue is full, or it has ended: the client is told to come back.
            self.counters.moved(false);
            let HandOver { socket, address, counted, tls, .. } = *handover;
            let mut newcomer = self.newcomer(address, Stage::Auth);
            newcomer.admission = Admission::Counted(counted);
            let conn = self.insert_connection(socket, newcomer);
            self.keep_tls(conn, tls);
            self.close(conn, if self.is_draining() { CloseReason::Restart } else { CloseReason::Busy });
            self.arm(conn);
        } else {
            self.counters.moved(true);
        }
    }

    /// Takes in a connection of another shard.
    pub(in crate::shard) fn handle_handover(&mut self, handover: HandOver<N::Socket>) {
        let HandOver { socket, address, counted, claim, since, tls, rest } = handover;
        let mut newcomer = self.newcomer(address, Stage::Auth);
        (newcomer.admission, newcomer.since) = (Admission::Counted(counted), since);
        let conn = self.insert_connection(socket, newcomer);
        self.keep_tls(conn, tls);
        if self.is_draining() {
            self.close(conn, CloseReason::Restart);
        } else {
            self.admit(conn, claim);
            if !rest.is_empty() {
                self.handle_bytes(conn, Chunk::Owned(OwnedBuf::from(rest)));
            }
        }
        self.arm(conn);
    }

    fn keep_tls(&mut self, conn: Conn, tls: Option<Tls>) {
        if let Some(tls) = tls {
            self.net.set_tls(conn, tls);
        }
    }
}
