//! Takes each message once and in order: the chapter's rules for a receiver.

use super::record::{Boot, Position, Record};
use super::{BOOTS_MAX, EARLY_BYTES_MAX, EARLY_MAX};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};

/// A message whose turn it is.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) payload: Box<RawValue>,
}

/// What a record led to.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// What is new, in order.
    pub(crate) messages: Vec<Message>,
    /// Numbers that count towards the next acknowledgement, and the bytes of their payloads. Those that had been taken
    /// before are among them.
    pub(crate) numbers: usize,
    pub(crate) bytes: usize,
    /// Numbers that will never come.
    pub(crate) missed: u64,
    /// The peer was restarted: the record is of a boot that was not known, and not the first.
    pub(crate) restarted: bool,
}

/// A boot of the peer.
#[derive(Debug)]
struct Known {
    boot: Boot,
    /// The number that is expected.
    next: u64,
}

/// A message that waits for one before it.
#[derive(Debug)]
struct Early {
    from: u64,
    origin: Option<(Boot, u64)>,
    message: Message,
}

impl Early {
    fn bytes(&self) -> usize {
        self.message.payload.get().len()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// The peer's boots, that of the newest record last; at most [`BOOTS_MAX`].
    boots: VecDeque<Known>,
    /// By their numbers, which are at least the last boot's `next`; at most [`EARLY_MAX`].
    early: BTreeMap<u64, Early>,
    /// Sum of the bytes of `early`, at most [`EARLY_BYTES_MAX`].
    early_bytes: usize,
    /// While `next` is below this number something is missing before what came early.
    wanted: u64,
}

impl Receiver {
    /// One that goes on where another was: the boots of the peer, the newest last, with the number that is expected of each.
    pub(crate) fn of(known: Vec<(Boot, u64)>) -> Self {
        let mut receiver = Self::default();
        receiver.boots.extend(known.into_iter().map(|(boot, next)| Known { boot, next: next.max(1) }));
        receiver.forget_boots();
        receiver
    }

    /// What [`of`](Self::of) is given.
    pub(crate) fn known(&self) -> impl Iterator<Item = (Boot, u64)> {
        self.boots.iter().map(|known| (known.boot, known.next))
    }

    /// What has been taken.
    pub(crate) fn position(&self) -> Position {
        let position = |known: &Known| Position { boot: Some(known.boot), number: known.next - 1 };
        self.boots.back().map_or(Position::NONE, position)
    }

    /// Something is missing that is to be asked for.
    pub(crate) fn is_missing(&self) -> bool {
        self.boots.back().is_some_and(|known| known.next < self.wanted)
    }

    /// How many messages are held.
    #[cfg(test)]
    pub(crate) fn early(&self) -> usize {
        self.early.len()
    }

    /// A new agreement begins: what was early comes again.
    pub(crate) fn handle_agreement(&mut self) {
        self.early.clear();
        (self.early_bytes, self.wanted) = (0, 0);
    }

    /// A record of the peer.
    pub(crate) fn handle(&mut self, record: &Record<'_>, kind: &str, id: Option<&str>) -> Taken {
        let mut taken = Taken { restarted: self.make_current(record), ..Taken::default() };
        let next = self.next();
        if record.base > next {
            taken.missed = record.base - next;
            self.advance(record.base);
        }
        let message = Message { kind: kind.to_owned(), id: id.map(str::to_owned), payload: record.payload.to_owned() };
        let early = Early { from: record.from, origin: record.origin, message };
        if record.from > self.next() {
            self.keep(record.number, early);
        } else {
            self.take(record.number, early, &mut taken);
        }
        self.take_early(&mut taken);
        taken
    }

    /// Makes the record's boot the current one. Whether it was not known, and another was.
    fn make_current(&mut self, record: &Record<'_>) -> bool {
        if self.boots.back().is_some_and(|known| known.boot == record.boot) {
            return false;
        }
        let at = self.boots.iter().position(|known| known.boot == record.boot);
        let known = at.and_then(|at| self.boots.remove(at));
        let restarted = known.is_none() && !self.boots.is_empty();
        self.boots.push_back(known.unwrap_or(Known { boot: record.boot, next: record.base }));
        self.forget_boots();
        self.handle_agreement();
        restarted
    }

    fn forget_boots(&mut self) {
        while self.boots.len() > BOOTS_MAX {
            self.boots.pop_front();
        }
    }

    fn next(&self) -> u64 {
        // `handle` has made a boot the current one.
        self.boots.back().map_or(1, |known| known.next)
    }

    fn advance(&mut self, next: u64) {
        if let Some(known) = self.boots.back_mut() {
            known.next = next;
        }
    }

    /// Holds a message that is early, if it fits. One that does not comes again with what is missing before it.
    fn keep(&mut self, number: u64, early: Early) {
        let replaced = self.early.remove(&number).map_or(0, |before| before.bytes());
        self.early_bytes -= replaced;
        let fits = self.early.len() < EARLY_MAX && self.early_bytes + early.bytes() <= EARLY_BYTES_MAX;
        self.wanted = self.wanted.max(early.from);
        if fits {
            self.early_bytes += early.bytes();
            self.early.insert(number, early);
        }
    }

    /// A message with nothing missing before it: it is new, or was taken before.
    fn take(&mut self, number: u64, early: Early, taken: &mut Taken) {
        taken.numbers += 1;
        taken.bytes += early.bytes();
        if number < self.next() {
            return;
        }
        self.advance(number + 1);
        if early.origin.is_none_or(|(boot, number)| self.take_origin(boot, number)) {
            taken.messages.push(early.message);
        }
    }

    /// Whether the message that another boot numbered so has not been taken; from now on it has.
    fn take_origin(&mut self, boot: Boot, number: u64) -> bool {
        match self.boots.iter_mut().find(|known| known.boot == boot) {
            Some(known) if number < known.next => false,
            Some(known) => {
                known.next = number + 1;
                true
            }
            None => {
                // The current boot stays the last.
                let before_last = self.boots.len().saturating_sub(1);
                self.boots.insert(before_last, Known { boot, next: number + 1 });
                self.forget_boots();
                true
            }
        }
    }

    /// Takes what was early and is not any more.
    fn take_early(&mut self, taken: &mut Taken) {
        while let Some(number) = self.due() {
            let Some(early) = self.early.remove(&number) else { return };
            self.early_bytes -= early.bytes();
            if number >= self.next() {
                self.take(number, early, taken);
            }
        }
    }

    /// The lowest number that is held and needs nothing before it, or was passed.
    fn due(&self) -> Option<u64> {
        let next = self.next();
        self.early.iter().find(|(number, early)| **number < next || early.from <= next).map(|(number, _)| *number)
    }
}
