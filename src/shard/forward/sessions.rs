//! The tokens that a shard owns, their sessions, and how connections join and leave them.

use crate::control::message::{Notice, Request, Usage};
use crate::directory::{Slot, TokenEntry};
use crate::proto::bucket::{Bucket, Rate};
use crate::proto::limits::LimitsOverride;
use crate::proto::quota::{Used, day_of};
use crate::proto::token::{Role, TokenHash, TokenKey};
use crate::ring::{Conn, Net};
use crate::session::policy::Policy;
use crate::session::{Member, Presence, Session};
use crate::shard::bounds::{JOINS_BURST, JOINS_PER_SECOND};
use crate::shard::door::newcomer::Newcomer;
use crate::shard::mutation::{Mutation, is_made};
use crate::shard::net::connection::{Entry, NONE, Pauses, Seat};
use crate::shard::{Settings, Shard};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long a session that both have left keeps its rates: a bucket is full again after at most a minute.
const KEPT_AFTER_LEAVING: Duration = Duration::from_secs(61);

/// The tokens that a shard owns, and the sessions that live.
#[derive(Default)]
pub(in crate::shard) struct Sessions {
    by_key: HashMap<TokenKey, Token, BuildHasherDefault<KeyHasher>>,
    all: Slab<Live>,
    /// Sessions that both have left, and the tick at which they may be forgotten, in that order.
    empty_sessions: VecDeque<(u32, u32)>,
    /// Sessions with bytes that have not been reported.
    used: Vec<u32>,
}

struct Token {
    slot: Slot,
    /// Index of its session; [`NONE`] while it has none.
    session: u32,
}

/// A session that lives on this shard.
pub(in crate::shard) struct Live {
    pub(in crate::shard) session: Session<Conn>,
    key: TokenKey,
    slot: Slot,
    /// It stands on the list of those with unreported bytes.
    noted: bool,
    /// The tick at which it may be forgotten, if nobody has come back; [`NONE`] while somebody is there.
    forget_at: u32,
    /// How often connections may be replaced and linger.
    pub(in crate::shard) replacements: Bucket,
    /// How often connections may authenticate.
    joins: Bucket,
}

impl Live {
    /// Its token.
    pub(in crate::shard) fn key(&self) -> TokenKey {
        self.key
    }

    /// Puts it, which stands at `index`, on the list of those with bytes that are not reported, once.
    fn note(&mut self, index: u32, used: &mut Vec<u32>) {
        if !std::mem::replace(&mut self.noted, true) {
            used.push(index);
        }
    }
}

