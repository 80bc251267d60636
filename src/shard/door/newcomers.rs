//! Who has not authenticated yet, in the order that they came, so that there is room for newcomers: where a cap is met,
//! the one that has kept the relay waiting for longest gives way.

use super::newcomer::{Admission, Http, Newcomer};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::NEWCOMER_GRACE;
use crate::shard::close::CloseReason;
use crate::shard::command::Command;
use crate::shard::net::connection::Phase;
use crate::sys::net::counted_as;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

/// Connections that are looked at for one that may give way.
const LOOKED_AT_MAX: usize = 128;

/// The connections of a shard that have not authenticated, by serial number.
#[derive(Default)]
pub(super) struct Newcomers {
    all: BTreeMap<u64, Conn>,
    /// Those that count for an address, by its network first.
    counted: BTreeMap<(IpAddr, u64), Conn>,
    /// The tick at which other shards were last asked to make room.
    asked_at: Option<u32>,
}

impl Newcomers {
    /// A connection has come, and counts for this address, if any.
    pub(super) fn insert(&mut self, conn: Conn, serial: u64, counted: Option<IpAddr>) {
        self.all.insert(serial, conn);
        if let Some(address) = counted {
            self.counted.insert((counted_as(address), serial), conn);
        }
    }

    /// A connection is no newcomer any more.
    pub(super) fn remove(&mut self, newcomer: &Newcomer) {
        self.all.remove(&newcomer.serial);
        self.forget(newcomer);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len().max(self.counted.len())
    }

    /// A connection counts for its address no more.
    fn forget(&mut self, newcomer: &Newcomer) {
        if let Some(address) = newcomer.counted() {
            self.counted.remove(&(counted_as(address), newcomer.serial));
        }
    }

    /// Those that came first: of one address, or of all.
    fn first(&self, address: Option<IpAddr>) -> Vec<Conn> {
        match address.map(counted_as) {
            Some(network) => {
                let of_network = self.counted.range((network, 0)..=(network, u64::MAX));
                of_network.take(LOOKED_AT_MAX).map(|(_, &conn)| conn).collect()
            }
            None => self.all.values().take(LOOKED_AT_MAX).copied().collect(),
        }
    }
}

impl<N: Net> Shard<N> {
    /// Counts a connection that is `counted` for nobody as one of `address`. `false`: the address has too many, and none of
    /// them gives way.
    pub(super) fn enter(&mut self, address: IpAddr) -> bool {
        let max = self.shared.rules.load().caps.unauthenticated_per_address_max;
        self.shared.addresses.try_enter(address, max)
            || (self.make_room(Some(address)) && self.shared.addresses.try_enter(address, max))
    }

    /// Counts the request under way for `client`, whom a trusted proxy may have named anew. `false`: it has too many
    /// connections.
    pub(super) fn count_client(&mut self, conn: Conn, client: IpAddr) -> bool {
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return true };
        newcomer.address = client;
        if newcomer.counted() == Some(client) {
            return true;
        }
        self.uncount_client(conn);
        if !self.enter(client) {
            return false;
        }
        // Whoever gave way was another one: this connection counted for nobody.
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return true };
        newcomer.admission = Admission::Counted(Some(client));
        self.door.newcomers.insert(conn, newcomer.serial, Some(client));
        true
    }

    /// A connection counts for no address: a proxy that keeps it open may bring anybody's request next.
    pub(super) fn uncount_client(&mut self, conn: Conn) {
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return };
        self.door.newcomers.forget(newcomer);
        if let Some(address) = newcomer.counted() {
            newcomer.admission = Admission::Counted(None);
            self.shared.addresses.leave(address);
        }
    }

    /// Lets a connection of one address, or of all, give way. `false`: there is none here. Then the other shards do the
    /// same, for when the newcomer comes again.
    pub(super) fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        if self.give_way(address) {
            return true;
        }
        let tick = Some(self.pulse.tick());
        if std::mem::replace(&mut self.door.newcomers.asked_at, tick) != tick {
            for shard in (0..self.queues.shards()).filter(|&shard| shard != self.id) {
                // One whose queue is full has other things to do.
                let _ = self.queues.try_post(shard, Command::MakeRoom(address));
            }
        }
        false
    }

    /// Ends the connection that has kept the relay waiting for longest, of one address or of all; one between two
    /// requests before one that has begun something. `false`: all have been here for a moment only, or wait for the
    /// relay.
    pub(in crate::shard) fn give_way(&mut self, address: Option<IpAddr>) -> bool {
        let (now, grace) = (self.pulse.tick(), crate::shard::deadlines::ticks(NEWCOMER_GRACE));
        let mut found = None;
        for conn in self.door.newcomers.first(address) {
            let connection = &self.net[conn];
            let Some(newcomer) = connection.newcomer() else { continue };
            let keeps_waiting = matches!(
                connection.phase(),
                Phase::Header | Phase::Handshake | Phase::Http | Phase::Answering | Phase::Auth | Phase::Closing
            );
            let is_ours = connection.phase() == Phase::Handshake && self.net.is_handshake_ready(conn);
            if !keeps_waiting || is_ours || now < newcomer.waits_since + grace {
                continue;
            }
            let has_begun = connection.phase() != Phase::Http || newcomer.http().is_none_or(Http::has_begun);
            let rank = (has_begun, newcomer.waits_since);
            if found.is_none_or(|(best, _)| rank < best) {
                found = Some((rank, conn));
            }
        }
        let Some((_, conn)) = found else { return false };
        self.end(conn, CloseReason::GaveWay);
        true
    }

    /// A connection is no longer one that has not authenticated.
    pub(in crate::shard) fn leave_door(&mut self, newcomer: &Newcomer) {
        if newcomer.is_turned_away() {
            self.door.arrivals.turned_away -= 1;
            return;
        }
        self.door.newcomers.remove(newcomer);
        self.door.asking.remove(&newcomer.serial);
        self.shared.unauthenticated.fetch_sub(1, Relaxed);
        if let Some(address) = newcomer.counted() {
            self.shared.addresses.leave(address);
        }
    }
}
