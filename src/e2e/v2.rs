//! Version 2: a Noise handshake with the pairing secret, then counted messages that are bound to their type.
//!
//! `snow` does the handshake. Its transport messages are not used: they end at 65,535 bytes and have no associated
//! data. The two keys of Noise's `Split()` go into AES-256-GCM directly.

use super::error::{ExchangeError, OpenError, SealError};
use super::gcm::{Gcm, NONCE_BYTES};
use super::noise::Drawn;
use super::payload::{Sealed, as_json, check_room, enclose};
use super::{MESSAGES_MAX, PairingSecret};
use serde_json::value::RawValue;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

const NAME: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
const PROLOGUE: &str = "coralmux-relay-e2e-v2:";
/// What the prologue ends in where both ends have agreed on resume: nobody between them can take that back unseen.
const PROLOGUE_RESUME: &str = ":rs1";
/// Each handshake message: a public key and the tag of an empty payload.
pub(super) const HANDSHAKE_BYTES: usize = 48;

/// The ephemeral key of a handshake message, with which it begins.
pub(super) fn ephemeral_of(message: &[u8]) -> Option<[u8; 32]> {
    message.first_chunk().copied()
}

/// The phone's handshake between its message and the answer.
pub(super) struct Opening {
    state: HandshakeState,
    resume: bool,
}

impl Opening {
    /// Begins a handshake: its message 1. `ephemeral` is 32 random bytes, used for nothing else.
    pub(super) fn new(
        token: &str,
        secret: &PairingSecret,
        ephemeral: [u8; 32],
        resume: bool,
    ) -> (Self, [u8; HANDSHAKE_BYTES]) {
        let mut state = handshake(&prologue(token, resume), secret, ephemeral, true);
        let message = write(&mut state);
        (Self { state, resume }, message)
    }

    /// Ends it with the agent's message 2. A message that does not fit, or an answer that says otherwise about resume,
    /// leaves it as it was.
    pub(super) fn finish(&mut self, message: &[u8], resume: bool) -> Result<Session, ExchangeError> {
        if resume != self.resume {
            return Err(ExchangeError::ResumeAltered);
        }
        read(&mut self.state, message)?;
        Ok(Session::of_split(&mut self.state, true, resume))
    }
}

/// The agent's side of a handshake: takes message 1, gives message 2.
pub(super) fn answer(
    token: &str,
    secret: &PairingSecret,
    ephemeral: [u8; 32],
    message: &[u8],
    resume: bool,
) -> Result<(Session, [u8; HANDSHAKE_BYTES]), ExchangeError> {
    let mut state = handshake(&prologue(token, resume), secret, ephemeral, false);
    read(&mut state, message)?;
    let message = write(&mut state);
    Ok((Session::of_split(&mut state, false, resume), message))
}

fn prologue(token: &str, resume: bool) -> Vec<u8> {
    format!("{PROLOGUE}{token}{}", if resume { PROLOGUE_RESUME } else { "" }).into_bytes()
}

pub(super) fn handshake(
    prologue: &[u8],
    secret: &PairingSecret,
    ephemeral: [u8; 32],
    initiator: bool,
) -> HandshakeState {
    let parameters: NoiseParams = NAME.parse().expect("the name is a constant that snow knows");
    let builder = Builder::with_resolver(parameters, Drawn::boxed(ephemeral));
    let build = |builder: Builder<'_>| if initiator { builder.build_initiator() } else { builder.build_responder() };
    // What can be wrong here are pattern, primitives and lengths, all of them constants.
    let psk = secret.as_bytes();
    builder.psk(0, psk).and_then(|b| b.prologue(prologue)).and_then(build).expect("NNpsk0 needs a psk alone")
}

fn write(state: &mut HandshakeState) -> [u8; HANDSHAKE_BYTES] {
    let mut message = [0; HANDSHAKE_BYTES];
    // Both callers write when it is their turn, and the buffer has the length of an empty payload's message.
    state.write_message(b"", &mut message).expect("an ephemeral key and a tag fit");
    message
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<(), ExchangeError> {
    if message.len() != HANDSHAKE_BYTES {
        return Err(ExchangeError::Malformed);
    }
    state.read_message(message, &mut [0; HANDSHAKE_BYTES]).map_err(|_| ExchangeError::WrongSecret)?;
    Ok(())
}

/// The keys of a finished handshake. Wiped on drop.
pub(super) struct Session {
    send: Gcm,
    receive: Gcm,
    /// The counter of the next message that is sealed: at most [`MESSAGES_MAX`].
    sent: u64,
    /// The lowest counter that is taken.
    expected: u64,
    /// Counters below `expected` whose message never came.
    missed: u64,
    /// Both ends have agreed on resume: what is sealed are records.
    resume: bool,
}

impl Session {
    fn of_split(state: &mut HandshakeState, phone: bool, resume: bool) -> Self {
        let (from_phone, from_agent) = state.dangerously_get_raw_split();
        let (from_phone, from_agent) = (Zeroizing::new(from_phone), Zeroizing::new(from_agent));
        let (send, receive) = if phone { (from_phone, from_agent) } else { (from_agent, from_phone) };
        Self { send: Gcm::new(&send), receive: Gcm::new(&receive), sent: 0, expected: 0, missed: 0, resume }
    }

    pub(super) fn seal(&mut self, kind: &str, payload: &str) -> Result<Box<RawValue>, SealError> {
        check_room(payload, self.sent)?;
        let nonce = nonce_of(self.sent);
        self.sent += 1;
        Ok(enclose(&nonce, &self.send.seal(&nonce, kind.as_bytes(), payload.as_bytes())))
    }

    /// The payload, and how many messages before it never came.
    pub(super) fn open(&mut self, kind: &str, sealed: Sealed) -> Result<(Box<RawValue>, u64), OpenError> {
        let counter = counter_of(sealed.nonce).ok_or(OpenError::Nonce)?;
        let expected = self.expected;
        let opened = self.receive.open(&sealed.nonce, kind.as_bytes(), sealed.ciphertext);
        let opened = opened.ok_or(OpenError::Forged)?;
        // Only of what authenticates is it known that the counter is one of these keys.
        if counter < expected {
            return Err(OpenError::Replayed { counter, expected });
        }
        let payload = as_json(opened)?;
        let missed = counter - expected;
        self.expected = counter + 1;
        self.missed += missed;
        Ok((payload, missed))
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed
    }

    pub(super) fn resumes(&self) -> bool {
        self.resume
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, counter: u64) {
        // Either direction's counter, as after as many messages.
        (self.sent, self.expected) = (counter, counter);
    }
}

/// Noise's AESGCM nonce: four zero bytes, and the counter with its highest byte first.
pub(super) fn nonce_of(counter: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

fn counter_of(nonce: [u8; NONCE_BYTES]) -> Option<u64> {
    let (zeros, counter) = nonce.split_first_chunk::<4>()?;
    let counter = u64::from_be_bytes(counter.try_into().ok()?);
    (*zeros == [0; 4] && counter < MESSAGES_MAX).then_some(counter)
}
