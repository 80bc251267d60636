//! Memory for messages: who gets it, who waits for it, and who loses it to those who wait.
//!
//! While less than half of the budget is in use a message gets its memory when it begins. From then on a promise is not
//! enough: a good part of the message has to be there. Who waits does so for a few seconds at most and is then told to
//! try again, so that what comes behind the message, pings among it, is looked at. Meanwhile those who hold memory and
//! get nowhere lose it: senders that trickle, and receivers that do not read.
//!
//! A part of the memory is for messages that are soon gone, so that an image does not wait for files that come as slowly as
//! they may.

use super::Shard;
use super::bounds::{
    BACKING_BYTES, BACKLOG_BYTES, HOLDING_MIN, HOLDING_SPEED_MIN, HOLDING_SPEED_SAFE, MEMORY_WAIT, MEMORY_WAIT_MIN,
    OVERTAKING_BYTES_MAX, QUICK_BYTES_MAX, QUICK_PART, SMALL_BYTES_MAX, TICK,
};
use super::close::CloseReason;
use super::forward::inbox::{Partial, Pending, Skipped};
use super::mutation::{Mutation, is_made};
use super::net::connection::{Connection, Pauses};
use crate::proto::frame::{Header, Opcode};
use crate::ring::chunk::{Budget, Reservation};
use crate::ring::{Conn, Net};
use std::collections::VecDeque;
use std::time::Duration;

/// The memory that peers can make the shard hold, and who waits for some.
pub(super) struct Memory {
    /// For messages.
    budget: Budget,
    /// For messages of at most [`QUICK_BYTES_MAX`] that would have to wait otherwise.
    quick: Budget,
    /// What both have together.
    bytes_max: usize,
    /// For what has been received and cannot be looked at.
    backlog: Budget,
    /// First come first served, but for those whose promise nothing backs.
    waiters: VecDeque<Conn>,
    /// The one whose turn it is.
    first_in_line: Option<Conn>,
    /// Somebody who came before that one goes on waiting: it may have nothing of `budget`.
    is_stuck: bool,
    /// When those who get nowhere are looked for again.
    evict_at: Duration,
}

impl Memory {
    pub(super) fn new(budget_bytes: usize, message_bytes_max: u64) -> Self {
        let memory = Self {
            budget: Budget::new(budget_bytes),
            quick: Budget::new(budget_bytes / QUICK_PART),
            bytes_max: budget_bytes,
            backlog: Budget::new(budget_bytes.max(BACKLOG_BYTES)),
            waiters: VecDeque::new(),
            first_in_line: None,
            is_stuck: false,
            evict_at: Duration::ZERO,
        };
        memory.share_out(message_bytes_max);
        memory
    }

    /// Sets a part aside for messages that are soon gone, so that the rest has room for one of the largest size.
    pub(super) fn share_out(&self, message_bytes_max: u64) {
        let largest = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let quick = (self.bytes_max / QUICK_PART).min(self.bytes_max.saturating_sub(largest));
        self.quick.resize(quick);
        self.budget.resize(self.bytes_max - quick);
    }

    /// That of messages.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Bytes that messages have reserved.
    pub(super) fn used_bytes(&self) -> usize {
        self.budget.used_bytes() + self.quick.used_bytes()
    }

    /// All that they can reserve.
    #[cfg(test)]
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// That of what cannot be looked at yet.
    pub(super) fn backlog(&self) -> &Budget {
        &self.backlog
    }

    /// Gives memory back that has not been needed lately.
    pub(super) fn trim(&self) {
        self.budget.trim();
        self.quick.trim();
    }

