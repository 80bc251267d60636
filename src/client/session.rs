//! What a client says and concludes: authentication, presence, key exchange, refusals. No I/O: text and `now` come in,
//! actions go out.

mod error;
mod numbered;

use super::envelope::{self, Received};
use super::event::{Event, Message, Reason};
use super::lenient;
use super::options::{Encryption, Options, PIECE_INTERVAL, RECENT_BYTES_MAX, RECENT_MAX};
use super::outgoing::{Entry, Next};
use super::resume::{ACK, Acks, Receiver};
use super::secure::{Opened, Secure, Step, empty};
use super::shared::Shared;
use error::{ErrorPayload, refuse, unreadable, whole_number};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the connection is to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Send this text at once.
    Send(String),
    /// Tell the owner; the number of bytes that the event holds.
    Emit(Event, usize),
    /// To be sent again, later.
    Again(Entry),
    /// The connection is over, for this reason.
    Lost(Reason),
    /// All is over, as the event says.
    End(Event),
}

/// What outlives a connection: what the peer still says under the last keys can be read until new ones are agreed, and
/// what was taken is not taken again.
#[derive(Debug)]
pub(super) struct Lasting {
    secure: Secure,
    receiver: Receiver,
}

impl Lasting {
    pub(super) fn new(options: &Options) -> Self {
        Self { secure: Secure::new(options), receiver: Receiver::default() }
    }
}

/// A text to send, or what there is to be done before.
#[derive(Debug)]
pub(super) enum Outcome {
    Send(String),
    /// The message with this id cannot be sealed (any more).
    NotSent(String),
    /// Nothing, until this time or until something happens.
    Wait(Option<Instant>),
}

/// One connection's state, from `auth` to its end.
#[derive(Debug)]
pub(super) struct Session {
    authed: bool,
    peer_online: bool,
    secure: Secure,
    /// What was taken of a peer that resumes.
    receiver: Receiver,
    /// When that is acknowledged, and whether the peer is ready for what is numbered.
    acks: Acks,
    /// The ids of the newest acknowledgements, which nobody else knows; at most
    /// [`ACKS_REMEMBERED`](crate::options::ACKS_REMEMBERED).
    ack_ids: VecDeque<String>,
    /// The id of this end's newest `key_exchange`.
    key_exchange: Option<String>,
    /// When to try again: it was refused for its rate, or the peer seems to have other keys.
    key_exchange_at: Option<Instant>,
    /// What was sent and may still be refused, oldest first.
    recent: VecDeque<Entry>,
    /// Sum of `recent`'s bytes, at most [`RECENT_BYTES_MAX`] but for a single one.
    recent_bytes: usize,
    /// When the next message that is no piece may leave; `None`: at once.
    message_at: Option<Instant>,
    /// The time between two such messages, and until when it holds: the relay has refused some.
    pace: Option<(Duration, Instant)>,
    /// When the next piece of an answer may leave; `None`: at once.
    piece_at: Option<Instant>,
}

impl Session {
    /// The session of a new connection.
    pub(super) fn new(Lasting { secure, receiver }: Lasting) -> Self {
        Self {
            authed: false,
            peer_online: false,
            secure,
            receiver,
            acks: Acks::new(),
            ack_ids: VecDeque::new(),
            key_exchange: None,
            key_exchange_at: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            message_at: None,
            pace: None,
            piece_at: None,
        }
    }

    /// What outlives it, for the next connection.
    pub(super) fn into_lasting(self) -> Lasting {
        Lasting { secure: self.secure, receiver: self.receiver }
    }

    /// The first message.
    pub(super) fn auth(options: &Options) -> String {
        let mut payload = json!({"token": options.token, "role": options.role.name()});
        if matches!(options.encryption, Encryption::Version2(_)) {
            // Acknowledgements are then no messages to the relay's limits.
            payload["ext"] = json!(1);
        }
        envelope::write("auth", &envelope::new_id(), &raw(&payload))
    }

    /// The relay has let this end in.
    pub(super) fn is_authed(&self) -> bool {
        self.authed
    }

    /// There is a peer, and keys for it; one that resumes is ready for what is numbered.
    pub(super) fn can_reach_peer(&self) -> bool {
        self.has_keys() && (!self.secure.resumes() || self.acks.is_open())
    }

    /// There is a peer, and keys for it.
    fn has_keys(&self) -> bool {
        self.authed && self.peer_online && self.secure.is_ready()
    }

