//! TLS on the shard's connections: records in, opened in the memory that they were received into; records out, sealed from
//! the outbox straight into what is sent.
//!
//! Everything else of the shard sees plaintext only: received bytes come through [`Transport::open_record`], and an outbox is
//! emptied through [`TlsTable::poll_send`].

use super::Transport;
use super::connection::NONE;
use super::outbox::Outbox;
use crate::ring::chunk::{Budget, Chunk, Outgoing, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::bounds::SEAL_BYTES_MAX;
use crate::tls::Tls;
use crate::tls::fault::Fault;
use crate::tls::handshake::Handshake;
use crate::tls::record::Out;
use crate::tls::traffic::{Opened, Traffic};
use slab::Slab;

/// From this size on, sealed bytes stand in memory that is used again and is counted.
const COUNTED_BYTES_MIN: usize = 16 << 10;

/// The TLS of those connections that have it.
#[derive(Default)]
pub(super) struct TlsTable {
    all: Slab<Tls>,
}

impl TlsTable {
    /// Keeps the TLS of a connection; gives its index.
    #[must_use]
    fn insert(&mut self, tls: Tls) -> u32 {
        self.all.insert(tls) as u32
    }

    /// Takes the TLS of a connection out.
    pub(super) fn remove(&mut self, index: &mut u32) -> Option<Tls> {
        self.all.try_remove(std::mem::replace(index, NONE) as usize)
    }

    /// Whether the handshake has something to do before more is read.
    #[must_use]
    pub(super) fn is_ready(&self, index: u32) -> bool {
        matches!(self.all.get(index as usize), Some(Tls::Handshake(handshake)) if handshake.is_ready())
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    fn handshake(&mut self, index: u32) -> Option<&mut Handshake> {
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

    /// What is to be sent next: what is sealed already, or else a piece of what is queued, or at the end our last record.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(super) fn poll_send(
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

/// What was opened of what has been received.
pub(in crate::shard) enum Record {
    /// The plaintext of the next record.
    Plain(Chunk),
    /// No further record is whole.
    NeedMore,
    /// The client sends nothing any more, and is to be told the same behind what is queued.
    Closed,
    /// It cannot be opened, or has no place.
    Broken(Fault),
}

impl<N: Net> Transport<N> {
    /// Whether a connection has TLS.
    pub(in crate::shard) fn has_tls(&self, conn: Conn) -> bool {
        self.connections[conn].tls != NONE
    }

    /// A connection has TLS from now on.
    pub(in crate::shard) fn set_tls(&mut self, conn: Conn, tls: Tls) {
        let index = self.tls.insert(tls);
        self.connections[conn].tls = index;
    }

    /// The TLS of a connection, which has none from now on.
    pub(in crate::shard) fn take_tls(&mut self, conn: Conn) -> Option<Tls> {
        self.tls.remove(&mut self.connections[conn].tls)
    }

    /// The TLS handshake of a connection.
    pub(in crate::shard) fn handshake(&mut self, conn: Conn) -> Option<&mut Handshake> {
        self.tls.handshake(self.connections.get(conn)?.tls)
    }

    /// Whether the handshake of a connection has something to do before more is read.
    pub(in crate::shard) fn is_handshake_ready(&self, conn: Conn) -> bool {
        self.connections.get(conn).is_some_and(|connection| self.tls.is_ready(connection.tls))
    }

    /// The last record toward a client, which says what was wrong; empty where nothing can be said.
    pub(in crate::shard) fn farewell(&mut self, conn: Conn, fault: Fault) -> Option<Vec<u8>> {
        let traffic = self.tls.traffic(self.connections[conn].tls)?;
        Some(traffic.farewell(Some(fault)))
    }

    /// Opens the next record of what has been received, and takes it off the front of `chunk`.
    pub(in crate::shard) fn open_record(&mut self, conn: Conn, chunk: &mut Chunk) -> Record {
        loop {
            let Some(traffic) = self.tls.traffic(self.connections[conn].tls) else { return Record::NeedMore };
            let keeps = traffic.keeps();
            if keeps {
                match traffic.keep(chunk.as_slice()) {
                    Ok(used) => chunk.advance(used),
                    Err(fault) => return Record::Broken(fault),
                }
            }
            let mut record = match keeps {
                true => match traffic.take_kept() {
                    Some(record) => Chunk::Owned(OwnedBuf::from(record)),
                    None => return Record::NeedMore,
                },
                false if chunk.is_empty() => return Record::NeedMore,
                false => std::mem::replace(chunk, Chunk::Owned(OwnedBuf::from(Vec::new()))),
            };
            match traffic.open(record.as_mut_slice()) {
                Ok(Opened::Data { plain, used }) => {
                    if used < record.len() {
                        let front = record.split_to(used);
                        *chunk = std::mem::replace(&mut record, front);
                    }
                    record.narrow(plain);
                    return Record::Plain(record);
                }
                Ok(Opened::Handled { reply, used }) => {
                    if used < record.len() {
                        record.advance(used);
                        *chunk = record;
                    }
                    if !reply.is_empty() {
                        self.push_sealed(conn, reply);
                    }
                }
                Ok(Opened::NeedMore) => {
                    return match traffic.keep(record.as_slice()) {
                        Ok(_) => Record::NeedMore,
                        Err(fault) => Record::Broken(fault),
                    };
                }
                Ok(Opened::Closed) => return Record::Closed,
                Err(fault) => return Record::Broken(fault),
            }
        }
    }
}
