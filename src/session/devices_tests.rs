//! Sessions with devices, against a model that only remembers who may be there and who is.

use super::message::ErrorCode::{self, DeviceUnknown, InvalidMessage, InvitesFull, PeerOffline, RateLimited};
use super::message::{Ext, RelayMessage, Welcome};
use super::policy::Policy;
use super::tests::{NOON, START, UNLIMITED};
use super::{Change, Effect, Farewell, Heard, Joined, Member, NotAdmitted, Order, Ordered, Refusal, Session};
use crate::proto::device::{Binding, Credential, DeviceId, InviteHash, KeyHash};
use crate::proto::envelope::{Kind, Named};
use crate::proto::limits::Limits;
use crate::proto::quota::Used;
use crate::proto::token::Role::{self, Agent, Phone};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn key(n: u8) -> KeyHash {
    KeyHash([n; 32])
}

fn id(n: u8) -> DeviceId {
    key(n).device()
}

fn invite(n: u8) -> InviteHash {
    InviteHash([n; 32])
}

/// A session of a token, with who applies its effects, writes its changes and remembers what each connection was told.
struct Desk {
    session: Session<u32>,
    now: Duration,
    next: u32,
    binding: Option<Binding>,
    /// Changes that are not on the disk yet.
    waiting: VecDeque<Change>,
    told: HashMap<u32, Vec<RelayMessage<'static>>>,
    welcomes: HashMap<u32, Welcome>,
    closed: HashMap<u32, Farewell>,
    /// Connections of devices whose revocation has been confirmed.
    revoked: HashSet<u32>,
}

impl Desk {
    fn new(limits: Limits) -> Self {
        Self {
            session: Session::new(Rc::new(Policy::new(limits)), Used::default()),
            now: START,
            next: 0,
            binding: None,
            waiting: VecDeque::new(),
            told: HashMap::new(),
            welcomes: HashMap::new(),
            closed: HashMap::new(),
            revoked: HashSet::new(),
        }
    }

    fn apply(&mut self, effects: Vec<Effect<u32>>) {
        for effect in effects {
            match effect {
                Effect::Tell(to, message) => {
                    assert!(!self.closed.contains_key(&to), "{to} is told {message:?} behind its close");
                    assert!(!self.revoked.contains(&to), "{to} is told {message:?} after it was revoked");
                    self.told.entry(to).or_default().push(message);
                }
                Effect::Close(connection, why) => {
                    assert_eq!(self.closed.insert(connection, why), None, "{connection} is closed twice");
                    let effects = self.session.leave(connection);
                    self.apply(effects);
                }
                other => panic!("{other:?} follows from no membership"),
            }
        }
    }

    fn join(&mut self, role: Role, shown: Option<(u8, Option<u8>)>) -> Result<u32, NotAdmitted> {
        let shown = shown.map(|(n, i)| Credential { key: key(n), invite: i.map(invite) });
        self.next += 1;
        let member = Member::new(self.next, role, 0, self.now).with_ext(shown.is_some());
        let Joined { gone, welcome, told, .. } = self.session.join(member, shown, NOON)?;
        self.apply(gone);
        self.welcomes.insert(self.next, welcome);
        self.apply(told);
        Ok(self.next)
    }

    fn leave(&mut self, connection: u32) {
        self.closed.insert(connection, Farewell::Replaced);
        let effects = self.session.leave(connection);
        self.apply(effects);
    }

    /// What is refused, or whether it is done or waits for the disk.
    fn order(&mut self, from: u32, order: &Order) -> Result<bool, ErrorCode> {
        match self.session.handle_order(self.now, from, order) {
            Ordered::Done(effects) => {
                self.apply(effects);
                Ok(true)
            }
            Ordered::Store(change) => {
                self.waiting.push_back(change);
                Ok(false)
            }
            Ordered::Confirmed(confirmed) => panic!("{confirmed:?}: nothing waits"),
            Ordered::Refused(Refusal { code, .. }) => Err(code),
        }
    }

