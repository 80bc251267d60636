//! Phones ask and agents answer: in a closed loop with a number of messages in flight, or at a rate of its own.

use super::connect::{peer_of, role_of};
use super::measure::Load;
use super::pace::Pace;
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, Role, Template};
use crate::report::latency::Recorder;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Plays pingpong on some of the pairs.
#[derive(Debug)]
pub(crate) struct Pingpong {
    question: Template,
    answer: Template,
    pairs: Range<usize>,
    sides: Vec<Side>,
    /// When phones ask, where they do not simply ask again after each answer.
    pace: Option<Pace>,
    recording: bool,
    /// Messages that arrived, as the relay forwarded them.
    forwarded: u64,
    answers: u64,
    /// From one side's sending, or when it should have sent, to the other's receiving.
    pub(crate) latency: Recorder,
    /// From the question, or when it should have been asked, to the answer.
    pub(crate) round_trip: Recorder,
    pub(crate) errors: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Side {
    /// When the messages were to be sent that have not arrived yet, first to last.
    sent_at: VecDeque<u64>,
    /// Of a phone: when the questions were to be asked that have no answer yet.
    asked_at: VecDeque<u64>,
    /// Messages that have arrived and are not answered yet.
    unanswered: usize,
}

impl Pingpong {
    /// Between `pairs` of all `connections`.
    pub(crate) fn new(question: Template, answer: Template, connections: usize, pairs: Range<usize>) -> Self {
        Self {
            question,
            answer,
            pairs,
            sides: (0..connections).map(|_| Side::default()).collect(),
            pace: None,
            recording: false,
            forwarded: 0,
            answers: 0,
            latency: Recorder::default(),
            round_trip: Recorder::default(),
            errors: BTreeMap::new(),
        }
    }

    /// Closed loop: each phone asks `depth` questions now, and another one after each answer.
    pub(crate) fn start(&mut self, net: &mut Net, depth: usize) {
        let now = net.now();
        self.pairs.clone().for_each(|pair| self.send(net, pair * 2, depth, now));
    }

    /// Open loop: the phones in turn ask so many questions a second, all together.
    pub(crate) fn start_at_rate(&mut self, net: &Net, questions_per_second: f64) {
        self.pace = Some(Pace::new(net.now(), questions_per_second));
    }

    /// No question from now on, until [`Pingpong::start_at_rate`].
    pub(crate) fn pause(&mut self) {
        self.pace = Some(Pace::never());
    }

    /// Messages that were to be sent and have not arrived.
    pub(crate) fn outstanding(&self) -> usize {
        self.sides.iter().map(|side| side.sent_at.len()).sum()
    }

    /// Expects nothing more of what is on its way within a pair: how many messages that is.
    pub(crate) fn forget(&mut self, pair: usize) -> usize {
        let sides = [pair * 2, pair * 2 + 1].map(|id| std::mem::take(&mut self.sides[id]));
        sides.iter().map(|side| side.sent_at.len()).sum()
    }

    /// Questions that were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    fn send(&mut self, net: &mut Net, id: Id, count: usize, at: u64) {
        let side = &mut self.sides[id];
        side.sent_at.extend(std::iter::repeat_n(at, count));
        let template = match role_of(id) {
            Role::Phone => {
                side.asked_at.extend(std::iter::repeat_n(at, count));
                &self.question
            }
            Role::Agent => &self.answer,
        };
        net.send(id, template, count);
    }
}

impl Handler for Pingpong {
    fn handle_message(&mut self, _net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        let expected = match role_of(id) {
            Role::Phone => &self.answer,
            Role::Agent => &self.question,
        };
        if !expected.matches(bytes, head) {
            let kind = describe(head);
            // The news that the peer is there may come after the peer's own auth.ok.
            if kind != "status" {
                *self.errors.entry(kind).or_default() += 1;
            }
            return;
        }
        self.forwarded += 1;
        let sent_at = self.sides[peer_of(id)].sent_at.pop_front();
        let side = &mut self.sides[id];
        side.unanswered += 1;
        let asked_at = side.asked_at.pop_front();
        self.answers += u64::from(asked_at.is_some());
        if self.recording {
            sent_at.into_iter().for_each(|at| self.latency.record(now.saturating_sub(at)));
            asked_at.into_iter().for_each(|at| self.round_trip.record(now.saturating_sub(at)));
        }
    }

    fn handle_read_done(&mut self, net: &mut Net, id: Id, now: u64) {
        let count = std::mem::take(&mut self.sides[id].unanswered);
        if count > 0 && (self.pace.is_none() || role_of(id) == Role::Agent) {
            self.send(net, id, count, now);
        }
    }

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        *self.errors.entry(why).or_default() += 1;
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while let Some((number, due)) = self.pace.as_mut().and_then(|pace| pace.take(now)) {
            let pair = self.pairs.start + (number % self.pairs.len().max(1) as u64) as usize;
            self.send(net, pair * 2, 1, due);
        }
        self.pace.map_or(u64::MAX, |pace| pace.next())
    }
}

impl Load for Pingpong {
    fn count(&self) -> u64 {
        self.forwarded
    }

    fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
    }
}
