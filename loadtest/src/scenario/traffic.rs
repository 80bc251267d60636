//! The closed loop of `pingpong`: each pair keeps a number of messages in flight, forever to and fro.

use super::connect::{peer_of, role_of};
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, Role, Template};
use crate::report::latency::Recorder;
use anyhow::Result;
use std::collections::{BTreeMap, VecDeque};

/// Plays pingpong on some of the pairs.
#[derive(Debug)]
pub(crate) struct Pingpong {
    phone_sends: Template,
    agent_sends: Template,
    sides: Vec<Side>,
    /// Messages that arrived, as the relay forwarded them.
    pub(crate) forwarded: u64,
    /// Latency of each forwarded message, while it is wanted.
    pub(crate) latency: Recorder,
    pub(crate) recording: bool,
    pub(crate) errors: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Side {
    /// When the messages were sent that have not arrived yet, first to last.
    sent_at: VecDeque<u64>,
    /// Messages that have arrived and are not answered yet.
    unanswered: usize,
}

impl Pingpong {
    /// For `connections` connections, with messages of `bytes` bytes, `depth` in flight for each pair.
    pub(crate) fn new(connections: usize, bytes: usize, depth: usize) -> Result<Self> {
        Ok(Self {
            phone_sends: Template::envelope("chat.send", bytes, depth)?,
            agent_sends: Template::envelope("chat.done", bytes, depth)?,
            sides: (0..connections).map(|_| Side::default()).collect(),
            forwarded: 0,
            latency: Recorder::default(),
            recording: false,
            errors: BTreeMap::new(),
        })
    }

    /// The phone of pair `pair` begins with `depth` messages.
    pub(crate) fn serve(&mut self, net: &mut Net, pair: usize, depth: usize) {
        let now = net.now();
        self.send(net, pair * 2, depth, now);
    }

    fn send(&mut self, net: &mut Net, id: Id, count: usize, now: u64) {
        self.sides[id].sent_at.extend(std::iter::repeat_n(now, count));
        net.send(id, self.template(role_of(id)), count);
    }

    fn template(&self, role: Role) -> &Template {
        match role {
            Role::Phone => &self.phone_sends,
            Role::Agent => &self.agent_sends,
        }
    }
}

impl Handler for Pingpong {
    fn handle_message(&mut self, _net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        if !self.template(role_of(peer_of(id))).matches(bytes, head) {
            *self.errors.entry(describe(head)).or_default() += 1;
            return;
        }
        self.forwarded += 1;
        self.sides[id].unanswered += 1;
        if let Some(sent_at) = self.sides[peer_of(id)].sent_at.pop_front()
            && self.recording
        {
            self.latency.record(now.saturating_sub(sent_at));
        }
    }

    fn handle_read_done(&mut self, net: &mut Net, id: Id, now: u64) {
        let count = std::mem::take(&mut self.sides[id].unanswered);
        if count > 0 {
            self.send(net, id, count, now);
        }
    }

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        *self.errors.entry(why).or_default() += 1;
    }
}
