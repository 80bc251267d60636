//! The session state machine: who is there, what may pass, what is used up.

use crate::devices::{self, Devices, Route, Step};
use crate::effect::{Change, Effect, Farewell, NotAdmitted, Ordered, Refusal};
use crate::heard::Heard;
use crate::mail::over_quota;
use crate::members::{Member, Members, Presence};
use crate::message::{ErrorCode, Ext, RelayMessage, Welcome};
use crate::order::Order;
use crate::policy::Policy;
use crate::proto::bucket::Bucket;
use crate::proto::device::{Binding, Credential, DeviceId};
use crate::proto::envelope::{Kind, Named};
use crate::proto::quota::Used;
use crate::proto::token::{ByRole, Role};
use crate::rates::{self, Early, Rates};
use crate::shelf::{MailState, Party};
use std::rc::Rc;
use std::time::Duration;

/// What a token's connections share. `C` names a connection to the layer that owns them: one of its sockets, or anything
/// else that takes messages.
#[derive(Debug)]
pub struct Session<C> {
    pub(super) members: Members<C>,
    /// Of the agent and the phone that is no device.
    rates: Rates,
    /// What the relay answers itself, but to devices.
    answers: ByRole<Bucket>,
    /// There only where the token is bound, or its agent has shown a key.
    pub(super) devices: Option<Box<Devices<C>>>,
    pub(super) used: Used,
    /// Bytes forwarded since [`Session::take_unreported`].
    pub(super) unreported_bytes: u64,
    pub(super) policy: Rc<Policy>,
}

/// What has become of a connection that has joined.
#[derive(Debug)]
pub struct Joined<C> {
    /// Whom it replaces, and who has to come again. They are to be carried out before it is told.
    pub gone: Vec<Effect<C>>,
    /// What it is told.
    pub welcome: Welcome,
    /// Who hears of it, after that.
    pub told: Vec<Effect<C>>,
    /// The device that it is.
    pub device: Option<DeviceId>,
    /// Until then it has to be admitted: see [`Session::expire`].
    pub pending_until: Option<Duration>,
}

impl<C: Copy + PartialEq> Session<C> {
    /// A session that nobody has joined, with what its token used before.
    #[must_use]
    pub fn new(policy: Rc<Policy>, used: Used) -> Self {
        Self {
            members: Members::default(),
            rates: Rates::default(),
            answers: Default::default(),
            devices: None,
            used,
            unreported_bytes: 0,
            policy,
        }
    }

    /// Who is there.
    #[must_use]
    pub fn presence(&self) -> Presence {
        self.members.presence()
    }

    /// A connection that has joined and has not left, whether it has been replaced or not.
    #[must_use]
    pub fn member(&self, connection: C) -> Option<&Member<C>> {
        self.members.get(connection)
    }

    /// The connections of a role, devices among them.
    pub fn connections(&self, role: Role) -> impl Iterator<Item = C> {
        self.members.of(role).map(|member| member.connection)
    }

    /// The limits in force.
    #[must_use]
    pub fn policy(&self) -> &Rc<Policy> {
        &self.policy
    }

    /// Puts other limits in force, from the next message on.
    pub fn set_policy(&mut self, policy: Rc<Policy>) {
        self.policy = policy;
    }

    /// What is used up, in the windows of `unix_ms`.
    #[must_use]
    pub fn used(&mut self, unix_ms: u64) -> Used {
        self.used.roll(unix_ms);
        self.used
    }

    /// Bytes forwarded since the last call.
    pub fn take_unreported(&mut self) -> u64 {
        std::mem::take(&mut self.unreported_bytes)
    }

    /// Gives back what [`Session::take_unreported`] took, when it could not be reported.
    pub fn put_back_unreported(&mut self, bytes: u64) {
        self.unreported_bytes += bytes;
    }

