//! The devices of a token that is bound to its agent's key: who may join, whom a message is for, and what each may ask of the
//! relay. The agent alone decides who is a device; here is only what it has decided.

use crate::effect::{Change, Effect, Farewell, NotAdmitted, Refusal};
use crate::heard::Heard;
use crate::members::Member;
use crate::message::{DeviceView, ErrorCode, Ext, MailView, RelayMessage};
use crate::order::Order;
use crate::proto::bucket::{Bucket, Rate};
use crate::proto::device::{Binding, Credential, DeviceId, InviteHash, KeyHash};
use crate::proto::envelope::{Kind, Named};
use crate::proto::limits::MailboxLimits;
use crate::proto::token::Role;
use crate::rates::{self, Rates};
use crate::shelf::{Confirmed, Drain, MailState, Party, Trays};
use std::time::Duration;

/// Invites that are open at a time, those among them that a device has come with and is not admitted.
const INVITES_MAX: usize = 5;
/// How long a device may wait for its admission.
const PENDING_MAX: Duration = Duration::from_secs(300);
/// How long an agent that has joined may take to say which invites are open. Until then an invite that is not known may be.
const INVITES_GRACE: Duration = Duration::from_secs(10);

const NOT_ADMITTED: &str = "the agent has not admitted this device yet";

/// What a session with devices has beside one without: at most 8 devices as a rule, and 5 that are not admitted.
#[derive(Debug)]
pub(super) struct Devices<C> {
    /// The key of the agent that is there, if it has shown one.
    agent: Option<KeyHash>,
    /// What the token is bound to.
    bound: Option<Bound>,
    all: Vec<Device<C>>,
    /// Those that no device has come with; with those of `all` that are pending, [`INVITES_MAX`] at the most.
    invites: Vec<Invite>,
    /// What the agent asks of the relay.
    orders: Bucket,
    /// How the agent that is there is handed what waits for it.
    pub(super) agent_drain: Drain,
    /// What waits for whom.
    pub(super) trays: Trays,
    /// What is known of the mailbox.
    pub(super) mail: MailState,
}

#[derive(Debug)]
struct Bound {
    agent: KeyHash,
    legacy_phone: bool,
}

#[derive(Debug)]
struct Invite {
    hash: InviteHash,
    /// `None`: until it is used.
    until: Option<Duration>,
}

