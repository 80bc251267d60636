//! What the ends store, as JSON: versioned and bounded. The texts hold secrets, and are wiped when they are dropped.

use super::chain::{Chain, NUMBER_MAX, Sending};
use super::error::StateError;
use super::handshake::{ENROL_3_BYTES_MAX, ENROL_3_BYTES_MIN};
use super::keys::{DeviceId, Secret, Sid, StaticKey};
use super::sessions::{Receiving, Sessions};
use super::{AgentEnd, DeviceEnd, FIRST_MAX, OPEN_MAX, RECEIVING_MAX};
use crate::PairingSecret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The version of the stored texts.
const VERSION: u64 = 1;
/// No stored text is longer: it is written into memory of this size, so that no copy of it is left behind.
const STATE_BYTES_MAX: usize = 8 * 1024;

/// Bytes as base64url, wiped on drop.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text(Zeroizing<String>);

impl Text {
    fn of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        URL_SAFE_NO_PAD.decode(&*self.0).ok().map(Zeroizing::new)
    }

    fn array<const N: usize>(&self) -> Option<Zeroizing<[u8; N]>> {
        self.bytes()?.first_chunk().filter(|_| self.0.len() == (N * 4).div_ceil(3)).copied().map(Zeroizing::new)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredChain {
    sid: Text,
    key: Text,
    next: u64,
    /// Unix time in milliseconds; 0 for the sending one.
    since: u64,
}

impl StoredChain {
    fn new(sid: Sid, chain: &Chain, since: Duration) -> Self {
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Self { sid: Text::of(&sid), key: Text::of(chain.key()), next: chain.next(), since }
    }

    fn read(&self) -> Option<Receiving> {
        let chain = (self.next <= NUMBER_MAX + 1).then_some(Chain::new(self.key.array()?, self.next))?;
        Some(Receiving { sid: *self.sid.array()?, chain, since: Duration::from_millis(self.since) })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSessions {
    device: String,
    sending: StoredChain,
    receiving: Vec<StoredChain>,
}

impl StoredSessions {
    fn new(sessions: &Sessions) -> Self {
        let Sending { sid, .. } = sessions.sending;
        let receiving = sessions.receiving.iter();
        Self {
            device: sessions.device.to_string(),
            sending: StoredChain::new(sid, sessions.sending.stored(), Duration::ZERO),
            receiving: receiving.map(|session| StoredChain::new(session.sid, &session.chain, session.since)).collect(),
        }
    }

    fn read(&self) -> Option<Sessions> {
        let Receiving { sid, chain, .. } = self.sending.read()?;
        let receiving = self.receiving.iter().map(StoredChain::read).collect::<Option<_>>()?;
        let bounded = self.receiving.len() <= RECEIVING_MAX;
        bounded.then_some(Sessions::new(DeviceId::parse(&self.device)?, receiving, Sending::new(sid, chain)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDevice {
    v: u64,
    token: String,
    key: Text,
    agent: Text,
    psk: Text,
    third: Option<Text>,
    sessions: StoredSessions,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPeer {
    v: u64,
    public: Text,
    psk: Text,
    admitted: bool,
    third: Text,
    sessions: StoredSessions,
}

/// A link whose `k` is open.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredLink {
    k: Text,
    /// Unix time in milliseconds.
    until: Option<u64>,
    answered: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLinks {
    v: u64,
    links: Vec<StoredLink>,
}

impl StoredLink {
    pub(super) fn new(k: &PairingSecret, until: Option<Duration>, answered: usize) -> Self {
        let until = until.map(|until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        Self { k: Text::of(k.as_bytes()), until, answered }
    }

    pub(super) fn read(&self) -> Option<(PairingSecret, Option<Duration>, usize)> {
        let k = PairingSecret::from_bytes(*self.k.array()?);
        (self.answered <= FIRST_MAX).then_some((k, self.until.map(Duration::from_millis), self.answered))
    }
}

pub(super) fn write_links(links: Vec<StoredLink>) -> Zeroizing<String> {
    write(&StoredLinks { v: VERSION, links })
}

pub(super) fn read_links(text: &str) -> Result<Vec<StoredLink>, StateError> {
    let StoredLinks { links, .. } = read(text)?;
    if links.len() <= OPEN_MAX { Ok(links) } else { Err(StateError::Damaged) }
}

impl DeviceEnd {
    /// The text to store.
    #[must_use]
    pub fn store(&self) -> Zeroizing<String> {
        write(&StoredDevice {
            v: VERSION,
            token: self.token.clone(),
            key: Text::of(self.key.expose()),
            agent: Text::of(&self.agent),
            psk: Text::of(&*self.psk),
            third: self.third.as_deref().map(Text::of),
            sessions: StoredSessions::new(&self.sessions),
        })
    }

    /// What was stored.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn load(text: &str) -> Result<Self, StateError> {
        let stored: StoredDevice = read(text)?;
        let load = || {
            let third = match &stored.third {
                Some(third) => {
                    let third = third.bytes()?.to_vec();
                    Some((ENROL_3_BYTES_MIN..=ENROL_3_BYTES_MAX).contains(&third.len()).then_some(third)?)
                }
                None => None,
            };
            let key = StaticKey::from_private(*stored.key.array()?);
            let (agent, psk): (_, Secret) = (*stored.agent.array()?, stored.psk.array()?);
            Some(Self::new(stored.token.clone(), key, agent, psk, stored.sessions.read()?, third))
        };
        load().ok_or(StateError::Damaged)
    }
}

impl AgentEnd {
    /// The text to store.
    #[must_use]
    pub fn store(&self) -> Zeroizing<String> {
        write(&StoredPeer {
            v: VERSION,
            public: Text::of(&self.public),
            psk: Text::of(&*self.psk),
            admitted: self.admitted,
            third: Text::of(&self.third),
            sessions: StoredSessions::new(&self.sessions),
        })
    }

    /// What was stored, of an agent with this token and key.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn load(token: &str, key: Arc<StaticKey>, text: &str) -> Result<Self, StateError> {
        let stored: StoredPeer = read(text)?;
        let load = || {
            let (public, psk): (_, Secret) = (*stored.public.array()?, stored.psk.array()?);
            let state = (stored.admitted, *stored.third.array()?);
            Some(Self::new(token.to_owned(), key, public, psk, stored.sessions.read()?, state))
        };
        load().ok_or(StateError::Damaged)
    }
}

fn write(value: &impl Serialize) -> Zeroizing<String> {
    let mut text = Zeroizing::new(Vec::with_capacity(STATE_BYTES_MAX));
    serde_json::to_writer(&mut *text, value).expect("structs of strings and numbers are JSON");
    // Every list and text in it is bounded, but for the token: that is the caller's own.
    debug_assert!(text.len() <= STATE_BYTES_MAX);
    Zeroizing::new(String::from_utf8(std::mem::take(&mut *text)).expect("JSON is UTF-8"))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, StateError> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    if text.len() > STATE_BYTES_MAX {
        return Err(StateError::Damaged);
    }
    match serde_json::from_str(text) {
        Ok(Version { v: VERSION }) => serde_json::from_str(text).map_err(|_| StateError::Damaged),
        Ok(Version { v }) => Err(StateError::Version(v)),
        Err(_) => Err(StateError::Damaged),
    }
}
