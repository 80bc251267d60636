//! Tokens that are shared with other relays, and clients that cannot be let in by what is known here: another relay may have
//! made the token a moment ago. A refusal is final for a client, so what all relays have written until then is waited for.

use super::auth::Claim;
use crate::control::message::Request;
use crate::ring::{Conn, Net};
use crate::shard::Shard;
use crate::shard::net::connection::{Pauses, Phase};

impl<N: Net> Shard<N> {
    /// Whether the connection's refusal waits for what other relays have written. What it sends waits, too.
    pub(in crate::shard) fn asks_first(&mut self, conn: Conn, claim: &Claim) -> bool {
        if self.shared.cluster.is_none() {
            return false;
        }
        let shard = self.id;
        let Some(newcomer) = self.net[conn].newcomer_mut().filter(|newcomer| !newcomer.asked) else { return false };
        newcomer.asked = true;
        let from = newcomer.caller(shard);
        if self.ask_control(Request::CatchUp(from)) {
            self.door.asking.insert(from.serial, (conn, *claim));
            self.net.pause(conn, Pauses::CONTROL);
        } else {
            self.put_off(conn);
        }
        true
    }

    /// What all relays had written when it was asked is known here now, or that cannot be had.
    pub(in crate::shard) fn handle_caught_up(&mut self, serial: u64, is_current: bool) {
        let Some((conn, claim)) = self.door.asking.remove(&serial) else { return };
        self.net.unpause(conn, Pauses::CONTROL);
        if self.net[conn].phase() != Phase::Auth {
            return;
        }
        match is_current {
            true => self.admit(conn, claim),
            false => self.put_off(conn),
        }
    }
}