impl Invite {
    fn is_open(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

#[derive(Debug)]
pub(super) struct Device<C> {
    key: KeyHash,
    standing: Standing,
    connection: Option<C>,
    /// It is connected and takes nothing.
    asleep: bool,
    /// How it is handed what waits for it.
    pub(super) drain: Drain,
    /// Of it and the agent.
    pub(super) rates: Rates,
    /// What the relay answers itself.
    pub(super) answers: Bucket,
    /// What it asks of the relay.
    orders: Bucket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Admitted,
    /// It may enrol until then; the invite is its own.
    Pending {
        invite: InviteHash,
        until: Duration,
    },
}

impl<C: Copy + PartialEq> Device<C> {
    fn new(key: KeyHash, standing: Standing) -> Self {
        Self {
            key,
            standing,
            connection: None,
            asleep: false,
            drain: Drain::default(),
            rates: Rates::default(),
            answers: Bucket::default(),
            orders: Bucket::default(),
        }
    }

    pub(super) fn id(&self) -> DeviceId {
        self.key.device()
    }

    pub(super) fn is_admitted(&self) -> bool {
        self.standing == Standing::Admitted
    }

    /// Whether messages of the agent reach it.
    pub(super) fn is_present(&self) -> bool {
        self.is_admitted() && self.connection.is_some() && !self.asleep && !self.drain.is_on()
    }

    /// Its connection, unless it sleeps there.
    pub(super) fn awake(&self) -> Option<C> {
        self.connection.filter(|_| !self.asleep)
    }

    /// When it may not wait for its admission any longer.
    pub(super) fn pending_until(&self) -> Option<Duration> {
        match self.standing {
            Standing::Admitted => None,
            Standing::Pending { until, .. } => Some(until),
        }
    }

    fn is_expired(&self, now: Duration) -> bool {
        self.pending_until().is_some_and(|until| until <= now)
    }

    /// Whether this is its connection.
    pub(super) fn is_on(&self, connection: C) -> bool {
        self.connection == Some(connection)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Puts it to sleep or wakes it. Whether that has changed anything for its agent.
    fn set_asleep(&mut self, asleep: bool, trays: &Trays) -> bool {
        let was_present = self.is_present();
        self.asleep = asleep && self.connection.is_some();
        if asleep {
            self.drain.stop_reading();
        } else if self.connection.is_some() {
            self.drain.wake(trays, Party::Device(self.id()));
        }
        was_present != self.is_present()
    }

    /// What its agent is told of it.
    pub(super) fn news(&self) -> RelayMessage<'static> {
        RelayMessage::Device { device: self.id(), online: self.is_present() }
    }
}

impl<C: Copy + PartialEq> Devices<C> {
    /// Of a token that is not bound, whose agent has shown a key, or has not.
    pub(super) fn unbound(mail: MailState) -> Self {
        Self {
            agent: None,
            bound: None,
            all: Vec::new(),
            invites: Vec::new(),
            orders: Bucket::default(),
            agent_drain: Drain::default(),
            trays: Trays::default(),
            mail,
        }
    }

    /// Whether the agent that is there may decide about devices.
    pub(super) fn is_agents(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| self.agent == Some(bound.agent))
    }

    pub(super) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// Whether a phone without a device's key may join; `None`: the token is not bound.
    pub(super) fn legacy_phone(&self) -> Option<bool> {
        self.bound.as_ref().map(|bound| bound.legacy_phone)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Device<C>> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device<C>> {
        self.all.iter_mut()
    }

    /// Whether a member may ask the relay for something: an agent that has shown a key, or a device.
    pub(super) fn takes_orders(&self, member: &Member<C>) -> bool {
        member.is_device() || member.role == Role::Agent && self.agent.is_some()
    }

    fn find(&self, device: DeviceId) -> Option<usize> {
        self.all.iter().position(|one| one.id() == device)
    }

    pub(super) fn get_mut(&mut self, device: DeviceId) -> Option<&mut Device<C>> {
        self.all.iter_mut().find(|one| one.id() == device)
    }

    /// How a receiver is handed what waits for it.
    pub(super) fn drain_of(&mut self, party: Party) -> Option<(&mut Drain, &mut Trays)> {
        let drain = match party {
            Party::Agent => &mut self.agent_drain,
            Party::Device(id) => &mut self.all.iter_mut().find(|one| one.id() == id)?.drain,
        };
        Some((drain, &mut self.trays))
    }

    /// Puts a device to sleep or wakes it. Whether that has changed anything for its agent; `None`: there is no such device.
    pub(super) fn set_asleep(&mut self, device: DeviceId, asleep: bool) -> Option<bool> {
        let device = self.all.iter_mut().find(|one| one.id() == device)?;
        Some(device.set_asleep(asleep, &self.trays))
    }

    /// What is to be thrown away, for its receiver is none any more.
    pub(super) fn prune_trays(&mut self) -> Vec<Party> {
        let (is_bound, all) = (self.bound.is_some(), &self.all);
        self.trays.prune(|party| match party {
            Party::Agent => is_bound,
            Party::Device(id) => all.iter().any(|one| one.id() == id && one.is_admitted()),
        })
    }

    pub(super) fn of_mut(&mut self, connection: C) -> Option<&mut Device<C>> {
        self.all.iter_mut().find(|one| one.connection == Some(connection))
    }

    /// An agent joins with this key, or without one. What becomes of those whom the one before it let in.
    pub(super) fn seat_agent(&mut self, key: Option<KeyHash>) -> Result<Vec<Effect<C>>, NotAdmitted> {
        if self.bound.as_ref().is_some_and(|bound| key != Some(bound.agent)) {
            return Err(NotAdmitted::OtherAgent);
        }
        let effects = self.agent_left();
        self.agent = key;
        if self.is_agents() {
            self.agent_drain = Drain::of_new(&self.trays, Party::Agent, self.mail);
        }
        Ok(effects)
    }

    /// The agent has left, and its invites with it.
    pub(super) fn agent_left(&mut self) -> Vec<Effect<C>> {
        self.agent = None;
        self.agent_drain = Drain::default();
        self.invites.clear();
        self.remove_where(|one| !one.is_admitted(), Farewell::NotNow)
    }

    /// A phone joins with this; its agent is there since then. The device that it is, or none: the plain phone.
    pub(super) fn seat_phone(
        &mut self,
        now: Duration,
        shown: Option<Credential>,
        agent_since: Option<Duration>,
    ) -> Result<Option<&mut Device<C>>, NotAdmitted> {
        let Some(Bound { legacy_phone, .. }) = self.bound else { return Ok(None) };
        self.forget_expired(now);
        let Some(Credential { key, invite }) = shown else {
            return if legacy_phone { Ok(None) } else { Err(NotAdmitted::NoPlainPhone) };
        };
        if let Some(place) = self.all.iter().position(|one| one.key == key) {
            return Ok(self.all.get_mut(place));
        }
        let Some(invite) = invite else { return Err(NotAdmitted::LinkUsed) };
        let Some(open) = self.invites.iter().position(|one| one.hash == invite) else {
            let may_be_open = agent_since.is_none_or(|since| now < since + INVITES_GRACE);
            return Err(if may_be_open { NotAdmitted::AgentAway } else { NotAdmitted::LinkUsed });
        };
        // In the mailbox that number is the agent's.
        if self.find(key.device()).is_some() || key.device() == DeviceId(0) {
            return Err(NotAdmitted::IdTaken);
        }
        self.invites.swap_remove(open);
        self.all.push(Device::new(key, Standing::Pending { invite, until: now + PENDING_MAX }));
        Ok(self.all.last_mut())
    }

    /// A device has another connection; the one that it had, and whether its agent had heard of that.
    pub(super) fn connect(&mut self, device: DeviceId, connection: C) -> (Option<C>, bool) {
        let Some(place) = self.find(device) else { return (None, false) };
        let one = &mut self.all[place];
        let was_present = one.is_present();
        one.asleep = false;
        if one.is_admitted() {
            one.drain = Drain::of_new(&self.trays, Party::Device(device), self.mail);
        }
        (one.connection.replace(connection), was_present)
    }

    /// A connection of a device has ended. What its agent is to be told.
    pub(super) fn leave(&mut self, connection: C) -> Option<RelayMessage<'static>> {
        let device = self.of_mut(connection)?;
        let is_news = device.is_present() || !device.is_admitted();
        device.connection = None;
        device.asleep = false;
        device.drain = Drain::default();
        is_news.then(|| device.news())
    }

    /// What somebody is told of the mailbox.
    pub(super) fn mail_view(&self, of: Party, limits: MailboxLimits) -> Option<MailView> {
        let waiting = match self.mail {
            MailState::Off => return None,
            MailState::Loading => None,
            MailState::Ready => Some(self.trays.waiting(of)),
        };
        Some(MailView { waiting, limits })
    }

    /// What `auth.ok` says to an agent that has shown a key.
    pub(super) fn agent_ext(&self, mail: Option<MailView>) -> Ext {
        let admitted = self.all.iter().filter(|device| device.is_admitted());
        let view = |device: &Device<C>| DeviceView {
            device: device.id(),
            online: device.is_present(),
            mail: mail.and_then(|mail| mail.waiting).map(|_| self.trays.waiting(Party::Device(device.id())).messages),
        };
        Ext::Agent {
            bound: self.is_agents(),
            legacy_phone: self.legacy_phone().unwrap_or(true),
            devices: admitted.map(view).collect(),
            mail,
        }
    }

    /// Opens an invite for so long, or withdraws it.
    fn invite(&mut self, now: Duration, hash: InviteHash, ttl: Option<Duration>) -> Result<(), Refusal> {
        self.forget_expired(now);
        let is_used = |one: &Device<C>| matches!(one.standing, Standing::Pending { invite, .. } if invite == hash);
        if ttl == Some(Duration::ZERO) {
            self.invites.retain(|one| one.hash != hash);
            return Ok(());
        }
        if self.all.iter().any(is_used) {
            return Ok(());
        }
        let until = ttl.map(|ttl| now + ttl);
        if let Some(open) = self.invites.iter_mut().find(|one| one.hash == hash) {
            open.until = until;
            return Ok(());
        }
        let used = self.all.iter().filter(|one| !one.is_admitted()).count();
        if self.invites.len() + used >= INVITES_MAX {
            return Err(Refusal::new(ErrorCode::InvitesFull, "the token has five open invites already"));
        }
        self.invites.push(Invite { hash, until });
        Ok(())
    }

    /// Forgets what nobody can come with any more. Who is connected stays until [`Devices::expire`].
    fn forget_expired(&mut self, now: Duration) {
        self.invites.retain(|one| one.is_open(now));
        self.all.retain(|one| one.connection.is_some() || !one.is_expired(now));
    }

    /// Sends those away that have waited for their admission for too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Effect<C>> {
        self.invites.retain(|one| one.is_open(now));
        self.remove_where(|one| one.is_expired(now), Farewell::Revoked)
    }

