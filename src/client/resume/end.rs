//! One end of a pair as the tests drive it: what the client's session does, without encryption and envelopes.

use super::{Ack, Acks, Boot, Held, Keep, Position, Receiver, Record, Refusal, Refused, Taken};
use crate::outgoing::{Entry, Next, Outgoing, Piece};
use coralmux_proto::token::Role;
use serde_json::value::RawValue;
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Instant;

/// What leaves.
#[derive(Debug)]
pub(super) enum Out {
    Ack(Ack),
    Record { id: String, plaintext: Box<RawValue>, keep: Option<&'static str> },
}

/// What an end sends, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) kind: &'static str,
    pub(super) keep: Keep,
    pub(super) sent_at: u64,
    /// It ends this answer, with its whole text.
    pub(super) ends: Option<u64>,
}

impl Sent {
    pub(super) const QUIET: Self = Self { kind: "kind", keep: Keep::Quiet, sent_at: 0, ends: None };
}

pub(super) struct End {
    pub(super) outgoing: Outgoing,
    pub(super) receiver: Receiver,
    pub(super) acks: Acks,
    /// Those that it draws when it was set back.
    boots: Vec<Boot>,
}

impl End {
    /// `boots`: the first, and those that it draws later.
    pub(super) fn new(role: Role, mut boots: Vec<Boot>) -> Self {
        let outgoing = Outgoing::new(role, boots.remove(0));
        Self { outgoing, receiver: Receiver::default(), acks: Acks::new(), boots }
    }

    /// The connection or the peer is gone, or has come anew.
    pub(super) fn leave(&mut self) {
        self.acks.handle_away();
        self.outgoing.sender.handle_present();
        self.receiver.handle_agreement();
    }

    /// New keys are agreed.
    pub(super) fn agree(&mut self, now: Instant) {
        self.leave();
        assert!(self.outgoing.handle_agreement(true).is_empty());
        self.acks.handle_agreement(now);
    }

    /// What has reached the peer, and what never has.
    pub(super) fn hear_ack(&mut self, now: Instant, ack: &Ack) -> (Vec<Held>, Vec<Held>) {
        let boots = &mut self.boots;
        let taken = self.outgoing.handle_ack(now, &ack.position, ack.resend, || boots.remove(0));
        self.acks.handle_ack(now, ack.resend);
        taken
    }

    /// The acknowledgement that a record carries.
    pub(super) fn hear_position(&mut self, now: Instant, position: &Position) -> (Vec<Held>, Vec<Held>) {
        let boots = &mut self.boots;
        self.outgoing.handle_ack(now, position, false, || boots.remove(0))
    }

    /// The relay says that the peer is not there.
    pub(super) fn lack_peer(&mut self) {
        self.leave();
        self.outgoing.sender.handle_absent();
    }

    /// Takes a record in.
    pub(super) fn take(&mut self, now: Instant, record: &Record<'_>) -> Taken {
        let taken = self.receiver.handle(record, "kind", None);
        self.acks.handle_taken(now, &taken, self.receiver.is_missing());
        taken
    }

    /// What is given up to make room for it.
    pub(super) fn send(&mut self, now: Instant, id: &str, payload: Box<RawValue>, sent: Sent) -> Vec<String> {
        let payload_bytes = payload.get().len();
        let entry = Entry::message(now, id.to_owned(), sent.kind, payload, sent.sent_at).with_keep(sent.keep);
        let given_up = self.make_room(1, payload_bytes);
        if let Some(stream) = sent.ends {
            self.outgoing.end_stream(stream);
        }
        self.outgoing.push(entry);
        given_up
    }

    /// Adds a piece of an answer. Whether it is a message of its own.
    pub(super) fn piece(&mut self, now: Instant, stream: u64, answer: &str, delta: &str) -> bool {
        assert!(self.make_room(0, delta.len()).is_empty());
        let fields = Arc::new(Map::from_iter([("answer".to_owned(), json!(answer))]));
        self.outgoing.push_text(now, Piece { stream, seq: 1, fields: &fields, text: delta })
    }

    fn make_room(&mut self, messages: usize, bytes: usize) -> Vec<String> {
        let mut given_up = self.outgoing.set_absent(!self.acks.is_open());
        if self.outgoing.never_waits() {
            given_up.extend(self.outgoing.give_up_for(messages, bytes));
        }
        given_up
    }

    pub(super) fn refuse(&mut self, now: Instant, id: &str, refusal: Refusal) -> Refused {
        let refused = self.outgoing.sender.handle_refusal(now, id, refusal);
        if refusal == Refusal::Offline {
            self.acks.handle_away();
        }
        refused
    }

    /// All that leaves now.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<Out> {
        let mut left = Vec::new();
        self.outgoing.sender.handle_time(now);
        if let Some(resend) = self.acks.poll(now) {
            left.push(Out::Ack(Ack { position: self.receiver.position(), resend }));
        }
        loop {
            let position = self.receiver.position();
            let next = match self.acks.is_open() {
                true => self.outgoing.poll_record(now, position, |_, _| None),
                false => self.outgoing.poll_keep(now, position),
            };
            let Next::Record { id, plaintext, keep, .. } = next else { return left };
            self.acks.handle_carried();
            left.push(Out::Record { id, plaintext, keep });
        }
    }
}
