//! The life of a connection: which phase may follow which, and the one place where a phase changes.

use super::{Connection, Seat, State};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::door::newcomer::{Newcomer, Stage, Step};
use crate::shard::mutation::{Mutation, is_made};

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

/// What a connection is led to, with what it has there.
pub(in crate::shard) enum Entry {
    /// A stage before authentication, or the echo.
    Stage(Stage),
    /// A step of its HTTP requests.
    Http(Step),
    /// It has authenticated.
    Open(Seat),
    /// See [`Phase::Closing`].
    Closing,
    /// See [`Phase::Dead`].
    Dead,
}

impl Entry {
    fn phase(&self) -> Phase {
        match self {
            Self::Stage(stage) => stage.phase(),
            Self::Http(step) => step.phase(),
            Self::Open(_) => Phase::Open,
            Self::Closing => Phase::Closing,
            Self::Dead => Phase::Dead,
        }
    }
}

/// What a connection had in the phase that it has left, and has no more.
pub(in crate::shard) struct Left {
    /// That phase.
    pub(in crate::shard) phase: Phase,
    /// Its place in a session.
    pub(in crate::shard) seat: Option<Seat>,
    /// It is no newcomer any more.
    pub(in crate::shard) newcomer: Option<Box<Newcomer>>,
}

impl<N: Net> Shard<N> {
    /// Leads a connection to its next phase, and keeps the counts and lists that follow from it. The one place where a
    /// phase changes. `None`: nothing leads there, and all stays as it was.
    pub(in crate::shard) fn transition(&mut self, conn: Conn, entry: Entry) -> Option<Left> {
        let connection = &mut self.net[conn];
        let (from, to) = (connection.phase(), entry.phase());
        if !from.leads_to(to) && !is_made(Mutation::AnyPhase) {
            return None;
        }
        if from == Phase::AwaitingControl
            && let Some(newcomer) = connection.newcomer()
        {
            // Nobody waits for an answer any more, whether it has come or not.
            self.door.forget_call(newcomer.serial());
        }
        self.counters.closing(to == Phase::Closing, from == Phase::Closing);
        let (seat, newcomer) = connection.enter(entry);
        if let Some(newcomer) = &newcomer {
            self.leave_door(newcomer);
        }
        Some(Left { phase: from, seat, newcomer })
    }
}

impl Connection {
    /// Gives what it has no more.
    fn enter(&mut self, entry: Entry) -> (Option<Seat>, Option<Box<Newcomer>>) {
        let (seat, newcomer) = match std::mem::replace(&mut self.state, State::Dead) {
            State::Newcomer(newcomer) => (None, Some(newcomer)),
            State::Open(seat) => (Some(seat), None),
            State::Closing(newcomer) => (None, newcomer),
            State::Dead => (None, None),
        };
        let (state, left) = match (entry, newcomer) {
            (Entry::Stage(stage), Some(mut newcomer)) => {
                newcomer.enter(stage);
                (State::Newcomer(newcomer), None)
            }
            (Entry::Http(step), Some(mut newcomer)) => {
                newcomer.enter_http(step);
                (State::Newcomer(newcomer), None)
            }
            (Entry::Closing, kept) => (State::Closing(kept), None),
            (Entry::Open(seat), left) => (State::Open(seat), left),
            (Entry::Dead | Entry::Stage(_) | Entry::Http(_), left) => (State::Dead, left),
        };
        self.state = state;
        (seat, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::token::Role;

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

    fn connection(stage: Stage) -> Connection {
        let address = std::net::IpAddr::from([192, 0, 2, 1]);
        Connection::new(0, 0, Box::new(Newcomer::new(1, std::time::Instant::now(), 0, address, stage)))
    }

    #[test]
    fn a_newcomer_is_one_until_it_has_authenticated_or_ended() {
        let seat = Seat { session: 7, role: Role::Agent };
        let mut opened = connection(Stage::Auth);
        let (no_seat, newcomer) = opened.enter(Entry::Open(seat));
        assert!(no_seat.is_none() && newcomer.is_some_and(|newcomer| newcomer.serial() == 1));
        assert_eq!((opened.phase(), opened.seat()), (Phase::Open, Some(seat)));
        assert!(opened.newcomer().is_none());
        let (left, newcomer) = opened.enter(Entry::Closing);
        assert!(left == Some(seat) && newcomer.is_none() && opened.seat().is_none());

        let mut refused = connection(Stage::Auth);
        let (_, newcomer) = refused.enter(Entry::Closing);
        assert!(newcomer.is_none() && refused.newcomer().is_some(), "it counts to its end");
        let (_, newcomer) = refused.enter(Entry::Dead);
        assert!(newcomer.is_some() && refused.newcomer().is_none() && refused.is_dead());
    }
}
