use super::*;
use proptest::prelude::*;
use std::io::Cursor;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{FrameHeader, Utf8Bytes};

const OPCODES: [Opcode; 6] =
    [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];

/// A client's header, written by tungstenite.
fn client_header(fin: bool, opcode: Opcode, key: [u8; 4], payload_bytes: u64) -> Vec<u8> {
    let header = FrameHeader {
        is_final: fin,
        opcode: OpCode::from(opcode as u8),
        mask: Some(key),
        rsv1: false,
        rsv2: false,
        rsv3: false,
    };
    let mut bytes = Vec::new();
    header.format(payload_bytes, &mut bytes).unwrap();
    bytes
}

/// What tungstenite says to the same bytes, with the rules of a server that it applies elsewhere.
fn reference(bytes: &[u8]) -> Result<Option<Header>, ()> {
    let mut cursor = Cursor::new(bytes);
    let Some((header, payload_bytes)) = FrameHeader::parse(&mut cursor).map_err(|_| ())? else { return Ok(None) };
    let opcode = match header.opcode {
        OpCode::Data(Data::Continue) => Opcode::Continuation,
        OpCode::Data(Data::Text) => Opcode::Text,
        OpCode::Data(Data::Binary) => Opcode::Binary,
        OpCode::Control(Control::Close) => Opcode::Close,
        OpCode::Control(Control::Ping) => Opcode::Ping,
        OpCode::Control(Control::Pong) => Opcode::Pong,
        _ => return Err(()),
    };
    let control = matches!(header.opcode, OpCode::Control(_));
    let reserved = header.rsv1 || header.rsv2 || header.rsv3;
    if reserved || payload_bytes >> 63 != 0 || control && (!header.is_final || payload_bytes > 125) {
        return Err(());
    }
    let key = header.mask.ok_or(())?;
    let header_bytes = cursor.position() as usize;
    Ok(Some(Header { fin: header.is_final, opcode, key, header_bytes, payload_bytes }))
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_tungstenite_reads_them(
        first in any::<u8>(), second in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 12..20),
    ) {
        let bytes = [&[first, second], rest.as_slice()].concat();
        let result = parse_header(&bytes);
        // A control frame that claims an extended length is refused here, however short that length then is.
        if let Err(Violation::ControlTooLong) = result {
            prop_assert!(first & 0x08 != 0 && second & 0x7f > 125);
        } else {
            prop_assert_eq!(result.map_err(|_| ()), reference(&bytes));
        }
    }

    #[test]
    fn a_header_reads_back_at_its_end_and_not_before(
        fin in any::<bool>(), opcode in prop::sample::select(OPCODES.as_slice()), key in any::<[u8; 4]>(),
        payload_bytes in prop_oneof![0..=126u64, 65_534..=65_537u64, 0..=u64::MAX >> 1], tail in any::<[u8; 3]>(),
    ) {
        let (fin, payload_bytes) =
            if opcode.is_control() { (true, payload_bytes.min(125)) } else { (fin, payload_bytes) };
        let mut bytes = client_header(fin, opcode, key, payload_bytes);
        let header_bytes = bytes.len();
        bytes.extend(tail);
        for cut in 0..=bytes.len() {
            let header = Header { fin, opcode, key, header_bytes, payload_bytes };
            prop_assert_eq!(parse_header(&bytes[..cut]), Ok((cut >= header_bytes).then_some(header)));
        }
    }

    #[test]
    fn a_written_header_is_the_one_that_tungstenite_writes(
        fin in any::<bool>(), opcode in prop::sample::select(OPCODES.as_slice()),
        payload_bytes in prop_oneof![0..=126u64, 65_534..=65_537u64, 0..=u64::MAX >> 1],
    ) {
        let mut expected = client_header(fin, opcode, [0; 4], payload_bytes);
        expected.truncate(expected.len() - 4);
        expected[1] &= 0x7f;
        let mut out = [0xaa; HEADER_BYTES_MAX];
        let size = write_header(&mut out, fin, opcode, payload_bytes);
        prop_assert_eq!(&out[..size], expected.as_slice());
        prop_assert_eq!(size, header_bytes(payload_bytes));
        prop_assert!(out[size..].iter().all(|&byte| byte == 0xaa));
    }

    #[test]
    fn a_payload_is_unmasked_in_any_pieces(
        payload in proptest::collection::vec(any::<u8>(), 0..400), key in any::<[u8; 4]>(),
        mut cuts in proptest::collection::vec(0..400usize, 0..4),
    ) {
        let mut masked: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        cuts.extend([0, payload.len()]);
        cuts.iter_mut().for_each(|cut| *cut = payload.len().min(*cut));
        cuts.sort_unstable();
        for cut in cuts.windows(2) {
            unmask(&mut masked[cut[0]..cut[1]], key, cut[0]);
        }
        prop_assert_eq!(masked, payload);
    }

    #[test]
    fn a_payload_moves_down_and_leaves_the_rest_alone(
        payload in proptest::collection::vec(any::<u8>(), 0..400), key in any::<[u8; 4]>(),
        below in 0..20usize, down in prop_oneof![0..=40usize, 0..=500usize], above in 0..20usize,
    ) {
        let masked: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        let from = below + down;
        let mut buffer = [vec![1; below], vec![2; down], masked, vec![3; above]].concat();
        unmask_shift(&mut buffer, from..from + payload.len(), below, key);
        prop_assert_eq!(&buffer[..below], vec![1; below]);
        prop_assert_eq!(&buffer[below..below + payload.len()], payload.as_slice());
        prop_assert_eq!(&buffer[from + payload.len()..], vec![3; above]);
    }

    #[test]
    fn a_close_payload_reads_back_with_its_reason_cut(
        code in prop_oneof![1000..=1003u16, 1007..=1014u16, 3000..=4999u16], reason in ".{0,140}",
    ) {
        let payload = close_payload(code, &reason);
        prop_assert!(payload.len() <= CONTROL_BYTES_MAX);
        let (read, kept) = parse_close(&payload).unwrap().unwrap();
        prop_assert_eq!(read, code);
        prop_assert!(reason.starts_with(kept));
        let next = reason[kept.len()..].chars().next();
        prop_assert!(next.is_none_or(|next| kept.len() + next.len_utf8() > REASON_BYTES_MAX));
    }
}