    /// A connection has authenticated, at `unix_ms`, with this beside its token. It replaces the connection that has its role,
    /// or is the same device.
    ///
    /// # Errors
    /// The token is bound, and not to what it has shown.
    pub fn join(
        &mut self,
        mut member: Member<C>,
        shown: Option<Credential>,
        unix_ms: u64,
    ) -> Result<Joined<C>, NotAdmitted> {
        let Member { connection, role, ext, since, mail, .. } = member;
        let mut gone = Vec::new();
        if let Some(devices) = &mut self.devices {
            devices.mail = mail;
        }
        let mut was_heard = self.agent_is_heard();
        let seat = self.seat((since, mail), role, shown, &mut gone)?;
        if let Some((device, _)) = seat {
            member.set_device();
            let connect = |devices: &mut Box<Devices<C>>| devices.connect(device, connection);
            let (before, was_present) = self.devices.as_mut().map_or((None, false), connect);
            was_heard = was_present;
            if let Some(replaced) = before.and_then(|it| self.members.get_mut(it)) {
                replaced.set_replaced();
                gone.push(Effect::Close(replaced.connection, Farewell::Replaced));
            }
        } else {
            for replaced in self.members.plain_mut(role) {
                replaced.set_replaced();
                gone.push(Effect::Close(replaced.connection, Farewell::Replaced));
            }
        }
        self.members.insert(member);
        let daily_quota_bytes = self.policy.limits.daily_quota_bytes;
        let daily_used_bytes = self.used(unix_ms).day_bytes;
        let paired = match seat {
            Some(_) => self.agent_is_heard(),
            None => self.members.plain(role.peer()).next().is_some(),
        };
        let party = seat.map_or(Party::Agent, |(device, _)| Party::Device(device));
        let mail = self.mail_view(party);
        let ext = match (role, seat, &self.devices) {
            _ if !ext => Ext::No,
            (_, Some((device, until)), _) => {
                let mail = mail.filter(|_| until.is_none());
                Ext::Device { device, pending: until.is_some(), mail, push: None }
            }
            (Role::Agent, None, Some(devices)) if shown.is_some() => devices.agent_ext(mail),
            _ if shown.is_some() => Ext::Legacy,
            _ => Ext::Plain,
        };
        // The peer learns of the newcomer before anything of the newcomer can reach it, and its own next key exchange
        // cannot overtake the newcomer's auth.ok, which is queued here and now (wire contract, Order).
        let welcome = Welcome { paired, daily_quota_bytes, daily_used_bytes, ext };
        let drains = self.drains(party);
        let online = !drains;
        let mut told: Vec<_> = match seat {
            Some((device, Some(_))) => self.tell(Role::Agent, RelayMessage::Pending { device }).collect(),
            Some((device, None)) if !drains || was_heard => {
                self.tell(Role::Agent, RelayMessage::Device { device, online }).collect()
            }
            Some(_) => Vec::new(),
            None if role == Role::Agent && drains => {
                let plain = self.members.plain(Role::Phone).map(|member| member.connection);
                let mut told: Vec<_> =
                    plain.map(|it| Effect::Tell(it, RelayMessage::Status { online: true })).collect();
                if was_heard {
                    told.extend(self.tell_devices(RelayMessage::Status { online: false }));
                }
                told
            }
            None => self.tell(role.peer(), RelayMessage::Status { online: true }).collect(),
        };
        if seat.is_some() || role == Role::Agent {
            told.extend(self.poll_lost(party, connection));
        }
        let (device, pending_until) = seat.map_or((None, None), |(device, until)| (Some(device), until));
        Ok(Joined { gone, welcome, told, device, pending_until })
    }

