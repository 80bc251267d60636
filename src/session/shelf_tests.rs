//! The mailbox of a session, against a disk and an agent that only remember what they were told.

use super::message::{ErrorCode, RelayMessage};
use super::policy::Policy;
use super::tests::{NOON, START, UNLIMITED};
use super::{
    Confirmed, Effect, Found, Handed, Heard, Joined, MailState, Member, Order, Ordered, PageEnd, Party, Pile, Session,
    read_keep,
};
use crate::proto::device::{Binding, Credential, KeyHash};
use crate::proto::envelope::{Kind, Named};
use crate::proto::limits::{Limits, MailboxLimits};
use crate::proto::quota::Used;
use crate::proto::token::Role::{self, Agent, Phone};
use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

const BYTES: u64 = 100;
const LIMITS: MailboxLimits = MailboxLimits {
    bytes_max: 12 * BYTES,
    messages_max: 8,
    device_messages_max: 5,
    message_bytes_max: BYTES,
    age_max_sec: 60,
};

fn key(n: u8) -> KeyHash {
    KeyHash([n; 32])
}

fn party(n: u8) -> Party {
    if n == 0 { Party::Agent } else { Party::Device(key(n).device()) }
}

/// Messages of a page in the model: small, so that pages are many.
const PAGE: usize = 3;

/// A message on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    number: u64,
    to: Party,
    from: Party,
    text: u64,
}

/// What the shelf has been asked, in order.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Keep { to: Party, from: Party, text: u64 },
    Read { of: Party, after: u64, page: u64 },
    Delete(Confirmed),
}

/// A bound token, its agent (0) and devices from 1 on, and the disk.
struct Desk {
    session: Session<u32>,
    next: u32,
    /// The connection of each, and what it has not confirmed, as the ends see it.
    there: HashMap<u8, u32>,
    pages: HashMap<u8, VecDeque<PageEnd>>,
    /// What each has taken on its connection, in order.
    taken: HashMap<u8, Vec<u64>>,
    /// Whether the other side believes that it is there.
    online: HashMap<u8, bool>,
    asked: VecDeque<Asked>,
    rows: Vec<Row>,
    numbers: u64,
    page: u64,
    text: u64,
    mail: MailState,
}

impl Desk {
    fn new(devices: u8, limits: MailboxLimits) -> Self {
        let policy = Policy::new(Limits { mailbox: limits, ..UNLIMITED });
        let mut session = Session::new(Rc::new(policy), Used::default());
        let devices = (1..=devices).map(key).collect();
        let _ = session.set_binding(Some(Binding { agent: key(0), legacy_phone: false, devices }));
        let _ = session.set_mail(MailState::Ready);
        Self {
            session,
            next: 0,
            there: HashMap::new(),
            pages: HashMap::new(),
            taken: HashMap::new(),
            online: HashMap::new(),
            asked: VecDeque::new(),
            rows: Vec::new(),
            numbers: 0,
            page: 0,
            text: 0,
            mail: MailState::Ready,
        }
    }

    fn who(&self, connection: u32) -> Option<u8> {
        self.there.iter().find(|(_, it)| **it == connection).map(|(n, _)| *n)
    }

