//! HTTP on the relay's port: upgrades, health, and calls that the control thread answers.

use super::newcomer::{Http, Newcomer, Stage, Step};
use crate::api::{ApiAnswer, ApiCall, ErrorCode};
use crate::control::message::Request;
use crate::http::{self, Action, Parsed, Peer, REQUEST_BYTES_MAX};
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::net::connection::{Entry, Phase};
use std::net::IpAddr;

/// When a client that met a cap should come back, in seconds.
const RETRY_AFTER_SEC: u64 = 10;
/// What who is let in only to be turned away is told.
const TURNED_AWAY: &str = "the relay is full, or this address has too many connections that have not authenticated";

impl<N: Net> Shard<N> {
    pub(in crate::shard) fn handle_request_bytes(&mut self, conn: Conn, chunk: Chunk) {
        let connection = &mut self.net[conn];
        let is_reading = connection.phase() == Phase::Http;
        let Some(newcomer) = connection.newcomer_mut() else { return };
        if newcomer.is_turned_away() {
            return self.respond_last(conn, http::try_later(ErrorCode::Full, TURNED_AWAY, RETRY_AFTER_SEC, false));
        }
        let Some(http) = newcomer.http_mut() else { return };
        if http.unread.is_empty() && is_reading {
            // Nearly always one piece is one request: it is parsed where it is, and only a rest is kept.
            return self.handle_requests(conn, chunk.as_slice());
        }
        let seen = http.unread.len();
        http.unread.extend_from_slice(chunk.as_slice());
        if is_reading && http.is_worth_parsing(seen) {
            let bytes = std::mem::take(&mut http.unread);
            self.handle_requests(conn, &bytes);
        }
    }

    /// Answers the request at the beginning of `bytes`, if it is whole, and keeps what is behind it.
    fn handle_requests(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return };
        let rules = self.shared.rules.load();
        let gate = if newcomer.echo { &rules.echo_gate } else { &rules.gate };
        let from = Peer { address: newcomer.peer, tls: newcomer.tls };
        let Some(http) = newcomer.http_mut() else { return };
        let (action, rest, client, shows_key) = match gate.parse(self.pulse.unix_ms() / 1000, bytes, from) {
            Err(refusal) => return self.respond_last(conn, refusal.response),
            Ok(Parsed::NeedMore { bytes: needed }) => {
                // A head that is still to end is worth a look again when it is twice as long.
                http.parse_at = needed.unwrap_or(2 * bytes.len()).min(REQUEST_BYTES_MAX);
                return http.unread.extend_from_slice(bytes);
            }
            Ok(Parsed::Request { action, consumed, keep_alive, head_only, shows_key, client }) => {
                (http.keep_alive, http.head_only) = (keep_alive && self.drain.is_none(), head_only);
                (action, &bytes[consumed..], client, shows_key)
            }
        };
        let keep_alive = http.keep_alive;
        if let Action::Upgrade { accept } = &action
            && self.count_client(conn, client)
        {
            return self.upgrade(conn, accept, rest);
        }
        if let Some(http) = self.net[conn].newcomer_mut().and_then(Newcomer::http_mut) {
            http.parse_at = 0;
            http.unread.extend_from_slice(rest);
        }
        if !self.count_client(conn, client) {
            let text = "this address has too many connections that have not authenticated";
            return self.respond(conn, http::try_later(ErrorCode::Full, text, RETRY_AFTER_SEC, keep_alive));
        }
        let wait = shows_key.then(|| self.shared.guesses.wait(client, self.pulse.unix_ms())).flatten();
        match wait {
            Some(wait) => self.refuse_keys(conn, client, wait),
            None => self.handle_action(conn, action),
        }
    }

    /// Goes on with what came behind a request that has been answered.
    pub(in crate::shard) fn resume_requests(&mut self, conn: Conn) {
        let Some(http) = self.net[conn].newcomer_mut().and_then(Newcomer::http_mut) else { return };
        let bytes = std::mem::take(&mut http.unread);
        if !bytes.is_empty() {
            self.handle_requests(conn, &bytes);
        }
    }

    fn upgrade(&mut self, conn: Conn, accept: &[u8; 28], rest: &[u8]) {
        let rest = rest.to_vec();
        let Some(newcomer) = self.net[conn].newcomer_mut() else { return };
        let (echo, now) = (newcomer.echo, self.pulse.instant());
        self.counters.upgraded(newcomer.took(now));
        newcomer.since = now;
        newcomer.await_client(self.pulse.tick());
        self.transition(conn, Entry::Stage(if echo { Stage::Echo } else { Stage::Auth }));
        if echo {
            let due = self.pulse.tick_after(self.settings.ping_interval);
            self.net[conn].due = due;
            self.pulse.arm(conn, due);
        }
        self.push_response(conn, http::switching(accept));
        if !rest.is_empty() {
            self.handle_bytes(conn, Chunk::Owned(OwnedBuf::from(rest)));
        }
    }

    fn handle_action(&mut self, conn: Conn, action: Action) {
        let Some(newcomer) = self.net[conn].newcomer() else { return };
        let Some(&Http { keep_alive, head_only, .. }) = newcomer.http() else { return };
        match action {
            Action::Respond(response) => self.respond(conn, response),
            Action::Health => {
                let report = self.shared.health_report(self.pulse.instant());
                self.respond(conn, http::health(&report, keep_alive, head_only));
            }
            Action::Ready => {
                let unready = self.shared.lifecycle.unready(self.pulse.instant());
                self.respond(conn, http::ready(unready, keep_alive, head_only));
            }
            Action::Call(call) => {
                let request =
                    Request::Call { from: newcomer.caller(self.id), call: with_client(*call, newcomer.address) };
                let serial = newcomer.serial;
                if self.ask_control(request) {
                    self.door.pending_calls.insert(serial, conn);
                    self.transition(conn, Entry::Http(Step::AwaitingControl));
                } else {
                    let text = "the relay's store is busy";
                    self.respond(conn, http::try_later(ErrorCode::StoreUnavailable, text, RETRY_AFTER_SEC, keep_alive));
                }
            }
            Action::WrongKey(reply) => self.refuse_key(conn, reply),
            // Counted for nobody: the cap was told of.
            Action::Upgrade { .. } => {}
        }
    }

    /// Control's answer to a call; the connection may have ended meanwhile, or be on its way there.
    pub(in crate::shard) fn handle_answer(&mut self, serial: u64, answer: &ApiAnswer) {
        let Some(&conn) = self.door.pending_calls.get(&serial) else { return };
        if self.transition(conn, Entry::Http(Step::Reading)).is_none() {
            return;
        }
        let http = self.net[conn].newcomer().and_then(Newcomer::http);
        let Some(&Http { keep_alive, head_only, .. }) = http else { return };
        self.respond(conn, http::answer(answer, keep_alive, head_only));
        self.arm(conn);
    }
}

/// A registration counts for the client that asked.
fn with_client(call: ApiCall, client: IpAddr) -> ApiCall {
    match call {
        ApiCall::Register { .. } => ApiCall::Register { address: client },
        other => other,
    }
}
