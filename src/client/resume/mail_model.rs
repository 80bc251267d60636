//! Two ends that come, go and crash, and a relay that keeps what is for who is away, is killed, and has then forgotten what
//! was not on its disk: what it said to have kept arrives, nothing arrives twice, and what an owner is told is true. No
//! cipher and no socket.

use super::end::{End, Out, Sent as How};
use super::record::{Ack, Boot, Record};
use super::{BOOTS_MAX, Receiver, Refusal, Refused, Stored};
use coralmux_proto::token::Role;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Messages that the relay keeps for an end, and those of a page.
const BOX_MAX: usize = 12;
const PAGE: usize = 2;
/// Pages that are not confirmed.
const PAGES_MAX: usize = 2;
const PAYLOAD_MAX: usize = 1000;

/// What happens next. An end is 0, a device, or 1, the agent.
#[derive(Clone, Debug)]
enum Deed {
    /// So many messages are sent.
    Send(usize, usize),
    /// A piece of an answer, and the end of it.
    Piece(u64),
    Done(u64),
    /// So many messages of an end reach the relay, and so many of the relay an end.
    Up(usize, usize),
    Down(usize, usize),
    /// The relay writes to its disk.
    Commit,
    Come(usize),
    /// An end's connection breaks; so many of its messages still reach the relay.
    Leave(usize, usize),
    /// An end's process ends, and another one begins with what was on the disk.
    Crash(usize),
    /// The relay is killed.
    Kill,
    /// So many milliseconds pass.
    Time(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let end = || 0..2usize;
    prop_oneof![
        8 => (end(), 1..4usize).prop_map(|(end, count)| Deed::Send(end, count)),
        3 => (0..2u64).prop_map(Deed::Piece),
        2 => (0..2u64).prop_map(Deed::Done),
        10 => (end(), 1..6usize).prop_map(|(end, count)| Deed::Up(end, count)),
        10 => (end(), 1..6usize).prop_map(|(end, count)| Deed::Down(end, count)),
        5 => Just(Deed::Commit),
        6 => end().prop_map(Deed::Come),
        4 => (end(), 0..4usize).prop_map(|(end, count)| Deed::Leave(end, count)),
        1 => end().prop_map(Deed::Crash),
        1 => Just(Deed::Kill),
        4 => (1..3000u64).prop_map(Deed::Time),
    ]
}

/// On its way to the relay, and from it.
enum Up {
    Ack(Ack),
    Record { id: String, plaintext: Box<RawValue>, keep: bool },
    Confirm(u64),
}

enum Down {
    /// The other end is there, or not.
    Peer(bool),
    Ack(Ack),
    Record(Box<RawValue>),
    Kept(String),
    Refused(String, Refusal),
    Page {
        upto: u64,
        left: usize,
    },
}

/// What the relay knows of an end, and has for it.
#[derive(Default)]
struct Place {
    is_there: bool,
    drains: bool,
    /// Which of its connections this is.
    connection: u64,
    /// On the disk, by number; what is to be written, with the connection and the id to be told; what is to be deleted.
    rows: BTreeMap<u64, Box<RawValue>>,
    writing: Vec<(u64, String, Box<RawValue>)>,
    confirmed: u64,
    /// What was handed out on this connection, and where its pages that are not confirmed end.
    handed: u64,
    pages: VecDeque<u64>,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
}

impl Place {
    fn is_present(&self) -> bool {
        self.is_there && !self.drains
    }

    fn delete(&mut self) {
        self.rows = self.rows.split_off(&(self.confirmed + 1));
    }
}

/// An end, and what its owner knows.
struct Person {
    end: End,
    /// It takes what the relay has kept; whether the relay says that the other end is there.
    drains: bool,
    peer_is_there: bool,
    /// What this process has sent, what of it has arrived, and what its owner was told has not.
    sent: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    told: BTreeSet<u64>,
    /// Messages that have come, in order, and how many of them are on the disk, with the receiver's state.
    taken: Vec<u64>,
    stored: (usize, Vec<Stored>),
    crashes: usize,
}

impl Person {
    fn new(at: usize) -> Self {
        Self {
            end: End::new(ROLES[at], vec![Boot([at as u8 + 1; 8])]),
            drains: false,
            peer_is_there: false,
            sent: BTreeSet::new(),
            acked: BTreeSet::new(),
            told: BTreeSet::new(),
            taken: Vec::new(),
            stored: (0, Vec::new()),
            crashes: 0,
        }
    }

