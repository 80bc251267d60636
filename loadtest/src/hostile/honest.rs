//! The others: pairs that exchange small messages at a steady rate, one that sends images, and newcomers.

use super::Plan;
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, Role, SECOND, Template};
use crate::report::latency::Recorder;
use crate::scenario::Relay;
use crate::scenario::connect::{add_pairs, role_of};
use crate::scenario::measure::Load;
use crate::scenario::traffic::Pingpong;
use anyhow::Result;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const SMALL_BYTES: usize = 256;
const IMAGE_BYTES: usize = 1 << 20;
/// Images and newcomers a second.
const IMAGES: f64 = 2.0;
const NEWCOMERS: u64 = 10;
/// Where newcomers come from: not where the hostile ones do.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// After which one that was cut off comes back.
const COME_BACK: u64 = SECOND / 2;
/// Connections of the pair that sends images, the first one.
const IMAGE_ENDS: usize = 2;

/// What they do, and what they noticed.
pub(super) struct Honest {
    chats: Pingpong,
    images: Pingpong,
    rate: f64,
    /// The connection that comes, authenticates and goes; it is the last one.
    newcomer: Id,
    newcomer_due: u64,
    arrivals: Recorder,
    /// Those that were cut off, and when they come back.
    away: Vec<(u64, Id)>,
    errors: BTreeMap<String, u64>,
    cut_off: u64,
    lost: u64,
}

/// What they noticed in a window.
pub(super) struct Noticed {
    pub(super) chats: Recorder,
    pub(super) images: Recorder,
    pub(super) arrivals: Recorder,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) cut_off: u64,
    pub(super) lost: u64,
}

impl Honest {
    /// All connections of theirs, closed.
    pub(super) fn new(plan: &Plan, relay: &Relay) -> Result<(Net, Self)> {
        let pairs = plan.honest_pairs();
        let connections = pairs * 2;
        let mut net = Net::new(relay.target.clone(), connections + 1)?;
        add_pairs(&mut net, relay, pairs);
        let small = |kind| Template::envelope(kind, SMALL_BYTES, 1);
        let image = Template::envelope("chat.send", IMAGE_BYTES, 1)?;
        let honest = Self {
            chats: Pingpong::new(small("chat.send")?, small("chat.done")?, connections, 1..pairs),
            images: Pingpong::new(image, small("chat.done")?, connections, 0..1),
            // Each question has an answer: two messages.
            rate: plan.rate / 2.0,
            newcomer: connections,
            newcomer_due: u64::MAX,
            arrivals: Recorder::default(),
            away: Vec::new(),
            errors: BTreeMap::new(),
            cut_off: 0,
            lost: 0,
        };
        Ok((net, honest))
    }

    /// Once the pairs are connected: who will come and go.
    pub(super) fn add_newcomer(&mut self, net: &mut Net, token: &str) {
        let id = net.add(token, Role::Phone);
        debug_assert_eq!(id, self.newcomer);
        net.set_source(id, ELSEWHERE);
        self.chats.set_recording(true);
        self.images.set_recording(true);
    }

    pub(super) fn start(&mut self, net: &Net) {
        self.chats.start_at_rate(net, self.rate);
        self.images.start_at_rate(net, IMAGES);
        self.newcomer_due = net.now();
    }

    /// What is on its way may arrive, but no more is sent.
    pub(super) fn pause(&mut self) {
        self.chats.pause();
        self.images.pause();
        self.newcomer_due = u64::MAX;
    }

    /// Whether nothing is on its way.
    pub(super) fn is_done(&self, net: &Net) -> bool {
        self.chats.outstanding() + self.images.outstanding() + net.opening() == 0 && self.away.is_empty()
    }

    /// What was noticed since the last time; messages that are on their way still count as lost.
    pub(super) fn take(&mut self) -> Noticed {
        let pairs = self.newcomer / 2;
        let late: usize = (0..pairs).map(|pair| self.chats.forget(pair) + self.images.forget(pair)).sum();
        let mut errors = std::mem::take(&mut self.errors);
        for game in [&mut self.chats, &mut self.images] {
            for (what, count) in std::mem::take(&mut game.errors) {
                *errors.entry(what).or_default() += count;
            }
        }
        Noticed {
            chats: std::mem::take(&mut self.chats.latency),
            images: std::mem::take(&mut self.images.round_trip),
            arrivals: std::mem::take(&mut self.arrivals),
            errors,
            cut_off: std::mem::take(&mut self.cut_off),
            lost: std::mem::take(&mut self.lost) + late as u64,
        }
    }

    fn game(&mut self, id: Id) -> &mut Pingpong {
        if id < IMAGE_ENDS { &mut self.images } else { &mut self.chats }
    }
}

impl Handler for Honest {
    fn handle_ready(&mut self, net: &mut Net, id: Id, now: u64) {
        if id == self.newcomer {
            self.arrivals.record(net.age(id, now));
            net.close(id);
        }
    }

    fn handle_message(&mut self, net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        if id == self.newcomer {
            *self.errors.entry(describe(head)).or_default() += 1;
        } else {
            self.game(id).handle_message(net, id, bytes, head, now);
        }
    }

    fn handle_read_done(&mut self, net: &mut Net, id: Id, now: u64) {
        if id != self.newcomer {
            self.game(id).handle_read_done(net, id, now);
        }
    }

    fn handle_closed(&mut self, net: &mut Net, id: Id, why: String) {
        if id == self.newcomer {
            *self.errors.entry(format!("newcomer: {why}")).or_default() += 1;
            return;
        }
        self.cut_off += 1;
        *self.errors.entry(format!("{}: {why}", role_of(id).name())).or_default() += 1;
        self.lost += self.game(id).forget(id / 2) as u64;
        self.away.push((net.now() + COME_BACK, id));
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        if now >= self.newcomer_due {
            self.newcomer_due = now + SECOND / NEWCOMERS;
            if !net.is_open(self.newcomer) {
                open(net, self.newcomer, &mut self.errors);
            }
        }
        while let Some(at) = self.away.iter().position(|&(due, _)| due <= now) {
            let (_, id) = self.away.swap_remove(at);
            open(net, id, &mut self.errors);
        }
        let back = self.away.iter().map(|&(due, _)| due).min().unwrap_or(u64::MAX);
        let messages = self.chats.handle_time(net, now).min(self.images.handle_time(net, now));
        messages.min(self.newcomer_due).min(back)
    }
}

fn open(net: &mut Net, id: Id, errors: &mut BTreeMap<String, u64>) {
    if let Err(error) = net.open(id) {
        *errors.entry(format!("{error:#}")).or_default() += 1;
    }
}

impl Load for Honest {
    fn count(&self) -> u64 {
        self.chats.count()
    }

    /// Whatever arrives counts, also when the window is over by then.
    fn set_recording(&mut self, _recording: bool) {}
}
