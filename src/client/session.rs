//! What a client says and concludes: authentication, presence, key exchange, refusals. No I/O: text and `now` come in,
//! actions go out.

use super::envelope::{self, Received};
use super::event::{Event, Message, PeerError, Reason};
use super::lenient;
use super::options::{Options, PACED_FOR, RECENT_BYTES_MAX, RECENT_MAX, RETRIES_MAX, RETRY_AFTER_MAX};
use super::secure::{Refusal, Secure, Step, empty};
use super::shared::Entry;
use coralmux_e2e::DECRYPTION_FAILED;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The `code` of a message that cannot be read.
const INVALID_MESSAGE: &str = "INVALID_MESSAGE";

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

/// A `chat.error`. What cannot be read of it is missing.
#[derive(Default)]
struct ErrorPayload {
    code: String,
    message: String,
    retry_after_ms: Option<u64>,
    about: Option<String>,
}

impl ErrorPayload {
    fn read(payload: &Value) -> Self {
        let text = |name: &str| payload[name].as_str().map(str::to_owned);
        Self {
            code: text("code").unwrap_or_default(),
            message: text("message").unwrap_or_default(),
            retry_after_ms: whole_number(&payload["retry_after_ms"]),
            about: text("ref"),
        }
    }
}

/// A number that is not below 0, in whatever way it is written.
fn whole_number(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64);
    value.as_u64().or_else(float)
}

/// One connection's state, from `auth` to its end.
#[derive(Debug)]
pub(super) struct Session {
    authed: bool,
    peer_online: bool,
    secure: Secure,
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
}

impl Session {
    /// The session of a new connection; the encryption goes on from one to the next.
    pub(super) fn new(secure: Secure) -> Self {
        Self {
            authed: false,
            peer_online: false,
            secure,
            key_exchange: None,
            key_exchange_at: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            message_at: None,
            pace: None,
        }
    }

    /// The encryption, for the next connection.
    pub(super) fn into_secure(self) -> Secure {
        self.secure
    }

    /// The first message.
    pub(super) fn auth(options: &Options) -> String {
        let payload = json!({"token": options.token, "role": options.role.name()});
        envelope::write("auth", &envelope::new_id(), &raw(&payload))
    }

    /// The relay has let this end in.
    pub(super) fn is_authed(&self) -> bool {
        self.authed
    }

    /// There is a peer, and keys for it.
    pub(super) fn can_reach_peer(&self) -> bool {
        self.authed && self.peer_online && self.secure.is_ready()
    }

    /// When an entry may leave, as far as the relay's refusals go; `None`: now. Pieces are not among what it refuses.
    pub(super) fn poll_wait(&self, now: Instant, entry: &Entry) -> Option<Instant> {
        self.message_at.filter(|at| *at > now && !entry.is_piece())
    }

