//! Errors: what the relay refuses, what the peer complains about, and what this end tells its owner.

use super::Action;
use super::peer::Peer;
use crate::envelope;
use crate::event::{Event, PeerError, Speaker};
use crate::options::{PACED_FOR, RETRIES_MAX, RETRY_AFTER_MAX};
use crate::outgoing::Entry;
use crate::secure::Refusal;
use crate::shared::Shared;
use coralmux_e2e::DECRYPTION_FAILED;
use serde_json::Value;
use std::time::{Duration, Instant};

/// The `code` of a message that cannot be read.
pub(super) const INVALID_MESSAGE: &str = "INVALID_MESSAGE";

/// A `chat.error`. What cannot be read of it is missing.
#[derive(Default)]
pub(super) struct ErrorPayload {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) retry_after_ms: Option<u64>,
    about: Option<String>,
}

impl ErrorPayload {
    pub(super) fn read(payload: &Value) -> Self {
        let text = |name: &str| payload[name].as_str().map(str::to_owned);
        Self {
            code: text("code").unwrap_or_default(),
            message: text("message").unwrap_or_default(),
            retry_after_ms: whole_number(&payload["retry_after_ms"]),
            about: text("ref"),
        }
    }
}

/// A number that is not below 0, in whatever way it is written.
pub(super) fn whole_number(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64);
    value.as_u64().or_else(float)
}

impl Peer {
    pub(super) fn handle_error(
        &mut self,
        now: Instant,
        error: ErrorPayload,
        authenticated: bool,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) {
        let retry_after = error.retry_after_ms.map(Duration::from_millis);
        let soon = retry_after.filter(|after| *after <= RETRY_AFTER_MAX && error.code == "RATE_LIMITED");
        let is_key_exchange = self.key_exchange.is_some() && error.about == self.key_exchange;
        let mut sent_again = false;
        if let Some(after) = soon.filter(|_| !authenticated) {
            let until = self.message_at.unwrap_or(now).max(now + after);
            let interval = self.pace.map_or(after, |(before, _)| before.max(after));
            self.pace = Some((interval, now + PACED_FOR));
            self.message_at = Some(until);
            if is_key_exchange {
                self.key_exchange_at = Some(until);
                return;
            }
            if let Some(mut entry) = error.about.as_deref().and_then(|id| self.take_recent(id)) {
                entry.refusals += 1;
                sent_again = entry.refusals <= RETRIES_MAX;
                let action = if sent_again {
                    Action::Again(self.lane(), entry)
                } else {
                    Action::Emit(Event::NotSent { id: entry.id }, 0)
                };
                actions.push(action);
            }
        }
        if is_key_exchange && error.code == "PEER_OFFLINE" {
            return; // Nobody was there to hear it, which is normal.
        }
        if error.code == DECRYPTION_FAILED && !authenticated {
            self.doubt(now); // The word of nobody in particular, so it is no more than a hint.
        }
        if !authenticated && let Some(id) = error.about.as_deref() {
            if self.ack_ids.iter().any(|ack| ack == id) {
                return; // It is said again, if the peer wants to hear it.
            }
            sent_again |= self.handle_refusal(now, id, &error, shared, actions);
        }
        let bytes = error.message.len() + error.code.len();
        let event = PeerError {
            code: error.code,
            message: error.message,
            retry_after,
            about: error.about,
            by: if authenticated { Speaker::Peer } else { Speaker::Relay },
            sent_again,
        };
        actions.push(Action::Emit(Event::Error(event), bytes));
    }

    pub(super) fn take_recent(&mut self, id: &str) -> Option<Entry> {
        let at = self.recent.iter().position(|entry| entry.id == id)?;
        let entry = self.recent.remove(at)?;
        self.recent_bytes -= entry.bytes();
        Some(entry)
    }
}

pub(super) fn refuse(peer: &Peer, refusal: Refusal, about: Option<&str>, actions: &mut Vec<Action>) {
    if let Some(complaint) = refusal.complaint {
        actions.push(Action::Send(peer.envelope(complaint.kind, &envelope::new_id(), &complaint.payload)));
    }
    if refusal.worth_telling {
        let error = PeerError {
            code: DECRYPTION_FAILED.to_owned(),
            message: refusal.message,
            retry_after: None,
            about: about.map(str::to_owned),
            by: Speaker::Client,
            sent_again: false,
        };
        actions.push(Action::Emit(Event::Error(error), 0));
    }
}

/// Tells the owner that nothing can be sent, for the keys cannot be kept.
pub(super) fn not_kept(message: String) -> Action {
    let code = "STORE".to_owned();
    let error = PeerError { code, message, retry_after: None, about: None, by: Speaker::Client, sent_again: false };
    Action::Emit(Event::Error(error), 0)
}

/// Tells the owner that a message was passed over.
pub(super) fn unreadable(about: Option<&str>, why: &str) -> Action {
    let error = PeerError {
        code: INVALID_MESSAGE.to_owned(),
        message: format!("a message was skipped because it cannot be read: {why}"),
        retry_after: None,
        about: about.map(str::to_owned),
        by: Speaker::Client,
        sent_again: false,
    };
    Action::Emit(Event::Error(error), 0)
}