    fn apply(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Tell(to, RelayMessage::Mail(end)) => {
                    if let Some(n) = self.who(to) {
                        self.pages.entry(n).or_default().push_back(end);
                    }
                }
                Effect::Tell(_, RelayMessage::Device { device, online }) => {
                    let n = (1..9).find(|&n| key(n).device() == device).unwrap();
                    self.online.insert(n, online);
                }
                Effect::Tell(_, RelayMessage::Status { online }) => drop(self.online.insert(0, online)),
                Effect::Close(connection, _) => {
                    let effects = self.session.leave(connection);
                    self.apply(effects);
                }
                _ => {}
            }
        }
    }

    fn join(&mut self, n: u8) {
        self.next += 1;
        let role = if n == 0 { Agent } else { Phone };
        let member = Member::new(self.next, role, 0, START).with_ext(true).with_mail(self.mail);
        let shown = Some(Credential { key: key(n), invite: None });
        let Joined { gone, told, welcome, .. } = self.session.join(member, shown, NOON).unwrap();
        self.apply(gone);
        self.there.insert(n, self.next);
        self.pages.remove(&n);
        self.taken.remove(&n);
        if n != 0 {
            self.online.insert(0, welcome.paired);
        }
        self.apply(told);
        self.hand_out();
    }

    fn leave(&mut self, n: u8) {
        let Some(connection) = self.there.remove(&n) else { return };
        let effects = self.session.leave(connection);
        self.apply(effects);
        self.pages.remove(&n);
        self.taken.remove(&n);
    }

    fn hand_out(&mut self) {
        for of in self.session.poll_wanted() {
            if let Some(after) = self.session.begin_read(of, self.page) {
                self.asked.push_back(Asked::Read { of, after, page: self.page });
                self.page += 1;
            }
        }
    }

    /// A message from one to another, to be kept if that is not there. Why it is refused, or whether it is kept.
    fn send(&mut self, from: u8, to: u8) -> Result<bool, ErrorCode> {
        let Some(&connection) = self.there.get(&from) else { return Err(ErrorCode::Unauthorized) };
        let device = if from == 0 { to } else { from };
        let named = Some(Named::Id(key(device).device()));
        let heard = Heard { kind: Kind::Other, device: named, bytes: BYTES };
        self.text += 1;
        match self.session.handle_message(START, NOON, connection, heard) {
            Effect::Forward(it) => {
                assert_eq!(Some(&it), self.there.get(&to));
                self.taken.entry(to).or_default().push(self.text);
                Ok(false)
            }
            Effect::Wake(it, device) => {
                assert_eq!(Some(&it), self.there.get(&to));
                if device.is_some() {
                    self.online.insert(from, true);
                }
                self.taken.entry(to).or_default().push(self.text);
                self.hand_out();
                Ok(false)
            }
            Effect::Keep(_) => {
                let posted = self.session.keep(NOON, connection, heard).map_err(|refusal| refusal.code)?;
                assert_eq!((posted.to, posted.from), (party(to), party(from)));
                self.asked.push_back(Asked::Keep { to: party(to), from: party(from), text: self.text });
                Ok(true)
            }
            other => panic!("{other:?}"),
        }
    }

    fn order(&mut self, n: u8, order: &Order) {
        let Some(&connection) = self.there.get(&n) else { return };
        match self.session.handle_order(START, connection, order) {
            Ordered::Done(effects) => self.apply(effects),
            Ordered::Confirmed(confirmed) => self.asked.push_back(Asked::Delete(confirmed)),
            Ordered::Store(_) => {}
            Ordered::Refused(_) => return,
        }
        if let &Order::Park { device } = order {
            let n = (1..9).find(|&n| key(n).device() == device).unwrap();
            self.online.insert(n, false);
        }
        self.hand_out();
    }

    /// The oldest page that a receiver has not confirmed is on its own disk.
    fn confirm(&mut self, n: u8) {
        let Some(end) = self.pages.get_mut(&n).and_then(VecDeque::pop_front) else { return };
        self.order(n, &Order::MailAck { upto: end.upto });
    }

    /// The disk does what it was asked first, or cannot.
    fn disk(&mut self, works: bool) {
        match self.asked.pop_front() {
            Some(Asked::Keep { to, from, text }) if works => {
                self.numbers += 1;
                self.rows.push(Row { number: self.numbers, to, from, text });
                self.session.handle_kept(NOON, to, BYTES, self.numbers);
            }
            Some(Asked::Keep { to, from, .. }) => {
                self.session.trays_mut().unwrap().handle_not_kept(to, from, BYTES);
            }
            Some(Asked::Read { of, after, page }) => {
                let waiting = self.rows.iter().filter(|row| row.to == of && row.number > after);
                let waiting: Vec<Row> = waiting.copied().collect();
                let taken = &waiting[..waiting.len().min(PAGE)];
                let found = Found {
                    messages: taken.len() as u64,
                    upto: taken.last().map_or(after, |row| row.number),
                    left: (waiting.len() - taken.len()) as u64,
                };
                let handed = match works {
                    true => self.session.handle_page(of, page, Some(found)),
                    false => self.session.give_up(of),
                };
                let Some(Handed { to, end, effects }) = handed else { return self.hand_out() };
                let n = self.who(to).expect("it is there");
                if works {
                    self.taken.entry(n).or_default().extend(taken.iter().map(|row| row.text));
                }
                self.apply(vec![Effect::Tell(to, RelayMessage::Mail(end))]);
                self.apply(effects);
                self.hand_out();
            }
            Some(Asked::Delete(Confirmed { of, upto, .. })) => {
                let gone: Vec<_> = self.rows.extract_if(.., |row| row.to == of && row.number <= upto).collect();
                for row in gone {
                    self.session.trays_mut().unwrap().handle_removed(row.to, row.from, Pile::one(BYTES));
                }
            }
            None => {}
        }
    }

    fn settle(&mut self) {
        while !self.asked.is_empty() {
            self.disk(true);
        }
    }

    fn waiting(&mut self, n: u8) -> Pile {
        self.session.trays_mut().unwrap().waiting(party(n))
    }
}

