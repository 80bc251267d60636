//! What encryption asks of a client: what to send when, what to seal, what to refuse. The ciphers are `e2e`'s.

mod pair;

use super::devices::{self, Of, Own, Said, WELCOME};
use super::envelope::new_id;
use super::event::Event;
use super::options::Options;
use super::resume::{ACK, Receiver};
use coralmux_e2e::v3::{self, DeviceId, KeyExchange, OpenError};
use coralmux_e2e::{DECRYPTION_FAILED, Reply};
use pair::Pair;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

/// After a failure to store keys, nothing is sealed for so long.
const STORE_AGAIN: Duration = Duration::from_secs(5);

/// What follows from a signal or a `key_exchange`.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The id of a `key_exchange` to send, and the message.
    pub(super) send: Option<(String, Reply)>,
    /// There are keys now: of this version, with this fingerprint.
    pub(super) secured: Option<(u8, Option<String>)>,
    /// What is numbered is agreed on anew with the present peer.
    pub(super) agreed: bool,
    /// The peer was refused.
    pub(super) refused: Option<Refusal>,
    /// The owner is told.
    pub(super) told: Option<Event>,
}

/// Why the peer's message is not acted on.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    /// What the peer is told, in clear.
    pub(super) complaint: Option<Reply>,
    /// Whether the owner is told.
    pub(super) worth_telling: bool,
    /// It may be of keys that this end has not.
    pub(super) of_other_keys: bool,
}

/// A message's payload in clear.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) payload: Box<RawValue>,
    /// It was encrypted, so that it is the peer's word.
    pub(super) authenticated: bool,
    /// How many messages before it never came, as far as that can be known.
    pub(super) missed: u64,
    /// It is a record, or an acknowledgement.
    pub(super) resume: bool,
    /// It is the first with these keys.
    pub(super) renewed: bool,
    /// When it was sent, as the peer says.
    pub(super) sent_at: Option<u64>,
}

/// The state of the encryption with one peer, over all connections.
#[derive(Debug)]
pub(super) enum Secure {
    /// Versions 1 and 2, or none.
    Pair(Box<Pair>),
    /// This end is a device.
    Own(Box<Own>),
    /// This end is an agent, and the peer one of its devices.
    Of(Box<Of>),
}

impl Secure {
    /// Of a pair.
    pub(super) fn of_pair(options: &Options) -> Self {
        Self::Pair(Box::new(Pair::new(options)))
    }

    /// The device that this end is.
    pub(super) fn own_device(&self) -> Option<DeviceId> {
        match self {
            Self::Own(own) => Some(own.id()),
            Self::Pair(_) | Self::Of(_) => None,
        }
    }

