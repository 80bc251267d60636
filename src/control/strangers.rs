//! Clients that cannot be let in by what is known here, where tokens are shared: they wait until all that other relays had
//! written when they came is known, however many they are for one question at a time.

use super::Worker;
use super::message::{Notice, Shards};
use crate::api::Caller;
use std::time::Duration;

/// Between two questions: so that strangers, however many, ask NATS ten times a second at the most.
const PAUSE_MS: u64 = 100;
/// How long an answer is waited for.
const ANSWER_MS: u64 = 2000;
/// Clients that wait at the most; further ones are told to come back.
const WAITING_MAX: usize = 65_536;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// For the next question.
    next: Vec<Caller>,
    /// For the answer to the last one.
    asked: Vec<Caller>,
    /// The last question.
    question: u64,
    asked_ms: u64,
}

impl Strangers {
    /// Whether there was room.
    #[must_use]
    fn add(&mut self, from: Caller) -> bool {
        let has_room = self.next.len() < WAITING_MAX;
        if has_room {
            self.next.push(from);
        }
        has_room
    }

    /// The next question, if it is time for one.
    fn poll_question(&mut self, now_ms: u64) -> Option<u64> {
        if self.next.is_empty() || !self.asked.is_empty() || now_ms.abs_diff(self.asked_ms) < PAUSE_MS {
            return None;
        }
        self.asked = std::mem::take(&mut self.next);
        (self.question, self.asked_ms) = (self.question + 1, now_ms);
        Some(self.question)
    }

    /// Those whose question is answered by the answer to this one.
    fn take_answered(&mut self, question: u64) -> Vec<Caller> {
        if question == self.question { std::mem::take(&mut self.asked) } else { Vec::new() }
    }

    /// Those whose answer does not come.
    fn take_late(&mut self, now_ms: u64) -> Vec<Caller> {
        let is_late = !self.asked.is_empty() && now_ms.abs_diff(self.asked_ms) >= ANSWER_MS;
        if is_late { std::mem::take(&mut self.asked) } else { Vec::new() }
    }

    /// All.
    fn take_all(&mut self) -> Vec<Caller> {
        self.asked.drain(..).chain(self.next.drain(..)).collect()
    }

    /// When there is something to do at the latest; `None`: nobody waits.
    pub(super) fn poll_timeout(&self, now_ms: u64) -> Option<Duration> {
        let until = match (self.asked.is_empty(), self.next.is_empty()) {
            (true, true) => return None,
            (false, _) => ANSWER_MS,
            (true, false) => PAUSE_MS,
        };
        Some(Duration::from_millis(until.saturating_sub(now_ms.abs_diff(self.asked_ms))))
    }
}

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// A client cannot be let in by what is known here.
    pub(super) fn handle_stranger(&mut self, from: Caller) {
        let sharing = self.sharing.as_mut();
        let waits = sharing.is_some_and(|sharing| sharing.cluster.state().is_there() && sharing.strangers.add(from));
        if !waits {
            self.tell_strangers(vec![from], false);
        }
    }

    /// All that was written when this question was asked has been taken in.
    pub(super) fn handle_current(&mut self, question: u64) {
        let Some(sharing) = &mut self.sharing else { return };
        let answered = sharing.strangers.take_answered(question);
        self.tell_strangers(answered, true);
    }

    /// Asks for those who wait, and sends away who has waited in vain.
    pub(super) fn poll_strangers(&mut self, now_ms: u64) {
        let Some(sharing) = &mut self.sharing else { return };
        let late = match sharing.cluster.state().is_there() {
            true => sharing.strangers.take_late(now_ms),
            false => sharing.strangers.take_all(),
        };
        if let Some(question) = sharing.strangers.poll_question(now_ms) {
            sharing.cluster.ask_whether_current(question);
        }
        self.tell_strangers(late, false);
    }

    fn tell_strangers(&self, all: Vec<Caller>, is_current: bool) {
        for Caller { shard, serial } in all {
            // A shard that has ended has nobody left who waits.
            let _ = self.control.shards.post(shard, Notice::CaughtUp { serial, is_current });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(serial: u64) -> Caller {
        Caller { shard: 0, serial }
    }

    #[test]
    fn all_who_come_while_a_question_is_open_share_the_next_one() {
        let mut strangers = Strangers::default();
        assert_eq!((strangers.poll_timeout(1000), strangers.poll_question(1000)), (None, None));
        assert!(strangers.add(caller(1)));
        assert_eq!(strangers.poll_question(1000), Some(1));
        assert!(strangers.add(caller(2)) && strangers.add(caller(3)));
        assert_eq!(strangers.poll_question(5000), None, "one at a time");
        assert_eq!(strangers.poll_timeout(1500), Some(Duration::from_millis(1500)));
        assert_eq!(strangers.take_answered(1), [caller(1)]);
        assert_eq!(strangers.poll_question(1099), None, "not too often");
        assert_eq!(strangers.poll_timeout(1040), Some(Duration::from_millis(60)));
        assert_eq!(strangers.poll_question(1100), Some(2));
        assert_eq!(strangers.take_answered(1), [], "an answer to what was asked before they came");
        assert_eq!(strangers.take_late(3099), []);
        assert_eq!(strangers.take_late(3100), [caller(2), caller(3)]);
        assert_eq!(strangers.take_answered(2), [], "nobody is told twice");
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_waiting() {
        let mut strangers = Strangers::default();
        assert!(strangers.add(caller(1)));
        assert_eq!(strangers.poll_question(1_000_000), Some(1));
        assert_eq!(strangers.take_late(10), [caller(1)]);
        assert!(strangers.add(caller(2)));
        assert_eq!(strangers.poll_question(10), Some(2));
    }

    #[test]
    fn only_so_many_wait() {
        let mut strangers = Strangers::default();
        assert!((0..WAITING_MAX as u64).all(|serial| strangers.add(caller(serial))));
        assert!(!strangers.add(caller(0)));
        assert_eq!(strangers.take_all().len(), WAITING_MAX);
    }
}
