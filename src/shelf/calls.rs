//! What operators ask of the mailbox.

use super::message::{Call, Report, Shards};
use super::{Worker, empty};
use crate::api::views::{MailReceiverView, MailView};
use crate::api::{ApiAnswer, Caller, ErrorCode, PAGE_MAX};
use crate::proto::token::TokenKey;
use crate::session::{Party, Pile};
use crate::store::StoreError;
use crate::sys::time::write_rfc3339;

/// When to ask again what the file cannot say now.
const RETRY_MS: u64 = 1000;

/// What waits for one receiver, as the file has it.
pub(super) struct Waiting {
    pub(super) key: TokenKey,
    pub(super) of: Party,
    pub(super) pile: Pile,
    /// Unix second at which the oldest was kept.
    pub(super) oldest_at: u64,
}

impl<S: Shards> Worker<S> {
    /// Answers an operator.
    pub(super) fn handle_call(&mut self, from: Caller, key: Option<TokenKey>, call: Call) {
        if self.file.is_none() {
            self.open();
        }
        let answer = match call {
            Call::Show => self.show(key),
            Call::Empty(of) => self.empty(key, of),
        };
        let answer = answer.unwrap_or_else(|error| {
            self.fail(&error);
            let message = "the mailbox cannot be used now; try again later";
            ApiAnswer::error(ErrorCode::StoreUnavailable, message, Some(RETRY_MS))
        });
        let _ = self.shelf.shards.post(from.shard, Report::Answer { serial: from.serial, answer });
    }

    fn show(&self, key: Option<TokenKey>) -> Result<ApiAnswer, StoreError> {
        let file = self.file.as_ref().ok_or_else(not_open)?;
        let mut all = file.waiting(key, PAGE_MAX + 1)?;
        let sum = match key {
            Some(_) => all.iter().fold(Pile::default(), |sum, one| Pile {
                messages: sum.messages + one.pile.messages,
                bytes: sum.bytes + one.pile.bytes,
            }),
            None => self.stored,
        };
        let more = all.len() > PAGE_MAX as usize;
        all.truncate(PAGE_MAX as usize);
        let view = |one: Waiting| MailReceiverView {
            token: one.key.id().to_string(),
            receiver: match one.of {
                Party::Agent => "agent".to_owned(),
                Party::Device(device) => device.to_string(),
            },
            messages: one.pile.messages,
            bytes: one.pile.bytes,
            oldest_at: write_rfc3339(one.oldest_at),
        };
        let receivers = all.into_iter().map(view).collect();
        Ok(ApiAnswer::json(200, &MailView { messages: sum.messages, bytes: sum.bytes, receivers, more }))
    }

    /// Throws away what waits. Its receivers are told that so much is lost.
    fn empty(&mut self, key: Option<TokenKey>, of: Option<Party>) -> Result<ApiAnswer, StoreError> {
        let (Some(key), Some(file)) = (key, &mut self.file) else { return Err(not_open()) };
        let removed = empty(file, key, of)?;
        let messages: u64 = removed.iter().map(|(.., pile)| pile.messages).sum();
        for (to, from, pile) in removed {
            self.took(pile);
            self.tell_owner(key, Report::Removed { key, to, from, pile });
            self.tell_owner(key, Report::Lost { key, of: to, count: pile.messages });
        }
        self.publish();
        tracing::info!(id = %key.id(), messages, "the operator has emptied a mailbox");
        Ok(ApiAnswer::no_content())
    }
}

fn not_open() -> StoreError {
    StoreError::Io("the file is not open".to_owned())
}
