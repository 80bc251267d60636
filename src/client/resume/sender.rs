//! Numbers what leaves, and holds it until it is acknowledged: the chapter's rules for a sender.

use super::record::{Boot, Position, Record};
use super::{FOLLOW_INTERVAL, REFUSED_DEFAULT, REFUSED_MAX, REFUSED_UNKNOWN, Window};
use coralmux_e2e::v3::DeviceId;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How a relay keeps a message for a peer that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The peer is woken by a notification.
    Wake,
    /// This device of an agent is woken, and the others if it is not there: it has asked.
    WakeFor(DeviceId),
    /// It finds the message when it comes.
    Quiet,
    /// Not at all: the message is worth nothing to a peer that is away.
    Never,
}

impl Keep {
    /// As the envelope has it.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Wake | Self::WakeFor(_) => Some("wake"),
            Self::Quiet => Some("quiet"),
            Self::Never => None,
        }
    }
}

/// A message that was numbered, and is neither acknowledged nor void.
#[derive(Debug)]
pub(crate) struct Held {
    /// Given by [`Sender::push`].
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) payload: Box<RawValue>,
    /// It is a piece of this answer, which its owner has no id of.
    pub(crate) stream: Option<u64>,
    pub(crate) keep: Keep,
    /// When its owner sent it, in Unix milliseconds.
    pub(crate) sent_at: u64,
    /// The relay has it, for a peer that is away.
    pub(crate) is_kept: bool,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.payload.get().len()
    }
}

/// Why the relay did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The rate or a quota: it may be taken after this time.
    Later(Option<Duration>),
    /// The peer is not there.
    Offline,
    /// The relay keeps no more for an absent peer; or it may after this time.
    Full(Option<Duration>),
    /// It will never be taken: it is too large, or for another reason.
    Never { too_large: bool },
    /// For a reason that is not known, which anybody on the way can invent; it may be taken after this time.
    Other(Option<Duration>),
}

/// What became of a message that the relay refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is held no more, or never was.
    Unknown,
    /// It is still held, and sent again.
    Held,
    /// It is void.
    Void(Held),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sender {
    window: Window,
    boot: Boot,
    /// The number of the next new message.
    next: u64,
    /// All numbers below it are acknowledged or given up: `1 <= base <= next`.
    base: u64,
    /// In the order of their numbers, which are at least `base` and below `next`. A number between that is not among
    /// them is void.
    held: VecDeque<Held>,
    /// Sum of the bytes of `held`.
    bytes: usize,
    /// What is held from this number on is to be sent, before anything new: `cursor <= next`.
    cursor: u64,
    /// When a request was followed last, under the present keys.
    followed: Option<Instant>,
    /// When to follow one that came too soon after it.
    follow_at: Option<Instant>,
    /// The relay has refused something: nothing numbered leaves before.
    refused_until: Option<Instant>,
    /// While a number below this one is held, messages leave one by one: `careful_below <= next`.
    careful_below: u64,
    /// How long a payload may be that the relay keeps for an absent peer; `None`: it keeps nothing.
    mail_bytes_max: Option<usize>,
    /// The peer is absent, as the relay says: what it keeps may leave.
    is_absent: bool,
    /// The relay keeps no more until the peer has been there.
    is_mail_full: bool,
    /// The id of what was sent to be kept and is not answered yet.
    putting: Option<String>,
}

impl Sender {
    pub(crate) fn new(window: Window, boot: Boot) -> Self {
        Self {
            window,
            boot,
            next: 1,
            base: 1,
            held: VecDeque::new(),
            bytes: 0,
            cursor: 1,
            followed: None,
            follow_at: None,
            refused_until: None,
            careful_below: 0,
            mail_bytes_max: None,
            is_absent: false,
            is_mail_full: false,
            putting: None,
        }
    }

