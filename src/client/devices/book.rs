//! What an agent knows of all its devices together: its keys, its open links, the plain slot, and what the relay has been
//! asked and has not confirmed.

use super::stored::{StoredBook, StoredPlain, VERSION};
use super::{AgentKeys, DEVICES_MAX, Devices, INVITE_LIFE, Lane, Of, PLAIN_LIFE_MS, Store, clocks, fill, new_secret};
use crate::envelope::{new_id, unix_ms};
use crate::resume::Receiver;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use coralmux_e2e::v3::{self, AgentPrint, DeviceId, EnrolError, Enrolments, Invite, KeyExchange, OPEN_MAX};
use coralmux_e2e::{Link, PairingSecret};
use coralmux_proto::token::hex;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The name of what an agent keeps beside its devices.
const NAME: &str = "links";
/// What the relay has not confirmed: beyond it the oldest is not waited for.
const REQUESTS_MAX: usize = 64;
/// For so long a link is waited for.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// What the relay is asked.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// To know the agent by its key, and whether to let the plain phone in.
    Bind {
        legacy_phone: bool,
    },
    /// To let in who shows this invite. `told`: who waits for the link.
    Invite {
        invite: Invite,
        ttl: Option<Duration>,
        told: Option<Told>,
    },
    Admit(DeviceId),
    Revoke(DeviceId),
    Park(DeviceId),
}

/// Who asked for a link.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) by: Lane,
    pub(crate) tag: String,
    pub(crate) link: Link,
    pub(crate) expires_at: u64,
}

#[derive(Debug)]
struct Asked {
    id: String,
    request: Request,
    at: Instant,
}

/// A plain slot: for one phone that knows no devices.
#[derive(Debug)]
struct Plain {
    open: bool,
    secret: PairingSecret,
    /// It is not that of the first link.
    secret_is_own: bool,
    /// The secret of the first link opens it no more, and admits nobody.
    first_is_used: bool,
    used_at: Option<u64>,
    since: Option<u64>,
}

/// A link whose `k` is open, which device asked for it, and with which word.
#[derive(Debug)]
struct By {
    invite: Invite,
    by: Lane,
    tag: String,
}