impl Sessions {
    /// Whether a token is one of them.
    pub(in crate::shard) fn knows(&self, key: TokenKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(in crate::shard) fn session(&self, index: u32) -> Option<&Live> {
        self.all.get(index as usize)
    }

    pub(in crate::shard) fn session_mut(&mut self, index: u32) -> Option<&mut Live> {
        self.all.get_mut(index as usize)
    }

    /// All sessions, those of them with somebody, those that may be forgotten, and those with bytes to report.
    #[cfg(test)]
    pub(in crate::shard) fn sizes(&self) -> (usize, usize, usize, usize) {
        let live = self.all.iter().filter(|(_, live)| live.session.presence() != Presence::Empty).count();
        (self.all.len(), live, self.empty_sessions.len(), self.used.len())
    }

    /// Sessions with both, and with one.
    #[cfg(test)]
    pub(in crate::shard) fn pairs(&self) -> (usize, usize) {
        let with = |presence| self.all.iter().filter(|(_, live)| live.session.presence() == presence).count();
        (with(Presence::Paired), with(Presence::Waiting))
    }

    /// Notes that a session has bytes that are not reported.
    pub(in crate::shard) fn note_use(&mut self, index: u32) {
        if let Some(live) = self.all.get_mut(index as usize) {
            live.note(index, &mut self.used);
        }
    }
}

/// Token keys are halves of a SHA-256: any of their bits hash them.
#[derive(Default)]
pub(in crate::shard) struct KeyHasher(u64);

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

impl<N: Net> Shard<N> {
    /// Authenticates a connection on the shard that owns its token.
    pub(in crate::shard) fn admit(&mut self, conn: Conn, hash: TokenHash, role: Role) {
        let key = hash.key();
        let unix_sec = self.pulse.unix_ms() / 1000;
        let Some(session) = self.session_of(key, unix_sec) else {
            return self.refuse_auth(conn, "the token is unknown, revoked or expired");
        };
        let Some(live) = self.sessions.all.get_mut(session as usize) else { return };
        let joins = Rate::per(JOINS_PER_SECOND, Duration::from_secs(1), JOINS_BURST);
        if joins.is_some_and(|rate| live.joins.try_take(self.pulse.now(), &rate).is_err()) {
            return self.put_off(conn);
        }
        let serial = self.net[conn].newcomer().map_or(0, Newcomer::serial);
        let before = live.session.presence();
        let effects = live.session.join(Member::new(conn, role, serial, self.pulse.now()), self.pulse.unix_ms());
        let after = live.session.presence();
        live.forget_at = NONE;
        if let Some(entry) = self.shared.directory.entry(live.slot) {
            entry.set_online(role, Some(unix_sec as u32));
        }
        if before == Presence::Empty {
            self.shared.sessions.fetch_add(1, Relaxed);
        }
        self.shared.connections.fetch_add(1, Relaxed);
        self.counters.joined(role);
        self.counters.presence_changed(before, after);
        let due = self.pulse.tick_after(self.settings.ping_interval);
        let left = self.transition(conn, Entry::Open(Seat { session, role }));
        if let Some(newcomer) = left.and_then(|left| left.newcomer) {
            self.log_opened(&newcomer, key, role);
            self.counters.auth.record(newcomer.took(self.pulse.instant()), 1);
            self.leave_unauthenticated(&newcomer);
        }
        self.net[conn].due = due;
        self.pulse.arm(conn, due);
        self.apply_all(effects);
    }