    /// How many messages are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many of them are no pieces of answers.
    pub(crate) fn messages(&self) -> usize {
        self.held.iter().filter(|held| held.stream.is_none()).count()
    }

    /// The ids of what is held and the relay has not, pieces aside.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.held.iter().filter(|held| held.stream.is_none() && !held.is_kept).map(|held| held.id.as_str())
    }

    /// Bytes of the payloads that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a new message with so long a payload may be numbered.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let Window { messages_max, bytes_max } = self.window;
        let left = self.held.iter().take_while(|held| held.number < self.cursor).filter(|held| !held.is_kept);
        let (count, size) = left.fold((0, 0), |(count, size), held| (count + 1, size + held.bytes()));
        count == 0 || count < messages_max && size + bytes <= bytes_max
    }

    /// How long a payload may be that the relay keeps; `None`: it keeps nothing.
    pub(crate) fn handle_mail(&mut self, bytes_max: Option<usize>) {
        self.mail_bytes_max = bytes_max;
    }

    /// The relay says that the peer is not there.
    pub(crate) fn handle_absent(&mut self) {
        (self.is_absent, self.putting) = (true, None);
    }

    /// It is not said any more.
    pub(crate) fn handle_present(&mut self) {
        (self.is_absent, self.putting) = (false, None);
    }

    /// What leaves is for the relay to keep.
    pub(crate) fn is_mailing(&self) -> bool {
        self.is_absent && self.mail_bytes_max.is_some() && !self.is_mail_full
    }

    /// New keys are agreed: the peer's requests are counted anew, and what the relay refused is tried again.
    pub(crate) fn handle_agreement(&mut self) {
        (self.followed, self.follow_at, self.refused_until) = (None, None, None);
        self.handle_present();
        self.is_mail_full = false;
    }

    /// The peer's acknowledgement, of an `ack` or a record; `resend`: it asks for what is above it. Gives what is held no
    /// more, and whether it is lost: the peer never got it. `fresh` gives a boot, should this process have been set back
    /// to an earlier state.
    pub(crate) fn handle_ack(
        &mut self,
        now: Instant,
        position: &Position,
        resend: bool,
        fresh: impl FnOnce() -> Boot,
    ) -> Vec<(Held, bool)> {
        let mut taken = Vec::new();
        if position.boot == Some(self.boot) {
            if position.number >= self.next {
                self.renumber(fresh());
            } else {
                while self.held.front().is_some_and(|held| held.number <= position.number) {
                    let is_lost = |number| position.lost.iter().any(|(first, last)| (*first..=*last).contains(&number));
                    taken.extend(self.drop_first().map(|held| {
                        let lost = is_lost(held.number);
                        (held, lost)
                    }));
                }
                self.base = self.base.max(position.number + 1);
            }
        }
        if resend {
            let at = self.followed.map_or(now, |followed| (followed + FOLLOW_INTERVAL).max(now));
            self.follow_at.get_or_insert(at);
            self.handle_time(now);
        }
        taken
    }

    /// Follows a request whose time has come.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        if self.follow_at.take_if(|at| *at <= now).is_some() {
            self.followed = Some(now);
            self.cursor = self.base;
            // What was kept has been handed out: this is what the peer lacks.
            self.held.iter_mut().for_each(|held| held.is_kept = false);
        }
        self.refused_until.take_if(|until| *until <= now);
    }

    /// When there is something to do, although nothing comes.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let refused = self.refused_until.filter(|_| !self.held.is_empty() || self.is_mailing());
        [self.follow_at, refused].into_iter().flatten().min()
    }

    /// A request waits for its time, and nothing new leaves before it is followed.
    pub(crate) fn poll_follow(&self) -> Option<Instant> {
        self.follow_at
    }

    /// Nothing numbered may leave until then, for the relay has refused something.
    pub(crate) fn poll_refused(&self, now: Instant) -> Option<Instant> {
        self.refused_until.filter(|until| *until > now)
    }

    /// Whether what is next may leave: the relay has refused something for its rate, and takes no more than one message
    /// at a time. Pieces have a rate of their own, which refuses nothing.
    pub(crate) fn may_leave(&self, is_piece: bool) -> bool {
        let is_careful = self.held.front().is_some_and(|held| held.number < self.careful_below);
        let left = || self.held.iter().take_while(|held| held.number < self.cursor);
        !is_careful || is_piece || left().all(|held| held.stream.is_some())
    }

    /// What is to be sent again, and next.
    pub(crate) fn poll_again(&self) -> Option<&Held> {
        self.held.get(self.held.partition_point(|held| held.number < self.cursor))
    }

    /// Numbers a message, which is what is sent next if nothing is to be sent again. The caller has looked for room.
    pub(crate) fn push(&mut self, held: Held) {
        let held = Held { number: self.next, is_kept: false, ..held };
        self.bytes += held.bytes();
        self.cursor = self.cursor.min(self.next);
        self.next += 1;
        self.held.push_back(held);
    }

    /// The record of what [`poll_again`](Self::poll_again) shows, which leaves: with this acknowledgement in it.
    pub(crate) fn write_next(&mut self, ack: Position) -> Option<(&Held, Box<RawValue>)> {
        let at = self.held.partition_point(|held| held.number < self.cursor);
        self.cursor = self.held.get(at)?.number + 1;
        self.write(at, ack)
    }

    /// What the relay is to keep next of what is held: one at a time, so that they are kept in order. `None`: nothing of it.
    pub(crate) fn poll_keep(&self) -> Option<&Held> {
        self.held.iter().find(|held| !held.is_kept && held.keep != Keep::Never)
    }

    /// Whether something was sent to be kept and is not answered yet.
    pub(crate) fn is_putting(&self) -> bool {
        self.putting.is_some()
    }

    /// Whether a payload can be kept. If not, it waits for the peer, and all that is behind it.
    pub(crate) fn can_be_kept(&mut self, bytes: usize) -> bool {
        let can_be = self.mail_bytes_max.is_some_and(|max| bytes <= max);
        self.is_mail_full |= !can_be;
        can_be
    }

    /// The record of what [`poll_keep`](Self::poll_keep) shows, to be kept. What is fleeting is void for whoever is away.
    pub(crate) fn write_keep(&mut self, ack: Position) -> Option<(&Held, Box<RawValue>)> {
        let bytes = &mut self.bytes;
        self.held.retain(|held| {
            *bytes -= if held.keep == Keep::Never { held.bytes() } else { 0 };
            held.keep != Keep::Never
        });
        let at = self.held.iter().position(|held| !held.is_kept)?;
        self.putting = Some(self.held[at].id.clone());
        // If nothing is to be sent again it counts as sent.
        if self.cursor == self.held[at].number {
            self.cursor += 1;
        }
        self.write(at, ack)
    }

    fn write(&self, at: usize, ack: Position) -> Option<(&Held, Box<RawValue>)> {
        let from = at.checked_sub(1).map_or(self.base, |before| self.held[before].number + 1);
        let held = self.held.get(at)?;
        let record = Record {
            boot: self.boot,
            number: held.number,
            from,
            base: self.base,
            ack: Some(ack),
            origin: None,
            sent_at: self.mail_bytes_max.and_then(|_| held.keep.name()).map(|_| held.sent_at),
            payload: &held.payload,
        };
        Some((held, record.write()))
    }

    /// The envelope's `keep` of a message.
    pub(crate) fn keep_name(&self, keep: Keep) -> Option<&'static str> {
        self.mail_bytes_max.and_then(|_| keep.name())
    }

    /// The relay keeps the message with this id. Whether it is one that is held.
    pub(crate) fn handle_kept(&mut self, id: &str) -> bool {
        self.putting.take_if(|putting| putting == id);
        let held = self.held.iter_mut().find(|held| held.id == id);
        held.map(|held| held.is_kept = true).is_some()
    }

    /// The message with this id was refused by the relay.
    pub(crate) fn handle_refusal(&mut self, now: Instant, id: &str, refusal: Refusal) -> Refused {
        let was_put = self.putting.take_if(|putting| putting == id).is_some();
        let Some(at) = self.held.iter().position(|held| held.id == id) else { return Refused::Unknown };
        match refusal {
            Refusal::Later(after) => {
                let until = now + after.unwrap_or(REFUSED_DEFAULT).min(REFUSED_MAX);
                self.refused_until = Some(self.refused_until.map_or(until, |before| before.max(until)));
                self.cursor = self.cursor.min(self.held[at].number);
                self.careful_below = self.next;
            }
            Refusal::Offline => {
                self.cursor = self.cursor.min(self.held[at].number);
                // This relay keeps nothing. What was on its way to a peer that then left says nothing of that.
                self.is_absent &= !was_put;
            }
            Refusal::Full(Some(after)) => {
                let until = now + after.min(REFUSED_MAX);
                self.refused_until = Some(self.refused_until.map_or(until, |before| before.max(until)));
            }
            Refusal::Full(None) => self.is_mail_full = true,
            // What did not arrive is sent again when the peer asks for it.
            Refusal::Other(_) if !was_put => return Refused::Unknown,
            Refusal::Other(after) => {
                let until = now + after.unwrap_or_default().clamp(REFUSED_UNKNOWN, REFUSED_MAX);
                self.refused_until = Some(self.refused_until.map_or(until, |before| before.max(until)));
            }
            // It can be sent to a peer that is there.
            Refusal::Never { too_large: true } if self.is_absent => self.is_mail_full = true,
            Refusal::Never { .. } => return self.remove(at).map_or(Refused::Unknown, Refused::Void),
        }
        Refused::Held
    }

    /// The answer has ended with its whole text: its pieces are void.
    pub(crate) fn end_stream(&mut self, stream: u64) {
        let bytes = &mut self.bytes;
        self.held.retain(|held| {
            let stays = held.stream != Some(stream);
            *bytes -= if stays { 0 } else { held.bytes() };
            stays
        });
    }

    /// Gives up the oldest message that is held.
    pub(crate) fn give_up(&mut self) -> Option<Held> {
        let held = self.drop_first()?;
        self.base = held.number + 1;
        self.cursor = self.cursor.max(self.base);
        Some(held)
    }

    /// A message that was never numbered is given up, and takes a number, so that the peer counts it. Nothing is held.
    pub(crate) fn skip(&mut self) {
        debug_assert!(self.held.is_empty());
        self.next += 1;
        (self.base, self.cursor) = (self.next, self.next);
    }

    /// The peer does not resume any more: what was held, which is now in no one's care.
    pub(crate) fn abandon(&mut self) -> Vec<Held> {
        (self.base, self.cursor, self.bytes) = (self.next, self.next, 0);
        (self.follow_at, self.refused_until, self.careful_below) = (None, None, 0);
        self.held.drain(..).collect()
    }

    /// This process was set back to an earlier state, and numbers have two meanings: what is held gets new ones.
    fn renumber(&mut self, boot: Boot) {
        self.boot = boot;
        let is_careful = self.held.front().is_some_and(|held| held.number < self.careful_below);
        for (number, held) in (1..).zip(&mut self.held) {
            (held.number, held.is_kept) = (number, false);
        }
        (self.base, self.cursor, self.next) = (1, 1, 1 + self.held.len() as u64);
        self.careful_below = if is_careful { self.next } else { 0 };
    }

    fn drop_first(&mut self) -> Option<Held> {
        self.remove(0)
    }

    fn remove(&mut self, at: usize) -> Option<Held> {
        let held = self.held.remove(at)?;
        self.bytes -= held.bytes();
        Some(held)
    }
}
