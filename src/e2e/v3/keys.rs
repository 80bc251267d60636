//! The keys of version 3, and what is derived from them.

use crate::{PairingSecret, Random, draw};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 32 secret bytes, wiped on drop.
pub(super) type Secret = Zeroizing<[u8; 32]>;
/// The public half of a [`StaticKey`].
pub type PublicBytes = [u8; 32];
/// The name of a session.
pub(super) type Sid = [u8; 8];

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

pub(super) fn hmac256(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The first bytes of a hash.
fn head<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    *hash.first_chunk().expect("no caller asks for more than a hash has")
}

/// A long-lived X25519 key pair: an agent's, or a device's. The private half is wiped on drop.
pub struct StaticKey {
    private: Secret,
    public: PublicBytes,
}

impl StaticKey {
    /// A new pair.
    pub fn generate(random: &mut (impl Random + ?Sized)) -> Self {
        Self::from_private(draw(random))
    }

    /// The pair of a private key: 32 random bytes.
    #[must_use]
    pub fn from_private(private: [u8; 32]) -> Self {
        let public = PublicKey::from(&StaticSecret::from(private)).to_bytes();
        Self { private: Zeroizing::new(private), public }
    }

    /// The private key, to be stored.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.private
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> &PublicBytes {
        &self.public
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(***)")
    }
}

/// What a link says about its agent's public key: the field `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentPrint([u8; 16]);

impl AgentPrint {
    /// The print of an agent's public key.
    #[must_use]
    pub fn of(agent: &PublicBytes) -> Self {
        Self(head(&sha256(&[b"coralmux-v3-agent", agent])))
    }

    /// Reads the 22 characters of base64url without padding of a link.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for AgentPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The name of a device: 16 lower-case hex digits, from the key by which the relay knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId([u8; 16]);

impl DeviceId {
    /// The id of a device with this key at the relay.
    #[must_use]
    pub fn of_key(key: &[u8; 32]) -> Self {
        let id = u64::from_be_bytes(head(&sha256(&[key])));
        Self(format!("{id:016x}").as_bytes().try_into().expect("16 digits are 16 bytes"))
    }

    /// Reads 16 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 16] = text.as_bytes().try_into().ok()?;
        digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some(Self(digits))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a link's `k` shows the relay, so that it lets a new device in.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Invite([u8; 16]);

impl Invite {
    /// The invite of a `k`.
    #[must_use]
    pub fn of(k: &PairingSecret) -> Self {
        let mut invite = [0; 16];
        let hkdf = Hkdf::<Sha256>::new(None, k.as_bytes());
        hkdf.expand(b"coralmux-v3-invite", &mut invite).expect("16 bytes are within HKDF's bound");
        Self(invite)
    }

    /// The invite that [`expose`](Self::expose) gave. `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The invite as a device shows it to the relay: 22 characters of base64url.
    #[must_use]
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The SHA-256 by which the agent tells the relay of it.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&self.0])
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invite(***)")
    }
}

/// The six digits that both ends of an enrolment show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u32);

impl Code {
    /// From the handshake's hash after message 2, the device's public key and what it committed to with it.
    pub(super) fn of(h2: &[u8; 32], device: &PublicBytes, r: &[u8; 32]) -> Self {
        let first = u64::from_be_bytes(head(&sha256(&[b"coralmux-v3-code", h2, device, r])));
        Self((first % 1_000_000) as u32)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

/// The commitment of an enrolment's first message.
pub(super) fn commitment(device: &PublicBytes, r: &[u8; 32]) -> [u8; 32] {
    sha256(&[b"coralmux-v3-commit", device, r])
}

/// What follows from a finished handshake.
pub(super) struct Split {
    pub(super) sid: Sid,
    /// The first chain key of what the device sends.
    pub(super) of_device: Secret,
    /// The first chain key of what the agent sends.
    pub(super) of_agent: Secret,
    /// Enrolment: what later handshakes begin with.
    pub(super) psk: Secret,
}

impl Split {
    /// From the final hash and Noise's two keys.
    pub(super) fn new(h: &[u8; 32], k1: &Secret, k2: &Secret) -> Self {
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(&**k1);
        both[32..].copy_from_slice(&**k2);
        let mut psk = Zeroizing::new([0; 32]);
        let hkdf = Hkdf::<Sha256>::new(Some(h), &*both);
        hkdf.expand(b"coralmux-v3-psk", &mut *psk).expect("32 bytes are within HKDF's bound");
        let sid = head(&sha256(&[b"coralmux-v3-sid", h]));
        Self { sid, of_device: hmac256(k1, &[b"chain"]), of_agent: hmac256(k2, &[b"chain"]), psk }
    }
}
