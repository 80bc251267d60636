//! This end as a device: from a link to keys that last.

use super::of::NotSealed;
use super::stored::{StoredEnrolling, StoredOwn, VERSION, receiver, taken};
use super::{Store, WELCOME, clocks, fill};
use crate::envelope::{new_id, random};
use crate::event::Event;
use crate::options::PADDING_BYTES;
use crate::resume::Receiver;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coralmux_e2e::v3::{self, DeviceEnd, DeviceId, EnrolError, Enrolment, Invite, KeyExchange, OpenError, StaticKey};
use coralmux_e2e::{ExchangeError, Link};
use serde_json::value::RawValue;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The name of what a device keeps.
const NAME: &str = "device";
/// How often it is looked whether it is time for an enrolment's message, or for a new session.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why this end cannot be a device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The link names no agent: its phone is a plain one, of version 2 or 1.
    #[error("the link is none for a device: it does not name its agent's key")]
    NoAgent,
    /// What is kept is damaged, or of a later version.
    #[error("what is kept of this device is damaged, or of a later version")]
    Damaged,
    /// It cannot be kept.
    #[error("the device's keys cannot be kept: {0}")]
    Store(#[from] io::Error),
}

#[derive(Debug)]
enum Stage {
    Enrolling(Box<Enrolment>),
    /// Another link is needed.
    Spent,
    Enrolled(Box<DeviceEnd>),
}

/// A device's keys, for [`Client::start_as_device`](crate::Client::start_as_device): they enrol with the link once, and
/// are kept.
pub struct Device {
    relay: String,
    token: String,
    relay_key: [u8; 32],
    invite: Option<String>,
    stage: Stage,
    /// What the enrolment began with, for a process that is started in between.
    enrolling: Option<StoredEnrolling>,
    receiver: Receiver,
    store: Arc<dyn Store>,
}

impl Device {
    /// A new device, which enrols with this link. `name` and `platform` are shown to people beside the code.
    ///
    /// # Errors
    /// The link is none for devices, or the keys cannot be kept.
    pub fn enrol(link: &Link, name: &str, platform: &str, store: Arc<dyn Store>) -> Result<Self, DeviceError> {
        let (Some(k), Some(agent)) = (&link.secret, link.agent) else { return Err(DeviceError::NoAgent) };
        let (mut relay_key, mut private) = ([0; 32], [0; 32]);
        random(&mut relay_key);
        random(&mut private);
        let (name, platform) = (v3::cleaned(name), v3::cleaned(platform));
        let enrolling = StoredEnrolling { link: link.for_apps(), key: URL_SAFE_NO_PAD.encode(private), name, platform };
        let key = StaticKey::from_private(private);
        let device = DeviceId::of_key(&relay_key);
        let secrets = (k.clone(), agent);
        let enrolment = Enrolment::new(&link.token, device, key, secrets, &enrolling.name, &enrolling.platform);
        let own = Self {
            relay: link.relay.clone(),
            token: link.token.clone(),
            relay_key,
            invite: Some(Invite::of(k).expose()),
            stage: Stage::Enrolling(Box::new(enrolment)),
            enrolling: Some(enrolling),
            receiver: Receiver::default(),
            store,
        };
        own.keep(&own.receiver)?;
        Ok(own)
    }

