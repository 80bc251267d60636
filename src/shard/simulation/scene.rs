//! What the clients of a simulation share: its seed, its plan, where they connect, and what is known of them.

use super::Digest;
use super::control::Control;
use super::ledger::{Ledger, Message};
use super::plan::Plan;
use super::stream::Stream;
use crate::ring::simulated::{Clock, Link, Port, Random};
use std::net::SocketAddr;

/// Whether clients begin anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Busy,
    Calm,
}

/// Where a client comes in, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Front,
    Echo,
    /// From a proxy that begins with a header of the PROXY protocol.
    Proxied,
    /// From a proxy that names the client in each request.
    Trusted,
}

/// The address of the proxy that begins with a header.
pub(super) const PROXY: [u8; 4] = [10, 0, 0, 1];
/// The address of the proxy that names the client in each request.
pub(super) const TRUSTED_PROXY: [u8; 4] = [10, 0, 1, 1];
/// Clients come from so many addresses.
const HOSTS: usize = 5;

/// See the module.
pub(super) struct Scene {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) digest: Digest,
    pub(super) control: Control,
    pub(super) mood: Mood,
    /// By shard.
    pub(super) ports: Vec<Port>,
    pub(super) tls_ports: Vec<Port>,
    pub(super) echo_ports: Vec<Port>,
}

impl Scene {
    /// A client connects to any of the shards; `None`: nobody listens any more.
    pub(super) fn connect(&mut self, door: Door) -> Option<Stream> {
        let address = match door {
            Door::Front | Door::Echo => [192, 0, 2, self.random.between(1, HOSTS) as u8],
            Door::Proxied => PROXY,
            Door::Trusted => TRUSTED_PROXY,
        };
        let address = (!self.random.chance(10)).then(|| SocketAddr::from((address, 40_000)));
        let room = |random: &mut Random| random.pick(&[1_000, 20_000, 200_000]);
        let link = Link {
            up_bytes: room(&mut self.random),
            down_bytes: room(&mut self.random),
            acknowledged_ahead: self.random.pick(&[0, 500, 20_000]),
        };
        let is_tls = door == Door::Front && self.plan.has_tls && self.random.chance(700);
        let ports = match door {
            Door::Echo => &self.echo_ports,
            _ if is_tls => &self.tls_ports,
            _ => &self.ports,
        };
        let wire = ports[self.random.below(ports.len())].connect(address, link)?;
        // Now and then one does not know that TLS is spoken there.
        Some(Stream::new(wire, is_tls && !self.random.chance(30)))
    }

    /// How long the next message is.
    pub(super) fn message_bytes(&mut self) -> usize {
        let most = match self.random.below(20) {
            0 => self.plan.message_bytes,
            1 | 2 => self.plan.message_bytes.min(20_000),
            3..=6 => self.plan.message_bytes.min(3_000),
            _ => 300,
        };
        self.random.between(Message::BYTES_MIN, most)
    }

    /// A token of those who do not behave.
    pub(super) fn rogue_token(&mut self) -> usize {
        self.plan.tokens + self.random.below(self.plan.rogue_tokens)
    }
}
