//! What a client says and concludes: authentication, presence, key exchange, refusals. No I/O: text and `now` come in,
//! actions go out.

mod error;
mod fleet;
mod numbered;
mod peer;

use super::devices::{Device, Lane, Own};
use super::envelope::{self, Received};
use super::event::{Event, Reason};
use super::lenient;
use super::options::{Encryption, Options};
use super::outgoing::Entry;
use super::resume::Receiver;
use super::secure::{Secure, empty};
use super::shared::Shared;
use error::{ErrorPayload, unreadable, whole_number};
pub(super) use fleet::Fleet;
use peer::Peer;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What the connection is to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Send this text at once.
    Send(String),
    /// Tell the owner; the number of bytes that the event holds.
    Emit(Event, usize),
    /// To be sent again to this peer, later.
    Again(Lane, Entry),
    /// The connection is over, for this reason.
    Lost(Reason),
    /// All is over, as the event says.
    End(Event),
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

/// After a failure to store what a page of the mailbox brought, it is tried again after this.
const STORE_AGAIN: Duration = Duration::from_secs(5);
/// What an envelope and a record have beside their payload, in bytes, where the relay keeps messages; generously.
const MAIL_OVERHEAD: usize = 2048;

/// What the relay says of the mailbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mail {
    /// How long a payload may be that the relay keeps; `None`: it keeps nothing.
    bytes_max: Option<usize>,
    /// Something waits for this end, or may.
    waits: bool,
}

impl Mail {
    /// From `ext` of `auth.ok`, or from where the relay says it later.
    fn read(told: &Value) -> Self {
        let Some(mail) = told["mail"].as_object() else { return Self::default() };
        let number = |name: &str| mail.get(name).and_then(whole_number);
        let message_max = number("message_max").and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
        // Sealed, a third is added.
        let bytes_max = (message_max / 4 * 3).saturating_sub(MAIL_OVERHEAD);
        Self { bytes_max: Some(bytes_max), waits: number("waiting") != Some(0) }
    }
}

/// A connection, and what of it outlasts it.
#[derive(Debug)]
pub(super) struct Session {
    authed: bool,
    /// The agent, or the phone: of an agent with devices the one in the plain slot.
    plain: Peer,
    /// An agent's devices.
    fleet: Option<Box<Fleet>>,
    /// A page of the mailbox that is to be confirmed, and from when on that is tried again.
    unconfirmed: Option<(u64, Instant)>,
}