    /// Whether a newcomer may have a place, and which: that of a device, until when where it is not admitted, or that of
    /// its role.
    fn seat(
        &mut self,
        (now, mail): (Duration, MailState),
        role: Role,
        shown: Option<Credential>,
        effects: &mut Vec<Effect<C>>,
    ) -> Result<Option<(DeviceId, Option<Duration>)>, NotAdmitted> {
        let agent_since = self.members.plain(Role::Agent).next().map(|agent| agent.since);
        match (role, &mut self.devices) {
            (Role::Agent, devices) => {
                let key = shown.map(|shown| shown.key);
                if key.is_some() || devices.is_some() {
                    let devices = devices.get_or_insert_with(|| Box::new(Devices::unbound(mail)));
                    *effects = devices.seat_agent(key)?;
                    self.dismiss(effects);
                }
                Ok(None)
            }
            (Role::Phone, Some(devices)) => {
                let device = devices.seat_phone(now, shown, agent_since)?;
                Ok(device.map(|device| (device.id(), device.pending_until())))
            }
            (Role::Phone, None) => Ok(None),
        }
    }

    /// A connection has ended. Nobody is told of one that has been replaced, or has not joined.
    #[must_use = "they are to be carried out"]
    pub fn leave(&mut self, connection: C) -> Vec<Effect<C>> {
        let left = self.members.remove(connection).filter(|member| !member.is_replaced());
        let Some(member) = left else { return Vec::new() };
        let role = member.role;
        if member.is_device() {
            let news = self.devices.as_mut().and_then(|devices| devices.leave(connection));
            return news.into_iter().flat_map(|news| self.tell(Role::Agent, news)).collect();
        }
        if self.members.plain(role).next().is_some() {
            return Vec::new();
        }
        let is_heard = !self.drains(Party::Agent);
        let gone = if role == Role::Agent { self.agent_left() } else { Vec::new() };
        let offline = RelayMessage::Status { online: false };
        let hears = |member: &&Member<C>| is_heard || !member.is_device();
        let told = self.members.of(role.peer()).filter(hears).map(|member| Effect::Tell(member.connection, offline));
        gone.into_iter().chain(told).collect()
    }

    /// Whether the agent is there, for devices.
    fn agent_is_heard(&self) -> bool {
        self.members.plain(Role::Agent).next().is_some() && !self.drains(Party::Agent)
    }

    fn agent_left(&mut self) -> Vec<Effect<C>> {
        let gone = match &mut self.devices {
            Some(devices) if devices.is_bound() || !devices.trays.is_empty() => devices.agent_left(),
            devices => {
                *devices = None;
                Vec::new()
            }
        };
        self.dismiss(&gone);
        gone
    }

    /// Nothing is for a device any more that is to be closed.
    fn dismiss(&mut self, gone: &[Effect<C>]) {
        for effect in gone {
            if let &Effect::Close(connection, _) = effect
                && let Some(member) = self.members.get_mut(connection)
            {
                member.set_replaced();
            }
        }
    }

    /// The token admits no more.
    #[must_use = "they are to be carried out"]
    pub fn revoke(&self) -> Vec<Effect<C>> {
        self.members.iter().map(|member| Effect::Close(member.connection, Farewell::Revoked)).collect()
    }

    pub(super) fn tell(&self, role: Role, message: RelayMessage<'static>) -> impl Iterator<Item = Effect<C>> {
        self.members.of(role).map(move |member| Effect::Tell(member.connection, message))
    }

    /// Whom the token admits from now on. Who is there and is not among them is sent away.
    #[must_use = "they are to be carried out"]
    pub fn set_binding(&mut self, binding: Option<Binding>) -> Vec<Effect<C>> {
        if binding.is_none() && self.devices.is_none() {
            return Vec::new();
        }
        let devices = self.devices.get_or_insert_with(|| Box::new(Devices::unbound(MailState::Off)));
        let (mut effects, news) = devices.set_binding(binding, self.policy.limits.mailbox);
        let (agent_stays, phone_stays) =
            (!devices.is_bound() || devices.is_agents(), devices.legacy_phone().unwrap_or(true));
        self.dismiss(&effects);
        for news in news {
            effects.extend(self.tell(Role::Agent, news));
        }
        if !agent_stays {
            effects.extend(self.send_away(Role::Agent));
        }
        if !phone_stays {
            effects.extend(self.send_away(Role::Phone));
        }
        if self.members.plain(Role::Agent).next().is_none() {
            effects.extend(self.agent_left());
        }
        effects
    }

