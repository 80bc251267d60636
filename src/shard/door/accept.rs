//! New connections: caps, addresses, and the first receive.

use super::newcomer::{Admission, Newcomer, Stage, Step};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::{
    ARRIVALS_A_CALM_TURN, ARRIVALS_A_TURN, CALM_CROWD, CROWD, TURNED_AWAY_FOR, TURNED_AWAY_MAX,
};
use crate::shard::close::CloseReason;
use crate::shard::command::Listener;
use crate::shard::net::connection::Entry;
use crate::shard::net::{Purpose, Transport};
use crate::shard::shared::try_count;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The label of connections that are closed without a word.
const TURNED_AWAY: &str = "turned_away";

/// The listeners, and who was let in only to be turned away.
pub(super) struct Arrivals<S> {
    /// Listeners that accept no more by themselves and are to be armed again at the next tick.
    stalled: Vec<u32>,
    /// Sockets that wait to be looked at, with their listeners.
    arrived: VecDeque<(u32, S)>,
    /// Listeners to be armed again when few of them wait.
    held: Vec<u32>,
    /// Accepted since the last tick.
    recent: usize,
    /// Connections over a cap that are being told so. At most [`TURNED_AWAY_MAX`].
    pub(super) turned_away: usize,
}

impl<S> Default for Arrivals<S> {
    fn default() -> Self {
        Self { stalled: Vec::new(), arrived: VecDeque::new(), held: Vec::new(), recent: 0, turned_away: 0 }
    }
}

impl<S> Arrivals<S> {
    /// Whether nobody waits to be let in.
    #[must_use]
    pub(super) fn is_quiet(&self) -> bool {
        self.arrived.is_empty()
    }

    /// How many do.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.arrived.len()
    }
}

impl<N: Net> Shard<N> {
    pub(in crate::shard) fn listen(&mut self, listeners: Vec<Listener<N::Socket>>) {
        self.net.listen(listeners);
    }

    /// Accepts no more, and gives the port back, unless it is the service manager's.
    pub(in crate::shard) fn stop_listening(&mut self) {
        self.let_in(usize::MAX);
        self.net.stop_listening();
        self.door.arrivals.stalled.clear();
        self.door.arrivals.held.clear();
    }

    /// Arms listeners again that failed to accept, after a pause.
    pub(in crate::shard) fn resume_listening(&mut self) {
        // The crowd is over.
        if std::mem::take(&mut self.door.arrivals.recent) < CROWD {
            self.net.set_one_by_one(false);
        }
        for index in std::mem::take(&mut self.door.arrivals.stalled) {
            self.net.accept(index);
        }
    }

