//! The messages of this end: those that wait to be sent, and, where the peer resumes, those that were numbered and are
//! not acknowledged. No locks and no clock.

use super::envelope;
use super::options::{OUTGOING_BYTES_MAX, OUTGOING_MAX, PIECE_BYTES_MAX};
use super::resume::{ABSENT, Boot, Held, Keep, Position, Sender, Window};
use coralmux_proto::token::Role;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What an entry of the queue says.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A message, its payload written.
    Message { kind: String, payload: Box<RawValue> },
    /// A piece of an answer, that may still grow.
    Piece { stream: u64, seq: u64, fields: Arc<Map<String, Value>>, text: String },
}

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) content: Content,
    pub(super) queued: Instant,
    /// How often it was refused for its rate.
    pub(super) refusals: u32,
    /// Its place among all that were queued, given by the queue.
    order: u64,
    /// Whether a relay keeps it for an absent peer.
    keep: Keep,
    /// When its owner sent it, in Unix milliseconds.
    sent_at: u64,
}

impl Entry {
    /// `sent_at`: now, in Unix milliseconds.
    pub(super) fn message(now: Instant, id: String, kind: &str, payload: Box<RawValue>, sent_at: u64) -> Self {
        let content = Content::Message { kind: kind.to_owned(), payload };
        Self { id, content, queued: now, refusals: 0, order: 0, keep: Keep::Quiet, sent_at }
    }

    pub(super) fn keep(&self) -> Keep {
        self.keep
    }

    /// The same, which a relay keeps like this for an absent peer.
    pub(super) fn with_keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// Memory it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        128 + self.size()
    }

    /// Bytes of its payload, or of its text.
    fn size(&self) -> usize {
        match &self.content {
            Content::Message { payload, .. } => payload.get().len(),
            Content::Piece { text, .. } => text.len(),
        }
    }

    pub(super) fn is_piece(&self) -> bool {
        self.stream().is_some()
    }

    fn stream(&self) -> Option<u64> {
        match self.content {
            Content::Message { .. } => None,
            Content::Piece { stream, .. } => Some(stream),
        }
    }

    pub(super) fn kind(&self) -> &str {
        match &self.content {
            Content::Message { kind, .. } => kind,
            Content::Piece { .. } => "chat.stream",
        }
    }

    /// The payload's JSON.
    pub(super) fn payload(&self) -> Cow<'_, RawValue> {
        match &self.content {
            Content::Message { payload, .. } => Cow::Borrowed(payload),
            Content::Piece { seq, fields, text, .. } => {
                let mut payload = (**fields).clone();
                payload.insert("delta".to_owned(), json!(text));
                payload.insert("seq".to_owned(), json!(seq));
                // A map of values has nothing that cannot be written.
                Cow::Owned(serde_json::value::to_raw_value(&payload).expect("JSON values can be written as JSON"))
            }
        }
    }
}

/// The next text of an answer.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) stream: u64,
    /// The number of the piece, if it is one by itself.
    pub(super) seq: u64,
    pub(super) fields: &'a Arc<Map<String, Value>>,
    pub(super) text: &'a str,
}

