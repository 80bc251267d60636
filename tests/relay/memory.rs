//! Memory for large messages: a promise holds none that others need, who gets nowhere gives it up, and who waits is told in
//! time.

use crate::harness::{Client, PING, Raw, Relay, frame, numbered, sized, text};
use serde_json::json;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Room for one message of the largest size.
const BUDGET: [&str; 2] = ["--memory-budget", "5MiB"];

/// Pairs of one shard.
fn pairs<const COUNT: usize>(relay: &Relay) -> [(Raw, Raw); COUNT] {
    relay.tokens_of_a_shard().map(|token| {
        let mut agent = Raw::authed(relay, &token, "agent");
        let phone = Raw::authed(relay, &token, "phone");
        assert_eq!(agent.json()["type"], "status");
        (agent, phone)
    })
}

/// Sends the beginning of a message, and returns when the relay has seen it.
fn begin(client: &mut Raw, bytes: &[u8]) {
    client.write(&[&text(r#"{"type":"ping"}"#), bytes].concat());
    assert_eq!(client.json()["type"], "pong");
}

#[test]
fn a_promise_that_nothing_backs_keeps_nobody_waiting() {
    let relay = Relay::start(&BUDGET);
    let [(_first_agent, mut promising), (mut agent, mut phone)] = pairs(&relay);
    begin(&mut promising, &text(&sized("file.whole", 5 << 20))[..23]);
    let image = sized("chat.send", 2 << 20);
    phone.write(&text(&image));
    assert!(agent.text() == image);
    phone.write(&frame(true, PING, b"here"));
    phone.write(&text(r#"{"type":"ping"}"#));
    assert_eq!((phone.json()["type"].clone(), phone.pongs.len()), (json!("pong"), 1));
}

#[test]
fn a_message_that_gets_nowhere_gives_its_memory_to_one_that_waits() {
    let relay = Relay::start(&BUDGET);
    let [(_first_agent, mut stuck), (mut agent, mut phone)] = pairs(&relay);
    // Enough of it to be believed in.
    begin(&mut stuck, &text(&sized("file.whole", 5 << 20))[..200_000]);
    let image = sized("chat.send", 2 << 20);
    phone.write(&text(&image));
    assert!(agent.text() == image);
    assert_eq!(stuck.closed(), Some((1008, "message took too long".to_owned())));
}

#[test]
fn who_waits_for_memory_is_told_in_time_to_try_again_and_its_pings_are_answered() {
    let relay = Relay::start(&BUDGET);
    let [(mut first_agent, mut steady), (mut agent, mut phone)] = pairs(&relay);
    let whole = text(&sized("file.whole", 5 << 20));
    let (first, rest) = whole.split_at(128 << 10);
    begin(&mut steady, first);
    let refused = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mut writer, refused) = (steady.stream.try_clone().unwrap(), &refused);
        scope.spawn(move || {
            // As fast as it has to be to keep its memory, until the other one has been refused.
            for piece in rest.chunks(128 << 10) {
                if !refused.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(300));
                }
                writer.write_all(piece).unwrap();
            }
        });
        phone.write(&text(&sized("chat.send", 1 << 20)));
        phone.write(&frame(true, PING, b"here"));
        let error = phone.json();
        refused.store(true, Relaxed);
        let payload = &error["payload"];
        assert_eq!(
            (&error["type"], &payload["code"], &payload["ref"]),
            (&json!("chat.error"), &json!("RATE_LIMITED"), &json!("big"))
        );
        assert_eq!(payload["retry_after_ms"], 2000);
        phone.write(&text(r#"{"type":"ping"}"#));
        assert_eq!((phone.json()["type"].clone(), phone.pongs.len()), (json!("pong"), 1));
        assert_eq!(first_agent.text().len(), 5 << 20);
    });
    phone.write(&text(&numbered("chat.send", 1)));
    assert_eq!(agent.text(), numbered("chat.send", 1));
}

#[test]
fn an_image_does_not_wait_for_files_that_come_just_fast_enough_to_keep_their_memory() {
    // Room for one file, and for an image beside it.
    let relay = Relay::start(&["--memory-budget", "8MiB"]);
    let [(_a, mut holding), (_b, mut waiting), (_c, mut waiting_too), (mut agent, mut phone)] = pairs(&relay);
    let whole = text(&sized("file.whole", 5 << 20));
    let (first, rest) = whole.split_at(128 << 10);
    for steady in [&mut holding, &mut waiting, &mut waiting_too] {
        begin(steady, first);
    }
    let image = sized("chat.send", 1 << 20);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for steady in [&holding, &waiting, &waiting_too] {
            let (mut writer, done) = (steady.stream.try_clone().unwrap(), &done);
            scope.spawn(move || {
                for piece in rest.chunks(128 << 10) {
                    std::thread::sleep(Duration::from_millis(300));
                    if done.load(Relaxed) || writer.write_all(piece).is_err() {
                        break;
                    }
                }
            });
        }
        for _ in 0..3 {
            phone.write(&text(&image));
            let come = agent.stream.peek(&mut [0]).is_ok() && agent.text() == image;
            assert!(come, "{}", relay.log());
        }
        done.store(true, Relaxed);
    });
    assert!(!relay.log().contains("message took too long"), "{}", relay.log());
}

#[test]
fn small_messages_in_fragments_need_no_memory_of_large_ones() {
    let relay = Relay::start(&BUDGET);
    let token = relay.token();
    let mut agent = Client::authed(&relay, &token, "agent");
    let mut phone = Raw::authed(&relay, &token, "phone");
    agent.expect("status");
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (token, message) = (relay.token(), text(&sized("file.whole", 5 << 20)));
        let mut other = Raw::authed(&relay, &token, "phone");
        begin(&mut other, &message[..100_000]);
        waiting.push(other);
    }
    let message = numbered("chat.send", 1);
    phone.write(&frame(false, 1, &message.as_bytes()[..20]));
    phone.write(&frame(true, 0, &message.as_bytes()[20..]));
    assert_eq!(agent.text(), message);
}

#[test]
fn who_waits_first_is_served_first_though_the_next_one_wants_less() {
    let relay = Relay::start(&BUDGET);
    let [(mut holding_agent, mut holding), first, second] = pairs(&relay);
    let whole = text(&sized("file.whole", 5 << 20));
    let (begun, rest) = whole.split_at(200_000);
    let sizes = [4 << 20, 2 << 20];
    // Made before, because a client that holds memory must not be slow.
    let messages = sizes.map(|bytes| text(&sized("chat.send", bytes)));
    begin(&mut holding, begun);
    let mut waiting = [first, second];
    for ((_, phone), message) in waiting.iter_mut().zip(messages) {
        begin(phone, &message[..100_000]);
        let mut stream = phone.stream.try_clone().unwrap();
        std::thread::spawn(move || stream.write_all(&message[100_000..]));
    }
    holding.write(rest);
    assert_eq!(holding_agent.text().len(), 5 << 20);
    let came = std::thread::scope(|scope| {
        let read = waiting.each_mut().map(|(agent, _)| {
            scope.spawn(|| {
                agent.stream.peek(&mut [0]).unwrap();
                (Instant::now(), agent.text().len())
            })
        });
        read.map(|thread| thread.join().unwrap())
    });
    assert!(came[0].0 < came[1].0, "{came:?}");
    assert_eq!(came.map(|(_, bytes)| bytes), sizes);
}