#[test]
fn each_bound_is_met_by_itself() {
    let mut desk = Desk::new(3, LIMITS);
    for n in 0..=3 {
        desk.join(n);
    }
    desk.leave(1);
    for _ in 0..8 {
        assert_eq!(desk.send(0, 1), Ok(true));
    }
    assert_eq!(desk.send(0, 1), Err(ErrorCode::MailboxFull), "of a receiver");
    desk.leave(2);
    for _ in 0..4 {
        assert_eq!(desk.send(0, 2), Ok(true));
    }
    assert_eq!(desk.send(0, 2), Err(ErrorCode::MailboxFull), "of a token");
    desk.settle();
    desk.join(1);
    desk.settle();
    for _ in 0..3 {
        desk.confirm(1);
        desk.settle();
    }
    assert_eq!(desk.waiting(1), Pile::default());
    desk.leave(0);
    for _ in 0..5 {
        assert_eq!(desk.send(1, 0), Ok(true));
    }
    assert_eq!(desk.send(1, 0), Err(ErrorCode::MailboxFull), "of a device in the agent's");
    assert_eq!(desk.send(3, 0), Ok(true), "another one is not shut out");
    let long = Heard { kind: Kind::Other, device: Some(Named::Id(key(3).device())), bytes: BYTES + 1 };
    let refused = desk.session.keep(NOON, desk.there[&3], long).unwrap_err();
    assert_eq!(refused.code, ErrorCode::MessageTooLarge);
}

#[test]
fn what_was_lost_is_said_until_it_was_confirmed() {
    let mut desk = Desk::new(1, LIMITS);
    desk.join(0);
    desk.session.trays_mut().unwrap().handle_lost(party(1), 3);
    for _ in 0..2 {
        desk.join(1);
        assert_eq!(desk.pages[&1], [PageEnd { upto: 0, left: 0, lost: 3, unread: 0 }]);
        assert_eq!(desk.online.get(&1), Some(&true), "nothing waits");
    }
    desk.confirm(1);
    assert!(matches!(desk.asked.pop_front(), Some(Asked::Delete(Confirmed { lost: 3, upto: 0, .. }))));
    desk.join(1);
    assert!(!desk.pages.contains_key(&1));
}

#[test]
fn a_disk_that_cannot_be_read_keeps_nobody_waiting() {
    let mut desk = Desk::new(1, LIMITS);
    desk.join(0);
    desk.join(1);
    desk.leave(1);
    assert_eq!((desk.send(0, 1), desk.send(0, 1)), (Ok(true), Ok(true)));
    desk.settle();
    desk.join(1);
    assert_eq!(desk.online.get(&1), Some(&false));
    desk.disk(false);
    assert_eq!(desk.pages[&1], [PageEnd { upto: 0, left: 0, lost: 0, unread: 2 }]);
    assert_eq!(desk.online.get(&1), Some(&true));
    assert_eq!(desk.send(0, 1), Ok(false));
}

#[test]
fn until_it_is_known_what_waits_nobody_is_there() {
    let mut desk = Desk::new(2, LIMITS);
    desk.mail = MailState::Loading;
    for n in 0..=2 {
        desk.join(n);
    }
    assert_eq!((desk.send(0, 1), desk.send(1, 0)), (Ok(true), Ok(true)));
    desk.session.trays_mut().unwrap().handle_found(party(2), party(0), Pile::one(BYTES), 7, BYTES);
    desk.settle();
    let effects = desk.session.set_mail(MailState::Ready);
    desk.apply(effects);
    assert_eq!(desk.online.get(&2), None, "something waits for it");
    assert_eq!(desk.online.get(&1), None, "and for this one by now");
    desk.hand_out();
    desk.settle();
    assert!((0..=2).all(|n| desk.online.get(&n) == Some(&true)), "{:?}", desk.online);
}

#[test]
fn who_is_none_any_more_has_nothing_and_what_is_said_of_it_does_not_count() {
    let mut desk = Desk::new(2, LIMITS);
    desk.join(0);
    desk.join(1);
    desk.leave(0);
    assert_eq!(desk.send(1, 0), Ok(true));
    desk.join(0);
    desk.leave(1);
    assert_eq!(desk.send(0, 1), Ok(true));
    let binding = Binding { agent: key(0), legacy_phone: false, devices: vec![key(2)] };
    let _ = desk.session.set_binding(Some(binding));
    assert_eq!(desk.session.prune_trays(), [party(1)]);
    assert_eq!(desk.waiting(1), Pile::default());
    desk.settle();
    let trays = desk.session.trays_mut().unwrap();
    trays.handle_removed(party(0), party(1), Pile::one(BYTES));
    trays.handle_forgotten(party(1));
    assert!(trays.is_empty(), "{trays:?}");
}

