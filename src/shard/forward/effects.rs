//! What sessions decide is carried out here.

use crate::proto::bucket::Rate;
use crate::ring::{Conn, Net};
use crate::session::{Effect, Farewell};
use crate::shard::Shard;
use crate::shard::bounds::{LINGER, REPLACED_LINGERING};
use crate::shard::close::CloseReason;
use crate::shard::net::connection::Phase;

impl<N: Net> Shard<N> {
    /// Carries out what follows from somebody's coming or going, in order.
    pub(in crate::shard) fn apply_all(&mut self, effects: Vec<Effect<Conn>>) {
        for effect in effects {
            self.apply(effect);
        }
    }

    /// Carries one effect out.
    pub(in crate::shard) fn apply(&mut self, effect: Effect<Conn>) {
        match effect {
            Effect::Tell(conn, message) => self.tell(conn, message),
            Effect::Close(conn, Farewell::Revoked) => self.close(conn, CloseReason::Revoked),
            Effect::Close(conn, Farewell::Replaced) => {
                let seat = self.net[conn].seat();
                self.close(conn, CloseReason::Replaced);
                if let Some(seat) = seat {
                    self.hurry_replaced(seat.session, conn);
                }
            }
            // They are about a message, and for whoever has it: `handle_message`.
            Effect::Forward(_) | Effect::Refuse(_) | Effect::Later(_) | Effect::Nothing => {}
        }
    }

    /// Of those who are replaced again and again only a few linger at a time.
    fn hurry_replaced(&mut self, session: u32, replaced: Conn) {
        let rate = Rate::per(REPLACED_LINGERING, LINGER, REPLACED_LINGERING);
        if let (Some(live), Some(rate)) = (self.sessions.session_mut(session), rate)
            && live.replacements.try_take(self.pulse.now(), &rate).is_err()
            && self.net.get(replaced).is_some_and(|it| it.phase() == Phase::Closing)
        {
            self.pulse.arm(replaced, self.pulse.tick() + 1);
        }
    }
}