    /// The device that is kept here. `None`: none is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(store: Arc<dyn Store>) -> Result<Option<Self>, DeviceError> {
        let Some(text) = store.read(NAME)? else { return Ok(None) };
        Self::read(&text, store).map(Some).ok_or(DeviceError::Damaged)
    }

    fn read(text: &str, store: Arc<dyn Store>) -> Option<Self> {
        let stored: StoredOwn<'_> = serde_json::from_str(text).ok()?;
        if stored.v != VERSION {
            return None;
        }
        let bytes = |text: &str| -> Option<[u8; 32]> { URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok() };
        let relay_key = bytes(&stored.relay_key)?;
        let stage = match (stored.end, &stored.enrolling) {
            (Some(end), _) => Stage::Enrolled(Box::new(DeviceEnd::load(end.get()).ok()?)),
            (None, Some(enrolling)) => {
                let link = Link::parse(&enrolling.link).ok()?;
                let key = StaticKey::from_private(bytes(&enrolling.key)?);
                let secrets = (link.secret.clone()?, link.agent?);
                let device = DeviceId::of_key(&relay_key);
                let (name, platform) = (&enrolling.name, &enrolling.platform);
                Stage::Enrolling(Box::new(Enrolment::new(&link.token, device, key, secrets, name, platform)))
            }
            (None, None) => return None,
        };
        Some(Self {
            receiver: receiver(&stored.taken, &stored.lost)?,
            relay: stored.relay,
            token: stored.token,
            relay_key,
            invite: stored.invite,
            stage,
            enrolling: stored.enrolling,
            store,
        })
    }

    fn keep(&self, receiver: &Receiver) -> io::Result<()> {
        let end = match &self.stage {
            Stage::Enrolled(end) => Some(end.store()),
            Stage::Enrolling(_) | Stage::Spent => None,
        };
        let end: Option<&RawValue> = end.as_ref().map(|end| serde_json::from_str(end)).transpose()?;
        let (taken, lost) = taken(receiver);
        let stored = StoredOwn {
            v: VERSION,
            relay: self.relay.clone(),
            relay_key: URL_SAFE_NO_PAD.encode(self.relay_key),
            token: self.token.clone(),
            enrolling: self.enrolling.as_ref().map(|it| StoredEnrolling {
                link: it.link.clone(),
                key: it.key.clone(),
                name: it.name.clone(),
                platform: it.platform.clone(),
            }),
            taken,
            lost,
            end,
            invite: self.invite.clone(),
        };
        self.store.write(NAME, &serde_json::to_string(&stored)?)
    }

    /// Its name between the ends and the relay.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        DeviceId::of_key(&self.relay_key)
    }

    /// The relay of its link.
    #[must_use]
    pub fn relay(&self) -> &str {
        &self.relay
    }

    /// The token of its link.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether it is still enrolling: the agent has not let it in.
    #[must_use]
    pub fn is_enrolling(&self) -> bool {
        self.invite.is_some()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("id", &self.id()).field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// A device's end, as a session uses it.
#[derive(Debug)]
pub(crate) struct Own {
    device: Device,
    /// Something has opened, or changed, that was not stored.
    dirty: bool,
    look_at: Option<Instant>,
}

/// What a message of the agent's leads to.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The `id` and payload of a `key_exchange` that leaves.
    pub(crate) send: Option<(String, Box<RawValue>)>,
    pub(crate) told: Option<Event>,
    /// There are new keys.
    pub(crate) renewed: bool,
}

impl Own {
    /// The end, and what was taken.
    pub(crate) fn new(mut device: Device) -> (Self, Receiver) {
        let receiver = std::mem::take(&mut device.receiver);
        if let Stage::Enrolled(end) = &mut device.stage {
            end.set_padding(PADDING_BYTES);
        }
        (Self { device, dirty: false, look_at: None }, receiver)
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.device.id()
    }

    /// What its `auth` has beside token and role.
    pub(crate) fn credentials(&self) -> (String, Option<&str>) {
        (URL_SAFE_NO_PAD.encode(self.device.relay_key), self.device.invite.as_deref())
    }

    pub(crate) fn is_admitted(&self) -> bool {
        matches!(&self.device.stage, Stage::Enrolled(end) if end.is_admitted())
    }

    /// A new connection. `drained`: nothing waits for this device at the relay.
    pub(crate) fn handle_connected(&mut self, drained: bool) -> Said {
        self.look_at = None;
        match &mut self.device.stage {
            Stage::Enrolling(enrolment) => enrolment.handle_connected(),
            Stage::Spent => {}
            Stage::Enrolled(end) => {
                end.handle_connected();
                if drained {
                    end.handle_drained();
                }
                return Said { send: end.poll_enrolment().map(|third| (new_id(), third)), ..Said::default() };
            }
        }
        Said::default()
    }

    /// All that waited at the relay has come.
    pub(crate) fn handle_drained(&mut self) {
        if let Stage::Enrolled(end) = &mut self.device.stage {
            end.handle_drained();
        }
        self.look_at = None;
    }

    /// Writes what has changed.
    pub(crate) fn persist(&mut self, receiver: &Receiver) -> io::Result<()> {
        if self.dirty {
            self.device.keep(receiver)?;
            self.dirty = false;
        }
        Ok(())
    }

    pub(crate) fn handle_agent(&mut self, online: bool) {
        if let Stage::Enrolled(end) = &mut self.device.stage {
            end.handle_agent(online);
        }
        self.look_at = None;
    }

