//! Fairness: what one connection may make the shard do in one turn, before the others have had theirs.
//!
//! A turn's work is divided among those who brought some. Who has used its share up waits for the next turn with what it
//! has sent, and is received from in small pieces until it has caught up, so that it can neither keep the others waiting
//! nor take the receive buffers away from them.

use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::{CALM, FRAME_WORK, SHARE_MIN, TURN_WORK};
use crate::shard::net::connection::Pauses;
use std::collections::VecDeque;
use std::time::Duration;

/// What is left of a connection's share of a turn, counted in bytes.
#[derive(Debug)]
pub(in crate::shard) struct Share(usize);

impl Share {
    /// Takes a frame of which `bytes` are handled now. The frame that takes the last of a share is still handled: a
    /// message may be longer than any share.
    pub(super) fn take_frame(&mut self, bytes: usize) {
        self.take(FRAME_WORK + bytes);
    }

    /// Takes bytes of a frame that was counted before.
    pub(in crate::shard) fn take(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }

    /// Whether the next frame has to wait for the next turn.
    #[must_use]
    pub(super) fn is_used_up(&self) -> bool {
        self.0 == 0
    }
}

/// How a turn is divided, and who waits for the next one.
#[derive(Debug)]
pub(in crate::shard) struct Turns {
    share: usize,
    deferred: VecDeque<Conn>,
    /// When messages were last forwarded, by the shard's clock.
    forwarded_at: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self { share: TURN_WORK, deferred: VecDeque::new(), forwarded_at: Duration::ZERO }
    }
}

impl Turns {
    /// Divides the turn that begins among what has come, `count` of them, and those who waited for it.
    pub(in crate::shard) fn begin(&mut self, count: usize) {
        self.share = (TURN_WORK / (count + self.deferred.len()).max(1)).max(SHARE_MIN);
    }

    /// A connection's share of this turn.
    #[must_use]
    pub(in crate::shard) fn share(&self) -> Share {
        Share(self.share)
    }

    /// The turn has handled what came; `forwarded`: messages among it.
    pub(in crate::shard) fn end(&mut self, now: Duration, forwarded: bool) {
        if forwarded {
            self.forwarded_at = now;
        }
    }

    /// Whether nobody has sent a message lately, so that other things may take their time.
    #[must_use]
    pub(in crate::shard) fn is_calm(&self, now: Duration) -> bool {
        now.saturating_sub(self.forwarded_at) > CALM
    }

    /// Those who wait for the next turn.
    #[cfg(test)]
    pub(in crate::shard) fn deferred(&self) -> impl Iterator<Item = Conn> {
        self.deferred.iter().copied()
    }

    /// Whether nobody waits for the next turn.
    #[must_use]
    pub(in crate::shard) fn is_quiet(&self) -> bool {
        self.deferred.is_empty()
    }
}

impl<N: Net> Shard<N> {
    /// The connection has used its share up: it goes on in the next turn.
    pub(super) fn defer(&mut self, conn: Conn) {
        self.net[conn].pace();
        self.net.pause(conn, Pauses::TURN);
        self.turns.deferred.push_back(conn);
    }

    /// Goes on with those who have waited for this turn.
    pub(in crate::shard) fn resume_deferred(&mut self) {
        for _ in 0..self.turns.deferred.len() {
            let Some(conn) = self.turns.deferred.pop_front() else { return };
            if self.net.take_pause(conn, Pauses::TURN) {
                self.resume(conn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_divided_among_those_who_brought_something() {
        let mut turns = Turns::default();
        turns.begin(1);
        assert_eq!(turns.share().0, TURN_WORK);
        turns.begin(4);
        assert_eq!(turns.share().0, TURN_WORK / 4);
        turns.begin(1_000_000);
        assert_eq!(turns.share().0, SHARE_MIN, "everybody gets somewhere in each turn");
        turns.deferred.extend([1, 2, 3].map(|index| Conn::of(index, 0)));
        turns.begin(1);
        assert_eq!(turns.share().0, TURN_WORK / 4, "those who wait are counted");
    }

    #[test]
    fn frames_without_payload_use_a_share_up_as_well() {
        let mut turns = Turns::default();
        turns.begin(usize::MAX >> 1);
        let mut share = turns.share();
        let frames = std::iter::repeat_with(|| share.take_frame(0)).take(SHARE_MIN / FRAME_WORK).count();
        assert_eq!(frames, SHARE_MIN / FRAME_WORK);
        assert!(share.is_used_up());
    }
}
