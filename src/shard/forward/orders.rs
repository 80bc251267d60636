//! What agents and devices ask of the relay itself, and what control has made of it.

use super::message::Ask;
use crate::control::message::{Changed, Request, Unchanged};
use crate::proto::token::TokenKey;
use crate::ring::{Conn, Net};
use crate::session::message::{ErrorCode, RelayMessage};
use crate::session::{Asked, Change, Order, Ordered, Refusal};
use crate::shard::Shard;
use crate::shard::bounds::ORDER_RETRY;

impl<N: Net> Shard<N> {
    /// Carries out what a connection has just asked for, or has control write it down first.
    #[cold]
    pub(super) fn carry_out(&mut self, conn: Conn) {
        let Some(ask) = self.asked.take() else { return };
        let Some(seat) = self.net.get(conn).and_then(|connection| connection.seat()) else { return };
        let Ask { order, reference, device } = *ask;
        let Some((key, ordered)) = self.sessions.handle_order(seat, conn, &order, &self.pulse) else { return };
        match ordered {
            Ordered::Done(effects) => {
                self.apply_all(effects);
                // Who says only how it is gets no answer.
                if !order.is_silent() {
                    self.tell_done(conn, key, matches!(order, Order::Bind { .. }), reference.as_deref());
                }
            }
            Ordered::Store(change) => {
                let serial = self.sessions.member(seat, conn).map_or(0, |(_, member)| member.serial);
                let asked = Asked { serial, reference: reference.clone(), device };
                if !self.ask_control(Request::Change { key, change, asked }) {
                    let busy = Unchanged {
                        code: ErrorCode::RelayBusy,
                        message: "the relay's store is busy; try again later".to_owned(),
                        retry_after_ms: Some(ORDER_RETRY.as_millis() as u64),
                    };
                    self.tell_unchanged(conn, &busy, &Asked { serial, reference, device });
                }
            }
            // Each page that was handed out is worth one: it costs its sender nothing.
            Ordered::Confirmed(confirmed) => return self.delete_confirmed(key, seat, confirmed),
            Ordered::Refused(Refusal { code, message, retry_after_ms }) => {
                self.counters.order_refused(code);
                let reference = reference.as_deref();
                self.tell(conn, RelayMessage::Error { code, message, retry_after_ms, reference, device });
            }
        }
        if order == Order::Awake {
            self.note_awake(conn, seat);
        }
        self.count_answer(conn);
    }

    /// What control has made of it.
    pub(super) fn handle_changed(&mut self, changed: Changed) {
        let Changed { key, change, asked, result } = changed;
        let done = result.is_ok().then_some(&change);
        let Some((asker, effects)) = self.sessions.handle_changed(key, asked.serial, done) else { return };
        self.apply_all(effects);
        let Some(asker) = asker else { return };
        match result {
            Ok(()) => {
                let is_bind = matches!(change, Change::Bind { .. });
                self.tell_done(asker, key, is_bind, asked.reference.as_deref());
            }
            Err(unchanged) => self.tell_unchanged(asker, &unchanged, &asked),
        }
    }

    /// Says that what was asked has been done. Who has bound the token hears of the mailbox, too.
    fn tell_done(&mut self, conn: Conn, key: TokenKey, is_bind: bool, reference: Option<&str>) {
        let mail = self.sessions.agent_mail(key).filter(|_| is_bind);
        self.tell(conn, RelayMessage::Ok { reference, mail });
    }

    fn tell_unchanged(&mut self, conn: Conn, unchanged: &Unchanged, asked: &Asked) {
        let &Unchanged { code, ref message, retry_after_ms } = unchanged;
        self.counters.order_refused(code);
        let (reference, device) = (asked.reference.as_deref(), asked.device);
        self.tell(conn, RelayMessage::Error { code, message, retry_after_ms, reference, device });
    }
}
