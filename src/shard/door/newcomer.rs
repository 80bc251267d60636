//! A connection that has not authenticated: what is known of it, and at which stage it is, with what is needed there.

use super::handover::Destination;
use crate::api::Caller;
use crate::http::Reply;
use crate::shard::net::connection::Phase;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// See the module.
pub(in crate::shard) struct Newcomer {
    /// Unique on this shard; names the connection to other threads.
    pub(super) serial: u64,
    /// When it was accepted, and from the upgrade on, when that was.
    pub(super) since: Instant,
    /// Where the connection comes from: in the word of the PROXY protocol, where a trusted proxy gave one.
    pub(super) peer: IpAddr,
    /// Whom the last request counts for: the peer, or whom it named where it is a trusted proxy.
    pub(super) address: IpAddr,
    /// How it was let in.
    pub(super) admission: Admission,
    /// Whether it came in on the echo listener.
    pub(super) echo: bool,
    /// Whether it came in on a listener that speaks TLS.
    pub(super) tls: bool,
    /// Whether it was asked of other relays whether they know its token.
    pub(super) asked: bool,
    /// The tick since which the client has been awaited: accepted, answered, upgraded.
    pub(super) waits_since: u32,
    /// Where it is.
    stage: Stage,
}

/// How a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is one of those that have not authenticated, and of this address, if any. Given back on authentication or at the end.
    Counted(Option<IpAddr>),
    /// Over a cap: it is only told so.
    TurnedAway,
}

/// A stage before authentication, each with what is needed there.
pub(in crate::shard) enum Stage {
    /// The PROXY protocol's header, of which so much has come.
    Header(Vec<u8>),
    /// The TLS handshake.
    Handshake,
    /// HTTP requests.
    Http(Http),
    /// Upgraded; the first message is read.
    Auth,
    /// Its refusal waits: a text, or `None` where it is told to come back later.
    Slowed(Option<&'static str>),
    /// On its way to the shard that owns its token.
    Moving(Box<Destination>),
    /// Upgraded on the echo listener, where nobody authenticates.
    Echo,
}

/// The HTTP requests of a connection.
pub(in crate::shard) struct Http {
    /// Bytes that are not parsed yet.
    pub(super) unread: Vec<u8>,
    /// How many of them there have to be before they are worth parsing, unless a head ends before.
    pub(super) parse_at: usize,
    /// Whether the connection goes on after the response under way.
    pub(super) keep_alive: bool,
    /// Whether the request under way asked for the head only.
    pub(super) head_only: bool,
    /// A request has been answered.
    pub(super) answered: bool,
    step: Step,
}

/// Where an HTTP request is.
pub(in crate::shard) enum Step {
    /// The next one is read.
    Reading,
    /// It is with the control thread.
    AwaitingControl,
    /// Its answer is held back for a while.
    Held(Reply),
    /// Its answer is on its way: this is what is not queued of it yet.
    Answering(&'static [u8]),
}

impl Newcomer {
    /// One that has come from `address`, at `tick`, and is counted for nobody.
    pub(in crate::shard) fn new(serial: u64, since: Instant, tick: u32, address: IpAddr, stage: Stage) -> Self {
        Self {
            serial,
            since,
            peer: address,
            address,
            admission: Admission::Counted(None),
            echo: false,
            tls: false,
            asked: false,
            waits_since: tick,
            stage,
        }
    }

    /// Unique on this shard; names the connection to other threads and in the log.
    pub(in crate::shard) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whom it counts for.
    pub(in crate::shard) fn address(&self) -> IpAddr {
        self.address
    }

    /// How long its stage took, to `now`.
    pub(in crate::shard) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Whether it is only told that there is no room.
    pub(in crate::shard) fn is_turned_away(&self) -> bool {
        self.admission == Admission::TurnedAway
    }

    /// The address that it is counted for, if any.
    pub(super) fn counted(&self) -> Option<IpAddr> {
        match self.admission {
            Admission::Counted(address) => address,
            Admission::TurnedAway => None,
        }
    }

    /// From `tick` on it is the client that is waited for.
    pub(in crate::shard) fn await_client(&mut self, tick: u32) {
        self.waits_since = tick;
    }

    /// Who waits for an answer of control.
    #[must_use]
    pub(super) fn caller(&self, shard: u16) -> Caller {
        Caller { shard, serial: self.serial }
    }

    /// Where it is in its life.
    #[must_use]
    pub(in crate::shard) fn phase(&self) -> Phase {
        self.stage.phase()
    }

    /// Its HTTP requests.
    pub(super) fn http(&self) -> Option<&Http> {
        match &self.stage {
            Stage::Http(http) => Some(http),
            _ => None,
        }
    }

    /// As [`Newcomer::http`].
    pub(super) fn http_mut(&mut self) -> Option<&mut Http> {
        match &mut self.stage {
            Stage::Http(http) => Some(http),
            _ => None,
        }
    }

