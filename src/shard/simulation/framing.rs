//! WebSocket and HTTP as a client writes and reads them.

use crate::proto::frame::{self, Opcode};
use crate::ring::simulated::Random;

/// A request for an upgrade, with further header lines.
pub(super) fn upgrade(path: &str, lines: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
    .into_bytes()
}

/// A whole frame, masked.
pub(super) fn masked(random: &mut Random, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = masked_header(fin, opcode, payload.len() as u64);
    let key = (random.draw() as u32).to_ne_bytes();
    bytes.extend_from_slice(&key);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    frame::unmask(&mut bytes[start..], key, 0);
    bytes
}

/// The header of a client's frame, up to the mask key.
pub(super) fn masked_header(fin: bool, opcode: Opcode, payload_bytes: u64) -> Vec<u8> {
    let mut header = vec![0; frame::HEADER_BYTES_MAX];
    let header_bytes = frame::write_header(&mut header, fin, opcode, payload_bytes);
    header.truncate(header_bytes);
    header[1] |= 0x80;
    header
}

/// A text message in one frame or several, with control frames between them now and then.
pub(super) fn message(random: &mut Random, payload: &[u8]) -> Vec<u8> {
    if random.chance(700) {
        return masked(random, true, Opcode::Text, payload);
    }
    let mut bytes = Vec::new();
    let mut at = 0;
    for piece in (0..random.between(2, 5)).rev() {
        let end = if piece == 0 { payload.len() } else { random.between(at, payload.len()) };
        let opcode = if bytes.is_empty() { Opcode::Text } else { Opcode::Continuation };
        let fragment = masked(random, piece == 0, opcode, &payload[at..end]);
        bytes.extend(fragment);
        if piece > 0 && random.chance(200) {
            bytes.extend(masked(random, true, Opcode::Ping, b"between"));
        }
        at = end;
    }
    bytes
}

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Data { fin: bool, is_first: bool, payload: Vec<u8> },
    Close(Option<u16>),
    Ping(Vec<u8>),
    Pong,
}

/// Takes the next whole frame off `bytes`, as far as `start` has been read; `Ok(None)`: more have to come.
pub(super) fn read_frame(bytes: &[u8], start: &mut usize) -> Result<Option<Frame>, String> {
    let rest = &bytes[*start..];
    let [first, second, ..] = *rest else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(format!("a frame begins with {first:#x} {second:#x}"));
    }
    let (length, header_bytes) = match second {
        126 => match rest.get(2..4) {
            Some(wide) => (usize::from(u16::from_be_bytes([wide[0], wide[1]])), 4),
            None => return Ok(None),
        },
        127 => match rest.get(2..10).and_then(|wide| wide.try_into().ok()) {
            Some(wide) => (u64::from_be_bytes(wide) as usize, 10),
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    if length > 64 << 20 {
        return Err(format!("a frame of {length} bytes"));
    }
    let Some(payload) = rest.get(header_bytes..header_bytes + length) else { return Ok(None) };
    *start += header_bytes + length;
    let payload = payload.to_vec();
    let fin = first & 0x80 != 0;
    Ok(Some(match first & 0x0f {
        0x0 => Frame::Data { fin, is_first: false, payload },
        0x1 | 0x2 => Frame::Data { fin, is_first: true, payload },
        0x8 => Frame::Close(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
        0x9 => Frame::Ping(payload),
        0xa => Frame::Pong,
        other => return Err(format!("a frame of kind {other:#x}")),
    }))
}