    /// What it is time for.
    pub(crate) fn poll(&mut self, now: Instant) -> Said {
        if self.look_at.is_some_and(|at| now < at) {
            return Said::default();
        }
        self.look_at = Some(now + LOOK_INTERVAL);
        match &mut self.device.stage {
            Stage::Spent => Said::default(),
            Stage::Enrolling(enrolment) => match enrolment.poll_first(clocks(now), &mut fill, &new_id()) {
                Ok(send) => Said { send, ..Said::default() },
                Err(error) => self.give_up(error),
            },
            Stage::Enrolled(end) => {
                let id = new_id();
                let opening = end.poll_opening(clocks(now), &mut fill, &id);
                Said { send: opening.map(|opening| (id, opening)), ..Said::default() }
            }
        }
    }

    fn give_up(&mut self, error: EnrolError) -> Said {
        self.device.stage = Stage::Spent;
        Said { told: Some(Event::NotEnrolled { why: error.to_string() }), ..Said::default() }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.look_at.filter(|_| !matches!(self.device.stage, Stage::Spent))
    }

    /// A `key_exchange` of the agent's.
    ///
    /// # Errors
    /// It is refused, in words, if that is any news.
    pub(crate) fn handle_key_exchange(
        &mut self,
        now: Instant,
        message: &KeyExchange,
        receiver: &Receiver,
    ) -> Result<Said, String> {
        match &mut self.device.stage {
            Stage::Spent => Ok(Said::default()),
            Stage::Enrolling(enrolment) => match enrolment.handle_second(clocks(now), message) {
                Ok(None) => Ok(Said::default()),
                Ok(Some(enrolled)) => {
                    let mut end = enrolled.end;
                    end.set_padding(PADDING_BYTES);
                    // As after a connecting: nothing waits in a mailbox.
                    end.handle_connected();
                    end.handle_drained();
                    let third = end.poll_enrolment();
                    self.device.stage = Stage::Enrolled(Box::new(end));
                    // Before the agent hears of it.
                    self.device.keep(receiver).map_err(|error| format!("the device's keys cannot be kept: {error}"))?;
                    let told = Some(Event::Code { code: enrolled.code.to_string() });
                    Ok(Said { send: third.map(|third| (new_id(), third)), told, renewed: false })
                }
                Err(error) => Err(error.to_string()),
            },
            Stage::Enrolled(end) => match end.handle_answer(clocks(now), message) {
                Ok(renewed) => {
                    self.dirty |= renewed;
                    Ok(Said { renewed, ..Said::default() })
                }
                Err(ExchangeError::Malformed) => Ok(Said::default()),
                Err(error) => Err(error.to_string()),
            },
        }
    }

    /// There is a sign that the agent has other keys.
    pub(crate) fn handle_complaint(&mut self) {
        if let Stage::Enrolled(end) = &mut self.device.stage {
            end.handle_complaint();
        }
        self.look_at = None;
    }

    pub(crate) fn seal(
        &mut self,
        kind: &str,
        id: &str,
        payload: &RawValue,
        receiver: &Receiver,
    ) -> Result<Box<RawValue>, NotSealed> {
        let Stage::Enrolled(end) = &mut self.device.stage else {
            return Err(NotSealed::Seal(v3::SealError::NotAdmitted));
        };
        let sent = end.seal(&mut fill, kind, Some(id), Some(payload)).map_err(NotSealed::Seal)?;
        if sent.store || self.dirty {
            self.device.keep(receiver).map_err(NotSealed::Store)?;
            self.dirty = false;
        }
        Ok(sent.payload)
    }

    /// Opens a message. `numbered`: what it says is acknowledged, and stored before that.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
        numbered: bool,
    ) -> Result<v3::Opened, OpenError> {
        let Stage::Enrolled(end) = &mut self.device.stage else { return Err(OpenError::NotAdmitted) };
        if !end.is_admitted() && kind != WELCOME {
            return Err(OpenError::NotAdmitted);
        }
        let opened = end.open(clocks(now), kind, id, payload);
        // A refused one may be a sign of other keys.
        self.look_at = None;
        let opened = opened?;
        if opened.confirmed {
            (self.device.invite, self.device.enrolling) = (None, None);
            end.handle_agent(true);
        }
        self.dirty |= numbered || opened.confirmed;
        Ok(opened)
    }
}
