//! TLS records under the keys that a handshake agreed on: opened where they lie, sealed straight into the memory that
//! they leave from. It must never use a nonce twice, and knows nothing of handshakes.
//!
//! rustls keeps plaintext of its own in both directions, which would cost a copy and an allocation for each record. The
//! cipher below is not that of its provider (aws-lc) but ring's: where the processor has AES for vectors of 256 bits, but not
//! those of 512 that aws-lc asks for, it takes three fifths of the time.

use super::fault::Fault;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;
use std::ops::Range;

/// Type, version and length.
pub const HEADER_BYTES: usize = 5;
/// The most that a record carries (RFC 8446 section 5.1).
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 14;
/// The most that a record grows by (RFC 8446 section 5.2; what TLS 1.2 allows beyond that nobody uses).
const EXPANSION_MAX: usize = 256;
/// The longest record.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + PLAINTEXT_BYTES_MAX + EXPANSION_MAX;
/// What a sealed record has more than it carries, at the most: header, explicit nonce or content type, tag.
pub const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + EXPLICIT_BYTES + TAG_BYTES;

const TAG_BYTES: usize = 16;
/// What is copied at a time: longer copies are done with `rep movsb`, which on some AMD processors takes twenty times as long
/// where the target lies a few bytes further into its page than the source.
const COPIED_BYTES: usize = 2 << 10;
/// The part of a nonce that TLS 1.2 sends along with AES-GCM (RFC 5288 section 3).
const EXPLICIT_BYTES: usize = 8;
/// What the header says of TLS 1.2 and 1.3.
const VERSION: [u8; 2] = [3, 3];

/// What a record carries (RFC 8446 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// `change_cipher_spec`.
    pub const CHANGE_CIPHER_SPEC: Self = Self(20);
    /// `alert`.
    pub const ALERT: Self = Self(21);
    /// `handshake`.
    pub const HANDSHAKE: Self = Self(22);
    /// `application_data`.
    pub const DATA: Self = Self(23);
}

/// The length of the record that `bytes` begin with, its header included. `None`: its header is not whole.
///
/// # Errors
/// It says that it is longer than a record can be.
pub fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(&[_, _, _, high, low]) = bytes.first_chunk() else { return Ok(None) };
    let record_bytes = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if record_bytes > RECORD_BYTES_MAX { Err(Fault::Overflow) } else { Ok(Some(record_bytes)) }
}

/// What sealed records are appended to.
pub trait Out {
    /// All that it holds.
    fn bytes(&mut self) -> &mut [u8];
    /// Appends.
    fn append(&mut self, more: &[u8]);
}

impl Out for Vec<u8> {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }

    fn append(&mut self, more: &[u8]) {
        self.extend_from_slice(more);
    }
}

/// How records of a version and cipher look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// TLS 1.3: the kind is sealed along, behind what it is about.
    Tls13,
    /// TLS 1.2 with AES-GCM: a part of the nonce is sent in front.
    Tls12Gcm,
    /// TLS 1.2 with ChaCha20-Poly1305 (RFC 7905).
    Tls12ChaCha,
}

/// One direction of a connection: its key, and how many records have gone under it.
pub struct Half {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    shape: Shape,
    /// Records so far, which is the number of the next one.
    count: u64,
}

