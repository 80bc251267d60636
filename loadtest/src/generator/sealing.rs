//! `--e2e`: clients that encrypt for real, as PROTOCOL.md has it in version 2. Each connection agrees on keys with its
//! peer, seals each message that it sends and opens each that it receives. What cannot be opened is an error.

use super::envelope::{ID, Role, text_of};
use coralmux_e2e::{End, PairingSecret, Reply};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// One end of a pair.
#[derive(Debug)]
pub(super) struct Sealing {
    end: End,
    /// Ids of the key exchanges so far.
    exchanges: u64,
}

/// What came in.
pub(super) enum Opened {
    /// Not for the scenario. Perhaps to be answered, as a whole envelope.
    Dealt(Option<Vec<u8>>),
    /// Keys are agreed: from now on messages can be sent; the answer first.
    Agreed(Option<Vec<u8>>),
    /// A message, as it would have come in clear.
    Message(Vec<u8>),
    /// Not encrypted, and rightly so.
    Clear,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

impl Sealing {
    /// An end whose peer is made with the same token. What such a test says is no secret, so both take theirs from
    /// the token.
    pub(super) fn new(token: &str, role: Role) -> Self {
        let mut secret = [0; 32];
        secret.iter_mut().zip(token.bytes().rev()).for_each(|(to, from)| *to = from);
        let secret = Some(PairingSecret::from_bytes(secret));
        let random = |bytes: &mut [u8]| getrandom::fill(bytes).expect("Linux always has randomness once it has booted");
        let end = match role {
            Role::Phone => End::phone(token, secret, random),
            Role::Agent => End::agent(token, secret, random),
        };
        Self { end, exchanges: 0 }
    }

    /// The connection is authenticated: what is to be sent first.
    pub(super) fn handle_ready(&mut self) -> Option<Vec<u8>> {
        let reply = self.end.handle_online();
        self.envelope_of(reply)
    }

    /// Takes a whole message in.
    pub(super) fn open(&mut self, message: &[u8]) -> Result<Opened, String> {
        let envelope: Envelope<'_> = serde_json::from_slice(message).map_err(|error| format!("not JSON: {error}"))?;
        match envelope.kind.as_ref() {
            "status" if envelope.payload.is_some_and(|payload| payload.get().contains("online")) => {
                let reply = self.end.handle_online();
                Ok(Opened::Dealt(self.envelope_of(reply)))
            }
            // It is normal that nobody is there to take the first announcement.
            "chat.error" if envelope.payload.is_some_and(|payload| payload.get().contains("PEER_OFFLINE")) => {
                Ok(Opened::Dealt(None))
            }
            "status" | "ping" | "pong" | "chat.error" => Ok(Opened::Clear),
            "key_exchange" => {
                let id = self.exchange_id();
                let step = self
                    .end
                    .handle_key_exchange(envelope.id.as_deref(), envelope.payload, &id)
                    .map_err(|error| format!("key exchange: {error}"))?;
                let reply = step.reply.map(|reply| text_of(reply.kind, &id, reply.payload.get()));
                Ok(if step.agreed { Opened::Agreed(reply) } else { Opened::Dealt(reply) })
            }
            kind => {
                let opened = self.end.open(kind, envelope.payload).map_err(|error| format!("{kind}: {error}"))?;
                Ok(Opened::Message(text_of(kind, ID, opened.payload.get())))
            }
        }
    }

    /// A whole envelope with this payload, encrypted; `None` while keys are being agreed.
    pub(super) fn seal(&mut self, kind: &str, payload: &RawValue) -> Option<Vec<u8>> {
        let sealed = self.end.seal(kind, Some(payload)).ok()?;
        Some(text_of(kind, ID, sealed.get()))
    }

    fn exchange_id(&mut self) -> String {
        self.exchanges += 1;
        format!("kx-{}", self.exchanges)
    }

    fn envelope_of(&mut self, reply: Option<Reply>) -> Option<Vec<u8>> {
        let id = self.exchange_id();
        reply.map(|reply| text_of(reply.kind, &id, reply.payload.get()))
    }
}
