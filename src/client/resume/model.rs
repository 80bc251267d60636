//! Two ends and a network that loses what is on its way at each break: nothing is lost, nothing comes twice, and what an
//! owner is told is true. No cipher and no socket.

use super::end::{End, Out, Sent as How};
use super::record::{Boot, Record};
use super::{ABSENT, EARLY_MAX, Refusal, Refused, Window};
use coralmux_proto::token::Role;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What happens next. An end is 0, the phone, or 1, the agent.
#[derive(Clone, Debug)]
enum Deed {
    /// So many messages are sent.
    Send(usize, usize),
    /// A piece of an answer.
    Piece(u64),
    /// An answer ends, with its whole text.
    Done(u64),
    /// So many messages of an end arrive.
    Deliver(usize, usize),
    /// The connections end. So many messages of each end still arrive.
    Break(usize, usize),
    /// Keys are agreed.
    Agree,
    /// A process ends, and another one begins.
    Crash(usize),
    /// The relay refuses the next message of an end.
    Refuse(usize, Refusal),
    /// So many milliseconds pass.
    Time(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let refusal = prop_oneof![
        Just(Refusal::Later(Some(Duration::from_millis(700)))),
        Just(Refusal::Later(None)),
        Just(Refusal::Offline),
        Just(Refusal::Never { too_large: false }),
    ];
    prop_oneof![
        6 => (0..2usize, 1..4usize).prop_map(|(end, count)| Deed::Send(end, count)),
        1 => (0..2usize, Just(150)).prop_map(|(end, count)| Deed::Send(end, count)),
        6 => (0..2u64).prop_map(Deed::Piece),
        2 => (0..2u64).prop_map(Deed::Done),
        8 => (0..2usize, 1..6usize).prop_map(|(end, count)| Deed::Deliver(end, count)),
        3 => (0..5usize, 0..5usize).prop_map(|(phone, agent)| Deed::Break(phone, agent)),
        6 => Just(Deed::Agree),
        1 => (0..2usize).prop_map(Deed::Crash),
        2 => (0..2usize, refusal).prop_map(|(end, refusal)| Deed::Refuse(end, refusal)),
        4 => (1..1500u64).prop_map(Deed::Time),
    ]
}

/// What became of the messages of one end's present process.
#[derive(Default)]
struct Sent {
    ids: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    told: BTreeSet<u64>,
}

/// What one end's present process was given.
#[derive(Default)]
struct Got {
    /// The newest message: they are counted over all ends.
    last: u64,
    /// The pieces of each answer.
    pieces: BTreeMap<u64, Vec<u64>>,
}

struct World {
    now: Instant,
    ends: [End; 2],
    connected: bool,
    /// What each end has sent and has not arrived.
    under_way: [VecDeque<Out>; 2],
    sent: [Sent; 2],
    got: [Got; 2],
    /// Whether the messages of an end can have gone missing: it gave some up.
    gave_up: [bool; 2],
    /// Messages that have reached a process.
    delivered: BTreeSet<u64>,
    /// Answers that have not ended, by two names, and what was written of each.
    answers: BTreeMap<u64, (u64, Vec<u64>)>,
    boots: u8,
    count: u64,
}

const ROLES: [Role; 2] = [Role::Phone, Role::Agent];

impl World {
    fn new() -> Self {
        let end = |at: usize| End::new(ROLES[at], vec![Boot([at as u8 + 1; 8])]);
        Self {
            now: Instant::now(),
            ends: [end(0), end(1)],
            connected: false,
            under_way: Default::default(),
            sent: Default::default(),
            got: Default::default(),
            gave_up: [false; 2],
            delivered: BTreeSet::new(),
            answers: BTreeMap::new(),
            boots: 2,
            count: 0,
        }
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Send(end, count) => (0..count).for_each(|_| self.send(end, None)),
            Deed::Piece(name) => {
                self.count += 1;
                let (stream, written) = self.answers.entry(name).or_insert((self.count, Vec::new()));
                written.push(self.count);
                // A blank keeps the numbers of a piece that grew apart.
                self.ends[1].piece(self.now, *stream, &stream.to_string(), &format!("{} ", self.count));
            }
            Deed::Done(name) => {
                let ends = self.answers.remove(&name).map(|(stream, _)| stream);
                self.send(1, ends);
            }
            Deed::Deliver(end, count) => self.deliver(end, count),
            Deed::Break(phone, agent) => {
                self.deliver(0, phone);
                self.deliver(1, agent);
                self.under_way = Default::default();
                self.connected = false;
                self.ends.iter_mut().for_each(End::leave);
            }
            Deed::Agree => {
                self.connected = true;
                self.under_way = Default::default();
                let now = self.now;
                self.ends.iter_mut().for_each(|end| end.agree(now));
            }
            Deed::Crash(end) => self.crash(end),
            Deed::Refuse(end, refusal) => self.refuse(end, refusal),
            Deed::Time(ms) => self.now += Duration::from_millis(ms),
        }
        self.drain();
    }

    /// `ends`: the message is the end of this answer.
    fn send(&mut self, end: usize, ends: Option<u64>) {
        self.count += 1;
        let payload = RawValue::from_string(json!({"id": self.count}).to_string()).unwrap();
        let given_up = self.ends[end].send(self.now, &self.count.to_string(), payload, How { ends, ..How::QUIET });
        self.sent[end].ids.insert(self.count);
        self.tell(end, &given_up);
        // Then pieces may have been given up, of which no owner is told.
        let outgoing = &self.ends[end].outgoing;
        self.gave_up[end] |= outgoing.sender.len() + outgoing.ids().count() >= ABSENT.messages_max;
    }

