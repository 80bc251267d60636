//! Why and how connections end: one reason gives the close code, the reason on the wire and the name in the log; and a
//! connection ends politely with a close frame, or at once.

use super::Shard;
use super::bounds::{LINGER, LINGERING_MAX, TICK};
use super::door::newcomer::Newcomer;
use super::net::connection::{Entry, Left, Phase};
use crate::control::message::Request;
use crate::proto::frame::{self, Opcode, Violation};
use crate::ring::{Conn, Net};
use crate::session::message::frame_of;
use crate::tls::outcome::Outcome;
use std::sync::atomic::Ordering::Relaxed;

/// The reason of an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The client sent a close frame, with that code if any; it is answered with the same.
    Client(Option<u16>),
    /// The client's close frame was not a valid one.
    BadClose,
    /// The client broke the framing (RFC 6455, section 7.4.1: 1002).
    Protocol(Violation),
    /// Fragments out of order (1002).
    Fragments,
    /// A message of which too many frames had no payload (1008).
    EmptyFrames,
    /// More of it waits than the relay has memory for (1013).
    Backlog,
    /// Text that is not UTF-8 (1007).
    NotUtf8,
    /// The first message did not admit (wire contract: 1008).
    Unauthorized,
    /// No TLS handshake, or not in time; the metrics of handshakes tell more.
    Handshake,
    /// A proxy that was to begin with a PROXY protocol header did not.
    NoHeader,
    /// A record of TLS that was broken, or had no place.
    Tls,
    /// No first message in time.
    AuthTimeout,
    /// A message was under way for too long.
    MessageTimeout,
    /// Too large for the echo listener (1009).
    TooLarge,
    /// A newer connection has the role (wire contract: 4001).
    Replaced,
    /// The token admits no more (wire contract: 4002).
    Revoked,
    /// The relay is draining (wire contract: 1012).
    Restart,
    /// The relay cannot take the connection now (1013).
    Busy,
    /// The client took nothing for the write timeout.
    SlowConsumer,
    /// Nothing was heard for the idle timeout.
    Silent,
    /// The connection broke, or ended without a close frame.
    Gone,
    /// An HTTP exchange has ended.
    Http,
    /// It had not authenticated, and its place was needed for a newcomer.
    GaveWay,
}

impl CloseReason {
    /// The labels of the metrics: that of each reason once, and that of who is not even told why.
    pub(super) const LABELS: [&'static str; 20] = [
        "client",
        "protocol",
        "not_utf8",
        "unauthorized",
        "handshake",
        "tls",
        "no_proxy_header",
        "auth_timeout",
        "message_timeout",
        "too_large",
        "replaced",
        "revoked",
        "restart",
        "busy",
        "slow_consumer",
        "silent",
        "gone",
        "http",
        "gave_way",
        "turned_away",
    ];

    /// The label of the metrics.
    #[must_use]
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::BadClose | Self::Protocol(_) | Self::Fragments | Self::EmptyFrames => "protocol",
            Self::NotUtf8 => "not_utf8",
            Self::Unauthorized => "unauthorized",
            Self::Handshake => "handshake",
            Self::Tls => "tls",
            Self::NoHeader => "no_proxy_header",
            Self::AuthTimeout => "auth_timeout",
            Self::MessageTimeout => "message_timeout",
            Self::TooLarge => "too_large",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Restart => "restart",
            Self::Busy | Self::Backlog => "busy",
            Self::SlowConsumer => "slow_consumer",
            Self::Silent => "silent",
            Self::Gone => "gone",
            Self::Http => "http",
            Self::GaveWay => "gave_way",
        }
    }

    /// The close code; `None`: no close frame is sent.
    #[must_use]
    pub(super) fn code(self) -> Option<u16> {
        Some(match self {
            Self::Client(code) => code.unwrap_or(1000),
            Self::BadClose | Self::Protocol(_) | Self::Fragments => 1002,
            Self::NotUtf8 => 1007,
            Self::Unauthorized | Self::AuthTimeout | Self::MessageTimeout | Self::EmptyFrames => 1008,
            Self::TooLarge => 1009,
            Self::Replaced => 4001,
            Self::Revoked => 4002,
            Self::Restart => 1012,
            Self::Busy | Self::Backlog => 1013,
            Self::Handshake
            | Self::Tls
            | Self::NoHeader
            | Self::SlowConsumer
            | Self::Silent
            | Self::Gone
            | Self::Http
            | Self::GaveWay => return None,
        })
    }

    /// The reason in the close frame and the log.
    #[must_use]
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Client(_) => "closed by the client",
            Self::BadClose => "invalid close frame",
            Self::Protocol(Violation::ReservedBits) => "reserved bits set",
            Self::Protocol(Violation::Unmasked) => "frame not masked",
            Self::Protocol(_) => "invalid frame",
            Self::Fragments => "fragments out of order",
            Self::EmptyFrames => "too many frames without payload",
            Self::Backlog => "too much sent ahead, try again later",
            Self::NotUtf8 => "text is not UTF-8",
            Self::Unauthorized => "unauthorized",
            Self::Handshake => "no TLS handshake",
            Self::Tls => "TLS failed",
            Self::NoHeader => "no PROXY protocol header",
            Self::AuthTimeout => "no authentication in time",
            Self::MessageTimeout => "message took too long",
            Self::TooLarge => "message too large",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Restart => "the relay restarts, come back soon",
            Self::Busy => "the relay is busy, try again later",
            Self::SlowConsumer => "slow consumer",
            Self::Silent => "silent",
            Self::Gone => "gone",
            Self::Http => "http",
            Self::GaveWay => "gave way to a newcomer",
        }
    }
}

