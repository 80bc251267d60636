//! What a session does where the peer resumes: records and acknowledgements, in both directions.

use super::error::{ErrorPayload, not_kept};
use super::peer::Peer;
use super::{Action, Outcome};
use crate::devices::Lane;
use crate::envelope;
use crate::event::Event;
use crate::options::ACKS_REMEMBERED;
use crate::outgoing::Next;
use crate::resume::{self, ACK, Ack, Boot, Position, Record, RecordError, Refused, Taken};
use crate::secure::{NotSealed, Opened};
use crate::shared::Shared;
use serde_json::value::RawValue;
use std::time::{Duration, Instant};

/// Where nothing can be sealed for an absent peer, it is tried again after this.
const SEAL_AGAIN: Duration = Duration::from_secs(5);

impl Peer {
    pub(super) fn write_record(
        &mut self,
        now: Instant,
        kind: &str,
        id: &str,
        plaintext: &RawValue,
        is_piece: bool,
        keep: Option<&str>,
    ) -> Outcome {
        let payload = match self.secure.seal(kind, id, plaintext, &self.receiver) {
            Ok(payload) => payload,
            Err(NotSealed { again, .. }) => {
                // The key is worn out, or cannot be stored. What is numbered stays held, and follows later.
                self.acks.handle_away();
                let at = now + again.unwrap_or_default();
                self.key_exchange_at = Some(at);
                return Outcome::Wait(Some(at));
            }
        };
        let text = envelope::write_kept(self.address(), keep, kind, id, &payload);
        self.acks.handle_carried();
        self.handle_left(now, is_piece);
        self.handle_sent(now);
        Outcome::Send(text)
    }

    /// The next message that the relay is to keep for the absent peer.
    pub(super) fn poll_keep(&mut self, now: Instant, shared: &Shared) -> Outcome {
        let ack = self.receiver.position();
        let (kind, id, plaintext, keep) = match shared.outgoing(self.lane(), |outgoing| outgoing.poll_keep(now, ack)) {
            Next::Wait(until) => return Outcome::Wait(until),
            Next::Record { kind, id, plaintext, keep, .. } => (kind, id, plaintext, keep),
        };
        match self.secure.seal(&kind, &id, &plaintext, &self.receiver) {
            Ok(payload) => Outcome::Send(envelope::write_kept(self.address(), keep, &kind, &id, &payload)),
            Err(NotSealed { again, .. }) => {
                let after = again.unwrap_or(SEAL_AGAIN);
                let refusal = resume::Refusal::Full(Some(after));
                shared.outgoing(self.lane(), |outgoing| outgoing.sender.handle_refusal(now, &id, refusal));
                Outcome::Wait(Some(now + after))
            }
        }
    }

    /// The relay has kept a message for the peer.
    pub(super) fn handle_kept(&self, id: &str, shared: &Shared, actions: &mut Vec<Action>) {
        if self.has_mail() && shared.outgoing(self.lane(), |outgoing| outgoing.sender.handle_kept(id)) {
            actions.push(Action::Emit(Event::Kept { id: id.to_owned() }, 0));
        }
    }

    /// Sends the acknowledgement that is due, if one is.
    pub(super) fn acknowledge(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.has_keys() {
            return;
        }
        let Some(resend) = self.acks.poll(now) else { return };
        let plaintext = Ack { position: self.receiver.position(), resend }.write();
        let id = envelope::new_id();
        let payload = match self.secure.seal(ACK, &id, &plaintext, &self.receiver) {
            Ok(payload) => payload,
            // If the key is worn out, the next message sees to it.
            Err(NotSealed { again: None, .. }) => return,
            Err(NotSealed { again: Some(after), why }) => {
                self.acks.handle_away();
                self.key_exchange_at = Some(now + after);
                return actions.push(not_kept(why.unwrap_or_default()));
            }
        };
        actions.push(Action::Send(self.envelope(ACK, &id, &payload)));
        if self.ack_ids.len() == ACKS_REMEMBERED {
            self.ack_ids.pop_front();
        }
        self.ack_ids.push_back(id);
    }

