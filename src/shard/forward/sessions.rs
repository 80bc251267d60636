//! The tokens that a shard owns, their sessions, and what becomes of those that all have left.
//!
//! It does nothing to connections: what is to be done is returned.

mod trays;

use crate::control::message::Usage;
use crate::directory::{Bound, Directory, Slot, TokenEntry};
use crate::proto::bucket::{Bucket, Rate};
use crate::proto::device::{Credential, DeviceId};
use crate::proto::limits::{Limits, LimitsOverride};
use crate::proto::quota::{Used, day_of};
use crate::proto::token::{Role, TokenKey};
use crate::push::PushState;
use crate::ring::Conn;
use crate::session::message::Welcome;
use crate::session::policy::Policy;
use crate::session::{
    Change as DeviceChange, Effect, Heard, Joined, MailState, Member, NotAdmitted, Order, Ordered, Presence, Session,
    Trays,
};
use crate::shard::bounds::{JOINS_BURST, JOINS_PER_SECOND, LINGER, REPLACED_LINGERING};
use crate::shard::net::connection::{NONE, Seat};
use crate::shard::pulse::Pulse;
use crate::shelf::Mailbox;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a session that all have left keeps its rates: a bucket is full again after at most a minute.
const KEPT_AFTER_LEAVING: Duration = Duration::from_secs(61);

/// The tokens that a shard owns, and the sessions that live.
pub(in crate::shard) struct Sessions {
    directory: Arc<Directory>,
    /// The policy of tokens without limits of their own.
    policy: Rc<Policy>,
    by_key: HashMap<TokenKey, Token, BuildHasherDefault<KeyHasher>>,
    all: Slab<Live>,
    /// Sessions that all have left, and the tick at which they may be forgotten, in that order.
    empty: VecDeque<(u32, u32)>,
    /// Sessions with bytes that have not been reported.
    used: Vec<u32>,
    /// Devices that have connected for the first time on a day, which has not been reported.
    seen: Vec<(TokenKey, DeviceId)>,
    /// Sessions with devices that wait for their admission, and until when.
    pending: Vec<(Duration, u32)>,
    /// What is known of the mailbox.
    mail: MailState,
    /// What waits for tokens without a session.
    trays: HashMap<TokenKey, Trays, BuildHasherDefault<KeyHasher>>,
}

struct Token {
    slot: Slot,
    /// Index of its session; [`NONE`] while it has none.
    session: u32,
}

/// A session that lives on this shard.
pub(super) struct Live {
    session: Session<Conn>,
    key: TokenKey,
    slot: Slot,
    /// It stands on the list of those with unreported bytes.
    noted: bool,
    /// The tick at which it may be forgotten, if nobody has come back; [`NONE`] while somebody is there.
    forget_at: u32,
    /// How often connections may be replaced and linger.
    replacements: Bucket,
    /// How often connections may authenticate.
    joins: Bucket,
}

/// What became of a connection that is to join the session of its token.
pub(super) enum Joining {
    /// The token is unknown, revoked or expired.
    Unknown,
    /// The token is bound, and not to what it has shown.
    NotAdmitted(NotAdmitted),
    /// It authenticates too often.
    TooOften,
    /// It has a seat. What is `gone` with it is to be carried out, then it is told, and then others are.
    Joined { seat: Seat, change: Change, gone: Vec<Effect<Conn>>, welcome: Welcome },
}

/// What somebody's coming or going has changed.
pub(super) struct Change {
    pub(super) before: Presence,
    pub(super) after: Presence,
    /// They are to be carried out.
    pub(super) effects: Vec<Effect<Conn>>,
    /// Whether it is a device's.
    pub(super) is_device: bool,
}

impl Live {
    /// Puts it, which stands at `index`, on the list of those with bytes that are not reported, once.
    fn note(&mut self, index: u32, used: &mut Vec<u32>) {
        if !std::mem::replace(&mut self.noted, true) {
            used.push(index);
        }
    }
}

