//! What a shard counts: plain numbers of its own, published once a second for whoever scrapes.
//!
//! Nothing here is shared while it is counted: no atomic and no lock on the way of a message. What only changes when a
//! connection comes or goes is counted there; the rest is looked at when it is published.

use super::Shard;
use super::close::CloseReason;
use super::mutation::{Mutation, is_made};
use crate::api;
use crate::proto::token::{ByRole, Role};
use crate::ring::{Buffers, Counts, Net};
use crate::session::message::ErrorCode;
use crate::session::{NotAdmitted, Presence};
use crate::telemetry::metrics::{Histogram, LabelCounts};
use crate::telemetry::process::thread_cpu;
use crate::tls;
use std::time::Duration;

/// The code under which connections that find no room are counted.
const FULL: &str = api::ErrorCode::Full.name();

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went to the peer.
    Forwarded,
    /// Its sender was told why not.
    Refused,
    /// It was for the relay: a ping or a pong.
    Answered,
    /// It waits in the mailbox, for its receiver was not there.
    Kept,
}

impl Outcome {
    /// All, by `Outcome as usize`, with the label of the metrics.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Forwarded, "forwarded"),
        (Self::Refused, "refused"),
        (Self::Answered, "answered"),
        (Self::Kept, "kept"),
    ];
}

/// Why an admin key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefused {
    /// It is not the admin key.
    Wrong,
    /// It was not looked at, for its address has shown too many wrong ones.
    NotLookedAt,
}

impl KeyRefused {
    /// All, by `KeyRefused as usize`, with the label of the metrics.
    pub const ALL: [(Self, &str); 2] = [(Self::Wrong, "wrong"), (Self::NotLookedAt, "not_looked_at")];
}

/// Messages and their bytes, by [`Outcome`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Messages.
    pub messages: [u64; 4],
    /// Payload bytes.
    pub bytes: [u64; 4],
}

/// A shard's counts and, where it says so, what was found when they were published.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// By the role of the sender.
    pub flows: ByRole<Flow>,
    /// Forwarded behind others, because the receiver's socket was full. As above.
    pub delayed: ByRole<u64>,
    /// Of all messages queued toward sockets that take them at once.
    pub forward: Histogram,
    /// From accepted to the end of the TLS handshake.
    pub tls_handshake: Histogram,
    /// From accepted to upgraded.
    pub handshake: Histogram,
    /// From upgraded to authenticated.
    pub auth: Histogram,
    /// Refusals by code.
    pub refused: LabelCounts<16>,
    /// Connections that bound tokens did not admit, by reason.
    pub not_admitted: LabelCounts<8>,
    /// Refused admin keys, by `KeyRefused as usize`.
    pub keys_refused: [u64; 2],
    /// Ended connections by reason.
    pub closed: LabelCounts<32>,
    /// TLS handshakes by how they ended.
    pub tls_handshakes: LabelCounts<11>,
    /// HTTP responses by class of status.
    pub responses: LabelCounts<6>,
    /// Accepted connections.
    pub accepted: u64,
    /// Failures to accept.
    pub accept_errors: u64,
    /// Authenticated connections.
    pub authenticated: ByRole<u64>,
    /// Connections moved to another shard.
    pub moved: u64,
    /// Connections that should have been moved to a shard whose queue was full.
    pub not_moved: u64,
    /// Found when published: pauses because of the peer's outbox, and because of the connection's own.
    pub high_water: [u64; 2],
    /// Messages that had to wait for memory.
    pub budget_waits: u64,
    /// Pages of the mailbox that were handed to their receivers, and their bytes.
    pub mail_pages: u64,
    /// As above.
    pub mail_bytes: u64,
    /// Messages that were kept for a device that was not there, and that it should be woken for.
    pub wakes_wanted: u64,
    /// Open connections now.
    pub open: ByRole<u64>,
    /// Devices that are connected now, among the open connections.
    pub devices: u64,
    /// Closing connections now.
    pub closing: u64,
    /// Sessions now in which both are there.
    pub paired: u64,
    /// Sessions now in which one waits for the other.
    pub waiting: u64,
    /// Found when published: all connections that there are.
    pub sockets: u64,
    /// Found when published: bytes in all outboxes.
    pub outbox_bytes: u64,
    /// Found when published: outboxes whose socket does not take them.
    pub outboxes_blocked: u64,
    /// Found when published: reserved memory.
    pub budget_bytes: u64,
    /// Found when published: all that can be reserved.
    pub budget_bytes_max: u64,
    /// Found when published: connections that wait for memory.
    pub budget_waiting: u64,
    /// Found when published: the receive buffers of each pool.
    pub buffers: [Buffers; 2],
    /// Found when published: commands in the queue.
    pub commands: u64,
    /// Found when published: what the ring counted.
    pub ring: Counts,
    /// Found when published: CPU time of the thread.
    pub cpu: Duration,
}

