//! The agent's side: the secrets of its open links.

use super::super::error::{EnrolError, StateError};
use super::super::handshake::{ENROL_1_BYTES, ENROL_2_BYTES, ENROL_3_BYTES_MAX, ENROL_3_BYTES_MIN, Handshake, Purpose};
use super::super::keys::{Code, DeviceId, Invite, StaticKey, commitment, sha256};
use super::super::sessions::{Fresh, Sessions};
use super::super::state::{self, StoredLink};
use super::super::wire::{KeyExchange, key_exchange};
use super::super::{AgentEnd, FIRST_MAX, Now, OPEN_MAX};
use super::About;
use crate::{PairingSecret, Random, draw};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// All the `k` by which a device can become one. Each is good for one, and forgotten then.
pub struct Enrolments {
    token: String,
    key: Arc<StaticKey>,
    /// Oldest first, at most [`OPEN_MAX`].
    open: VecDeque<Open>,
}

struct Open {
    k: PairingSecret,
    /// Unix time; none for the link of the first start.
    until: Option<Duration>,
    /// First messages that were answered: at most [`FIRST_MAX`]. Those from before a restart are counted alone.
    answered: usize,
    pending: Vec<Pending>,
}

/// A first message that was answered. Its handshake is run again for each third message: snow does not come back from
/// one that is forged, for it begins with a ciphertext.
struct Pending {
    device: DeviceId,
    first: Vec<u8>,
    second: Vec<u8>,
    ephemeral: Zeroizing<[u8; 32]>,
    /// A third message has authenticated, and was refused all the same.
    over: bool,
}

/// A device that has shown `k`. Nobody is told of it before its end is stored, and the `k` forgotten there as well.
#[derive(Debug)]
pub struct Joined {
    /// Not admitted yet.
    pub end: AgentEnd,
    /// To be compared with what the device shows.
    pub code: Code,
    /// By which link it came.
    pub invite: Invite,
    /// What it calls itself: a stranger's text, without anything that a terminal would act on.
    pub name: String,
    /// The same.
    pub platform: String,
}

impl Enrolments {
    /// None is open.
    #[must_use]
    pub fn new(token: &str, key: Arc<StaticKey>) -> Self {
        Self { token: token.to_owned(), key, open: VecDeque::new() }
    }

    /// Opens a `k`, until a Unix time or until it is used. Beyond [`OPEN_MAX`] the oldest one is forgotten. To be
    /// stored.
    pub fn open(&mut self, k: PairingSecret, until: Option<Duration>) {
        if self.open.len() >= OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(Open { k, until, answered: 0, pending: Vec::new() });
    }

    /// Forgets the `k` of an invite. To be stored.
    pub fn forget(&mut self, invite: &Invite) {
        self.open.retain(|open| Invite::of(&open.k) != *invite);
    }

    /// Forgets every `k`: the agent's state is of a backup. To be stored.
    pub fn handle_restored(&mut self) {
        self.open.clear();
    }

    /// The invites that are open: the relay is told of them after each `auth.ok`.
    pub fn invites(&mut self, now: Now) -> Vec<Invite> {
        self.expire(now);
        self.open.iter().map(|open| Invite::of(&open.k)).collect()
    }

    /// The same, each with the Unix time until which it is open; `None`: until it is used.
    pub fn times(&mut self, now: Now) -> Vec<(Invite, Option<Duration>)> {
        self.expire(now);
        self.open.iter().map(|open| (Invite::of(&open.k), open.until)).collect()
    }

    fn expire(&mut self, now: Now) {
        self.open.retain(|open| open.until.is_none_or(|until| now.unix < until));
    }

