//! HTTP answers on their way out. A connection has one at a time: the next request is read when the last answer has left,
//! and what is part of the program leaves piece by piece, so that a client that does not read holds next to nothing.

use super::newcomer::{Newcomer, Step};
use crate::http::{self, Reply};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::ANSWER_PIECE_BYTES;
use crate::shard::close::CloseReason;
use crate::shard::counters::KeyRefused;
use crate::shard::net::connection::Entry;
use crate::shard::shared::guesses::Guesses;
use std::net::IpAddr;
use std::time::Duration;

impl<N: Net> Shard<N> {
    /// Queues a response; the connection goes on if the client wants it to, when all of it has left.
    pub(super) fn respond(&mut self, conn: Conn, reply: impl Into<Reply>) {
        let Some(http) = self.net[conn].newcomer_mut().and_then(Newcomer::http_mut) else { return };
        http.answered = true;
        let keep_alive = http.keep_alive;
        let Reply { head, body } = reply.into();
        let (piece, body) = body.split_at(body.len().min(ANSWER_PIECE_BYTES));
        let is_last = !keep_alive && body.is_empty();
        self.transition(conn, Entry::Http(Step::Answering(body)));
        self.push_response(conn, [&head, piece].concat());
        if is_last {
            self.begin_closing(conn, CloseReason::Http);
        } else {
            self.await_client(conn);
        }
    }

    /// Queues a response after which the connection is closed.
    pub(super) fn respond_last(&mut self, conn: Conn, response: Vec<u8>) {
        self.push_response(conn, response);
        self.begin_closing(conn, CloseReason::Http);
    }

    /// Holds a response back for a while.
    pub(super) fn hold_answer(&mut self, conn: Conn, reply: Reply, delay: Duration) {
        if delay.is_zero() {
            return self.respond(conn, reply);
        }
        self.transition(conn, Entry::Http(Step::Held(reply)));
        let due = self.pulse.tick_after(delay);
        self.net[conn].due = due;
        self.pulse.arm(conn, due);
    }

    /// Sends the response that [`Shard::hold_answer`] held back.
    pub(in crate::shard) fn release_answer(&mut self, conn: Conn) {
        let Some(http) = self.net[conn].newcomer_mut().and_then(Newcomer::http_mut) else { return };
        let reply = http.take_held();
        self.respond(conn, reply);
        self.arm(conn);
    }

    /// What was queued of an answer has left: the next piece follows, or the next request.
    pub(in crate::shard) fn go_on_answering(&mut self, conn: Conn) {
        let Some(http) = self.net[conn].newcomer_mut().and_then(Newcomer::http_mut) else { return };
        let (keep_alive, unqueued) = (http.keep_alive, http.unqueued());
        if !unqueued.is_empty() {
            let (piece, rest) = unqueued.split_at(unqueued.len().min(ANSWER_PIECE_BYTES));
            http.set_unqueued(rest);
            let is_last = rest.is_empty() && !keep_alive;
            self.net.push_control(conn, piece);
            return match is_last {
                true => self.begin_closing(conn, CloseReason::Http),
                false => self.await_client(conn),
            };
        }
        if !keep_alive {
            return self.begin_closing(conn, CloseReason::Http);
        }
        self.transition(conn, Entry::Http(Step::Reading));
        self.await_client(conn);
        let peer = self.net[conn].newcomer().map(|newcomer| newcomer.peer);
        if peer.is_some_and(|peer| self.shared.rules.load().gate.trusts(peer)) {
            self.uncount_client(conn);
        }
        self.resume_requests(conn);
        self.arm(conn);
    }

    /// From now on it is the client that is waited for.
    fn await_client(&mut self, conn: Conn) {
        let due = self.pulse.tick_after(self.settings.auth_timeout);
        let connection = &mut self.net[conn];
        connection.due = due;
        if let Some(newcomer) = connection.newcomer_mut() {
            newcomer.await_client(self.pulse.tick());
        }
        self.pulse.arm(conn, due);
    }

    /// Responses go the way of control frames, in the order that they come in: a client that sends a ping right behind
    /// its request for an upgrade must not read the pong before the response.
    pub(super) fn push_response(&mut self, conn: Conn, mut response: Vec<u8>) {
        self.counters.responded(&response);
        if self.net[conn].newcomer().is_some_and(|newcomer| newcomer.tls) {
            self.shared.rules.load().gate.add_transport_security(&mut response);
        }
        self.net.push_control(conn, &response);
    }

    /// Answers a request that showed a key, but not the admin key: who goes on trying waits longer and longer.
    pub(super) fn refuse_key(&mut self, conn: Conn, reply: Reply) {
        let Some(newcomer) = self.net[conn].newcomer() else { return };
        let address = newcomer.address;
        self.counters.key_refused(KeyRefused::Wrong);
        self.log.wrong_key(address, self.pulse.instant());
        let delay = self.shared.guesses.delay_after(address, self.pulse.unix_ms());
        self.hold_answer(conn, reply, delay);
    }

    /// Answers a request that showed a key, from an address that has shown too many wrong ones.
    pub(super) fn refuse_keys(&mut self, conn: Conn, address: IpAddr, wait: Duration) {
        self.counters.key_refused(KeyRefused::NotLookedAt);
        self.log.wrong_key(address, self.pulse.instant());
        let keep_alive = self.net[conn].newcomer().and_then(Newcomer::http).is_some_and(|http| http.keep_alive);
        let (held, seconds) = Guesses::told_after(wait);
        self.hold_answer(conn, http::too_many_keys(seconds, keep_alive).into(), held);
    }
}
