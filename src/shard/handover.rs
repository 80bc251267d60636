//! Hand-over: a connection's one move to the shard that owns its token, before `auth.ok`.

use super::Shard;
use super::close::CloseReason;
use super::connection::{Early, NONE, Phase, Receiving};
use super::mail::Mail;
use crate::proto::token::{Role, TokenHash};
use crate::ring::chunk::{Chunk, Heap};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// A connection on its way to another shard.
pub struct HandOver {
    socket: OwnedFd,
    address: IpAddr,
    counted: Option<IpAddr>,
    hash: TokenHash,
    role: Role,
    /// What the client sent behind its auth message.
    rest: Vec<u8>,
}

/// Where a connection is to go.
pub struct Destination {
    shard: u16,
    hash: TokenHash,
    role: Role,
    rest: Vec<u8>,
}

impl Destination {
    /// To `shard`, to authenticate there.
    #[must_use]
    pub fn new(shard: u16, hash: TokenHash, role: Role) -> Self {
        Self { shard, hash, role, rest: Vec::new() }
    }

    /// Adds bytes that came behind the auth message.
    pub fn add(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }
}

impl Shard {
    /// Moves a connection in [`Phase::Moving`], once nothing of it is under way here.
    pub(super) fn try_move(&mut self, conn: u32) {
        let connection = &self.connections[conn as usize];
        if connection.phase != Phase::Moving || connection.outbox != NONE || connection.receiving != Receiving::Idle {
            return;
        }
        self.wheel.disarm(conn);
        let connection = self.connections.remove(conn as usize);
        let Some(Early { address, counted, moving: Some(destination), .. }) = connection.early.map(|early| *early)
        else {
            return;
        };
        let Destination { shard, hash, role, rest } = *destination;
        let handover = HandOver { socket: connection.socket, address, counted, hash, role, rest };
        if let Err(Mail::HandOver(handover)) = self.mailboxes.try_post(shard, Mail::HandOver(Box::new(handover))) {
            // The other shard's mailbox is full, or it has ended: the client is told to come back.
            let HandOver { socket, address, counted, .. } = *handover;
            let conn = self.insert_connection(socket, address, counted, false);
            self.connections[conn as usize].phase = Phase::Auth;
            self.close(conn, if self.is_draining() { CloseReason::Restart } else { CloseReason::Busy });
            self.arm(conn);
        }
    }

    /// Takes in a connection of another shard.
    pub(super) fn handle_handover(&mut self, handover: HandOver) {
        let HandOver { socket, address, counted, hash, role, rest } = handover;
        let conn = self.insert_connection(socket, address, counted, false);
        self.connections[conn as usize].phase = Phase::Auth;
        if self.is_draining() {
            self.close(conn, CloseReason::Restart);
        } else {
            self.admit(conn, hash, role);
            if !rest.is_empty() {
                self.handle_bytes(conn, Chunk::Heap(Heap::from(rest)));
            }
        }
        self.arm(conn);
    }
}