/// Why an agent cannot have its devices.
#[derive(Debug, Error)]
pub enum BookError {
    /// The agent's link has no secret.
    #[error("devices need encryption of version 2 or later")]
    NoSecret,
    /// The system refuses.
    #[error("what is kept of the devices cannot be read or written: {0}")]
    Store(#[from] io::Error),
    /// It is not what this program wrote.
    #[error("what is kept of {0} is damaged, or of a later version of this program")]
    Damaged(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Book {
    token: String,
    relay: String,
    keys: AgentKeys,
    store: Arc<dyn Store>,
    enrolments: Enrolments,
    /// Of the open links, those that were asked for.
    by: Vec<By>,
    plain: Plain,
    /// The plain slot is never closed for want of use.
    legacy_phone: bool,
    /// The relay of the last connection knows devices.
    known: bool,
    /// It knew the agent by its key.
    bound: bool,
    /// What the plain slot is opened with has changed.
    plain_renewed: bool,
    asked: VecDeque<Asked>,
    /// What is to be asked again, at this time.
    again: Vec<(Instant, Request)>,
}

/// Why there is no link to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoLink {
    /// It was worth one device, and has admitted it.
    #[error("the first link was used, and is worth one device")]
    Used,
    /// It would lead nowhere.
    #[error("the relay has not confirmed this agent: try again in a moment, and look at what the agent says")]
    Unconfirmed,
}

/// The link that an agent shows first, by what is kept: that of the first start, as long as it admits a device; then that
/// of phones that know no devices, as long as these are let in. `plain` is that of the first start without the agent's key.
///
/// # Errors
/// There is none.
pub fn first_link(plain: &Link, keys: &AgentKeys, store: &dyn Store) -> Result<Link, NoLink> {
    let text = store.read(NAME).ok().flatten();
    let Some(stored) = text.as_deref().and_then(|text| serde_json::from_str::<StoredBook<'_>>(text).ok()) else {
        return Ok(plain.clone());
    };
    let agent = AgentPrint::of(keys.key.public());
    match &stored.plain {
        StoredPlain { first_is_used: false, .. } if stored.known() => match stored.bound {
            true => Ok(Link { agent: Some(agent), ..plain.clone() }),
            false => Err(NoLink::Unconfirmed),
        },
        StoredPlain { open: true, k: None, .. } => Ok(plain.clone()),
        StoredPlain { open: true, k: Some(k), .. } => {
            let secret = PairingSecret::parse(k).ok_or(NoLink::Used)?;
            Ok(Link { secret: Some(secret), ..plain.clone() })
        }
        StoredPlain { open: false, .. } => Err(NoLink::Used),
    }
}

impl Book {
    /// What is kept, and the devices with what was taken of them. `first`: the secret of the first link.
    pub(crate) fn open(
        token: &str,
        relay: &str,
        first: &PairingSecret,
        devices: &Devices,
    ) -> Result<(Self, Vec<(Of, Receiver)>), BookError> {
        let Devices { keys, store, .. } = devices;
        let mut book = Self {
            token: token.to_owned(),
            relay: relay.to_owned(),
            keys: keys.clone(),
            store: Arc::clone(store),
            enrolments: Enrolments::new(token, Arc::clone(&keys.key)),
            by: Vec::new(),
            plain: Plain {
                open: true,
                secret: first.clone(),
                secret_is_own: false,
                first_is_used: !devices.is_new,
                used_at: None,
                since: None,
            },
            legacy_phone: devices.legacy_phone,
            known: false,
            bound: false,
            plain_renewed: false,
            asked: VecDeque::new(),
            again: Vec::new(),
        };
        match store.read(NAME)? {
            Some(text) => book.read(&text).ok_or_else(|| BookError::Damaged("the open links".to_owned()))?,
            None if devices.is_new => book.enrolments.open(first.clone(), None),
            // Of a version without devices: a phone has its secret, and may be away for a while.
            None => book.plain.used_at = Some(unix_ms()),
        }
        let mut found = Vec::new();
        for name in store.names()? {
            if DeviceId::parse(&name).is_none() {
                continue;
            }
            let text = store.read(&name)?.unwrap_or_default();
            let of = Of::load(&text, token, keys, Arc::clone(store), devices.restored);
            found.push(of.ok_or_else(|| BookError::Damaged(format!("the device {name}")))?);
        }
        found.sort_by_key(|(of, _)| of.info().added_at);
        if devices.restored {
            book.enrolments.handle_restored();
            for (of, receiver) in &mut found {
                of.store(receiver)?;
            }
        }
        book.write()?;
        Ok((book, found))
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let stored: StoredBook<'_> =
            serde_json::from_str(text).ok().filter(|stored: &StoredBook<'_>| stored.v == VERSION)?;
        self.enrolments = Enrolments::load(&self.token, Arc::clone(&self.keys.key), stored.links.get()).ok()?;
        (self.known, self.bound) = (stored.known(), stored.bound);
        if let Some(secret) = &stored.plain.k {
            self.plain.secret = PairingSecret::parse(secret)?;
            self.plain.secret_is_own = true;
        }
        self.plain.open = stored.plain.open;
        self.plain.first_is_used = stored.plain.first_is_used;
        (self.plain.used_at, self.plain.since) = (stored.plain.used_at, stored.plain.since);
        let open = self.enrolments.invites(clocks(Instant::now()));
        for (hash, by) in &stored.by {
            let invite = open.iter().find(|invite| hex(&invite.hash()) == *hash);
            if let (Some(invite), Some(by)) = (invite, DeviceId::parse(by)) {
                self.by.push(By { invite: invite.clone(), by: Some(by), tag: String::new() });
            }
        }
        Some(())
    }

    fn write(&self) -> io::Result<()> {
        let links = self.enrolments.store();
        let stored = StoredBook {
            v: VERSION,
            known: Some(self.known),
            bound: self.bound,
            plain: StoredPlain {
                open: self.plain.open,
                k: self.plain.secret_is_own.then(|| self.plain.secret.expose().to_string()),
                first_is_used: self.plain.first_is_used,
                used_at: self.plain.used_at,
                since: self.plain.since,
            },
            by: self.by.iter().filter_map(|it| Some((hex(&it.invite.hash()), it.by?.to_string()))).collect(),
            links: serde_json::from_str(&links)?,
        };
        self.store.write(NAME, &serde_json::to_string(&stored)?)
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// By which the relay knows the agent.
    pub(crate) fn credential(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.keys.relay_key)
    }

    /// The secret of the plain slot.
    pub(crate) fn plain_secret(&self) -> &PairingSecret {
        &self.plain.secret
    }

    /// Phones that know no devices are let in.
    pub(crate) fn plain_is_open(&self) -> bool {
        self.plain.open
    }

    /// What the relay is told in each `auth.ok`'s wake. `ext` is that of the `auth.ok`: whether there are devices at this
    /// relay, and what it is to be asked.
    pub(crate) fn handle_authed(&mut self, now: Instant, ext: &Value) -> Option<Vec<Request>> {
        self.asked.clear();
        self.again.clear();
        let bound = ext["bound"].as_bool();
        if std::mem::replace(&mut self.known, bound.is_some()) != bound.is_some() {
            // If it fails it is written with the next link.
            let _ = self.write();
        }
        let bound = bound?;
        let mut requests = Vec::new();
        if !bound || ext["legacy"].as_bool() != Some(self.plain.open) {
            requests.push(Request::Bind { legacy_phone: self.plain.open });
        }
        // Before the relay knows the agent by its key, it takes nothing else.
        if bound {
            requests.extend(self.invites(now));
        }
        Some(requests)
    }

    /// The links that are open, for the relay.
    pub(crate) fn invites(&mut self, now: Instant) -> Vec<Request> {
        let clocks = clocks(now);
        let until = self.enrolments.times(clocks);
        let ask = |(invite, until): (Invite, Option<Duration>)| {
            let ttl = until.map(|until| until.saturating_sub(clocks.unix).max(Duration::from_secs(1)));
            Request::Invite { invite, ttl, told: None }
        };
        until.into_iter().map(ask).collect()
    }

    /// The message that asks for this.
    pub(crate) fn ask(&mut self, now: Instant, request: Request) -> (&'static str, String, Value) {
        let (kind, payload) = match &request {
            Request::Bind { legacy_phone } => ("relay.bind", json!({"legacy_phone": legacy_phone})),
            Request::Invite { invite, ttl, .. } => {
                let mut payload = json!({"invite": STANDARD.encode(invite.hash())});
                if let Some(ttl) = ttl {
                    payload["ttl_sec"] = json!(ttl.as_secs());
                }
                ("relay.invite", payload)
            }
            Request::Admit(device) => ("relay.admit", json!({"device": device.as_str()})),
            Request::Revoke(device) => ("relay.revoke", json!({"device": device.as_str()})),
            Request::Park(device) => ("relay.park", json!({"device": device.as_str()})),
        };
        let id = new_id();
        if self.asked.len() == REQUESTS_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { id: id.clone(), request, at: now });
        (kind, id, payload)
    }

    /// The relay has answered the request with this id.
    pub(crate) fn take_asked(&mut self, id: &str) -> Option<Request> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        self.asked.remove(at).map(|asked| asked.request)
    }

    /// It is to be asked again, after this time.
    pub(crate) fn ask_again(&mut self, at: Instant, request: Request) {
        if self.again.len() < REQUESTS_MAX {
            self.again.push((at, request));
        }
    }

    /// What is to be asked again now.
    pub(crate) fn poll_again(&mut self, now: Instant) -> Option<Request> {
        let at = self.again.iter().position(|(at, _)| *at <= now)?;
        Some(self.again.swap_remove(at).1)
    }

    /// A link that the relay has not confirmed in time: who waits for it.
    pub(crate) fn poll_unconfirmed(&mut self, now: Instant) -> Option<Told> {
        let late = |asked: &Asked| {
            now >= asked.at + CONFIRM_TIMEOUT && matches!(asked.request, Request::Invite { told: Some(_), .. })
        };
        let at = self.asked.iter().position(late)?;
        match self.asked.remove(at)?.request {
            Request::Invite { told, invite, .. } => {
                self.enrolments.forget(&invite);
                told
            }
            _ => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let links = self.asked.iter().filter(|asked| matches!(asked.request, Request::Invite { told: Some(_), .. }));
        let again = self.again.iter().map(|(at, _)| *at);
        links.map(|asked| asked.at + CONFIRM_TIMEOUT).chain(again).min()
    }

    /// The relay knows the agent by its key.
    pub(crate) fn handle_bound(&mut self) {
        if !std::mem::replace(&mut self.bound, true) {
            // If it fails it is written with the next link.
            let _ = self.write();
        }
    }

    /// The link of the first start, while it is good for anything.
    pub(crate) fn first_link(&self) -> Option<Link> {
        (!self.plain.first_is_used && !self.plain.secret_is_own).then(|| self.link(&self.plain.secret))
    }

    /// The link of phones that know no devices, while these are let in.
    pub(crate) fn plain_link(&self) -> Option<Link> {
        self.plain.open.then(|| Link { agent: None, ..self.link(&self.plain.secret) })
    }

    fn link(&self, secret: &PairingSecret) -> Link {
        Link {
            token: self.token.clone(),
            relay: self.relay.clone(),
            secret: Some(secret.clone()),
            agent: Some(AgentPrint::of(self.keys.key.public())),
        }
    }

    /// A new link, of which the relay has to be told before it is shown. `None`: there are too many.
    pub(crate) fn invite(&mut self, now: Instant, by: Lane, tag: String) -> io::Result<Option<Request>> {
        let clocks = clocks(now);
        if self.enrolments.invites(clocks).len() >= OPEN_MAX {
            return Ok(None);
        }
        let secret = new_secret();
        let invite = Invite::of(&secret);
        let until = clocks.unix + INVITE_LIFE;
        self.enrolments.open(secret.clone(), Some(until));
        let open = self.enrolments.invites(clocks);
        self.by.retain(|it| open.contains(&it.invite));
        self.by.push(By { invite: invite.clone(), by, tag: tag.clone() });
        self.write()?;
        let expires_at = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        let told = Some(Told { by, tag, link: self.link(&secret), expires_at });
        Ok(Some(Request::Invite { invite, ttl: Some(INVITE_LIFE), told }))
    }

    /// A first message of somebody who is no device: the answer.
    pub(crate) fn handle_first(
        &mut self,
        now: Instant,
        device: DeviceId,
        id: Option<&str>,
        message: &KeyExchange,
    ) -> Result<Option<Box<RawValue>>, String> {
        match self.enrolments.handle_first(clocks(now), &mut fill, device, id, message) {
            Ok(answer) => {
                self.write().map_err(|error| format!("a device could not enrol: {error}"))?;
                Ok(Some(answer))
            }
            Err(error @ EnrolError::Spent) => {
                // The count outlives it, in memory at least.
                let _ = self.write();
                Err(error.to_string())
            }
            // Of no link that is open: without a hint.
            Err(_) => Ok(None),
        }
    }

    /// A third message: the device, which is stored, and not admitted. `None`: it is of no link that is open.
    pub(crate) fn handle_third(
        &mut self,
        now: Instant,
        device: DeviceId,
        message: &KeyExchange,
        devices: usize,
    ) -> Result<Option<Of>, String> {
        let joined: v3::Joined = match self.enrolments.handle_third(clocks(now), device, message) {
            Ok(joined) => joined,
            Err(EnrolError::WrongSecret | EnrolError::Malformed) => return Ok(None),
            Err(error) => return Err(format!("a device was refused: {error}")),
        };
        let asked = self.by.extract_if(.., |it| it.invite == joined.invite).next();
        let (by, tag) = asked.map_or((None, String::new()), |it| (it.by, it.tag));
        if joined.invite == Invite::of(&self.plain.secret) {
            self.plain.first_is_used = true;
        }
        let failed = |error: io::Error| format!("a device could not enrol: {error}");
        if devices >= DEVICES_MAX {
            self.write().map_err(failed)?;
            return Err(format!("a device was refused: there are {DEVICES_MAX} already"));
        }
        let of = Of::joined(joined, by, tag, Arc::clone(&self.store)).map_err(failed)?;
        self.write().map_err(failed)?;
        Ok(Some(of))
    }

    /// A device was admitted.
    pub(crate) fn handle_admitted(&mut self) -> Option<Request> {
        self.plain.since.get_or_insert(unix_ms());
        let request = if self.plain.open && self.plain.first_is_used && self.plain.used_at.is_none() {
            self.retire_plain(!self.legacy_phone && !self.plain.secret_is_own)
        } else {
            None
        };
        // If it fails it is written with the next link.
        let _ = self.write();
        request
    }

    /// A device was revoked: if it was lifted from the plain slot, it still knows what opens that.
    pub(crate) fn handle_revoked(&mut self, device: DeviceId) -> io::Result<()> {
        for By { invite, .. } in self.by.extract_if(.., |it| it.by == Some(device)) {
            self.enrolments.forget(&invite);
        }
        if self.plain.open {
            self.retire_plain(false);
        }
        self.write()
    }

    /// The secret of the plain slot is good for nothing any more. `close`: nor is the slot.
    fn retire_plain(&mut self, close: bool) -> Option<Request> {
        self.enrolments.forget(&Invite::of(&self.plain.secret));
        (self.plain.secret, self.plain.secret_is_own) = (new_secret(), true);
        self.plain.first_is_used = true;
        self.plain.open &= !close;
        self.plain_renewed = true;
        close.then_some(Request::Bind { legacy_phone: false })
    }

    /// Whether what the plain slot is opened with has changed since.
    pub(crate) fn take_plain_renewed(&mut self) -> bool {
        std::mem::take(&mut self.plain_renewed)
    }

    /// A phone is in the plain slot, with keys.
    pub(crate) fn handle_plain_used(&mut self) {
        const HOUR_MS: u64 = 60 * 60 * 1000;
        let now = unix_ms();
        if self.plain.used_at.is_some_and(|at| now.saturating_sub(at) < HOUR_MS) {
            return;
        }
        self.plain.used_at = Some(now);
        // Whichever came first decides what the first link is good for.
        self.enrolments.forget(&Invite::of(&self.plain.secret));
        self.plain.first_is_used = true;
        // If it fails it is written with the next link.
        let _ = self.write();
    }

    /// Closes the plain slot.
    pub(crate) fn close_plain(&mut self) -> Option<Request> {
        let request = if self.plain.open { self.retire_plain(true) } else { None };
        // If it fails it is open again after a restart, with a secret that nobody knows.
        let _ = self.write();
        request
    }

    /// Closes the plain slot if nobody has used it for long.
    pub(crate) fn close_unused(&mut self) -> Option<Request> {
        let since = self.plain.since?.max(self.plain.used_at.unwrap_or_default());
        let unused = self.plain.open && !self.legacy_phone && unix_ms().saturating_sub(since) >= PLAIN_LIFE_MS;
        if !unused {
            return None;
        }
        let request = self.retire_plain(true);
        // If it fails it is closed at the next start.
        let _ = self.write();
        request
    }
}

impl Request {
    /// Who waits for the link that this is about.
    pub(crate) fn told(self) -> Option<Told> {
        match self {
            Self::Invite { told, .. } => told,
            _ => None,
        }
    }
}