impl Default for Counters {
    fn default() -> Self {
        let codes = ErrorCode::ALL.map(ErrorCode::name);
        let mut refused = LabelCounts::new(&codes);
        refused.add(FULL, 0);
        Self {
            flows: Default::default(),
            delayed: ByRole::default(),
            forward: Histogram::default(),
            tls_handshake: Histogram::default(),
            handshake: Histogram::default(),
            auth: Histogram::default(),
            refused,
            not_admitted: LabelCounts::new(&NotAdmitted::ALL.map(NotAdmitted::name)),
            keys_refused: [0; 2],
            closed: LabelCounts::new(&CloseReason::LABELS),
            tls_handshakes: LabelCounts::new(&tls::outcome::Outcome::ALL.map(tls::outcome::Outcome::name)),
            responses: LabelCounts::new(&["1xx", "2xx", "3xx", "4xx", "5xx"]),
            accepted: 0,
            accept_errors: 0,
            authenticated: ByRole::default(),
            moved: 0,
            not_moved: 0,
            high_water: [0; 2],
            budget_waits: 0,
            mail_pages: 0,
            mail_bytes: 0,
            wakes_wanted: 0,
            open: ByRole::default(),
            devices: 0,
            closing: 0,
            paired: 0,
            waiting: 0,
            sockets: 0,
            outbox_bytes: 0,
            outboxes_blocked: 0,
            budget_bytes: 0,
            budget_bytes_max: 0,
            budget_waiting: 0,
            buffers: Default::default(),
            commands: 0,
            ring: Counts::default(),
            cpu: Duration::ZERO,
        }
    }
}

/// The counters of a shard that counts. Others read them, and say what has happened.
#[derive(Debug, Default)]
pub(super) struct Counting {
    counts: Counters,
    /// Forwarded in this turn and not queued yet.
    fresh: u64,
    /// Queued in this turn toward sockets that take it at once.
    turn: u64,
}

impl Counting {
    /// What has been counted. What is only found when it is published is not among it.
    #[inline]
    pub(super) fn counts(&self) -> &Counters {
        &self.counts
    }

    /// A message went to the peer, or will when the run that it is in is queued.
    #[inline]
    pub(super) fn forwarded(&mut self, role: Role, bytes: usize) {
        self.count(role, Outcome::Forwarded, bytes);
        self.fresh += 1;
    }

    /// What was forwarded is queued now; `behind`: behind others, for the socket is full.
    #[inline]
    pub(super) fn queued(&mut self, role: Role, behind: bool) {
        let fresh = std::mem::take(&mut self.fresh);
        if behind {
            self.counts.delayed[role] += fresh;
        } else {
            self.turn += fresh;
        }
    }

    /// Whether messages were forwarded in this turn.
    #[inline]
    pub(super) fn has_forwarded(&self) -> bool {
        self.turn != 0
    }

    /// The kernel has taken what the turn queued; `elapsed` since it handed over what came.
    #[inline]
    pub(super) fn end_turn(&mut self, elapsed: Duration) {
        if self.turn != 0 {
            self.counts.forward.record(elapsed, std::mem::take(&mut self.turn));
        }
    }

    /// A message was refused.
    pub(super) fn message_refused(&mut self, role: Role, code: ErrorCode, bytes: usize) {
        self.count(role, Outcome::Refused, bytes);
        self.counts.refused.add(code.name(), 1);
    }

    /// What was asked of the relay was not done. As a message it has been counted already.
    pub(super) fn order_refused(&mut self, code: ErrorCode) {
        self.counts.refused.add(code.name(), 1);
    }

    /// What became of a message.
    #[inline]
    pub(super) fn count(&mut self, role: Role, outcome: Outcome, bytes: usize) {
        let flow = &mut self.counts.flows[role];
        flow.messages[outcome as usize] += 1;
        flow.bytes[outcome as usize] += bytes as u64;
    }

    /// A connection found no room.
    pub(super) fn turned_away(&mut self) {
        self.counts.refused.add(FULL, 1);
    }

    /// A response is queued; its status line begins with `HTTP/1.1 `.
    pub(super) fn responded(&mut self, response: &[u8]) {
        let class = match response.get(9) {
            Some(b'1') => "1xx",
            Some(b'2') => "2xx",
            Some(b'3') => "3xx",
            Some(b'4') => "4xx",
            _ => "5xx",
        };
        self.counts.responses.add(class, 1);
    }

    /// A connection was accepted.
    pub(super) fn accepted(&mut self) {
        self.counts.accepted += 1;
    }

    /// None could be accepted.
    pub(super) fn accept_failed(&mut self) {
        self.counts.accept_errors += 1;
    }

    /// A TLS handshake took so long, from accepted on.
    pub(super) fn shook_hands(&mut self, took: Duration) {
        self.counts.tls_handshake.record(took, 1);
    }

    /// A TLS handshake has ended.
    pub(super) fn handshake_ended(&mut self, outcome: tls::outcome::Outcome) {
        self.counts.tls_handshakes.add(outcome.name(), 1);
    }

    /// A connection was upgraded, so long after it was accepted.
    pub(super) fn upgraded(&mut self, took: Duration) {
        self.counts.handshake.record(took, 1);
    }

    /// An admin key was refused.
    pub(super) fn key_refused(&mut self, why: KeyRefused) {
        self.counts.keys_refused[why as usize] += 1;
    }

