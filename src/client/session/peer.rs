//! One peer of a connection: the agent, the phone, or one of the agent's devices.

use super::error::{ErrorPayload, not_kept, refuse, unreadable};
use super::{Action, Mail, Outcome, read};
use crate::devices::{Lane, Of, WELCOME};
use crate::envelope;
use crate::event::{Event, Message};
use crate::options::{PIECE_INTERVAL, RECENT_BYTES_MAX, RECENT_MAX, SILENCE_MAX};
use crate::outgoing::{Entry, Next};
use crate::resume::{ACK, Acks, Receiver};
use crate::secure::{NotSealed, Opened, Secure, Step};
use crate::shared::Shared;
use coralmux_e2e::v3::DeviceId;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What is known about a peer. Its keys and what was taken of it outlast a connection: what it still says under the last
/// keys can be read until new ones are agreed, and what was taken is not taken again.
#[derive(Debug)]
pub(super) struct Peer {
    /// Which of the owner's messages are for it.
    lane: Lane,
    online: bool,
    /// The relay says that it is there.
    present: bool,
    /// What waited for this end at the relay is coming: the peer counts as absent, and is not there to this end.
    draining: bool,
    /// The relay keeps what is for it while it is away.
    keeps: bool,
    pub(super) secure: Secure,
    /// What was taken of a peer that resumes.
    pub(super) receiver: Receiver,
    /// When that is acknowledged, and whether the peer is ready for what is numbered.
    pub(super) acks: Acks,
    /// The ids of the newest acknowledgements, which nobody else knows; at most
    /// [`ACKS_REMEMBERED`](crate::options::ACKS_REMEMBERED).
    pub(super) ack_ids: VecDeque<String>,
    /// The id of this end's newest `key_exchange`.
    pub(super) key_exchange: Option<String>,
    /// When to try again: it was refused for its rate, or the peer seems to have other keys.
    pub(super) key_exchange_at: Option<Instant>,
    /// What was sent and may still be refused, oldest first.
    pub(super) recent: VecDeque<Entry>,
    /// Sum of `recent`'s bytes, at most [`RECENT_BYTES_MAX`] but for a single one.
    pub(super) recent_bytes: usize,
    /// When the next message that is no piece may leave; `None`: at once.
    pub(super) message_at: Option<Instant>,
    /// The time between two such messages, and until when it holds: the relay has refused some.
    pub(super) pace: Option<(Duration, Instant)>,
    /// When the next piece of an answer may leave; `None`: at once.
    piece_at: Option<Instant>,
    /// Since when something that is to be acknowledged is on its way, and nothing has come of the peer.
    silent_since: Option<Instant>,
}

impl Peer {
    pub(super) fn new(lane: Lane, secure: Secure, receiver: Receiver) -> Self {
        Self {
            lane,
            online: false,
            present: false,
            draining: false,
            keeps: false,
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
            silent_since: None,
        }
    }

    /// The same peer, on the next connection.
    pub(super) fn on_next_connection(self) -> Self {
        Self::new(self.lane, self.secure, self.receiver)
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether there is a lane for it: not for a device that waits to be admitted.
    pub(super) fn has_lane(&self) -> bool {
        self.secure.of().is_none_or(Of::is_admitted)
    }

    /// What its messages name.
    pub(super) fn address(&self) -> Option<DeviceId> {
        self.lane.or_else(|| self.secure.own_device())
    }

    pub(super) fn envelope(&self, kind: &str, id: &str, payload: &RawValue) -> String {
        envelope::write(self.address(), kind, id, payload)
    }

    /// It has said something, whatever the relay said of it last.
    pub(super) fn set_online(&mut self) {
        self.online = true;
    }

    /// There is a peer, and keys for it; one that resumes is ready for what is numbered.
    pub(super) fn can_be_reached(&self) -> bool {
        self.has_keys() && (!self.secure.resumes() || self.acks.is_open())
    }

    /// The relay keeps what is for it: it is away, and there are keys that last.
    pub(super) fn can_be_kept_for(&self) -> bool {
        self.keeps && !self.draining && !self.online && self.has_lane() && self.secure.is_ready()
    }

    /// The relay may have kept something of it.
    pub(super) fn has_mail(&self) -> bool {
        self.has_lane() && (self.lane.is_some() || self.secure.own_device().is_some())
    }

    /// There is a peer, and keys for it.
    pub(super) fn has_keys(&self) -> bool {
        self.online && self.secure.is_ready()
    }

    /// When to look again, even if nothing happens.
    pub(super) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        if !self.has_lane() {
            return None;
        }
        let silent = self.silent_since.filter(|_| self.lane.is_some()).map(|since| since + SILENCE_MAX);
        let again = shared.outgoing(self.lane, |outgoing| outgoing.sender.poll_timeout());
        let again = again.filter(|_| self.can_be_reached() || self.can_be_kept_for());
        let ack = self.acks.poll_timeout().filter(|_| self.has_keys());
        [self.key_exchange_at, ack, again, silent, self.secure.poll_timeout()].into_iter().flatten().min()
    }