    /// Answers a device's first message, which has this `id`. The same message gets the same answer. The count of
    /// first messages has changed: to be stored before the answer leaves.
    ///
    /// # Errors
    /// It is of no `k` that is open; or it is one too many for its `k`, which is forgotten now.
    pub fn handle_first(
        &mut self,
        now: Now,
        random: &mut (impl Random + ?Sized),
        device: DeviceId,
        id: Option<&str>,
        message: &KeyExchange,
    ) -> Result<Box<RawValue>, EnrolError> {
        let first = message.enrolling(1)?;
        if first.len() != ENROL_1_BYTES {
            return Err(EnrolError::Malformed);
        }
        self.expire(now);
        let again = |pending: &&Pending| pending.device == device && pending.first == first;
        if let Some(pending) = self.open.iter().flat_map(|open| &open.pending).find(again) {
            return Ok(key_exchange(Some(2), &pending.second, id));
        }
        let ephemeral = draw(random);
        for place in 0..self.open.len() {
            let open = &mut self.open[place];
            let Some((_, second, _)) = answered((&self.token, &self.key), &open.k, device, ephemeral, first) else {
                continue;
            };
            if open.answered >= FIRST_MAX {
                self.open.remove(place);
                return Err(EnrolError::Spent);
            }
            let answer = key_exchange(Some(2), &second, id);
            let (first, ephemeral) = (first.to_vec(), Zeroizing::new(ephemeral));
            open.answered += 1;
            open.pending.push(Pending { device, first, second, ephemeral, over: false });
            return Ok(answer);
        }
        Err(EnrolError::WrongSecret)
    }

    /// Takes a device's third message. Its `k` is forgotten: the device's end and [`store`](Self::store) are to be
    /// written before anybody is told.
    ///
    /// # Errors
    /// It fits no first message of this device that was answered, or not what that committed to.
    pub fn handle_third(&mut self, now: Now, device: DeviceId, message: &KeyExchange) -> Result<Joined, EnrolError> {
        let third = message.enrolling(3)?;
        if !(ENROL_3_BYTES_MIN..=ENROL_3_BYTES_MAX).contains(&third.len()) {
            return Err(EnrolError::Malformed);
        }
        self.expire(now);
        let own = (self.token.as_str(), &self.key);
        for place in 0..self.open.len() {
            let Open { k, pending, .. } = &mut self.open[place];
            for pending in pending.iter_mut().filter(|pending| pending.device == device && !pending.over) {
                let again = answered(own, k, device, *pending.ephemeral, &pending.first);
                let Some((mut handshake, _, committed)) = again else { continue };
                let h2 = handshake.hash();
                let Ok(payload) = handshake.read(third) else { continue };
                // It authenticates: whatever is wrong with it, this handshake is over.
                pending.over = true;
                let about = About::parse(&payload)?;
                let public = handshake.remote().ok_or(EnrolError::Malformed)?;
                let r = about.r().ok_or(EnrolError::Malformed)?;
                if *committed != commitment(&public, &r) {
                    return Err(EnrolError::Commitment);
                }
                if !about.is_shown() {
                    return Err(EnrolError::Name);
                }
                let (code, invite) = (Code::of(&h2, &public, &r), Invite::of(k));
                let split = handshake.split();
                let fresh = Fresh::new(split.sid, split.of_device, split.of_agent, now);
                let (sessions, state) = (Sessions::of(device, fresh), (false, sha256(&[third])));
                let end = AgentEnd::new(own.0.to_owned(), self.key.clone(), public, split.psk, sessions, state);
                self.open.remove(place);
                return Ok(Joined { end, code, invite, name: about.name, platform: about.platform });
            }
        }
        Err(EnrolError::WrongSecret)
    }

    /// The text to store: all open `k`.
    #[must_use]
    pub fn store(&self) -> Zeroizing<String> {
        let link = |open: &Open| StoredLink::new(&open.k, open.until, open.answered);
        state::write_links(self.open.iter().map(link).collect())
    }

    /// What was stored.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn load(token: &str, key: Arc<StaticKey>, text: &str) -> Result<Self, StateError> {
        let links = state::read_links(text)?;
        let open = |link: &StoredLink| {
            let (k, until, answered) = link.read()?;
            Some(Open { k, until, answered, pending: Vec::new() })
        };
        let open = links.iter().map(open).collect::<Option<_>>().ok_or(StateError::Damaged)?;
        Ok(Self { token: token.to_owned(), key, open })
    }
}

impl fmt::Debug for Enrolments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolments").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

/// The handshake with this first message answered, the answer, and the commitment; `None` where `k` is not its own.
fn answered(
    (token, key): (&str, &Arc<StaticKey>),
    k: &PairingSecret,
    device: DeviceId,
    ephemeral: [u8; 32],
    first: &[u8],
) -> Option<(Handshake, Vec<u8>, Zeroizing<Vec<u8>>)> {
    let mut handshake = Handshake::new(Purpose::Enrol, (token, device), k.as_bytes(), key, ephemeral, false);
    let commitment = handshake.read(first).ok()?;
    let second = handshake.write(b"");
    debug_assert_eq!(second.len(), ENROL_2_BYTES);
    Some((handshake, second, commitment))
}