impl Half {
    /// A direction whose next record has the number `count`.
    ///
    /// # Errors
    /// [`Fault::Internal`] for a cipher that this relay does not agree to.
    pub fn new(tls13: bool, count: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, Fault> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Fault::Internal),
        };
        let shape = match (tls13, secrets) {
            (true, _) => Shape::Tls13,
            (false, ConnectionTrafficSecrets::Chacha20Poly1305 { .. }) => Shape::Tls12ChaCha,
            (false, _) => Shape::Tls12Gcm,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Fault::Internal)?);
        let iv = iv.as_ref().try_into().map_err(|_| Fault::Internal)?;
        Ok(Self { key, iv, shape, count })
    }

    /// How many records have gone under this key.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether this is TLS 1.3.
    #[must_use]
    pub fn is_tls13(&self) -> bool {
        self.shape == Shape::Tls13
    }

    /// Opens a whole record in place: what it carries, and where in `record` that now lies.
    ///
    /// # Errors
    /// [`Fault`]; the connection is over then.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(Kind, Range<usize>), Fault> {
        let Some((header, body)) = record.split_first_chunk_mut::<HEADER_BYTES>() else { return Err(Fault::Internal) };
        let kind = Kind(header[0]);
        let (skipped, nonce) = match self.shape {
            // Behind the handshake everything is sealed, and looks like data (RFC 8446 section 5).
            Shape::Tls13 if kind != Kind::DATA => return Err(Fault::Unexpected(kind.0)),
            Shape::Tls13 | Shape::Tls12ChaCha => (0, self.nonce()),
            Shape::Tls12Gcm => {
                let Some(explicit) = body.first_chunk::<EXPLICIT_BYTES>() else { return Err(Fault::BadRecord) };
                let mut nonce = self.iv;
                nonce[NONCE_LEN - EXPLICIT_BYTES..].copy_from_slice(explicit);
                (EXPLICIT_BYTES, nonce)
            }
        };
        let sealed = &mut body[skipped..];
        let plain_bytes = sealed.len().checked_sub(TAG_BYTES).ok_or(Fault::BadRecord)?;
        let (aad, aad_bytes) = match self.shape {
            Shape::Tls13 => (padded(header), HEADER_BYTES),
            _ => (self.aad12(kind, plain_bytes), AAD12_BYTES),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(&aad[..aad_bytes]), sealed);
        let plain = opened.map_err(|_| Fault::BadRecord)?;
        self.count += 1;
        let (kind, length) = match self.shape {
            Shape::Tls13 => {
                // Behind the kind there may be padding of zeros (RFC 8446 section 5.4).
                let at = plain.iter().rposition(|&byte| byte != 0).ok_or(Fault::Unexpected(0))?;
                (Kind(plain[at]), at)
            }
            _ => (kind, plain.len()),
        };
        if length > PLAINTEXT_BYTES_MAX {
            return Err(Fault::Overflow);
        }
        let start = HEADER_BYTES + skipped;
        Ok((kind, start..start + length))
    }

    /// Seals what `pieces` are together, at most [`PLAINTEXT_BYTES_MAX`] bytes, and appends the record to `out`.
    ///
    /// # Errors
    /// [`Fault::Internal`], of a caller that gave too much.
    pub fn seal(&mut self, kind: Kind, pieces: &[&[u8]], out: &mut impl Out) -> Result<(), Fault> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let (nonce, aad, aad_bytes) = self.begin(kind, length, out)?;
        let at = out.bytes().len();
        for piece in pieces.iter().flat_map(|piece| piece.chunks(COPIED_BYTES)) {
            out.append(piece);
        }
        if self.is_tls13() {
            // Sealed along, behind what the record carries.
            out.append(&[kind.0]);
        }
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(&aad[..aad_bytes]), &mut out.bytes()[at..]);
        let tag = sealed.map_err(|_| Fault::Internal)?;
        out.append(tag.as_ref());
        Ok(())
    }

    /// Writes the header of a sealed record, and takes its number.
    fn begin(
        &mut self,
        kind: Kind,
        length: usize,
        out: &mut impl Out,
    ) -> Result<(Nonce, [u8; AAD12_BYTES], usize), Fault> {
        if length > PLAINTEXT_BYTES_MAX || self.count == u64::MAX {
            return Err(Fault::Internal);
        }
        let nonce = self.nonce();
        let (outer, more) = match self.shape {
            Shape::Tls13 => (Kind::DATA, 1),
            Shape::Tls12Gcm => (kind, EXPLICIT_BYTES),
            Shape::Tls12ChaCha => (kind, 0),
        };
        let body_bytes = (length + more + TAG_BYTES) as u16;
        let header = [outer.0, VERSION[0], VERSION[1], (body_bytes >> 8) as u8, body_bytes as u8];
        out.append(&header);
        if self.shape == Shape::Tls12Gcm {
            out.append(&nonce[NONCE_LEN - EXPLICIT_BYTES..]);
        }
        let (aad, aad_bytes) = match self.shape {
            Shape::Tls13 => (padded(&header), HEADER_BYTES),
            _ => (self.aad12(kind, length), AAD12_BYTES),
        };
        self.count += 1;
        Ok((Nonce::assume_unique_for_key(nonce), aad, aad_bytes))
    }

    /// The number of the next record, mixed into the secret start (RFC 8446 section 5.3). TLS 1.2 leaves open how the
    /// explicit part of AES-GCM is made: only that it is never used again, which this gives too.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, count) in nonce[NONCE_LEN - 8..].iter_mut().zip(self.count.to_be_bytes()) {
            *byte ^= count;
        }
        nonce
    }

    /// What TLS 1.2 has the tag vouch for besides (RFC 5246 section 6.2.3.3).
    fn aad12(&self, kind: Kind, length: usize) -> [u8; AAD12_BYTES] {
        let mut aad = [0; AAD12_BYTES];
        aad[..8].copy_from_slice(&self.count.to_be_bytes());
        aad[8] = kind.0;
        aad[9..11].copy_from_slice(&VERSION);
        aad[11..].copy_from_slice(&(length as u16).to_be_bytes());
        aad
    }
}

const AAD12_BYTES: usize = 13;

fn padded(header: &[u8; HEADER_BYTES]) -> [u8; AAD12_BYTES] {
    let mut aad = [0; AAD12_BYTES];
    aad[..HEADER_BYTES].copy_from_slice(header);
    aad
}