    /// The session of a token that admits.
    fn session_of(&mut self, key: TokenKey, unix_sec: u64) -> Option<u32> {
        let token = self.sessions.by_key.get_mut(&key)?;
        let entry = self.shared.directory.entry(token.slot)?;
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
            token.session = self.sessions.all.insert(Live {
                session: Session::new(policy, used),
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

    /// Takes a connection that has left its `seat` out of its session, and tells its peers.
    pub(in crate::shard) fn leave_session(&mut self, conn: Conn, seat: Option<Seat>) {
        let Some(Seat { session, role }) = seat else { return };
        let Some(live) = self.sessions.all.get_mut(session as usize) else { return };
        self.shared.connections.fetch_sub(1, Relaxed);
        self.counters.open[role] -= 1;
        let before = live.session.presence();
        let effects = live.session.leave(conn);
        let after = live.session.presence();
        self.counters.presence_changed(before, after);
        if live.session.connections(role).next().is_none()
            && let Some(entry) = self.shared.directory.entry(live.slot)
        {
            entry.set_online(role, None);
        }
        if after == Presence::Empty && before != Presence::Empty {
            self.shared.sessions.fetch_sub(1, Relaxed);
            live.forget_at = self.pulse.tick_after(KEPT_AFTER_LEAVING);
            self.sessions.empty_sessions.push_back((live.forget_at, session));
        }
        self.apply_all(effects);
        self.relieve_peers(Seat { session, role });
    }

    /// The outbox of who has this seat has room again, or is gone: the peers, who filled it, may be read again.
    pub(in crate::shard) fn relieve_peers(&mut self, Seat { session, role }: Seat) {
        let Some(live) = self.sessions.session(session) else { return };
        for filler in live.session.connections(role.peer()) {
            if !is_made(Mutation::LostRelief) {
                self.net.unpause(filler, Pauses::PEER);
            } else {
                self.net.take_pause(filler, Pauses::PEER);
            }
        }
    }

    pub(in crate::shard) fn handle_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Admit { key, slot } => self.handle_admit(key, slot),
            Notice::Revoke { key } => self.handle_revoke(key),
            Notice::Answer { serial, answer } => self.handle_answer(serial, &answer),
        }
    }

    fn handle_admit(&mut self, key: TokenKey, slot: Slot) {
        let token = self.sessions.by_key.entry(key).or_insert(Token { slot, session: NONE });
        token.slot = slot;
        let (Some(live), Some(entry)) =
            (self.sessions.all.get_mut(token.session as usize), self.shared.directory.entry(slot))
        else {
            return;
        };
        // The token has other limits now, in a new entry: what was known stands there too.
        live.slot = slot;
        live.session.set_policy(policy_of(entry.limits.as_deref(), &self.policy));
        let unix_sec = self.pulse.unix_ms() / 1000;
        for role in Role::ALL {
            entry.set_online(role, live.session.connections(role).next().map(|_| unix_sec as u32));
        }
        write_usage(&entry, live.session.used(self.pulse.unix_ms()));
    }

    /// Other settings hold from now on: for newcomers, and for the sessions that live without limits of their own.
    pub(in crate::shard) fn change_settings(&mut self, settings: Settings) {
        self.settings = Settings { budget_bytes: self.settings.budget_bytes, ..settings };
        self.policy = Rc::new(Policy::new(self.settings.limits));
        for (_, live) in &mut self.sessions.all {
            // Of a token that was revoked there is no entry any more, and its connections are on their way out.
            if let Some(entry) = self.shared.directory.entry(live.slot) {
                live.session.set_policy(policy_of(entry.limits.as_deref(), &self.policy));
            }
        }
    }

    fn handle_revoke(&mut self, key: TokenKey) {
        let Some(token) = self.sessions.by_key.remove(&key) else { return };
        let Some(live) = self.sessions.all.get_mut(token.session as usize) else { return };
        let effects = live.session.revoke();
        if effects.is_empty() {
            live.forget_at = self.pulse.tick();
            self.sessions.empty_sessions.push_front((live.forget_at, token.session));
        }
        self.apply_all(effects);
    }

    /// Forgets sessions that both left long enough ago.
    pub(in crate::shard) fn forget_empty_sessions(&mut self) {
        let now = self.pulse.tick();
        while let Some(&(forget_at, index)) = self.sessions.empty_sessions.front() {
            if forget_at > now {
                return;
            }
            self.sessions.empty_sessions.pop_front();
            let Some(live) = self.sessions.all.get(index as usize) else { continue };
            // It lives on when somebody came back, and its bytes are reported before it goes.
            if live.forget_at != forget_at {
                continue;
            }
            if live.noted {
                self.report_usage();
            }
            if let Some(live) = self.sessions.all.get_mut(index as usize)
                && live.noted
            {
                // Control cannot take the report now.
                live.forget_at = self.pulse.tick_after(KEPT_AFTER_LEAVING);
                self.sessions.empty_sessions.push_back((live.forget_at, index));
                continue;
            }
            let live = self.sessions.all.remove(index as usize);
            if let Some(token) = self.sessions.by_key.get_mut(&live.key)
                && token.session == index
            {
                token.session = NONE;
            }
        }
    }

    /// Writes what was used to the directory and hands it to control. Where control cannot take it, it is handed over
    /// the next time.
    pub(in crate::shard) fn report_usage(&mut self) {
        let unix_ms = self.pulse.unix_ms();
        let mut reports = Vec::with_capacity(self.sessions.used.len());
        for index in std::mem::take(&mut self.sessions.used) {
            let Some(live) = self.sessions.all.get_mut(index as usize) else { continue };
            live.noted = false;
            let bytes = live.session.take_unreported();
            if let Some(entry) = self.shared.directory.entry(live.slot) {
                write_usage(&entry, live.session.used(unix_ms));
            }
            reports.push((index, Usage { key: live.key, day: day_of(unix_ms), bytes }));
        }
        if reports.is_empty() {
            return;
        }
        let usage = reports.iter().map(|&(_, usage)| usage).collect();
        if self.control.try_send(Request::Usage(usage)).is_err() {
            for (index, Usage { bytes, .. }) in reports {
                if let Some(live) = self.sessions.all.get_mut(index as usize) {
                    live.session.put_back_unreported(bytes);
                    self.sessions.note_use(index);
                }
            }
        }
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