    pub(in crate::shard) fn handle_accepted(&mut self, listener: u32, socket: io::Result<N::Socket>, more: bool) {
        match socket {
            Ok(socket) => {
                // While draining, what the kernel accepted before it heard of that is still served: told to come back.
                if self.is_draining() {
                    self.take_connection(listener, socket);
                } else {
                    self.door.arrivals.arrived.push_back((listener, socket));
                }
                self.door.arrivals.recent += 1;
                if !more {
                    self.door.arrivals.held.push(listener);
                }
                let crowd = if self.turns.is_calm(self.pulse.now()) { CALM_CROWD } else { CROWD };
                if self.door.arrivals.arrived.len() >= crowd {
                    self.net.set_one_by_one(true);
                }
            }
            Err(error) => {
                if self.is_draining() {
                    return;
                }
                if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) {
                    // It is to go on one by one.
                    self.door.arrivals.held.push(listener);
                    return;
                }
                // Out of descriptors or memory: the backlog keeps who comes, and the next tick tries again.
                self.door.arrivals.stalled.push(listener);
                self.counters.accept_failed();
                self.log.accept_error(&error, self.pulse.instant());
            }
        }
    }

    /// Lets a turn's share of those in who have arrived: more where no message has been forwarded lately.
    #[inline]
    pub(in crate::shard) fn take_arrivals(&mut self) {
        if self.door.arrivals.is_quiet() && self.door.arrivals.held.is_empty() {
            return;
        }
        self.let_in(if self.turns.is_calm(self.pulse.now()) { ARRIVALS_A_CALM_TURN } else { ARRIVALS_A_TURN });
        if self.door.arrivals.arrived.len() < ARRIVALS_A_TURN {
            for index in std::mem::take(&mut self.door.arrivals.held) {
                self.net.accept(index);
            }
        }
    }

    fn let_in(&mut self, count: usize) {
        for _ in 0..count.min(self.door.arrivals.arrived.len()) {
            let Some((listener, socket)) = self.door.arrivals.arrived.pop_front() else { return };
            self.take_connection(listener, socket);
        }
    }

    fn take_connection(&mut self, listener: u32, socket: N::Socket) {
        let Some(Purpose { echo, tls, .. }) = self.net.purpose(listener) else { return };
        // Fails when the client has gone already.
        let Ok(address) = Transport::<N>::peer_address(&socket) else { return };
        let address = address.ip().to_canonical();
        self.counters.accepted();
        let rules = self.shared.rules.load();
        let proxied = rules.proxies.iter().any(|proxy| proxy.contains(address));
        // Who comes through a trusted proxy is counted when the request has named the client.
        let counted_as = (!proxied && !rules.gate.trusts(address)).then_some(address);
        let counted = self.count_newcomer(counted_as);
        if !counted {
            self.counters.turned_away();
            // Over TLS a handshake would come before a word could be said: that is more than a flood is worth.
            if tls || self.door.arrivals.turned_away >= TURNED_AWAY_MAX {
                self.counters.closed(TURNED_AWAY);
                return;
            }
            self.door.arrivals.turned_away += 1;
        }
        let mut newcomer = self.newcomer(address, Stage::Header(Vec::new()));
        (newcomer.echo, newcomer.tls) = (echo, tls);
        newcomer.admission = if counted { Admission::Counted(counted_as) } else { Admission::TurnedAway };
        let conn = self.insert_connection(socket, newcomer);
        if !counted {
            let due = self.pulse.tick_after(TURNED_AWAY_FOR);
            self.pulse.arm(conn, due);
        }
        let is_at_header = proxied && counted;
        if !is_at_header && !self.begin(conn) {
            return self.end(conn, CloseReason::Gone);
        }
        self.arm(conn);
    }

    /// Counts a connection that has come under all caps, and where it is counted for an address already, under that one's.
    /// `false`: it is over one of them, nobody gives way, and it is not counted.
    fn count_newcomer(&mut self, address: Option<IpAddr>) -> bool {
        let caps = self.shared.rules.load().caps;
        if !try_count(&self.shared.sockets, caps.connections_max) {
            return false;
        }
        let shared = Arc::clone(&self.shared);
        let count = || try_count(&shared.unauthenticated, caps.unauthenticated_max);
        if count() || (self.make_room(None) && count()) {
            if address.is_none_or(|address| self.enter(address)) {
                return true;
            }
            shared.unauthenticated.fetch_sub(1, Relaxed);
        }
        shared.sockets.fetch_sub(1, Relaxed);
        false
    }

    /// What comes behind the PROXY protocol's header, or where none is due: a TLS handshake, or HTTP. `false`: there is
    /// no TLS to be had.
    #[must_use]
    pub(in crate::shard) fn begin(&mut self, conn: Conn) -> bool {
        match self.net[conn].newcomer().is_some_and(|newcomer| newcomer.tls) {
            true => self.begin_handshake(conn),
            false => self.transition(conn, Entry::Http(Step::Reading)).is_some(),
        }
    }

    /// A newcomer from `address`.
    pub(super) fn newcomer(&mut self, address: IpAddr, stage: Stage) -> Box<Newcomer> {
        let serial = self.door.next_serial();
        Box::new(Newcomer::new(serial, self.pulse.instant(), self.pulse.tick(), address, stage))
    }

    /// A new entry of the table, with its deadline set.
    pub(super) fn insert_connection(&mut self, socket: N::Socket, newcomer: Box<Newcomer>) -> Conn {
        let (tick, due) = (self.pulse.tick(), self.pulse.tick_after(self.settings.auth_timeout));
        let (serial, counted) = (newcomer.serial, newcomer.counted());
        let is_turned_away = newcomer.is_turned_away();
        let conn = self.net.open(socket, tick, due, newcomer);
        if !is_turned_away {
            self.door.newcomers.insert(conn, serial, counted);
        }
        self.pulse.arm(conn, due);
        self.note_late_comer(conn);
        conn
    }
}
