//! The device's end.

use super::error::{OpenError, SealError};
use super::handshake::{Handshake, Purpose, SESSION_BYTES};
use super::keys::{DeviceId, PublicBytes, Secret, StaticKey};
use super::sessions::{Fresh, Sessions};
use super::wire::{KeyExchange, key_exchange, sealed};
use super::{HEAL_INTERVAL, Now, Opened, SESSION_AGE, SESSION_MESSAGES, Sent};
use crate::{ExchangeError, Random, draw};
use serde_json::value::RawValue;
use std::fmt;
use std::time::Duration;

/// The end of an enrolled device, across connections and restarts.
///
/// | when | call |
/// | --- | --- |
/// | the connection is authenticated | [`handle_connected`](Self::handle_connected), then [`poll_enrolment`](Self::poll_enrolment) |
/// | the mailbox is empty, or all of it is acknowledged | [`handle_drained`](Self::handle_drained) |
/// | the agent comes or goes | [`handle_agent`](Self::handle_agent) |
/// | after each of these, after each message, and some times a minute | [`poll_opening`](Self::poll_opening) |
/// | a `key_exchange` comes | [`handle_answer`](Self::handle_answer) |
/// | the agent complains in clear | [`handle_complaint`](Self::handle_complaint) |
/// | a sealed message comes, or is to be sent | [`open`](Self::open), [`seal`](Self::seal) |
///
/// In clear it reads `key_exchange`, `status` and `relay.*`, and shows the relay's `chat.error`: none of them is given
/// to [`open`](Self::open).
pub struct DeviceEnd {
    pub(super) token: String,
    pub(super) key: StaticKey,
    pub(super) agent: PublicBytes,
    pub(super) psk: Secret,
    pub(super) sessions: Sessions,
    /// The enrolment's third message, until the agent's first sealed one has opened. Until then nothing is sealed.
    pub(super) third: Option<Vec<u8>>,
    /// The newest opening, and its `id`.
    opening: Option<(String, Handshake)>,
    /// Monotonic: when it was made.
    opened_at: Option<Duration>,
    /// There was a sign that the agent has other keys.
    doubted: bool,
    /// The agent is there.
    met: bool,
}

impl DeviceEnd {
    pub(super) fn new(
        token: String,
        key: StaticKey,
        agent: PublicBytes,
        psk: Secret,
        sessions: Sessions,
        third: Option<Vec<u8>>,
    ) -> Self {
        Self { token, key, agent, psk, sessions, third, opening: None, opened_at: None, doubted: false, met: false }
    }

    /// Its name.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.sessions.device
    }

    /// Pads what is sealed to a multiple of this many bytes.
    pub fn set_padding(&mut self, step: usize) {
        self.sessions.set_padding(step);
    }

    /// A new connection, or the relay has parked this one: whether the agent is there, and the mailbox empty, is to be
    /// said again.
    pub fn handle_connected(&mut self) {
        self.sessions.handle_connected();
        (self.met, self.opening) = (false, None);
    }

    /// Nothing waits in the mailbox, or all that did is acknowledged. Older sessions may go: to be stored.
    pub fn handle_drained(&mut self) {
        self.sessions.handle_drained();
    }

    /// The agent is there, or not.
    pub fn handle_agent(&mut self, online: bool) {
        self.met = online;
    }

    /// The enrolment's third message, to be sent after each connecting until the agent has said something sealed.
    #[must_use]
    pub fn poll_enrolment(&self) -> Option<Box<RawValue>> {
        self.third.as_ref().map(|third| key_exchange(Some(3), third, None))
    }

    /// Whether the agent has admitted this device: before, nothing is sealed.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.third.is_none()
    }

    /// A hint that the agent has other keys. Anyone on the way can give it.
    pub fn handle_complaint(&mut self) {
        self.doubted = true;
    }

    /// The opening of a new session, to be sent with this `id`, if it is time for one. Everything goes on meanwhile
    /// with the keys that there are.
    pub fn poll_opening(&mut self, now: Now, random: &mut (impl Random + ?Sized), id: &str) -> Option<Box<RawValue>> {
        self.sessions.expire(now);
        let due = self.opened_at.is_none_or(|at| now.monotonic >= at + HEAL_INTERVAL);
        let may = self.is_admitted() && self.met && self.sessions.is_drained() && due;
        if !may || !(self.doubted || self.is_worn(now)) {
            return None;
        }
        let purpose = Purpose::Session(&self.agent);
        let names = (self.token.as_str(), self.device());
        let mut handshake = Handshake::new(purpose, names, &self.psk, &self.key, draw(random), true);
        let message = handshake.write(b"");
        (self.opening, self.opened_at) = (Some((id.to_owned(), handshake)), Some(now.monotonic));
        Some(key_exchange(None, &message, None))
    }

    /// The newest session has had its time, or its messages; or the clock was set back behind it.
    fn is_worn(&self, now: Now) -> bool {
        let old = |since: Duration| now.unix.checked_sub(since).is_none_or(|age| age > SESSION_AGE);
        let newest = self.sessions.receiving.front();
        newest.is_none_or(|session| old(session.since) || session.chain.next() >= SESSION_MESSAGES)
            || self.sessions.sending.next() >= SESSION_MESSAGES
    }

    /// The agent's answer. Whether new keys are in use: then the state is to be stored, and a sealed `ack` with `r` to
    /// be sent at once, or the agent goes on with the old ones. An answer to an older opening is none.
    ///
    /// # Errors
    /// It does not authenticate. The opening stays: the right one may still come.
    pub fn handle_answer(&mut self, now: Now, answer: &KeyExchange) -> Result<bool, ExchangeError> {
        let Some((id, handshake)) = &mut self.opening else { return Ok(false) };
        if answer.enrol.is_some() || answer.re.as_deref() != Some(id) {
            return Ok(false);
        }
        if answer.noise.len() != SESSION_BYTES {
            return Err(ExchangeError::Malformed);
        }
        handshake.read(&answer.noise)?;
        let Some((_, handshake)) = self.opening.take() else { return Ok(false) };
        let split = handshake.split();
        self.sessions.confirm(Fresh::new(split.sid, split.of_agent, split.of_device, now), now);
        self.doubted = false;
        Ok(true)
    }

    /// Seals a payload for the agent, `{}` where there is none. `id`: the envelope's.
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
        if !self.is_admitted() {
            return Err(SealError::NotAdmitted);
        }
        self.sessions.seal(random, kind, id, payload)
    }

    /// Opens a message of the agent's.
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
        self.sessions.expire(now);
        let opened = self.open_sealed(now, kind, id, payload);
        self.doubted |= opened.as_ref().is_err_and(|error| error.is_sign(!self.sessions.is_drained()));
        let (payload, skipped) = opened?;
        Ok(Opened { payload, skipped, confirmed: self.third.take().is_some() })
    }

    fn open_sealed(
        &mut self,
        now: Now,
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
    ) -> Result<(Box<RawValue>, u64), OpenError> {
        let sealed = sealed(kind, payload)?;
        let place = self.sessions.position(sealed.sid).ok_or(OpenError::UnknownSession)?;
        self.sessions.open_at(place, now, kind, id, sealed)
    }
}

impl fmt::Debug for DeviceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceEnd").field("device", &self.device()).finish_non_exhaustive()
    }
}
