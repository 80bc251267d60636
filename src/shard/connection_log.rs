//! Connections' lives in the log: a line when one has authenticated and one when it has ended, and of a flood a sum.

use super::close::CloseReason;
use super::door::newcomer::Newcomer;
use crate::proto::token::{Role, TokenKey};
use crate::ring::Conn;
use crate::session::Member;
use crate::telemetry::summed::{Capped, Summed};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Lines a second about connections of one shard. What is beyond it is said in one line.
const LINES_A_SECOND: u32 = 100;
/// How often what can be repeated at will is said.
const FLOOD_PERIOD: Duration = Duration::from_secs(10);

/// The places that log.
pub(super) struct ConnectionLog {
    shard: u16,
    opened: Capped,
    closed: Capped,
    refused: Summed,
    keys: Summed,
    /// Where the last wrong admin key came from.
    keys_from: Option<IpAddr>,
    accept_errors: Summed,
}

impl ConnectionLog {
    /// That of a shard.
    pub(super) fn new(shard: u16) -> Self {
        Self {
            shard,
            opened: Capped::new(LINES_A_SECOND),
            closed: Capped::new(LINES_A_SECOND),
            refused: Summed::new(FLOOD_PERIOD),
            keys: Summed::new(FLOOD_PERIOD),
            keys_from: None,
            accept_errors: Summed::new(FLOOD_PERIOD),
        }
    }

    /// A connection has authenticated.
    pub(super) fn opened(&mut self, newcomer: &Newcomer, key: TokenKey, role: Role) {
        if self.opened.handle_event() {
            let (conn, address) = (newcomer.serial(), newcomer.address());
            tracing::info!(shard = self.shard, conn, token = %key.id(), role = role.name(), %address, "opened");
        }
    }

    /// A connection ends that is in no session; `conn` is its serial number.
    pub(super) fn closed_early(&mut self, conn: Option<u64>, reason: CloseReason) {
        let (code, reason) = (reason.code(), reason.text());
        tracing::debug!(shard = self.shard, conn, reason, code, "closed before authentication");
    }

    /// A connection ends that was in the session of this token, at `now`.
    pub(super) fn closed(&mut self, key: TokenKey, member: &Member<Conn>, reason: CloseReason, now: Duration) {
        if self.closed.handle_event() {
            let Member { serial: conn, role, since, messages, bytes, .. } = *member;
            let seconds = now.saturating_sub(since).as_secs();
            let (token, code, reason) = (key.id(), reason.code(), reason.label());
            let (shard, role) = (self.shard, role.name());
            tracing::info!(shard, conn, %token, role, reason, code, messages, bytes, seconds, "closed");
        }
    }

    /// An authentication was refused.
    pub(super) fn refused(&mut self, conn: u64, address: IpAddr, why: &str, now: Instant) {
        tracing::debug!(shard = self.shard, conn, %address, why, "authentication refused");
        if let Some(count) = self.refused.handle_event(now) {
            say_refused(self.shard, count);
        }
    }

    /// An admin key was wrong, or not looked at after too many of those.
    pub(super) fn wrong_key(&mut self, address: IpAddr, now: Instant) {
        self.keys_from = Some(address);
        if let Some(count) = self.keys.handle_event(now) {
            self.say_wrong_keys(count);
        }
    }

    fn say_wrong_keys(&self, count: u64) {
        let address = self.keys_from.map(tracing::field::display);
        tracing::warn!(shard = self.shard, count, address, "wrong admin keys");
    }

    /// A connection could not be accepted.
    pub(super) fn accept_error(&mut self, error: &io::Error, now: Instant) {
        if let Some(count) = self.accept_errors.handle_event(now) {
            tracing::warn!(shard = self.shard, count, %error, "cannot accept connections");
        }
    }

    /// Called once a second: says what was held back.
    pub(super) fn end_second(&mut self, now: Instant) {
        let (refused, accept_errors) = (self.refused.poll_line(now), self.accept_errors.poll_line(now));
        let keys = self.keys.poll_line(now);
        self.say_held_back(refused, keys, accept_errors);
    }

    /// Called when the shard ends: says what is still held back.
    pub(super) fn end(&mut self) {
        let (refused, accept_errors) = (self.refused.take_held(), self.accept_errors.take_held());
        let keys = self.keys.take_held();
        self.say_held_back(refused, keys, accept_errors);
    }

    fn say_held_back(&mut self, refused: Option<u64>, keys: Option<u64>, accept_errors: Option<u64>) {
        let (opened, closed) = (self.opened.end_period(), self.closed.end_period());
        let shard = self.shard;
        if opened + closed != 0 {
            tracing::info!(shard, opened, closed, "more connections came and went, too many for a line each");
        }
        if let Some(count) = refused {
            say_refused(shard, count);
        }
        if let Some(count) = keys {
            self.say_wrong_keys(count);
        }
        if let Some(count) = accept_errors {
            tracing::warn!(shard, count, "could not accept connections");
        }
    }
}

fn say_refused(shard: u16, count: u64) {
    tracing::info!(shard, count, "authentications refused");
}
