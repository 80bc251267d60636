//! An agent's end toward one of its devices, and what it knows of it.

use super::stored::{StoredPeer, VERSION, receiver};
use super::{AgentKeys, INVITE_LIFE, Info, Joined, Store, at, clocks, fill};
use crate::envelope::unix_ms;
use crate::options::PADDING_BYTES;
use crate::resume::Receiver;
use coralmux_e2e::ExchangeError;
use coralmux_e2e::v3::{self, AgentEnd, DeviceId, Invite, KeyExchange, OpenError, SealError};
use serde_json::value::RawValue;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How exactly it is kept when a device was last there.
const SEEN_MS: u64 = 60 * 60 * 1000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Of {
    end: AgentEnd,
    info: Info,
    store: Arc<dyn Store>,
    /// The word that its link was asked for with.
    tag: String,
    /// With which the relay lets it in, until that has confirmed that it is a device.
    invite: Option<Invite>,
    /// It has been told that it is a device, as far as this process knows. If it was not it asks for it.
    welcomed: bool,
    /// Something has opened, or changed, that was not stored.
    dirty: bool,
    /// A refusal that the device is to be told of, and the `id` of what was refused.
    owed: Option<(OpenError, Option<String>)>,
}

/// Why nothing is sealed.
#[derive(Debug)]
pub(crate) enum NotSealed {
    Seal(SealError),
    Store(io::Error),
}

impl Of {
    /// A device that has just joined: stored before anybody hears of it.
    pub(crate) fn joined(
        joined: v3::Joined,
        by: Option<DeviceId>,
        tag: String,
        store: Arc<dyn Store>,
    ) -> io::Result<Self> {
        let (device, now) = (joined.end.device(), unix_ms());
        let info = Info {
            device,
            name: joined.name,
            platform: joined.platform,
            added_at: now,
            seen_at: now,
            owner: false,
            by,
            code: Some(joined.code.to_string()),
            online: false,
        };
        let mut of = Self { tag, invite: Some(joined.invite), ..Self::new(joined.end, info, store) };
        of.handle_connected(true);
        of.store(&Receiver::default())?;
        Ok(of)
    }

    fn new(mut end: AgentEnd, info: Info, store: Arc<dyn Store>) -> Self {
        end.set_padding(PADDING_BYTES);
        Self { end, info, store, tag: String::new(), invite: None, welcomed: false, dirty: false, owed: None }
    }

