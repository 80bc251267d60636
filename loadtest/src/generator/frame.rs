//! WebSocket frames as a client receives them (RFC 6455, section 5): unmasked.
//!
//! The reader keeps no message unless told to: of each it hands on the length and the first [`HEAD_BYTES`] bytes, which
//! say what the message is, and it takes messages in as many fragments and reads as the relay likes.

use coralmux_test_support::frames::{CLOSE, PING, PONG};

/// How much of a message the reader hands on.
pub(crate) const HEAD_BYTES: usize = 256;

/// What a relay may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the relay sent a masked frame")]
    Masked,
    #[error("the relay sent an extension's bits or an unknown opcode: first byte {0:#04x}")]
    FirstByte(u8),
    #[error("the relay sent a control frame of {0} bytes")]
    LongControl(u64),
    #[error("the relay mixed up the fragments of a message")]
    Fragments,
}

/// One complete message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A message: its length in bytes, and its beginning, at most [`HEAD_BYTES`] of it unless all is wanted.
    Message { bytes: u64, head: &'a [u8] },
    /// A ping and its payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame and its payload (code and reason).
    Close(&'a [u8]),
}

/// Takes the bytes of one connection, in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    /// The frame's header as far as it has come: `header_have` of it. At most 10 bytes.
    header: [u8; 10],
    header_have: u8,
    /// Whether the header is complete and the payload is in progress.
    in_payload: bool,
    /// Bytes of this frame's payload that are still to come.
    frame_left: u64,
    /// Whether a message is begun: another frame of it has come or is coming.
    in_message: bool,
    message_bytes: u64,
    /// The beginning of a message, or all of a control frame, where one read did not bring all of it.
    head: Vec<u8>,
    control: Vec<u8>,
    /// Whether messages are handed on whole.
    whole: bool,
}

impl FrameReader {
    /// One that hands messages on whole.
    pub(crate) fn whole() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// The next complete message or control frame out of `data`, which shrinks by what was taken; `None` when `data`
    /// has been taken in full and more is needed.
    pub(crate) fn poll<'a, 'd: 'a>(&'a mut self, data: &mut &'d [u8]) -> Result<Option<Incoming<'a>>, FrameError> {
        loop {
            if !self.in_payload && !self.take_header(data)? {
                return Ok(None);
            }
            let (first, control) = (self.header[0], self.header[0] & 8 != 0);
            let chunk;
            (chunk, *data) = data.split_at(self.frame_left.min(data.len() as u64) as usize);
            self.frame_left -= chunk.len() as u64;
            let frame_done = self.frame_left == 0;
            self.in_payload = !frame_done;
            if control {
                if !frame_done || !self.control.is_empty() {
                    self.control.extend_from_slice(chunk);
                }
                if frame_done {
                    let payload = if self.control.is_empty() { chunk } else { &self.control };
                    return Ok(Some(match first & 15 {
                        CLOSE => Incoming::Close(payload),
                        PING => Incoming::Ping(payload),
                        _ => Incoming::Pong,
                    }));
                }
                return Ok(None);
            }
            let head_bytes_max = if self.whole { usize::MAX } else { HEAD_BYTES };
            let whole_message = frame_done && first & 0x80 != 0;
            let bytes = self.message_bytes + chunk.len() as u64;
            if whole_message && self.message_bytes == 0 {
                self.in_message = false;
                return Ok(Some(Incoming::Message { bytes, head: &chunk[..chunk.len().min(head_bytes_max)] }));
            }
            self.message_bytes = bytes;
            let room = head_bytes_max - self.head.len();
            self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if whole_message {
                self.in_message = false;
                self.message_bytes = 0;
                return Ok(Some(Incoming::Message { bytes, head: &self.head }));
            }
            if !frame_done {
                return Ok(None);
            }
        }
    }

