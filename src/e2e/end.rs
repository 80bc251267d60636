//! One end of a pair: what it announces and answers, and with which keys it seals and opens.
//!
//! How a client drives it, the same for both roles:
//!
//! | when | call |
//! | --- | --- |
//! | after `auth.ok`, and on `status` `online` | [`End::handle_online`]; send what it returns |
//! | a `key_exchange` comes | [`End::handle_key_exchange`]; send what it returns |
//! | a `key_exchange` of one's own was refused by the relay (rate limit) | later [`End::retry`]; send what it returns |
//! | any other forwarded type comes | [`End::open`] |
//! | such a message is to be sent | [`End::seal`]; on [`SealError::Waiting`] queue it until [`Step::agreed`] |
//! | one of the last four fails | [`End::complaint`]; send what it returns |
//! | the agent complains in clear, or [`OpenError::may_be_of_other_keys`] | [`End::doubt`]; then [`End::retry`] |
//!
//! The relay's own messages (`auth.ok`, `status`, `ping`, `pong`) do not pass through here. Its `chat.error` does: it
//! comes in clear, and [`Opened::protection`] says so.

mod agent;
mod phone;

#[cfg(test)]
pub(super) use agent::OPENINGS_MAX;

use super::error::{ExchangeError, OpenError, SealError};
use super::payload::{enclosed, json, padded};
use super::{Fingerprint, PairingSecret, Random, v1, v2};
use coralmux_proto::token::Role;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::fmt;

/// The `code` of the `chat.error` with which an agent refuses a message.
pub const DECRYPTION_FAILED: &str = "DECRYPTION_FAILED";

/// How a message is, or the next one would be, protected from the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing is agreed yet, and nothing is sent.
    Waiting,
    /// In clear: the relay can read it, and write it.
    Clear,
    /// Version 1: encrypted, and nobody vouches for the keys; people may compare [`End::fingerprint`].
    Unverified,
    /// Version 2: encrypted with keys that only somebody with the pairing secret can have.
    Verified,
}

/// A message to send as it is.
#[derive(Debug)]
pub struct Reply {
    /// Its `type`.
    pub kind: &'static str,
    /// Its `payload`.
    pub payload: Box<RawValue>,
}

/// What a `key_exchange` led to.
#[derive(Debug, Default)]
pub struct Step {
    /// To be sent at once; a phone's with the `id` that was given.
    pub reply: Option<Reply>,
    /// New keys are in use: what waited can be sealed, after the reply was sent.
    pub agreed: bool,
    /// Agent, version 2: the phone says that it knows version 3. Anyone on the way can say so for it.
    pub devices: bool,
}

/// A message that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The payload in clear; `{}` where there was none.
    pub payload: Box<RawValue>,
    /// How it came. [`Protection::Clear`] means that the relay may have made it up.
    pub protection: Protection,
    /// Version 2: how many messages before this one never came.
    pub missed: u64,
    /// Version 2: its keys were agreed together with resume.
    pub resume: bool,
}

/// One end of a pair, across its reconnects.
pub struct End {
    role: Role,
    token: String,
    secret: Option<PairingSecret>,
    random: Box<dyn Random + Send>,
    /// What is sealed is padded to a multiple of this many bytes.
    padding: usize,
    /// Resume is offered, or accepted where the peer offers it.
    resume: bool,
    /// What messages are opened with, and sealed with unless `waiting`.
    keys: Option<Keys>,
    /// New keys are being agreed on, and nothing is sealed with the old ones. Only phones wait: an agent's keys are gone
    /// (version 1), or in use until the answer (version 2).
    waiting: bool,
    /// The peer speaks in clear, or the client said that it may. Never with a secret.
    clear: bool,
    /// Agent, version 1: the pair that was announced.
    pair: Option<v1::KeyPair>,
    /// Phone, version 2: the handshake in progress and the `id` of its opening.
    opening: Option<(String, v2::Opening)>,
    /// Phone: the agent's newest announcement was one of version 2.
    announced: bool,
    /// Phone: that announcement offered resume.
    offered_resume: bool,
    /// Agent, version 2: the ephemeral keys of the openings that it took, oldest first; at most
    /// [`OPENINGS_MAX`](agent::OPENINGS_MAX).
    taken: VecDeque<[u8; 32]>,
}

enum Keys {
    Unverified { key: v1::Key, public: [[u8; 32]; 2] },
    Verified(v2::Session),
}

