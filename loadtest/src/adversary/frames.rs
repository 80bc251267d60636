//! WebSocket frames as a client sends them, whole or not.

use coralmux_test_support::frames;
pub(super) use coralmux_test_support::frames::{CONTINUATION, PING, PONG, TEXT};

/// The largest message that relays take unless told otherwise.
pub(super) const MESSAGE_BYTES_MAX: usize = 5 << 20;
/// What is made beforehand of small frames, to be sent in one call.
pub(super) const BATCH_BYTES: usize = 64 << 10;

const KEY: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];

/// A frame's header, which announces so many bytes.
pub(super) fn header(fin: bool, opcode: u8, bytes: usize) -> Vec<u8> {
    frames::header(fin, opcode, bytes, KEY)
}

/// Masks a payload, or the beginning of one.
pub(super) fn mask(payload: &mut [u8]) {
    frames::mask(payload, KEY);
}

/// A whole frame.
pub(super) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    frames::frame(fin, opcode, payload, KEY)
}

/// A whole text message in one frame.
pub(super) fn text(payload: &str) -> Vec<u8> {
    frame(true, TEXT, payload.as_bytes())
}

/// An envelope of that type, of at least `bytes` bytes.
pub(super) fn envelope(kind: &str, bytes: usize) -> String {
    let head = format!(r#"{{"v":1,"type":"{kind}","id":"h","ts":1,"payload":{{"content":""#);
    let filler = bytes.saturating_sub(head.len() + 3);
    format!("{head}{}\"}}}}", "x".repeat(filler))
}

/// So many copies as make a batch, at least one.
pub(super) fn batch(frame: &[u8]) -> Vec<u8> {
    frame.repeat((BATCH_BYTES / frame.len()).max(1))
}