    /// A device is not to be admitted.
    pub(super) fn drop_pending(&mut self, device: DeviceId) -> Vec<Effect<C>> {
        self.remove_where(|one| one.id() == device && !one.is_admitted(), Farewell::Revoked)
    }

    fn remove_where(&mut self, is_gone: impl Fn(&Device<C>) -> bool, farewell: Farewell) -> Vec<Effect<C>> {
        let gone = self.all.extract_if(.., |one| is_gone(one));
        gone.filter_map(|one| Some(Effect::Close(one.connection?, farewell))).collect()
    }

    /// The token is bound so, or not at all. What its devices are told, and then the agent.
    pub(super) fn set_binding(
        &mut self,
        binding: Option<Binding>,
        limits: MailboxLimits,
    ) -> (Vec<Effect<C>>, Vec<RelayMessage<'static>>) {
        let Some(Binding { agent, legacy_phone, devices }) = binding else {
            self.bound = None;
            self.invites.clear();
            return (self.remove_where(|_| true, Farewell::Revoked), Vec::new());
        };
        self.bound = Some(Bound { agent, legacy_phone });
        let is_gone = |one: &Device<C>| one.is_admitted() && !devices.contains(&one.key);
        let mut news: Vec<_> = self
            .all
            .iter()
            .filter(|one| is_gone(one) && one.is_present())
            .map(|one| RelayMessage::Device { device: one.id(), online: false })
            .collect();
        let mut effects = self.remove_where(is_gone, Farewell::Revoked);
        for key in devices {
            let mail = self.mail_view(Party::Device(key.device()), limits);
            match self.all.iter_mut().find(|one| one.key == key) {
                Some(device) if device.is_admitted() => {}
                Some(device) => {
                    device.standing = Standing::Admitted;
                    effects.extend(
                        device.connection.map(|it| Effect::Tell(it, RelayMessage::Admitted { mail, push: None })),
                    );
                    news.extend(device.connection.map(|_| device.news()));
                }
                None => self.all.push(Device::new(key, Standing::Admitted)),
            }
        }
        (effects, news)
    }
}

