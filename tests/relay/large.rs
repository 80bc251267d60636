//! Large messages: whole or not at all, with pings answered meanwhile; those that are too large are refused alone.

use crate::harness::{CONTINUATION, Client, PING, PONG, Raw, Relay, TEXT, frame, numbered, sized, text};
use serde_json::{Value, json};
use std::net::TcpStream;

const MESSAGE_BYTES_MAX: usize = 5 << 20;

/// A message in fragments of `size`, with `between` behind each but the last.
fn fragments(message: &[u8], size: usize, between: &[u8]) -> Vec<u8> {
    let count = message.len().div_ceil(size);
    let mut bytes = Vec::new();
    for (at, piece) in message.chunks(size).enumerate() {
        bytes.extend(frame(at + 1 == count, if at == 0 { TEXT } else { CONTINUATION }, piece));
        if at + 1 < count {
            bytes.extend(between);
        }
    }
    bytes
}

fn authed_pair(relay: &Relay) -> (Raw, Raw) {
    let token = relay.token();
    let mut agent = Raw::authed(relay, &token, "agent");
    let phone = Raw::authed(relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    (agent, phone)
}

#[test]
fn five_mib_go_each_way_at_once_while_pings_between_the_fragments_are_answered() {
    let relay = Relay::start(&[]);
    let (mut agent, mut phone) = authed_pair(&relay);
    let message = sized("file.whole", MESSAGE_BYTES_MAX);
    let ping = frame(true, PING, b"under way");
    let bytes = fragments(message.as_bytes(), 100_000, &ping);
    let pings = message.len().div_ceil(100_000) - 1;
    std::thread::scope(|scope| {
        for client in [&mut agent, &mut phone] {
            let mut writer = client.stream.try_clone().unwrap();
            let (bytes, message) = (&bytes, &message);
            scope.spawn(move || std::io::Write::write_all(&mut writer, bytes).unwrap());
            scope.spawn(move || {
                assert!(client.text() == *message, "not what was sent");
                while client.pongs.len() < pings {
                    let Some((true, PONG, payload)) = client.frame() else { panic!("no pong") };
                    client.pongs.push(payload);
                }
                assert!(client.pongs.iter().all(|payload| payload == b"under way"));
            });
        }
    });
}

#[test]
fn a_receivers_ping_is_answered_in_the_middle_of_a_message() {
    let relay = Relay::start(&["--max-message", "32MiB"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let stream = relay.connect();
    // Small, so that most of the message is still at the relay when the ping comes.
    socket2::SockRef::from(&stream).set_recv_buffer_size(32 << 10).unwrap();
    let mut phone = Raw::new(stream);
    phone.write(crate::harness::UPGRADE.as_bytes());
    phone.read_upgrade();
    phone.write(&text(&crate::harness::auth(&token, "phone")));
    assert_eq!(phone.json()["type"], "auth.ok");
    let message = sized("file.whole", 32 << 20);
    let bytes = text(&message);
    std::thread::scope(|scope| {
        scope.spawn(|| agent.write(&bytes));
        let (fin, opcode, mut received) = phone.frame().unwrap();
        assert!((fin, opcode) == (false, TEXT), "the first fragment");
        phone.write(&frame(true, PING, b"now"));
        let mut answered_at = None;
        loop {
            match phone.frame().unwrap() {
                (fin, CONTINUATION, piece) => {
                    received.extend(piece);
                    if fin {
                        break;
                    }
                }
                (true, PONG, payload) => {
                    assert_eq!(payload, b"now");
                    answered_at = Some(received.len());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(received == message.as_bytes());
        println!("answered after {answered_at:?} of {} bytes", message.len());
        assert!(answered_at.is_some(), "the pong came behind the message");
    });
}

#[test]
fn exactly_the_limit_passes_and_one_byte_more_is_refused_alone() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut phone = Client::authed(&relay, &token, "phone");
    agent.expect("status");
    let (fits, over) = (sized("chat.send", MESSAGE_BYTES_MAX), sized("chat.send", MESSAGE_BYTES_MAX + 1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for message in [&numbered("chat.send", 1), &fits, &over, &numbered("chat.send", 2)] {
                phone.send(message);
            }
        });
        assert_eq!(agent.text(), numbered("chat.send", 1));
        assert!(agent.text() == fits);
        assert_eq!(agent.text(), numbered("chat.send", 2));
    });
    let error = phone.expect("chat.error");
    assert_eq!((&error["code"], &error["ref"]), (&json!("MESSAGE_TOO_LARGE"), &json!("big")));
    phone.expect_nothing();
}

#[test]
fn a_too_large_message_in_fragments_is_refused_once_and_the_next_one_passes() {
    let relay = Relay::start(&["--max-message", "100KiB"]);
    for size in [70_000, 30_000, 1000, 99] {
        let (mut agent, mut phone) = authed_pair(&relay);
        let over = fragments(sized("chat.send", 100 * 1024 + 1).as_bytes(), size, &frame(true, PING, b""));
        let fits = sized("chat.send", 100 * 1024);
        let next = fragments(fits.as_bytes(), size, &[]);
        std::thread::scope(|scope| {
            let mut writer = phone.stream.try_clone().unwrap();
            scope.spawn(move || std::io::Write::write_all(&mut writer, &[over, next].concat()).unwrap());
            assert!(agent.text() == fits, "fragments of {size}");
            let error = phone.json();
            assert_eq!(error["payload"]["code"], "MESSAGE_TOO_LARGE");
            assert_eq!(error["payload"]["ref"], "big", "fragments of {size}");
        });
        phone.write(&text(r#"{"type":"ping"}"#));
        assert_eq!(phone.json()["type"], "pong", "refused once");
    }
}

#[test]
fn a_message_far_too_large_takes_no_memory() {
    let relay = Relay::start(&[]);
    let (mut agent, mut phone) = authed_pair(&relay);
    // The shards' buffers are in use before memory is looked at.
    let warm = sized("chat.send", MESSAGE_BYTES_MAX);
    std::thread::scope(|scope| {
        scope.spawn(|| phone.write(&text(&warm)));
        assert!(agent.text() == warm);
    });
    let before = relay.memory_bytes();
    let over = text(&sized("chat.send", 64 << 20));
    let mut most = before;
    for part in over.chunks(4 << 20) {
        phone.write(part);
        most = most.max(relay.memory_bytes());
    }
    let error = phone.json();
    assert_eq!((&error["payload"]["code"], &error["payload"]["ref"]), (&json!("MESSAGE_TOO_LARGE"), &json!("big")));
    assert!(most < before + (24 << 20), "{before} bytes of memory grew to {most}");
    phone.write(&text(&numbered("chat.send", 1)));
    assert_eq!(agent.text(), numbered("chat.send", 1));
}

#[test]
fn text_that_is_not_utf_8_closes_with_1007_wherever_it_stands() {
    let relay = Relay::start(&[]);
    let json = |filler: usize| {
        let mut bytes = sized("chat.send", filler).into_bytes();
        let middle = bytes.len() / 2;
        bytes[middle] = 0xff;
        bytes
    };
    // A multi-byte character that a fragment cuts is fine; one that ends too early is not.
    let cut = [&br#"{"type":"chat.send","payload":""#[..], b"\xf0\x9f\x98", br#""}"#].concat();
    for (bytes, label) in [
        (frame(true, TEXT, &json(200)), "one frame"),
        (frame(true, TEXT, &json(1 << 20)), "received straight into its allocation"),
        (fragments(&json(5000), 100, &[]), "fragments"),
        (frame(true, TEXT, &cut), "a character that ends too early"),
    ] {
        let (mut agent, mut phone) = authed_pair(&relay);
        phone.write(&[text(&numbered("chat.send", 7)), bytes].concat());
        assert_eq!(agent.text(), numbered("chat.send", 7), "{label}: what came before is forwarded");
        assert_eq!(phone.closed().map(|(code, _)| code), Some(1007), "{label}");
        let status = agent.json();
        assert_eq!((&status["type"], &status["payload"]["peer"]), (&json!("status"), &json!("offline")), "{label}");
    }
}

#[test]
fn a_character_may_be_cut_by_fragments() {
    let relay = Relay::start(&[]);
    let (mut agent, mut phone) = authed_pair(&relay);
    let message = "{\"type\":\"chat.send\",\"id\":\"\u{20ac}\u{1f600}\",\"payload\":\"\u{1f600}\u{e9}\"}";
    for size in 1..10 {
        phone.write(&fragments(message.as_bytes(), size, &frame(true, PING, b"")));
        assert_eq!(agent.text(), message);
    }
}

#[test]
fn bytes_that_are_not_utf_8_in_a_binary_frame_are_only_bad_json() {
    let relay = Relay::start(&[]);
    let (mut agent, mut phone) = authed_pair(&relay);
    phone.write(&frame(true, 2, b"{\"type\":\"chat.send\",\"payload\":\"\xff\"}"));
    assert_eq!(phone.json()["payload"]["code"], "INVALID_MESSAGE");
    phone.write(&frame(true, 2, numbered("chat.send", 1).as_bytes()));
    let (fin, opcode, payload) = agent.frame().unwrap();
    assert_eq!((fin, opcode, payload), (true, TEXT, numbered("chat.send", 1).into_bytes()), "forwarded as text");
}

#[test]
fn a_sender_that_is_gone_in_the_middle_of_a_message_leaves_nothing_of_it() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    for round in 0..20 {
        let mut phone = Raw::authed(&relay, &token, "phone");
        agent.expect("status");
        let bytes = text(&sized("chat.send", 1 << 20));
        phone.write(&bytes[..bytes.len() - 1 - round * 40_000]);
        if round % 2 == 0 {
            phone.reset();
        } else {
            drop::<TcpStream>(phone.stream);
        }
        let status: Value = agent.expect("status");
        assert_eq!(status["peer"], "offline");
    }
    agent.expect_nothing();
}