    /// The header of the PROXY protocol, as far as it has come.
    pub(super) fn header_mut(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.stage {
            Stage::Header(header) => Some(header),
            _ => None,
        }
    }

    /// The refusal that waits.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        match self.stage {
            Stage::Slowed(refusal) => refusal,
            _ => None,
        }
    }

    /// Where it goes.
    pub(in crate::shard) fn destination_mut(&mut self) -> Option<&mut Destination> {
        match &mut self.stage {
            Stage::Moving(destination) => Some(destination),
            _ => None,
        }
    }

    /// Where it goes, of one that is gone from here.
    pub(super) fn into_destination(self) -> Option<Box<Destination>> {
        match self.stage {
            Stage::Moving(destination) => Some(destination),
            _ => None,
        }
    }

    /// The answer under way is the last one.
    pub(in crate::shard) fn end_requests(&mut self) {
        if let Some(http) = self.http_mut() {
            http.keep_alive = false;
        }
    }

    /// For [`Shard::transition`](crate::shard::Shard::transition) alone.
    pub(in crate::shard) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// For [`Shard::transition`](crate::shard::Shard::transition) alone.
    pub(in crate::shard) fn enter_http(&mut self, step: Step) {
        match &mut self.stage {
            Stage::Http(http) => http.step = step,
            _ => self.stage = Stage::Http(Http::new(step)),
        }
    }
}

impl Stage {
    /// The phase that it is.
    #[must_use]
    pub(in crate::shard) fn phase(&self) -> Phase {
        match self {
            Self::Header(_) => Phase::Header,
            Self::Handshake => Phase::Handshake,
            Self::Http(http) => http.step.phase(),
            Self::Auth => Phase::Auth,
            Self::Slowed(_) => Phase::Slowed,
            Self::Moving(_) => Phase::Moving,
            Self::Echo => Phase::Echo,
        }
    }
}

impl Http {
    fn new(step: Step) -> Self {
        Self { unread: Vec::new(), parse_at: 0, keep_alive: true, head_only: false, answered: false, step }
    }

    /// Whether bytes behind the first `seen` have brought enough for another look: parsing each byte that trickles in with
    /// all those before it would be quadratic work. Heads end at an empty line, and so do bodies in chunks.
    pub(super) fn is_worth_parsing(&self, seen: usize) -> bool {
        let fresh = &self.unread[seen.saturating_sub(3)..];
        let is_empty_line = |window: &[u8]| window.ends_with(b"\n\r\n") || window.ends_with(b"\n\n");
        let ends = (1..=fresh.len()).any(|end| is_empty_line(&fresh[..end]));
        self.unread.len() >= self.parse_at || ends
    }

    /// Whether a request has begun, or none was ever answered.
    pub(super) fn has_begun(&self) -> bool {
        !self.answered || !self.unread.is_empty()
    }

    /// Takes the answer that is held back.
    pub(super) fn take_held(&mut self) -> Reply {
        match &mut self.step {
            Step::Held(reply) => std::mem::take(reply),
            _ => Reply::default(),
        }
    }

    /// What is not queued of the answer under way.
    pub(super) fn unqueued(&self) -> &'static [u8] {
        match self.step {
            Step::Answering(rest) => rest,
            _ => &[],
        }
    }

    /// So much is left of it.
    pub(super) fn set_unqueued(&mut self, left: &'static [u8]) {
        if let Step::Answering(rest) = &mut self.step {
            *rest = left;
        }
    }
}

impl Step {
    /// The phase that it is.
    #[must_use]
    pub(in crate::shard) fn phase(&self) -> Phase {
        match self {
            Self::Reading => Phase::Http,
            Self::AwaitingControl => Phase::AwaitingControl,
            Self::Held(_) => Phase::Held,
            Self::Answering(_) => Phase::Answering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_what_they_know_from_step_to_step_and_leave_nothing_to_what_follows() {
        let address = IpAddr::from([192, 0, 2, 1]);
        let mut newcomer = Newcomer::new(1, Instant::now(), 0, address, Stage::Header(b"PROXY".to_vec()));
        newcomer.enter_http(Step::Reading);
        assert!(newcomer.header_mut().is_none());
        newcomer.http_mut().unwrap().unread.extend_from_slice(b"GET");
        newcomer.enter_http(Step::Held(Reply { head: b"HTTP".to_vec(), body: b"" }));
        let http = newcomer.http_mut().unwrap();
        assert_eq!(http.take_held().head, b"HTTP");
        assert_eq!(http.unread, b"GET");
        newcomer.enter_http(Step::Answering(b"rest"));
        let http = newcomer.http().unwrap();
        assert_eq!((http.unread.as_slice(), http.unqueued()), (b"GET".as_slice(), b"rest".as_slice()));
        newcomer.enter_http(Step::Reading);
        assert_eq!(newcomer.http().unwrap().unqueued(), b"");
        newcomer.enter(Stage::Auth);
        assert!(newcomer.http().is_none() && newcomer.phase() == Phase::Auth);
    }
}