    /// One that is kept, and what was taken of it. `None`: the text is damaged, or of a later version.
    pub(crate) fn load(
        text: &str,
        token: &str,
        keys: &AgentKeys,
        store: Arc<dyn Store>,
        restored: bool,
    ) -> Option<(Self, Receiver)> {
        let stored: StoredPeer<'_> =
            serde_json::from_str(text).ok().filter(|stored: &StoredPeer<'_>| stored.v == VERSION)?;
        let mut end = AgentEnd::load(token, Arc::clone(&keys.key), stored.end.get()).ok()?;
        let info = stored.info().filter(|info| info.device == end.device())?;
        let taken = receiver(&stored.taken, &stored.lost)?;
        if restored {
            end.handle_restored();
        }
        let welcomed = end.is_admitted();
        // What was in a backup may have been refused since.
        let invite = stored.invite.as_deref().filter(|_| !restored).and_then(Invite::parse);
        Some((Self { welcomed, invite, dirty: restored, ..Self::new(end, info, store) }, taken))
    }

    /// Writes all of it.
    pub(crate) fn store(&mut self, receiver: &Receiver) -> io::Result<()> {
        let end = self.end.store();
        let end: &RawValue = serde_json::from_str(&end)?;
        let text = serde_json::to_string(&StoredPeer::new(&self.info, self.invite.as_ref(), receiver, end))?;
        self.store.write(self.info.device.as_str(), &text)?;
        self.dirty = false;
        Ok(())
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.info.device
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// Changes what is known of it; to be stored soon.
    pub(crate) fn info_mut(&mut self) -> &mut Info {
        self.dirty = true;
        &mut self.info
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.end.is_admitted()
    }

    /// Makes it a device; to be stored.
    pub(crate) fn admit(&mut self) {
        self.end.admit();
        self.info.code = None;
        self.dirty = true;
    }

    /// With what the relay has to let it in anew: invites, and who waits there, end with a connection of the agent's.
    /// `None`: the relay knows it as a device, or it has waited for too long.
    pub(crate) fn invite(&self) -> Option<&Invite> {
        self.invite.as_ref().filter(|_| self.is_admitted() || self.is_young())
    }

    /// The relay, which does not know it, may soon do so.
    pub(crate) fn may_come_again(&self) -> bool {
        self.invite.is_some() && self.is_young()
    }

    fn is_young(&self) -> bool {
        Duration::from_millis(unix_ms().saturating_sub(self.info.added_at)) < INVITE_LIFE
    }

    /// The relay knows it as a device. Whether that is news, to be stored.
    pub(crate) fn handle_confirmed(&mut self) -> bool {
        self.invite.take().is_some()
    }

    /// It is a device, and knows it.
    pub(crate) fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// It is about to be told that it is a device.
    pub(crate) fn welcome(&mut self) {
        self.welcomed = true;
    }

    /// What its owner decides about.
    pub(crate) fn as_joined(&self) -> Option<Joined> {
        let Info { device, name, platform, by, .. } = self.info.clone();
        let code = self.info.code.clone()?;
        Some(Joined { device, name, platform, code, by, tag: self.tag.clone() })
    }

    /// A new connection of the agent's. `drained`: nothing waits for it at the relay.
    pub(crate) fn handle_connected(&mut self, drained: bool) {
        self.info.online = false;
        self.end.handle_connected();
        if drained {
            self.end.handle_drained();
        }
    }

    /// All that waited at the relay has come.
    pub(crate) fn handle_drained(&mut self) {
        self.end.handle_drained();
    }

    /// Writes what has changed.
    pub(crate) fn persist(&mut self, receiver: &Receiver) -> io::Result<()> {
        if self.dirty { self.store(receiver) } else { Ok(()) }
    }

    pub(crate) fn handle_presence(&mut self, online: bool) {
        self.info.online = online;
        // What was refused comes again.
        self.owed = None;
        let now = unix_ms();
        if now.saturating_sub(self.info.seen_at) >= SEEN_MS {
            self.info.seen_at = now;
            self.dirty = true;
        }
    }

    /// Whether this is its enrolment's last message again.
    pub(crate) fn repeats_enrolment(&self, message: &KeyExchange) -> bool {
        self.end.repeats_enrolment(message)
    }

    pub(crate) fn handle_opening(
        &mut self,
        now: Instant,
        id: Option<&str>,
        opening: &KeyExchange,
    ) -> Result<Option<Box<RawValue>>, ExchangeError> {
        self.end.handle_opening(clocks(now), &mut fill, id, opening)
    }

    /// Seals a payload. What the message acknowledges, and what its key takes, is stored before.
    pub(crate) fn seal(
        &mut self,
        kind: &str,
        id: &str,
        payload: &RawValue,
        receiver: &Receiver,
    ) -> Result<Box<RawValue>, NotSealed> {
        let sent = self.end.seal(&mut fill, kind, Some(id), Some(payload)).map_err(NotSealed::Seal)?;
        if sent.store || self.dirty {
            self.store(receiver).map_err(NotSealed::Store)?;
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
        match self.end.open(clocks(now), kind, id, payload) {
            Ok(opened) => {
                self.dirty |= numbered || opened.confirmed;
                if opened.confirmed {
                    self.owed = None;
                }
                Ok(opened)
            }
            Err(error) => {
                if self.end.owes_complaint(error) {
                    self.owed = Some((error, id.map(str::to_owned)));
                }
                Err(error)
            }
        }
    }

    /// The refusal that the device is to be told of now, and what it is about.
    pub(crate) fn poll_complaint(&mut self, now: Instant) -> Option<(OpenError, Option<String>)> {
        let clocks = clocks(now);
        let end = &mut self.end;
        self.owed.take_if(|(error, _)| end.complains(clocks, *error))
    }

    /// When there may be one.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.owed.as_ref().map(|_| at(self.end.complains_at()))
    }
}