    /// Why this end is no device of this relay, if it is to be one: `ext` is what `auth.ok` says of it.
    pub(super) fn own_fault(&self, ext: &Value) -> Option<&'static str> {
        let own = self.own_device()?;
        let is_known = ext["device"].as_str() == Some(own.as_str());
        (!is_known).then_some("the relay knows no devices, or not this one any more: show a new link")
    }

    /// An agent's device.
    pub(super) fn of(&self) -> Option<&Of> {
        match self {
            Self::Of(of) => Some(of),
            Self::Pair(_) | Self::Own(_) => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn of_mut(&mut self) -> Option<&mut Of> {
        match self {
            Self::Of(of) => Some(of),
            Self::Pair(_) | Self::Own(_) => None,
        }
    }

    /// The relay has let this end in. `drained`: nothing waits for it there.
    pub(super) fn handle_connected(&mut self, drained: bool) -> Step {
        match self {
            Self::Pair(_) => Step::default(),
            Self::Own(own) => step_of(own.handle_connected(drained)),
            Self::Of(of) => {
                of.handle_connected(drained);
                Step::default()
            }
        }
    }

    /// All that waited at the relay has come.
    pub(super) fn handle_drained(&mut self) {
        match self {
            Self::Pair(_) => {}
            Self::Own(own) => own.handle_drained(),
            Self::Of(of) => of.handle_drained(),
        }
    }

    /// Writes what has changed of the keys, and of what was taken.
    pub(super) fn persist(&mut self, receiver: &Receiver) -> io::Result<()> {
        match self {
            Self::Pair(_) => Ok(()),
            Self::Own(own) => own.persist(receiver),
            Self::Of(of) => of.persist(receiver),
        }
    }

    /// The relay has let this end in, or the peer has come, or has come anew.
    pub(super) fn handle_peer(&mut self, online: bool) -> Step {
        match self {
            Self::Pair(pair) => pair.handle_peer(),
            Self::Own(own) => {
                own.handle_agent(online);
                let agreed = online && own.is_admitted();
                Step { agreed, secured: agreed.then_some((3, None)), ..Step::default() }
            }
            Self::Of(of) => {
                of.handle_presence(online);
                Step { agreed: online && of.is_welcomed(), ..Step::default() }
            }
        }
    }

    /// The peer has left.
    pub(super) fn handle_away(&mut self) {
        match self {
            Self::Pair(_) => {}
            Self::Own(own) => own.handle_agent(false),
            Self::Of(of) => of.handle_presence(false),
        }
    }

    /// The newest `key_exchange` of this end did not reach the peer, or its keys could not be stored.
    pub(super) fn retry(&mut self) -> Step {
        match self {
            Self::Pair(pair) => pair.retry(),
            Self::Own(own) => Step { agreed: own.is_admitted(), ..Step::default() },
            Self::Of(of) => Step { agreed: of.is_welcomed(), ..Step::default() },
        }
    }

    /// What it is time for.
    pub(super) fn poll(&mut self, now: Instant) -> Step {
        match self {
            Self::Own(own) => step_of(own.poll(now)),
            Self::Of(of) => {
                let owed = of.poll_complaint(now).map(|(error, about)| Refusal {
                    complaint: Some(complaint(&error.to_string(), about.as_deref())),
                    worth_telling: false,
                    ..refusal(error.to_string())
                });
                Step { refused: owed, ..Step::default() }
            }
            Self::Pair(_) => Step::default(),
        }
    }

    /// When [`poll`](Self::poll) may have something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Own(own) => own.poll_timeout(),
            Self::Of(of) => of.poll_timeout(),
            Self::Pair(_) => None,
        }
    }

    /// There is a sign that the agent has other keys than this phone. When to [`retry`](Self::retry), if at all: until
    /// there is an answer, nothing is ready to be sent. The sign may be anybody's, so it is followed only now and then.
    pub(super) fn doubt(&mut self, now: Instant) -> Option<Instant> {
        match self {
            Self::Pair(pair) => pair.doubt(now),
            Self::Own(own) => {
                own.handle_complaint();
                None
            }
            Self::Of(_) => None,
        }
    }

    /// A `key_exchange` of the peer.
    pub(super) fn handle_key_exchange(
        &mut self,
        now: Instant,
        id: Option<&str>,
        payload: Option<&RawValue>,
        receiver: &Receiver,
    ) -> Step {
        match self {
            Self::Pair(pair) => pair.handle_key_exchange(id, payload),
            Self::Own(own) => {
                // Of another version: a device goes back to none.
                let Some(message) = payload.and_then(KeyExchange::parse) else { return Step::default() };
                match own.handle_key_exchange(now, &message, receiver) {
                    Ok(said) => step_of(said),
                    Err(message) => Step { refused: Some(refusal(message)), ..Step::default() },
                }
            }
            Self::Of(of) => {
                let Some(message) = payload.and_then(KeyExchange::parse) else { return Step::default() };
                if of.repeats_enrolment(&message) {
                    let told = of.is_admitted().then(|| Event::WantsWelcome { device: of.device() });
                    return Step { told, ..Step::default() };
                }
                // Refused ones are not told: anyone can make them.
                let answer = of.handle_opening(now, id, &message).ok().flatten();
                Step { send: answer.map(|answer| (new_id(), key_exchange(answer))), ..Step::default() }
            }
        }
    }

    /// Whether messages can be sealed for the present peer, or need not be.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Pair(pair) => pair.is_ready(),
            Self::Own(own) => own.is_admitted(),
            Self::Of(of) => of.is_welcomed(),
        }
    }

    /// What is sent is numbered, and held until it is acknowledged.
    pub(super) fn resumes(&self) -> bool {
        match self {
            Self::Pair(pair) => pair.resumes(),
            Self::Own(_) | Self::Of(_) => true,
        }
    }

    /// What is sent in place of `payload`. `receiver`: what was taken of the peer is stored with the keys.
    pub(super) fn seal<'a>(
        &mut self,
        kind: &str,
        id: &str,
        payload: &'a RawValue,
        receiver: &Receiver,
    ) -> Result<Cow<'a, RawValue>, NotSealed> {
        let sealed = match self {
            Self::Pair(pair) => return pair.seal(kind, payload).ok_or(NotSealed { again: None, why: None }),
            Self::Own(own) => own.seal(kind, id, payload, receiver),
            Self::Of(of) => of.seal(kind, id, payload, receiver),
        };
        sealed.map(Cow::Owned).map_err(|error| {
            let why = match error {
                devices::NotSealed::Seal(error) => error.to_string(),
                devices::NotSealed::Store(error) => format!("the keys cannot be kept: {error}"),
            };
            NotSealed { again: Some(STORE_AGAIN), why: Some(why) }
        })
    }

    /// What the peer's `payload` says.
    pub(super) fn open(
        &mut self,
        now: Instant,
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
    ) -> Result<Opened, Refusal> {
        if let Self::Pair(pair) = self {
            return pair.open(kind, payload);
        }
        // A device has nothing to acknowledge before it is welcomed.
        let resume = kind != WELCOME;
        let numbered = resume && kind != ACK;
        let (opened, owed) = match self {
            Self::Own(own) => (own.open(now, kind, id, payload, numbered), None),
            Self::Of(of) => {
                let opened = of.open(now, kind, id, payload, numbered);
                let owed = opened.is_err().then(|| of.poll_complaint(now)).flatten();
                (opened, owed)
            }
            Self::Pair(_) => return Err(refusal(String::new())),
        };
        match opened {
            Ok(v3::Opened { payload, confirmed, .. }) => {
                Ok(Opened { payload, authenticated: true, missed: 0, resume, renewed: confirmed, sent_at: None })
            }
            // The relay's, or a hint of the peer's.
            Err(OpenError::InClear) if kind == "chat.error" => {
                let payload = payload.map_or_else(empty, ToOwned::to_owned);
                Ok(Opened { payload, authenticated: false, missed: 0, resume: false, renewed: false, sent_at: None })
            }
            Err(error) => {
                // What is lost at this layer is asked for again by itself: no news for a person.
                let complaint = owed.map(|(error, about)| complaint(&error.to_string(), about.as_deref()));
                Err(Refusal {
                    complaint,
                    worth_telling: !error.is_sign(false) && error != OpenError::NotAdmitted,
                    ..refusal(error.to_string())
                })
            }
        }
    }
}

/// Why nothing was sealed, and after what time it may be tried again: `None` where new keys are needed.
#[derive(Debug)]
pub(super) struct NotSealed {
    pub(super) again: Option<Duration>,
    pub(super) why: Option<String>,
}

fn step_of(said: Said) -> Step {
    let send = said.send.map(|(id, payload)| (id, key_exchange(payload)));
    Step { send, told: said.told, agreed: said.renewed, ..Step::default() }
}

fn key_exchange(payload: Box<RawValue>) -> Reply {
    Reply { kind: "key_exchange", payload }
}

fn refusal(message: String) -> Refusal {
    Refusal { message, complaint: None, worth_telling: true, of_other_keys: false }
}

/// A hint for a device that something of it was refused.
fn complaint(message: &str, about: Option<&str>) -> Reply {
    let complaint = json!({"code": DECRYPTION_FAILED, "message": message, "ref": about});
    // A value has nothing in it that cannot be written.
    Reply { kind: "chat.error", payload: to_raw_value(&complaint).expect("JSON values can be written as JSON") }
}

/// The payload of a message that has none.
pub(super) fn empty() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("it is JSON")
}
