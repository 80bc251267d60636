//! Takes each message once and in order: the chapter's rules for a receiver.

use super::record::{Boot, LOST_MAX, Position, Range, Record};
use super::{BOOTS_MAX, EARLY_BYTES_MAX, EARLY_MAX};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};

/// A message whose turn it is.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: String,
    pub(crate) id: Option<String>,
    pub(crate) payload: Box<RawValue>,
    /// When its owner sent it, in Unix milliseconds by the peer's clock.
    pub(crate) sent_at: Option<u64>,
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
    /// Numbers below it that never came; in order, at most [`LOST_MAX`] ranges.
    lost: Vec<Range>,
}

/// What is kept of a boot over processes: the number that is expected, and what never came.
pub(crate) type Stored = (Boot, u64, Vec<Range>);

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
    /// What the relay has kept is coming, and the peer cannot be asked for anything.
    draining: bool,
    /// A page of it has ended with something early.
    held_over: bool,
}

impl Receiver {
    /// One that goes on where another was: the boots of the peer, the newest last, with the number that is expected of each.
    pub(crate) fn of(known: Vec<Stored>) -> Self {
        let mut receiver = Self::default();
        receiver.boots.extend(known.into_iter().map(|(boot, next, lost)| Known { boot, next: next.max(1), lost }));
        receiver.forget_boots();
        receiver
    }

    /// What [`of`](Self::of) is given.
    pub(crate) fn known(&self) -> impl Iterator<Item = (Boot, u64, &[Range])> {
        self.boots.iter().map(|known| (known.boot, known.next, &*known.lost))
    }

    /// What has been taken.
    pub(crate) fn position(&self) -> Position {
        let position =
            |known: &Known| Position { boot: Some(known.boot), number: known.next - 1, lost: known.lost.clone() };
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

    /// A new agreement begins: what was early comes again. Not while the relay hands out what it has kept.
    pub(crate) fn handle_agreement(&mut self) {
        if !self.draining {
            self.forget_early();
        }
    }

    /// A new connection. `drains`: the relay first hands out what it has kept, and the peer counts as absent.
    pub(crate) fn handle_connected(&mut self, drains: bool) {
        self.forget_early();
        (self.draining, self.held_over) = (drains, false);
    }

    /// A page of what the relay has kept has ended; whether it was the last. Gives what is taken now, and whether the page
    /// and those before it may be confirmed, when what was taken is safe (rule 8).
    pub(crate) fn handle_page(&mut self, last: bool) -> (Taken, bool) {
        let mut taken = Taken::default();
        let was_held_over = self.held_over;
        if self.draining && (last || was_held_over) {
            self.give_up_gaps(&mut taken);
        }
        self.draining = !last;
        self.held_over = self.draining && !self.early.is_empty();
        (taken, was_held_over || !self.held_over)
    }

    fn forget_early(&mut self) {
        self.early.clear();
        (self.early_bytes, self.wanted) = (0, 0);
    }

    /// A record of the peer.
    pub(crate) fn handle(&mut self, record: &Record<'_>, kind: &str, id: Option<&str>) -> Taken {
        let mut taken = Taken::default();
        if self.draining && self.is_in_the_way(record) {
            self.give_up_gaps(&mut taken);
        }
        taken.restarted = self.make_current(record);
        let next = self.next();
        if record.base > next {
            taken.missed += record.base - next;
            self.advance(record.base);
        }
        self.forget_lost(record.base);
        let message = Message {
            kind: kind.to_owned(),
            id: id.map(str::to_owned),
            payload: record.payload.to_owned(),
            sent_at: record.sent_at,
        };
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
        self.boots.push_back(known.unwrap_or(Known { boot: record.boot, next: record.base, lost: Vec::new() }));
        self.forget_boots();
        self.forget_early();
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
        let fits = self.fits(number, early.bytes());
        let replaced = self.early.remove(&number).map_or(0, |before| before.bytes());
        self.early_bytes -= replaced;
        self.wanted = self.wanted.max(early.from);
        if fits {
            self.early_bytes += early.bytes();
            self.early.insert(number, early);
        }
    }

    /// Whether an early message finds room.
    fn fits(&self, number: u64, bytes: usize) -> bool {
        let replaced = self.early.get(&number);
        let (count, held) = (usize::from(replaced.is_some()), replaced.map_or(0, Early::bytes));
        self.early.len() - count < EARLY_MAX && self.early_bytes - held + bytes <= EARLY_BYTES_MAX
    }

    /// Whether what is early leaves a record no room, or is of another boot.
    fn is_in_the_way(&self, record: &Record<'_>) -> bool {
        let is_of_another = self.boots.back().is_some_and(|known| known.boot != record.boot);
        let has_room = || record.from <= self.next() || self.fits(record.number, record.payload.get().len());
        !self.early.is_empty() && (is_of_another || !has_room())
    }

    /// Takes what is early, in order: what is missing before it never came.
    fn give_up_gaps(&mut self, taken: &mut Taken) {
        while let Some(from) = self.early.first_key_value().map(|(_, early)| early.from) {
            let Some(known) = self.boots.back_mut() else { break };
            // What is early has something missing before it: `next < from`.
            let gap = (known.next, from - 1);
            let is_full = known.lost.len() == LOST_MAX;
            match known.lost.last_mut().filter(|before| before.1 + 1 == gap.0) {
                Some(before) => before.1 = gap.1,
                None if is_full => break,
                None => known.lost.push(gap),
            }
            taken.missed += from - known.next;
            known.next = from;
            self.take_early(taken);
        }
        self.forget_early();
    }

    /// What is below the base is no news to the sender.
    fn forget_lost(&mut self, base: u64) {
        let Some(known) = self.boots.back_mut() else { return };
        known.lost.retain(|(_, last)| *last >= base);
        if let Some((first, _)) = known.lost.first_mut() {
            *first = base.max(*first);
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
                self.boots.insert(before_last, Known { boot, next: number + 1, lost: Vec::new() });
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