    /// How many wait.
    #[must_use]
    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Whether anybody waits.
    #[must_use]
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// All who wait.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> impl Iterator<Item = Conn> {
        self.waiters.iter().copied()
    }

    /// Memory for `bytes` of a message of `conn`; `None`: it has to wait. They are all of it if `is_whole`. `is_backed` says
    /// whether enough of the message has come that the rest can be believed in.
    fn reserve(&self, conn: Conn, bytes: usize, is_whole: bool, is_backed: impl Fn() -> bool) -> Option<Reservation> {
        if bytes <= SMALL_BYTES_MAX {
            return Some(self.budget.charge(bytes));
        }
        let is_next = self.waiters.is_empty() || self.first_in_line == Some(conn);
        // Who wants little does not wait behind those who want much.
        let is_first = is_next && !self.is_stuck || bytes <= OVERTAKING_BYTES_MAX;
        let on_trust = self.budget.used_bytes() + bytes <= self.budget.bytes_max() / 2;
        if is_first
            && (on_trust || is_backed())
            && let Some(reservation) = self.budget.reserve(bytes)
        {
            return Some(reservation);
        }
        // A message in fragments may become longer than it seems.
        let is_quick = is_whole && bytes <= QUICK_BYTES_MAX;
        (is_next && is_quick && is_backed()).then(|| self.quick.reserve(bytes)).flatten()
    }

    /// Whether a frame that waits could have some of what is set aside.
    fn has_quick(&self, header: &Header) -> bool {
        let bytes = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        let is_quick = header.fin && header.opcode != Opcode::Continuation && bytes <= QUICK_BYTES_MAX;
        is_quick && self.quick.used_bytes() + bytes <= self.quick.bytes_max()
    }

    /// Whether those who get nowhere are to be looked for at `now`: once a second at most.
    fn poll_eviction(&mut self, now: Duration) -> bool {
        let is_due = now >= self.evict_at;
        if is_due {
            self.evict_at = now + Duration::from_secs(1);
        }
        is_due
    }
}

impl<N: Net> Shard<N> {
    /// Memory for `bytes` more of a message whose frame of `frame_bytes` begins, of which `in_hand` have been received;
    /// `None`: it has to wait. They are all of the message if `is_whole`.
    pub(super) fn reserve(
        &self,
        conn: Conn,
        bytes: usize,
        is_whole: bool,
        frame_bytes: u64,
        in_hand: usize,
    ) -> Option<Reservation> {
        self.memory.reserve(conn, bytes, is_whole, || self.is_backed(conn, frame_bytes, in_hand))
    }

    /// Whether enough of a frame has come that the rest can be believed in.
    fn is_backed(&self, conn: Conn, frame_bytes: u64, in_hand: usize) -> bool {
        let wanted = BACKING_BYTES.min(usize::try_from(frame_bytes).unwrap_or(usize::MAX));
        in_hand >= wanted || self.net.unread_bytes(conn).is_ok_and(|unread| in_hand as u64 + unread >= wanted as u64)
    }

    /// Whether what waits is backed.
    fn is_pending_backed(&self, conn: Conn) -> bool {
        let Some(inbox) = &self.net[conn].inbox else { return false };
        let Some(pending) = &inbox.pending else { return false };
        self.is_backed(conn, pending.header.payload_bytes, inbox.waiting_bytes())
    }

    /// A data frame has to wait for memory.
    pub(super) fn wait_for_memory(&mut self, conn: Conn, header: Header) {
        self.net.pause(conn, Pauses::BUDGET);
        let (since, due) = (self.pulse.tick(), self.pulse.tick_after(MEMORY_WAIT));
        let inbox = self.inbox(conn);
        // Who was let try again and has to go on waiting keeps its place and its time.
        if inbox.pending.is_none() {
            inbox.pending = Some(Pending { header, since, due });
            self.counters.waits_for_memory();
            self.memory.waiters.push_back(conn);
            self.watch(conn, due);
        }
    }

    /// Whether a connection's peer has a share of the memory already, so that their token goes behind those that have none.
    fn peer_holds_memory(&self, conn: Conn) -> bool {
        let Some(seat) = self.net[conn].seat() else { return false };
        self.sessions.peers(seat).filter_map(|peer| self.net.get(peer)).any(|peer| {
            let partial = peer.inbox.as_ref().and_then(|inbox| inbox.partial.as_ref());
            partial.is_some_and(Partial::holds_memory)
                || self.net.outbox(peer).is_some_and(|outbox| outbox.holds_memory())
        })
    }

    /// Lets those who wait for memory try again, in order, until one has to go on waiting; from then on, those for whom some
    /// is set aside. Tokens that hold none come first.
    pub(super) fn retry_budget(&mut self) {
        if !self.memory.is_wanted() {
            return;
        }
        let waiting: Vec<Conn> = self.memory.waiters.drain(..).collect();
        let lives = |&conn: &Conn| self.lives(conn);
        let (later, first): (Vec<_>, Vec<_>) =
            waiting.into_iter().filter(lives).partition(|&conn| self.peer_holds_memory(conn));
        self.memory.waiters.extend(first.into_iter().chain(later));
        // Those whose reading goes on for another reason come first, so that none of them takes the place of the waiter
        // whose turn it is.
        self.resume_all();
        let mut kept = VecDeque::new();
        while let Some(conn) = self.memory.waiters.pop_front() {
            let Some(connection) = self.net.get_mut(conn) else { continue };
            let Some(pending) = connection.inbox.as_ref().and_then(|inbox| inbox.pending.as_ref()) else { continue };
            let since = pending.since;
            let waits = connection.is_paused_but_for(Pauses::BUDGET)
                || self.memory.is_stuck && !self.memory.has_quick(&pending.header);
            if waits || !self.is_pending_backed(conn) {
                kept.push_back(conn);
                continue;
            }
            self.memory.first_in_line = Some(conn);
            self.net.unpause(conn, Pauses::BUDGET);
            self.resume_all();
            self.memory.first_in_line = None;
            if self.is_pending(conn) {
                kept.extend((!is_made(Mutation::LostWaiter)).then_some(conn));
                if !std::mem::replace(&mut self.memory.is_stuck, true) {
                    self.make_memory(since);
                }
            }
        }
        self.memory.is_stuck = false;
        kept.append(&mut self.memory.waiters);
        self.memory.waiters = kept;
    }

