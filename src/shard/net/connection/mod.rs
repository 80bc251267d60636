//! A connection: what the shard keeps of it. An idle one is an entry of the table, a wheel link and no more.

mod phase;

use crate::proto::token::Role;
use crate::shard::door::newcomer::Newcomer;
use crate::shard::forward::inbox::Inbox;

pub(in crate::shard) use self::phase::{Entry, Left, Phase};

/// No session, no outbox, or no TLS.
pub(in crate::shard) const NONE: u32 = u32::MAX;

/// The receive operation that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
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
    /// Whether it is let in is asked of other relays.
    pub(in crate::shard) const CONTROL: Self = Self(32);

    /// Adds a reason.
    pub(super) fn insert(&mut self, reason: Self) {
        self.0 |= reason.0;
    }

    /// Takes a reason away; whether it was there.
    pub(super) fn remove(&mut self, reason: Self) -> bool {
        let was = self.0 & reason.0 != 0;
        self.0 &= !reason.0;
        was
    }

    /// Whether any reason applies.
    #[must_use]
    pub(super) fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether any reason but this one applies.
    #[must_use]
    pub(super) fn any_but(self, reason: Self) -> bool {
        self.0 & !reason.0 != 0
    }
}

/// What a connection is, with what it needs for that.
enum State {
    /// It has not authenticated, or never will.
    Newcomer(Box<Newcomer>),
    /// It has.
    Open(Seat),
    /// Its end is on its way. Who had not authenticated counts as a newcomer until then.
    Closing(Option<Box<Newcomer>>),
    /// Over.
    Dead,
}

/// A place in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Seat {
    /// Index of the session.
    pub(in crate::shard) session: u32,
    /// What the connection is there.
    pub(in crate::shard) role: Role,
}

/// What is kept of one; the ring has its socket.
pub(in crate::shard) struct Connection {
    /// With its place, what it is named by.
    pub(super) generation: u32,
    /// Index of its outbox; [`NONE`] while nothing is queued.
    pub(super) outbox: u32,
    /// Index of its TLS; [`NONE`] where there is none.
    pub(super) tls: u32,
    /// The tick at which something was last heard.
    pub(in crate::shard) last_heard: u32,
    /// The tick at which the next ping is due, or at which the phase has taken too long.
    pub(in crate::shard) due: u32,
    /// The receive that is under way.
    pub(super) receiving: Receiving,
    /// Why reading is paused.
    pub(super) pauses: Pauses,
    /// Its last message was received straight into an allocation, and the next one may well be.
    pub(super) bulk: bool,
    /// It sends more than it may, and is received from in small pieces until it has caught up.
    pub(super) paced: bool,
    /// What has come and could not be passed on yet.
    pub(in crate::shard) inbox: Option<Box<Inbox>>,
    state: State,
}

const _: () = assert!(size_of::<Option<Connection>>() <= 48, "an idle connection stays small");

impl Connection {
    /// A newcomer, heard at `tick`.
    pub(super) fn new(tick: u32, due: u32, newcomer: Box<Newcomer>) -> Self {
        Self {
            generation: 0,
            outbox: NONE,
            tls: NONE,
            last_heard: tick,
            due,
            receiving: Receiving::Idle,
            pauses: Pauses::default(),
            bulk: false,
            paced: false,
            inbox: None,
            state: State::Newcomer(newcomer),
        }
    }

    /// Where it is in its life.
    #[inline]
    #[must_use]
    pub(in crate::shard) fn phase(&self) -> Phase {
        match &self.state {
            State::Open(_) => Phase::Open,
            State::Newcomer(newcomer) => newcomer.phase(),
            State::Closing(_) => Phase::Closing,
            State::Dead => Phase::Dead,
        }
    }

    /// Whether any reason to pause applies.
    #[inline]
    #[must_use]
    pub(in crate::shard) fn is_paused(&self) -> bool {
        self.pauses.any()
    }

    /// Whether any reason to pause but this one applies.
    #[must_use]
    pub(in crate::shard) fn is_paused_but_for(&self, reason: Pauses) -> bool {
        self.pauses.any_but(reason)
    }

    /// Whether nothing is received from it.
    #[cfg(test)]
    pub(in crate::shard) fn is_idle(&self) -> bool {
        self.receiving == Receiving::Idle
    }

    /// It sends more than it may, and is received from in small pieces until it has caught up.
    pub(in crate::shard) fn pace(&mut self) {
        self.paced = true;
    }

    /// Whether its last message was received straight into an allocation.
    #[inline]
    pub(in crate::shard) fn set_bulk(&mut self, bulk: bool) {
        self.bulk = bulk;
    }

    /// Whether it has ended.
    #[inline]
    #[must_use]
    pub(in crate::shard) fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead)
    }

    /// Its place in a session: that of one that is open.
    #[inline]
    #[must_use]
    pub(in crate::shard) fn seat(&self) -> Option<Seat> {
        match self.state {
            State::Open(seat) => Some(seat),
            _ => None,
        }
    }

    /// What is known of one that has not authenticated.
    #[must_use]
    pub(in crate::shard) fn newcomer(&self) -> Option<&Newcomer> {
        match &self.state {
            State::Newcomer(newcomer) => Some(newcomer),
            State::Closing(newcomer) => newcomer.as_deref(),
            State::Open(_) | State::Dead => None,
        }
    }

    /// As [`Connection::newcomer`].
    pub(in crate::shard) fn newcomer_mut(&mut self) -> Option<&mut Newcomer> {
        match &mut self.state {
            State::Newcomer(newcomer) => Some(newcomer),
            State::Closing(newcomer) => newcomer.as_deref_mut(),
            State::Open(_) | State::Dead => None,
        }
    }

    /// The newcomer, of one that is gone from here.
    pub(super) fn into_newcomer(self) -> Option<Box<Newcomer>> {
        match self.state {
            State::Newcomer(newcomer) => Some(newcomer),
            State::Closing(newcomer) => newcomer,
            State::Open(_) | State::Dead => None,
        }
    }
}