#[test]
fn keep_is_read_as_it_is_written() {
    let wake = |text: &str| read_keep(text.as_bytes()).map_err(|refusal| refusal.code);
    assert_eq!(wake(r#"{"id":"1","keep":"wake"}"#), Ok(Some(true)));
    assert_eq!(wake(r#"{"keep":"qu\u0069et","x":{"keep":1},"id":"1"}"#), Ok(Some(false)));
    assert_eq!(wake(r#"{"id":"1"}"#), Ok(None));
    for bad in [r#"{"keep":"wake"}"#, r#"{"id":"1","keep":1}"#, r#"{"id":"1","keep":"wake","keep":"wake"}"#] {
        assert_eq!(wake(bad), Err(ErrorCode::InvalidMessage), "{bad}");
    }
    let long = format!(r#"{{"keep":"wake","id":"{}"}}"#, "x".repeat(1023));
    assert_eq!(wake(&long), Err(ErrorCode::InvalidMessage));
}

#[derive(Clone, Debug)]
enum Act {
    Join(u8),
    Leave(u8),
    Send(u8, u8),
    Sleep(u8),
    Awake(u8),
    Park(u8),
    Confirm(u8),
    Disk(bool),
}

fn acts() -> impl Strategy<Value = Act> {
    let any_one = || 0..3_u8;
    let device = || 1..3_u8;
    prop_oneof![
        3 => any_one().prop_map(Act::Join),
        2 => any_one().prop_map(Act::Leave),
        5 => device().prop_map(|to| Act::Send(0, to)),
        4 => device().prop_map(|from| Act::Send(from, 0)),
        1 => device().prop_map(Act::Sleep),
        1 => device().prop_map(Act::Awake),
        1 => device().prop_map(Act::Park),
        4 => any_one().prop_map(Act::Confirm),
        9 => prop::bool::weighted(0.95).prop_map(Act::Disk),
    ]
}

fn roles() -> [Role; 2] {
    [Phone, Agent]
}

proptest! {
    #[test]
    fn order_is_kept_and_the_counts_are_those_of_the_disk(acts in prop::collection::vec(acts(), 1..300)) {
        let mut desk = Desk::new(2, LIMITS);
        let mut gave_up = false;
        for act in acts {
            match act {
                Act::Join(n) => desk.join(n),
                Act::Leave(n) => desk.leave(n),
                Act::Send(from, to) => match desk.send(from, to) {
                    Ok(_) | Err(ErrorCode::MailboxFull | ErrorCode::Unauthorized) => {}
                    Err(other) => prop_assert!(false, "{:?}", other),
                },
                Act::Sleep(n) => desk.order(n, &Order::Sleep),
                Act::Awake(n) => desk.order(n, &Order::Awake),
                Act::Park(n) => desk.order(0, &Order::Park { device: key(n).device() }),
                Act::Confirm(n) => desk.confirm(n),
                Act::Disk(works) => {
                    gave_up |= !works && matches!(desk.asked.front(), Some(Asked::Read { .. }));
                    desk.disk(works);
                }
            }
            for n in 0..3 {
                let of = party(n);
                let stored = desk.rows.iter().filter(|row| row.to == of).count();
                let posted = desk.asked.iter().filter(|it| matches!(it, Asked::Keep { to, .. } if *to == of)).count();
                let waiting = desk.waiting(n);
                prop_assert_eq!(waiting.messages, (stored + posted) as u64);
                prop_assert_eq!(waiting.bytes, waiting.messages * BYTES);
                prop_assert!(waiting.messages <= LIMITS.messages_max);
                prop_assert!(desk.pages.get(&n).map_or(0, VecDeque::len) <= 3);
                // On one connection nothing comes twice, and nothing before what was sent earlier: not where a disk that
                // failed has kept something back.
                let taken = desk.taken.get(&n).cloned().unwrap_or_default();
                if !gave_up {
                    prop_assert!(taken.is_sorted_by(|a, b| a < b), "{} took {:?}", n, taken);
                }
            }
        }
        // In the end everybody gets what waits, and is there.
        for n in 0..3 {
            desk.join(n);
        }
        for _ in 0..40 {
            desk.settle();
            for n in 0..3 {
                desk.confirm(n);
            }
        }
        prop_assert!(desk.rows.is_empty(), "{:?}", desk.rows);
        prop_assert!((0..3).all(|n| desk.online.get(&n) == Some(&true)), "{:?}", desk.online);
        prop_assert!(roles().into_iter().all(|role| desk.session.connections(role).count() > 0));
        prop_assert!(desk.session.trays_mut().unwrap().is_empty());
    }
}