/// What comes of an order.
pub(super) enum Step {
    /// Nothing more.
    Done,
    /// The agent is to be told.
    Tell(RelayMessage<'static>),
    /// It has to be written down first.
    Store(Change),
    /// So much of what has waited need not be kept any more.
    Confirmed(Confirmed),
}

impl<C: Copy + PartialEq> Devices<C> {
    /// Carries out what the agent asks for.
    pub(super) fn handle_agents_order(
        &mut self,
        now: Duration,
        rate: Option<&Rate>,
        order: &Order,
    ) -> Result<Step, Refusal> {
        // Without a key it is no agent of this kind, and its orders are messages like others.
        let Some(agent) = self.agent else { return Ok(Step::Done) };
        if let &Order::MailAck { upto } = order
            && let Some(confirmed) = self.agent_drain.confirm(&mut self.trays, Party::Agent, upto)
        {
            return Ok(Step::Confirmed(confirmed));
        }
        try_order(&mut self.orders, now, rate)?;
        if let &Order::Bind { legacy_phone } = order {
            let is_done = self.is_agents() && self.legacy_phone() == Some(legacy_phone);
            return Ok(if is_done { Step::Done } else { Step::Store(Change::Bind { agent, legacy_phone }) });
        }
        if !self.is_agents() {
            return Err(invalid("the token is not bound to this agent's key: send relay.bind first"));
        }
        match order {
            &Order::Invite { invite, ttl } => self.invite(now, invite, ttl).map(|()| Step::Done),
            Order::Admit { device, label } => {
                let key = self.get_mut(*device).ok_or_else(unknown)?.key;
                Ok(Step::Store(Change::Admit { key, label: label.clone() }))
            }
            // Also of one that is gone: repeated, it is as good as done.
            &Order::Revoke { device } => Ok(Step::Store(Change::Revoke(device))),
            &Order::Park { device } => {
                if !self.get_mut(device).is_some_and(|device| device.is_admitted()) {
                    return Err(unknown());
                }
                self.set_asleep(device, true);
                Ok(Step::Done)
            }
            Order::MailAck { .. } => Ok(Step::Done),
            Order::Bind { .. } | Order::Sleep | Order::Awake | Order::Push(_) => {
                Err(invalid("only a device may ask for this"))
            }
        }
    }

