//! How connections end: politely with a close frame, or at once.

use super::Shard;
use super::bounds::{LINGER, LINGERING_MAX, TICK};
use super::close::CloseReason;
use super::connection::Phase;
use crate::control::message::Request;
use crate::proto::frame::{self, Opcode};
use crate::ring::{Conn, Net};
use crate::session::message::frame_of;
use crate::tls::outcome::Outcome;
use std::sync::atomic::Ordering::Relaxed;

impl<N: Net> Shard<N> {
    /// Ends a connection with a close frame behind what is queued. Its session is left now; what still comes is read
    /// and thrown away for a while, so that a reset does not overtake the close frame.
    pub(super) fn close(&mut self, conn: Conn, reason: CloseReason) {
        let connection = &self.connections[conn];
        if matches!(connection.phase(), Phase::Closing | Phase::Dead) {
            return;
        }
        // Before and in a TLS handshake there is no way to say anything.
        let code = reason.code().filter(|_| !matches!(connection.phase(), Phase::Header | Phase::Handshake));
        let Some(code) = code else { return self.end(conn, reason) };
        let is_http =
            matches!(connection.phase(), Phase::Http | Phase::AwaitingControl | Phase::Held | Phase::Answering);
        if !is_http {
            // A close without a code is answered without one (RFC 6455, section 5.5.1).
            let payload = match reason {
                CloseReason::Client(None) => Vec::new(),
                CloseReason::Client(Some(code)) => code.to_be_bytes().to_vec(),
                _ => frame::close_payload(code, reason.text()),
            };
            self.push_own(conn, frame_of(Opcode::Close, &payload));
        }
        self.begin_closing(conn, reason);
    }

    /// Leaves the session, sends what is queued, then shuts the write side and waits for the client's end. Without a
    /// close frame of its own.
    pub(super) fn begin_closing(&mut self, conn: Conn, reason: CloseReason) {
        if !self.transition(conn, Phase::Closing) {
            return;
        }
        self.log_end(conn, reason);
        self.leave_session(conn);
        // What a flood leaves behind does not stay for long.
        let linger = if self.counters.closing < LINGERING_MAX { LINGER } else { TICK };
        let due = self.pulse.tick_after(linger);
        let connection = &mut self.connections[conn];
        connection.due = due;
        connection.pauses = Default::default();
        connection.inbox = None;
        if let Some(early) = &mut connection.early {
            early.waits_since = self.pulse.tick();
        }
        self.pulse.arm(conn, due);
        self.finish_outbox(conn);
        // A connection that was paused is received from by nobody.
        self.arm(conn);
    }

    /// Ends a connection at once.
    pub(super) fn end(&mut self, conn: Conn, reason: CloseReason) {
        let phase = self.connections[conn].phase();
        if !self.transition(conn, Phase::Dead) {
            return;
        }
        if phase == Phase::Handshake && reason != CloseReason::Handshake {
            self.count_handshake(Outcome::Gone);
        }
        if phase != Phase::Closing {
            self.log_end(conn, reason);
        }
        self.leave_session(conn);
        self.pulse.disarm(conn);
        let connection = &mut self.connections[conn];
        connection.inbox = None;
        self.secure.remove(&mut connection.tls);
        let counted = connection.early.as_ref().is_none_or(|early| !early.turned_away);
        if let Some(early) = connection.early.take() {
            self.leave_unauthenticated(&early);
        }
        if counted {
            self.shared.sockets.fetch_sub(1, Relaxed);
        }
        self.net.close(conn);
        self.ended.push(conn);
    }

    /// Whether a connection is there and has not ended.
    pub(super) fn lives(&self, conn: Conn) -> bool {
        self.connections.get(conn).is_some_and(|connection| connection.phase() != Phase::Dead)
    }

    /// At the end of a turn, when nobody works on those who have ended in it.
    pub(super) fn forget_ended(&mut self) {
        while let Some(conn) = self.ended.pop() {
            self.let_outbox_go(conn);
            self.connections.remove(conn);
        }
    }

    /// Hands a request to control, or gives `false` when it cannot take it.
    pub(super) fn ask_control(&self, request: Request) -> bool {
        self.control.try_send(request).is_ok()
    }
}