    /// New keys are in use, with resume or without.
    pub(super) fn handle_agreement(&mut self, now: Instant, shared: &Shared, actions: &mut Vec<Action>) {
        let resume = self.secure.resumes();
        self.handle_away();
        self.set_online(); // Whatever the relay said of it last.
        let (had, abandoned) =
            shared.outgoing(self.lane(), |outgoing| (outgoing.resumes(), outgoing.handle_agreement(resume)));
        if resume {
            self.acks.handle_agreement(now);
        } else if had {
            actions.push(Action::Emit(Event::ResumeLost, 0));
        }
        let ids = abandoned.into_iter().filter(|held| held.stream.is_none()).map(|held| held.id);
        actions.extend(ids.map(|id| Action::Emit(Event::NotSent { id }, 0)));
    }

    /// An acknowledgement of a peer that resumes.
    pub(super) fn handle_ack(
        &mut self,
        now: Instant,
        plaintext: &RawValue,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) -> Result<(), RecordError> {
        let Ack { position, resend } = Ack::read(plaintext)?;
        // Under the last keys it is true all the same, and asks for nothing.
        let is_current = self.has_keys();
        acknowledged(now, self.lane(), &position, resend && is_current, shared, actions);
        if is_current {
            // This end's own first one may be due in this very moment: it leaves all the same.
            self.acknowledge(now, actions);
            self.acks.handle_ack(now, resend);
        }
        Ok(())
    }

    /// A numbered message.
    pub(super) fn handle_record(
        &mut self,
        now: Instant,
        kind: &str,
        id: Option<&str>,
        opened: &Opened,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) -> Result<(), RecordError> {
        let record = Record::read(&opened.payload)?;
        if let Some(position) = &record.ack {
            acknowledged(now, self.lane(), position, false, shared, actions);
        }
        let taken = self.receiver.handle(&record, kind, id);
        self.handle_taken(now, taken, shared, actions);
        Ok(())
    }

    /// Messages whose turn it is.
    pub(super) fn handle_taken(&mut self, now: Instant, taken: Taken, shared: &Shared, actions: &mut Vec<Action>) {
        self.acks.handle_taken(now, &taken, self.receiver.is_missing());
        let Taken { messages, missed, restarted, .. } = taken;
        if restarted {
            actions.push(Action::Emit(Event::PeerRestarted, 0));
        }
        if missed != 0 {
            actions.push(Action::Emit(Event::Missed { count: missed }, 0));
        }
        for resume::Message { kind, id, payload, sent_at } in messages {
            let opened = Opened { payload, authenticated: true, missed: 0, resume: false, renewed: false, sent_at };
            self.handle_payload(now, &kind, id.as_deref(), &opened, shared, actions);
        }
    }

    /// The relay has refused a message; whether it was numbered, and is sent again.
    pub(super) fn handle_refusal(
        &mut self,
        now: Instant,
        id: &str,
        error: &ErrorPayload,
        shared: &Shared,
        actions: &mut Vec<Action>,
    ) -> bool {
        let refusal = match error.code.as_str() {
            "RATE_LIMITED" | "DAILY_QUOTA_EXCEEDED" | "MONTHLY_QUOTA_EXCEEDED" => {
                resume::Refusal::Later(error.retry_after_ms.map(Duration::from_millis))
            }
            "PEER_OFFLINE" => resume::Refusal::Offline,
            "MAILBOX_FULL" => resume::Refusal::Full(error.retry_after_ms.map(Duration::from_millis)),
            "MESSAGE_TOO_LARGE" => resume::Refusal::Never { too_large: true },
            "INVALID_MESSAGE" => resume::Refusal::Never { too_large: false },
            _ => resume::Refusal::Other(error.retry_after_ms.map(Duration::from_millis)),
        };
        match shared.outgoing(self.lane(), |outgoing| outgoing.sender.handle_refusal(now, id, refusal)) {
            Refused::Unknown => false,
            Refused::Held => {
                if refusal == resume::Refusal::Offline {
                    self.acks.handle_away();
                }
                true
            }
            Refused::Void(held) => {
                if held.stream.is_none() {
                    actions.push(Action::Emit(Event::NotSent { id: held.id }, 0));
                }
                false
            }
        }
    }
}

/// The peer has taken what was sent up to this position.
fn acknowledged(
    now: Instant,
    lane: Lane,
    position: &Position,
    resend: bool,
    shared: &Shared,
    actions: &mut Vec<Action>,
) {
    let (taken, lost) = shared.outgoing(lane, |outgoing| outgoing.handle_ack(now, position, resend, Boot::draw));
    actions.extend(taken.into_iter().map(|held| Action::Emit(Event::Delivered { id: held.id }, 0)));
    actions.extend(lost.into_iter().map(|held| Action::Emit(Event::NotSent { id: held.id }, 0)));
}
