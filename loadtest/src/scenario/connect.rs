//! Opens all connections of a scenario and waits until each is authenticated.

use super::{Opening, Relay};
use crate::generator::{Handler, Id, Net, Role, SECOND};
use anyhow::{Result, bail};

/// How long nothing may move.
const STALL: u64 = 15 * SECOND;

/// Phones have even ids, agents odd ones, and the two of a pair stand side by side.
pub(crate) fn role_of(id: Id) -> Role {
    if id.is_multiple_of(2) { Role::Phone } else { Role::Agent }
}

/// The other one of the pair.
pub(crate) fn peer_of(id: Id) -> Id {
    id ^ 1
}

/// All pairs of the relay, connected and authenticated; and how many seconds that took.
pub(crate) fn connect_pairs(relay: &Relay, pairs: usize, opening: Opening) -> Result<(Net, f64)> {
    let mut net = Net::new(relay.target.clone(), pairs * 2)?;
    for token in &relay.tokens[..pairs] {
        net.add(token, Role::Phone);
        net.add(token, Role::Agent);
    }
    let seconds = open_all(&mut net, opening)?;
    Ok((net, seconds))
}

/// Opens all that is not open yet.
pub(crate) fn open_all(net: &mut Net, opening: Opening) -> Result<f64> {
    let start = net.now();
    let mut opener = Opener { next: 0, opening, failure: None, moved_at: start };
    net.run(&mut opener, u64::MAX, |net, opener| opener.failure.is_some() || net.ready() == net.len())?;
    if let Some(why) = opener.failure {
        bail!("{} of {} connections authenticated, then one failed: {why}", net.ready(), net.len());
    }
    Ok((net.now() - start) as f64 / SECOND as f64)
}

struct Opener {
    next: Id,
    opening: Opening,
    failure: Option<String>,
    moved_at: u64,
}

impl Handler for Opener {
    fn handle_ready(&mut self, _net: &mut Net, _id: Id, now: u64) {
        self.moved_at = now;
    }

    fn handle_message(&mut self, _net: &mut Net, _id: Id, _bytes: u64, _head: &[u8], _now: u64) {}

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        self.failure.get_or_insert(why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while self.next < net.len() && net.opening() < self.opening.concurrency && self.failure.is_none() {
            if let Err(error) = net.open(self.next) {
                self.failure = Some(format!("{error:#}"));
            }
            self.next += 1;
        }
        if now > self.moved_at + STALL {
            self.failure.get_or_insert(format!("nothing has moved for {} s", STALL / SECOND));
        }
        now + SECOND
    }
}