/// What may leave now.
#[derive(Debug)]
pub(super) enum Next {
    /// This record, as a message of this type and id, with this `keep` in its envelope.
    Record { kind: String, id: String, plaintext: Box<RawValue>, is_piece: bool, keep: Option<&'static str> },
    /// Nothing, until this time or until something happens.
    Wait(Option<Instant>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    role: Role,
    /// Of a device: it never makes an agent wait, absent or not, for there are others.
    is_devices: bool,
    /// By their `order`.
    entries: VecDeque<Entry>,
    /// How many were queued so far.
    queued: u64,
    /// Sum of the entries' bytes.
    bytes: usize,
    /// What was numbered; empty while `resumes` is not set.
    pub(super) sender: Sender,
    /// The last agreement with the peer was one with resume.
    resumes: bool,
    /// The peer cannot be reached.
    absent: bool,
}

impl Outgoing {
    pub(super) fn new(role: Role, boot: Boot) -> Self {
        Self {
            role,
            is_devices: false,
            entries: VecDeque::new(),
            queued: 0,
            bytes: 0,
            sender: Sender::new(Window::of(role), boot),
            resumes: false,
            absent: true,
        }
    }

    /// An agent's toward one of its devices.
    pub(super) fn of_device(boot: Boot) -> Self {
        Self { is_devices: true, resumes: true, ..Self::new(Role::Agent, boot) }
    }

    /// What this end sends is numbered, and held until it is acknowledged.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Keys were agreed, with resume or without. Gives what was held for a peer that does not resume any more.
    pub(super) fn handle_agreement(&mut self, resume: bool) -> Vec<Held> {
        let had = std::mem::replace(&mut self.resumes, resume);
        self.sender.handle_agreement();
        if had && !resume { self.sender.abandon() } else { Vec::new() }
    }

    /// Whether the peer can be reached. Gives the ids of what is given up, because it is not waited for.
    pub(super) fn set_absent(&mut self, absent: bool) -> Vec<String> {
        self.absent = absent;
        if self.never_waits() { self.give_up_for(0, 0) } else { Vec::new() }
    }

    /// An absent phone never makes an agent wait.
    pub(super) fn never_waits(&self) -> bool {
        self.is_devices || self.role == Role::Agent && self.resumes && self.absent
    }

    /// The peer cannot be reached.
    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }

    /// The relay has all that it keeps for the absent peer, or keeps no more.
    pub(super) fn is_all_kept(&self) -> bool {
        let waits = self.entries.iter().any(|entry| entry.keep != Keep::Never);
        !self.sender.is_mailing() || !self.sender.is_putting() && self.sender.poll_keep().is_none() && !waits
    }

    /// What senders wait for to fall: whether they have to, and how much is before them.
    pub(super) fn pressure(&self) -> (bool, usize) {
        (!self.never_waits(), self.bytes)
    }

    /// Whether so many bytes more may wait.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() < OUTGOING_MAX && self.bytes + bytes <= OUTGOING_BYTES_MAX
    }

    /// Makes room for a message of this size, or for text (0 messages), by giving up what is oldest; gives the ids of
    /// it. Only where an agent must not wait.
    pub(super) fn give_up_for(&mut self, messages: usize, bytes: usize) -> Vec<String> {
        let mut given_up = Vec::new();
        loop {
            let waiting = || self.entries.iter().filter(|entry| !entry.is_piece());
            // While a device is there the pieces that it has not acknowledged are within its window.
            let held = if self.absent { self.sender.len() } else { self.sender.messages() };
            let count = held + waiting().count() + messages;
            let size =
                self.sender.bytes() + waiting().map(Entry::size).sum::<usize>() + if messages == 0 { 0 } else { bytes };
            if count <= ABSENT.messages_max && size <= ABSENT.bytes_max {
                break;
            }
            if let Some(held) = self.sender.give_up() {
                // The relay may have it.
                given_up.extend((held.stream.is_none() && !held.is_kept).then_some(held.id));
                continue;
            }
            let Some(at) = self.entries.iter().position(|entry| !entry.is_piece()) else { break };
            given_up.extend(self.remove(at).map(|entry| entry.id));
            self.sender.skip();
        }
        // Pieces have no such bound: an answer's grow into one. What is left is that of the queue.
        while !self.has_room(bytes) && !self.entries.is_empty() {
            given_up.extend(self.remove(0).filter(|entry| !entry.is_piece()).map(|entry| entry.id));
        }
        given_up
    }