    /// Completes the header out of `data`; false when there was not enough.
    fn take_header(&mut self, data: &mut &[u8]) -> Result<bool, FrameError> {
        loop {
            let have = usize::from(self.header_have);
            let need = if have < 2 {
                2
            } else {
                match self.header[1] & 127 {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                }
            };
            if have == need {
                break;
            }
            if data.is_empty() {
                return Ok(false);
            }
            let (some, rest) = data.split_at((need - have).min(data.len()));
            self.header[have..have + some.len()].copy_from_slice(some);
            self.header_have += some.len() as u8;
            *data = rest;
        }
        self.header_have = 0;
        let h = &self.header;
        if h[1] & 0x80 != 0 {
            return Err(FrameError::Masked);
        }
        self.frame_left = match h[1] {
            126 => u64::from(u16::from_be_bytes([h[2], h[3]])),
            127 => u64::from_be_bytes([h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]]),
            short => u64::from(short),
        };
        match h[0] & 0x7f {
            CLOSE..=PONG if self.frame_left > 125 || h[0] & 0x80 == 0 => {
                return Err(FrameError::LongControl(self.frame_left));
            }
            CLOSE..=PONG => self.control.clear(),
            0 if !self.in_message => return Err(FrameError::Fragments),
            1 | 2 if self.in_message => return Err(FrameError::Fragments),
            0 => {}
            1 | 2 => {
                self.in_message = true;
                self.message_bytes = 0;
                self.head.clear();
            }
            _ => return Err(FrameError::FirstByte(h[0])),
        }
        self.in_payload = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coralmux_test_support::frames::frame;

    fn from_relay(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut masked = frame(true, first & 15, payload, [0; 4]);
        let header = masked.len() - payload.len() - 4;
        masked.drain(header..header + 4);
        masked[0] = first;
        masked[1] &= 0x7f;
        masked
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<String>, FrameError> {
        let (mut reader, mut out) = (FrameReader::default(), Vec::new());
        for piece in pieces {
            let mut data = *piece;
            loop {
                match reader.poll(&mut data)? {
                    Some(Incoming::Message { bytes, head }) => {
                        out.push(format!("{bytes} {}", String::from_utf8_lossy(&head[..head.len().min(8)])));
                    }
                    Some(other) => out.push(format!("{other:?}")),
                    None => break,
                }
            }
            assert!(data.is_empty());
        }
        Ok(out)
    }

    #[test]
    fn the_reader_does_not_care_where_the_bytes_are_split() {
        let stream = [
            from_relay(0x81, b"hello"),
            from_relay(0x01, &[b'a'; 300]),
            from_relay(0x89, b"ping"),
            from_relay(0x00, b""),
            from_relay(0x80, &[b'b'; 70000]),
            from_relay(0x81, b""),
            from_relay(0x8a, b""),
            from_relay(0x82, &[b'c'; 200]),
            from_relay(0x88, &[3, 232]),
        ]
        .concat();
        let expected = read(&[&stream]).unwrap();
        let ping = format!("{:?}", Incoming::Ping(b"ping"));
        let close = format!("{:?}", Incoming::Close(&[3, 232]));
        assert_eq!(expected, ["5 hello", &ping, "70300 aaaaaaaa", "0 ", "Pong", "200 cccccccc", &close]);
        for at in (0..700).chain(stream.len() - 700..stream.len()) {
            assert_eq!(read(&[&stream[..at], &stream[at..]]).unwrap(), expected, "split at {at}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn what_a_relay_may_not_send_is_named() {
        assert_eq!(read(&[&[0x81, 0x81, 0, 0, 0, 0, 0]]), Err(FrameError::Masked));
        assert_eq!(read(&[&[0xc1, 0]]), Err(FrameError::FirstByte(0xc1)));
        assert_eq!(read(&[&[0x80, 0]]), Err(FrameError::Fragments));
        assert_eq!(read(&[&[0x01, 0, 0x81, 0]]), Err(FrameError::Fragments));
        assert_eq!(read(&[&[0x89, 126, 0, 126]]), Err(FrameError::LongControl(126)));
    }
}
