//! How connections join and leave sessions, and what follows from what sessions decide.

use super::sessions::{Change, Joining};
use crate::control::message::{Notice, Request};
use crate::notifier::Notifier;
use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use crate::push::PushState;
use crate::ring::{Conn, Net};
use crate::session::message::{Ext, MailView, RelayMessage, Welcome};
use crate::session::{Effect, Farewell, Member, Presence};
use crate::shard::Shard;
use crate::shard::close::CloseReason;
use crate::shard::door::auth::Claim;
use crate::shard::door::newcomer::Newcomer;
use crate::shard::mutation::{Mutation, is_made};
use crate::shard::net::connection::{Entry, Pauses, Phase, Seat};
use std::sync::atomic::Ordering::Relaxed;

impl<N: Net> Shard<N> {
    /// Authenticates a connection on the shard that owns its token.
    pub(in crate::shard) fn admit(&mut self, conn: Conn, claim: Claim) {
        let Claim { hash, role, ext, shown } = claim;
        let (key, serial) = (hash.key(), self.net[conn].newcomer().map_or(0, Newcomer::serial));
        let member = Member::new(conn, role, serial, self.pulse.now()).with_ext(ext);
        let (seat, change, gone, mut welcome) = match self.sessions.join(key, member, shown, &self.pulse) {
            Joining::Unknown | Joining::NotAdmitted(_) if self.asks_first(conn, &claim) => return,
            Joining::Unknown => return self.refuse_auth(conn, "the token is unknown, revoked or expired"),
            Joining::NotAdmitted(why) => {
                self.counters.not_admitted(why);
                return match why.text() {
                    Some(text) => self.refuse_auth(conn, text),
                    None => self.put_off(conn),
                };
            }
            Joining::TooOften => return self.put_off(conn),
            Joining::Joined { seat, change, gone, welcome } => (seat, change, gone, welcome),
        };
        self.offer_push(key, &mut welcome);
        self.shared.connections.fetch_add(1, Relaxed);
        self.counters.joined(role, change.is_device);
        self.count_presence(&change);
        let due = self.pulse.tick_after(self.settings.ping_interval);
        let left = self.transition(conn, Entry::Open(seat));
        if let Some(newcomer) = left.and_then(|left| left.newcomer) {
            self.log.opened(&newcomer, key, role);
            self.counters.authenticated(newcomer.took(self.pulse.instant()));
        }
        self.net[conn].due = due;
        self.pulse.arm(conn, due);
        self.apply_all(gone);
        self.tell(conn, RelayMessage::AuthOk(&welcome));
        self.apply_all(change.effects);
        self.note_joined();
        self.hand_out(seat.session);
    }

    /// Says to a device that has just come how it can be woken, and to the notifier that it is there.
    fn offer_push(&self, key: TokenKey, welcome: &mut Welcome) {
        if let Ext::Device { device, push, .. } = &mut welcome.ext
            && let Some(offer) = self.push_offer(key, *device)
        {
            *push = Some(offer);
            self.note_present(key, *device);
        }
    }

    /// How a device can be woken, as JSON.
    fn push_offer(&self, key: TokenKey, device: DeviceId) -> Option<Box<str>> {
        self.shared.notifier.as_ref().map(|notifier| notifier.offer(self.sessions.push_state(key, device)))
    }

    /// Says to a device that it is one now, and what the relay does for it.
    fn tell_admitted(&mut self, conn: Conn, mail: Option<MailView>) {
        let seat = self.net.get(conn).and_then(|connection| connection.seat());
        let device = seat.and_then(|seat| self.sessions.device(seat, conn));
        let push = device.and_then(|(key, device)| self.push_offer(key, device));
        self.tell(conn, RelayMessage::Admitted { mail, push: push.as_deref() });
    }

    /// A device that was asleep is awake: what has waited is handed to it, and it need not be woken.
    pub(super) fn note_awake(&mut self, conn: Conn, seat: Seat) {
        self.hand_out(seat.session);
        if let Some((key, device)) = self.sessions.device(seat, conn) {
            self.note_present(key, device);
        }
    }

    /// A device is there, and need not be woken.
    fn note_present(&self, key: TokenKey, device: DeviceId) {
        if let Some(notifier) = self.notifier_of(key, device) {
            notifier.present(key, device);
        }
    }

    /// A message that wakes was kept for a device that is away.
    pub(super) fn note_kept(&self, key: TokenKey, device: DeviceId) {
        if let Some(notifier) = self.notifier_of(key, device) {
            notifier.kept(key, device);
        }
    }

    /// Who wakes a device, if it can be woken.
    fn notifier_of(&self, key: TokenKey, device: DeviceId) -> Option<&Notifier> {
        let notifier = self.shared.notifier.as_deref();
        notifier.filter(|_| self.sessions.push_state(key, device) == PushState::Ok)
    }