    /// The oldest change that waits is on the disk, or cannot be written.
    fn store(&mut self) {
        let Some(change) = self.waiting.pop_front() else { return };
        let before: Vec<u32> = self.session.connections(Phone).collect();
        match (&change, &mut self.binding) {
            (&Change::Bind { agent, .. }, Some(binding)) if binding.agent != agent => return,
            (&Change::Bind { agent, legacy_phone }, binding) => {
                let devices = binding.take().map_or_else(Vec::new, |binding| binding.devices);
                *binding = Some(Binding { agent, legacy_phone, devices });
            }
            (Change::Admit { key, .. }, Some(binding)) if !binding.devices.contains(key) => binding.devices.push(*key),
            (Change::Revoke(device), Some(binding)) => binding.devices.retain(|key| key.device() != *device),
            _ => {}
        }
        let effects = self.session.set_binding(self.binding.clone());
        self.apply(effects);
        let effects = self.session.handle_stored(&change);
        self.apply(effects);
        if let Change::Revoke(_) = change {
            // Who was sent away by it is revoked from here on.
            self.revoked.extend(before.into_iter().filter(|it| self.closed.get(it) == Some(&Farewell::Revoked)));
        }
    }

    /// Asks for something, and has it.
    fn get(&mut self, from: u32, order: &Order) {
        if self.order(from, order) == Ok(false) {
            self.store();
        }
    }

    fn send(&mut self, from: u32, kind: Kind, device: Option<Named>) -> Effect<u32> {
        self.session.handle_message(self.now, NOON, from, Heard { kind, device, bytes: 10 })
    }

    fn take(&mut self, connection: u32) -> Vec<RelayMessage<'static>> {
        self.told.remove(&connection).unwrap_or_default()
    }

    fn ext(&self, connection: u32) -> Ext {
        self.welcomes[&connection].ext.clone()
    }

    /// A bound token with its agent, key 0, and so many admitted devices that are there, keys from 1 on.
    fn bound(limits: Limits, legacy_phone: bool, devices: u8) -> (Self, u32, Vec<u32>) {
        let mut desk = Self::new(limits);
        let agent = desk.join(Agent, Some((0, None))).unwrap();
        desk.get(agent, &Order::Bind { legacy_phone });
        let joined = (1..=devices).map(|n| {
            desk.get(agent, &Order::Invite { invite: invite(n), ttl: None });
            let device = desk.join(Phone, Some((n, Some(n)))).unwrap();
            desk.get(agent, &Order::Admit { device: id(n), label: None });
            device
        });
        let joined = joined.collect();
        desk.told.clear();
        (desk, agent, joined)
    }
}

fn code(effect: &Effect<u32>) -> Option<ErrorCode> {
    match effect {
        Effect::Refuse(Refusal { code, .. }) | Effect::Keep(Refusal { code, .. }) => Some(*code),
        _ => None,
    }
}

#[test]
fn a_session_without_devices_has_a_word_for_them() {
    assert!(size_of::<Session<u64>>() <= 224, "{}", size_of::<Session<u64>>());
}

