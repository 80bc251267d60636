//! A connection: what the shard keeps of it. An idle one is an entry of the table, a wheel link and no more.

use crate::proto::token::Role;
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::door::early::Early;
use crate::shard::forward::inbox::Inbox;
use crate::shard::mutation::{Mutation, is_made};

/// No session, no outbox, or no TLS.
pub(in crate::shard) const NONE: u32 = u32::MAX;

/// Where a connection is in its life. [`Shard::transition`] leads from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Phase {
    /// Accepted; the PROXY protocol's header is read, where one is due.
    Header,
    /// The TLS handshake is under way.
    Handshake,
    /// HTTP requests are read.
    Http,
    /// An HTTP call is with the control thread.
    AwaitingControl,
    /// An HTTP answer is held back for a while.
    Held,
    /// An HTTP answer is on its way: no request is read until it has left.
    Answering,
    /// Upgraded; the first message is read.
    Auth,
    /// A refused authentication waits before it is answered.
    Slowed,
    /// To be moved to the shard that owns its token, when nothing is being sent.
    Moving,
    /// Authenticated: messages are forwarded.
    Open,
    /// Upgraded on the echo listener.
    Echo,
    /// Our close frame or last response is queued; what still comes is thrown away.
    Closing,
    /// Over; the entry stays until the end of the turn.
    Dead,
}

impl Phase {
    /// Whether a connection may go from here to `to`: forward only, and never back from its end.
    const fn leads_to(self, to: Self) -> bool {
        match to {
            Self::Header => false,
            Self::Handshake => matches!(self, Self::Header),
            Self::Http => matches!(self, Self::Header | Self::Handshake | Self::AwaitingControl | Self::Answering),
            Self::AwaitingControl | Self::Held | Self::Auth | Self::Echo => matches!(self, Self::Http),
            Self::Answering => matches!(self, Self::Http | Self::Held),
            Self::Slowed | Self::Moving | Self::Open => matches!(self, Self::Auth),
            Self::Closing => !matches!(self, Self::Header | Self::Closing | Self::Dead),
            Self::Dead => !matches!(self, Self::Dead),
        }
    }
}

/// The receive operation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Receiving {
    /// None.
    Idle,
    /// Into slices, until cancelled.
    Multishot,
    /// Into one slice.
    Once,
    /// None yet: it is to fill the message under way, and waits for its turn.
    Queued,
    /// Straight into the message under way.
    Filling,
    /// A cancelled one whose last completion is still to come.
    Cancelling,
}

/// Why reading is paused; a connection is read while none applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) struct Pauses(u8);

impl Pauses {
    /// The peer's outbox is above its high-water mark.
    pub(in crate::shard) const PEER: Self = Self(1);
    /// The connection's own outbox is: it asks for answers that it does not read.
    pub(in crate::shard) const OWN: Self = Self(2);
    /// A stream is slowed to its rate.
    pub(in crate::shard) const RATE: Self = Self(4);
    /// The memory for messages under way is used up.
    pub(in crate::shard) const BUDGET: Self = Self(8);
    /// Its share of a turn is used up.
    pub(in crate::shard) const TURN: Self = Self(16);

    /// Adds a reason.
    pub(in crate::shard) fn insert(&mut self, reason: Self) {
        self.0 |= reason.0;
    }

    /// Takes a reason away; whether it was there.
    pub(in crate::shard) fn remove(&mut self, reason: Self) -> bool {
        let was = self.0 & reason.0 != 0;
        self.0 &= !reason.0;
        was
    }

    /// Whether any reason applies.
    #[must_use]
    pub(in crate::shard) fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether any reason but this one applies.
    #[must_use]
    pub(in crate::shard) fn any_but(self, reason: Self) -> bool {
        self.0 & !reason.0 != 0
    }
}

