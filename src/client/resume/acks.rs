//! When an acknowledgement leaves, and from when on numbered messages may: the agreement, and the receiver's rule 6.

use super::receiver::Taken;
use super::{ACK_BYTES, ACK_DELAY, ACK_INTERVAL_COUNTED, ACK_MESSAGES, REPEAT_MAX, REPEAT_MIN, REQUEST_INTERVAL};
use std::time::{Duration, Instant};

/// Where the ends are, on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No keys are agreed, or the peer is gone: nothing leaves.
    Away,
    /// Keys are agreed, and the peer's first acknowledgement has not come: one's own leaves then, and after this wait
    /// again.
    Waiting { repeat_at: Instant, wait: Duration },
    /// It has come: what is numbered may leave.
    Open,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Acks {
    phase: Phase,
    /// The relay counts them as messages: they are rarer.
    counted: bool,
    /// Numbers and bytes that no acknowledgement covers.
    numbers: usize,
    bytes: usize,
    /// When there has to be one.
    due: Option<Instant>,
    /// When the last one without a request left.
    last: Option<Instant>,
    /// Something is missing: it is asked for at this time.
    request_at: Option<Instant>,
    /// When something was asked for last.
    requested: Option<Instant>,
}

impl Acks {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Away,
            counted: true,
            numbers: 0,
            bytes: 0,
            due: None,
            last: None,
            request_at: None,
            requested: None,
        }
    }

    /// What is numbered may leave.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The relay's `auth.ok` has come, or the peer: there is no agreement with it.
    pub(crate) fn handle_away(&mut self) {
        self.phase = Phase::Away;
        self.request_at = None;
    }

    /// Whether the relay's `auth.ok` has `ext`.
    pub(crate) fn set_ext(&mut self, ext: bool) {
        self.counted = !ext;
    }

    /// Keys are agreed.
    pub(crate) fn handle_agreement(&mut self, now: Instant) {
        self.phase = Phase::Waiting { repeat_at: now, wait: REPEAT_MIN };
        self.request_at = None;
    }

    /// An acknowledgement of the peer, with the keys of the agreement.
    pub(crate) fn handle_ack(&mut self, now: Instant, resend: bool) {
        match self.phase {
            Phase::Away => {}
            Phase::Waiting { .. } => self.phase = Phase::Open,
            // One's own may be what was lost.
            Phase::Open if resend => self.due = Some(now),
            Phase::Open => {}
        }
    }

    /// A record has come. `missing`: it is to be asked for what is before it.
    pub(crate) fn handle_taken(&mut self, now: Instant, taken: &Taken, missing: bool) {
        if taken.numbers != 0 {
            self.numbers += taken.numbers;
            self.bytes += taken.bytes;
            let at = if self.numbers >= ACK_MESSAGES || self.bytes >= ACK_BYTES { now } else { now + ACK_DELAY };
            self.due = Some(self.due.map_or(at, |before| before.min(at)));
        }
        if !missing {
            self.request_at = None;
        } else if self.request_at.is_none() {
            self.request_at = Some(self.requested.map_or(now, |requested| (requested + REQUEST_INTERVAL).max(now)));
        }
    }

    /// All that was taken is to be acknowledged at once: this end is about to leave.
    pub(crate) fn hurry(&mut self, now: Instant) {
        if self.due.is_some() {
            (self.due, self.last) = (Some(now), None);
        }
    }

    /// A record leaves, and what was taken is acknowledged in it.
    pub(crate) fn handle_carried(&mut self) {
        (self.numbers, self.bytes, self.due) = (0, 0, None);
    }

    /// An acknowledgement leaves now; whether with a request.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<bool> {
        if self.poll_timeout()? > now {
            return None;
        }
        let mut request = self.request_at.is_some_and(|at| at <= now);
        if let Phase::Waiting { repeat_at, wait } = &mut self.phase
            && *repeat_at <= now
        {
            *repeat_at = now + *wait;
            *wait = (*wait * 2).min(REPEAT_MAX);
            request = true;
        }
        if request {
            self.requested = Some(now);
            self.request_at = self.request_at.map(|_| now + REQUEST_INTERVAL);
        } else {
            self.last = Some(now);
        }
        self.handle_carried();
        Some(request)
    }

    /// When [`poll`](Self::poll) has one.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let repeat_at = match self.phase {
            Phase::Away => return None,
            Phase::Waiting { repeat_at, .. } => Some(repeat_at),
            Phase::Open => None,
        };
        let earliest = self.last.filter(|_| self.counted).map(|last| last + ACK_INTERVAL_COUNTED);
        let due = self.due.map(|due| earliest.map_or(due, |earliest| earliest.max(due)));
        [repeat_at, due, self.request_at].into_iter().flatten().min()
    }
}