#[test]
fn a_device_is_pending_until_its_agent_has_admitted_it_on_the_disk() {
    let (mut desk, agent, _) = Desk::bound(UNLIMITED, false, 0);
    desk.get(agent, &Order::Invite { invite: invite(1), ttl: Some(60 * SECOND) });
    let device = desk.join(Phone, Some((1, Some(1)))).unwrap();
    assert_eq!(desk.ext(device), Ext::Device { device: id(1), pending: true, mail: None, push: None });
    assert_eq!(desk.take(agent), [RelayMessage::Pending { device: id(1) }]);
    let own = Some(Named::Id(id(1)));
    assert_eq!(code(&desk.send(device, Kind::Other, own)), Some(InvalidMessage));
    assert_eq!(desk.send(device, Kind::KeyExchange, own), Effect::Forward(agent));
    assert_eq!(desk.send(agent, Kind::KeyExchange, own), Effect::Forward(device));
    assert_eq!(code(&desk.send(agent, Kind::Done, own)), Some(InvalidMessage));
    assert_eq!(desk.order(agent, &Order::Admit { device: id(1), label: None }), Ok(false));
    assert_eq!(code(&desk.send(agent, Kind::Done, own)), Some(InvalidMessage), "not on the disk yet");
    desk.store();
    assert_eq!(desk.take(device), [RelayMessage::Admitted { mail: None, push: None }]);
    assert_eq!(desk.take(agent), [RelayMessage::Device { device: id(1), online: true }]);
    assert_eq!(desk.send(agent, Kind::Done, own), Effect::Forward(device));
    assert_eq!(desk.send(device, Kind::Other, own), Effect::Forward(agent));
}

#[test]
fn a_pending_device_has_five_minutes_and_its_invite_is_used() {
    let (mut desk, agent, _) = Desk::bound(UNLIMITED, false, 0);
    desk.get(agent, &Order::Invite { invite: invite(1), ttl: Some(SECOND) });
    let device = desk.join(Phone, Some((1, Some(1)))).unwrap();
    desk.now += 299 * SECOND;
    assert_eq!(desk.session.expire(desk.now), []);
    let again = desk.join(Phone, Some((1, Some(1)))).unwrap();
    assert_eq!(desk.closed.remove(&device), Some(Farewell::Replaced), "its time goes on");
    desk.now += SECOND;
    let effects = desk.session.expire(desk.now);
    assert_eq!(effects, [Effect::Close(again, Farewell::Revoked)]);
    desk.apply(effects);
    assert_eq!(desk.join(Phone, Some((1, Some(1)))), Err(NotAdmitted::LinkUsed));
}

#[test]
fn an_invite_that_is_not_known_may_be_told_yet_by_an_agent_that_has_just_come() {
    let (mut desk, agent, _) = Desk::bound(UNLIMITED, true, 0);
    assert_eq!(desk.join(Phone, Some((1, Some(1)))), Err(NotAdmitted::AgentAway));
    desk.now += 10 * SECOND;
    assert_eq!(desk.join(Phone, Some((1, Some(1)))), Err(NotAdmitted::LinkUsed));
    desk.leave(agent);
    assert_eq!(desk.join(Phone, Some((1, Some(1)))), Err(NotAdmitted::AgentAway));
    assert_eq!(desk.join(Phone, Some((1, None))), Err(NotAdmitted::LinkUsed), "it has none");
    assert_eq!(desk.join(Agent, None), Err(NotAdmitted::OtherAgent));
    assert!(desk.join(Phone, None).is_ok(), "the plain phone");
}

#[test]
fn two_keys_with_one_id_are_not_both_devices() {
    let (mut desk, agent, _) = Desk::bound(UNLIMITED, false, 1);
    let mut twin = key(1);
    twin.0[31] = 0;
    desk.get(agent, &Order::Invite { invite: invite(2), ttl: None });
    let shown = Some(Credential { key: twin, invite: Some(invite(2)) });
    let member = Member::new(99, Phone, 0, desk.now).with_ext(true);
    assert_eq!(desk.session.join(member, shown, NOON).err(), Some(NotAdmitted::IdTaken));
    assert!(desk.join(Phone, Some((2, Some(2)))).is_ok(), "the invite is as good as before");
}

