//! WebSocket frames as a client writes them (RFC 6455, section 5), well-formed or not.

/// Opcode of a frame that continues a message.
pub const CONTINUATION: u8 = 0;
/// Opcode of a text message's first frame.
pub const TEXT: u8 = 1;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a ping.
pub const PING: u8 = 9;
/// Opcode of a pong.
pub const PONG: u8 = 10;

/// The header of a masked frame, in its shortest form. It announces `payload_bytes`, whatever follows.
#[must_use]
pub fn header(fin: bool, opcode: u8, payload_bytes: usize, key: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    match payload_bytes {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes
}

/// A whole masked frame.
#[must_use]
pub fn frame(fin: bool, opcode: u8, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut bytes = header(fin, opcode, payload.len(), key);
    let start = bytes.len();
    bytes.extend(payload);
    mask(&mut bytes[start..], key);
    bytes
}

/// Masks a payload, or the beginning of one.
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    // By words, because tests are built without optimisation.
    let (words, rest) = payload.as_chunks_mut::<8>();
    let wide = u64::from_ne_bytes(std::array::from_fn(|at| key[at % 4]));
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_masked_in_all_three_lengths() {
        for length in [0usize, 1, 125, 126, 65535, 65536] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let key = [1, 2, 3, 4];
            let frame = frame(true, TEXT, &payload, key);
            let header = match length {
                0..126 => vec![0x81, 0x80 | length as u8],
                126..65536 => [vec![0x81, 0xfe], (length as u16).to_be_bytes().to_vec()].concat(),
                _ => [vec![0x81, 0xff], (length as u64).to_be_bytes().to_vec()].concat(),
            };
            assert_eq!(frame[..header.len()], header);
            assert_eq!(frame[header.len()..header.len() + 4], key);
            let unmasked: Vec<u8> = frame[header.len() + 4..].iter().enumerate().map(|(i, b)| b ^ key[i & 3]).collect();
            assert_eq!(unmasked, payload);
        }
        assert_eq!(frame(false, CONTINUATION, b"", [0; 4])[0], 0);
    }
}