    /// When to look again, even if nothing happens.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.key_exchange_at
    }

    /// What is due.
    pub(super) fn handle_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.pace.take_if(|(_, until)| *until <= now);
        if self.key_exchange_at.take_if(|at| *at <= now).is_some() {
            let step = self.secure.retry();
            self.handle_step(step, None, actions);
        }
    }

    /// The text of an entry, sealed; keeps the entry in case it is refused. `None`: it cannot be sealed (any more).
    pub(super) fn write(&mut self, now: Instant, entry: Entry) -> Option<String> {
        let payload = entry.payload();
        let text = envelope::write(entry.kind(), &entry.id, &self.secure.seal(entry.kind(), &payload)?);
        drop(payload);
        if !entry.is_piece() {
            self.message_at = self.pace.map(|(interval, _)| now + interval);
            self.recent_bytes += entry.bytes();
            self.recent.push_back(entry);
            while self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1 {
                self.recent_bytes -= self.recent.pop_front().map_or(0, |entry| entry.bytes());
            }
        }
        Some(text)
    }

    /// A text message of the relay, or of the peer.
    pub(super) fn handle_text(&mut self, now: Instant, text: &str, actions: &mut Vec<Action>) {
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
            return self.handle_first(&received.kind, payload, actions);
        }
        match &*received.kind {
            "status" => self.handle_status(payload, actions),
            "ping" => actions.push(Action::Send(envelope::write("pong", &envelope::new_id(), &empty()))),
            "key_exchange" => {
                let step = self.secure.handle_key_exchange(id, payload);
                self.handle_step(step, id, actions);
            }
            "pong" | "auth.ok" => {}
            kind => self.handle_message(now, kind, id, payload, actions),
        }
    }

    fn handle_first(&mut self, kind: &str, payload: Option<&RawValue>, actions: &mut Vec<Action>) {
        match kind {
            "auth.ok" => {
                let Some(ok) = read(payload).filter(Value::is_object) else {
                    return actions.push(Action::Lost(Reason::Protocol("its auth.ok cannot be read")));
                };
                self.authed = true;
                self.peer_online = ok["paired"] == true;
                let event = Event::Connected {
                    paired: self.peer_online,
                    daily_quota_bytes: whole_number(&ok["daily_quota_bytes"]).unwrap_or_default(),
                    daily_used_bytes: whole_number(&ok["daily_used_bytes"]).unwrap_or_default(),
                };
                actions.push(Action::Emit(event, 0));
                // Sent to nobody it earns PEER_OFFLINE, which is normal (wire contract, Order).
                let step = self.secure.handle_peer();
                self.handle_step(step, None, actions);
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

    fn handle_status(&mut self, payload: Option<&RawValue>, actions: &mut Vec<Action>) {
        let status = read(payload).unwrap_or_default();
        let Some(peer) = status["peer"].as_str() else { return };
        self.peer_online = peer == "online";
        if self.peer_online {
            actions.push(Action::Emit(Event::PeerOnline, 0));
            let step = self.secure.handle_peer();
            self.handle_step(step, None, actions);
        } else {
            actions.push(Action::Emit(Event::PeerOffline, 0));
        }
    }

    fn handle_step(&mut self, step: Step, about: Option<&str>, actions: &mut Vec<Action>) {
        if let Some((id, message)) = step.send {
            actions.push(Action::Send(envelope::write(message.kind, &id, &message.payload)));
            self.key_exchange = Some(id);
            self.key_exchange_at = None;
        }
        if let Some((version, fingerprint)) = step.secured {
            actions.push(Action::Emit(Event::Secure { version, fingerprint }, 0));
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
        let Some(payload) = read(Some(&opened.payload)) else {
            return actions.push(unreadable(id, "its payload is not JSON"));
        };
        if kind == "chat.error" {
            return self.handle_error(now, ErrorPayload::read(&payload), opened.authenticated, actions);
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
        }
    }

    fn handle_error(&mut self, now: Instant, error: ErrorPayload, authenticated: bool, actions: &mut Vec<Action>) {
        let retry_after = error.retry_after_ms.map(Duration::from_millis);
        let soon = retry_after.filter(|after| *after <= RETRY_AFTER_MAX && error.code == "RATE_LIMITED");
        let is_key_exchange = self.key_exchange.is_some() && error.about == self.key_exchange;
        let mut sent_again = false;
        if let Some(after) = soon.filter(|_| !authenticated) {
            let until = self.message_at.unwrap_or(now).max(now + after);
            let interval = self.pace.map_or(after, |(before, _)| before.max(after));
            self.pace = Some((interval, now + PACED_FOR));
            self.message_at = Some(until);
            if is_key_exchange {
                self.key_exchange_at = Some(until);
                return;
            }
            if let Some(mut entry) = error.about.as_deref().and_then(|id| self.take_recent(id)) {
                entry.refusals += 1;
                sent_again = entry.refusals <= RETRIES_MAX;
                let action =
                    if sent_again { Action::Again(entry) } else { Action::Emit(Event::NotSent { id: entry.id }, 0) };
                actions.push(action);
            }
        }
        if is_key_exchange && error.code == "PEER_OFFLINE" {
            return; // Nobody was there to hear it, which is normal.
        }
        if error.code == DECRYPTION_FAILED && !authenticated {
            self.doubt(now); // The word of nobody in particular, so it is no more than a hint.
        }
        let bytes = error.message.len() + error.code.len();
        let event = PeerError {
            code: error.code,
            message: error.message,
            retry_after,
            about: error.about,
            authenticated,
            sent_again,
        };
        actions.push(Action::Emit(Event::Error(event), bytes));
    }

    fn take_recent(&mut self, id: &str) -> Option<Entry> {
        let at = self.recent.iter().position(|entry| entry.id == id)?;
        let entry = self.recent.remove(at)?;
        self.recent_bytes -= entry.bytes();
        Some(entry)
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

fn refuse(refusal: Refusal, about: Option<&str>, actions: &mut Vec<Action>) {
    if let Some(complaint) = refusal.complaint {
        actions.push(Action::Send(envelope::write(complaint.kind, &envelope::new_id(), &complaint.payload)));
    }
    if refusal.worth_telling {
        let error = PeerError {
            code: DECRYPTION_FAILED.to_owned(),
            message: refusal.message,
            retry_after: None,
            about: about.map(str::to_owned),
            authenticated: false,
            sent_again: false,
        };
        actions.push(Action::Emit(Event::Error(error), 0));
    }
}

/// Tells the owner that a message was passed over.
fn unreadable(about: Option<&str>, why: &str) -> Action {
    let error = PeerError {
        code: INVALID_MESSAGE.to_owned(),
        message: format!("a message was skipped because it cannot be read: {why}"),
        retry_after: None,
        about: about.map(str::to_owned),
        authenticated: false,
        sent_again: false,
    };
    Action::Emit(Event::Error(error), 0)
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
