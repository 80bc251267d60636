//! A connection of the reference relay, and the frames that it reads.

use rustix::fd::OwnedFd;
use rustix::net::{SendFlags, send};

const KEY_BYTES: usize = 4;

/// One client.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// Whether it speaks WebSocket now.
    pub(super) upgraded: bool,
    /// 0 for a phone, 1 for an agent, none before `auth`.
    pub(super) role: Option<usize>,
    pub(super) token: String,
    pub(super) peer: Option<usize>,
    /// What has come of an incomplete frame or request.
    pub(super) rest: Vec<u8>,
    /// What the socket did not take yet.
    pub(super) outbox: Vec<u8>,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let (token, rest, outbox) = (String::new(), Vec::new(), Vec::new());
        Self { socket, upgraded: false, role: None, token, peer: None, rest, outbox }
    }

    /// Sends what waits and then `bytes`, as far as the socket takes it; what it does not take waits.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.outbox.is_empty() {
            let sent = self.push(bytes);
            self.outbox.extend_from_slice(&bytes[sent..]);
        } else {
            self.outbox.extend_from_slice(bytes);
            let sent = self.push(&self.outbox);
            self.outbox.drain(..sent);
        }
    }

    fn push(&self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match send(&self.socket, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                // No room, or over: the next read tells which.
                Err(_) => break,
            }
        }
        sent
    }
}

/// A complete masked frame at the beginning of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    opcode: u8,
    /// Header with mask key.
    header_bytes: usize,
    payload_bytes: usize,
}

impl Frame {
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let (first, short) = (*data.first()?, *data.get(1)? & 0x7f);
        let (header_bytes, payload_bytes) = match short {
            126 => (8, usize::from(u16::from_be_bytes(data.get(2..4)?.try_into().ok()?))),
            127 => (14, u64::from_be_bytes(data.get(2..10)?.try_into().ok()?) as usize),
            _ => (6, usize::from(short)),
        };
        let complete = data.len().checked_sub(header_bytes)? >= payload_bytes;
        complete.then_some(Self { opcode: first & 15, header_bytes, payload_bytes })
    }

    pub(super) fn is_close(self) -> bool {
        self.opcode == 8
    }

    pub(super) fn is_control(self) -> bool {
        self.opcode >= 8
    }

    pub(super) fn bytes(self) -> usize {
        self.header_bytes + self.payload_bytes
    }

    pub(super) fn payload(self, data: &[u8]) -> &[u8] {
        &data[self.header_bytes..self.bytes()]
    }

    pub(super) fn unmask(self, data: &mut [u8]) {
        let (header, payload) = data[..self.bytes()].split_at_mut(self.header_bytes);
        let [.., a, b, c, d] = *header else { return };
        let key = [a, b, c, d];
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut words = payload.chunks_exact_mut(8);
        for word in &mut words {
            if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
                word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
            }
        }
        words.into_remainder().iter_mut().zip(key.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }

    /// The frame without its key: the header moves up against the unmasked payload.
    pub(super) fn unmasked(self, data: &mut [u8]) -> &[u8] {
        data.copy_within(..self.header_bytes - KEY_BYTES, KEY_BYTES);
        data[KEY_BYTES + 1] &= 0x7f;
        &data[KEY_BYTES..self.bytes()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_complete_or_not_there_and_leaves_unmasked() {
        for length in [0usize, 3, 5, 7, 8, 13, 125, 126, 300, 70_000] {
            let payload: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let mut data = coralmux_test_support::frames::frame(true, 1, &payload, [9, 8, 7, 6]);
            assert!((0..data.len()).step_by(7).all(|cut| Frame::parse(&data[..cut]).is_none()));
            data.extend_from_slice(b"next");
            let frame = Frame::parse(&data).unwrap();
            assert_eq!(frame.bytes(), data.len() - 4);
            frame.unmask(&mut data);
            assert_eq!(frame.payload(&data), payload);
            let out = frame.unmasked(&mut data).to_vec();
            assert_eq!(out[0], 0x81);
            assert_eq!(out[1] & 0x80, 0);
            assert_eq!(out[out.len() - length..], payload);
            assert_eq!(out.len() + KEY_BYTES, frame.bytes());
        }
    }
}
