//! What becomes of a message: the session decides, the shard carries it out.

use super::inbox::Skipped;
use crate::proto::device::DeviceId;
use crate::proto::envelope::{self, Envelope, Invalid, Named};
use crate::proto::frame::{self, Opcode};
use crate::proto::token::Role;
use crate::ring::{Conn, Net};
use crate::session::message::{ErrorCode, RelayMessage, frame_of};
use crate::session::{Effect, Heard, Order, Refusal};
use crate::shard::Shard;
use crate::shard::bounds::MEMORY_RETRY;
use crate::shard::close::CloseReason;
use crate::shard::counters::Outcome;
use crate::shard::net::connection::{Phase, Seat};
use std::time::Duration;

/// What is to be done with a whole message.
pub(in crate::shard) enum Step {
    /// Send it on to this connection, as a message of this kind.
    Forward(Opcode, Conn),
    /// It has been dealt with.
    Done,
    /// Carry out what it has asked for ([`Shard::asked`]), once what came before has been queued.
    Order,
    /// Keep it and read nothing more for that long.
    Wait(Duration),
    /// The connection's phase has changed.
    Stop,
    /// End the connection, once what came before has been queued.
    Close(CloseReason),
}

/// A message for the relay itself.
pub(in crate::shard) struct Ask {
    pub(super) order: Order,
    /// The message's `id`, as JSON text with its quotes.
    pub(super) reference: Option<Box<str>>,
    /// The device that it named.
    pub(super) device: Option<DeviceId>,
}

