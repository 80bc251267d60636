//! The agent's end toward one device.

use super::error::{OpenError, SealError};
use super::handshake::{Handshake, Purpose, SESSION_BYTES};
use super::keys::{DeviceId, PublicBytes, Secret, StaticKey, sha256};
use super::sessions::{Fresh, Receiving, Sessions};
use super::wire::{KeyExchange, key_exchange, sealed};
use super::{HEAL_INTERVAL, Now, OPENINGS_MAX, OPENINGS_SPAN, Opened, Sent, UNCONFIRMED_LIFE, UNCONFIRMED_MAX};
use crate::{ExchangeError, Random, draw};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The agent's end toward one device, across connections and restarts.
///
/// | when | call |
/// | --- | --- |
/// | the device is admitted | [`admit`](Self::admit), then its welcome is the first that is sealed |
/// | the connection is authenticated | [`handle_connected`](Self::handle_connected) |
/// | the agent's mailbox is empty, or all of it is acknowledged | [`handle_drained`](Self::handle_drained) |
/// | the device's `key_exchange` comes | [`handle_opening`](Self::handle_opening), [`repeats_enrolment`](Self::repeats_enrolment) |
/// | a sealed message comes, or is to be sent | [`open`](Self::open), [`seal`](Self::seal) |
/// | that was refused | [`complains`](Self::complains), then or later |
///
/// To revoke a device is to drop its end, and what is stored of it.
pub struct AgentEnd {
    token: String,
    key: Arc<StaticKey>,
    pub(super) public: PublicBytes,
    pub(super) psk: Secret,
    pub(super) sessions: Sessions,
    pub(super) admitted: bool,
    /// SHA-256 of the enrolment's third message.
    pub(super) third: [u8; 32],
    /// Answered, and nothing has opened in them; oldest first, at most [`UNCONFIRMED_MAX`]. With the monotonic time of
    /// the answer.
    unconfirmed: VecDeque<(Duration, Fresh)>,
    /// Monotonic: the answers of the last [`OPENINGS_SPAN`], oldest first, at most [`OPENINGS_MAX`].
    answered: VecDeque<Duration>,
    /// Monotonic.
    complained_at: Option<Duration>,
}

impl AgentEnd {
    pub(super) fn new(
        token: String,
        key: Arc<StaticKey>,
        public: PublicBytes,
        psk: Secret,
        sessions: Sessions,
        (admitted, third): (bool, [u8; 32]),
    ) -> Self {
        let (unconfirmed, answered, complained_at) = Default::default();
        Self { token, key, public, psk, sessions, admitted, third, unconfirmed, answered, complained_at }
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.sessions.device
    }

    /// Pads what is sealed to a multiple of this many bytes.
    pub fn set_padding(&mut self, step: usize) {
        self.sessions.set_padding(step);
    }

    /// The device is one from now on: to be stored. Before, nothing is sealed for it, and nothing of it opens.
    pub fn admit(&mut self) {
        self.admitted = true;
    }