    fn is_pending(&self, conn: Conn) -> bool {
        let inbox = self.net.get(conn).and_then(|connection| connection.inbox.as_ref());
        inbox.is_some_and(|inbox| inbox.pending.is_some())
    }

    /// A message has waited for memory for too long: it is skipped, and its sender told to try again.
    pub(super) fn refuse_pending(&mut self, conn: Conn) {
        let Some(pending) = self.inbox(conn).pending.take() else { return };
        self.begin_skipped(conn, pending.header, Skipped::NoMemory);
        self.net.unpause(conn, Pauses::BUDGET);
    }

    /// Somebody has waited since tick `since`: those who hold memory and get nowhere lose it.
    fn make_memory(&mut self, since: u32) {
        let now = self.pulse.now();
        let waited = TICK * self.pulse.tick().saturating_sub(since);
        if waited < MEMORY_WAIT_MIN || !self.memory.poll_eviction(now) {
            return;
        }
        let (mut stuck, mut slowest) = (Vec::new(), None);
        for (conn, connection) in self.net.iter() {
            let Some(speed) = self.speed(connection) else { continue };
            if speed < HOLDING_SPEED_MIN {
                stuck.push(conn);
            } else if speed < HOLDING_SPEED_SAFE && slowest.is_none_or(|(slow, _)| speed < slow) {
                slowest = Some((speed, conn));
            }
        }
        if stuck.is_empty() {
            stuck.extend(slowest.map(|(_, conn)| conn));
        }
        for conn in stuck {
            self.lose_memory(conn);
        }
    }

    /// The speed of a connection that has held memory for a while, in bytes a second: of the message that it sends, or of
    /// what it is sent, whichever is slower.
    fn speed(&self, connection: &Connection) -> Option<u64> {
        let tick = self.pulse.tick();
        let sending = connection.inbox.as_ref().and_then(|inbox| inbox.partial.as_ref()).and_then(|partial| {
            partial.holds_memory().then(|| speed_of(partial.come_bytes(), tick.saturating_sub(partial.since))).flatten()
        });
        let receiving = self.net.outbox(connection).filter(|outbox| outbox.holds_memory());
        let receiving =
            receiving.and_then(|outbox| speed_of(outbox.taken_bytes, tick.saturating_sub(outbox.blocked_since)));
        [sending, receiving].into_iter().flatten().min()
    }

    /// Ends a connection so that others have the memory that it holds.
    fn lose_memory(&mut self, conn: Conn) {
        let Some(connection) = self.net.get(conn) else { return };
        let is_receiving = self.net.outbox(connection).is_some_and(|outbox| outbox.holds_memory());
        if is_receiving {
            self.end(conn, CloseReason::SlowConsumer);
        } else {
            self.close(conn, CloseReason::MessageTimeout);
        }
    }
}

/// Bytes a second over that many ticks; `None` while it is too early to tell.
fn speed_of(bytes: u64, ticks: u32) -> Option<u64> {
    let time = TICK * ticks;
    (time >= HOLDING_MIN).then(|| bytes * 1000 / time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_leaves_room_for_a_message_of_the_largest_size_also_when_that_changes() {
        const MIB: usize = 1 << 20;
        let memory = Memory::new(64 * MIB, 5 << 20);
        let parts = || (memory.budget.bytes_max() / MIB, memory.quick.bytes_max() / MIB);
        assert_eq!(parts(), (48, 16));
        for (largest, expected) in [(60, (60, 4)), (64, (64, 0)), (1, (48, 16)), (1000, (64, 0))] {
            memory.share_out(largest << 20);
            assert_eq!(parts(), expected, "{largest} MiB");
        }
    }
}
