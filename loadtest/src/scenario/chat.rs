//! `chat`: the real mix. A phone asks, the agent answers with a stream of pieces and says that it is done.
//!
//! An open loop: chats begin when they are due, pieces leave when they are due, and each latency is counted from the
//! moment at which something was due. A relay that stalls cannot hide it by slowing the clients down.

use super::Run;
use super::connect::{connect_pairs, role_of};
use super::measure::{Load, measure, warm_up};
use super::pace::Pace;
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, Role, SECOND, Template};
use crate::report::latency::Recorder;
use crate::report::outcome::Outcome;
use anyhow::{Result, ensure};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// Chats that begin a second, over all pairs in turn.
    pub(crate) rate: f64,
    /// Size of the phone's message.
    pub(crate) bytes: usize,
    /// Pieces of each answer, how many a second, and their size.
    pub(crate) pieces: u32,
    pub(crate) piece_rate: f64,
    pub(crate) piece_bytes: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
}

/// A message on its way from an agent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    due: u64,
    /// When the phone's message was due, of which this is the first piece of the answer.
    asked: Option<u64>,
}

struct Chats {
    plan: Plan,
    question: Template,
    piece: Template,
    done: Template,
    pace: Pace,
    /// Of each pair: when the questions were due that are on their way.
    asked: Vec<VecDeque<u64>>,
    /// Of each pair: what the agent has sent and the phone has not got yet.
    answers: Vec<VecDeque<Sent>>,
    /// Next piece of each answer: when due, of which agent, which piece, and when the question was due.
    due: BinaryHeap<Reverse<(u64, Id, u32, u64)>>,
    recording: bool,
    forwarded: u64,
    begun: u64,
    completed: u64,
    question_latency: Recorder,
    first_piece: Recorder,
    piece_latency: Recorder,
    errors: BTreeMap<String, u64>,
}

impl Chats {
    fn new(plan: Plan, now: u64) -> Result<Self> {
        Ok(Self {
            plan,
            question: Template::envelope("chat.send", plan.bytes, 1)?,
            piece: Template::envelope("chat.stream", plan.piece_bytes, 1)?,
            done: Template::envelope("chat.done", plan.piece_bytes, 1)?,
            pace: Pace::new(now, plan.rate),
            asked: vec![VecDeque::new(); plan.pairs],
            answers: vec![VecDeque::new(); plan.pairs],
            due: BinaryHeap::new(),
            recording: false,
            forwarded: 0,
            begun: 0,
            completed: 0,
            question_latency: Recorder::default(),
            first_piece: Recorder::default(),
            piece_latency: Recorder::default(),
            errors: BTreeMap::new(),
        })
    }

    /// The agent sends piece `number` of an answer, or its end.
    fn send_piece(&mut self, net: &mut Net, agent: Id, number: u32, due: u64, asked: u64) {
        let last = number == self.plan.pieces;
        net.send(agent, if last { &self.done } else { &self.piece }, 1);
        self.answers[agent / 2].push_back(Sent { due, asked: (number == 0).then_some(asked) });
        if !last {
            let next = due + (SECOND as f64 / self.plan.piece_rate) as u64;
            self.due.push(Reverse((next, agent, number + 1, asked)));
        }
    }
}

impl Handler for Chats {
    fn handle_message(&mut self, _net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        let (pair, done) = (id / 2, self.done.matches(bytes, head));
        if role_of(id) == Role::Agent && self.question.matches(bytes, head) {
            let Some(asked) = self.asked[pair].pop_front() else { return };
            if self.recording {
                self.question_latency.record(now.saturating_sub(asked));
            }
            self.due.push(Reverse((now, id, 0, asked)));
        } else if role_of(id) == Role::Phone && (done || self.piece.matches(bytes, head)) {
            let Some(sent) = self.answers[pair].pop_front() else { return };
            self.completed += u64::from(done);
            if self.recording {
                self.piece_latency.record(now.saturating_sub(sent.due));
                sent.asked.into_iter().for_each(|asked| self.first_piece.record(now.saturating_sub(asked)));
            }
        } else {
            let kind = describe(head);
            if kind != "status" {
                *self.errors.entry(kind).or_default() += 1;
            }
            return;
        }
        self.forwarded += 1;
    }

    fn handle_closed(&mut self, _net: &mut Net, id: Id, why: String) {
        *self.errors.entry(format!("{}: {why}", role_of(id).name())).or_default() += 1;
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while let Some((number, due)) = self.pace.take(now) {
            let pair = (number % self.plan.pairs as u64) as usize;
            self.asked[pair].push_back(due);
            self.begun += 1;
            net.send(pair * 2, &self.question, 1);
        }
        while let Some(&Reverse((due, agent, number, asked))) = self.due.peek()
            && due <= now
        {
            self.due.pop();
            self.send_piece(net, agent, number, due, asked);
        }
        let next_piece = self.due.peek().map_or(u64::MAX, |Reverse((due, ..))| *due);
        self.pace.next().min(next_piece)
    }
}

impl Load for Chats {
    fn count(&self) -> u64 {
        self.forwarded
    }

    fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
    }
}

/// Runs it once.
pub(crate) fn run(run: Run<'_>, plan: &Plan) -> Result<Outcome> {
    let (mut net, _) = connect_pairs(run, plan.pairs)?;
    let mut chats = Chats::new(*plan, net.now())?;
    warm_up(run, &mut net, &mut chats, plan.warm_up)?;
    let (begun, completed) = (chats.begun, chats.completed);
    let measured = measure(run, &mut net, &mut chats, plan.seconds, |_, _| false)?;
    let messages = measured.count;
    ensure!(messages > 0, "no message was forwarded; {:?}", chats.errors);
    let seconds = measured.usage.seconds;
    let mut outcome = Outcome::new("chat", &run.relay.target.url, "messages", measured)
        .setting("pairs", plan.pairs)
        .setting("rate", plan.rate)
        .setting("bytes", plan.bytes)
        .setting("pieces", plan.pieces)
        .setting("piece_rate", plan.piece_rate)
        .setting("piece_bytes", plan.piece_bytes)
        .throughput("messages_per_second", "server_cpu_us_per_message", messages)
        .figure("chats_begun_per_second", (chats.begun - begun) as f64 / seconds)
        .figure("chats_completed_per_second", (chats.completed - completed) as f64 / seconds)
        .latency("question", "question_p50_us", "question_p99_us", &chats.question_latency)
        .latency("first piece", "first_piece_p50_us", "first_piece_p99_us", &chats.first_piece)
        .latency("piece", "piece_p50_us", "piece_p99_us", &chats.piece_latency);
    outcome.errors = chats.errors;
    Ok(outcome)
}
