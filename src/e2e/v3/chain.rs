//! The keys of one direction of a session: each message has its own, and none leads back to one before it.

use super::keys::{DeviceId, Secret, Sid, hmac256};
use crate::gcm::{Gcm, NONCE_BYTES};
use std::fmt;

/// The last number that a message can have: what JSON's numbers hold exactly.
pub(super) const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What a message is bound to beside its session.
#[derive(Clone, Copy)]
pub(super) struct Label<'a> {
    pub(super) device: DeviceId,
    pub(super) sid: Sid,
    /// Without U+0000: the callers have looked.
    pub(super) kind: &'a str,
    /// The envelope's `id`; empty where there is none.
    pub(super) id: &'a str,
}

impl Label<'_> {
    fn associated(&self, number: u64) -> Vec<u8> {
        let number = number.to_be_bytes();
        let parts: [&[u8]; 7] = [
            b"coralmux-v3\0",
            self.device.as_str().as_bytes(),
            &self.sid,
            &number,
            self.kind.as_bytes(),
            b"\0",
            self.id.as_bytes(),
        ];
        parts.concat()
    }
}

/// A chain at one place. Wiped on drop.
#[derive(Clone)]
pub(super) struct Chain {
    key: Secret,
    /// The number of the message that `key` is for: at most [`NUMBER_MAX`] + 1, where it ends.
    next: u64,
}

impl Chain {
    pub(super) fn new(key: Secret, next: u64) -> Self {
        Self { key, next }
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Goes on by so many messages, whose keys are gone then.
    pub(super) fn wind(&mut self, messages: u64) {
        for _ in 0..messages {
            self.key = hmac256(&self.key, &[&[2]]);
        }
        self.next += messages;
    }

    /// Seals the next message, and winds past it. Should a state be used twice, by a snapshot that was resumed, the
    /// nonce differs where the text does, whatever `random` is: it is a MAC of both.
    pub(super) fn seal(&mut self, label: Label<'_>, random: &[u8; 32], text: &[u8]) -> ([u8; NONCE_BYTES], Vec<u8>) {
        let associated = label.associated(self.next);
        let nonce = hmac256(&hmac256(&self.key, &[&[3]]), &[random, &associated, text]);
        let nonce = *nonce.first_chunk().expect("a MAC is longer than a nonce");
        let sealed = self.message_key().seal(&nonce, &associated, text);
        self.wind(1);
        (nonce, sealed)
    }

    /// Opens the next message; `None` where it does not authenticate.
    pub(super) fn open(&self, label: Label<'_>, nonce: &[u8; NONCE_BYTES], sealed: Vec<u8>) -> Option<Vec<u8>> {
        self.message_key().open(nonce, &label.associated(self.next), sealed)
    }

    fn message_key(&self) -> Gcm {
        Gcm::new(&hmac256(&self.key, &[&[1]]))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain(***, {})", self.next)
    }
}

/// The sending side: the stored state is ahead of the one in use, so that a crash never leads back.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Sending {
    pub(super) sid: Sid,
    chain: Chain,
    /// What is stored: `chain.next <= stored.next <= chain.next + AHEAD`.
    stored: Chain,
}

/// By so many messages the stored state is ahead.
pub(super) const AHEAD: u64 = 64;

impl Sending {
    /// Begins, or goes on from what was stored.
    pub(super) fn new(sid: Sid, chain: Chain) -> Self {
        Self { sid, stored: chain.clone(), chain }
    }

    pub(super) fn next(&self) -> u64 {
        self.chain.next
    }

    pub(super) fn stored(&self) -> &Chain {
        &self.stored
    }

    /// Seals; the number, nonce and ciphertext, and whether [`stored`](Self::stored) moved: then it has to be written
    /// before the message leaves.
    pub(super) fn seal(
        &mut self,
        label: Label<'_>,
        random: &[u8; 32],
        text: &[u8],
    ) -> (u64, [u8; NONCE_BYTES], Vec<u8>, bool) {
        let ahead = self.stored.next == self.chain.next;
        if ahead {
            self.stored.wind(AHEAD);
        }
        let number = self.chain.next;
        let (nonce, sealed) = self.chain.seal(label, random, text);
        debug_assert!(self.chain.next <= self.stored.next);
        (number, nonce, sealed, ahead)
    }
}

#[cfg(test)]
impl Sending {
    /// The chain in memory.
    pub(super) fn in_use(&self) -> &Chain {
        &self.chain
    }
}

#[cfg(test)]
impl Label<'_> {
    /// Whether a key opens this message by itself.
    pub(super) fn opens_with(&self, key: &Gcm, number: u64, nonce: &[u8; NONCE_BYTES], sealed: Vec<u8>) -> bool {
        key.open(nonce, &self.associated(number), sealed).is_some()
    }
}