    /// Carries out what a device asks for.
    pub(super) fn handle_devices_order(
        &mut self,
        now: Duration,
        rate: Option<&Rate>,
        from: C,
        order: &Order,
    ) -> Result<Step, Refusal> {
        let device = self.all.iter_mut().find(|one| one.connection == Some(from)).ok_or_else(unknown)?;
        if !device.is_admitted() {
            return Err(invalid(NOT_ADMITTED));
        }
        if let &Order::MailAck { upto } = order
            && let Some(confirmed) = device.drain.confirm(&mut self.trays, Party::Device(device.id()), upto)
        {
            return Ok(Step::Confirmed(confirmed));
        }
        try_order(&mut device.orders, now, rate)?;
        let asleep = match order {
            Order::Sleep => true,
            Order::Awake => false,
            Order::MailAck { .. } => return Ok(Step::Done),
            Order::Push(payload) => {
                return Ok(Step::Store(Change::Push { device: device.id(), payload: payload.clone() }));
            }
            _ => return Err(invalid("only the token's agent may ask for this")),
        };
        Ok(if device.set_asleep(asleep, &self.trays) { Step::Tell(device.news()) } else { Step::Done })
    }
}

fn try_order(bucket: &mut Bucket, now: Duration, rate: Option<&Rate>) -> Result<(), Refusal> {
    let text = "messages for the relay itself are limited to 60 a minute";
    rates::try_take(bucket, now, rate).map_err(|wait| Refusal::later(ErrorCode::RateLimited, text, wait))
}

fn unknown() -> Refusal {
    Refusal::new(ErrorCode::DeviceUnknown, "the token has no such device")
}

/// Which way a message goes.
pub(super) struct Route<'a, C> {
    pub(super) rates: &'a mut Rates,
    /// `None`: whom it is for is not there.
    pub(super) to: Option<C>,
    /// The device that it shows not to sleep.
    pub(super) wakes: Option<DeviceId>,
}

/// The way of a message in a session with devices. `plain`: that of one without.
///
/// # Errors
/// The sender may not send it, or nobody has the name that it names.
pub(super) fn route<'a, C: Copy + PartialEq>(
    devices: &'a mut Devices<C>,
    from: &Member<C>,
    heard: Heard,
    plain: Route<'a, C>,
) -> Result<Route<'a, C>, Refusal> {
    let only_enrols = |device: &Device<C>| !device.is_admitted() && heard.kind != Kind::KeyExchange;
    let agent_drains = devices.agent_drain.is_on();
    match (from.role, heard.device) {
        (Role::Phone, named) if from.is_device() => {
            // One that has been replaced or revoked, and is on its way out.
            let Some(device) = devices.of_mut(from.connection) else { return Ok(Route { to: None, ..plain }) };
            if named != Some(Named::Id(device.id())) {
                return Err(invalid("a device has to name itself, and nobody else, in device"));
            }
            if only_enrols(device) {
                return Err(invalid(NOT_ADMITTED));
            }
            let wakes = device.asleep.then(|| device.id());
            Ok(Route { rates: &mut device.rates, to: plain.to.filter(|_| !agent_drains), wakes })
        }
        // Whoever names a device is one to the agent.
        (Role::Phone, Some(_)) if devices.is_bound() => {
            Err(invalid("this connection is no device, and cannot name one in device"))
        }
        (Role::Agent, Some(Named::Id(id))) if devices.agent.is_some() => {
            let device = devices.get_mut(id).ok_or_else(unknown)?;
            if only_enrols(device) {
                return Err(invalid("the device is not admitted: nothing but key_exchange passes"));
            }
            let to = device.awake().filter(|_| !device.drain.is_on());
            Ok(Route { rates: &mut device.rates, to, wakes: None })
        }
        (Role::Agent, Some(Named::Repeated)) if devices.agent.is_some() => {
            Err(invalid("the message has more than one device"))
        }
        (Role::Agent, Some(Named::Other)) if devices.agent.is_some() => Err(unknown()),
        _ => Ok(plain),
    }
}

fn invalid(text: &'static str) -> Refusal {
    Refusal::new(ErrorCode::InvalidMessage, text)
}