impl<N: Net> Shard<N> {
    /// Ends a connection with a close frame behind what is queued. Its session is left now; what still comes is read
    /// and thrown away for a while, so that a reset does not overtake the close frame.
    pub(super) fn close(&mut self, conn: Conn, reason: CloseReason) {
        let connection = &self.net[conn];
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
            self.net.push_own(conn, frame_of(Opcode::Close, &payload));
        }
        self.begin_closing(conn, reason);
    }

    /// Leaves the session, sends what is queued, then shuts the write side and waits for the client's end. Without a
    /// close frame of its own.
    pub(super) fn begin_closing(&mut self, conn: Conn, reason: CloseReason) {
        let Some(left) = self.transition(conn, Entry::Closing) else { return };
        self.note_end(conn, &left, reason);
        self.leave_session(conn, left.seat);
        // What a flood leaves behind does not stay for long.
        let linger = if self.counters.counts().closing < LINGERING_MAX { LINGER } else { TICK };
        let due = self.pulse.tick_after(linger);
        let connection = &mut self.net[conn];
        connection.due = due;
        if let Some(newcomer) = connection.newcomer_mut() {
            newcomer.await_client(self.pulse.tick());
        }
        self.pulse.arm(conn, due);
        self.net.finish(conn);
        // A connection that was paused is received from by nobody.
        self.arm(conn);
    }

    /// Ends a connection at once.
    pub(super) fn end(&mut self, conn: Conn, reason: CloseReason) {
        let Some(left) = self.transition(conn, Entry::Dead) else { return };
        if left.phase == Phase::Handshake && reason != CloseReason::Handshake {
            self.counters.handshake_ended(Outcome::Gone);
        }
        if left.phase != Phase::Closing {
            self.note_end(conn, &left, reason);
        }
        self.leave_session(conn, left.seat);
        self.pulse.disarm(conn);
        if left.newcomer.is_none_or(|newcomer| !newcomer.is_turned_away()) {
            self.shared.sockets.fetch_sub(1, Relaxed);
        }
        self.net.end(conn);
    }

    /// A connection that had `left` ends: it is counted and logged.
    fn note_end(&mut self, conn: Conn, left: &Left, reason: CloseReason) {
        self.counters.closed(reason.label());
        match left.seat.and_then(|seat| self.sessions.member(seat, conn)) {
            Some((key, member)) => self.log.closed(key, member, reason, self.pulse.now()),
            None => {
                let newcomer = left.newcomer.as_deref().or_else(|| self.net[conn].newcomer());
                self.log.closed_early(newcomer.map(Newcomer::serial), reason);
            }
        }
    }

    /// Whether a connection is there and has not ended.
    pub(super) fn lives(&self, conn: Conn) -> bool {
        self.net.get(conn).is_some_and(|connection| !connection.is_dead())
    }

    /// Ends a connection that sent no request in time. One with TLS is told so, that its client does not take it for
    /// one that somebody has cut (RFC 8446 section 6.1).
    pub(super) fn end_unheard(&mut self, conn: Conn) {
        match self.net.has_tls(conn) {
            false => self.end(conn, CloseReason::Gone),
            true => self.begin_closing(conn, CloseReason::Gone),
        }
    }

    /// Hands a request to control, or gives `false` when it cannot take it.
    pub(super) fn ask_control(&self, request: Request) -> bool {
        self.control.try_send(request).is_ok()
    }
}