impl<N: Net> Shard<N> {
    /// Decides on a whole message. `peek` looks into its envelope, and is called only where that matters.
    pub(in crate::shard) fn handle_message(
        &mut self,
        conn: Conn,
        opcode: Opcode,
        message: &[u8],
        peek: impl for<'a> FnOnce(&'a [u8]) -> Result<Envelope<'a>, Invalid>,
    ) -> Step {
        let Some(seat) = self.net[conn].seat() else { return self.handle_other(conn, opcode, message) };
        let role = seat.role;
        let envelope = match peek(message) {
            Ok(envelope) => envelope,
            // The peek ends at the first fault, which may be another one than the text's.
            Err(_) if is_broken_text(opcode, message) => return Step::Close(CloseReason::NotUtf8),
            Err(invalid) => {
                self.refuse_invalid(conn, role, invalid, message);
                return Step::Done;
            }
        };
        let device = envelope.device.map(|at| at.read(message));
        let heard = Heard { kind: envelope.kind, device, bytes: message.len() as u64 };
        match self.sessions.handle_message(seat, conn, heard, &self.pulse) {
            Effect::Forward(to) => {
                self.counters.forwarded(role, message.len());
                Step::Forward(Opcode::Text, to)
            }
            Effect::Later(wait) => Step::Wait(wait),
            effect => self.settle((conn, seat), heard, effect, (envelope.id, device), message),
        }
    }

    /// Carries out what is decided on a message that is not just forwarded. Out of the way of those that are.
    #[cold]
    #[inline(never)]
    fn settle(
        &mut self,
        (conn, seat): (Conn, Seat),
        heard: Heard,
        effect: Effect<Conn>,
        (reference, device): (Option<&str>, Option<Named>),
        message: &[u8],
    ) -> Step {
        let role = seat.role;
        match effect {
            Effect::Wake(to, woken) => {
                // It has sent nothing else in this run that goes to its agent: what put it to sleep came in between.
                if let Some(device) = woken {
                    self.tell(to, RelayMessage::Device { device, online: true });
                }
                self.note_awake(conn, seat);
                self.counters.forwarded(role, message.len());
                return Step::Forward(Opcode::Text, to);
            }
            Effect::Keep(offline) => {
                match self.keep((conn, seat), heard, message, (reference, named(device)), offline) {
                    // It has been taken on, and will be answered.
                    Ok(()) => return Step::Done,
                    Err(refusal) => self.refuse(conn, role, refusal, (reference, device), message.len()),
                }
            }
            Effect::Order => match Order::parse(message) {
                Ok(order) => {
                    self.counters.count(role, Outcome::Answered, message.len());
                    let (reference, device) = (reference.map(Box::from), named(device));
                    self.asked = Some(Box::new(Ask { order, reference, device }));
                    return Step::Order;
                }
                Err(refusal) => self.refuse(conn, role, refusal, (reference, device), message.len()),
            },
            Effect::Refuse(refusal) => self.refuse(conn, role, refusal, (reference, device), message.len()),
            // The first two are carried out where they come up.
            effect @ (Effect::Forward(_)
            | Effect::Later(_)
            | Effect::Tell(..)
            | Effect::Close(..)
            | Effect::Nothing) => {
                self.counters.count(role, Outcome::Answered, message.len());
                self.apply(effect);
            }
        }
        self.count_answer(conn);
        Step::Done
    }

    /// Tells a sender why its message is not delivered.
    fn refuse(
        &mut self,
        conn: Conn,
        role: Role,
        refusal: Refusal,
        (reference, device): (Option<&str>, Option<Named>),
        bytes: usize,
    ) {
        let Refusal { code, message, retry_after_ms } = refusal;
        self.counters.message_refused(role, code, bytes);
        let device = self.shown(conn, named(device));
        self.tell(conn, RelayMessage::Error { code, message, retry_after_ms, reference, device });
    }

    /// The device that a message named, for whoever knows what that is.
    fn shown(&self, conn: Conn, device: Option<DeviceId>) -> Option<DeviceId> {
        let seat = self.net[conn].seat()?;
        device.filter(|_| self.sessions.names_devices(seat, conn))
    }

    /// Decides on a whole message of a connection that is in no session.
    fn handle_other(&mut self, conn: Conn, opcode: Opcode, message: &[u8]) -> Step {
        match self.net[conn].phase() {
            Phase::Echo if is_broken_text(opcode, message) => Step::Close(CloseReason::NotUtf8),
            Phase::Echo => Step::Forward(opcode, conn),
            Phase::Auth => {
                match simdutf8::basic::from_utf8(message) {
                    Ok(message) => self.handle_first_message(conn, message),
                    Err(_) if opcode == Opcode::Text => return Step::Close(CloseReason::NotUtf8),
                    Err(_) => self.refuse_auth(conn, "the first message is not UTF-8"),
                }
                Step::Stop
            }
            _ => Step::Stop,
        }
    }

    #[cold]
    fn refuse_invalid(&mut self, conn: Conn, role: Role, invalid: Invalid, message: &[u8]) {
        self.counters.message_refused(role, ErrorCode::InvalidMessage, message.len());
        let error = RelayMessage::Error {
            code: ErrorCode::InvalidMessage,
            message: &invalid.to_string(),
            retry_after_ms: None,
            reference: envelope::id_of(message),
            device: self.shown(conn, envelope::device_of(message)),
        };
        self.tell(conn, error);
        self.count_answer(conn);
    }

    /// Tells the sender of a message that is skipped why.
    pub(super) fn refuse_skipped(
        &mut self,
        conn: Conn,
        why: Skipped,
        reference: Option<&str>,
        device: Option<DeviceId>,
    ) {
        let Some(seat) = self.net[conn].seat() else { return };
        let (code, message, retry_after_ms) = match why {
            Skipped::TooLarge => {
                let limit = self.sessions.message_bytes_max(seat);
                (ErrorCode::MessageTooLarge, format!("a message can have {limit} bytes at the most"), None)
            }
            Skipped::NoMemory => {
                let text = "the relay has no memory for a large message at the moment; try again";
                (ErrorCode::RateLimited, text.to_owned(), Some(MEMORY_RETRY.as_millis() as u64))
            }
        };
        self.counters.message_refused(seat.role, code, 0);
        let device = self.shown(conn, device);
        self.tell(conn, RelayMessage::Error { code, message: &message, retry_after_ms, reference, device });
        self.count_answer(conn);
    }

    /// The connection has made the relay answer something: who does so too often is read more slowly.
    pub(super) fn count_answer(&mut self, conn: Conn) {
        if let Some(seat) = self.net[conn].seat()
            && let Err(wait) = self.sessions.charge_answer(seat, conn, &self.pulse)
        {
            self.slow_down(conn, wait);
        }
    }

    /// Answers a control frame, or says why the connection is to be closed.
    pub(super) fn handle_control(&mut self, conn: Conn, opcode: Opcode, payload: &[u8]) -> Option<CloseReason> {
        match opcode {
            Opcode::Ping => {
                self.net.push_control(conn, &frame_of(Opcode::Pong, payload));
                self.count_answer(conn);
                None
            }
            Opcode::Close => Some(match frame::parse_close(payload) {
                Ok(close) => CloseReason::Client(close.map(|(code, _)| code)),
                Err(frame::CloseViolation::NotUtf8) => CloseReason::NotUtf8,
                Err(_) => CloseReason::BadClose,
            }),
            // A pong is a sign of life, and any bytes are one.
            _ => {
                self.count_answer(conn);
                None
            }
        }
    }
}

/// The device that a message names.
fn named(device: Option<Named>) -> Option<DeviceId> {
    match device {
        Some(Named::Id(device)) => Some(device),
        _ => None,
    }
}

/// Whether a message is text that is not UTF-8, which fails the connection (RFC 6455, section 8.1). In a binary frame it
/// is only bad JSON.
fn is_broken_text(opcode: Opcode, message: &[u8]) -> bool {
    opcode == Opcode::Text && simdutf8::basic::from_utf8(message).is_err()
}
