//! Versions 1 and 2, and no encryption at all.

use super::{Opened, Refusal, Step, empty};
use crate::envelope::{new_id, random};
use crate::event::Event;
use crate::options::{Encryption, HEAL_INTERVAL, Options, PADDING_BYTES};
use coralmux_e2e::{End, OpenError, Protection};
use coralmux_proto::token::Role;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Display;
use std::time::Instant;

/// The state of a pair's encryption, over all of its connections.
#[derive(Debug)]
pub(crate) struct Pair {
    role: Role,
    /// `None`: everything goes in clear.
    end: Option<End>,
    /// The present peer has agreed to the keys; those of the last one are worth nothing to a new one.
    agreed: bool,
    /// From when on a phone may open anew because of a doubt.
    heal_from: Option<Instant>,
}

impl Pair {
    pub(super) fn new(options: &Options) -> Self {
        let secret = match &options.encryption {
            Encryption::Off => return Self { role: options.role, end: None, agreed: false, heal_from: None },
            // A device has no pair's keys; what comes of these nothing is sealed with.
            Encryption::Version1 | Encryption::Device => None,
            Encryption::Version2(secret) => Some(secret.clone()),
        };
        let fill = |bytes: &mut [u8]| random(bytes);
        let end = match options.role {
            Role::Phone => End::phone(&options.token, secret, fill),
            Role::Agent => End::agent(&options.token, secret, fill),
        };
        let end = end.with_padding(PADDING_BYTES).with_resume();
        Self { role: options.role, end: Some(end), agreed: false, heal_from: None }
    }

    /// The relay has let this end in, or the peer has come, or has come anew.
    pub(super) fn handle_peer(&mut self) -> Step {
        self.agreed = false;
        let reply = self.end.as_mut().and_then(End::handle_online);
        Step { send: reply.map(|reply| (new_id(), reply)), ..Step::default() }
    }

    /// The newest `key_exchange` of this end did not reach the peer.
    pub(super) fn retry(&mut self) -> Step {
        let id = new_id();
        let reply = self.end.as_mut().and_then(|end| end.retry(&id));
        Step { send: reply.map(|reply| (id, reply)), ..Step::default() }
    }

    /// There is a sign that the agent has other keys than this phone. When to [`retry`](Self::retry), if at all: until
    /// there is an answer, nothing is ready to be sent. The sign may be anybody's, so it is followed only now and then.
    pub(super) fn doubt(&mut self, now: Instant) -> Option<Instant> {
        if !self.end.as_mut()?.doubt() {
            return None;
        }
        let at = self.heal_from.map_or(now, |from| from.max(now));
        self.heal_from = Some(at + HEAL_INTERVAL);
        Some(at)
    }

    /// A `key_exchange` of the peer.
    pub(super) fn handle_key_exchange(&mut self, id: Option<&str>, payload: Option<&RawValue>) -> Step {
        let Some(end) = &mut self.end else { return Step::default() };
        let reply_id = new_id();
        match end.handle_key_exchange(id, payload, &reply_id) {
            Ok(step) => {
                self.agreed |= step.agreed;
                let version = if end.protection() == Protection::Verified { 2 } else { 1 };
                let secured = step.agreed.then(|| (version, end.fingerprint().map(|number| number.to_string())));
                let told = step.devices.then_some(Event::CanBeDevice);
                let send = step.reply.map(|reply| (reply_id, reply));
                Step { send, agreed: step.agreed, secured, told, ..Step::default() }
            }
            Err(error) => Step { refused: Some(refusal(end, error)), ..Step::default() },
        }
    }

    /// Whether messages can be sealed for the present peer, or need not be.
    pub(super) fn is_ready(&self) -> bool {
        self.end.as_ref().is_none_or(|end| match end.protection() {
            Protection::Waiting => false,
            Protection::Clear => true,
            Protection::Unverified | Protection::Verified => self.agreed,
        })
    }

    /// The newest keys were agreed together with resume.
    pub(super) fn resumes(&self) -> bool {
        self.end.as_ref().is_some_and(End::resumes)
    }

    /// What is sent in place of `payload`. `None`: it cannot be sealed.
    pub(super) fn seal<'a>(&mut self, kind: &str, payload: &'a RawValue) -> Option<Cow<'a, RawValue>> {
        match &mut self.end {
            None => Some(Cow::Borrowed(payload)),
            Some(end) => end.seal(kind, Some(payload)).ok().map(Cow::Owned),
        }
    }

    /// What the peer's `payload` says.
    pub(super) fn open(&mut self, kind: &str, payload: Option<&RawValue>) -> Result<Opened, Refusal> {
        let Some(end) = &mut self.end else {
            let payload = payload.map_or_else(empty, ToOwned::to_owned);
            return Ok(Opened {
                payload,
                authenticated: false,
                missed: 0,
                resume: false,
                renewed: false,
                sent_at: None,
            });
        };
        match end.open(kind, payload) {
            Ok(opened) => Ok(Opened {
                payload: opened.payload,
                authenticated: opened.protection != Protection::Clear,
                missed: opened.missed,
                resume: opened.resume,
                renewed: false,
                sent_at: None,
            }),
            // Meant for the phone's last run, or for its last connection.
            Err(OpenError::NoKey) if self.role == Role::Phone => {
                Err(Refusal { message: String::new(), complaint: None, worth_telling: false, of_other_keys: false })
            }
            Err(error) => {
                let of_other_keys = error.may_be_of_other_keys();
                // While keys are agreed it may be of an opening whose answer went down with a connection: no news for anybody.
                let is_between = self.role == Role::Phone && !self.agreed;
                let worth_telling = !(of_other_keys && is_between);
                Err(Refusal { of_other_keys, worth_telling, ..refusal(end, error) })
            }
        }
    }
}

fn refusal(end: &End, error: impl Display) -> Refusal {
    Refusal { message: error.to_string(), complaint: end.complaint(&error), worth_telling: true, of_other_keys: false }
}
