//! TLS on the shard's connections: handshakes, a few at a time; records in, opened in the memory that they were received
//! into; records out, sealed from the outbox straight into what is sent.
//!
//! Everything else of the shard sees plaintext only: received bytes come through [`Shard::handle_sealed`], and an outbox
//! is emptied through [`TlsTable::poll_send`].

use super::connection::{NONE, Phase};
use super::outbox::Outbox;
use crate::ring::chunk::{Budget, Chunk, Outgoing, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::SEAL_BYTES_MAX;
use crate::shard::close::CloseReason;
use crate::tls::Tls;
use crate::tls::fault::Fault;
use crate::tls::handshake::Handshake;
use crate::tls::record::Out;
use crate::tls::traffic::{Opened, Traffic};
use slab::Slab;
use std::collections::VecDeque;

/// From this size on, sealed bytes stand in memory that is used again and is counted.
const COUNTED_BYTES_MIN: usize = 16 << 10;

/// The TLS of those connections that have it.
#[derive(Default)]
pub(in crate::shard) struct TlsTable {
    all: Slab<Tls>,
    /// Connections with a step of their handshake to do: those that have begun before those that have not. Some may
    /// have ended.
    pub(in crate::shard) waiting: VecDeque<Conn>,
    /// Turns in which messages were forwarded since the last step.
    pub(in crate::shard) busy_turns: u32,
}

impl TlsTable {
    /// Keeps the TLS of a connection; gives its index.
    #[must_use]
    pub(in crate::shard) fn insert(&mut self, tls: Tls) -> u32 {
        self.all.insert(tls) as u32
    }

    /// Takes the TLS of a connection out.
    pub(in crate::shard) fn remove(&mut self, index: &mut u32) -> Option<Tls> {
        self.all.try_remove(std::mem::replace(index, NONE) as usize)
    }

    /// Whether no handshake waits for its turn.
    #[must_use]
    pub(in crate::shard) fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether the handshake has something to do before more is read.
    #[must_use]
    pub(in crate::shard) fn is_ready(&self, index: u32) -> bool {
        matches!(self.all.get(index as usize), Some(Tls::Handshake(handshake)) if handshake.is_ready())
    }

    /// How many there are, and how many handshakes wait.
    #[cfg(test)]
    pub(in crate::shard) fn sizes(&self) -> (usize, usize) {
        (self.all.len(), self.waiting.len())
    }

    pub(in crate::shard) fn handshake(&mut self, index: u32) -> Option<&mut Handshake> {
        match self.all.get_mut(index as usize) {
            Some(Tls::Handshake(handshake)) => Some(handshake),
            _ => None,
        }
    }

    fn traffic(&mut self, index: u32) -> Option<&mut Traffic> {
        match self.all.get_mut(index as usize) {
            Some(Tls::Traffic(traffic)) => Some(traffic),
            _ => None,
        }
    }

    pub(in crate::shard) fn queue(&mut self, conn: Conn, has_begun: bool) {
        // The costly part comes first in a handshake, so that who has it behind him does not wait long.
        match has_begun {
            true => self.waiting.push_front(conn),
            false => self.waiting.push_back(conn),
        }
    }

    /// What is to be sent next: what is sealed already, or else a piece of what is queued, or at the end our last record.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(in crate::shard) fn poll_send(
        &mut self,
        index: u32,
        outbox: &mut Outbox,
        budget: &Budget,
    ) -> Result<Option<Outgoing>, Fault> {
        let Some(traffic) = self.traffic(index) else { return Ok(outbox.poll_sealed()) };
        let joined = outbox.poll_joined();
        if joined.is_none()
            && let Some(sealed) = outbox.poll_sealed()
        {
            return Ok(Some(sealed));
        }
        let joined = joined.as_ref().map_or(&[][..], Chunk::as_slice);
        if let Some(plain) = outbox.poll_send() {
            let (sealed, count) = seal(traffic, joined, &plain, budget)?;
            outbox.take_sent(plain, count);
            outbox.push_sealed(sealed);
        } else if !joined.is_empty() {
            outbox.push_sealed(joined.to_vec().into());
        } else if outbox.finish {
            let farewell = traffic.farewell(None);
            if !farewell.is_empty() {
                outbox.push_sealed(farewell.into());
            }
        }
        Ok(outbox.poll_sealed())
    }
}

