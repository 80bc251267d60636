//! Before a connection has authenticated: accepting, the PROXY protocol, TLS handshakes, HTTP, the first message and the
//! move to the shard that owns its token.

mod accept;
mod answer;
mod asking;
pub(super) mod auth;
pub mod handover;
mod handshake;
pub(super) mod newcomer;
mod newcomers;
mod proxy_protocol;
mod request;

use self::accept::Arrivals;
use self::auth::Claim;
use self::handshake::Handshakes;
use self::newcomers::Newcomers;
use crate::ring::Conn;
use std::collections::HashMap;

/// Who has come and has not authenticated.
pub(super) struct Door<S> {
    arrivals: Arrivals<S>,
    newcomers: Newcomers,
    handshakes: Handshakes,
    /// Connections that wait for an answer of control, by serial number.
    pending_calls: HashMap<u64, Conn>,
    /// Connections whose refusal waits for what other relays have written, by serial number.
    asking: HashMap<u64, (Conn, Claim)>,
    /// The serial number of the connection that came last.
    serial: u64,
}

impl<S> Default for Door<S> {
    fn default() -> Self {
        Self {
            arrivals: Arrivals::default(),
            newcomers: Newcomers::default(),
            handshakes: Handshakes::default(),
            pending_calls: HashMap::new(),
            asking: HashMap::new(),
            serial: 0,
        }
    }
}

impl<S> Door<S> {
    /// Whether nobody waits to be let in, and no handshake for its turn.
    #[must_use]
    pub(super) fn is_quiet(&self) -> bool {
        self.arrivals.is_quiet() && self.handshakes.is_quiet()
    }

    /// A connection waits for no answer of control any more, whether it has come or not.
    pub(super) fn forget_call(&mut self, serial: u64) {
        self.pending_calls.remove(&serial);
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

#[cfg(test)]
impl<S> Door<S> {
    /// How many are turned away, have arrived, are newcomers, wait for control, and have something to do for a handshake.
    pub(super) fn sizes(&self) -> [usize; 5] {
        let (arrivals, calls) = (&self.arrivals, self.pending_calls.len());
        [arrivals.turned_away, arrivals.len(), self.newcomers.len(), calls, self.handshakes.len()]
    }

    /// Those that wait for control.
    pub(super) fn callers(&self) -> impl Iterator<Item = Conn> {
        self.pending_calls.values().copied()
    }
}
