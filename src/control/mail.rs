//! Calls about the mailbox: those that it is for find their token here, and go on to the mailbox's thread, which answers them.

use super::Worker;
use super::message::Shards;
use crate::api::views::MailView;
use crate::api::{ApiAnswer, ApiCall, Caller, MailReceiver};
use crate::session::Party;
use crate::shelf::message::{Call, Request};

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// Hands a call on to the mailbox; where none runs, nothing waits.
    pub(super) fn pass_on(&mut self, from: Caller, call: ApiCall) {
        let (id, call, nothing) = match call {
            ApiCall::EmptyMail(id, of) => (Some(id), Call::Empty(of.map(party)), ApiAnswer::no_content()),
            ApiCall::Mail(id) => (id, Call::Show, ApiAnswer::json(200, &MailView::default())),
            other => {
                let answer = self.handle_call(other);
                return self.answer(from, answer);
            }
        };
        let key = match id.map(|id| self.find(id)).transpose() {
            Ok(row) => row.map(|row| row.hash.key()),
            Err(error) => return self.answer(from, error),
        };
        match self.control.mailbox.as_ref().filter(|mailbox| mailbox.is_started()) {
            Some(mailbox) => mailbox.post(Request::Call { from, key, call }),
            None => self.answer(from, nothing),
        }
    }
}

fn party(receiver: MailReceiver) -> Party {
    match receiver {
        MailReceiver::Agent => Party::Agent,
        MailReceiver::Device(device) => Party::Device(device),
    }
}