/// Seals a piece of `plain` behind records that are sealed already; how many of its bytes that was.
fn seal(traffic: &mut Traffic, joined: &[u8], plain: &Outgoing, budget: &Budget) -> Result<(OwnedBuf, usize), Fault> {
    let bytes = plain.len().min(SEAL_BYTES_MAX);
    let capacity = joined.len() + Traffic::sealed_bytes_max(bytes);
    let mut sealed = match capacity < COUNTED_BYTES_MIN {
        true => OwnedBuf::from(Vec::with_capacity(capacity)),
        false => OwnedBuf::with_headroom(0, capacity, budget.charge(capacity)),
    };
    sealed.extend(joined);
    let count = match plain {
        Outgoing::One(chunk) => traffic.seal(&[chunk.as_slice()], bytes, &mut sealed),
        Outgoing::Many(batch) => {
            let pieces: Vec<&[u8]> = batch.chunks.iter().map(Chunk::as_slice).collect();
            traffic.seal(&pieces, bytes, &mut sealed)
        }
    }?;
    Ok((sealed, count))
}

impl Out for OwnedBuf {
    fn bytes(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }

    fn append(&mut self, more: &[u8]) {
        self.extend(more);
    }
}

impl<N: Net> Shard<N> {
    /// Takes in what has been received on a connection with TLS.
    pub(in crate::shard) fn handle_sealed(&mut self, conn: Conn, chunk: Chunk) {
        match self.connections[conn].phase() {
            Phase::Handshake => self.handle_handshake_bytes(conn, chunk.as_slice()),
            _ => self.open_records(conn, chunk),
        }
    }

    /// Opens record after record, and hands on what is in them.
    pub(in crate::shard) fn open_records(&mut self, conn: Conn, mut chunk: Chunk) {
        loop {
            let Some(connection) = self.connections.get(conn) else { return };
            // What comes in these is not looked at, and there is nothing behind them.
            if matches!(connection.phase(), Phase::Closing | Phase::Slowed | Phase::Dead) {
                return;
            }
            let Some(traffic) = self.tls.traffic(connection.tls) else { return };
            let keeps = traffic.keeps();
            if keeps {
                match traffic.keep(chunk.as_slice()) {
                    Ok(used) => chunk.advance(used),
                    Err(fault) => return self.fail_traffic(conn, fault),
                }
            }
            let Some(traffic) = self.tls.traffic(self.connections[conn].tls) else { return };
            let mut record = match keeps {
                true => match traffic.take_kept() {
                    Some(record) => Chunk::Owned(OwnedBuf::from(record)),
                    None => return,
                },
                false if chunk.is_empty() => return,
                false => std::mem::replace(&mut chunk, Chunk::Owned(OwnedBuf::from(Vec::new()))),
            };
            match traffic.open(record.as_mut_slice()) {
                Ok(Opened::Data { plain, used }) => {
                    if used < record.len() {
                        let front = record.split_to(used);
                        chunk = std::mem::replace(&mut record, front);
                    }
                    record.narrow(plain);
                    self.handle_bytes(conn, record);
                }
                Ok(Opened::Handled { reply, used }) => {
                    if used < record.len() {
                        record.advance(used);
                        chunk = record;
                    }
                    if !reply.is_empty() {
                        self.push_sealed(conn, reply);
                    }
                }
                Ok(Opened::NeedMore) => match traffic.keep(record.as_slice()) {
                    Ok(_) => return,
                    Err(fault) => return self.fail_traffic(conn, fault),
                },
                // It sends nothing any more, and is told the same behind what is queued.
                Ok(Opened::Closed) => return self.begin_closing(conn, CloseReason::Gone),
                Err(fault) => return self.fail_traffic(conn, fault),
            }
        }
    }

    /// What came cannot be opened, or has no place: the client is told, and the connection ends.
    #[cold]
    fn fail_traffic(&mut self, conn: Conn, fault: Fault) {
        tracing::debug!(%fault, "TLS connection failed");
        let Some(traffic) = self.tls.traffic(self.connections[conn].tls) else { return };
        let alert = traffic.farewell(Some(fault));
        if alert.is_empty() {
            return self.end(conn, CloseReason::Tls);
        }
        self.push_sealed(conn, alert);
        self.begin_closing(conn, CloseReason::Tls);
    }

    /// Ends a connection that sent no request in time. One with TLS is told so, that its client does not take it for
    /// one that somebody has cut (RFC 8446 section 6.1).
    pub(in crate::shard) fn end_unheard(&mut self, conn: Conn) {
        match self.connections[conn].tls {
            NONE => self.end(conn, CloseReason::Gone),
            _ => self.begin_closing(conn, CloseReason::Gone),
        }
    }

    /// Queues bytes that are to leave as they are.
    pub(in crate::shard) fn push_sealed(&mut self, conn: Conn, bytes: Vec<u8>) {
        let pushed = self.filled(conn, |outbox| outbox.push_own_sealed(bytes));
        self.mind_pressure(conn, conn, pushed);
    }
}