    /// When to look again, even if nothing happens.
    pub(super) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        let again = shared.outgoing(|outgoing| outgoing.sender.poll_timeout()).filter(|_| self.can_reach_peer());
        let ack = self.acks.poll_timeout().filter(|_| self.has_keys());
        [self.key_exchange_at, ack, again].into_iter().flatten().min()
    }

    /// What is due.
    pub(super) fn handle_time(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        self.pace.take_if(|(_, until)| *until <= now);
        if self.key_exchange_at.take_if(|at| *at <= now).is_some() {
            let step = self.secure.retry();
            self.handle_step(now, step, None, shared, actions);
        }
        shared.outgoing(|outgoing| outgoing.sender.handle_time(now));
        self.acknowledge(now, actions);
    }

    /// The owner ends the client: what was taken is acknowledged without delay.
    pub(super) fn handle_close_wish(&mut self, now: Instant) {
        self.acks.hurry(now);
    }

    /// The next message that waits. Only while the peer [can be reached](Self::can_reach_peer).
    pub(super) fn poll_send(&mut self, now: Instant, shared: &Shared) -> Outcome {
        let (message_at, piece_at) = (self.message_at.filter(|at| *at > now), self.piece_at.filter(|at| *at > now));
        if self.secure.resumes() {
            // The relay slows pieces down by itself, and loses none.
            let wait = |is_piece: bool, is_new: bool| if is_piece { piece_at.filter(|_| is_new) } else { message_at };
            let ack = self.receiver.position();
            return match shared.outgoing(|outgoing| outgoing.poll_record(now, ack, wait)) {
                Next::Wait(until) => Outcome::Wait(until),
                Next::Record { kind, id, plaintext, is_piece } => {
                    self.write_record(now, &kind, &id, &plaintext, is_piece)
                }
            };
        }
        let mut wait = None;
        let entry = shared.outgoing(|outgoing| {
            outgoing.pop_if(|entry| {
                wait = if entry.is_piece() { piece_at } else { message_at };
                wait.is_none()
            })
        });
        let Some(entry) = entry else { return Outcome::Wait(wait) };
        let id = entry.id.clone();
        self.write(now, entry).map_or(Outcome::NotSent(id), Outcome::Send)
    }

    /// A message leaves: the next one has its time.
    fn handle_left(&mut self, now: Instant, is_piece: bool) {
        if is_piece {
            self.piece_at = Some(now + PIECE_INTERVAL);
        } else {
            self.message_at = self.pace.map(|(interval, _)| now + interval);
        }
    }

    /// The text of an entry, sealed; keeps the entry in case it is refused. `None`: it cannot be sealed (any more).
    fn write(&mut self, now: Instant, entry: Entry) -> Option<String> {
        let payload = entry.payload();
        let text = envelope::write(entry.kind(), &entry.id, &self.secure.seal(entry.kind(), &payload)?);
        drop(payload);
        self.handle_left(now, entry.is_piece());
        if !entry.is_piece() {
            self.recent_bytes += entry.bytes();
            self.recent.push_back(entry);
            while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1 {
                self.recent_bytes -= self.recent.pop_front().map_or(0, |entry| entry.bytes());
            }
        }
        Some(text)
    }

    /// A text message of the relay, or of the peer.
    pub(super) fn handle_text(&mut self, now: Instant, text: &str, shared: &Shared, actions: &mut Vec<Action>) {
        self.handle_envelope(now, text, shared, actions);
        self.acknowledge(now, actions);
    }

    fn handle_envelope(&mut self, now: Instant, text: &str, shared: &Shared, actions: &mut Vec<Action>) {
        let received = match serde_json::from_str::<Received<'_>>(text) {
            Ok(received) => received,
            Err(_) if !self.authed => {
                return actions.push(Action::Lost(Reason::Protocol("it sent an invalid envelope")));
            }
            // The relay forwards the peer's bytes, which may be strange: a key twice, half a surrogate pair in the id. It
            // costs that message and nothing else.
            Err(error) => return actions.push(unreadable(None, &error.to_string())),
        };
        let (id, payload) = (received.id.as_deref(), received.payload);
        if !self.authed {
            return self.handle_first(now, &received.kind, payload, shared, actions);
        }
        match &*received.kind {
            "status" => self.handle_status(now, payload, shared, actions),
            "ping" => actions.push(Action::Send(envelope::write("pong", &envelope::new_id(), &empty()))),
            "key_exchange" => {
                let step = self.secure.handle_key_exchange(id, payload);
                self.handle_step(now, step, id, shared, actions);
            }
            "pong" | "auth.ok" => {}
            kind => self.handle_message(now, kind, id, payload, shared, actions),
        }
    }

    fn handle_first(
        &mut self,
        now: Instant,
        kind: &str,
        payload: Option<&RawValue>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        match kind {
            "auth.ok" => {
                let Some(ok) = read(payload).filter(Value::is_object) else {
                    return actions.push(Action::Lost(Reason::Protocol("its auth.ok cannot be read")));
                };
                self.authed = true;
                self.peer_online = ok["paired"] == true;
                self.acks.set_ext(ok["ext"]["v"] == 1);
                let event = Event::Connected {
                    paired: self.peer_online,
                    daily_quota_bytes: whole_number(&ok["daily_quota_bytes"]).unwrap_or_default(),
                    daily_used_bytes: whole_number(&ok["daily_used_bytes"]).unwrap_or_default(),
                };
                actions.push(Action::Emit(event, 0));
                // Sent to nobody it earns PEER_OFFLINE, which is normal (wire contract, Order).
                self.handle_peer(now, shared, actions);
            }
            "auth.fail" => {
                let error = ErrorPayload::read(&read(payload).unwrap_or_default());
                actions.push(Action::End(Event::Refused { code: error.code, message: error.message }));
            }
            // Followed by a close frame.
            "chat.error" => {}
            _ => actions.push(Action::Lost(Reason::Protocol("it did not answer auth"))),
        }
    }

    fn handle_status(&mut self, now: Instant, payload: Option<&RawValue>, shared: &Shared, actions: &mut Vec<Action>) {
        let status = read(payload).unwrap_or_default();
        let Some(peer) = status["peer"].as_str() else { return };
        self.peer_online = peer == "online";
        if self.peer_online {
            actions.push(Action::Emit(Event::PeerOnline, 0));
            self.handle_peer(now, shared, actions);
        } else {
            actions.push(Action::Emit(Event::PeerOffline, 0));
            self.handle_away();
        }
    }

    /// The relay has let this end in, or the peer has come: keys are agreed anew.
    fn handle_peer(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        self.handle_away();
        let step = self.secure.handle_peer();
        self.handle_step(now, step, None, shared, actions);
    }

    /// There is no agreement with a present peer.
    fn handle_away(&mut self) {
        self.acks.handle_away();
        self.receiver.handle_agreement();
    }

    fn handle_step(
        &mut self,
        now: Instant,
        step: Step,
        about: Option<&str>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        if let Some((id, message)) = step.send {
            actions.push(Action::Send(envelope::write(message.kind, &id, &message.payload)));
            self.key_exchange = Some(id);
            self.key_exchange_at = None;
        }
        if let Some((version, fingerprint)) = step.secured {
            actions.push(Action::Emit(Event::Secure { version, fingerprint }, 0));
            self.handle_agreement(now, shared, actions);
        }
        if let Some(refusal) = step.refused {
            refuse(refusal, about, actions);
        }
    }

    /// A message that the relay forwarded, or an error of its own.
    fn handle_message(
        &mut self,
        now: Instant,
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let opened = match self.secure.open(kind, payload) {
            Ok(opened) => opened,
            Err(refusal) => {
                if refusal.of_other_keys {
                    self.doubt(now);
                }
                return refuse(refusal, id, actions);
            }
        };
        if !opened.resume {
            return self.handle_payload(now, kind, id, &opened, shared, actions);
        }
        let handled = if kind == ACK {
            self.handle_ack(now, &opened.payload, shared, actions)
        } else {
            self.handle_record(now, kind, id, &opened, shared, actions)
        };
        if let Err(error) = handled {
            actions.push(unreadable(id, &error.to_string()));
        }
    }

    /// What a message says, in clear.
    fn handle_payload(
        &mut self,
        now: Instant,
        kind: &str,
        id: Option<&str>,
        opened: &Opened,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let Some(payload) = read(Some(&opened.payload)) else {
            return actions.push(unreadable(id, "its payload is not JSON"));
        };
        if kind == "chat.error" {
            return self.handle_error(now, ErrorPayload::read(&payload), opened.authenticated, shared, actions);
        }
        let payload = if payload.is_null() { json!({}) } else { payload };
        let id = id.unwrap_or_default().to_owned();
        let message = Message { kind: kind.to_owned(), id, payload, missed: opened.missed };
        actions.push(Action::Emit(Event::Message(message), opened.payload.get().len()));
    }

    /// A phone's keys may be worth nothing: it opens anew, though not for each such sign.
    fn doubt(&mut self, now: Instant) {
        if let Some(at) = self.secure.doubt(now) {
            self.key_exchange_at = Some(at);
            self.acks.handle_away();
        }
    }

    /// What a close frame means.
    pub(super) fn handle_close(&self, code: u16, text: &str) -> Action {
        match code {
            4001 => Action::End(Event::Replaced),
            4002 => Action::End(Event::Revoked),
            _ => Action::Lost(Reason::Closed { code, text: text.to_owned() }),
        }
    }
}

/// A payload's value, as far as it can be read.
fn read(payload: Option<&RawValue>) -> Option<Value> {
    lenient::value(payload?.get())
}

/// A value's JSON text.
fn raw(value: &Value) -> Box<RawValue> {
    // A value has nothing in it that cannot be written.
    to_raw_value(value).expect("JSON values can be written as JSON")
}

#[cfg(test)]
mod tests;
