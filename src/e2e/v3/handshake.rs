//! The two Noise handshakes of version 3: `XXpsk0` enrols a device, `KKpsk0` agrees the keys of a session.
//!
//! `snow` runs them. As in version 2 its transport is not used, and it does not wipe what it holds meanwhile.

use super::keys::{DeviceId, PublicBytes, Secret, Split, StaticKey};
use crate::ExchangeError;
use crate::noise::Drawn;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

const ENROL: &str = "Noise_XXpsk0_25519_AESGCM_SHA256";
const SESSION: &str = "Noise_KKpsk0_25519_AESGCM_SHA256";

/// Of the first message of an enrolment: ephemeral key, commitment, tag.
pub(super) const ENROL_1_BYTES: usize = 80;
/// Of the second one: ephemeral key, static key, and a tag for each.
pub(super) const ENROL_2_BYTES: usize = 96;
/// The least of the third one: static key and two tags.
pub(super) const ENROL_3_BYTES_MIN: usize = 64;
/// The longest third message that is read. Two names of 64 characters with all of them escaped fit.
pub(super) const ENROL_3_BYTES_MAX: usize = 2048;
/// Of either message of a session's handshake: ephemeral key and tag.
pub(super) const SESSION_BYTES: usize = 48;

/// Which handshake it is: the middle of the prologue.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    Enrol,
    /// With the other end's static key.
    Session(&'a PublicBytes),
}

/// A handshake in progress.
pub(super) struct Handshake(HandshakeState);

impl Handshake {
    /// `ephemeral` is 32 random bytes, used for nothing else; the device is the initiator.
    pub(super) fn new(
        purpose: Purpose<'_>,
        (token, device): (&str, DeviceId),
        psk: &[u8; 32],
        own: &StaticKey,
        ephemeral: [u8; 32],
        initiator: bool,
    ) -> Self {
        let (name, word) = match purpose {
            Purpose::Enrol => (ENROL, "enrol"),
            Purpose::Session(_) => (SESSION, "session"),
        };
        let prologue = format!("coralmux-relay-e2e-v3:{word}:{token}:{device}");
        let parameters: NoiseParams = name.parse().expect("the name is a constant that snow knows");
        let builder = Builder::with_resolver(parameters, Drawn::boxed(ephemeral));
        let with_remote = |builder: Builder<'_>| match purpose {
            Purpose::Enrol => finish(builder, initiator),
            Purpose::Session(remote) => builder.remote_public_key(remote).and_then(|b| finish(b, initiator)),
        };
        let state = builder
            .psk(0, psk)
            .and_then(|b| b.prologue(prologue.as_bytes()))
            .and_then(|b| b.local_private_key(own.expose()))
            .and_then(with_remote);
        // What can be wrong here are pattern, primitives and lengths, all of them constants.
        Self(state.expect("both patterns have the keys that they need"))
    }

    pub(super) fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; ENROL_2_BYTES + payload.len()];
        // The callers write in their turn, and no message has more keys and tags than the second of an enrolment.
        let length = self.0.write_message(payload, &mut message).expect("the message fits");
        message.truncate(length);
        message
    }

    /// The payload of a message. One that does not fit leaves the handshake as it was.
    pub(super) fn read(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, ExchangeError> {
        let mut payload = Zeroizing::new(vec![0; message.len()]);
        let length = self.0.read_message(message, &mut payload).map_err(|_| ExchangeError::WrongSecret)?;
        payload.truncate(length);
        Ok(payload)
    }

    /// The hash so far.
    pub(super) fn hash(&self) -> [u8; 32] {
        self.0.get_handshake_hash().try_into().expect("SHA-256 has 32 bytes")
    }

    /// The other end's static key: of an enrolment, once its message was read.
    pub(super) fn remote(&self) -> Option<PublicBytes> {
        self.0.get_remote_static()?.try_into().ok()
    }

    /// What follows from it. It has to be finished.
    pub(super) fn split(mut self) -> Split {
        let (k1, k2) = self.0.dangerously_get_raw_split();
        let (k1, k2): (Secret, Secret) = (Zeroizing::new(k1), Zeroizing::new(k2));
        Split::new(&self.hash(), &k1, &k2)
    }
}

fn finish(builder: Builder<'_>, initiator: bool) -> Result<HandshakeState, snow::Error> {
    if initiator { builder.build_initiator() } else { builder.build_responder() }
}
