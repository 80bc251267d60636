//! HTTP on the relay's port: upgrades, health, and calls that the control thread answers.

use super::Shard;
use super::close::CloseReason;
use super::connection::Phase;
use crate::control::message::{ApiAnswer, ApiCall, Request};
use crate::http::{self, Action, Parsed};
use crate::ring::chunk::{Chunk, Heap};
use std::net::IpAddr;

/// When a client that met a cap should come back, in seconds.
const RETRY_AFTER_SEC: u64 = 10;

impl Shard {
    pub(super) fn handle_request_bytes(&mut self, conn: u32, chunk: Chunk) {
        let connection = &mut self.connections[conn as usize];
        let is_reading = connection.phase() == Phase::Http;
        let Some(early) = &mut connection.early else { return };
        if early.turned_away {
            let response = http::unavailable(
                "FULL",
                "the relay is full, or this address has too many connections that have not authenticated",
                RETRY_AFTER_SEC,
            );
            return self.respond_last(conn, response);
        }
        if early.request.is_empty() && is_reading {
            // Nearly always one piece is one request: it is parsed where it is, and only a rest is kept.
            return self.handle_requests(conn, chunk.as_slice());
        }
        early.request.extend_from_slice(chunk.as_slice());
        if is_reading {
            let bytes = std::mem::take(&mut early.request);
            self.handle_requests(conn, &bytes);
        }
    }

    /// Answers the requests in `bytes` one after the other, until one has to wait for control.
    fn handle_requests(&mut self, conn: u32, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let connection = &self.connections[conn as usize];
            if connection.phase() != Phase::Http || connection.pauses.any() {
                break;
            }
            let Some(early) = &mut self.connections[conn as usize].early else { return };
            let rules = self.shared.rules.load();
            let gate = if early.echo { &rules.echo_gate } else { &rules.gate };
            match gate.parse(self.clock.unix_ms() / 1000, bytes, early.address) {
                Err(refusal) => return self.respond_last(conn, refusal.response),
                Ok(Parsed::NeedMore) => break,
                Ok(Parsed::Request { action, consumed, keep_alive, head_only, client }) => {
                    (early.keep_alive, early.head_only) = (keep_alive && self.drain.is_none(), head_only);
                    bytes = &bytes[consumed..];
                    if !self.count_client(conn, client) {
                        let text = "this address has too many connections that have not authenticated";
                        return self.respond_last(conn, http::unavailable("FULL", text, RETRY_AFTER_SEC));
                    }
                    if let Action::Upgrade { accept } = action {
                        return self.upgrade(conn, &accept, bytes);
                    }
                    self.handle_action(conn, action);
                }
            }
        }
        if let Some(early) = &mut self.connections[conn as usize].early {
            early.request.extend_from_slice(bytes);
        }
    }

    /// Goes on with requests that had to wait until earlier responses were taken.
    pub(super) fn resume_requests(&mut self, conn: u32) {
        let Some(early) = &mut self.connections[conn as usize].early else { return };
        let bytes = std::mem::take(&mut early.request);
        self.handle_requests(conn, &bytes);
    }

    /// Counts a client that a trusted proxy named, once. `false`: it has too many connections.
    pub(super) fn count_client(&mut self, conn: u32, client: IpAddr) -> bool {
        let max = self.shared.rules.load().caps.unauthenticated_per_address_max;
        let Some(early) = &mut self.connections[conn as usize].early else { return true };
        if early.counted.is_none() {
            if !self.shared.addresses.try_enter(client, max) {
                return false;
            }
            early.counted = Some(client);
            early.address = client;
        }
        true
    }

    fn upgrade(&mut self, conn: u32, accept: &[u8; 28], rest: &[u8]) {
        let rest = rest.to_vec();
        let connection = &mut self.connections[conn as usize];
        let echo = connection.early.as_ref().is_some_and(|early| early.echo);
        if let Some(early) = &mut connection.early {
            let now = self.clock.instant();
            self.cells.handshake.record(now.saturating_duration_since(early.since), 1);
            early.since = now;
        }
        self.transition(conn, if echo { Phase::Echo } else { Phase::Auth });
        if echo {
            let due = self.clock.tick_after(self.settings.ping_interval);
            self.connections[conn as usize].due = due;
            self.wheel.arm(conn, due);
        }
        self.push_response(conn, &http::switching(accept));
        if !rest.is_empty() {
            self.handle_bytes(conn, Chunk::Heap(Heap::from(rest)));
        }
    }

    fn handle_action(&mut self, conn: u32, action: Action) {
        let Some(early) = &mut self.connections[conn as usize].early else { return };
        let (keep_alive, head_only) = (early.keep_alive, early.head_only);
        match action {
            Action::Respond(response) => self.respond(conn, response),
            Action::Health => {
                let report = self.shared.health_report(self.clock.instant());
                self.respond(conn, http::health(&report, keep_alive, head_only));
            }
            Action::Ready => {
                let unready = self.shared.life.unready(self.clock.instant());
                self.respond(conn, http::ready(unready, keep_alive, head_only));
            }
            Action::Call(call) => {
                let request = Request::Call { from: early.caller(self.id), call: with_client(call, early.address) };
                let serial = early.serial;
                if self.ask_control(request) {
                    self.calls.insert(serial, conn);
                    self.transition(conn, Phase::Call);
                } else {
                    let text = "the relay's store is busy";
                    self.respond_last(conn, http::unavailable("STORE_UNAVAILABLE", text, RETRY_AFTER_SEC));
                }
            }
            Action::Upgrade { .. } => {}
        }
    }

    /// Control's answer to a call; the connection may have ended meanwhile, or be on its way there.
    pub(super) fn handle_answer(&mut self, serial: u64, answer: &ApiAnswer) {
        let Some(&conn) = self.calls.get(&serial) else { return };
        if !self.transition(conn, Phase::Http) {
            return;
        }
        let Some(early) = &self.connections[conn as usize].early else { return };
        let response = http::answer(answer, early.keep_alive, early.head_only);
        self.respond(conn, response);
        self.resume_requests(conn);
        self.arm(conn);
    }

    /// Responses go the way of control frames, in the order that they come in: a client that sends a ping right behind
    /// its request for an upgrade must not read the pong before the response.
    fn push_response(&mut self, conn: u32, response: &[u8]) {
        self.cells.responded(response);
        self.push_control(conn, response);
    }

    /// Queues a response; the connection goes on if the client wants it to.
    fn respond(&mut self, conn: u32, response: Vec<u8>) {
        self.push_response(conn, &response);
        let due = self.clock.tick_after(self.settings.auth_timeout);
        let connection = &mut self.connections[conn as usize];
        connection.due = due;
        if connection.early.as_ref().is_some_and(|early| early.keep_alive) {
            self.wheel.arm(conn, due);
        } else {
            self.begin_closing(conn, CloseReason::Http);
        }
    }

    /// Queues a response after which the connection is closed.
    fn respond_last(&mut self, conn: u32, response: Vec<u8>) {
        self.push_response(conn, &response);
        self.begin_closing(conn, CloseReason::Http);
    }
}

/// A registration counts for the client that asked.
fn with_client(call: ApiCall, client: IpAddr) -> ApiCall {
    match call {
        ApiCall::Register { .. } => ApiCall::Register { address: client },
        other => other,
    }
}