    /// Position and messages go to the disk together.
    fn store(&mut self) {
        let known = self.end.receiver.known().map(|(boot, next, lost)| (boot, next, lost.to_vec()));
        self.stored = (self.taken.len(), known.collect());
    }

    fn begin(&mut self, now: Instant) {
        match self.peer_is_there {
            true => self.end.agree(now),
            false => self.end.lack_peer(),
        }
    }

    fn take(&mut self, messages: Vec<super::Message>) {
        for message in messages {
            let value: Value = serde_json::from_str(message.payload.get()).unwrap();
            if let Some(id) = value["id"].as_u64() {
                assert!(!self.taken.contains(&id), "{id} came twice");
                self.taken.push(id);
            }
        }
    }
}

struct World {
    now: Instant,
    people: [Person; 2],
    places: [Place; 2],
    /// What senders were told that the relay has kept.
    promised: BTreeSet<u64>,
    answers: BTreeMap<u64, u64>,
    boots: u8,
    row: u64,
    count: u64,
}

const ROLES: [Role; 2] = [Role::Phone, Role::Agent];

impl World {
    fn new() -> Self {
        Self {
            now: Instant::now(),
            people: [Person::new(0), Person::new(1)],
            places: Default::default(),
            promised: BTreeSet::new(),
            answers: BTreeMap::new(),
            boots: 2,
            row: 0,
            count: 0,
        }
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Send(end, count) => (0..count).for_each(|_| self.send(end, None)),
            Deed::Piece(name) => {
                self.count += 1;
                let stream = *self.answers.entry(name).or_insert(self.count);
                self.people[1].end.piece(self.now, stream, &stream.to_string(), "x ");
            }
            Deed::Done(name) => {
                let ends = self.answers.remove(&name);
                self.send(1, ends);
            }
            Deed::Up(end, count) => self.up(end, count),
            Deed::Down(end, count) => self.down(end, count),
            Deed::Commit => self.commit(),
            Deed::Come(end) => self.come(end),
            Deed::Leave(end, count) => {
                self.up(end, count);
                self.leave(end);
            }
            Deed::Crash(end) => self.crash(end),
            Deed::Kill => {
                for place in &mut self.places {
                    place.writing.clear();
                    place.confirmed = 0;
                }
                (0..2).for_each(|end| self.leave(end));
            }
            Deed::Time(ms) => self.now += Duration::from_millis(ms),
        }
        (0..2).for_each(|end| self.drain(end));
    }

    fn send(&mut self, end: usize, ends: Option<u64>) {
        self.count += 1;
        let payload = RawValue::from_string(json!({"id": self.count}).to_string()).unwrap();
        let person = &mut self.people[end];
        let given_up = person.end.send(self.now, &self.count.to_string(), payload, How { ends, ..How::QUIET });
        assert!(given_up.is_empty());
        person.sent.insert(self.count);
    }

    /// What an end has to say reaches its socket; what that confirms is on its disk.
    fn drain(&mut self, end: usize) {
        let (person, place) = (&mut self.people[end], &mut self.places[end]);
        let absent = !person.end.acks.is_open();
        assert!(person.end.outgoing.set_absent(absent).is_empty());
        if !place.is_there {
            return;
        }
        let left = person.end.drain(self.now);
        assert!(left.is_empty() || !person.drains, "nothing leaves before the relay has said who is there");
        if !left.is_empty() {
            person.store();
        }
        place.up.extend(left.into_iter().map(|out| match out {
            Out::Ack(ack) => Up::Ack(ack),
            Out::Record { id, plaintext, keep } => Up::Record { id, plaintext, keep: keep.is_some() },
        }));
    }

    // The relay.