    /// Queues an entry. The caller has looked for room.
    pub(super) fn push(&mut self, mut entry: Entry) {
        if self.role == Role::Agent && self.resumes && self.absent && entry.keep == Keep::Never && !entry.is_piece() {
            return; // It is worth nothing to a phone that is away.
        }
        entry.order = self.queued;
        self.queued += 1;
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// Adds text to a stream: to the piece that still waits, or as a new one. Gives whether it was a new one.
    pub(super) fn push_text(&mut self, now: Instant, piece: Piece<'_>) -> bool {
        let Piece { stream, seq, fields, text } = piece;
        let grows = self.never_waits();
        let of_stream = |entry: &&mut Entry| entry.stream() == Some(stream);
        if let Some(Entry { content: Content::Piece { text: waiting, .. }, .. }) =
            self.entries.iter_mut().rev().find(of_stream)
            && (grows || waiting.len() + text.len() <= PIECE_BYTES_MAX)
        {
            waiting.push_str(text);
            self.bytes += text.len();
            return false;
        }
        let content = Content::Piece { stream, seq, fields: Arc::clone(fields), text: text.to_owned() };
        self.push(Entry {
            id: envelope::new_id(),
            content,
            queued: now,
            refusals: 0,
            order: 0,
            keep: Keep::Never,
            sent_at: 0,
        });
        true
    }

    /// An answer ends, with all its text: a peer that resumes needs none of its pieces again. Those that wait for the
    /// peer, and not only for their turn, do not leave any more.
    pub(super) fn end_stream(&mut self, stream: u64) {
        if !self.resumes {
            return;
        }
        let flows = !self.absent && self.sender.has_room(0);
        self.sender.end_stream(stream);
        if flows {
            return;
        }
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let stays = entry.stream() != Some(stream);
            *bytes -= if stays { 0 } else { entry.bytes() };
            stays
        });
    }

    /// The next record. `wait` says until when one has to wait, given whether it is a piece, and whether it leaves for
    /// the first time.
    pub(super) fn poll_record(
        &mut self,
        now: Instant,
        ack: Position,
        wait: impl FnOnce(bool, bool) -> Option<Instant>,
    ) -> Next {
        if let Some(until) = self.sender.poll_refused(now) {
            return Next::Wait(Some(until));
        }
        if let Some(held) = self.sender.poll_again() {
            if !self.sender.has_room(held.bytes()) || !self.sender.may_leave(held.stream.is_some()) {
                return Next::Wait(None);
            }
            if let Some(until) = wait(held.stream.is_some(), false) {
                return Next::Wait(Some(until));
            }
        } else {
            let Some(entry) = self.entries.front() else { return Next::Wait(None) };
            if let Some(until) = self.sender.poll_follow().or_else(|| wait(entry.is_piece(), true)) {
                return Next::Wait(Some(until));
            }
            let payload = entry.payload();
            if !self.sender.has_room(payload.get().len()) || !self.sender.may_leave(entry.is_piece()) {
                return Next::Wait(None);
            }
            drop(payload);
            self.number(0);
        }
        let written = self.sender.write_next(ack).map(|(held, plaintext)| Self::record(held, plaintext));
        self.with_keep(written)
    }

    /// The next record that the relay is to keep for an absent peer.
    pub(super) fn poll_keep(&mut self, now: Instant, ack: Position) -> Next {
        if let Some(until) = self.sender.poll_refused(now) {
            return Next::Wait(Some(until));
        }
        if !self.sender.is_mailing() || self.sender.is_putting() {
            return Next::Wait(None);
        }
        let held = self.sender.poll_keep().map(Held::bytes);
        let waiting = || self.entries.iter().position(|entry| entry.keep != Keep::Never);
        let (bytes, at) = match held.map_or_else(waiting, |_| None) {
            Some(at) => (self.entries[at].size(), Some(at)),
            None => match held {
                Some(bytes) => (bytes, None),
                None => return Next::Wait(None),
            },
        };
        if !self.sender.can_be_kept(bytes) {
            return Next::Wait(None);
        }
        if let Some(mut at) = at {
            if self.entries[at].kind() == "chat.error" {
                // It ends what pieces before it belong to.
                for before in
                    (0..at).rev().filter(|before| self.entries[*before].keep == Keep::Never).collect::<Vec<_>>()
                {
                    self.remove(before);
                    at -= 1;
                }
            }
            self.number(at);
        }
        let written = self.sender.write_keep(ack).map(|(held, plaintext)| Self::record(held, plaintext));
        self.with_keep(written)
    }

    /// Numbers an entry, which is held from now on.
    fn number(&mut self, at: usize) {
        let Some(entry) = self.remove(at) else { return };
        let (payload, kind, stream) = (entry.payload().into_owned(), entry.kind().to_owned(), entry.stream());
        let Entry { id, keep, sent_at, .. } = entry;
        self.sender.push(Held { number: 0, id, kind, payload, stream, keep, sent_at, is_kept: false });
    }

    fn record(held: &Held, plaintext: Box<RawValue>) -> (Keep, Next) {
        let (kind, id, is_piece) = (held.kind.clone(), held.id.clone(), held.stream.is_some());
        (held.keep, Next::Record { kind, id, plaintext, is_piece, keep: None })
    }

    fn with_keep(&self, written: Option<(Keep, Next)>) -> Next {
        match written {
            Some((of, Next::Record { kind, id, plaintext, is_piece, .. })) => {
                Next::Record { kind, id, plaintext, is_piece, keep: self.sender.keep_name(of) }
            }
            _ => Next::Wait(None),
        }
    }

    /// The peer's acknowledgement; `resend`: it asks for what is above it. Gives what has reached it, and what of a phone's
    /// never has, pieces aside. What of an agent's never has is sent again under a new number.
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        position: &Position,
        resend: bool,
        fresh: impl FnOnce() -> Boot,
    ) -> (Vec<Held>, Vec<Held>) {
        let gone = self.sender.handle_ack(now, position, resend, fresh);
        let (lost, mut taken): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(_, lost)| *lost);
        taken.retain(|(held, _)| held.stream.is_none());
        let lost = lost.into_iter().map(|(held, _)| held).filter(|held| held.stream.is_none());
        let taken = taken.into_iter().map(|(held, _)| held).collect();
        if self.role == Role::Phone {
            return (taken, lost.collect());
        }
        for held in lost.filter(|held| held.keep != Keep::Never).collect::<Vec<_>>().into_iter().rev() {
            let entry = Entry::message(now, held.id, &held.kind, held.payload, held.sent_at).with_keep(held.keep);
            self.put_back(entry);
        }
        (taken, Vec::new())
    }

    /// Takes the first entry that `wanted` agrees to; only the first is shown to it.
    pub(super) fn pop_if(&mut self, wanted: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        self.entries.front().is_some_and(wanted).then(|| self.remove(0))?
    }

    /// Takes the first entry if it has waited for longer than `hold`, and not for a peer that resumes.
    pub(super) fn pop_expired(&mut self, now: Instant, hold: Duration) -> Option<Entry> {
        self.oldest().filter(|oldest| now >= *oldest + hold).and_then(|_| self.remove(0))
    }

    /// Puts an entry that was refused back where it was in the order. Bounded by what was popped before.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        let at = self.entries.partition_point(|other| other.order < entry.order);
        self.entries.insert(at, entry);
    }

    /// Since when the oldest entry waits, if it does not wait without end: a peer that resumes gets it when it comes.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.entries.front().filter(|_| !self.resumes).map(|entry| entry.queued)
    }

    /// Nothing waits to be sent, and nothing to be acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.sender.len() == 0
    }

    /// The ids of what waits or is held, pieces aside; not of what the relay keeps.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        let waiting = self.entries.iter().filter(|entry| !entry.is_piece()).map(|entry| entry.id.as_str());
        self.sender.ids().chain(waiting)
    }

    /// Nothing is sent any more.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.entries.remove(at)?;
        self.bytes -= entry.bytes();
        Some(entry)
    }
}
