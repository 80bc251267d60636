//! Nodes around one log, in simulated time: delays with a heavy tail, clocks that are off and run at different rates, cuts,
//! stalled watches, pauses, kills, lost and late writes. At each event it is looked whether two nodes admit to one slot.

use super::{Authority, Heartbeat, Map, Mutation, NodeId, Proposal, Slot};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

const SLOTS: Slot = 6;
const TICK: f64 = 0.1;

/// A generator that is the same everywhere (splitmix64).
pub(crate) struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn range(&mut self, from: f64, to: f64) -> f64 {
        from + self.unit() * (to - from)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

#[derive(Clone, Debug)]
enum Record {
    Beat(Heartbeat),
    Map { base: u64, map: Map },
}

#[derive(Clone, Debug)]
enum Event {
    Tick(usize, u64),
    Pump(usize, u64),
    /// The next write of a node arrives at the log.
    Arrive(usize),
    /// Its refusal arrives at the node.
    Refused(usize, u64, u64),
    Fault,
    Heal(usize),
    Up,
    Wake(usize),
    Unstall(usize),
    Restart(usize),
    Reconnect(usize, u64),
}

/// What a node writes, of which boot.
enum Write {
    Beat(Heartbeat),
    Swap(u64, Proposal),
}

struct Node {
    authority: Authority,
    boot: u64,
    alive: bool,
    paused: bool,
    rate: f64,
    offset: f64,
    position: usize,
    /// What is on its way to the log, in order; while there is no way it stays there.
    writes: VecDeque<Write>,
    /// What waits for its process to go on.
    late: Vec<Event>,
}

pub(crate) struct Simulation {
    pub(crate) rng: Rng,
    t: f64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    count: u64,
    nodes: Vec<Node>,
    log: Vec<Record>,
    /// The place of the last map.
    last_map: u64,
    nats_up: bool,
    cut: BTreeSet<usize>,
    stalled: HashSet<usize>,
    last_arrival: HashMap<usize, f64>,
    pub(crate) moves: bool,
    pub(crate) faults: bool,
    mutation: Option<Mutation>,
    /// Moments at which two nodes admitted to a slot.
    pub(crate) violations: u64,
    down_since: HashMap<Slot, f64>,
    pub(crate) longest_down: f64,
}

impl Simulation {
    pub(crate) fn new(seed: u64, nodes: usize, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ 0x1405_7b7e_f767_814f);
        let all: Vec<Node> = (0..nodes)
            .map(|id| Node {
                authority: authority(id as NodeId, 0, mutation),
                boot: 0,
                alive: true,
                paused: false,
                rate: 1.0 + rng.range(-0.01, 0.01),
                offset: rng.range(0.0, 1000.0),
                position: 0,
                writes: VecDeque::new(),
                late: Vec::new(),
            })
            .collect();
        let members = (0..nodes as NodeId).map(|id| (id, 0)).collect();
        let owners = (0..SLOTS).map(|slot| Some(NodeId::from(slot) % nodes as NodeId)).collect();
        let mut simulation = Self {
            rng,
            t: 0.0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            count: 0,
            nodes: all,
            log: vec![Record::Map { base: 0, map: Map { members, owners } }],
            last_map: 1,
            nats_up: true,
            cut: BTreeSet::new(),
            stalled: HashSet::new(),
            last_arrival: HashMap::new(),
            moves: true,
            faults: true,
            mutation,
            violations: 0,
            down_since: HashMap::new(),
            longest_down: 0.0,
        };
        for id in 0..nodes {
            simulation.start(id);
        }
        simulation
    }

    fn start(&mut self, id: usize) {
        let boot = self.nodes[id].boot;
        let first = self.rng.range(0.0, 0.1);
        self.at(first, Event::Tick(id, boot));
        self.at(0.05, Event::Pump(id, boot));
    }

    fn at(&mut self, delay: f64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((((self.t + delay) * 1e6) as u64, self.count)));
        self.events.insert(self.count, event);
    }

    pub(crate) fn run(&mut self, until: f64) {
        while let Some(&Reverse((at, number))) = self.queue.peek() {
            if at as f64 / 1e6 >= until {
                break;
            }
            self.queue.pop();
            self.t = self.t.max(at as f64 / 1e6);
            if let Some(event) = self.events.remove(&number) {
                // What is read is looked at one by one, and what arrives at the log nobody has read.
                let changes = !matches!(event, Event::Pump(..) | Event::Arrive(_));
                self.carry_out(event);
                if changes {
                    self.check();
                }
            }
        }
        self.t = until;
        self.check();
    }

    fn now(&self, id: usize) -> Duration {
        let node = &self.nodes[id];
        Duration::from_secs_f64(node.rate * self.t + node.offset)
    }

    fn delay(&mut self) -> f64 {
        match self.rng.unit() < 0.97 {
            true => self.rng.pick(&[0.0005, 0.001, 0.002, 0.005]),
            false => self.rng.range(0.01, 1.5),
        }
    }

    fn reaches(&self, id: usize) -> bool {
        self.nats_up && !self.cut.contains(&id)
    }

    /// From a node to the log.
    fn send(&mut self, id: usize, write: Write) {
        let delay = self.delay();
        let arrival = (self.t + delay).max(self.last_arrival.get(&id).copied().unwrap_or(0.0) + 2e-6);
        self.last_arrival.insert(id, arrival);
        self.nodes[id].writes.push_back(write);
        self.at(arrival - self.t, Event::Arrive(id));
    }

    /// What has waited for a way goes on, or is lost with its connection.
    fn flush(&mut self) {
        for id in 0..self.nodes.len() {
            if !self.reaches(id) || self.nodes[id].writes.is_empty() {
                continue;
            }
            if self.rng.unit() < 0.5 {
                let boot = self.nodes[id].boot;
                self.nodes[id].writes.clear();
                self.at(0.0, Event::Reconnect(id, boot));
            } else {
                for _ in 0..self.nodes[id].writes.len() {
                    let delay = self.delay();
                    self.at(delay, Event::Arrive(id));
                }
            }
        }
    }

    fn arrive(&mut self, id: usize) {
        if !self.reaches(id) {
            return;
        }
        match self.nodes[id].writes.pop_front() {
            None => {}
            Some(Write::Beat(beat)) => self.log.push(Record::Beat(beat)),
            Some(Write::Swap(_, Proposal { base, map })) if base == self.last_map => {
                self.log.push(Record::Map { base, map });
                self.last_map = self.log.len() as u64;
            }
            Some(Write::Swap(boot, proposal)) => {
                let delay = self.delay();
                self.at(delay, Event::Refused(id, boot, proposal.base));
            }
        }
    }

    fn is_current(&self, id: usize, boot: u64) -> bool {
        self.nodes[id].alive && self.nodes[id].boot == boot
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::Tick(id, boot) => {
                if self.is_current(id, boot) {
                    self.at(TICK, Event::Tick(id, boot));
                    if !self.nodes[id].paused {
                        self.tick(id, boot);
                    }
                }
            }
            Event::Pump(id, boot) => {
                if self.is_current(id, boot) {
                    if !self.nodes[id].paused && self.reaches(id) && !self.stalled.contains(&id) {
                        self.read(id);
                    }
                    let delay = self.delay() + 0.02;
                    self.at(delay, Event::Pump(id, boot));
                }
            }
            Event::Arrive(id) => self.arrive(id),
            Event::Refused(id, boot, base) => {
                if !self.is_current(id, boot) {
                } else if self.nodes[id].paused || !self.reaches(id) {
                    self.at(0.05, Event::Refused(id, boot, base));
                } else {
                    let now = self.now(id);
                    self.nodes[id].authority.handle_refusal(now, base);
                }
            }
            Event::Reconnect(id, boot) => {
                if !self.is_current(id, boot) {
                } else if self.nodes[id].paused {
                    self.nodes[id].late.push(Event::Reconnect(id, boot));
                } else {
                    self.nodes[id].authority.handle_new_connection();
                }
            }
            Event::Fault => self.fault(),
            Event::Heal(id) => {
                self.cut.remove(&id);
                self.flush();
            }
            Event::Up => {
                self.nats_up = true;
                self.flush();
            }
            Event::Wake(id) => {
                self.nodes[id].paused = false;
                for event in std::mem::take(&mut self.nodes[id].late) {
                    self.at(0.0, event);
                }
            }
            Event::Unstall(id) => {
                self.stalled.remove(&id);
            }
            Event::Restart(id) => self.restart(id),
        }
    }

    fn tick(&mut self, id: usize, boot: u64) {
        let now = self.now(id);
        if let Some(beat) = self.nodes[id].authority.poll_heartbeat(now) {
            self.send(id, Write::Beat(beat));
        }
        if let Some(proposal) = self.nodes[id].authority.poll_proposal(now) {
            self.send(id, Write::Swap(boot, proposal));
        } else if self.moves && self.rng.unit() < 0.01 {
            let (slot, to) = (self.rng.below(usize::from(SLOTS)) as Slot, self.rng.below(self.nodes.len()) as NodeId);
            if let Some(proposal) = self.nodes[id].authority.give(now, slot, to) {
                self.send(id, Write::Swap(boot, proposal));
            }
        }
    }

    fn read(&mut self, id: usize) {
        for _ in 0..50 {
            let position = self.nodes[id].position;
            if position >= self.log.len() || self.rng.unit() >= 0.9 {
                return;
            }
            let (now, record) = (self.now(id), self.log[position].clone());
            let node = &mut self.nodes[id];
            node.position += 1;
            match record {
                Record::Beat(beat) => node.authority.handle_heartbeat(now, beat),
                Record::Map { base, map } => {
                    node.authority.handle_map(now, position as u64 + 1, base, map);
                }
            }
            self.check();
        }
    }

    fn check(&mut self) {
        for slot in 0..SLOTS {
            let admitting = (0..self.nodes.len()).filter(|&id| self.admits(id, slot)).count();
            self.violations += u64::from(admitting > 1);
            if admitting == 0 {
                self.down_since.entry(slot).or_insert(self.t);
            } else if let Some(since) = self.down_since.remove(&slot) {
                self.longest_down = self.longest_down.max(self.t - since);
            }
        }
    }

    fn admits(&self, id: usize, slot: Slot) -> bool {
        let node = &self.nodes[id];
        node.alive && !node.paused && node.authority.admits(self.now(id), slot)
    }

    /// How many nodes admit to each slot.
    pub(crate) fn admitting(&self) -> Vec<usize> {
        (0..SLOTS).map(|slot| (0..self.nodes.len()).filter(|&id| self.admits(id, slot)).count()).collect()
    }

    fn fault(&mut self) {
        if !self.faults {
            return;
        }
        let id = self.rng.below(self.nodes.len());
        let long = self.rng.pick(&[1.0, 3.0, 6.0, 9.0, 12.0, 20.0, 40.0]) * self.rng.range(0.6, 1.3);
        match self.rng.below(8) {
            0 => {
                self.nats_up = false;
                self.at(long, Event::Up);
            }
            1..=3 => {
                self.cut.insert(id);
                self.at(long, Event::Heal(id));
            }
            4 => {
                self.nodes[id].paused = true;
                self.at(long, Event::Wake(id));
            }
            5 => {
                self.kill(id);
                self.at(long, Event::Restart(id));
            }
            _ => {
                // Its watch brings nothing, and what it writes goes through.
                self.stalled.insert(id);
                self.at(long, Event::Unstall(id));
            }
        }
        let next = self.rng.pick(&[2.0, 5.0, 15.0, 30.0]) * self.rng.range(0.5, 1.5);
        self.at(next, Event::Fault);
    }

    pub(crate) fn begin_faults(&mut self, delay: f64) {
        self.at(delay, Event::Fault);
    }

    pub(crate) fn kill(&mut self, id: usize) {
        self.nodes[id].alive = false;
    }

    pub(crate) fn cut_off(&mut self, id: usize) {
        self.cut.insert(id);
    }

    pub(crate) fn stop_nats(&mut self, long: f64) {
        self.nats_up = false;
        self.at(long, Event::Up);
    }

    fn restart(&mut self, id: usize) {
        if self.nodes[id].alive {
            return;
        }
        // Half of them are machines that start, whose clocks begin anew.
        let reboots = self.rng.unit() < 0.5;
        let (t, mutation) = (self.t, self.mutation);
        let node = &mut self.nodes[id];
        node.boot += 1;
        (node.alive, node.paused, node.position) = (true, false, 0);
        if reboots {
            node.offset = 0.5 - node.rate * t;
        }
        node.authority = authority(id as NodeId, node.boot, mutation);
        self.start(id);
    }

    /// All faults end.
    pub(crate) fn heal(&mut self) {
        self.faults = false;
        self.moves = false;
        self.cut.clear();
        self.stalled.clear();
        self.nats_up = true;
        self.flush();
        for id in 0..self.nodes.len() {
            self.carry_out(Event::Wake(id));
            self.restart(id);
        }
    }

    pub(crate) fn forget_past(&mut self) {
        self.longest_down = 0.0;
        self.down_since.clear();
    }

    /// The longest time for which nobody admitted to a slot, to now.
    pub(crate) fn longest(&self) -> f64 {
        self.down_since.values().map(|since| self.t - since).fold(self.longest_down, f64::max)
    }

    pub(crate) fn time(&self) -> f64 {
        self.t
    }
}

fn authority(id: NodeId, boot: u64, mutation: Option<Mutation>) -> Authority {
    let mut authority = Authority::new(id, boot);
    authority.mutation = mutation;
    authority
}