    fn come(&mut self, end: usize) {
        if self.places[end].is_there {
            self.leave(end);
        }
        let peer_is_there = self.places[1 - end].is_present();
        let place = &mut self.places[end];
        place.delete();
        (place.is_there, place.handed, place.connection) = (true, 0, place.connection + 1);
        place.drains = !place.rows.is_empty() || !place.writing.is_empty();
        let person = &mut self.people[end];
        (person.drains, person.peer_is_there) = (place.drains, peer_is_there);
        person.end.leave();
        person.end.outgoing.sender.handle_mail(Some(PAYLOAD_MAX));
        person.end.receiver.handle_connected(place.drains);
        if place.drains {
            return self.hand_out(end);
        }
        person.begin(self.now);
        self.tell(1 - end, true);
    }

    fn leave(&mut self, end: usize) {
        let was_present = self.places[end].is_present();
        let place = &mut self.places[end];
        (place.is_there, place.drains) = (false, false);
        place.up.clear();
        place.down.clear();
        place.pages.clear();
        self.people[end].drains = false;
        self.people[end].end.leave();
        if was_present {
            self.tell(1 - end, false);
        }
    }

    fn tell(&mut self, end: usize, peer_is_there: bool) {
        if self.places[end].is_there {
            self.places[end].down.push_back(Down::Peer(peer_is_there));
        }
    }

    fn hand_out(&mut self, end: usize) {
        while self.places[end].drains && self.places[end].pages.len() < PAGES_MAX {
            self.commit();
            let place = &mut self.places[end];
            let waiting: Vec<u64> = place.rows.range(place.handed + 1..).map(|(number, _)| *number).collect();
            for number in waiting.iter().take(PAGE) {
                place.down.push_back(Down::Record(place.rows[number].clone()));
                place.handed = *number;
            }
            let (upto, left) = (if waiting.is_empty() { 0 } else { place.handed }, waiting.len().saturating_sub(PAGE));
            place.down.push_back(Down::Page { upto, left });
            place.pages.push_back(place.handed);
            place.drains = left > 0;
            if left == 0 {
                self.tell(1 - end, true);
                // What the end has been told of the other one so far, it was told before its drain was over.
                let is_there = self.places[1 - end].is_present();
                self.tell(end, is_there);
            }
        }
    }

    fn commit(&mut self) {
        for end in 0..2 {
            self.places[end].delete();
            for (connection, id, plaintext) in std::mem::take(&mut self.places[end].writing) {
                self.row += 1;
                self.places[end].rows.insert(self.row, plaintext);
                let sender = &mut self.places[1 - end];
                if sender.is_there && sender.connection == connection {
                    sender.down.push_back(Down::Kept(id));
                }
            }
        }
    }

    fn up(&mut self, from: usize, count: usize) {
        for _ in 0..count {
            let Some(up) = self.places[from].up.pop_front() else { return };
            let connection = self.places[from].connection;
            let to = &mut self.places[1 - from];
            match up {
                Up::Ack(ack) if to.is_present() => to.down.push_back(Down::Ack(ack)),
                Up::Ack(_) => {}
                Up::Record { plaintext, .. } if to.is_present() => to.down.push_back(Down::Record(plaintext)),
                Up::Record { id, plaintext, keep } => {
                    let is_full = to.rows.len() + to.writing.len() >= BOX_MAX;
                    let refusal = if keep { Refusal::Full(None) } else { Refusal::Offline };
                    match keep && !is_full {
                        true => to.writing.push((connection, id, plaintext)),
                        false => self.places[from].down.push_back(Down::Refused(id, refusal)),
                    }
                }
                Up::Confirm(upto) => {
                    let place = &mut self.places[from];
                    place.confirmed = place.confirmed.max(upto);
                    place.pages.retain(|page| *page > upto);
                    self.hand_out(from);
                }
            }
        }
    }

    // The ends.

