//! TLS handshakes: a few steps in a turn, so that nobody's messages wait for them.

use super::newcomer::{Stage, Step};
use crate::http;
use crate::ring::chunk::{Chunk, OwnedBuf};
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::bounds::{BUSY_TURNS_A_HANDSHAKE, HANDSHAKE_STEPS_A_CALM_TURN, HANDSHAKE_STEPS_A_TURN};
use crate::shard::close::CloseReason;
use crate::shard::net::connection::{Entry, Phase};
use crate::tls::Tls;
use crate::tls::handshake::{Done, Failure, Handshake, Progress};
use crate::tls::outcome::Outcome;
use std::collections::VecDeque;

/// The handshakes that have something to do.
#[derive(Default)]
pub(super) struct Handshakes {
    /// Connections with a step to do: those that have begun before those that have not. Some may have ended.
    waiting: VecDeque<Conn>,
    /// Turns in which messages were forwarded since the last step.
    busy_turns: u32,
}

impl Handshakes {
    /// Whether none waits for its turn.
    #[must_use]
    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    fn queue(&mut self, conn: Conn, has_begun: bool) {
        // The costly part comes first in a handshake, so that who has it behind him does not wait long.
        match has_begun {
            true => self.waiting.push_front(conn),
            false => self.waiting.push_back(conn),
        }
    }
}

impl<N: Net> Shard<N> {
    /// Begins TLS on a connection that has just come; `false`: it cannot.
    #[must_use]
    pub(super) fn begin_handshake(&mut self, conn: Conn) -> bool {
        let Some(config) = self.shared.tls.clone() else { return false };
        let Ok(handshake) = Handshake::new(config) else { return false };
        self.net.set_tls(conn, Tls::Handshake(Box::new(handshake)));
        self.transition(conn, Entry::Stage(Stage::Handshake)).is_some()
    }

    pub(in crate::shard) fn handle_handshake_bytes(&mut self, conn: Conn, bytes: &[u8]) {
        self.net[conn].last_heard = self.pulse.tick();
        let Some(handshake) = self.net.handshake(conn) else { return };
        match handshake.take(bytes) {
            Err(failure) => self.fail_handshake(conn, &failure, Vec::new()),
            Ok(()) if handshake.is_ready() => {
                let has_begun = handshake.has_begun();
                self.door.handshakes.queue(conn, has_begun);
            }
            Ok(()) => {}
        }
    }

    /// Does a few steps of handshakes, or where messages were `forwarded` in this turn one, and that only when it has been
    /// put off often enough: what established connections send waits for those few steps at the most, or where none of them has
    /// sent anything lately, for the steps of a calm turn.
    pub(in crate::shard) fn step_handshakes(&mut self, forwarded: bool) {
        if self.door.handshakes.is_quiet() {
            return;
        }
        let mut steps = match self.turns.is_calm(self.pulse.now()) {
            true => HANDSHAKE_STEPS_A_CALM_TURN,
            false => HANDSHAKE_STEPS_A_TURN,
        };
        if forwarded {
            if self.door.handshakes.busy_turns < BUSY_TURNS_A_HANDSHAKE {
                self.door.handshakes.busy_turns += 1;
                return;
            }
            steps = 1;
        }
        self.door.handshakes.busy_turns = 0;
        while steps > 0
            && let Some(conn) = self.door.handshakes.waiting.pop_front()
        {
            if self.net.is_handshake_ready(conn) && self.net[conn].phase() == Phase::Handshake {
                self.step_handshake(conn);
                self.arm(conn);
                steps -= 1;
            }
        }
    }

    fn step_handshake(&mut self, conn: Conn) {
        let Some(handshake) = self.net.handshake(conn) else { return };
        let mut out = Vec::new();
        let progress = handshake.step(&mut out);
        if let Progress::Failed(failure) = progress {
            return self.fail_handshake(conn, &failure, out);
        }
        if progress == Progress::Done {
            return self.finish_handshake(conn, out);
        }
        if let Some(newcomer) = self.net[conn].newcomer_mut() {
            newcomer.await_client(self.pulse.tick());
        }
        if !out.is_empty() {
            self.net.push_sealed(conn, out);
        }
        if progress == Progress::More {
            self.door.handshakes.queue(conn, true);
        }
    }

    fn finish_handshake(&mut self, conn: Conn, out: Vec<u8>) {
        let Some(Tls::Handshake(handshake)) = self.net.take_tls(conn) else { return };
        let (traffic, done, rest) = match handshake.finish() {
            Ok(finished) => finished,
            Err(fault) => {
                tracing::warn!(%fault, "a TLS handshake could not be finished");
                return self.end(conn, CloseReason::Gone);
            }
        };
        let is_tls13 = traffic.is_tls13();
        self.net.set_tls(conn, Tls::Traffic(Box::new(traffic)));
        self.transition(conn, Entry::Http(Step::Reading));
        if let Some(newcomer) = self.net[conn].newcomer() {
            self.counters.shook_hands(newcomer.took(self.pulse.instant()));
        }
        self.counters.handshake_ended(match done {
            Done::Full => Outcome::Full,
            Done::Resumed => Outcome::Resumed,
            Done::Challenge => Outcome::Challenge,
        });
        if is_tls13 && !out.is_empty() {
            // Only a ticket, for which nobody waits: it leaves with the first answer.
            self.net.keep_sealed(conn, out);
        } else if !out.is_empty() {
            self.net.push_sealed(conn, out);
        }
        if done == Done::Challenge {
            // RFC 8737, section 3: nothing is read from it.
            return self.begin_closing(conn, CloseReason::Gone);
        }
        if !rest.is_empty() {
            self.handle_sealed(conn, Chunk::Owned(OwnedBuf::from(rest)));
        }
    }

    /// A handshake has come to nothing: the client is told why, as far as there is a way.
    #[cold]
    fn fail_handshake(&mut self, conn: Conn, failure: &Failure, alert: Vec<u8>) {
        self.counters.handshake_ended(match failure {
            Failure::PlainHttp => Outcome::PlainHttp,
            Failure::ProxyHeader => Outcome::ProxyHeader,
            Failure::NotTls => Outcome::NotTls,
            Failure::Client(_) => Outcome::Client,
            Failure::Refused(_) => Outcome::Refused,
        });
        let address = self.net[conn].newcomer().map(|newcomer| tracing::field::display(newcomer.address));
        tracing::debug!(address, %failure, "TLS handshake failed");
        let answer = match failure {
            Failure::PlainHttp => http::tls_wanted(),
            _ => alert,
        };
        if !answer.is_empty() {
            self.net.push_sealed(conn, answer);
        }
        self.begin_closing(conn, CloseReason::Handshake);
    }
}
