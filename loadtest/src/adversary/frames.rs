//! WebSocket frames as a client sends them, whole or not.

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// The largest message that relays take unless told otherwise.
pub(super) const MESSAGE_BYTES_MAX: usize = 5 << 20;
/// What is made beforehand of small frames, to be sent in one call.
pub(super) const BATCH_BYTES: usize = 64 << 10;

const KEY: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];

/// A frame's header, which announces so many bytes.
pub(super) fn header(fin: bool, opcode: u8, bytes: usize) -> Vec<u8> {
    let mut to = vec![u8::from(fin) << 7 | opcode];
    match bytes {
        short @ 0..126 => to.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            to.push(0x80 | 126);
            to.extend((medium as u16).to_be_bytes());
        }
        long => {
            to.push(0x80 | 127);
            to.extend((long as u64).to_be_bytes());
        }
    }
    to.extend(KEY);
    to
}

/// A payload, or the beginning of one, as it is sent.
pub(super) fn mask(payload: &[u8]) -> impl Iterator<Item = u8> {
    payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key)
}

/// A whole frame.
pub(super) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(fin, opcode, payload.len());
    bytes.extend(mask(payload));
    bytes
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