/// What is kept of one; the ring has its socket.
pub(in crate::shard) struct Connection {
    /// With its place, what it is named by.
    pub(in crate::shard) generation: u32,
    /// Index of its session; [`NONE`] before authentication and after leaving.
    pub(in crate::shard) session: u32,
    /// Index of its outbox; [`NONE`] while nothing is queued.
    pub(in crate::shard) outbox: u32,
    /// Index of its TLS; [`NONE`] where there is none.
    pub(in crate::shard) tls: u32,
    /// The tick at which something was last heard.
    pub(in crate::shard) last_heard: u32,
    /// The tick at which the next ping is due, or at which the phase has taken too long.
    pub(in crate::shard) due: u32,
    phase: Phase,
    /// The receive that is under way.
    pub(in crate::shard) receiving: Receiving,
    /// Why reading is paused.
    pub(in crate::shard) pauses: Pauses,
    /// Its last message was received straight into an allocation, and the next one may well be.
    pub(in crate::shard) bulk: bool,
    /// It sends more than it may, and is received from in small pieces until it has caught up.
    pub(in crate::shard) paced: bool,
    /// Its role, once authenticated.
    pub(in crate::shard) role: Role,
    /// What has come and could not be passed on yet.
    pub(in crate::shard) inbox: Option<Box<Inbox>>,
    /// What is needed only before authentication and for HTTP.
    pub(in crate::shard) early: Option<Box<Early>>,
}

const _: () = assert!(size_of::<Option<Connection>>() <= 48, "an idle connection stays small");

impl Connection {
    /// One that begins in `phase`, heard at `tick`.
    pub(in crate::shard) fn new(phase: Phase, tick: u32, due: u32, early: Early) -> Self {
        Self {
            generation: 0,
            session: NONE,
            outbox: NONE,
            tls: NONE,
            last_heard: tick,
            due,
            phase,
            receiving: Receiving::Idle,
            pauses: Pauses::default(),
            bulk: false,
            paced: false,
            role: Role::Phone,
            inbox: None,
            early: Some(Box::new(early)),
        }
    }

    /// Where it is in its life.
    #[must_use]
    pub(in crate::shard) fn phase(&self) -> Phase {
        self.phase
    }
}

impl<N: Net> Shard<N> {
    /// Leads a connection to its next phase, and keeps the counts and lists that follow from it. The one place where a
    /// phase changes. `false`: nothing leads there, and all stays as it was.
    pub(in crate::shard) fn transition(&mut self, conn: Conn, to: Phase) -> bool {
        let connection = &mut self.connections[conn];
        let from = connection.phase;
        if !from.leads_to(to) && !is_made(Mutation::AnyPhase) {
            return false;
        }
        connection.phase = to;
        if from == Phase::AwaitingControl
            && let Some(early) = &connection.early
        {
            // Nobody waits for an answer any more, whether it has come or not.
            self.pending_calls.remove(&early.serial);
        }
        self.counters.closing += u64::from(to == Phase::Closing);
        self.counters.closing -= u64::from(from == Phase::Closing);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Phase; 13] = [
        Phase::Header,
        Phase::Handshake,
        Phase::Http,
        Phase::AwaitingControl,
        Phase::Held,
        Phase::Answering,
        Phase::Auth,
        Phase::Slowed,
        Phase::Moving,
        Phase::Open,
        Phase::Echo,
        Phase::Closing,
        Phase::Dead,
    ];

    /// The phases that a connection can reach from `from`, in however many steps.
    fn reached(from: Phase) -> Vec<Phase> {
        let mut found = vec![from];
        let mut at = 0;
        while at < found.len() {
            let next = ALL.into_iter().filter(|&to| found[at].leads_to(to) && !found.contains(&to));
            found.extend(next.collect::<Vec<_>>());
            at += 1;
        }
        found
    }

    #[test]
    fn nothing_comes_back_from_its_end() {
        assert_eq!(reached(Phase::Dead), [Phase::Dead]);
        assert_eq!(reached(Phase::Closing), [Phase::Closing, Phase::Dead]);
        for phase in ALL {
            assert!(!phase.leads_to(phase), "{phase:?}");
            assert!(phase == Phase::Dead || phase.leads_to(Phase::Dead), "{phase:?}");
            assert!(reached(Phase::Header).contains(&phase), "{phase:?}");
        }
    }

    #[test]
    fn a_connection_never_takes_a_step_twice_but_for_requests() {
        for phase in ALL {
            let again = ALL.into_iter().filter(|&next| phase.leads_to(next)).any(|next| reached(next).contains(&phase));
            let is_request = matches!(phase, Phase::Http | Phase::AwaitingControl | Phase::Held | Phase::Answering);
            assert_eq!(again, is_request, "{phase:?}");
        }
        assert!(!reached(Phase::Auth).contains(&Phase::Http) && !reached(Phase::Open).contains(&Phase::Auth));
    }
}