#[test]
fn each_device_and_the_plain_phone_have_limits_of_their_own_in_both_directions() {
    let limits = Limits { phone_per_minute: 2, agent_per_minute: 3, stream_per_second: 1, ..UNLIMITED };
    let (mut desk, agent, devices) = Desk::bound(limits, true, 2);
    let phone = desk.join(Phone, None).unwrap();
    let names = [Some(Named::Id(id(1))), Some(Named::Id(id(2))), None];
    for (&there, named) in [devices[0], devices[1], phone].iter().zip(names) {
        for (from, to, burst) in [(there, agent, 2), (agent, there, 3)] {
            for _ in 0..burst {
                assert_eq!(desk.send(from, Kind::Other, named), Effect::Forward(to));
            }
            assert_eq!(code(&desk.send(from, Kind::Other, named)), Some(RateLimited));
        }
        for _ in 0..2 {
            assert_eq!(desk.send(agent, Kind::Stream, named), Effect::Forward(there));
        }
        assert!(matches!(desk.send(agent, Kind::Stream, named), Effect::Later(_)));
        if named.is_some() {
            for (from, to) in [(there, agent), (agent, there)] {
                for _ in 0..16 {
                    assert_eq!(desk.send(from, Kind::Ack, named), Effect::Forward(to));
                }
                assert!(matches!(desk.send(from, Kind::Ack, named), Effect::Later(_)));
            }
        }
        let taken = (0..1000).take_while(|_| desk.session.charge_answer(desk.now, there).is_ok()).count();
        assert_eq!(taken, 200);
    }
    // They are the device's, not the connection's.
    let again = desk.join(Phone, Some((1, None))).unwrap();
    assert_eq!(code(&desk.send(again, Kind::Other, Some(Named::Id(id(1))))), Some(RateLimited));
    assert_eq!(desk.session.used(NOON).day_bytes, desk.session.take_unreported());
}

#[test]
fn what_is_asked_of_the_relay_has_a_limit_for_each() {
    let (mut desk, agent, devices) = Desk::bound(UNLIMITED, false, 2);
    for from in devices {
        for _ in 0..60 {
            assert_eq!(desk.order(from, &Order::Awake), Ok(true));
        }
        assert_eq!(desk.order(from, &Order::Awake), Err(RateLimited));
    }
    let asked = (0..60).take_while(|_| desk.order(agent, &Order::Revoke { device: id(9) }).is_ok()).count();
    assert_eq!(asked, 60 - 5, "`bound` has asked for some");
    desk.now += SECOND;
    assert!(desk.order(agent, &Order::Revoke { device: id(9) }).is_ok());
}

#[test]
fn an_agent_that_is_not_the_one_that_the_token_is_bound_to_goes_and_so_does_the_plain_phone() {
    let mut desk = Desk::new(UNLIMITED);
    let phone = desk.join(Phone, None).unwrap();
    let one = desk.join(Agent, Some((0, None))).unwrap();
    assert_eq!(desk.order(one, &Order::Bind { legacy_phone: false }), Ok(false));
    let two = desk.join(Agent, Some((7, None))).unwrap();
    assert_eq!(desk.ext(two), Ext::Agent { bound: false, legacy_phone: true, devices: Vec::new(), mail: None });
    desk.store();
    assert_eq!((desk.closed.get(&two), desk.closed.get(&phone)), (Some(&Farewell::Revoked), Some(&Farewell::Revoked)));
    let back = desk.join(Agent, Some((0, None))).unwrap();
    assert_eq!(desk.ext(back), Ext::Agent { bound: true, legacy_phone: false, devices: Vec::new(), mail: None });
}

#[test]
fn a_token_that_is_not_bound_keeps_nothing_when_its_agent_has_left() {
    let mut desk = Desk::new(UNLIMITED);
    let agent = desk.join(Agent, Some((0, None))).unwrap();
    assert_eq!(desk.send(agent, Kind::Relay, None), Effect::Order);
    desk.leave(agent);
    let plain = desk.join(Agent, None).unwrap();
    let phone = desk.join(Phone, Some((1, Some(1)))).unwrap();
    assert_eq!(desk.ext(phone), Ext::Legacy);
    for (from, to) in [(plain, phone), (phone, plain)] {
        for named in [None, Some(Named::Id(id(1))), Some(Named::Other), Some(Named::Repeated)] {
            assert_eq!(desk.send(from, Kind::Relay, named), Effect::Forward(to));
        }
    }
}