impl Session {
    /// Without devices.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            authed: false,
            plain: Peer::new(None, Secure::of_pair(options), Receiver::default()),
            fleet: None,
            unconfirmed: None,
        }
    }

    /// Of a device.
    pub(super) fn of_device(device: Device) -> Self {
        let (own, receiver) = Own::new(device);
        Self {
            authed: false,
            plain: Peer::new(None, Secure::Own(Box::new(own)), receiver),
            fleet: None,
            unconfirmed: None,
        }
    }

    /// Of an agent with devices.
    pub(super) fn of_agent(fleet: Fleet, shared: &Shared) -> Self {
        let plain = fleet.plain_peer();
        fleet.show(shared);
        Self { authed: false, plain, fleet: Some(Box::new(fleet)), unconfirmed: None }
    }

    /// The same, on the next connection.
    pub(super) fn on_next_connection(self) -> Self {
        let fleet = self.fleet.map(|fleet| Box::new(fleet.on_next_connection()));
        Self { authed: false, plain: self.plain.on_next_connection(), fleet, unconfirmed: None }
    }

    /// The first message.
    pub(super) fn auth(&self, options: &Options) -> String {
        let mut payload = json!({"token": options.token, "role": options.role.name()});
        if matches!(options.encryption, Encryption::Version2(_)) {
            // Acknowledgements are then no messages to the relay's limits.
            payload["ext"] = json!(1);
        }
        if let Some(fleet) = &self.fleet {
            payload["key"] = json!(fleet.book.credential());
        }
        if let Secure::Own(own) = &self.plain.secure {
            let (key, invite) = own.credentials();
            (payload["ext"], payload["key"]) = (json!(1), json!(key));
            if let Some(invite) = invite {
                payload["invite"] = json!(invite);
            }
        }
        envelope::write(None, "auth", &envelope::new_id(), &raw(&payload))
    }

    /// The relay has let this end in.
    pub(super) fn is_authed(&self) -> bool {
        self.authed
    }

    /// All peers: of an agent its devices, too.
    fn peers(&self) -> impl Iterator<Item = &Peer> {
        [&self.plain].into_iter().chain(self.fleet.iter().flat_map(|fleet| &fleet.peers))
    }

    fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        [&mut self.plain].into_iter().chain(self.fleet.iter_mut().flat_map(|fleet| &mut fleet.peers))
    }

    /// Some peer is there, and there are keys for it, and one that resumes is ready for what is numbered; or the relay keeps
    /// what is for it.
    pub(super) fn can_send(&self) -> bool {
        self.peers().any(|peer| peer.can_be_reached() || peer.can_be_kept_for())
    }

    /// The peer that messages without end wait for is there, with keys.
    pub(super) fn can_reach_plain(&self) -> bool {
        self.plain.can_be_reached()
    }

    /// Who can be reached now is told to those who send.
    pub(super) fn share_presence(&self, shared: &Shared) {
        for peer in self.peers().filter(|peer| peer.has_lane()) {
            shared.set_absent(peer.lane(), !peer.can_be_reached());
        }
    }

    /// When to look again, even if nothing happens.
    pub(super) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        let peers = self.peers().filter_map(|peer| peer.poll_timeout(shared));
        let confirming = self.unconfirmed.map(|(_, at)| at);
        peers.chain(self.fleet.iter().filter_map(|fleet| fleet.poll_timeout())).chain(confirming).min()
    }

    /// What is due.
    pub(super) fn handle_time(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        if self.authed {
            for peer in self.peers_mut() {
                peer.handle_time(now, shared, actions);
            }
            self.confirm(now, actions);
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.handle_time(now, &mut self.plain, shared, actions);
        }
    }

    /// Nothing waits for a peer that can be reached, and nothing is to be acknowledged by one.
    pub(super) fn is_done(&self, shared: &Shared) -> bool {
        let mut reached = self.peers().filter(|peer| peer.can_be_reached());
        let mut away = self.peers().filter(|peer| peer.can_be_kept_for());
        reached.all(|peer| shared.outgoing(peer.lane(), |outgoing| outgoing.is_empty()))
            && away.all(|peer| shared.outgoing(peer.lane(), |outgoing| outgoing.is_all_kept()))
    }

    /// The owner ends the client: what was taken is acknowledged without delay.
    pub(super) fn handle_close_wish(&mut self, now: Instant) {
        for peer in self.peers_mut() {
            peer.acks.hurry(now);
        }
    }

    /// The next message that waits, or until when all of them do.
    pub(super) fn poll_send(&mut self, now: Instant, shared: &Shared) -> Outcome {
        let mut wait: Option<Instant> = None;
        for peer in self.peers_mut().filter(|peer| peer.can_be_reached() || peer.can_be_kept_for()) {
            match peer.poll_send(now, shared) {
                Outcome::Wait(until) => wait = wait.into_iter().chain(until).min(),
                outcome => return outcome,
            }
        }
        Outcome::Wait(wait)
    }

    /// A text message of the relay, or of a peer.
    pub(super) fn handle_text(&mut self, now: Instant, text: &str, shared: &Shared, actions: &mut Vec<Action>) {
        self.handle_envelope(now, text, shared, actions);
        for peer in self.peers_mut() {
            peer.acknowledge(now, actions);
        }
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
        if &*received.kind == "relay.mail" && self.peers().any(Peer::has_mail) {
            return self.handle_page(now, &read(payload).unwrap_or_default(), shared, actions);
        }
        if let Some(fleet) = &mut self.fleet
            && fleet.handle(now, &received, &mut self.plain, shared, actions)
        {
            return;
        }
        let peer = &mut self.plain;
        match &*received.kind {
            "status" => {
                let status = read(payload).unwrap_or_default();
                let Some(state) = status["peer"].as_str() else { return };
                peer.handle_presence(now, state == "online", shared, actions);
            }
            "ping" => {
                actions.push(Action::Send(envelope::write(None, "pong", &envelope::new_id(), &empty())));
            }
            "key_exchange" => peer.handle_key_exchange(now, id, payload, shared, actions),
            "pong" | "auth.ok" => {}
            // What a device goes by is the agent's sealed word.
            "relay.admitted" if peer.secure.own_device().is_some() => {
                peer.handle_mail(Mail::read(&read(payload).unwrap_or_default()), shared);
            }
            "relay.kept" if peer.secure.own_device().is_some() => {
                if let Some(id) = read(payload).unwrap_or_default()["ref"].as_str() {
                    peer.handle_kept(id, shared, actions);
                }
            }
            kind => peer.handle_message(now, kind, id, payload, shared, actions),
        }
    }

    /// A page of the mailbox has ended.
    fn handle_page(&mut self, now: Instant, page: &Value, shared: &Shared, actions: &mut Vec<Action>) {
        let (upto, last) = (whole_number(&page["upto"]).unwrap_or_default(), page["left"] == 0);
        let mut is_done = true;
        for peer in self.peers_mut() {
            is_done &= peer.handle_page(now, last, shared, actions);
        }
        if let Some(count) = whole_number(&page["lost"]).filter(|count| *count != 0) {
            actions.push(Action::Emit(Event::Expired { count }, 0));
        }
        if is_done && upto != 0 {
            self.unconfirmed = Some((upto, now));
            self.confirm(now, actions);
        }
        if last {
            for peer in self.peers_mut() {
                peer.handle_drained(now, shared, actions);
            }
        }
    }

    /// Confirms a page of the mailbox, as soon as what it brought is on this end's own disk.
    fn confirm(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some((upto, _)) = self.unconfirmed.take_if(|(_, at)| *at <= now) else { return };
        let stored: std::io::Result<()> = self.peers_mut().try_for_each(|peer| peer.secure.persist(&peer.receiver));
        match stored {
            Ok(()) => {
                let payload = raw(&json!({"upto": upto}));
                let text = envelope::write(None, "relay.mail.ack", &envelope::new_id(), &payload);
                actions.push(Action::Send(text));
            }
            Err(error) => {
                self.unconfirmed = Some((upto, now + STORE_AGAIN));
                actions.push(error::not_kept(format!("what waited at the relay cannot be kept: {error}")));
            }
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
                if let Some(fault) = self.plain.secure.own_fault(&ok["ext"]) {
                    return actions.push(Action::End(Event::NotEnrolled { why: fault.to_owned() }));
                }
                self.authed = true;
                let ext = ok["ext"]["v"] == 1;
                let mail = Mail::read(&ok["ext"]);
                for peer in self.peers_mut() {
                    peer.acks.set_ext(ext);
                }
                let paired = ok["paired"] == true;
                let event = Event::Connected {
                    paired,
                    daily_quota_bytes: whole_number(&ok["daily_quota_bytes"]).unwrap_or_default(),
                    daily_used_bytes: whole_number(&ok["daily_used_bytes"]).unwrap_or_default(),
                };
                actions.push(Action::Emit(event, 0));
                if self.fleet.as_ref().is_none_or(|fleet| fleet.book.plain_is_open()) {
                    self.plain.handle_authed(now, paired, mail, shared, actions);
                }
                if let Some(fleet) = &mut self.fleet {
                    fleet.handle_authed(now, &ok["ext"], mail, &mut self.plain, shared, actions);
                }
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