    /// An authentication was refused.
    pub(super) fn auth_refused(&mut self) {
        self.counts.refused.add(ErrorCode::Unauthorized.name(), 1);
    }

    /// A connection has authenticated, so long after it was upgraded.
    pub(super) fn authenticated(&mut self, took: Duration) {
        self.counts.auth.record(took, 1);
    }

    /// A bound token did not admit a connection.
    pub(super) fn not_admitted(&mut self, why: NotAdmitted) {
        self.counts.not_admitted.add(why.name(), 1);
    }

    /// A connection was moved to another shard, or should have been.
    pub(super) fn moved(&mut self, has_moved: bool) {
        self.counts.moved += u64::from(has_moved);
        self.counts.not_moved += u64::from(!has_moved);
    }

    /// A message waits in the mailbox.
    pub(super) fn kept(&mut self, role: Role, bytes: u64) {
        self.count(role, Outcome::Kept, usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// A page of the mailbox was handed out.
    pub(super) fn handed_out(&mut self, bytes: usize) {
        self.counts.mail_pages += 1;
        self.counts.mail_bytes += bytes as u64;
    }

    /// A device that is not there should be woken.
    pub(super) fn wake_wanted(&mut self) {
        self.counts.wakes_wanted += 1;
    }

    /// A message has to wait for memory.
    pub(super) fn waits_for_memory(&mut self) {
        self.counts.budget_waits += 1;
    }

    /// A connection has begun to close, or is closing no more.
    pub(super) fn closing(&mut self, begins: bool, ends: bool) {
        self.counts.closing += u64::from(begins);
        self.counts.closing -= u64::from(ends);
    }

    /// A connection ends, for the reason of this label.
    pub(super) fn closed(&mut self, label: &'static str) {
        self.counts.closed.add(label, 1 + u64::from(is_made(Mutation::CountedTwice)));
    }

    /// A connection left its session.
    pub(super) fn left(&mut self, role: Role, is_device: bool) {
        self.counts.open[role] -= 1;
        self.counts.devices -= u64::from(is_device);
    }

    /// A connection joined a session.
    pub(super) fn joined(&mut self, role: Role, is_device: bool) {
        self.counts.open[role] += 1;
        self.counts.devices += u64::from(is_device);
        self.counts.authenticated[role] += 1;
    }

    /// A session's presence has changed, or not.
    pub(super) fn presence_changed(&mut self, before: Presence, after: Presence) {
        self.counts.paired += u64::from(after == Presence::Paired);
        self.counts.paired -= u64::from(before == Presence::Paired);
        self.counts.waiting += u64::from(after == Presence::Waiting);
        self.counts.waiting -= u64::from(before == Presence::Waiting);
    }
}

impl<N: Net> Shard<N> {
    /// Shows the counters to whoever scrapes; not now, where they are being looked at.
    pub(super) fn publish_counters(&mut self) {
        let Some(Ok(mut shown)) = self.shared.counters.get(usize::from(self.id)).map(|counters| counters.try_lock())
        else {
            return;
        };
        let (outbox_bytes, outboxes_blocked) = self.net.queued();
        *shown = Counters {
            high_water: self.net.pressed(),
            sockets: self.net.len() as u64,
            outbox_bytes,
            outboxes_blocked,
            budget_bytes: self.memory.used_bytes() as u64,
            budget_bytes_max: self.settings.budget_bytes as u64,
            budget_waiting: self.memory.waiting() as u64,
            buffers: self.net.buffers(),
            commands: self.commands.len() as u64,
            ring: self.net.counts(),
            cpu: thread_cpu(),
            ..*self.counters.counts()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_counts_for_each_message_that_left_in_it() {
        let mut counters = Counting::default();
        counters.forwarded(Role::Phone, 100);
        counters.forwarded(Role::Phone, 50);
        counters.queued(Role::Phone, false);
        counters.forwarded(Role::Agent, 7);
        counters.queued(Role::Agent, true);
        counters.end_turn(Duration::from_micros(20));
        counters.end_turn(Duration::from_secs(1));
        assert_eq!((counters.counts.forward.count(), counters.counts.delayed), (2, ByRole { phone: 0, agent: 1 }));
        assert_eq!((counters.counts.flows.phone.messages[0], counters.counts.flows.phone.bytes[0]), (2, 150));
    }

    #[test]
    fn sessions_are_paired_while_both_are_there() {
        let mut counters = Counting::default();
        counters.presence_changed(Presence::Empty, Presence::Waiting);
        counters.presence_changed(Presence::Waiting, Presence::Paired);
        counters.presence_changed(Presence::Paired, Presence::Paired);
        assert_eq!((counters.counts.paired, counters.counts.waiting), (1, 0));
        counters.presence_changed(Presence::Paired, Presence::Waiting);
        assert_eq!((counters.counts.paired, counters.counts.waiting), (0, 1));
        counters.presence_changed(Presence::Waiting, Presence::Empty);
        assert_eq!((counters.counts.paired, counters.counts.waiting), (0, 0));
    }
}
