//! End-to-end encryption between a phone and an agent (PROTOCOL.md, "End-to-end encryption").
//!
//! [`End`] is what a client drives: it takes `key_exchange` payloads in, says what to send, and seals and opens the
//! payloads of everything else. [`PairingSecret`] and [`Link`] are what a pairing link carries. [`v1`] has the parts
//! of version 1 by themselves.
//!
//! Pure: no I/O and no clock, and randomness comes from the caller ([`Random`]). It must never let a payload go out
//! in clear where a secret was given, use a nonce twice with one key, or hand out a message that does not
//! authenticate without saying so. Keys are wiped when they are dropped, but for those that `snow` holds during a
//! handshake of version 2: it leaves the memory of its state as it was.

mod end;
mod error;
mod fingerprint;
mod gcm;
mod link;
mod noise;
mod payload;
mod secret;
pub mod v1;
mod v2;
pub mod v3;

#[cfg(test)]
mod tests;

pub use gcm::TAG_BYTES;

use coralmux_proto::limits::MESSAGE_BYTES_MAX;

pub use end::{DECRYPTION_FAILED, End, Opened, Protection, Reply, Step};
pub use error::{ExchangeError, KeyError, OpenError, SealError};
pub use fingerprint::Fingerprint;
pub use link::{Link, LinkError};
pub use secret::PairingSecret;

/// The longest payload that is sealed, in bytes of its JSON: base64 makes it as large as the relay's largest message
/// lets an envelope be (5 MiB, of which 1 KiB is kept for what is around the ciphertext).
pub const PAYLOAD_BYTES_MAX: usize = (MESSAGE_BYTES_MAX - ENVELOPE_BYTES) / 4 * 3 - TAG_BYTES;

/// What an envelope has beside its payload, encryption's own fields among them, is not longer.
pub const ENVELOPE_BYTES: usize = 1024;

/// Messages that one key may seal. Far below what AES-GCM bears, and for version 1's random nonces within the 2^32
/// of NIST SP 800-38D, section 8.3.
pub const MESSAGES_MAX: u64 = 1 << 32;

/// A source of random bytes that nobody can foresee. Any `FnMut(&mut [u8])` is one; it has to fill all of its slice,
/// and where the system has no randomness to give it must not return.
pub trait Random {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Random for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

/// `N` random bytes.
fn draw<const N: usize>(random: &mut (impl Random + ?Sized)) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}