    /// The owner of an end is told that these were given up.
    fn tell(&mut self, end: usize, given_up: &[String]) {
        self.gave_up[end] |= !given_up.is_empty();
        self.sent[end].told.extend(given_up.iter().map(|id| number_of(id)));
    }

    fn drain(&mut self) {
        for end in 0..2 {
            let absent = !self.ends[end].acks.is_open();
            let given_up = self.ends[end].outgoing.set_absent(absent);
            self.tell(end, &given_up);
            let left = self.ends[end].drain(self.now);
            assert!(self.connected || left.is_empty());
            self.under_way[end].extend(left);
        }
    }

    fn deliver(&mut self, from: usize, count: usize) {
        for _ in 0..count {
            let Some(out) = self.under_way[from].pop_front() else { return };
            let to = 1 - from;
            let (acked, _) = match out {
                Out::Ack(ack) => self.ends[to].hear_ack(self.now, &ack),
                Out::Record { plaintext, .. } => {
                    let record = Record::read(&plaintext).unwrap();
                    let taken = self.ends[to].take(self.now, &record);
                    assert!(taken.missed == 0 || self.gave_up[from], "{taken:?}");
                    for message in taken.messages {
                        self.got[to].take(&message.payload, &mut self.delivered);
                    }
                    self.ends[to].hear_position(self.now, record.ack.as_ref().unwrap())
                }
            };
            for held in acked.into_iter().filter(|held| held.stream.is_none()) {
                assert!(self.delivered.contains(&number_of(&held.id)), "{held:?} was not taken");
                self.sent[to].acked.insert(number_of(&held.id));
            }
            self.drain();
        }
    }

    fn refuse(&mut self, end: usize, refusal: Refusal) {
        let Some(out) = self.under_way[end].pop_front() else { return };
        let Out::Record { id, .. } = &out else { return self.under_way[end].push_front(out) };
        match self.ends[end].refuse(self.now, id, refusal) {
            Refused::Void(held) => match held.stream {
                None => {
                    self.sent[end].told.insert(number_of(&held.id));
                }
                // Of this answer something is missing, or nothing if it had arrived before.
                Some(stream) => self.answers.retain(|_, (of, _)| *of != stream),
            },
            Refused::Unknown | Refused::Held => {}
        }
    }

    /// Another process takes an end's place. What the old one held, and what was on its way, is gone with it.
    fn crash(&mut self, end: usize) {
        self.act(&Deed::Break(0, 0));
        self.boots += 1;
        self.ends[end] = End::new(ROLES[end], vec![Boot([self.boots; 8])]);
        (self.sent[end], self.got[end]) = Default::default();
        self.gave_up[end] = false;
        // What the old one has taken or held of an answer does not come again.
        self.answers.clear();
    }

    fn check(&self) {
        for (at, end) in self.ends.iter().enumerate() {
            let (window, outgoing) = (Window::of(ROLES[at]), &end.outgoing);
            let (count, bytes) = (outgoing.sender.len(), outgoing.sender.bytes());
            assert!(count <= window.messages_max && (bytes <= window.bytes_max || count == 1));
            assert!(end.receiver.early() <= EARLY_MAX);
            let waiting: BTreeSet<u64> = outgoing.ids().map(number_of).collect();
            assert!(!outgoing.never_waits() || waiting.len() <= ABSENT.messages_max, "{}", waiting.len());
            let Sent { ids, acked, told } = &self.sent[at];
            for id in ids {
                let places = [&waiting, acked, told].iter().filter(|place| place.contains(id)).count();
                assert_eq!(places, 1, "{id} of {at}");
            }
        }
    }

    /// All is well again: what was held arrives.
    fn heal(&mut self) {
        self.act(&Deed::Break(0, 0));
        self.act(&Deed::Agree);
        // After a refusal messages leave one by one, and an acknowledgement takes a while.
        for _ in 0..2 * ABSENT.messages_max {
            if (0..2).all(|at| self.ends[at].outgoing.is_empty()) {
                break;
            }
            for end in [0, 1] {
                self.act(&Deed::Deliver(end, usize::MAX));
            }
            self.act(&Deed::Time(11_000));
            self.check();
        }
        for at in 0..2 {
            assert_eq!(self.ends[at].outgoing.ids().count(), 0, "what {at} holds");
            assert_eq!(self.ends[at].outgoing.sender.len(), 0);
        }
        for (stream, written) in self.answers.values().filter(|_| !self.gave_up[1]) {
            assert_eq!(self.got[0].pieces.get(stream), Some(written), "answer {stream}");
        }
    }
}

fn number_of(id: &str) -> u64 {
    id.parse().unwrap()
}

fn numbers_of(payload: &RawValue) -> Vec<u64> {
    let payload: Value = serde_json::from_str(payload.get()).unwrap();
    payload["delta"].as_str().unwrap().split_whitespace().map(|number| number.parse().unwrap()).collect()
}

impl Got {
    fn take(&mut self, payload: &RawValue, delivered: &mut BTreeSet<u64>) {
        let value: Value = serde_json::from_str(payload.get()).unwrap();
        match value["answer"].as_str() {
            Some(answer) => self.pieces.entry(answer.parse().unwrap()).or_default().extend(numbers_of(payload)),
            None => {
                let id = value["id"].as_u64().unwrap();
                assert!(id > self.last, "{id} came after {}", self.last);
                self.last = id;
                delivered.insert(id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(deeds in prop::collection::vec(deed(), 1..120)) {
        let mut world = World::new();
        world.act(&Deed::Agree);
        for deed in &deeds {
            world.act(deed);
            world.check();
        }
        world.heal();
    }
}