#[test]
fn a_violation_is_reported_by_its_first_byte() {
    for (bytes, violation) in [
        ([0xc1].as_slice(), Violation::ReservedBits),
        (&[0xa1], Violation::ReservedBits),
        (&[0x91], Violation::ReservedBits),
        (&[0x83], Violation::ReservedOpcode(3)),
        (&[0x8b], Violation::ReservedOpcode(11)),
        (&[0x09], Violation::ControlFragmented),
        (&[0x81, 0x05], Violation::Unmasked),
        (&[0x88, 0xfe], Violation::ControlTooLong),
        (&[0x8a, 0xff], Violation::ControlTooLong),
        (&[0x82, 0xff, 0x80], Violation::LengthOutOfRange),
    ] {
        assert_eq!(parse_header(&bytes[..bytes.len() - 1]), Ok(None), "{violation}");
        assert_eq!(parse_header(bytes), Err(violation));
        assert_eq!(parse_header(&[bytes, &[0xff; 20]].concat()), Err(violation));
    }
}

#[test]
fn lengths_written_longer_than_need_be_are_taken() {
    let short = [0x81, 0xfe, 0, 5, 1, 2, 3, 4];
    let long = [0x02, 0xff, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4];
    assert_eq!(parse_header(&short).unwrap().map(|it| (it.payload_bytes, it.header_bytes)), Some((5, 8)));
    assert_eq!(parse_header(&long).unwrap().map(|it| (it.payload_bytes, it.header_bytes)), Some((5, 14)));
}

#[test]
fn control_frames_are_the_upper_half_of_the_opcodes() {
    assert!(OPCODES.iter().all(|opcode| opcode.is_control() == (*opcode as u8 >= 8)));
}

#[test]
fn each_close_code_is_judged_as_tungstenite_does() {
    for code in 0..=u16::MAX {
        // Assigned after tungstenite's table was made, or reserved for private use and agreed on by nobody.
        let expected = match code {
            1012..=1014 => true,
            code => CloseCode::from(code).is_allowed() && (1000..5000).contains(&code),
        };
        let payload = close_payload(code, "over");
        let result = if expected { Ok(Some((code, "over"))) } else { Err(CloseViolation::Code(code)) };
        assert_eq!(parse_close(&payload), result);
    }
}

#[test]
fn a_close_payload_may_be_empty_but_not_one_byte_or_broken_text() {
    assert_eq!(parse_close(b""), Ok(None));
    assert_eq!(parse_close(b"\x03"), Err(CloseViolation::Length));
    assert_eq!(parse_close(b"\x03\xe8"), Ok(Some((1000, ""))));
    assert_eq!(parse_close(b"\x03\xe8\xe4\xbd"), Err(CloseViolation::NotUtf8));
}

#[test]
fn a_whole_frame_of_a_client_is_read_as_it_was_sent() {
    let text = "relay ".repeat(30);
    let mut frame =
        tungstenite::protocol::frame::Frame::message(Utf8Bytes::from(text.as_str()), OpCode::Data(Data::Text), true);
    frame.header_mut().mask = Some([9, 8, 7, 6]);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    let header = parse_header(&bytes).unwrap().unwrap();
    let end = header.header_bytes + header.payload_bytes as usize;
    assert_eq!(end, bytes.len());
    let size = header_bytes(header.payload_bytes);
    unmask_shift(&mut bytes, header.header_bytes..end, size, header.key);
    assert_eq!(write_header(&mut bytes, header.fin, header.opcode, header.payload_bytes), size);
    let sent = &bytes[..size + text.len()];
    let (head, length) = FrameHeader::parse(&mut Cursor::new(sent)).unwrap().unwrap();
    assert_eq!((head.is_final, head.mask, length), (true, None, text.len() as u64));
    assert_eq!(&sent[size..], text.as_bytes());
}
