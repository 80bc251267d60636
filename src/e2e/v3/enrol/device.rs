//! The device's side.

use super::super::error::EnrolError;
use super::super::handshake::{ENROL_1_BYTES, ENROL_2_BYTES, ENROL_3_BYTES_MIN, Handshake, Purpose};
use super::super::keys::{AgentPrint, Code, DeviceId, StaticKey, commitment};
use super::super::sessions::{Fresh, Sessions};
use super::super::wire::{KeyExchange, key_exchange};
use super::super::{DeviceEnd, ENROL_SILENCE, Now, TRIES_MAX};
use super::{About, cleaned};
use crate::{PairingSecret, Random, draw};
use serde_json::value::RawValue;
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

/// A device that has scanned a link, until the agent has answered it.
pub struct Enrolment {
    token: String,
    device: DeviceId,
    /// Gone when the agent has answered.
    key: Option<StaticKey>,
    k: PairingSecret,
    agent: AgentPrint,
    name: String,
    platform: String,
    /// Begun so far: at most [`TRIES_MAX`].
    tries: u32,
    current: Option<Try>,
    /// The first message was not sent on this connection yet.
    unsent: bool,
}

/// A first message and what belongs to it.
struct Try {
    id: String,
    r: Zeroizing<[u8; 32]>,
    handshake: Handshake,
    first: Vec<u8>,
    /// Monotonic: when it was last sent.
    sent: Duration,
    /// By another agent than the link's: it takes no other answer.
    answered: bool,
}

/// What the agent's answer led to.
#[derive(Debug)]
pub struct Enrolled {
    /// To be stored; then its third message is to be sent ([`DeviceEnd::poll_enrolment`]).
    pub end: DeviceEnd,
    /// To be shown: the inviter sees the same.
    pub code: Code,
}

impl Enrolment {
    /// Begins with a link's token, `k` and `a`. `device` is the name by which the relay knows it; `name` and
    /// `platform` are for people and are [`cleaned`].
    #[must_use]
    pub fn new(
        token: &str,
        device: DeviceId,
        key: StaticKey,
        (k, agent): (PairingSecret, AgentPrint),
        name: &str,
        platform: &str,
    ) -> Self {
        let (name, platform, token) = (cleaned(name), cleaned(platform), token.to_owned());
        Self { token, device, key: Some(key), k, agent, name, platform, tries: 0, current: None, unsent: true }
    }

    /// A new connection: what was not answered is repeated.
    pub fn handle_connected(&mut self) {
        self.unsent = true;
    }

    /// The first message and its `id`, if it is time to send it: `id` where it is a new one, otherwise the one that it
    /// was first sent with.
    ///
    /// # Errors
    /// [`EnrolError::Spent`]: it has had no answer in [`TRIES_MAX`] tries; another link is needed.
    pub fn poll_first(
        &mut self,
        now: Now,
        random: &mut (impl Random + ?Sized),
        id: &str,
    ) -> Result<Option<(String, Box<RawValue>)>, EnrolError> {
        let Some(key) = &self.key else { return Ok(None) };
        let silent = self.current.as_ref().is_none_or(|current| now.monotonic >= current.sent + ENROL_SILENCE);
        if silent {
            if self.tries >= TRIES_MAX {
                return Err(EnrolError::Spent);
            }
            self.tries += 1;
            self.current = Some(self.begin(key, now, random, id));
        }
        let due = silent || self.unsent;
        self.unsent = false;
        let current = self.current.as_mut().filter(|current| due && !current.answered);
        Ok(current.map(|current| {
            current.sent = now.monotonic;
            (current.id.clone(), key_exchange(Some(1), &current.first, None))
        }))
    }

    fn begin(&self, key: &StaticKey, now: Now, random: &mut (impl Random + ?Sized), id: &str) -> Try {
        let ephemeral = draw(random);
        let r = Zeroizing::new(draw(random));
        let names = (self.token.as_str(), self.device);
        let mut handshake = Handshake::new(Purpose::Enrol, names, self.k.as_bytes(), key, ephemeral, true);
        let first = handshake.write(&commitment(key.public(), &r));
        debug_assert_eq!(first.len(), ENROL_1_BYTES);
        Try { id: id.to_owned(), r, handshake, first, sent: now.monotonic, answered: false }
    }

    /// The agent's answer. `None`: it is to an older message.
    ///
    /// # Errors
    /// It does not authenticate, and the right one may still come; or it is of another agent than the link's; or one
    /// was taken before: then nothing of it is said to anybody.
    pub fn handle_second(&mut self, now: Now, answer: &KeyExchange) -> Result<Option<Enrolled>, EnrolError> {
        let noise = answer.enrolling(2)?;
        if self.key.is_none() {
            return Err(EnrolError::Answered);
        }
        let Some(current) = self.current.as_mut().filter(|current| answer.re.as_ref() == Some(&current.id)) else {
            return Ok(None);
        };
        if current.answered {
            return Err(EnrolError::Answered);
        }
        if noise.len() != ENROL_2_BYTES {
            return Err(EnrolError::Malformed);
        }
        current.handshake.read(noise).map_err(|_| EnrolError::WrongSecret)?;
        // It authenticates: whatever becomes of it, this first message takes no other.
        current.answered = true;
        let agent = current.handshake.remote().filter(|agent| AgentPrint::of(agent) == self.agent);
        let agent = agent.ok_or(EnrolError::OtherAgent)?;
        let (Some(Try { r, mut handshake, .. }), Some(key)) = (self.current.take(), self.key.take()) else {
            return Err(EnrolError::Answered);
        };
        let code = Code::of(&handshake.hash(), key.public(), &r);
        let third = handshake.write(&About::new(&r, &self.name, &self.platform).write());
        debug_assert!(third.len() >= ENROL_3_BYTES_MIN);
        let split = handshake.split();
        let fresh = Fresh::new(split.sid, split.of_agent, split.of_device, now);
        let sessions = Sessions::of(self.device, fresh);
        let end = DeviceEnd::new(self.token.clone(), key, agent, split.psk, sessions, Some(third));
        Ok(Some(Enrolled { end, code }))
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").field("device", &self.device).finish_non_exhaustive()
    }
}