/// What happens to a token.
#[derive(Clone, Debug)]
enum Act {
    Join { role: Role, shown: Option<(u8, Option<u8>)> },
    Leave(prop::sample::Index),
    Order(prop::sample::Index, Order),
    Store,
    Unbind,
    Send(prop::sample::Index, Kind, Option<u8>),
    Pass(u64),
}

fn acts() -> impl Strategy<Value = Act> {
    let device = || 1..5_u8;
    let order = prop_oneof![
        any::<bool>().prop_map(|legacy_phone| Order::Bind { legacy_phone }),
        (device(), prop_oneof![Just(None), (0..200_u64).prop_map(|sec| Some(Duration::from_secs(sec)))])
            .prop_map(|(n, ttl)| Order::Invite { invite: invite(n), ttl }),
        device().prop_map(|n| Order::Admit { device: id(n), label: None }),
        device().prop_map(|n| Order::Revoke { device: id(n) }),
        device().prop_map(|n| Order::Park { device: id(n) }),
        Just(Order::Sleep),
        Just(Order::Awake),
    ];
    let kind = prop_oneof![Just(Kind::Other), Just(Kind::KeyExchange), Just(Kind::Ack)];
    let agent = prop_oneof![8 => Just(Some((0, None))), 1 => Just(Some((7, None))), 1 => Just(None)];
    let phone = prop_oneof![
        6 => (device(), prop::option::of(device())).prop_map(Some),
        1 => Just(None),
    ];
    prop_oneof![
        2 => agent.prop_map(|shown| Act::Join { role: Agent, shown }),
        5 => phone.prop_map(|shown| Act::Join { role: Phone, shown }),
        2 => any::<prop::sample::Index>().prop_map(Act::Leave),
        9 => (any::<prop::sample::Index>(), order).prop_map(|(who, order)| Act::Order(who, order)),
        6 => Just(Act::Store),
        1 => Just(Act::Unbind),
        9 => (any::<prop::sample::Index>(), kind, prop::option::of(device()))
            .prop_map(|(who, kind, named)| Act::Send(who, kind, named)),
        1 => (0..400_u64).prop_map(Act::Pass),
    ]
}

/// Who is who, as it follows from what was asked and answered.
#[derive(Default)]
struct Model {
    agent: Option<(u32, Option<u8>)>,
    plain: Option<u32>,
    /// By number: the connection, whether it is admitted, and whether it is asleep.
    devices: HashMap<u8, (Option<u32>, bool, bool)>,
}

impl Model {
    /// What becomes of a message, whom it goes to, and whether that wakes its sender.
    fn route(&self, desk: &Desk, from: u32, kind: Kind, named: Option<u8>) -> Result<(u32, bool), ErrorCode> {
        let is_bound = desk.binding.is_some();
        let offline = |to: Option<u32>| to.ok_or(PeerOffline);
        let passes = |admitted: bool| if admitted || kind == Kind::KeyExchange { Ok(()) } else { Err(InvalidMessage) };
        let agent = self.agent.map(|(connection, _)| connection);
        if agent == Some(from) {
            let has_key = self.agent.is_some_and(|(_, key)| key.is_some());
            return match named.filter(|_| has_key) {
                None => offline(self.plain).map(|to| (to, false)),
                Some(n) => {
                    let &(to, admitted, asleep) = self.devices.get(&n).ok_or(DeviceUnknown)?;
                    passes(admitted)?;
                    offline(to.filter(|_| !asleep)).map(|to| (to, false))
                }
            };
        }
        if self.plain == Some(from) {
            return if named.is_some() && is_bound {
                Err(InvalidMessage)
            } else {
                offline(agent).map(|to| (to, false))
            };
        }
        let (&own, &(_, admitted, asleep)) = self
            .devices
            .iter()
            .find(|(_, (connection, ..))| *connection == Some(from))
            .expect("it is one of the three");
        if named != Some(own) {
            return Err(InvalidMessage);
        }
        passes(admitted)?;
        offline(agent).map(|to| (to, asleep))
    }