    fn send_away(&self, role: Role) -> impl Iterator<Item = Effect<C>> {
        self.members.plain(role).map(|member| Effect::Close(member.connection, Farewell::Revoked))
    }

    /// Whether messages of a member name devices, and those that begin with `relay.` are for the relay: it is a device, or an
    /// agent that has shown a key.
    #[must_use]
    pub fn names_devices(&self, connection: C) -> bool {
        let Some((member, devices)) = self.members.get(connection).zip(self.devices.as_ref()) else { return false };
        devices.takes_orders(member)
    }

    /// The device that a connection is, admitted or not.
    #[must_use]
    pub fn device(&self, connection: C) -> Option<DeviceId> {
        let mut all = self.devices.iter().flat_map(|devices| devices.iter());
        all.find(|device| device.is_on(connection)).map(|device| device.id())
    }

    /// The devices that are admitted, and whether each is connected.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceId, bool)> {
        let all = self.devices.iter().flat_map(|devices| devices.iter());
        all.filter(|device| device.is_admitted()).map(|device| (device.id(), device.is_connected()))
    }

    /// All devices, those among them that are not admitted.
    #[cfg(test)]
    pub(super) fn all_devices(&self) -> impl Iterator<Item = DeviceId> {
        self.devices.iter().flat_map(|devices| devices.iter()).map(|device| device.id())
    }

    /// Sends those devices away that have waited for their admission for too long.
    #[must_use = "they are to be carried out"]
    pub fn expire(&mut self, now: Duration) -> Vec<Effect<C>> {
        let gone = self.devices.as_mut().map_or_else(Vec::new, |devices| devices.expire(now));
        self.dismiss(&gone);
        gone
    }

    /// Decides on a message for the relay itself: [`Effect::Order`].
    #[must_use = "it is to be carried out"]
    pub fn handle_order(&mut self, now: Duration, from: C, order: &Order) -> Ordered<C> {
        let Some(member) = self.members.get(from) else { return Ordered::Done(Vec::new()) };
        let (role, is_device) = (member.role, member.is_device());
        let rate = self.policy.order_rate();
        let devices = self.devices.as_deref_mut();
        let step = match (role, devices) {
            (Role::Agent, Some(devices)) => devices.handle_agents_order(now, rate, order),
            (Role::Phone, Some(devices)) if is_device => devices.handle_devices_order(now, rate, from, order),
            _ => Ok(Step::Done),
        };
        match step {
            Ok(Step::Done) => Ordered::Done(Vec::new()),
            Ok(Step::Tell(news)) => Ordered::Done(self.tell(Role::Agent, news).collect()),
            Ok(Step::Store(change)) => Ordered::Store(change),
            Ok(Step::Confirmed(confirmed)) => Ordered::Confirmed(confirmed),
            Err(refusal) => Ordered::Refused(refusal),
        }
    }

    /// What an order has changed is on the disk, and whom the token admits is known here.
    #[must_use = "they are to be carried out"]
    pub fn handle_stored(&mut self, change: &Change) -> Vec<Effect<C>> {
        let gone = match (change, &mut self.devices) {
            (&Change::Revoke(device), Some(devices)) => devices.drop_pending(device),
            _ => Vec::new(),
        };
        self.dismiss(&gone);
        gone
    }

    /// A member has made the relay answer something, or take a sign of life.
    ///
    /// # Errors
    /// It does so too often: how long it is not to be read.
    pub fn charge_answer(&mut self, now: Duration, from: C) -> Result<(), Duration> {
        let Some(member) = self.members.get(from) else { return Ok(()) };
        let (role, is_device) = (member.role, member.is_device());
        let device = self.devices.as_mut().filter(|_| is_device).and_then(|devices| devices.of_mut(from));
        let bucket = device.map_or(&mut self.answers[role], |device| &mut device.answers);
        rates::try_take(bucket, now, self.policy.answer_rate())
    }

    /// Decides on a message of a member; `now` is monotonic, `unix_ms` the wall clock.
    #[must_use = "it is to be carried out"]
    pub fn handle_message(&mut self, now: Duration, unix_ms: u64, from: C, heard: Heard) -> Effect<C> {
        let members = self.members.as_mut_slice();
        let Some(place) = members.iter().position(|member| member.connection == from) else { return Effect::Nothing };
        let Member { role, ext, .. } = members[place];
        match heard.kind {
            Kind::Ping => return Effect::Tell(from, RelayMessage::Pong),
            Kind::Pong => return Effect::Nothing,
            Kind::Auth | Kind::AuthReserved | Kind::Status => {
                let text = match heard.kind {
                    Kind::Auth => "this connection has authenticated already",
                    _ => "this type is reserved for the relay",
                };
                return Effect::Refuse(Refusal::new(ErrorCode::InvalidMessage, text));
            }
            Kind::Relay if self.devices.as_ref().is_some_and(|it| it.takes_orders(&members[place])) => {
                return Effect::Order;
            }
            Kind::Stream | Kind::Done if role == Role::Phone => {
                let text = "a phone may not send chat.stream or chat.done";
                return Effect::Refuse(Refusal::new(ErrorCode::InvalidMessage, text));
            }
            Kind::Stream | Kind::Done | Kind::Ack | Kind::KeyExchange | Kind::Relay | Kind::Other => {}
        }
        let policy = &*self.policy;
        let to = members.iter().find(|member| member.takes(role.peer())).map(|member| member.connection);
        let mut route = Route { rates: &mut self.rates, to, wakes: None };
        if let Some(devices) = self.devices.as_deref_mut() {
            route = match devices::route(devices, &members[place], heard, route) {
                Ok(route) => route,
                Err(refusal) => return Effect::Refuse(refusal),
            };
        }
        let Route { rates, to, wakes } = route;
        match rates.try_take(now, policy, (role, ext), heard) {
            Ok(()) => {}
            Err(Early::Waits(wait)) => return Effect::Later(wait),
            Err(Early::Refused(wait)) => {
                let text = match role {
                    Role::Phone => "the phone's messages a minute are used up",
                    Role::Agent => "the agent's messages a minute are used up",
                };
                return Effect::Refuse(Refusal::later(ErrorCode::RateLimited, text, wait));
            }
        }
        let Some(to) = to else {
            let text = match (role, heard.device) {
                (Role::Phone, _) => "the agent is not connected",
                (Role::Agent, None) => "the phone is not connected",
                (Role::Agent, Some(_)) => "the device is not connected",
            };
            let refusal = Refusal::new(ErrorCode::PeerOffline, text);
            let may_wait = members[place].is_device() || matches!(heard.device, Some(Named::Id(_)));
            return match heard.kind {
                Kind::Done | Kind::Other if may_wait => Effect::Keep(refusal),
                _ => Effect::Refuse(refusal),
            };
        };
        let Policy { limits, .. } = policy;
        match self.used.try_charge(unix_ms, heard.bytes, limits.daily_quota_bytes, limits.monthly_quota_bytes) {
            Ok(()) => {
                self.unreported_bytes += heard.bytes;
                let member = &mut members[place];
                member.messages += 1;
                member.bytes += heard.bytes;
                match wakes {
                    None => Effect::Forward(to),
                    Some(device) => self.wake(to, device),
                }
            }
            Err(exceeded) => Effect::Refuse(over_quota(exceeded)),
        }
    }

    #[cold]
    fn wake(&mut self, to: C, device: DeviceId) -> Effect<C> {
        let is_news = self.devices.as_mut().and_then(|devices| devices.set_asleep(device, false));
        Effect::Wake(to, is_news.unwrap_or(false).then_some(device))
    }
}