    /// What is due.
    pub(super) fn handle_time(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        if !self.has_lane() {
            return;
        }
        self.pace.take_if(|(_, until)| *until <= now);
        if self.key_exchange_at.take_if(|at| *at <= now).is_some() {
            let step = self.secure.retry();
            self.handle_step(now, step, None, shared, actions);
        }
        let step = self.secure.poll(now);
        self.handle_step(now, step, None, shared, actions);
        shared.outgoing(self.lane, |outgoing| outgoing.sender.handle_time(now));
        self.acknowledge(now, actions);
    }

    /// The next message that waits. Only while the peer [can be reached](Self::can_be_reached), or is
    /// [kept for](Self::can_be_kept_for).
    pub(super) fn poll_send(&mut self, now: Instant, shared: &Shared) -> Outcome {
        if !self.can_be_reached() {
            return self.poll_keep(now, shared);
        }
        let (message_at, piece_at) = (self.message_at.filter(|at| *at > now), self.piece_at.filter(|at| *at > now));
        if self.secure.resumes() {
            // The relay slows pieces down by itself, and loses none.
            let wait = |is_piece: bool, is_new: bool| if is_piece { piece_at.filter(|_| is_new) } else { message_at };
            let ack = self.receiver.position();
            return match shared.outgoing(self.lane, |outgoing| outgoing.poll_record(now, ack, wait)) {
                Next::Wait(until) => Outcome::Wait(until),
                Next::Record { kind, id, plaintext, is_piece, keep } => {
                    self.write_record(now, &kind, &id, &plaintext, is_piece, keep)
                }
            };
        }
        let mut wait = None;
        let entry = shared.outgoing(self.lane, |outgoing| {
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
    pub(super) fn handle_left(&mut self, now: Instant, is_piece: bool) {
        if is_piece {
            self.piece_at = Some(now + PIECE_INTERVAL);
        } else {
            self.message_at = self.pace.map(|(interval, _)| now + interval);
        }
    }

    /// The text of an entry, sealed; keeps the entry in case it is refused. `None`: it cannot be sealed (any more).
    fn write(&mut self, now: Instant, entry: Entry) -> Option<String> {
        let payload = entry.payload();
        let sealed = self.secure.seal(entry.kind(), &entry.id, &payload, &self.receiver).ok()?;
        let text = self.envelope(entry.kind(), &entry.id, &sealed);
        drop(sealed);
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

    /// The relay has let this end in, and says whether the peer is there. `mail`: what it keeps for it, and for this end.
    pub(super) fn handle_authed(
        &mut self,
        now: Instant,
        online: bool,
        mail: Mail,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        (self.present, self.draining) = (online, mail.waits);
        if self.has_lane() {
            shared.outgoing(self.lane, |outgoing| outgoing.sender.handle_present());
        }
        self.handle_mail(mail, shared);
        self.receiver.handle_connected(mail.waits && self.has_mail());
        let step = self.secure.handle_connected(!mail.waits);
        self.handle_step(now, step, None, shared, actions);
        if !mail.waits {
            self.begin(now, shared, actions);
        }
    }

    /// What the relay keeps, which it says to who has just been let in or has just bound its token, too.
    pub(super) fn handle_mail(&mut self, mail: Mail, shared: &Shared) {
        self.keeps = self.has_mail() && mail.bytes_max.is_some();
        if self.has_lane() {
            let bytes_max = mail.bytes_max.filter(|_| self.keeps);
            shared.outgoing(self.lane, |outgoing| outgoing.sender.handle_mail(bytes_max));
        }
    }

    /// The relay says that the peer has come, perhaps anew, or has gone.
    pub(super) fn handle_presence(&mut self, now: Instant, online: bool, shared: &Shared, actions: &mut Vec<Action>) {
        self.present = online;
        self.silent_since = None;
        actions.push(Action::Emit(Event::presence(self.lane, online), 0));
        if self.draining {
            return;
        }
        if online {
            return self.begin(now, shared, actions);
        }
        self.online = false;
        self.secure.handle_away();
        self.handle_away();
        self.share_presence(shared);
    }

    /// All that waited for this end at the relay has come.
    pub(super) fn handle_drained(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        self.draining = false;
        self.secure.handle_drained();
        self.begin(now, shared, actions);
    }

    /// A page of it has ended; whether it was the last. Whether it may be confirmed.
    pub(super) fn handle_page(&mut self, now: Instant, last: bool, shared: &Shared, actions: &mut Vec<Action>) -> bool {
        if !self.has_mail() {
            return true;
        }
        let (taken, is_done) = self.receiver.handle_page(last);
        self.handle_taken(now, taken, shared, actions);
        is_done
    }

    /// What is between the ends begins anew, if the relay says that the peer is there.
    fn begin(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        self.online = self.present;
        self.share_presence(shared);
        // Sent to nobody a key_exchange earns PEER_OFFLINE, which is normal (wire contract, Order).
        self.handle_peer(now, shared, actions);
    }

    fn share_presence(&self, shared: &Shared) {
        if self.has_lane() {
            let is_absent = !self.online;
            shared.outgoing(self.lane, |outgoing| match is_absent {
                true => outgoing.sender.handle_absent(),
                false => outgoing.sender.handle_present(),
            });
        }
    }

    /// Keys are agreed anew.
    fn handle_peer(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        self.handle_away();
        let step = self.secure.handle_peer(self.online);
        self.handle_step(now, step, None, shared, actions);
    }

    /// There is no agreement with a present peer.
    pub(super) fn handle_away(&mut self) {
        self.acks.handle_away();
        self.receiver.handle_agreement();
    }

    /// A `key_exchange` of the peer.
    pub(super) fn handle_key_exchange(
        &mut self,
        now: Instant,
        id: Option<&str>,
        payload: Option<&RawValue>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let step = self.secure.handle_key_exchange(now, id, payload, &self.receiver);
        self.handle_step(now, step, id, shared, actions);
    }

    pub(super) fn handle_step(
        &mut self,
        now: Instant,
        step: Step,
        about: Option<&str>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        actions.extend(step.told.map(|event| match event.is_last() {
            true => Action::End(event),
            false => Action::Emit(event, 0),
        }));
        if let Some((id, message)) = step.send {
            actions.push(Action::Send(self.envelope(message.kind, &id, &message.payload)));
            self.key_exchange = Some(id);
            self.key_exchange_at = None;
        }
        if let Some((version, fingerprint)) = step.secured {
            actions.push(Action::Emit(Event::Secure { version, fingerprint }, 0));
        }
        if step.agreed {
            self.handle_agreement(now, shared, actions);
        }
        if let Some(refusal) = step.refused {
            refuse(self, refusal, about, actions);
        }
    }

    /// A message that the relay forwarded, or an error of its own.
    pub(super) fn handle_message(
        &mut self,
        now: Instant,
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let opened = match self.secure.open(now, kind, id, payload) {
            Ok(opened) => {
                // Whoever says something sealed is awake.
                self.silent_since = self.silent_since.filter(|_| !opened.authenticated);
                opened
            }
            Err(refusal) => {
                if refusal.of_other_keys {
                    self.doubt(now);
                }
                return refuse(self, refusal, id, actions);
            }
        };
        if opened.renewed {
            self.handle_agreement(now, shared, actions);
        }
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
    pub(super) fn handle_payload(
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
        let (missed, sent_at) = (opened.missed, opened.sent_at.and_then(NonZeroU64::new));
        let message = Message { kind: kind.to_owned(), id, payload, missed, sent_at, from: self.lane };
        actions.push(Action::Emit(Event::Message(message), opened.payload.get().len()));
    }

    /// A device is told that it is one, in words of the owner's.
    pub(super) fn welcome(&mut self, now: Instant, payload: &RawValue, shared: &Shared, actions: &mut Vec<Action>) {
        let Some(of) = self.secure.of_mut().filter(|of| of.is_admitted()) else { return };
        of.welcome();
        let id = envelope::new_id();
        match self.secure.seal(WELCOME, &id, payload, &self.receiver) {
            Ok(sealed) => actions.push(Action::Send(self.envelope(WELCOME, &id, &sealed))),
            // It asks again when it comes again.
            Err(NotSealed { why, .. }) => return actions.push(not_kept(why.unwrap_or_default())),
        }
        self.handle_agreement(now, shared, actions);
    }

    /// A phone's keys may be worth nothing: it opens anew, though not for each such sign.
    pub(super) fn doubt(&mut self, now: Instant) {
        if let Some(at) = self.secure.doubt(now) {
            self.key_exchange_at = Some(at);
            self.acks.handle_away();
        }
    }

    /// A device that does not acknowledge is asleep: it is told to nobody but the relay, and heard of again when it says
    /// something.
    pub(super) fn take_silent(&mut self, now: Instant, silence_max: Duration) -> Option<DeviceId> {
        let is_silent = self.silent_since.is_some_and(|since| now >= since + silence_max);
        let device = self.lane.filter(|_| is_silent && self.online)?;
        self.silent_since = None;
        self.online = false;
        self.secure.handle_away();
        self.handle_away();
        Some(device)
    }

    /// The relay takes it for absent: what is for it may be kept.
    pub(super) fn handle_parked(&self, shared: &Shared) {
        if !self.online && !self.draining {
            self.share_presence(shared);
        }
    }

    /// Something has left that is to be acknowledged.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }
}
