//! RFC 6455 framing as a server does it: frames come in masked and go out bare.
//!
//! Everything works on slices of the caller's memory: headers are read and written in place, payloads are unmasked
//! where they lie or on their way down over the header in front of them. Nothing here knows of messages, and nothing
//! a peer sends can make it panic.

use crate::scan;
use multiversion::multiversion;
use std::ops::Range;
use thiserror::Error;

/// The longest header of a client's frame: 2 bytes, 8 of length, 4 of mask key.
pub const HEADER_BYTES_MAX: usize = 14;

/// The largest payload of a control frame (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The largest reason of a close frame: a control frame's payload without the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// What a frame is (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with the message that an earlier frame began.
    Continuation = 0x0,
    /// Begins a text message.
    Text = 0x1,
    /// Begins a binary message.
    Binary = 0x2,
    /// Ends the connection.
    Close = 0x8,
    /// Asks for a sign of life.
    Ping = 0x9,
    /// Is the sign of life.
    Pong = 0xa,
}

impl Opcode {
    /// Whether frames of this kind are outside messages: whole, short, and allowed between fragments.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }
}

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the frame ends its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The mask of the payload.
    pub key: [u8; 4],
    /// The header's own size, with the key: 6 to [`HEADER_BYTES_MAX`].
    pub header_bytes: usize,
    /// The size of the payload that follows: below 2^63, and at most [`CONTROL_BYTES_MAX`] in a control frame.
    pub payload_bytes: u64,
}

/// A header that no client may send: the connection fails with close code 1002.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed on.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that RFC 6455 keeps for later.
    #[error("reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// A client's frame without a mask (section 5.1).
    #[error("frame is not masked")]
    Unmasked,
    /// A control frame of more than [`CONTROL_BYTES_MAX`] bytes.
    #[error("control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A control frame in pieces.
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// A 64-bit length with its top bit set.
    #[error("frame length is out of range")]
    LengthOutOfRange,
}

/// Reads the header that `bytes` begin with. `None`: more bytes are needed, at most [`HEADER_BYTES_MAX`] in all.
///
/// Lengths that are not written in the shortest form are taken, as most servers do.
///
/// # Errors
/// A [`Violation`], as soon as the bytes show it.
pub fn parse_header(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let fin = first & 0x80 != 0;
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::ReservedOpcode(first & 0x0f))?;
    if opcode.is_control() && !fin {
        return Err(Violation::ControlFragmented);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    let rest = &bytes[2..];
    let (payload_bytes, rest, length_bytes) = match short {
        126 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest, 2),
            None => return Ok(None),
        },
        127 if rest.first().is_some_and(|top| top & 0x80 != 0) => return Err(Violation::LengthOutOfRange),
        127 => match rest.split_first_chunk() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest, 8),
            None => return Ok(None),
        },
        short => (u64::from(short), rest, 0),
    };
    let Some(&key) = rest.first_chunk() else { return Ok(None) };
    Ok(Some(Header { fin, opcode, key, header_bytes: 2 + length_bytes + 4, payload_bytes }))
}

/// The size of a server's header, which has no mask key: 2, 4 or 10.
#[must_use]
pub const fn header_bytes(payload_bytes: u64) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes a server's header in its shortest form to the start of `out`; returns its size, [`header_bytes`].
///
/// # Panics
/// Where `out` is shorter than that. `payload_bytes` has to be below 2^63.
pub fn write_header(out: &mut [u8], fin: bool, opcode: Opcode, payload_bytes: u64) -> usize {
    debug_assert!(payload_bytes >> 63 == 0);
    let size = header_bytes(payload_bytes);
    out[0] = u8::from(fin) << 7 | opcode as u8;
    match size {
        2 => out[1] = payload_bytes as u8,
        4 => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&payload_bytes.to_be_bytes());
        }
    }
    size
}

/// How much is unmasked in one step: the compiler makes vector instructions of it.
const BLOCK: usize = 64;