    fn down(&mut self, end: usize, count: usize) {
        for _ in 0..count {
            let Some(down) = self.places[end].down.pop_front() else { return };
            let now = self.now;
            let person = &mut self.people[end];
            match down {
                Down::Peer(is_there) => {
                    person.peer_is_there = is_there;
                    if !person.drains {
                        person.begin(now);
                    }
                }
                Down::Ack(ack) => {
                    let heard = person.end.hear_ack(now, &ack);
                    self.handle_acked(end, heard);
                }
                Down::Record(plaintext) => {
                    let record = Record::read(&plaintext).unwrap();
                    let taken = person.end.take(now, &record);
                    person.take(taken.messages);
                    let heard = person.end.hear_position(now, record.ack.as_ref().unwrap());
                    self.handle_acked(end, heard);
                }
                Down::Kept(id) => {
                    if person.end.outgoing.sender.handle_kept(&id) {
                        self.promised.insert(number_of(&id));
                    }
                }
                Down::Refused(id, refusal) => match person.end.refuse(now, &id, refusal) {
                    Refused::Void(held) => panic!("{held:?}"),
                    Refused::Unknown | Refused::Held => {}
                },
                Down::Page { upto, left } => {
                    let (taken, is_done) = person.end.receiver.handle_page(left == 0);
                    person.end.acks.handle_taken(now, &taken, person.end.receiver.is_missing());
                    person.take(taken.messages);
                    if is_done && upto > 0 {
                        person.store();
                        self.places[end].up.push_back(Up::Confirm(upto));
                    }
                    if left == 0 {
                        person.drains = false;
                        person.begin(now);
                    }
                }
            }
            self.drain(end);
        }
    }

    fn handle_acked(&mut self, end: usize, (acked, lost): (Vec<super::Held>, Vec<super::Held>)) {
        let peer = &self.people[1 - end];
        for held in acked.iter().filter(|held| held.stream.is_none()) {
            let at = peer.taken.iter().position(|id| *id == number_of(&held.id));
            assert!(at.is_some_and(|at| at < peer.stored.0), "{held:?} is not on the other end's disk");
        }
        let person = &mut self.people[end];
        person.acked.extend(acked.iter().map(|held| number_of(&held.id)));
        person.told.extend(lost.iter().map(|held| number_of(&held.id)));
    }

    fn crash(&mut self, end: usize) {
        // Further boots would be forgotten, and what a killed relay hands out again would be news.
        if self.people[end].crashes + 1 >= BOOTS_MAX {
            return;
        }
        self.leave(end);
        self.boots += 1;
        let person = &mut self.people[end];
        person.crashes += 1;
        person.end = End::new(ROLES[end], vec![Boot([self.boots; 8])]);
        person.end.receiver = Receiver::of(person.stored.1.clone());
        person.taken.truncate(person.stored.0);
        for ids in [&mut person.sent, &mut person.acked, &mut person.told] {
            ids.clear();
        }
        if end == 1 {
            self.answers.clear();
        }
    }

    fn check(&self) {
        for (at, person) in self.people.iter().enumerate() {
            let waiting: BTreeSet<u64> = person.end.outgoing.ids().map(number_of).collect();
            for id in &person.sent {
                let is_known =
                    [&waiting, &person.acked, &person.told, &self.promised].iter().any(|ids| ids.contains(id));
                assert!(is_known, "{id} of {at} is in nobody's hands");
                assert!(!(person.acked.contains(id) && waiting.contains(id)), "{id} of {at}");
            }
            assert!(self.places[at].pages.len() <= PAGES_MAX);
        }
    }

    /// All is well again: both ends are there, and what waits arrives.
    fn heal(&mut self) {
        (0..2).for_each(|end| self.act(&Deed::Come(end)));
        for _ in 0..200 {
            self.act(&Deed::Commit);
            for end in 0..2 {
                self.act(&Deed::Up(end, usize::MAX));
                self.act(&Deed::Down(end, usize::MAX));
            }
            self.check();
            self.act(&Deed::Time(2000));
        }
        for (at, person) in self.people.iter().enumerate() {
            let taken: BTreeSet<u64> = self.people[1 - at].taken.iter().copied().collect();
            for id in &person.sent {
                assert!(taken.contains(id) != person.told.contains(id), "{id} of {at}");
            }
            assert_eq!(person.end.outgoing.ids().count(), 0, "what {at} holds");
            assert!(self.places[at].rows.is_empty() && self.places[at].writing.is_empty());
        }
        for id in &self.promised {
            assert!(
                self.people.iter().any(|person| person.taken.contains(id) || person.told.contains(id)),
                "{id} was kept"
            );
        }
    }
}

fn number_of(id: &str) -> u64 {
    id.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_arrives_once(deeds in prop::collection::vec(deed(), 1..160)) {
        let mut world = World::new();
        for deed in &deeds {
            world.act(deed);
            world.check();
        }
        world.heal();
    }
}
