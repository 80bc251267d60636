//! Connections' lives in the log: a line when one has authenticated and one when it has ended, and of a flood a sum.

use super::Shard;
use super::close::CloseReason;
use super::door::newcomer::Newcomer;
use super::mutation::{Mutation, is_made};
use super::net::connection::Seat;
use crate::proto::token::{Role, TokenKey};
use crate::ring::{Conn, Net};
use crate::session::Member;
use crate::telemetry::summed::{Capped, Summed};
use std::net::IpAddr;
use std::time::Duration;

/// Lines a second about connections of one shard. What is beyond it is said in one line.
const LINES_A_SECOND: u32 = 100;
/// How often what can be repeated at will is said.
const FLOOD_PERIOD: Duration = Duration::from_secs(10);

/// The places that log.
pub(super) struct ConnectionLog {
    opened: Capped,
    closed: Capped,
    refused: Summed,
    keys: Summed,
    /// Where the last wrong admin key came from.
    keys_from: Option<IpAddr>,
    pub(super) accept_errors: Summed,
}

impl Default for ConnectionLog {
    fn default() -> Self {
        Self {
            opened: Capped::new(LINES_A_SECOND),
            closed: Capped::new(LINES_A_SECOND),
            refused: Summed::new(FLOOD_PERIOD),
            keys: Summed::new(FLOOD_PERIOD),
            keys_from: None,
            accept_errors: Summed::new(FLOOD_PERIOD),
        }
    }
}

impl<N: Net> Shard<N> {
    /// A connection has authenticated.
    pub(super) fn log_opened(&mut self, newcomer: &Newcomer, key: TokenKey, role: Role) {
        if self.log.opened.handle_event() {
            let (conn, address) = (newcomer.serial(), newcomer.address());
            tracing::info!(shard = self.id, conn, token = %key.id(), role = role.name(), %address, "opened");
        }
    }

    /// A connection ends.
    pub(super) fn log_end(&mut self, conn: Conn, seat: Option<Seat>, reason: CloseReason) {
        self.counters.closed.add(reason.label(), 1 + u64::from(is_made(Mutation::CountedTwice)));
        let code = reason.code();
        let Some((key, member)) = seat.and_then(|seat| self.sessions.member(seat, conn)) else {
            let conn = self.net[conn].newcomer().map(Newcomer::serial);
            tracing::debug!(shard = self.id, conn, reason = reason.text(), code, "closed before authentication");
            return;
        };
        if self.log.closed.handle_event() {
            let Member { serial: conn, role, since, messages, bytes, .. } = *member;
            let seconds = self.pulse.now().saturating_sub(since).as_secs();
            let (token, reason) = (key.id(), reason.label());
            let role = role.name();
            tracing::info!(shard = self.id, conn, %token, role, reason, code, messages, bytes, seconds, "closed");
        }
    }

    /// An authentication was refused.
    pub(super) fn log_refused(&mut self, serial: u64, address: IpAddr, message: &str) {
        tracing::debug!(shard = self.id, conn = serial, %address, why = message, "authentication refused");
        if let Some(count) = self.log.refused.handle_event(self.pulse.instant()) {
            say_refused(self.id, count);
        }
    }

    /// An admin key was wrong, or not looked at after too many of those.
    pub(super) fn log_wrong_key(&mut self, address: IpAddr) {
        self.log.keys_from = Some(address);
        if let Some(count) = self.log.keys.handle_event(self.pulse.instant()) {
            self.say_wrong_keys(count);
        }
    }

    fn say_wrong_keys(&self, count: u64) {
        let address = self.log.keys_from.map(tracing::field::display);
        tracing::warn!(shard = self.id, count, address, "wrong admin keys");
    }

    /// A connection could not be accepted.
    pub(super) fn log_accept_error(&mut self, error: &std::io::Error) {
        if let Some(count) = self.log.accept_errors.handle_event(self.pulse.instant()) {
            tracing::warn!(shard = self.id, count, %error, "cannot accept connections");
        }
    }

    /// Called once a second: says what was held back.
    pub(super) fn log_held_back(&mut self) {
        let now = self.pulse.instant();
        let (refused, accept_errors) = (self.log.refused.poll_line(now), self.log.accept_errors.poll_line(now));
        let keys = self.log.keys.poll_line(now);
        self.say_held_back(refused, keys, accept_errors);
    }

    /// Called when the shard ends: says what is still held back.
    pub(super) fn log_last(&mut self) {
        let (refused, accept_errors) = (self.log.refused.take_held(), self.log.accept_errors.take_held());
        let keys = self.log.keys.take_held();
        self.say_held_back(refused, keys, accept_errors);
    }

    fn say_held_back(&mut self, refused: Option<u64>, keys: Option<u64>, accept_errors: Option<u64>) {
        let (opened, closed) = (self.log.opened.end_period(), self.log.closed.end_period());
        if opened + closed != 0 {
            tracing::info!(shard = self.id, opened, closed, "more connections came and went, too many for a line each");
        }
        if let Some(count) = refused {
            say_refused(self.id, count);
        }
        if let Some(count) = keys {
            self.say_wrong_keys(count);
        }
        if let Some(count) = accept_errors {
            tracing::warn!(shard = self.id, count, "could not accept connections");
        }
    }
}

fn say_refused(shard: u16, count: u64) {
    tracing::info!(shard, count, "authentications refused");
}