impl End {
    /// The phone's end. With a secret it takes version 2 alone.
    #[must_use]
    pub fn phone(token: &str, secret: Option<PairingSecret>, random: impl Random + Send + 'static) -> Self {
        Self::new(Role::Phone, token, secret, random)
    }

    /// The agent's end. With a secret it takes version 2 alone.
    #[must_use]
    pub fn agent(token: &str, secret: Option<PairingSecret>, random: impl Random + Send + 'static) -> Self {
        Self::new(Role::Agent, token, secret, random)
    }

    fn new(role: Role, token: &str, secret: Option<PairingSecret>, random: impl Random + Send + 'static) -> Self {
        Self {
            role,
            token: token.to_owned(),
            secret,
            random: Box::new(random),
            padding: 1,
            resume: false,
            keys: None,
            waiting: role == Role::Phone,
            clear: false,
            pair: None,
            opening: None,
            announced: false,
            offered_resume: false,
            taken: VecDeque::new(),
        }
    }

    /// The connection is authenticated, or the peer has come: keys are agreed anew. An agent sends what is returned;
    /// a phone waits for the agent's word.
    pub fn handle_online(&mut self) -> Option<Reply> {
        match self.role {
            Role::Agent => Some(self.announce()),
            Role::Phone => {
                (self.waiting, self.clear) = (true, false);
                None
            }
        }
    }

    /// Takes a `key_exchange` in. `reply_id` is the envelope's `id` that the reply will be sent with, if there is one:
    /// a fresh one. `id` is that of the message.
    ///
    /// # Errors
    /// It is refused: a client shows why, and sends the [`complaint`](Self::complaint).
    pub fn handle_key_exchange(
        &mut self,
        id: Option<&str>,
        payload: Option<&RawValue>,
        reply_id: &str,
    ) -> Result<Step, ExchangeError> {
        match self.role {
            Role::Agent => self.handle_opening(id, payload),
            Role::Phone => self.handle_announcement(payload, reply_id),
        }
    }

    /// Says again what has not reached the peer: an agent announces itself anew, a phone of version 2 opens anew. A
    /// phone also does so when its key is [exhausted](SealError::Exhausted). `reply_id` as in
    /// [`handle_key_exchange`](Self::handle_key_exchange).
    pub fn retry(&mut self, reply_id: &str) -> Option<Reply> {
        match self.role {
            Role::Agent => Some(self.announce()),
            Role::Phone => self.reopen(reply_id),
        }
    }

    /// Phone, version 2: there is a sign that the agent has other keys. Whether to [`retry`](Self::retry): then nothing
    /// is sealed until an answer has come. Anyone can give such a sign, so a client does that only now and then.
    pub fn doubt(&mut self) -> bool {
        let doubted = self.role == Role::Phone && self.protection() == Protection::Verified;
        self.waiting |= doubted;
        doubted
    }

    /// Encrypts the payload of a message of type `kind`, as it has to be at present; `None` is sent as `{}`. Where
    /// nothing is agreed and clear text is allowed, the payload comes back as it is.
    ///
    /// # Errors
    /// Nothing may be sent now: wait for a [`Step`] that is `agreed`, except after the other errors.
    pub fn seal(&mut self, kind: &str, payload: Option<&RawValue>) -> Result<Box<RawValue>, SealError> {
        let payload = payload.unwrap_or_else(|| empty());
        match &mut self.keys {
            Some(_) if self.waiting => Err(SealError::Waiting),
            Some(Keys::Verified(session)) => session.seal(kind, &padded(payload, self.padding)),
            Some(Keys::Unverified { key, .. }) => key.seal_text(&mut *self.random, &padded(payload, self.padding)),
            None if self.clear => Ok(payload.to_owned()),
            None => Err(SealError::Waiting),
        }
    }

    /// Pads what is sealed with blanks behind its JSON to a multiple of `step` bytes, so that its length tells less of
    /// it. Receivers need nothing for it.
    #[must_use]
    pub fn with_padding(mut self, step: usize) -> Self {
        self.padding = step;
        self
    }

    /// Offers resume with version 2 (PROTOCOL.md, "Resume"), and accepts it. Where the peer does the same,
    /// [`resumes`](Self::resumes) and [`Opened::resume`] say so: what the caller seals and opens then are records.
    #[must_use]
    pub fn with_resume(mut self) -> Self {
        self.resume = true;
        self
    }