    /// Whether it was admitted.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.admitted
    }

    /// Whether this is the third message of the device's enrolment once more: who is admitted gets its welcome again.
    #[must_use]
    pub fn repeats_enrolment(&self, message: &KeyExchange) -> bool {
        message.enrol == Some(3) && sha256(&[&message.noise]) == self.third
    }

    /// A new connection of the agent's: its mailbox may have something again.
    pub fn handle_connected(&mut self) {
        self.sessions.handle_connected();
    }

    /// Nothing waits in the agent's mailbox, or all that did is acknowledged. Older sessions may go: to be stored.
    pub fn handle_drained(&mut self) {
        self.sessions.handle_drained();
    }

    /// The state is of a backup: what was recorded since would open again. Nothing opens until the device has opened a
    /// new session. To be stored.
    pub fn handle_restored(&mut self) {
        self.sessions.receiving.clear();
        self.unconfirmed.clear();
    }

    /// Answers a device's opening, which has this `id`. `None`: too many in too short a time. The new keys are used
    /// when a message has opened with them, and nothing has to be stored before.
    ///
    /// # Errors
    /// It is not of this device, which has not to be told so.
    pub fn handle_opening(
        &mut self,
        now: Now,
        random: &mut (impl Random + ?Sized),
        id: Option<&str>,
        opening: &KeyExchange,
    ) -> Result<Option<Box<RawValue>>, ExchangeError> {
        if !self.admitted || opening.enrol.is_some() || opening.noise.len() != SESSION_BYTES {
            return Err(ExchangeError::Malformed);
        }
        while self.answered.front().is_some_and(|at| now.monotonic >= *at + OPENINGS_SPAN) {
            self.answered.pop_front();
        }
        if self.answered.len() >= OPENINGS_MAX {
            return Ok(None);
        }
        let purpose = Purpose::Session(&self.public);
        let names = (self.token.as_str(), self.device());
        let mut handshake = Handshake::new(purpose, names, &self.psk, &self.key, draw(random), false);
        handshake.read(&opening.noise)?;
        let message = handshake.write(b"");
        let split = handshake.split();
        self.answered.push_back(now.monotonic);
        if self.unconfirmed.len() >= UNCONFIRMED_MAX {
            self.unconfirmed.pop_front();
        }
        let fresh = Fresh::new(split.sid, split.of_device, split.of_agent, now);
        self.unconfirmed.push_back((now.monotonic, fresh));
        Ok(Some(key_exchange(None, &message, id)))
    }

    /// Seals a payload for the device, `{}` where there is none. `id`: the envelope's.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(
        &mut self,
        random: &mut (impl Random + ?Sized),
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
    ) -> Result<Sent, SealError> {
        if !self.admitted {
            return Err(SealError::NotAdmitted);
        }
        self.sessions.seal(random, kind, id, payload)
    }

    /// Opens a message of the device's.
    ///
    /// # Errors
    /// See [`OpenError`]: it is not to be acted on.
    pub fn open(
        &mut self,
        now: Now,
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
    ) -> Result<Opened, OpenError> {
        if !self.admitted {
            return Err(OpenError::NotAdmitted);
        }
        self.sessions.expire(now);
        self.unconfirmed.retain(|(at, _)| now.monotonic < *at + UNCONFIRMED_LIFE);
        let sealed = sealed(kind, payload)?;
        if let Some(place) = self.sessions.position(sealed.sid) {
            let (payload, skipped) = self.sessions.open_at(place, now, kind, id, sealed)?;
            return Ok(Opened { payload, skipped, confirmed: false });
        }
        let place = self.unconfirmed.iter().position(|(_, fresh)| fresh.receiving.sid == sealed.sid);
        let place = place.ok_or(OpenError::UnknownSession)?;
        let session = &self.unconfirmed[place].1.receiving;
        let (chain, payload, skipped) = self.sessions.open_in(session, now, kind, id, sealed)?;
        // Older ones are of openings that the device has given up.
        let Some((_, fresh)) = self.unconfirmed.drain(..=place).next_back() else {
            return Err(OpenError::UnknownSession);
        };
        let receiving = Receiving { chain, ..fresh.receiving };
        self.sessions.confirm(Fresh { receiving, ..fresh }, now);
        Ok(Opened { payload, skipped, confirmed: true })
    }

    /// Whether the device is to be told of a refusal, sooner or later.
    #[must_use]
    pub fn owes_complaint(&self, error: OpenError) -> bool {
        let mailboxs = matches!(error, OpenError::Repeated { .. }) && !self.sessions.is_drained();
        self.admitted && !mailboxs
    }

    /// From when on it may be told of one again; monotonic.
    #[must_use]
    pub fn complains_at(&self) -> Duration {
        self.complained_at.map_or(Duration::ZERO, |at| at + HEAL_INTERVAL)
    }

    /// Whether to answer what was refused by a `chat.error` `DECRYPTION_FAILED` in clear: a hint for the device, now
    /// and then. One that is owed is to be given later.
    pub fn complains(&mut self, now: Now, error: OpenError) -> bool {
        let complains = self.owes_complaint(error) && now.monotonic >= self.complains_at();
        if complains {
            self.complained_at = Some(now.monotonic);
        }
        complains
    }

    /// The session that is sealed with, for tests.
    #[cfg(test)]
    pub(super) fn sends_with(&self) -> [u8; 8] {
        self.sessions.sending.sid
    }
}

impl fmt::Debug for AgentEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentEnd").field("device", &self.device()).finish_non_exhaustive()
    }
}
