//! Peers that take nothing: their peer is slowed, nobody else is, memory stays bounded, and in the end they go.

use crate::harness::{Client, PING, Raw, Relay, frame, number_of, numbered, sized, text};
use serde_json::json;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// More than one connection may ever make the relay hold: both directions' outboxes, messages under way, and slack.
const MEMORY_GROWTH_MAX: usize = 40 << 20;

/// Moves messages of a second pair until `done`: how many round trips, and the slowest.
fn round_trips(relay: &Relay, token: &str, done: &AtomicBool) -> usize {
    let mut agent = Client::authed(relay, token, "agent");
    let mut phone = Client::authed(relay, token, "phone");
    agent.expect("status");
    let mut count = 0;
    while !done.load(Relaxed) {
        phone.send(numbered("chat.send", count));
        assert_eq!(agent.text(), numbered("chat.send", count));
        agent.send(numbered("chat.done", count));
        assert_eq!(phone.text(), numbered("chat.done", count));
        count += 1;
    }
    count
}

#[test]
fn who_fills_a_stuck_peer_is_slowed_and_others_of_the_shard_are_not_until_the_stuck_one_is_closed() {
    const MESSAGES: usize = 800;
    const MESSAGE_BYTES: usize = 100_000;
    let relay = Relay::start(&["--write-timeout", "2s"]);
    let [stuck_token, other_token] = relay.tokens_of_a_shard();
    let mut agent = Raw::authed(&relay, &stuck_token, "agent");
    let mut phone = Raw::authed_narrow(&relay, &stuck_token, "phone");
    assert_eq!(agent.json()["type"], "status");
    let (offline, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let memory_before = relay.memory_bytes();
    std::thread::scope(|scope| {
        let mut writer = agent.stream.try_clone().unwrap();
        let written = &written;
        scope.spawn(move || {
            let filler = sized("chat.done", MESSAGE_BYTES);
            for number in 0..MESSAGES {
                writer.write_all(&text(&filler.replacen("big", &format!("n-{number}"), 1))).unwrap();
                written.store(number + 1, Relaxed);
            }
        });
        let others = scope.spawn(|| round_trips(&relay, &other_token, &offline));
        let memory = scope.spawn(|| {
            let mut most = 0;
            while !offline.load(Relaxed) {
                most = most.max(relay.memory_bytes());
            }
            most
        });
        // The stuck phone is given up, and the agent is told so. What it had to wait with until then is refused.
        let status = agent.json();
        let written_until_then = written.load(Relaxed);
        offline.store(true, Relaxed);
        assert_eq!((&status["type"], &status["payload"]["peer"]), (&json!("status"), &json!("offline")));
        assert!(written_until_then < MESSAGES, "the sender was not slowed");
        let round_trips = others.join().unwrap();
        assert!(round_trips >= 20, "{round_trips} round trips of another pair meanwhile");
        let most = memory.join().unwrap();
        assert!(most < memory_before + MEMORY_GROWTH_MAX, "{memory_before} bytes of memory grew to {most}");
        let first = number_of(&agent.json());
        assert!(first > 0 && first < MESSAGES);
        for number in first + 1..MESSAGES {
            let error = agent.json();
            assert_eq!((&error["payload"]["code"], number_of(&error)), (&json!("PEER_OFFLINE"), number));
        }
        // What the phone had been sent is a beginning of what the agent sent, whole messages and perhaps a part.
        let mut seen = 0;
        while let Some((_, _, payload)) = phone.frame() {
            let id = format!(r#""id":"n-{seen}""#);
            assert!(payload[..60].windows(id.len()).any(|bytes| bytes == id.as_bytes()), "message {seen}");
            seen += 1;
        }
        assert!(seen <= first, "{seen} arrived, although {first} was refused");
    });
    let mut phone = Client::authed(&relay, &stuck_token, "phone");
    phone.expect_nothing();
}

#[test]
fn a_peer_that_reads_again_in_time_gets_everything() {
    const MESSAGES: usize = 300;
    let relay = Relay::start(&["--write-timeout", "60s"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let mut phone = Raw::authed_narrow(&relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    let filler = sized("chat.done", 50_000);
    let message = |number: usize| filler.replacen("big", &format!("n-{number}"), 1);
    let written = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (mut writer, written) = (agent.stream.try_clone().unwrap(), &written);
        let message = &message;
        scope.spawn(move || {
            for number in 0..MESSAGES {
                writer.write_all(&text(&message(number))).unwrap();
                written.store(number + 1, Relaxed);
            }
        });
        // Stuck: the sender comes no further.
        let (mut last, mut since) = (0, Instant::now());
        while since.elapsed().as_millis() < 500 {
            let now = written.load(Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            std::thread::yield_now();
        }
        for number in 0..MESSAGES {
            assert!(phone.text() == message(number), "message {number}");
        }
    });
}

#[test]
fn a_flood_of_pings_and_bad_messages_is_slowed_and_takes_little_memory() {
    const FLOOD_BYTES_MAX: usize = 64 << 20;
    for (label, piece) in [
        ("pings", frame(true, PING, &[b'p'; 125])),
        ("short pings", frame(true, PING, b"")),
        ("empty messages", frame(true, 1, b"")),
        ("json pings", text(r#"{"type":"ping"}"#)),
        ("messages to nobody", text(&numbered("chat.send", 1))),
    ] {
        let relay = Relay::start(&["--write-timeout", "2s"]);
        let [token, other_token] = relay.tokens_of_a_shard();
        let mut other = Client::authed(&relay, &other_token, "agent");
        // With its usual receive buffer: with a tiny one, two kernels may drop each other's segments and back off for
        // minutes, though the relay has nothing queued.
        let mut flooder = Raw::authed(&relay, &token, "phone");
        flooder.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let memory_before = relay.memory_bytes();
        let block: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * (100_000 / piece.len())).collect();
        let (mut sent, mut most) = (0, 0);
        // What is answered is read more and more slowly, so that in the end nothing more can be sent for a while.
        while flooder.stream.write_all(&block).is_ok() {
            sent += block.len();
            most = most.max(relay.memory_bytes());
            assert!(sent < FLOOD_BYTES_MAX, "{label}: never slowed");
        }
        other.expect_nothing();
        assert!(relay.online(&token) == (true, false), "{label}: slowed, and not cut off");
        println!("{label}: {sent} bytes, memory {memory_before} to {most}");
        assert!(most < memory_before + MEMORY_GROWTH_MAX, "{label}: {memory_before} bytes of memory grew to {most}");
    }
}

#[test]
fn who_reads_a_few_bytes_now_and_then_does_not_hold_a_large_message_for_ever() {
    let relay = Relay::start(&["--write-timeout", "2s"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let mut phone = Raw::authed_narrow(&relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // More than nothing, and less than what would end in minutes.
            let mut some = [0; 10 << 10];
            while !gone.load(Relaxed) && phone.stream.read_exact(&mut some).is_ok() {
                std::thread::sleep(Duration::from_millis(900));
            }
        });
        agent.write(&text(&sized("chat.done", 5 << 20)));
        assert_eq!(agent.json()["payload"]["peer"], "offline");
        gone.store(true, Relaxed);
    });
    assert!(relay.log().contains("slow_consumer"), "{}", relay.log());
}

#[test]
fn messages_that_a_stuck_client_did_not_take_are_not_told_as_delivered_and_refused() {
    let relay = Relay::start(&["--write-timeout", "2s"]);
    let token = relay.token();
    let mut agent = Raw::authed(&relay, &token, "agent");
    let mut phone = Raw::authed_narrow(&relay, &token, "phone");
    assert_eq!(agent.json()["type"], "status");
    let mut writer = agent.stream.try_clone().unwrap();
    let mut refused = HashSet::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let filler = sized("chat.done", 9_000);
            for number in 0..3000 {
                writer.write_all(&text(&filler.replacen("big", &format!("n-{number}"), 1))).unwrap();
            }
            writer.write_all(&text(r#"{"type":"ping"}"#)).unwrap();
        });
        assert_eq!(agent.json()["payload"]["peer"], "offline");
        loop {
            let message = agent.json();
            if message["type"] == "pong" {
                break;
            }
            assert!(refused.insert(number_of(&message)), "refused twice: {message}");
        }
    });
    while let Some((_, _, payload)) = phone.frame() {
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert!(!refused.contains(&number_of(&message)), "arrived and refused");
    }
    assert!(!refused.is_empty());
}