impl Sessions {
    pub(in crate::shard) fn new(directory: Arc<Directory>, limits: Limits, mailbox: Option<&Mailbox>) -> Self {
        Self {
            directory,
            policy: Rc::new(Policy::new(limits)),
            by_key: HashMap::default(),
            all: Slab::new(),
            empty: VecDeque::new(),
            used: Vec::new(),
            seen: Vec::new(),
            pending: Vec::new(),
            mail: trays::state_of(mailbox),
            trays: HashMap::default(),
        }
    }

    pub(super) fn at(&self, session: u32) -> Option<&Live> {
        self.all.get(session as usize)
    }

    pub(super) fn at_mut(&mut self, session: u32) -> Option<&mut Live> {
        self.all.get_mut(session as usize)
    }

    /// Whether a token is one of them.
    pub(in crate::shard) fn knows(&self, key: TokenKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Who has a seat, and in the session of which token.
    pub(in crate::shard) fn member(&self, seat: Seat, conn: Conn) -> Option<(TokenKey, &Member<Conn>)> {
        let live = self.at(seat.session)?;
        Some((live.key, live.session.member(conn)?))
    }

    /// The connections that messages from this seat are for.
    pub(in crate::shard) fn peers(&self, seat: Seat) -> impl Iterator<Item = Conn> {
        self.at(seat.session).into_iter().flat_map(move |live| live.session.connections(seat.role.peer()))
    }

    /// The largest message that may come from this seat.
    #[inline]
    pub(super) fn message_bytes_max(&self, seat: Seat) -> u64 {
        self.at(seat.session).map_or(0, |live| live.session.policy().limits.message_bytes_max)
    }

    /// Decides on a message from this seat.
    #[inline]
    pub(super) fn handle_message(&mut self, seat: Seat, conn: Conn, heard: Heard, pulse: &Pulse) -> Effect<Conn> {
        let Some(live) = self.all.get_mut(seat.session as usize) else { return Effect::Nothing };
        let effect = live.session.handle_message(pulse.now(), pulse.unix_ms(), conn, heard);
        if let Effect::Forward(_) | Effect::Wake(..) = effect {
            live.note(seat.session, &mut self.used);
        }
        effect
    }

    /// Who has this seat has made the relay answer something, or take a sign of life.
    ///
    /// # Errors
    /// It does so too often: how long it is not to be read.
    pub(super) fn charge_answer(&mut self, seat: Seat, conn: Conn, pulse: &Pulse) -> Result<(), Duration> {
        self.at_mut(seat.session).map_or(Ok(()), |live| live.session.charge_answer(pulse.now(), conn))
    }

    /// The device that has this seat, and its token.
    pub(super) fn device(&self, seat: Seat, conn: Conn) -> Option<(TokenKey, DeviceId)> {
        let live = self.at(seat.session)?;
        Some((live.key, live.session.device(conn)?))
    }

    /// Whether a device can be woken.
    pub(super) fn push_state(&self, key: TokenKey, device: DeviceId) -> PushState {
        let entry = self.by_key.get(&key).and_then(|token| self.directory.entry(token.slot));
        let bound = entry.as_ref().and_then(|entry| entry.bound.as_deref());
        bound.and_then(|bound| bound.device(device)).map_or(PushState::None, |device| device.push())
    }

    /// Whether messages from this seat name devices.
    pub(super) fn names_devices(&self, seat: Seat, conn: Conn) -> bool {
        self.at(seat.session).is_some_and(|live| live.session.names_devices(conn))
    }

    /// Decides on a message from this seat for the relay itself. Of which token it is, where something is to be stored.
    pub(super) fn handle_order(
        &mut self,
        seat: Seat,
        conn: Conn,
        order: &Order,
        pulse: &Pulse,
    ) -> Option<(TokenKey, Ordered<Conn>)> {
        let live = self.at_mut(seat.session)?;
        Some((live.key, live.session.handle_order(pulse.now(), conn, order)))
    }

    /// What an agent or a device has asked for is on the disk, if it was done, and whom the token admits is known here. Which connection
    /// has asked, if it is still there, and what follows.
    pub(super) fn handle_changed(
        &mut self,
        key: TokenKey,
        serial: u64,
        done: Option<&DeviceChange>,
    ) -> Option<(Option<Conn>, Vec<Effect<Conn>>)> {
        let session = self.by_key.get(&key)?.session;
        let live = self.at_mut(session)?;
        let effects = done.map_or_else(Vec::new, |change| live.session.handle_stored(change));
        let asker = Role::ALL
            .into_iter()
            .flat_map(|role| live.session.connections(role))
            .find(|&conn| live.session.member(conn).is_some_and(|member| member.serial == serial));
        Some((asker, effects))
    }

    /// Sends those devices away that have waited for their admission for too long.
    #[must_use = "they are to be carried out"]
    pub(super) fn expire_pending(&mut self, pulse: &Pulse) -> Vec<Effect<Conn>> {
        let (now, mut effects) = (pulse.now(), Vec::new());
        let due: Vec<_> = self.pending.extract_if(.., |&mut (until, _)| until <= now).collect();
        for (_, session) in due {
            if let Some(live) = self.at_mut(session) {
                effects.extend(live.session.expire(now));
            }
        }
        effects
    }

    /// Takes which devices have connected for the first time on a day.
    pub(super) fn take_seen(&mut self) -> Vec<(TokenKey, DeviceId)> {
        std::mem::take(&mut self.seen)
    }

    /// Of those who are replaced again and again only a few linger at a time: whether this one may.
    pub(super) fn may_linger(&mut self, session: u32, pulse: &Pulse) -> bool {
        let rate = Rate::per(REPLACED_LINGERING, LINGER, REPLACED_LINGERING);
        match (self.at_mut(session), rate) {
            (Some(live), Some(rate)) => live.replacements.try_take(pulse.now(), &rate).is_ok(),
            _ => true,
        }
    }

    /// A connection has shown a token, and this beside it.
    pub(super) fn join(
        &mut self,
        key: TokenKey,
        member: Member<Conn>,
        shown: Option<Credential>,
        pulse: &Pulse,
    ) -> Joining {
        let (role, unix_ms) = (member.role, pulse.unix_ms());
        let unix_sec = unix_ms / 1000;
        let Some(index) = self.session_of(key, unix_sec) else { return Joining::Unknown };
        let Some(live) = self.all.get_mut(index as usize) else { return Joining::Unknown };
        let joins = Rate::per(JOINS_PER_SECOND, Duration::from_secs(1), JOINS_BURST);
        if joins.is_some_and(|rate| live.joins.try_take(pulse.now(), &rate).is_err()) {
            return Joining::TooOften;
        }
        let before = live.session.presence();
        let Joined { gone, welcome, told, device, pending_until } =
            match live.session.join(member.with_mail(self.mail), shown, unix_ms) {
                Ok(joined) => joined,
                Err(not_admitted) => {
                    // One that nobody is in is forgotten like one that all have left.
                    if before == Presence::Empty && live.forget_at == NONE {
                        live.forget_at = pulse.tick_after(KEPT_AFTER_LEAVING);
                        self.empty.push_back((live.forget_at, index));
                    }
                    return Joining::NotAdmitted(not_admitted);
                }
            };
        let after = live.session.presence();
        live.forget_at = NONE;
        self.pending.extend(pending_until.map(|until| (until, index)));
        if let Some(entry) = self.directory.entry(live.slot) {
            entry.set_online(role, Some(unix_sec as u32));
            let known = device.and_then(|device| entry.bound.as_deref()?.device(device));
            if let Some(known) = known {
                known.set_online(Some(unix_sec as u32));
                if known.see(day_of(unix_ms)) {
                    self.seen.push((key, known.key.device()));
                }
            }
        }
        let change = Change { before, after, effects: told, is_device: device.is_some() };
        Joining::Joined { seat: Seat { session: index, role }, change, gone, welcome }
    }

    /// The session of a token that admits.
    fn session_of(&mut self, key: TokenKey, unix_sec: u64) -> Option<u32> {
        let token = self.by_key.get_mut(&key)?;
        let entry = self.directory.entry(token.slot)?;
        if entry.expires_at.is_some_and(|expires_at| expires_at <= unix_sec) {
            return None;
        }
        if token.session == NONE {
            let used = Used {
                day: entry.day.load(Relaxed),
                month: entry.month.load(Relaxed),
                day_bytes: entry.day_bytes.load(Relaxed),
                month_bytes: entry.month_bytes.load(Relaxed),
            };
            let policy = policy_of(entry.limits.as_deref(), &self.policy);
            let mut session = Session::new(policy, used);
            // Nobody is there whom it could send away.
            let _ = session.set_binding(entry.bound.as_deref().map(Bound::binding));
            if let Some(trays) = self.trays.remove(&key) {
                session.put_trays(trays);
            }
            let _ = session.set_mail(self.mail);
            token.session = self.all.insert(Live {
                session,
                key,
                slot: token.slot,
                noted: false,
                forget_at: NONE,
                replacements: Bucket::default(),
                joins: Bucket::default(),
            }) as u32;
        }
        Some(token.session)
    }

    /// A connection has left its seat.
    pub(super) fn leave(&mut self, seat: Seat, conn: Conn, pulse: &Pulse) -> Option<Change> {
        let Seat { session: index, role } = seat;
        let live = self.all.get_mut(index as usize)?;
        let before = live.session.presence();
        let is_device = live.session.member(conn).is_some_and(Member::is_device);
        let effects = live.session.leave(conn);
        let after = live.session.presence();
        if let Some(entry) = self.directory.entry(live.slot) {
            if live.session.connections(role).next().is_none() {
                entry.set_online(role, None);
            }
            if let Some(bound) = entry.bound.as_deref().filter(|_| role == Role::Phone) {
                for device in bound.devices.iter().filter(|device| device.online_since().is_some()) {
                    if !live.session.devices().any(|it| it == (device.key.device(), true)) {
                        device.set_online(None);
                    }
                }
            }
        }
        if after == Presence::Empty && before != Presence::Empty {
            live.forget_at = pulse.tick_after(KEPT_AFTER_LEAVING);
            self.empty.push_back((live.forget_at, index));
        }
        Some(Change { before, after, effects, is_device })
    }

    /// A token is this shard's, or has other limits now, in a new entry.
    #[must_use = "they are to be carried out"]
    pub(super) fn admit(&mut self, key: TokenKey, slot: Slot, pulse: &Pulse) -> Vec<Effect<Conn>> {
        let token = self.by_key.entry(key).or_insert(Token { slot, session: NONE });
        token.slot = slot;
        let (Some(live), Some(entry)) = (self.all.get_mut(token.session as usize), self.directory.entry(slot)) else {
            return Vec::new();
        };
        // What was known stands in the new entry too.
        live.slot = slot;
        live.session.set_policy(policy_of(entry.limits.as_deref(), &self.policy));
        let unix_sec = pulse.unix_ms() / 1000;
        for role in Role::ALL {
            entry.set_online(role, live.session.connections(role).next().map(|_| unix_sec as u32));
        }
        write_usage(&entry, live.session.used(pulse.unix_ms()));
        let bound = entry.bound.as_deref();
        let mut effects = live.session.set_binding(bound.map(Bound::binding));
        effects.extend(live.session.set_mail(self.mail));
        for device in bound.into_iter().flat_map(|bound| &bound.devices) {
            let is_online = live.session.devices().any(|it| it == (device.key.device(), true));
            device.set_online(is_online.then(|| device.online_since().unwrap_or(unix_sec as u32)));
        }
        effects
    }

    /// A token admits no more.
    #[must_use = "they are to be carried out"]
    pub(super) fn revoke(&mut self, key: TokenKey, pulse: &Pulse) -> Vec<Effect<Conn>> {
        let Some(token) = self.by_key.remove(&key) else { return Vec::new() };
        let Some(live) = self.all.get_mut(token.session as usize) else { return Vec::new() };
        let effects = live.session.revoke();
        if effects.is_empty() {
            live.forget_at = pulse.tick();
            self.empty.push_front((live.forget_at, token.session));
        }
        effects
    }

    /// Other limits hold for the tokens without limits of their own.
    pub(in crate::shard) fn set_limits(&mut self, limits: Limits) {
        self.policy = Rc::new(Policy::new(limits));
        for (_, live) in &mut self.all {
            // Of a token that was revoked there is no entry any more, and its connections are on their way out.
            if let Some(entry) = self.directory.entry(live.slot) {
                live.session.set_policy(policy_of(entry.limits.as_deref(), &self.policy));
            }
        }
    }

    /// Forgets sessions that all left long enough ago. Their bytes are reported before they go.
    pub(in crate::shard) fn forget_empty(&mut self, pulse: &Pulse) {
        while let Some(&(forget_at, index)) = self.empty.front() {
            if forget_at > pulse.tick() {
                return;
            }
            self.empty.pop_front();
            // It lives on when somebody came back.
            let Some(live) = self.all.get_mut(index as usize).filter(|live| live.forget_at == forget_at) else {
                continue;
            };
            if live.noted {
                // Control cannot take the report now.
                live.forget_at = pulse.tick_after(KEPT_AFTER_LEAVING);
                self.empty.push_back((live.forget_at, index));
                continue;
            }
            let mut live = self.all.remove(index as usize);
            if let Some(token) = self.by_key.get_mut(&live.key)
                && token.session == index
            {
                token.session = NONE;
                if let Some(trays) = live.session.take_trays() {
                    self.trays.insert(live.key, trays);
                }
            }
        }
    }

    /// Takes what has been used since the last report, by session, and writes what is used up to the directory.
    pub(super) fn take_usage(&mut self, unix_ms: u64) -> Vec<(u32, Usage)> {
        let mut reports = Vec::with_capacity(self.used.len());
        for index in std::mem::take(&mut self.used) {
            let Some(live) = self.all.get_mut(index as usize) else { continue };
            live.noted = false;
            let bytes = live.session.take_unreported();
            if let Some(entry) = self.directory.entry(live.slot) {
                write_usage(&entry, live.session.used(unix_ms));
            }
            reports.push((index, Usage { key: live.key, day: day_of(unix_ms), bytes }));
        }
        reports
    }

    /// Takes back what could not be reported, for the next report.
    pub(super) fn put_back_usage(&mut self, reports: Vec<(u32, Usage)>) {
        for (index, Usage { bytes, .. }) in reports {
            if let Some(live) = self.all.get_mut(index as usize) {
                live.session.put_back_unreported(bytes);
                live.note(index, &mut self.used);
            }
        }
    }
}

#[cfg(test)]
impl Sessions {
    /// All sessions, those of them with somebody, those that may be forgotten, and those with bytes to report.
    pub(in crate::shard) fn sizes(&self) -> (usize, usize, usize, usize) {
        let live = self.all.iter().filter(|(_, live)| live.session.presence() != Presence::Empty).count();
        (self.all.len(), live, self.empty.len(), self.used.len())
    }

    /// Sessions with both, and with one.
    pub(in crate::shard) fn pairs(&self) -> (usize, usize) {
        let with = |presence| self.all.iter().filter(|(_, live)| live.session.presence() == presence).count();
        (with(Presence::Paired), with(Presence::Waiting))
    }
}

/// Token keys are halves of a SHA-256: any of their bits hash them.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

fn policy_of(own: Option<&LimitsOverride>, general: &Rc<Policy>) -> Rc<Policy> {
    match own {
        Some(own) => Rc::new(Policy::new(own.over(&general.limits))),
        None => Rc::clone(general),
    }
}

fn write_usage(entry: &TokenEntry, used: Used) {
    entry.day.store(used.day, Relaxed);
    entry.month.store(used.month, Relaxed);
    entry.day_bytes.store(used.day_bytes, Relaxed);
    entry.month_bytes.store(used.month_bytes, Relaxed);
}
