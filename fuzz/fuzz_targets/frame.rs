//! The frame codec: headers are read the same however many bytes there are, what is read can be written, and unmasking
//! in blocks is unmasking byte by byte.
#![no_main]

use coralmux_proto::frame::{
    HEADER_BYTES_MAX, REASON_BYTES_MAX, close_payload, header_bytes, parse_close, parse_header, unmask, unmask_shift,
    write_header,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut known = Ok(None);
    for cut in 0..=input.len().min(HEADER_BYTES_MAX) {
        let result = parse_header(&input[..cut]);
        if known == Ok(None) {
            known = result;
        }
        assert_eq!(result, known, "more bytes changed the answer");
    }
    assert_eq!(parse_header(input), known);
    if let Ok(Some(header)) = known {
        assert!(header.payload_bytes >> 63 == 0 && header.header_bytes <= HEADER_BYTES_MAX);
        assert!(!header.opcode.is_control() || header.fin && header.payload_bytes <= 125);
        let mut out = [0; HEADER_BYTES_MAX];
        let size = write_header(&mut out, header.fin, header.opcode, header.payload_bytes);
        assert_eq!(size, header_bytes(header.payload_bytes));
        // Masked with a key of zeros it is a client's header again.
        out[1] |= 0x80;
        let again = parse_header(&out[..size + 4]).unwrap().unwrap();
        assert_eq!((again.fin, again.opcode), (header.fin, header.opcode));
        assert_eq!((again.payload_bytes, again.header_bytes), (header.payload_bytes, size + 4));

        let payload = &input[header.header_bytes..];
        let plain: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ header.key[at % 4]).collect();
        let mut moved = input.to_vec();
        let down = header.header_bytes.min(usize::from(header.key[0]) % 15);
        unmask_shift(&mut moved, header.header_bytes..input.len(), header.header_bytes - down, header.key);
        assert_eq!(moved[header.header_bytes - down..][..plain.len()], plain);
        let mut pieces = payload.to_vec();
        let (first, second) = pieces.split_at_mut(payload.len().min(usize::from(header.key[1])));
        unmask(first, header.key, 0);
        unmask(second, header.key, first.len());
        assert_eq!(pieces, plain);
    }
    if let Ok(Some((code, reason))) = parse_close(input) {
        assert!(close_payload(code, reason).starts_with(&input[..input.len().min(REASON_BYTES_MAX - 1)]));
    }
});