    /// Everybody who is there.
    fn all(&self) -> Vec<u32> {
        let agent = self.agent.map(|(connection, _)| connection);
        let mut all: Vec<u32> =
            agent.into_iter().chain(self.plain).chain(self.devices.values().filter_map(|it| it.0)).collect();
        all.sort_unstable();
        all
    }

    /// Takes out whoever is not there any more.
    fn forget(&mut self, desk: &Desk) {
        let is_gone = |connection: u32| desk.closed.contains_key(&connection);
        self.agent = self.agent.filter(|it| !is_gone(it.0));
        self.plain = self.plain.filter(|&it| !is_gone(it));
        for (connection, _, asleep) in self.devices.values_mut() {
            *connection = connection.filter(|&it| !is_gone(it));
            *asleep &= connection.is_some();
        }
    }

    /// After a change of whom the token admits: who was admitted, and who is none any more.
    fn admit(&mut self, desk: &Desk, revoked: Option<DeviceId>) {
        self.forget(desk);
        let keys = desk.binding.as_ref().map_or(&[][..], |binding| &binding.devices);
        for n in 1..5 {
            let is_admitted = keys.contains(&key(n));
            match self.devices.get_mut(&n) {
                Some(device) if is_admitted => device.1 = true,
                Some(device) if device.1 || revoked == Some(id(n)) || desk.binding.is_none() => {
                    self.devices.remove(&n);
                }
                None if is_admitted => drop(self.devices.insert(n, (None, true, false))),
                _ => {}
            }
        }
        self.drop_pending_without_agent();
    }

    fn drop_pending_without_agent(&mut self) {
        if self.agent.is_none() {
            self.devices.retain(|_, device| device.1);
        }
    }
}