/// Takes the mask off a piece of a payload (RFC 6455, section 5.3). `phase` is the offset of the piece within the
/// frame's payload; its remainder by 4 counts.
pub fn unmask(payload: &mut [u8], key: [u8; 4], phase: usize) {
    unmask_down(payload, 0, key_at(key, phase));
}

/// The key as it applies at an offset of the payload, its first byte the lowest.
pub(super) fn key_at(key: [u8; 4], phase: usize) -> u32 {
    u32::from_le_bytes(key).rotate_right(8 * (phase % 4) as u32)
}

/// Takes the mask off a whole payload at `from` and moves it down to `to` in the same pass. What is left behind above
/// the moved payload is undefined.
///
/// # Panics
/// If `from` is not a range of the buffer, or `to` lies behind its start.
pub fn unmask_shift(buffer: &mut [u8], from: Range<usize>, to: usize, key: [u8; 4]) {
    assert!(to <= from.start && from.start <= from.end);
    unmask_down(&mut buffer[to..from.end], from.start - to, u32::from_le_bytes(key));
}

/// Takes the mask off what lies from `down` on, and puts it at the start. The key's first byte is the lowest.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn unmask_down(mut rest: &mut [u8], down: usize, key: u32) {
    let mask = mask_of(key);
    // Each step reads all of its bytes before it writes them lower down, so it never reads what it has written.
    while let Some(block) = rest.get(down..).and_then(|source| source.first_chunk::<BLOCK>()).copied() {
        rest[..BLOCK].copy_from_slice(&xor(block, mask));
        rest = &mut rest[BLOCK..];
    }
    while let Some(word) = rest.get(down..).and_then(|source| source.first_chunk::<8>()).copied() {
        rest[..8].copy_from_slice(&xor(word, mask));
        rest = &mut rest[8..];
    }
    for (at, mask) in (0..rest.len().saturating_sub(down)).zip(mask.to_le_bytes()) {
        rest[at] = rest[at + down] ^ mask;
    }
}

/// As [`unmask_down`], as far as the payload is text without anything to look at, at least in whole blocks: how many
/// bytes, a multiple of 4. Those behind them are left as they are.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn unmask_plain(bytes: &mut [u8], down: usize, key: u32) -> usize {
    let mask = mask_of(key);
    let mut rest = &mut *bytes;
    while let Some(block) = rest.get(down..).and_then(|source| source.first_chunk::<BLOCK>()).copied() {
        let block = xor(block, mask);
        if !scan::is_clear::<true, BLOCK>(&block) {
            break;
        }
        rest[..BLOCK].copy_from_slice(&block);
        rest = &mut rest[BLOCK..];
    }
    let left = rest.len();
    bytes.len() - left
}

fn mask_of(key: u32) -> u64 {
    u64::from(key) << 32 | u64::from(key)
}

/// Takes the mask off `N` bytes, a multiple of 8.
#[inline(always)]
fn xor<const N: usize>(mut bytes: [u8; N], mask: u64) -> [u8; N] {
    for word in bytes.as_chunks_mut::<8>().0 {
        *word = (u64::from_le_bytes(*word) ^ mask).to_le_bytes();
    }
    bytes
}

/// The payload of a close frame: the code, and the reason cut to [`REASON_BYTES_MAX`] at a character's end.
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let cut = (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    [&code.to_be_bytes(), &reason.as_bytes()[..cut]].concat()
}

/// A close frame whose payload no client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CloseViolation {
    /// One byte, which is not a code.
    #[error("close payload of one byte")]
    Length,
    /// A code that must not be sent (RFC 6455, section 7.4).
    #[error("close code {0} is not allowed")]
    Code(u16),
    /// A reason that is not UTF-8: close code 1007, where the other violations are 1002.
    #[error("close reason is not UTF-8")]
    NotUtf8,
}

/// Reads the payload of a close frame: `None` where it is empty, otherwise code and reason.
///
/// # Errors
/// A [`CloseViolation`].
pub fn parse_close(payload: &[u8]) -> Result<Option<(u16, &str)>, CloseViolation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseViolation::Length) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(CloseViolation::Code(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| CloseViolation::NotUtf8)?;
    Ok(Some((code, reason)))
}

#[cfg(test)]
mod tests;
