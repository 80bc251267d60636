//! Opens all connections of a scenario and waits until each is authenticated.

use super::{Opening, Relay, Run};
use crate::generator::{Handler, Id, Net, Role, SECOND};
use anyhow::{Result, bail};

/// How long nothing may move.
const STALL: u64 = 15 * SECOND;

/// Phones have even ids, agents odd ones, and the two of a pair are side by side.
pub(crate) fn role_of(id: Id) -> Role {
    if id.is_multiple_of(2) { Role::Phone } else { Role::Agent }
}

/// The other one of the pair.
pub(crate) fn peer_of(id: Id) -> Id {
    id ^ 1
}

/// Adds the first pairs of the relay's tokens, all closed.
pub(crate) fn add_pairs(net: &mut Net, relay: &Relay, pairs: usize) {
    for token in &relay.tokens[..pairs] {
        net.add(token, Role::Phone);
        net.add(token, Role::Agent);
    }
}

/// So many pairs, connected and authenticated; and how many seconds that took.
pub(crate) fn connect_pairs(run: Run<'_>, pairs: usize) -> Result<(Net, f64)> {
    let mut net = Net::new(run.relay.target.clone(), pairs * 2)?;
    add_pairs(&mut net, run.relay, pairs);
    let seconds = open_all(run, &mut net)?;
    Ok((net, seconds))
}

/// Opens all connections, and how many seconds that took. They are all closed before.
pub(crate) fn open_all(run: Run<'_>, net: &mut Net) -> Result<f64> {
    run.progress.begin("connects", net.len() as u64);
    let start = net.now();
    let mut opener = Opener { run, start, next: 0, failure: None, moved_at: start, shown_at: 0 };
    net.run(&mut opener, u64::MAX, |net, opener| opener.failure.is_some() || net.ready() == net.len())?;
    if let Some(why) = opener.failure {
        bail!("{} of {} connections authenticated, then one failed: {why}", net.ready(), net.len());
    }
    Ok((net.now() - start) as f64 / SECOND as f64)
}

struct Opener<'a> {
    run: Run<'a>,
    start: u64,
    next: Id,
    failure: Option<String>,
    moved_at: u64,
    shown_at: u64,
}

impl Opener<'_> {
    /// When the next connection is due.
    fn due(&self, connections: usize) -> u64 {
        let ramp = self.run.opening.ramp_up.as_nanos() as f64;
        self.start + (ramp * self.next as f64 / connections as f64) as u64
    }
}

impl Handler for Opener<'_> {
    fn handle_ready(&mut self, _net: &mut Net, _id: Id, now: u64) {
        self.moved_at = now;
    }

    fn handle_message(&mut self, _net: &mut Net, _id: Id, _bytes: u64, _head: &[u8], _now: u64) {}

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        self.failure.get_or_insert(why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        let Opening { concurrency, .. } = self.run.opening;
        let all = net.len();
        while self.next < all && net.opening() < concurrency && now >= self.due(all) && self.failure.is_none() {
            if let Err(error) = net.open(self.next) {
                self.failure = Some(format!("{error:#}"));
            }
            self.next += 1;
            self.moved_at = now;
        }
        if now > self.moved_at + STALL && now > self.due(all) {
            self.failure.get_or_insert(format!("nothing has moved for {} s", STALL / SECOND));
        }
        if now > self.shown_at + SECOND / 10 {
            self.run.progress.show(net.ready() as u64, format!("{} of {all}", net.ready()));
            self.shown_at = now;
        }
        let waits_for_time = self.next < all && net.opening() < concurrency;
        if waits_for_time { self.due(all).min(now + SECOND) } else { now + SECOND }
    }
}