    /// Takes a connection that has left its `seat` out of its session, and tells its peers.
    pub(in crate::shard) fn leave_session(&mut self, conn: Conn, seat: Option<Seat>) {
        let Some(seat) = seat else { return };
        let Some(change) = self.sessions.leave(seat, conn, &self.pulse) else { return };
        self.shared.connections.fetch_sub(1, Relaxed);
        self.counters.left(seat.role, change.is_device);
        self.count_presence(&change);
        self.apply_all(change.effects);
        self.relieve_peers(seat);
    }

    fn count_presence(&mut self, change: &Change) {
        let (was_empty, is_empty) = (change.before == Presence::Empty, change.after == Presence::Empty);
        if was_empty && !is_empty {
            self.shared.sessions.fetch_add(1, Relaxed);
        } else if is_empty && !was_empty {
            self.shared.sessions.fetch_sub(1, Relaxed);
        }
        self.counters.presence_changed(change.before, change.after);
    }

    /// The outbox of who has this seat has room again, or is gone: the peers, who filled it, may be read again.
    pub(in crate::shard) fn relieve_peers(&mut self, seat: Seat) {
        for filler in self.sessions.peers(seat) {
            // An agent fills the outboxes of all its devices, and goes on when none of them is above its mark.
            let filled = self.net[filler].seat().into_iter().flat_map(|filler| self.sessions.peers(filler));
            if filled.into_iter().any(|peer| self.net.is_pressed(peer)) {
                continue;
            }
            if is_made(Mutation::LostRelief) {
                self.net.take_pause(filler, Pauses::PEER);
            } else {
                self.net.unpause(filler, Pauses::PEER);
            }
        }
    }

    /// Carries out what follows from somebody's coming or going, in order.
    pub(super) fn apply_all(&mut self, effects: Vec<Effect<Conn>>) {
        for effect in effects {
            self.apply(effect);
        }
    }

    /// Carries one effect out.
    pub(super) fn apply(&mut self, effect: Effect<Conn>) {
        match effect {
            Effect::Tell(conn, RelayMessage::Admitted { mail, .. }) => self.tell_admitted(conn, mail),
            Effect::Tell(conn, message) => self.tell(conn, message),
            Effect::Close(conn, Farewell::Revoked) => self.close(conn, CloseReason::Revoked),
            Effect::Close(conn, Farewell::NotNow) => self.close(conn, CloseReason::Busy),
            Effect::Close(conn, Farewell::Replaced) => {
                let seat = self.net[conn].seat();
                self.close(conn, CloseReason::Replaced);
                if let Some(seat) = seat
                    && !self.sessions.may_linger(seat.session, &self.pulse)
                    && self.net.get(conn).is_some_and(|replaced| replaced.phase() == Phase::Closing)
                {
                    self.pulse.arm(conn, self.pulse.tick() + 1);
                }
            }
            // They are about a message, and for whoever has it: `handle_message`.
            Effect::Forward(_)
            | Effect::Wake(..)
            | Effect::Order
            | Effect::Keep(_)
            | Effect::Refuse(_)
            | Effect::Later(_)
            | Effect::Nothing => {}
        }
    }

    /// What control has to say.
    pub(in crate::shard) fn handle_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Admit { key, slot } => {
                let effects = self.sessions.admit(key, slot, &self.pulse);
                self.apply_all(effects);
                self.prune_mail(key);
            }
            Notice::Changed(changed) => self.handle_changed(*changed),
            Notice::Revoke { key } => {
                if self.sessions.take_trays(key).is_some() {
                    self.forget_mail(key, None);
                }
                let effects = self.sessions.revoke(key, &self.pulse);
                self.apply_all(effects);
            }
            Notice::CaughtUp { serial, is_current } => self.handle_caught_up(serial, is_current),
            Notice::Answer { serial, answer } => self.handle_answer(serial, &answer),
        }
    }

    /// Hands to control which devices have connected. Where control cannot take it, another day has to do.
    pub(in crate::shard) fn report_seen(&mut self) {
        let seen = self.sessions.take_seen();
        if !seen.is_empty() {
            let _ = self.ask_control(Request::Seen(seen));
        }
    }

    /// Sends devices away whose admission has not come.
    pub(in crate::shard) fn expire_pending(&mut self) {
        let effects = self.sessions.expire_pending(&self.pulse);
        self.apply_all(effects);
    }

    /// Hands what was used to control. Where control cannot take it, it is handed over the next time.
    pub(in crate::shard) fn report_usage(&mut self) {
        let reports = self.sessions.take_usage(self.pulse.unix_ms());
        if reports.is_empty() {
            return;
        }
        let usage = reports.iter().map(|&(_, usage)| usage).collect();
        if !self.ask_control(Request::Usage(usage)) {
            self.sessions.put_back_usage(reports);
        }
    }
}