    /// Decrypts the payload of a message of type `kind`. What came in clear comes back as it is where there is neither a
    /// secret nor, at an agent, a key; else only `chat.error` does, for the relay says that, too.
    ///
    /// # Errors
    /// The message is refused: a client must not act on it, and sends the [`complaint`](Self::complaint). A phone may
    /// pass over [`OpenError::NoKey`]: it was meant for its last run.
    pub fn open(&mut self, kind: &str, payload: Option<&RawValue>) -> Result<Opened, OpenError> {
        let payload = payload.unwrap_or_else(|| empty());
        let Some(sealed) = enclosed(payload)? else { return self.open_clear(kind, payload) };
        match &mut self.keys {
            None => Err(OpenError::NoKey),
            Some(Keys::Unverified { key, .. }) => {
                let payload = key.open_sealed(sealed)?;
                Ok(Opened { payload, protection: Protection::Unverified, missed: 0, resume: false })
            }
            Some(Keys::Verified(session)) => {
                let (payload, missed) = session.open(kind, sealed)?;
                Ok(Opened { payload, protection: Protection::Verified, missed, resume: session.resumes() })
            }
        }
    }

    fn open_clear(&mut self, kind: &str, payload: &RawValue) -> Result<Opened, OpenError> {
        let relays = kind == "chat.error";
        if self.secret.is_some() && !relays {
            return Err(OpenError::InClear);
        }
        if self.role == Role::Agent && !relays {
            if self.keys.is_some() {
                // The phone has the key, too: whoever writes this is not the phone.
                return Err(OpenError::NotEncrypted);
            }
            self.clear = true; // it is answered as it spoke
        }
        Ok(Opened { payload: payload.to_owned(), protection: Protection::Clear, missed: 0, resume: false })
    }

    /// Lets a phone without a secret speak in clear to an agent that sends no `key_exchange`. Whether it may: not with
    /// a secret, and not once keys were agreed, or a relay could wait for it.
    pub fn allow_clear(&mut self) -> bool {
        self.clear = self.secret.is_none() && self.keys.is_none();
        self.clear
    }

    /// The `chat.error` by which an agent says why it refused something. Phones say nothing: they show it.
    #[must_use]
    pub fn complaint(&self, why: impl fmt::Display) -> Option<Reply> {
        #[derive(Serialize)]
        struct Complaint {
            code: &'static str,
            message: String,
        }
        let complaint = Complaint { code: DECRYPTION_FAILED, message: why.to_string() };
        (self.role == Role::Agent).then(|| Reply { kind: "chat.error", payload: json(&complaint) })
    }

    /// How the next message would be sent.
    #[must_use]
    pub fn protection(&self) -> Protection {
        match &self.keys {
            Some(_) if self.waiting => Protection::Waiting,
            Some(Keys::Verified(_)) => Protection::Verified,
            Some(Keys::Unverified { .. }) => Protection::Unverified,
            None if self.clear => Protection::Clear,
            None => Protection::Waiting,
        }
    }

    /// The keys in use were agreed together with resume.
    #[must_use]
    pub fn resumes(&self) -> bool {
        matches!(&self.keys, Some(Keys::Verified(session)) if session.resumes())
    }

    /// The fingerprint of a pair of version 1; takes some milliseconds.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match &self.keys {
            Some(Keys::Unverified { public: [one, other], .. }) => Some(Fingerprint::of(one, other)),
            _ => None,
        }
    }

    /// Version 2: how many messages of the peer never came since the keys were agreed. The relay refused them, or
    /// they went down with a connection.
    #[must_use]
    pub fn missed(&self) -> u64 {
        match &self.keys {
            Some(Keys::Verified(session)) => session.missed(),
            _ => 0,
        }
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, counter: u64) {
        if let Some(Keys::Verified(session)) = &mut self.keys {
            session.skip_to(counter);
        }
    }

    /// Takes a public key of version 1 in.
    fn agree(&mut self, pair: &v1::KeyPair, theirs: &[u8]) -> Result<(), ExchangeError> {
        let key = pair.agree(theirs)?;
        // `agree` has refused any other length.
        let theirs = theirs.try_into().map_err(|_| ExchangeError::Malformed)?;
        self.keys = Some(Keys::Unverified { key, public: [*pair.public(), theirs] });
        (self.waiting, self.clear) = (false, false);
        Ok(())
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verified = self.secret.is_some();
        write!(f, "End({}, with secret: {verified}, {:?})", self.role.name(), self.protection())
    }
}

impl Reply {
    fn exchange(exchange: &impl Serialize) -> Self {
        Self { kind: "key_exchange", payload: json(exchange) }
    }
}

/// The payload of a message that has none.
fn empty() -> &'static RawValue {
    serde_json::from_str("{}").expect("it is JSON")
}