proptest! {
    #[test]
    fn routes_are_those_of_a_naive_map_and_a_revoked_device_hears_nothing(
        acts in proptest::collection::vec(acts(), 1..250),
    ) {
        let mut desk = Desk::new(UNLIMITED);
        let mut model = Model::default();
        for act in acts {
            match act {
                Act::Join { role, shown } => {
                    let Ok(connection) = desk.join(role, shown) else { continue };
                    let ext = desk.ext(connection);
                    model.forget(&desk);
                    match (role, ext) {
                        (Agent, _) => {
                            // Whoever was let in by the one before has to come again.
                            model.agent = None;
                            model.drop_pending_without_agent();
                            model.agent = Some((connection, shown.map(|it| it.0)));
                        }
                        (Phone, Ext::Device { device, pending, .. }) => {
                            let (n, _) = shown.unwrap();
                            prop_assert_eq!(device, id(n));
                            let keys = &desk.binding.as_ref().unwrap().devices;
                            prop_assert_eq!(pending, !keys.contains(&key(n)), "the disk says who is admitted");
                            model.devices.insert(n, (Some(connection), !pending, false));
                        }
                        _ => model.plain = Some(connection),
                    }
                }
                Act::Leave(who) => {
                    let all = model.all();
                    if !all.is_empty() {
                        desk.leave(*who.get(&all));
                        model.forget(&desk);
                        model.drop_pending_without_agent();
                    }
                }
                Act::Order(who, order) => {
                    let all = model.all();
                    if all.is_empty() {
                        continue;
                    }
                    let from = *who.get(&all);
                    // The shard hands in orders of those alone who may give some.
                    if desk.send(from, Kind::Relay, None) != Effect::Order {
                        continue;
                    }
                    let is_agent = model.agent.is_some_and(|it| it.0 == from);
                    let is_owner = is_agent
                        && desk.binding.as_ref().is_some_and(|it| model.agent.unwrap().1.map(key) == Some(it.agent));
                    let done = desk.order(from, &order);
                    if done == Err(RateLimited) {
                        continue;
                    }
                    match order {
                        Order::Bind { .. } => prop_assert_eq!(done.is_ok(), is_agent),
                        Order::Park { device } if is_owner => {
                            let known = model.devices.iter_mut().find(|(n, it)| id(**n) == device && it.1);
                            prop_assert_eq!(done.is_ok(), known.is_some());
                            if let Some((_, it)) = known {
                                it.2 = it.0.is_some();
                            }
                        }
                        Order::Admit { device, .. } if is_owner => {
                            let is_known = model.devices.keys().any(|n| id(*n) == device);
                            prop_assert_eq!(done.map_err(|it| it == DeviceUnknown), if is_known { Ok(false) } else { Err(true) });
                        }
                        Order::Revoke { .. } if is_owner => prop_assert_eq!(done, Ok(false)),
                        Order::Invite { .. } if is_owner => prop_assert!(matches!(done, Ok(true) | Err(InvitesFull))),
                        Order::Sleep | Order::Awake if !is_agent => {
                            let it = model.devices.values_mut().find(|it| it.0 == Some(from)).unwrap();
                            prop_assert_eq!(done.is_ok(), it.1);
                            it.2 = it.1 && order == Order::Sleep;
                        }
                        _ => prop_assert_eq!(done, Err(InvalidMessage)),
                    }
                }
                Act::Store => {
                    let revoked = match desk.waiting.front() {
                        Some(&Change::Revoke(device)) if desk.binding.is_some() => Some(device),
                        _ => None,
                    };
                    desk.store();
                    model.admit(&desk, revoked);
                }
                Act::Unbind => {
                    desk.binding = None;
                    let effects = desk.session.set_binding(None);
                    desk.apply(effects);
                    model.admit(&desk, None);
                }
                Act::Send(who, kind, named) => {
                    let all = model.all();
                    if all.is_empty() {
                        continue;
                    }
                    let from = *who.get(&all);
                    let expected = model.route(&desk, from, kind, named);
                    let effect = desk.send(from, kind, named.map(|n| Named::Id(id(n))));
                    match effect {
                        Effect::Forward(to) => prop_assert_eq!(Ok((to, false)), expected),
                        Effect::Wake(to, device) => {
                            prop_assert_eq!(Ok((to, true)), expected);
                            prop_assert_eq!(named.map(id), device);
                            model.devices.get_mut(&named.unwrap()).unwrap().2 = false;
                        }
                        // Acknowledgements have a rate that the model does not know.
                        Effect::Later(_) => prop_assert!(kind == Kind::Ack),
                        other => prop_assert_eq!(code(&other), expected.err()),
                    }
                    if let Effect::Forward(to) | Effect::Wake(to, _) = effect {
                        prop_assert!(!desk.revoked.contains(&to), "{} is revoked", to);
                    }
                }
                Act::Pass(seconds) => {
                    desk.now += Duration::from_secs(seconds);
                    let effects = desk.session.expire(desk.now);
                    desk.apply(effects);
                    model.forget(&desk);
                    // Those that were let in more than five minutes ago are none any more, connected or not.
                    let known: HashSet<DeviceId> = desk.session.all_devices().collect();
                    model.devices.retain(|n, it| it.1 || known.contains(&id(*n)));
                }
            }
            let mut there: Vec<u32> = Role::ALL.iter().flat_map(|&role| desk.session.connections(role)).collect();
            there.sort_unstable();
            prop_assert_eq!(there, model.all());
            let online: HashMap<DeviceId, bool> = desk.session.devices().collect();
            let expected = model.devices.iter().filter(|(_, it)| it.1).map(|(n, it)| (id(*n), it.0.is_some()));
            prop_assert_eq!(online, expected.collect::<HashMap<_, _>>());
        }
    }
}
